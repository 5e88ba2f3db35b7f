//! The interfaces below us, which come and go while the gateway runs.
//!
//! An underlay that is deleted takes the BPF programs with it; when one of its name is back, the
//! programs must be attached before it carries anything. The XFRM interface is ours: it is made
//! anew. With either go routes of ours.

#[cfg(test)]
mod tests;

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use gateway_ike::io::Selector;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket, protocols::NETLINK_ROUTE};
use tracing::{error, info, warn};

use super::bpf::{Attached, TcMode, XdpMode};
use super::claims::Owner;
use super::linux::LinuxKernel;
use super::netlink::{Message, messages};
use super::network::Interface;
use super::overhead::Overhead;
use super::setup::{self, nat_feature};
use crate::clock;

/// `RTNLGRP_LINK` of linux/rtnetlink.h.
const RTNLGRP_LINK: u32 = 1;
/// `RTNLGRP_IPV4_IFADDR`.
const RTNLGRP_IPV4_IFADDR: u32 = 5;
/// `RTNLGRP_IPV6_IFADDR`.
const RTNLGRP_IPV6_IFADDR: u32 = 9;
/// `RTM_NEWADDR`: an interface has an address, or something of that has changed.
const RTM_NEWADDR: u16 = 20;
/// `RTM_DELADDR`: an interface has an address no more.
const RTM_DELADDR: u16 = 21;
/// `RTM_NEWLINK`: an interface is new, or something of it has changed.
const RTM_NEWLINK: u16 = 16;
/// `RTM_DELLINK`: an interface has left the namespace.
const RTM_DELLINK: u16 = 17;
/// Octets that one receive call can take: more than the kernel puts into one datagram.
const RECEIVE_LEN: usize = 64 * 1024;

/// How long to wait before looking again for what is not there yet: the addresses and routes of an
/// interface follow a little later than itself.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often to look again for the way to a peer.
const LOOKS: u32 = 60;

/// What has changed among the interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Interfaces that left, by index. Another one may have the index by now.
    pub gone: BTreeSet<u32>,
    /// Events were lost: anything may have happened.
    pub lost: bool,
}

/// Listens to the kernel's events about interfaces.
pub(super) struct LinkEvents {
    socket: TokioSocket,
    datagram: Vec<u8>,
}

