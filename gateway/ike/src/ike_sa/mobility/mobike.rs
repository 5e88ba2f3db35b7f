//! MOBIKE (RFC 4555): the end that began the first IKE SA chooses the addresses and says so; the
//! other follows when it has seen that the peer is where it says.

use core::net::IpAddr;
use core::time::Duration;
use std::time::Instant;

use gateway_wire::{Notify, NotifyType, Payload};

use super::addresses::{Said, Told, additional, other_paths, said, told};
use crate::config::{Mode, PeerConfig};
use crate::counters::Counter;
use crate::event::EventKind;
use crate::ike_sa::{ChildState, IkeSa, Job, State, notify};
use crate::io::{Done, Ends, KernelCommand, KernelError, Path};
use crate::shared::{Owner, Purpose, Shared};
use crate::time::{after, earlier};

/// Octets of our COOKIE2; 8 to 64 are allowed (RFC 4555 4.2.5).
pub(in crate::ike_sa) const COOKIE_LEN: usize = 16;
/// After this many retransmissions the initiator tries its request on other paths too.
pub(in crate::ike_sa) const PATIENCE: u32 = 2;
/// How long the other end repeats its requests at the least; what RFC 4555 3.11 suggests.
const LONG_PATIENCE: Duration = Duration::from_secs(300);
/// How long to wait before the routing table is asked again for an address, while there is none.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often it is asked whether it leads by another address of ours now, after those have changed;
/// each time after twice the wait: routes by a new address come later than itself.
const LOOKS: u32 = 5;

/// What is kept of an IKE SA on which both ends speak MOBIKE.
#[derive(Debug)]
pub(crate) struct Mobike {
    /// Whether we choose the addresses: we began the first IKE SA, whoever has rekeyed it since
    /// (RFC 4555 1.3).
    pub(in crate::ike_sa) decides: bool,
    /// Where else the peer is, as it has said last.
    pub(crate) peer_addresses: Vec<IpAddr>,
    /// Where else we are, as we have said last.
    pub(super) said: Vec<IpAddr>,
    /// The hash (SHA-1) of our address and port as the peer has seen them last.
    pub(super) seen_as: Option<[u8; 20]>,
    /// Between which addresses ESP goes, while that is not where IKE goes: until the peer has shown
    /// that it is where it says, or has heard where we are.
    pub(super) unproven: Option<Ends>,
    /// How often in a row the peer has met a NAT where none may be.
    pub(super) nats_met: u32,
    /// Whether the peer has said under the keys in use by which path it goes on, and where else it
    /// is.
    pub(super) heard_update: bool,
    pub(super) heard_addresses: bool,
    /// Whether the peer may not have the keys in use yet: we have answered for them, and heard
    /// nothing under them.
    pub(in crate::ike_sa) unconfirmed: bool,
    /// Whether the request under way has been sent by other paths than the one in use, too.
    pub(super) tried_elsewhere: bool,
    /// Our address is gone: when to ask for another, and how often that has been in vain.
    homeless: Option<(Instant, usize)>,
    /// When to ask whether another address of ours is the better one, and how often we have.
    looking: Option<(Instant, u32)>,
    /// The address of ours that we have come from. If it is ours still, the peer may send there
    /// until it has followed.
    left: Option<IpAddr>,
}

impl Mobike {
    /// When the routing table is to be asked again.
    pub(in crate::ike_sa) fn due(&self) -> Option<Instant> {
        let looking = self.looking.map(|(at, _)| at);
        earlier(self.homeless.map(|(at, _)| at), looking)
    }

    /// New keys: the hashes are of the SPIs, too, and the peer has said nothing under them yet.
    pub(in crate::ike_sa) fn rekeyed(&mut self, unconfirmed: bool) {
        self.seen_as = None;
        self.unconfirmed = unconfirmed;
        (self.heard_update, self.heard_addresses) = (false, false);
    }

    pub(in crate::ike_sa) const fn unproven(&self) -> Option<Ends> {
        self.unproven
    }

