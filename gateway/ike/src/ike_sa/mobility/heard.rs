//! What the peer says of addresses in an INFORMATIONAL request (RFC 4555 3.5 to 3.9).

use std::time::Instant;

use gateway_wire::NotifyType;

use super::addresses::{Said, Told, meets_nat, told};
use crate::counters::Counter;
use crate::event::EventKind;
use crate::ike_sa::{IkeSa, Job, State};
use crate::io::Path;
use crate::natt::{self, NatDetected};
use crate::payloads::Payloads;
use crate::shared::Shared;

/// What a request has said that is to be followed.
#[derive(Debug)]
pub(crate) struct Heard {
    /// By which path it has come.
    path: Path,
    /// Where else the peer is, if it says something of that.
    told: Option<Told>,
    /// Whether the SAs are to go by this path from now on.
    update: bool,
    /// Who is behind NAT on it, if the request says something of that.
    nat: Option<NatDetected>,
}

impl IkeSa {
    /// What the peer wants in an INFORMATIONAL request, done; gives what the answer says of it.
    pub(in crate::ike_sa) fn mobility_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        payloads: &Payloads<'_>,
    ) -> Vec<Said> {
        let Some(decides) = self.mobike().map(|mobike| mobike.decides) else { return Vec::new() };
        let (words, heard) = self.hear(shared, path, payloads, decides);
        // The peer has sent it to where our NAT did not map us before, perhaps because our ESP comes
        // from there. Whether that is so is for our own question to find out (RFC 4555 3.8).
        if let (true, Some(seen)) =
            (decides, payloads.notify(NotifyType::NAT_DETECTION_DESTINATION_IP))
            && self.is_mapped_anew(seen.data)
        {
            self.want(Job::Liveness);
        }
        if let Some(heard) = heard {
            if let Some(mobike) = self.mobike_mut() {
                mobike.heard_update |= heard.update;
                mobike.heard_addresses |= heard.told.is_some();
            }
            self.go_by(now, shared, heard);
        }
        words
    }

    /// What the answer says, and what is to be followed. Changes nothing, for it may have come under
    /// keys that have been replaced. `decides`: whether we choose the addresses.
    pub(in crate::ike_sa) fn hear(
        &self,
        shared: &mut Shared,
        path: Path,
        payloads: &Payloads<'_>,
        decides: bool,
    ) -> (Vec<Said>, Option<Heard>) {
        let mut words = Vec::new();
        // RFC 4555 3.7: given back as it is.
        if let Some(cookie) = payloads.notify(NotifyType::COOKIE2) {
            words.push((NotifyType::COOKIE2, cookie.data.to_vec()));
        }
        let says = |kind| payloads.notify(kind).is_some();
        let says_nat = says(NotifyType::NAT_DETECTION_SOURCE_IP)
            || says(NotifyType::NAT_DETECTION_DESTINATION_IP);
        if says_nat {
            let hashes = natt::hashes(self.initiator_spi, self.responder_spi, path);
            words.extend(hashes.map(|(kind, hash)| (kind, hash.to_vec())));
        }
        // RFC 4555 3.9: with a NAT where none may be, nothing else of it counts.
        if meets_nat(path, payloads) {
            shared.count(Counter::NatUnexpected);
            self.event(shared, EventKind::AddressesRefused { path, why: "a NAT is in between" });
            words.push((NotifyType::UNEXPECTED_NAT_DETECTED, Vec::new()));
            return (words, None);
        }
        let mut update = says(NotifyType::UPDATE_SA_ADDRESSES) && !decides;
        if let (true, Err(why)) = (update, self.is_acceptable(path)) {
            shared.count(Counter::AddressRefused);
            self.event(shared, EventKind::AddressesRefused { path, why });
            words.push((NotifyType::UNACCEPTABLE_ADDRESSES, Vec::new()));
            update = false;
        }
        let detect =
            || natt::detect(self.initiator_spi, self.responder_spi, path, &payloads.notifies);
        let nat = says_nat.then(detect);
        let told = told(shared.config.peer_address_limit, &payloads.notifies);
        if told.as_ref().is_some_and(|told| told.too_many) {
            shared.count(Counter::AddressesLeftOut);
        }
        let heard = update || told.is_some();
        (words, heard.then_some(Heard { path, told, update, nat }))
    }

    /// The peer has said this under keys that have been replaced since: it had not heard of the new
    /// ones. What it has said under those is newer, whichever has come first.
    pub(crate) fn heard_before(&mut self, now: Instant, shared: &mut Shared, mut heard: Heard) {
        let Some(mobike) = self.mobike() else { return };
        heard.update &= !mobike.heard_update;
        heard.told = heard.told.filter(|_| !mobike.heard_addresses);
        self.go_by(now, shared, heard);
        self.next_job(now, shared);
    }

    fn go_by(&mut self, now: Instant, shared: &mut Shared, heard: Heard) {
        let Heard { path, told, update, nat } = heard;
        let (here, there) = (self.path.remote, path.remote);
        let most = shared.config.peer_address_limit;
        if let Some(Told { addresses, too_many }) = told
            && let Some(mobike) = self.mobike_mut()
        {
            // Who says so from elsewhere, and not that it is here too, is here no more. From where it
            // says so alone means nothing: it and we may have gone to each other's last place, and
            // would go on so for ever.
            let is_lost = here != there && !too_many && !addresses.contains(&here.ip());
            let leaves = is_lost || update;
            mobike.peer_addresses = addresses;
            let now_at = if leaves { there } else { here };
            mobike.peer_addresses.retain(|address| ![now_at.ip(), there.ip()].contains(address));
            if now_at.ip() != there.ip() {
                mobike.peer_addresses.truncate(most.saturating_sub(1));
                mobike.peer_addresses.push(there.ip());
            }
            if mobike.decides && is_lost {
                self.go(now, shared, path, ("the peer has lost its address", false));
            }
        }
        if update {
            self.update(now, shared, path, nat);
        }
    }

    /// Whether the peer may go on by this path, as far as the operator has said where it is.
    fn is_acceptable(&self, path: Path) -> Result<(), &'static str> {
        let Some(peer) = &self.peer else { return Ok(()) };
        if !peer.may_be_at(path.remote.ip()) {
            return Err("the policy says where the peer is");
        }
        if peer.local_address.is_some_and(|address| address != path.local.ip()) {
            return Err("the policy says where we are");
        }
        Ok(())
    }

    /// The peer has come to another address (RFC 4555 3.5). IKE goes there at once, ESP when the
    /// peer has shown that it is there: it could send our traffic to somebody else (3.7).
    fn update(&mut self, now: Instant, shared: &mut Shared, path: Path, nat: Option<NatDetected>) {
        let before = self.ends(&shared.config);
        let State::Established(established) = &mut self.state else { return };
        // What is not said again stays.
        if let Some(nat) = nat.filter(|_| established.nat.possible) {
            established.nat = nat;
        }
        let Some(mobike) = established.mobike.as_deref_mut() else { return };
        let is_known = path.remote.ip() == before.remote;
        mobike.unproven = (!is_known).then_some(before);
        self.change_path(shared, path, "the peer has other addresses");
        if is_known {
            self.move_children(now, shared, before, false);
        } else {
            self.want(Job::CheckPath);
        }
    }
}
