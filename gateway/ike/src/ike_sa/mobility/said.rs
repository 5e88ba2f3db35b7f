//! What we say of addresses in INFORMATIONAL exchanges, and what the peer's answers mean
//! (RFC 4555 3.5 to 3.9).

use std::time::Instant;

use gateway_wire::{ExchangeType, NotifyType};

use super::addresses::{Said, additional, forbids_nats, said};
use super::mobike::{COOKIE_LEN, payloads};
use crate::channel::Opened;
use crate::counters::Counter;
use crate::effect::Effect;
use crate::error::Error;
use crate::event::EventKind;
use crate::ike_sa::jobs::Current;
use crate::ike_sa::{IkeSa, Job, State};
use crate::io::Path;
use crate::natt::{self, NatDetected};
use crate::payloads::Payloads;
use crate::shared::Shared;

/// Our UPDATE_SA_ADDRESSES that is under way.
#[derive(Debug, Clone, Copy)]
pub(in crate::ike_sa) struct Updating {
    /// By which path it was sent first.
    path: Path,
    /// Whether it was sent by others too.
    elsewhere: bool,
    /// What the peer has to give back before ESP goes to where it says that it is.
    cookie: Option<[u8; COOKIE_LEN]>,
}

/// What is to be said under keys that have been replaced.
#[derive(Debug, Clone)]
pub(crate) struct Saying {
    path: Path,
    nat: NatDetected,
    /// Whether the SAs go by this path from now on.
    update: bool,
    /// Where else we are.
    words: Vec<Said>,
}