    /// Where else than at `here` the peer may be: as it has said last, then as the operator says.
    fn elsewhere(&self, peer: Option<&PeerConfig>, here: IpAddr) -> Vec<IpAddr> {
        let mut addresses = self.peer_addresses.clone();
        let configured = peer.into_iter().flat_map(PeerConfig::addresses);
        addresses.extend(configured.filter(|at| *at != here && !self.peer_addresses.contains(at)));
        addresses
    }

    /// The other paths on which the peer may be reached.
    fn others(&self, shared: &Shared, peer: Option<&PeerConfig>, path: Path) -> Vec<Path> {
        let is_fixed = peer.is_some_and(|peer| peer.local_address.is_some());
        let ours = if is_fixed { &[][..] } else { &shared.local_addresses };
        other_paths(path, ours, &self.elsewhere(peer, path.remote.ip()))
    }
}

/// What IKE_AUTH says of MOBIKE, beside the SA payload (RFC 4555 3.2, 3.4).
pub(in crate::ike_sa) fn announcement(shared: &Shared, peer: &PeerConfig, path: Path) -> Vec<Said> {
    if !peer.mobike {
        return Vec::new();
    }
    let others = additional(shared, peer, path.local.ip());
    let others = if others.is_empty() { Vec::new() } else { said(&others) };
    core::iter::once((NotifyType::MOBIKE_SUPPORTED, Vec::new())).chain(others).collect()
}

/// The payloads that say it.
pub(in crate::ike_sa) fn payloads(said: &[Said]) -> impl Iterator<Item = Payload<'_>> {
    said.iter().map(|(kind, data)| notify(*kind, data))
}

