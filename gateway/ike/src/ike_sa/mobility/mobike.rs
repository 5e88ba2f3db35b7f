//! MOBIKE (RFC 4555): the end that began the first IKE SA chooses the addresses and says so; the
//! other follows when it has seen that the peer is where it says.

use core::net::IpAddr;
use core::time::Duration;
use std::time::Instant;

use gateway_wire::{ExchangeType, Notify, NotifyType, Payload};

use super::addresses::{MOST_ADDRESSES, Said, additional, no_nats, other_paths, said, told};
use crate::channel::Opened;
use crate::config::PeerConfig;
use crate::counters::Counter;
use crate::error::Error;
use crate::event::EventKind;
use crate::ike_sa::jobs::Current;
use crate::ike_sa::{IkeSa, Job, State, notify};
use crate::io::{Done, Ends, KernelCommand, KernelError, Path};
use crate::natt;
use crate::payloads::Payloads;
use crate::shared::{Owner, Purpose, Shared};
use crate::time::after;

/// Octets of our COOKIE2; 8 to 64 are allowed (RFC 4555 4.2.5).
pub(in crate::ike_sa) const COOKIE_LEN: usize = 16;
/// After this many retransmissions the initiator tries its request on other paths too.
const PATIENCE: u32 = 2;
/// How long to wait before the routing table is asked again for an address, while there is none.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is kept of an IKE SA on which both ends speak MOBIKE.
#[derive(Debug)]
pub(crate) struct Mobike {
    /// Whether we choose the addresses: we began the first IKE SA, whoever has rekeyed it since
    /// (RFC 4555 1.3).
    decides: bool,
    /// Where else the peer is, as it has said last.
    pub(crate) peer_addresses: Vec<IpAddr>,
    /// Where else we are, as we have said last.
    said: Vec<IpAddr>,
    /// The hash of our address and port as the peer has seen them last.
    seen_as: Option<Vec<u8>>,
    /// Between which addresses ESP goes, while that is not where IKE goes: until the peer has shown
    /// that it is where it says, or has heard where we are.
    unproven: Option<Ends>,
    /// Our address is gone: when to ask for another, and how often that has been in vain.
    homeless: Option<(Instant, usize)>,
}

impl Mobike {
    /// When the routing table is to be asked again.
    pub(in crate::ike_sa) fn due(&self) -> Option<Instant> {
        self.homeless.map(|(at, _)| at)
    }

    /// New keys: the hashes are of the SPIs, too.
    pub(in crate::ike_sa) fn rekeyed(&mut self) {
        self.seen_as = None;
    }

    pub(super) const fn unproven(&self) -> Option<Ends> {
        self.unproven
    }

