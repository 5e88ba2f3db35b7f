//! MOBIKE (RFC 4555): the end that began the first IKE SA chooses the addresses and says so; the
//! other follows when it has seen that the peer is where it says.

use core::net::IpAddr;
use core::time::Duration;
use std::time::Instant;

use gateway_wire::{Notify, NotifyType, Payload};

use super::addresses::{MOST_ADDRESSES, Said, Told, additional, other_paths, said, told};
use crate::config::PeerConfig;
use crate::counters::Counter;
use crate::event::EventKind;
use crate::ike_sa::{IkeSa, Job, State, notify};
use crate::io::{Done, Ends, KernelCommand, KernelError, Path};
use crate::shared::{Owner, Purpose, Shared};
use crate::time::after;

/// Octets of our COOKIE2; 8 to 64 are allowed (RFC 4555 4.2.5).
pub(in crate::ike_sa) const COOKIE_LEN: usize = 16;
/// After this many retransmissions the initiator tries its request on other paths too.
pub(in crate::ike_sa) const PATIENCE: u32 = 2;
/// How long the other end repeats its requests at the least; what RFC 4555 3.11 suggests.
const LONG_PATIENCE: Duration = Duration::from_secs(300);
/// How long to wait before the routing table is asked again for an address, while there is none.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    /// The hash of our address and port as the peer has seen them last.
    pub(super) seen_as: Option<Vec<u8>>,
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
    /// Our address is gone: when to ask for another, and how often that has been in vain.
    homeless: Option<(Instant, usize)>,
}

impl Mobike {
    /// When the routing table is to be asked again.
    pub(in crate::ike_sa) fn due(&self) -> Option<Instant> {
        self.homeless.map(|(at, _)| at)
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
        let Told { addresses, too_many } = told(notifies).unwrap_or_default();
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
            homeless: None,
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
    pub(super) fn go(&mut self, now: Instant, shared: &mut Shared, path: Path, why: &'static str) {
        let (before, left) = (self.ends(&shared.config), self.path.remote.ip());
        let new = path.remote.ip();
        if let Some(mobike) = self.mobike_mut() {
            mobike.unproven = (new != before.remote).then_some(before);
            // Where it was it may be again.
            if left != new {
                mobike.peer_addresses.retain(|address| ![left, new].contains(address));
                mobike.peer_addresses.truncate(MOST_ADDRESSES.saturating_sub(1));
                mobike.peer_addresses.push(left);
            }
        }
        self.change_path(shared, path, why);
        self.move_children(now, shared, before);
        self.want(Job::UpdateAddresses);
        self.say_under_old_keys(shared, true);
    }

    /// An authentic response has come by a path: if it is another one than that in use, we have
    /// tried it because that one was silent.
    pub(super) fn answered_by(&mut self, now: Instant, shared: &mut Shared, path: Path) {
        let Some(mobike) = self.mobike().filter(|mobike| mobike.decides) else { return };
        if path != self.path
            && mobike.others(shared, self.peer.as_deref(), self.path).contains(&path)
        {
            self.go(now, shared, path, "the path in use is silent, and this one is not");
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

    /// Our addresses have changed, or it is time to look for one again.
    pub(crate) fn addresses_changed(&mut self, now: Instant, shared: &mut Shared) {
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
            return;
        }
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
            Ok(Done::Ok | Done::Use { .. }) | Err(_) => None,
        };
        let found = found.filter(|local| shared.local_addresses.contains(local));
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
        if mobike.homeless.take().is_none() {
            return;
        }
        path.local.set_ip(local);
        path.remote.set_ip(remote);
        if mobike.decides {
            self.go(now, shared, path, "our address is gone");
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