impl IkeSa {
    /// Both ends are authenticated; these are the notifications that the peer has sent beside its
    /// SA payload.
    pub(in crate::ike_sa) fn agree_on_mobike(
        &mut self,
        shared: &mut Shared,
        notifies: &[Notify<'_>],
        decides: bool,
    ) {
        let Some(peer) = self.peer.as_ref().filter(|peer| peer.mobike) else { return };
        let State::Established(established) = &mut self.state else { return };
        // What stands in it, if anything, means nothing (RFC 4555 4.2.1).
        if !notifies.iter().any(|n| n.kind == NotifyType::MOBIKE_SUPPORTED) {
            return;
        }
        let Told { addresses, too_many } =
            told(shared.config.peer_address_limit, notifies).unwrap_or_default();
        if too_many {
            shared.count(Counter::AddressesLeftOut);
        }
        established.mobike = Some(Box::new(Mobike {
            decides,
            peer_addresses: addresses,
            said: additional(shared, peer, self.path.local.ip()),
            seen_as: None,
            unproven: None,
            nats_met: 0,
            heard_update: false,
            heard_addresses: false,
            unconfirmed: false,
            tried_elsewhere: false,
            homeless: None,
            looking: None,
            left: None,
        }));
    }

    pub(crate) fn mobike(&self) -> Option<&Mobike> {
        if let State::Established(established) = &self.state {
            established.mobike.as_deref()
        } else {
            None
        }
    }

    pub(super) fn mobike_mut(&mut self) -> Option<&mut Mobike> {
        if let State::Established(established) = &mut self.state {
            established.mobike.as_deref_mut()
        } else {
            None
        }
    }

    /// Whether the peer sees us elsewhere than before, behind our NAT, by the hash that it tells.
    pub(super) fn is_mapped_anew(&self, seen: &[u8]) -> bool {
        let before = self.mobike().and_then(|mobike| mobike.seen_as.as_ref());
        self.negotiated().1.local && before.is_none_or(|before| before != seen)
    }

    pub(super) fn is_ours_to_choose(&self) -> bool {
        self.mobike().is_some_and(|mobike| mobike.decides)
    }

    /// Does this before all else that waits: ESP waits for it.
    pub(in crate::ike_sa) fn want(&mut self, job: Job) {
        if !self.jobs.contains(&job) {
            self.jobs.push_front(job);
        }
    }

    /// We go on by another path, and tell the peer. ESP goes to another address of the peer when it
    /// has shown that it is there (RFC 4555 3.7).
    ///
    /// `gently`: the path that we leave still carries.
    pub(super) fn go(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        (why, gently): (&'static str, bool),
    ) {
        let (before, left) = (self.ends(&shared.config), self.path.remote.ip());
        let (new, ours) = (path.remote.ip(), self.path.local.ip());
        if let Some(mobike) = self.mobike_mut() {
            mobike.tried_elsewhere = false;
            if ours != path.local.ip() {
                mobike.left = Some(ours);
            }
            mobike.unproven = (new != before.remote).then_some(before);
            // Where it was it may be again.
            if left != new {
                mobike.peer_addresses.retain(|address| ![left, new].contains(address));
                let most = shared.config.peer_address_limit;
                mobike.peer_addresses.truncate(most.saturating_sub(1));
                mobike.peer_addresses.push(left);
            }
        }
        self.change_path(shared, path, why);
        self.move_children(now, shared, before, gently);
        self.want(Job::UpdateAddresses);
        self.say_under_old_keys(shared, true);
        if ours != path.local.ip() && self.left_behind(shared).is_some() {
            self.renew_children(now, shared);
        }
    }

    /// The address of ours that we have come from, if the peer may still reach us there.
    pub(in crate::ike_sa) fn left_behind(&self, shared: &Shared) -> Option<IpAddr> {
        let here = self.path.local.ip();
        let left = self.mobike().and_then(|mobike| mobike.left)?;
        let is_ours = left != here && shared.local_addresses.contains(&left);
        (is_ours && left.is_ipv4() == here.is_ipv4()).then_some(left)
    }

    /// The kernel's SAs may still be at the address that we have come from ([`KernelCommand`]'s
    /// `MoveChild`), which may go any time: those that are made now are not.
    fn renew_children(&mut self, now: Instant, shared: &mut Shared) {
        let renewed: Vec<_> = self
            .children()
            .filter(|c| c.state == ChildState::Installed && c.mode == Mode::Tunnel && !c.redundant)
            .map(|c| c.id)
            .collect();
        for child in renewed {
            self.want_successor(now, shared, child);
        }
    }

    /// An authentic response has come by a path: if it is another one than that in use, we have
    /// tried it because that one was silent.
    pub(super) fn answered_by(&mut self, now: Instant, shared: &mut Shared, path: Path) {
        let Some(mobike) = self.mobike_mut().filter(|mobike| mobike.decides) else { return };
        // Else it answers what was sent before we went on, and that path need not be the better one.
        if !core::mem::take(&mut mobike.tried_elsewhere) {
            return;
        }
        let Some(mobike) = self.mobike() else { return };
        if path != self.path
            && mobike.others(shared, self.peer.as_deref(), self.path).contains(&path)
        {
            self.go(now, shared, path, ("the path in use is silent, and this one is not", false));
        }
    }

    /// How long a request is repeated in any case. A peer that may come from anywhere, and that we
    /// cannot reach by ourselves, gets the time to find out that its path is dead (RFC 4555 3.11).
    pub(in crate::ike_sa) fn least_patience(&self) -> Duration {
        let roams = self.peer.as_ref().is_some_and(|peer| peer.remote_address.is_none());
        let waits = roams && self.mobike().is_some_and(|mobike| !mobike.decides);
        if waits { LONG_PATIENCE } else { Duration::ZERO }
    }

    /// By which path a request is sent again: if it has been in vain for some time, by each in
    /// turn that may lead to the peer.
    pub(in crate::ike_sa) fn path_of_retransmission(&self, shared: &Shared, tries: u32) -> Path {
        let Some(mobike) = self.mobike().filter(|mobike| mobike.decides) else { return self.path };
        let Some(turn) = tries.checked_sub(PATIENCE.saturating_add(1)) else { return self.path };
        let mut paths = mobike.others(shared, self.peer.as_deref(), self.path);
        paths.push(self.path);
        let turn = usize::try_from(turn).unwrap_or(0);
        let at = turn.checked_rem(paths.len()).unwrap_or(0);
        paths.get(at).copied().unwrap_or(self.path)
    }

    /// Our addresses have changed (`changed`), or it is time to look for one again.
    pub(crate) fn addresses_changed(&mut self, now: Instant, shared: &mut Shared, changed: bool) {
        let Some(peer) = self.peer.clone().filter(|peer| peer.local_address.is_none()) else {
            return;
        };
        let path = self.path;
        let has_it = shared.local_addresses.contains(&path.local.ip());
        let others = additional(shared, &peer, path.local.ip());
        let Some(mobike) = self.mobike_mut() else { return };
        if has_it {
            mobike.homeless = None;
            if others != mobike.said {
                self.add_job(now, shared, Job::TellAddresses);
                self.say_under_old_keys(shared, false);
            }
            return self.look_around(now, shared, changed);
        }
        mobike.looking = None;
        let in_vain = mobike.homeless.map_or(0, |(_, in_vain)| in_vain);
        mobike.homeless = Some((after(now, LOOK_AGAIN), in_vain.saturating_add(1)));
        // To where the peer is, and in turn to where else it may be.
        let elsewhere = mobike.elsewhere(Some(&peer), path.remote.ip());
        let remotes: Vec<IpAddr> = core::iter::once(path.remote.ip()).chain(elsewhere).collect();
        let at = in_vain.checked_rem(remotes.len()).unwrap_or(0);
        let Some(remote) = remotes.get(at).copied() else { return };
        let owner = Owner::IkeSa(self.id, Purpose::NewAddress(remote));
        shared.command(owner, KernelCommand::FindLocalAddress { remote });
    }

    /// Asks the routing table whether it still leads to the peer from where we are: who comes to
    /// another network has both addresses for some time.
    fn look_around(&mut self, now: Instant, shared: &mut Shared, changed: bool) {
        let remote = self.path.remote.ip();
        let Some(mobike) = self.mobike_mut().filter(|mobike| mobike.decides) else { return };
        let looks = mobike.looking.map_or(LOOKS, |(_, looks)| looks);
        let looks = if changed { 0 } else { looks };
        let wait = LOOK_AGAIN.saturating_mul(1_u32.checked_shl(looks).unwrap_or(u32::MAX));
        let more = looks < LOOKS;
        mobike.looking = more.then(|| (after(now, wait), looks.saturating_add(1)));
        if more {
            let owner = Owner::IkeSa(self.id, Purpose::NewAddress(remote));
            shared.command(owner, KernelCommand::FindLocalAddress { remote });
        }
    }

    /// The routing table has said which of our addresses leads to the peer now.
    pub(in crate::ike_sa) fn new_address(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        remote: IpAddr,
        result: Result<Done, KernelError>,
    ) {
        let found = match result {
            Ok(Done::LocalAddress(local)) => Some(local),
            Ok(Done::Ok | Done::Use(_)) | Err(_) => None,
        };
        let found = found.filter(|local| shared.local_addresses.contains(local));
        let at_home = self.mobike().is_some_and(|mobike| mobike.homeless.is_none());
        if at_home {
            let mut path = self.path;
            let stays = |local: &IpAddr| *local == path.local.ip() || remote != path.remote.ip();
            if let Some(local) = found.filter(|local| !stays(local))
                && self.is_ours_to_choose()
            {
                path.local.set_ip(local);
                let why = "the routing table leads to the peer from another address of ours";
                self.go(now, shared, path, (why, true));
                self.next_job(now, shared);
            }
            return;
        }
        let Some(local) = found else {
            // Said once: it is asked for again every second.
            if self.mobike().and_then(|mobike| mobike.homeless).is_some_and(|(_, asked)| asked == 1)
            {
                shared.count(Counter::AddressLost);
                let left = self.path.local.ip();
                self.event(shared, EventKind::AddressLost { left, remote });
            }
            return;
        };
        let (mut path, before) = (self.path, self.ends(&shared.config));
        let Some(mobike) = self.mobike_mut() else { return };
        mobike.homeless = None;
        path.local.set_ip(local);
        path.remote.set_ip(remote);
        if mobike.decides {
            self.go(now, shared, path, ("our address is gone", false));
        } else {
            // The initiator decides, and hears from where we are; ESP waits for its word.
            mobike.unproven = Some(before);
            self.path.local = path.local;
            self.want(Job::TellAddresses);
            self.say_under_old_keys(shared, false);
        }
        self.next_job(now, shared);
    }
}