    /// The other paths on which the peer may be reached.
    fn others(&self, shared: &Shared, path: Path) -> Vec<Path> {
        other_paths(path, &shared.local_addresses, &self.peer_addresses)
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
        shared: &Shared,
        notifies: &[Notify<'_>],
        decides: bool,
    ) {
        let Some(peer) = self.peer.as_ref().filter(|peer| peer.mobike) else { return };
        let State::Established(established) = &mut self.state else { return };
        // What stands in it, if anything, means nothing (RFC 4555 4.2.1).
        if !notifies.iter().any(|n| n.kind == NotifyType::MOBIKE_SUPPORTED) {
            return;
        }
        established.mobike = Some(Box::new(Mobike {
            decides,
            peer_addresses: told(notifies).unwrap_or_default(),
            said: additional(shared, peer, self.path.local.ip()),
            seen_as: None,
            unproven: None,
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

    fn mobike_mut(&mut self) -> Option<&mut Mobike> {
        if let State::Established(established) = &mut self.state {
            established.mobike.as_deref_mut()
        } else {
            None
        }
    }

    fn is_ours_to_choose(&self) -> bool {
        self.mobike().is_some_and(|mobike| mobike.decides)
    }

    /// What the peer wants in an INFORMATIONAL request, done; gives what the answer says of it.
    pub(in crate::ike_sa) fn mobility_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        payloads: &Payloads<'_>,
    ) -> Vec<Said> {
        let Some(mobike) = self.mobike() else { return Vec::new() };
        let decides = mobike.decides;
        let mut answer = Vec::new();
        // RFC 4555 3.7: given back as it is.
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE2) {
            answer.push((NotifyType::COOKIE2, cookie.data.to_vec()));
        }
        let asks = |kind| payloads.notify(kind).is_some();
        if asks(NotifyType::NAT_DETECTION_SOURCE_IP)
            || asks(NotifyType::NAT_DETECTION_DESTINATION_IP)
        {
            let hashes = natt::hashes(self.initiator_spi, self.responder_spi, path);
            answer.extend(hashes.map(|(kind, hash)| (kind, hash.to_vec())));
        }
        // RFC 4555 3.9: with a NAT where none may be, nothing else of it counts.
        let no_nats_here = no_nats(path);
        if payloads.notify(NotifyType::NO_NATS_ALLOWED).is_some_and(|n| n.data != no_nats_here) {
            shared.count(Counter::NatUnexpected);
            self.event(shared, EventKind::AddressesRefused { path, why: "a NAT is in between" });
            answer.push((NotifyType::UNEXPECTED_NAT_DETECTED, Vec::new()));
            return answer;
        }
        if let Some(addresses) = told(&payloads.notifies)
            && let Some(mobike) = self.mobike_mut()
        {
            mobike.peer_addresses = addresses;
            mobike.peer_addresses.retain(|address| *address != path.remote.ip());
            // It says so from elsewhere: where it was it is no more.
            if decides && path.remote != self.path.remote {
                self.go(now, shared, path, "the peer has lost its address");
            }
        }
        if asks(NotifyType::UPDATE_SA_ADDRESSES) && !decides {
            match self.is_acceptable(path) {
                Ok(()) => self.update(now, shared, path, &payloads.notifies),
                Err(why) => {
                    shared.count(Counter::AddressRefused);
                    self.event(shared, EventKind::AddressesRefused { path, why });
                    answer.push((NotifyType::UNACCEPTABLE_ADDRESSES, Vec::new()));
                }
            }
        }
        answer
    }

    /// Whether the peer may go on by this path, as far as the operator has said where it is.
    fn is_acceptable(&self, path: Path) -> Result<(), &'static str> {
        let Some(peer) = &self.peer else { return Ok(()) };
        if peer.remote_address.is_some_and(|address| address != path.remote.ip()) {
            return Err("the policy says where the peer is");
        }
        if peer.local_address.is_some_and(|address| address != path.local.ip()) {
            return Err("the policy says where we are");
        }
        Ok(())
    }

    /// The peer has come to another address (RFC 4555 3.5). IKE goes there at once, ESP when the
    /// peer has shown that it is there: it could send our traffic to somebody else (3.7).
    fn update(&mut self, now: Instant, shared: &mut Shared, path: Path, notifies: &[Notify<'_>]) {
        let before = self.ends();
        let State::Established(established) = &mut self.state else { return };
        established.nat = natt::detect(self.initiator_spi, self.responder_spi, path, notifies);
        let Some(mobike) = established.mobike.as_deref_mut() else { return };
        let is_known = path.remote.ip() == before.remote;
        mobike.unproven = (!is_known).then_some(before);
        self.change_path(shared, path, "the peer has other addresses");
        if is_known {
            self.move_children(now, shared, before);
        } else {
            self.want(Job::CheckPath);
        }
    }

    /// Does this before all else that waits: ESP waits for it.
    fn want(&mut self, job: Job) {
        if !self.jobs.contains(&job) {
            self.jobs.push_front(job);
        }
    }

    /// We go on by another path, and tell the peer.
    fn go(&mut self, now: Instant, shared: &mut Shared, path: Path, why: &'static str) {
        let before = self.ends();
        self.change_path(shared, path, why);
        self.move_children(now, shared, before);
        // Where it was it may be again.
        let (old, new) = (before.remote, path.remote.ip());
        if let Some(mobike) = self.mobike_mut().filter(|_| old != new) {
            mobike.peer_addresses.retain(|address| ![old, new].contains(address));
            mobike.peer_addresses.truncate(MOST_ADDRESSES.saturating_sub(1));
            mobike.peer_addresses.push(old);
        }
        self.want(Job::UpdateAddresses);
    }

    /// An authentic response has come by a path: if it is another one than that in use, we have
    /// tried it because that one was silent.
    pub(super) fn answered_by(&mut self, now: Instant, shared: &mut Shared, path: Path) {
        let Some(mobike) = self.mobike().filter(|mobike| mobike.decides) else { return };
        if path != self.path && mobike.others(shared, self.path).contains(&path) {
            self.go(now, shared, path, "the path in use is silent, and this one is not");
        }
    }

    /// By which path a request is sent again: if it has been in vain for some time, by each in
    /// turn that may lead to the peer.
    pub(in crate::ike_sa) fn path_of_retransmission(&self, shared: &Shared, tries: u32) -> Path {
        let Some(mobike) = self.mobike().filter(|mobike| mobike.decides) else { return self.path };
        let Some(turn) = tries.checked_sub(PATIENCE.saturating_add(1)) else { return self.path };
        let mut paths = mobike.others(shared, self.path);
        paths.push(self.path);
        let turn = usize::try_from(turn).unwrap_or(0);
        let at = turn.checked_rem(paths.len()).unwrap_or(0);
        paths.get(at).copied().unwrap_or(self.path)
    }

    /// Asks whether the peer lives; with MOBIKE also whether our NAT still maps us to where the peer
    /// sends (RFC 4555 3.8).
    pub(in crate::ike_sa) fn send_liveness(
        &mut self,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Error> {
        let asks = self.is_ours_to_choose() && self.negotiated().1.local;
        let words = if asks { self.nat_detection() } else { Vec::new() };
        self.send_said(now, shared, Current::Liveness, &words)
    }

    /// Asks for our COOKIE2 from where the peer says that it is (RFC 4555 3.7).
    pub(in crate::ike_sa) fn send_check(
        &mut self,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Error> {
        let cookie: [u8; COOKIE_LEN] = shared.octets()?;
        let words = [(NotifyType::COOKIE2, cookie.to_vec())];
        self.send_said(now, shared, Current::CheckPath { cookie, path: self.path }, &words)
    }

    /// Says that we go on by the path in use (RFC 4555 3.5).
    pub(in crate::ike_sa) fn send_update(
        &mut self,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Error> {
        let mut words = vec![(NotifyType::UPDATE_SA_ADDRESSES, Vec::new())];
        words.extend(self.nat_detection());
        words.extend(self.other_addresses(shared));
        self.send_said(now, shared, Current::UpdateAddresses { path: self.path }, &words)
    }

    /// Says where else we are (RFC 4555 3.6).
    pub(in crate::ike_sa) fn send_addresses(
        &mut self,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Error> {
        let words = self.other_addresses(shared);
        // The answer means no more than that the peer lives.
        self.send_said(now, shared, Current::Liveness, &words)
    }

    fn nat_detection(&self) -> Vec<Said> {
        let hashes = natt::hashes(self.initiator_spi, self.responder_spi, self.path);
        hashes.map(|(kind, hash)| (kind, hash.to_vec())).to_vec()
    }

    /// Where else we are, which the peer is about to hear.
    fn other_addresses(&mut self, shared: &Shared) -> Vec<Said> {
        let local = self.path.local.ip();
        let peer = self.peer.as_ref();
        let others = peer.map(|peer| additional(shared, peer, local)).unwrap_or_default();
        let words = said(&others);
        if let Some(mobike) = self.mobike_mut() {
            mobike.said = others;
        }
        words
    }

    fn send_said(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        current: Current,
        words: &[Said],
    ) -> Result<(), Error> {
        self.set_current(current);
        let payloads: Vec<_> = payloads(words).collect();
        self.send_request(now, shared, ExchangeType::INFORMATIONAL, &payloads)
    }

    /// The answer to our UPDATE_SA_ADDRESSES, which was sent by `sent`.
    pub(in crate::ike_sa) fn update_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        opened: &Opened,
        sent: Path,
    ) {
        let Ok(inner) = opened.payloads() else { return };
        let Ok(payloads) = Payloads::collect(ExchangeType::INFORMATIONAL, &inner) else { return };
        // RFC 4555 3.5, 3.6: sent by several paths, it says nothing of any.
        if sent != self.path {
            return self.want(Job::UpdateAddresses);
        }
        let refusals = [NotifyType::UNACCEPTABLE_ADDRESSES, NotifyType::UNEXPECTED_NAT_DETECTED];
        if refusals.iter().any(|kind| payloads.notify(*kind).is_some()) {
            shared.count(Counter::AddressRefused);
            let why = "the peer does not accept it";
            self.event(shared, EventKind::AddressesRefused { path: sent, why });
            return self.delete_ike(now, shared, "the peer does not accept our address");
        }
        let before = self.ends();
        let State::Established(established) = &mut self.state else { return };
        let Some(seen_as) = payloads.notify(NotifyType::NAT_DETECTION_DESTINATION_IP) else {
            return;
        };
        established.nat =
            natt::detect(self.initiator_spi, self.responder_spi, sent, &payloads.notifies);
        if let Some(mobike) = &mut established.mobike {
            mobike.seen_as = Some(seen_as.data.to_vec());
        }
        self.move_children(now, shared, before);
    }

    /// The answer to our question whether the peer lives.
    pub(in crate::ike_sa) fn liveness_response(&mut self, opened: &Opened) {
        if !self.is_ours_to_choose() || !self.negotiated().1.local {
            return;
        }
        let Ok(inner) = opened.payloads() else { return };
        let Ok(payloads) = Payloads::collect(ExchangeType::INFORMATIONAL, &inner) else { return };
        let Some(seen) = payloads.notify(NotifyType::NAT_DETECTION_DESTINATION_IP) else { return };
        let same = self.mobike().and_then(|m| m.seen_as.as_deref()) == Some(seen.data);
        if !same {
            self.want(Job::UpdateAddresses);
        }
    }

    /// The answer to our COOKIE2, which was sent by `sent`.
    pub(in crate::ike_sa) fn check_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        opened: &Opened,
        (cookie, sent): ([u8; COOKIE_LEN], Path),
    ) {
        let answered = opened.payloads().is_ok_and(|inner| {
            Payloads::collect(ExchangeType::INFORMATIONAL, &inner).is_ok_and(|payloads| {
                payloads.notify(NotifyType::COOKIE2).is_some_and(|n| n.data == cookie)
            })
        });
        if !answered {
            // RFC 4555 3.7.
            shared.count(Counter::PathCheckFailed);
            return self.close(shared, "the peer did not give our COOKIE2 back");
        }
        // It has moved on meanwhile, and that has been asked by several paths.
        if sent != self.path {
            if self.mobike().is_some_and(|mobike| mobike.unproven.is_some()) {
                self.want(Job::CheckPath);
            }
            return;
        }
        if let Some(before) = self.mobike_mut().and_then(|mobike| mobike.unproven.take()) {
            self.move_children(now, shared, before);
        }
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
            }
            return;
        }
        let in_vain = mobike.homeless.map_or(0, |(_, in_vain)| in_vain);
        mobike.homeless = Some((after(now, LOOK_AGAIN), in_vain.saturating_add(1)));
        // To where the peer is, and in turn to where else it may be.
        let remotes: Vec<IpAddr> =
            core::iter::once(path.remote.ip()).chain(mobike.peer_addresses.clone()).collect();
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
        let Ok(Done::LocalAddress(local)) = result else { return };
        if !shared.local_addresses.contains(&local) {
            return;
        }
        let (mut path, before) = (self.path, self.ends());
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
        }
        self.next_job(now, shared);
    }
}