impl IkeSa {
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
        let mut words = vec![(NotifyType::COOKIE2, cookie.to_vec())];
        // Any request may have them (3.8), and libreswan gives COOKIE2 back only beside them.
        words.extend(self.nat_detection());
        self.send_said(now, shared, Current::CheckPath { cookie, path: self.path }, &words)
    }

    /// Says that we go on by the path in use (RFC 4555 3.5); if the peer is elsewhere now, it has to
    /// show that it is there.
    pub(in crate::ike_sa) fn send_update(
        &mut self,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Error> {
        let unproven = self.mobike().is_some_and(|mobike| mobike.unproven.is_some());
        let cookie: Option<[u8; COOKIE_LEN]> = if unproven { Some(shared.octets()?) } else { None };
        let mut words = vec![(NotifyType::UPDATE_SA_ADDRESSES, Vec::new())];
        words.extend(self.nat_detection());
        words.extend(self.other_addresses(shared));
        words.extend(cookie.map(|cookie| (NotifyType::COOKIE2, cookie.to_vec())));
        let updating = Updating { path: self.path, elsewhere: false, cookie };
        self.send_said(now, shared, Current::UpdateAddresses(updating), &words)
    }

    /// Says where else we are (RFC 4555 3.6).
    pub(in crate::ike_sa) fn send_addresses(
        &mut self,
        now: Instant,
        shared: &mut Shared,
    ) -> Result<(), Error> {
        let words = self.other_addresses(shared);
        self.send_said(now, shared, Current::TellAddresses { path: self.path }, &words)
    }

    /// A peer that does not have the keys in use yet is to hear of it under the old ones: it would
    /// look for us where we are no more, and never get the new ones.
    pub(super) fn say_under_old_keys(&self, shared: &mut Shared, update: bool) {
        let Some(peer) = &self.peer else { return };
        if !self.mobike().is_some_and(|mobike| mobike.unconfirmed) {
            return;
        }
        let words = said(&additional(shared, peer, self.path.local.ip()));
        let nat = self.negotiated().1;
        let saying = Saying { path: self.path, nat, update, words };
        shared.effects.push(Effect::SayUnderOldKeys { ike_sa: self.id, saying });
    }

    /// Old keys: says by them what the peer is to hear.
    pub(crate) fn say(&mut self, now: Instant, shared: &mut Shared, saying: Saying) {
        let State::Closing(closing) = &mut self.state else { return };
        if closing.mobike.is_none() {
            return;
        }
        // What is under way already is repeated by this path from now on.
        self.path = saying.path;
        if closing.channel.is_busy() {
            closing.unsaid = Some(saying);
            return;
        }
        closing.says_more = true;
        let spis = (self.initiator_spi, self.responder_spi);
        let mut words = Vec::new();
        if saying.update {
            words.push((NotifyType::UPDATE_SA_ADDRESSES, Vec::new()));
            if saying.nat.possible {
                let hashes = natt::hashes(spis.0, spis.1, self.path);
                words.extend(hashes.map(|(kind, hash)| (kind, hash.to_vec())));
            }
        }
        words.extend(saying.words);
        words.extend(forbids_nats(self.path, saying.nat));
        let payloads: Vec<_> = payloads(&words).collect();
        if self.send_request(now, shared, ExchangeType::INFORMATIONAL, &payloads).is_err() {
            self.state = State::Closed;
        }
    }

    /// What tells the peer how we see the path; nothing where one of the ends has no NAT traversal.
    fn nat_detection(&self) -> Vec<Said> {
        if !self.negotiated().1.possible {
            return Vec::new();
        }
        let hashes = natt::hashes(self.initiator_spi, self.responder_spi, self.path);
        hashes.map(|(kind, hash)| (kind, hash.to_vec())).to_vec()
    }

    /// Where else we are, which the peer is about to hear; and that no NAT may be in between, where
    /// one of the ends has no NAT traversal (RFC 4555 3.9).
    fn other_addresses(&mut self, shared: &Shared) -> Vec<Said> {
        let local = self.path.local.ip();
        let peer = self.peer.as_ref();
        let others = peer.map(|peer| additional(shared, peer, local)).unwrap_or_default();
        let mut words = said(&others);
        words.extend(forbids_nats(self.path, self.negotiated().1));
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

    /// The request under way is sent by another path, too.
    pub(in crate::ike_sa) fn sent_elsewhere(&mut self) {
        if let Some(mobike) = self.mobike_mut() {
            mobike.tried_elsewhere = true;
        }
        if let State::Established(established) = &mut self.state
            && let Some(Current::UpdateAddresses(updating)) = &mut established.current
        {
            updating.elsewhere = true;
        }
    }

    /// The answer to our UPDATE_SA_ADDRESSES.
    pub(in crate::ike_sa) fn update_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        opened: &Opened,
        updating: Updating,
    ) {
        let Updating { path: sent, elsewhere, cookie } = updating;
        let inner = match opened.payloads() {
            Ok(inner) => inner,
            Err(error) => return self.update_unanswered(now, shared, error.into()),
        };
        let payloads = match Payloads::collect(ExchangeType::INFORMATIONAL, &inner) {
            Ok(payloads) => payloads,
            Err(error) => return self.update_unanswered(now, shared, error),
        };
        // RFC 4555 3.5, 3.6: sent by several paths, it says nothing of any. The peer goes by the one
        // that it came by first, whichever its answer has come back by.
        if sent != self.path || elsewhere {
            return self.want(Job::UpdateAddresses);
        }
        if payloads.notify(NotifyType::UNEXPECTED_NAT_DETECTED).is_some()
            && let Some(mobike) = self.mobike_mut()
            && mobike.nats_met < shared.config.retransmit_tries
        {
            // RFC 4555 3.9: who changes a single packet is not to have the path given up.
            mobike.nats_met = mobike.nats_met.saturating_add(1);
            return self.want(Job::UpdateAddresses);
        }
        // UNACCEPTABLE_ADDRESSES, UNEXPECTED_NAT_DETECTED, or whatever error: the request has failed,
        // whether we know it or not (RFC 7296 3.10.1).
        if payloads.error().is_some() {
            shared.count(Counter::AddressRefused);
            let why = "the peer does not accept it";
            self.event(shared, EventKind::AddressesRefused { path: sent, why });
            return self.delete_ike(now, shared, "the peer does not accept our address");
        }
        if let Some(cookie) = cookie
            && payloads.notify(NotifyType::COOKIE2).is_none_or(|given| given.data != cookie)
        {
            return self.check_failed(shared);
        }
        let before = self.ends(&shared.config);
        let spis = (self.initiator_spi, self.responder_spi);
        let State::Established(established) = &mut self.state else { return };
        let seen_as = payloads.notify(NotifyType::NAT_DETECTION_DESTINATION_IP);
        if seen_as.is_some() && established.nat.possible {
            established.nat = natt::detect(spis.0, spis.1, sent, &payloads.notifies);
        }
        if let Some(mobike) = &mut established.mobike {
            mobike.seen_as = seen_as.and_then(|hash| hash.data.try_into().ok());
            mobike.nats_met = 0;
            if cookie.is_some() {
                mobike.unproven = None;
            }
        }
        self.move_children(now, shared, before, false);
    }

    /// Nobody knows by which path the peer goes on: the two ends are out of step for good.
    fn update_unanswered(&mut self, now: Instant, shared: &mut Shared, error: Error) {
        shared.count(Counter::InvalidMessage);
        self.event(shared, EventKind::Invalid(error));
        self.delete_ike(now, shared, "the peer's answer to our change of addresses is invalid");
    }

    /// The answer to where else we are: that the peer lives, and has heard, unless we have asked by
    /// several paths (RFC 4555 3.6).
    pub(in crate::ike_sa) fn addresses_response(&mut self, sent: Path) {
        if sent != self.path {
            self.want(Job::TellAddresses);
        }
    }

    /// The answer to our question whether the peer lives.
    pub(in crate::ike_sa) fn liveness_response(&mut self, shared: &mut Shared, opened: &Opened) {
        if !self.is_ours_to_choose() || !self.negotiated().1.local {
            return;
        }
        let inner = opened.payloads().map_err(Error::from);
        let payloads = inner
            .as_ref()
            .map_err(Error::clone)
            .and_then(|inner| Payloads::collect(ExchangeType::INFORMATIONAL, inner));
        let payloads = match payloads {
            Ok(payloads) => payloads,
            Err(error) => {
                // It lives, all the same.
                shared.count(Counter::InvalidMessage);
                return self.event(shared, EventKind::Invalid(error));
            }
        };
        let Some(seen) = payloads.notify(NotifyType::NAT_DETECTION_DESTINATION_IP) else { return };
        if self.is_mapped_anew(seen.data) {
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
            return self.check_failed(shared);
        }
        // It has moved on meanwhile, and that has been asked by several paths.
        if sent != self.path {
            if self.mobike().is_some_and(|mobike| mobike.unproven.is_some()) {
                self.want(Job::CheckPath);
            }
            return;
        }
        if let Some(before) = self.mobike_mut().and_then(|mobike| mobike.unproven.take()) {
            self.move_children(now, shared, before, false);
        }
    }

    /// RFC 4555 3.7: whoever answers without having read the question is not believed.
    fn check_failed(&mut self, shared: &mut Shared) {
        shared.count(Counter::PathCheckFailed);
        self.close(shared, "the peer did not give our COOKIE2 back");
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;
    use core::time::Duration;

    use super::*;
    use crate::config::{PeerConfig, Start};
    use crate::testing::{Faults, Forge, Simulation, peer, policies, protect};

    /// Both ends of our own do NAT traversal: what A knows of B is changed.
    #[test]
    fn a_request_that_changes_addresses_forbids_nats_to_a_peer_that_cannot_traverse_them() {
        let [a, b, other] = [1, 2, 11].map(|last| IpAddr::from([192, 0, 2, last]));
        for possible in [true, false] {
            let mut simulation = Simulation::new(&[a, b], Faults::default(), 1);
            simulation.readdress(0, &[a]);
            simulation.readdress(1, &[b]);
            let nets = ["10.1.0.0/24", "10.2.0.0/24"].map(|net| net.parse().unwrap());
            for (node, ids, remote, start) in [
                (1, ["b.test", "a.test"], None, Start::Respond),
                (0, ["a.test", "b.test"], Some(b), Start::Always),
            ] {
                let other = peer("other", ids[0], ids[1], remote);
                let other = PeerConfig { mobike: true, ..other };
                let rule = protect("rule", "other", nets[node], nets[1 - node], start);
                simulation.configure(node, policies(vec![other], vec![rule]));
            }
            simulation.run(Duration::from_secs(1));
            let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
            let endpoint = &mut simulation.nodes[0].endpoint;
            let id = endpoint.sas().next().unwrap().id;
            endpoint.alter(id, |sa| {
                let State::Established(established) = &mut sa.state else { panic!("it stands") };
                established.nat.possible = possible;
            });
            let before = simulation.nodes[0].sent.len();
            simulation.readdress(0, &[other]);
            let (_, request) = &simulation.nodes[0].sent[before];
            let opened = forge.open(request).unwrap();
            let payloads = opened.payloads().unwrap();
            let payloads = Payloads::collect(ExchangeType::INFORMATIONAL, &payloads).unwrap();
            let says = |kind| payloads.notify(kind).is_some();
            assert!(says(NotifyType::UPDATE_SA_ADDRESSES));
            assert_eq!(says(NotifyType::NAT_DETECTION_SOURCE_IP), possible);
            let forbids = payloads.notify(NotifyType::NO_NATS_ALLOWED).map(|n| n.data.to_vec());
            let ends = vec![192, 0, 2, 11, 192, 0, 2, 2, 0x11, 0x94, 0x11, 0x94];
            assert_eq!(forbids, (!possible).then_some(ends));
        }
    }
}