impl LinkEvents {
    /// Starts listening in the network namespace of the calling thread, on the current tokio
    /// runtime.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(Self { socket, datagram: Vec::with_capacity(RECEIVE_LEN) })
    }

    /// Waits until something changes. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<LinkChange> {
        loop {
            self.datagram.clear();
            match self.socket.recv_from(&mut self.datagram).await {
                // Port 0 is the kernel; nobody else has a say.
                Ok(sender) if sender.port_number() != 0 => {}
                Ok(_kernel) => {
                    if let Some(change) = change(&self.datagram) {
                        return Ok(change);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(LinkChange { lost: true, ..LinkChange::default() });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What a datagram of the kernel tells; `None` if it concerns no interface and no address.
fn change(datagram: &[u8]) -> Option<LinkChange> {
    // Which addresses there are now is asked of the kernel.
    let mut told =
        messages(datagram).any(|message| matches!(message.kind, RTM_NEWADDR | RTM_DELADDR));
    let mut gone = BTreeSet::new();
    for (is_gone, index) in messages(datagram).filter_map(|message| link(&message)) {
        told = true;
        // What is new, or changed, is seen when the interfaces are compared.
        if is_gone {
            gone.insert(index);
        }
    }
    told.then_some(LinkChange { gone, lost: false })
}

/// Whether an interface has left, and its index (`struct ifinfomsg`).
fn link(message: &Message<'_>) -> Option<(bool, u32)> {
    let is_gone = match message.kind {
        RTM_NEWLINK => false,
        RTM_DELLINK => true,
        _ => return None,
    };
    let [family, _, _, _, i0, i1, i2, i3, ..] = *message.body.first_chunk::<8>()?;
    // A bridge tells so of a port that leaves it, which is still there.
    (i32::from(family) == libc::AF_UNSPEC).then(|| (is_gone, u32::from_ne_bytes([i0, i1, i2, i3])))
}

/// How one interface fares, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Its name.
    pub name: String,
    /// Its index, while it is there.
    pub index: Option<u32>,
    /// Whether it is the XFRM interface, or an underlay.
    pub is_xfrm: bool,
    /// How the BPF programs are attached to an underlay.
    pub attached: Option<Attached>,
    /// What is wrong with it, and what follows.
    pub problem: Option<String>,
}

/// What we know of the interfaces.
#[derive(Debug, Default)]
pub(super) struct Links {
    underlays: Vec<Underlay>,
    /// The MTU of the XFRM interface.
    mtu: u32,
    /// What is wrong with the XFRM interface.
    problem: Option<String>,
    /// Which routes were asked for, so that they can be set again.
    wishes: BTreeMap<Owner, RouteWish>,
    /// How often to look for ways to the peers still, before the routes that are missing stay so.
    looks: u32,
}

#[derive(Debug)]
struct Underlay {
    name: String,
    state: State,
}

/// What became of an underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The programs are attached.
    Guarded { index: u32, attached: Attached, up: bool },
    /// It is there, but the programs could not be attached.
    Unguarded { index: u32, why: String },
    /// It is not there.
    Gone,
}

/// What is to be done about an underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nothing.
    Nothing,
    /// It is as it was, but came up, so that its routes have to be looked after.
    Routes,
    /// The programs must be attached.
    Guard,
    /// It has gone: that must be said.
    Notice,
}

impl State {
    /// What follows from what is there now: the index of the interface, and whether it is up.
    fn need(&self, found: Option<(u32, bool)>, change: &LinkChange) -> Need {
        match (self, found) {
            (Self::Guarded { index, up, .. }, Some((now, is_up)))
                if *index == now && !change.gone.contains(index) && !change.lost =>
            {
                if is_up && !up { Need::Routes } else { Need::Nothing }
            }
            (_, Some(_)) => Need::Guard,
            (Self::Gone, None) => Need::Nothing,
            (Self::Guarded { .. } | Self::Unguarded { .. }, None) => Need::Notice,
        }
    }

    const fn index(&self) -> Option<u32> {
        match self {
            Self::Guarded { index, .. } | Self::Unguarded { index, .. } => Some(*index),
            Self::Gone => None,
        }
    }
}

/// The routes that a trap or Child SA wants.
#[derive(Debug, Clone)]
pub(super) struct RouteWish {
    pub(super) peer: IpAddr,
    pub(super) overhead: Overhead,
    pub(super) selectors: Vec<(Selector, u32)>,
    /// Whether the peer has assigned us an address for this traffic.
    pub(super) assigned: bool,
}

impl Links {
    /// After the start: every underlay is there and guarded.
    pub(super) fn new(underlays: Vec<(Interface, Attached)>, mtu: u32) -> Self {
        let guarded = |(Interface { name, index, up, .. }, attached)| Underlay {
            name,
            state: State::Guarded { index, attached, up },
        };
        Self { underlays: underlays.into_iter().map(guarded).collect(), mtu, ..Self::default() }
    }

    /// Remembers what routes an owner wants.
    pub(super) fn wish(&mut self, owner: Owner, wish: RouteWish) {
        self.wishes.insert(owner, wish);
    }

    /// What an owner has wished for.
    pub(super) fn wish_of(&self, owner: Owner) -> Option<&RouteWish> {
        self.wishes.get(&owner)
    }

    /// How many wishes there are.
    pub(super) fn wishes(&self) -> usize {
        self.wishes.len()
    }

    /// Takes out what is wanted by those that are still there.
    pub(super) fn take_wishes(
        &mut self,
        is_there: impl Fn(&Owner) -> bool,
    ) -> BTreeMap<Owner, RouteWish> {
        let mut wishes = core::mem::take(&mut self.wishes);
        wishes.retain(|owner, _| is_there(owner));
        wishes
    }

    /// Puts it back.
    pub(super) fn set_wishes(&mut self, wishes: BTreeMap<Owner, RouteWish>) {
        self.wishes = wishes;
    }

    /// Whether XDP sees whatever comes by any underlay.
    pub(super) fn have_xdp(&self) -> bool {
        self.by_xdp().iter().all(|(_, has_xdp)| *has_xdp)
    }

    /// The underlays that are there, and whether XDP sees what comes by them.
    pub(super) fn by_xdp(&self) -> Vec<(&str, bool)> {
        let has_xdp = |state: &State| match state {
            State::Guarded { attached, .. } => Some(attached.xdp != XdpMode::None),
            State::Unguarded { .. } => Some(false),
            State::Gone => None,
        };
        let known = |u: &'_ Underlay| has_xdp(&u.state);
        self.underlays.iter().filter_map(|u| Some((u.name.as_str(), known(u)?))).collect()
    }

    fn guarded(&self) -> Vec<&str> {
        let guarded = self.underlays.iter().filter(|u| matches!(u.state, State::Guarded { .. }));
        guarded.map(|underlay| underlay.name.as_str()).collect()
    }

    /// Every interface of ours with what is known of it.
    pub(super) fn status(&self, xfrm_interface: &str, index: u32) -> Vec<LinkStatus> {
        let underlay = |underlay: &Underlay| {
            let (attached, problem) = match &underlay.state {
                State::Guarded { attached, .. } => (Some(*attached), None),
                State::Unguarded { why, .. } => (None, Some(format!("not guarded: {why}"))),
                State::Gone => (None, Some(GONE.to_owned())),
            };
            LinkStatus {
                name: underlay.name.clone(),
                index: underlay.state.index(),
                is_xfrm: false,
                attached,
                problem,
            }
        };
        let xfrm = LinkStatus {
            name: xfrm_interface.to_owned(),
            index: self.problem.is_none().then_some(index),
            is_xfrm: true,
            attached: None,
            problem: self.problem.clone(),
        };
        self.underlays.iter().map(underlay).chain([xfrm]).collect()
    }
}

const GONE: &str = "there is no such interface";

impl LinuxKernel {
    /// Compares the interfaces with what was there before: guards an underlay that is new, makes
    /// the XFRM interface anew if it is gone, and sets the routes again that went with either.
    /// Gives the time after which to do so again, because something is still missing.
    pub async fn check_links(&mut self, change: &LinkChange) -> Option<Duration> {
        self.tell_local().await;
        if let Some(nat) = &mut self.tables.nat {
            let outcome = nat.check(&mut self.tables.data_path, &self.tables.complaints);
            if let Some(outcome) = outcome {
                self.capabilities.set(nat_feature(outcome.err().as_ref()));
            }
        }
        let mut has_changed = false;
        for place in 0..self.links.underlays.len() {
            has_changed |= self.check_underlay(place, change).await;
        }
        self.tell_of_esp();
        has_changed |= self.check_xfrm_interface(change).await;
        if has_changed {
            self.links.looks = LOOKS;
        }
        if let Some(left) = self.links.looks.checked_sub(1) {
            let is_whole = self.restore_routes().await;
            self.links.looks = if is_whole { 0 } else { left };
            if !is_whole && left == 0 && self.tables.complaints.take(clock::now()) {
                warn!(
                    "There is still no way to some peers: routes of protected prefixes are missing"
                );
            }
        }
        (self.links.looks > 0 || self.links.problem.is_some()).then_some(LOOK_AGAIN)
    }

    /// Whether routes may be missing now.
    async fn check_underlay(&mut self, place: usize, change: &LinkChange) -> bool {
        let Some(Underlay { name, state }) = self.links.underlays.get(place) else { return false };
        let (name, before) = (name.clone(), state.clone());
        let found = match self.tables.network.interface(&name).await {
            Ok(found) => found,
            Err(error) => {
                if self.tables.complaints.take(clock::now()) {
                    warn!(interface = %name, %error, "Cannot look up the underlay");
                }
                return false;
            }
        };
        let there = found.as_ref().map(|found| (found.index, found.up));
        let need = before.need(there, change);
        let (after, has_changed) = match (need, before, found) {
            (Need::Nothing | Need::Routes, State::Guarded { index, attached, .. }, Some(now)) => {
                (State::Guarded { index, attached, up: now.up }, need == Need::Routes)
            }
            (Need::Guard, before, Some(now)) => (self.guard(&before, &now), true),
            (Need::Notice, before, _) => {
                self.lost(&name, before.index().unwrap_or_default()).await;
                (State::Gone, false)
            }
            (_, before, _) => (before, false),
        };
        if let Some(underlay) = self.links.underlays.get_mut(place) {
            underlay.state = after;
        }
        has_changed
    }

    /// Attaches the programs to an underlay that is there (again).
    fn guard(&mut self, before: &State, now: &Interface) -> State {
        let Interface { ref name, index, up, .. } = *now;
        if let Some(old) = before.index().filter(|old| *old != index) {
            self.forget(old);
        }
        match self.tables.data_path.attach(name) {
            Ok(attached) => {
                info!(
                    interface = %name, index, xdp = ?attached.xdp, tc = ?attached.tc,
                    "Underlay is there: BPF programs attached"
                );
                State::Guarded { index, attached, up }
            }
            Err(failure) => {
                let why = failure.to_string();
                // It is tried again with every event, and told once.
                if !matches!(before, State::Unguarded { why: told, .. } if *told == why) {
                    error!(
                        interface = %name, error = why,
                        "Underlay is NOT guarded: what rules protect may pass it in the clear"
                    );
                }
                State::Unguarded { index, why }
            }
        }
    }

    /// Says that an underlay is gone.
    async fn lost(&mut self, name: &str, index: u32) {
        if let Ok(Some(other)) = self.tables.network.interface_at(index).await {
            error!(
                interface = %name, now = %other.name,
                "Underlay has another name now, under which it stays guarded: name it in \
                 `interfaces` and restart the gateway"
            );
            return;
        }
        self.forget(index);
        error!(
            interface = %name,
            "Underlay is gone: no peer is reached over it until an interface of this name is \
             there, which is then guarded"
        );
    }

    fn forget(&mut self, index: u32) {
        if let Err(error) = self.tables.data_path.forget(index)
            && self.tables.complaints.take(clock::now())
        {
            warn!(index, %error, "Cannot remove what is pinned of an interface that is gone");
        }
    }

    /// Whether routes may be missing now.
    async fn check_xfrm_interface(&mut self, change: &LinkChange) -> bool {
        let (name, index) = (self.config.xfrm_interface.clone(), self.tables.xfrm_interface);
        let found = match self.tables.network.interface(&name).await {
            Ok(found) => found,
            Err(error) => {
                if self.tables.complaints.take(clock::now()) {
                    warn!(interface = %name, %error, "Cannot look up the XFRM interface");
                }
                return false;
            }
        };
        if let Some(found) = &found
            && found.index == index
            && !change.gone.contains(&index)
            && setup::is_ours(found, &self.config).is_ok()
            && !setup::has_lost_its_link(&self.tables.network, found).await
        {
            self.links.problem = None;
            return false;
        }
        match self.renew_xfrm_interface().await {
            Ok(()) => {
                self.links.problem = None;
                let (index, mtu) = (self.tables.xfrm_interface, self.links.mtu);
                warn!(interface = %name, index, mtu, "XFRM interface was gone: it is there again");
                true
            }
            Err(problem) => {
                if self.links.problem.as_ref() != Some(&problem) {
                    error!(
                        interface = %name, error = problem,
                        "XFRM interface is gone and cannot be made again: what rules protect is \
                         dropped until the gateway is restarted or this is mended"
                    );
                }
                self.links.problem = Some(problem);
                false
            }
        }
    }

    /// Makes the XFRM interface, if it can be under its old index, which the programs know; or
    /// tells them the new one.
    async fn renew_xfrm_interface(&mut self) -> Result<(), String> {
        let underlays = self.links.underlays.iter();
        let mut mtus = Vec::new();
        for Underlay { name, .. } in underlays {
            if let Ok(Some(underlay)) = self.tables.network.interface(name).await {
                mtus.push(underlay.mtu);
            }
        }
        let mtu = mtus.into_iter().min().map_or(self.links.mtu, setup::xfrm_mtu);
        let (network, config) = (&self.tables.network, &self.config);
        let wanted = Some(self.tables.xfrm_interface);
        let (made, _) = setup::xfrm_interface(network, config, mtu, wanted)
            .await
            .map_err(|error| error.to_string())?;
        if made.index != self.tables.xfrm_interface || mtu != self.links.mtu {
            let guarded = self.links.guarded();
            let steered = self.tables.data_path.steer_into((made.index, mtu), &guarded);
            self.follow_log();
            steered.map_err(|error| error.to_string())?;
            self.tables.xfrm_interface = made.index;
        }
        self.links.mtu = mtu;
        self.tables.restore_addresses().await;
        Ok(())
    }
}

impl core::fmt::Display for Attached {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let xdp = match self.xdp {
            XdpMode::Driver => "driver",
            XdpMode::Generic => "generic",
            XdpMode::None => "none",
        };
        write!(f, "XDP {xdp}, TC {}", self.tc)
    }
}

impl core::fmt::Display for TcMode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}
