//! How long the two ends go on believing each other: certificates end, and so do revocation lists
//! where the policy demands current ones. An IKE SA does not outlive the belief in the peer, however
//! often it gets new keys; who began it begins another one before a certificate ends.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use super::super::{IkeSa, State};
use super::PeerProof;
use crate::config::{LocalAuth, PeerConfig};
use crate::counters::Counter;
use crate::crypto::x509::{Credential, Date};
use crate::event::EventKind;
use crate::shared::Shared;
use crate::time::earlier;

/// How long before a certificate ends both ends show theirs anew. Who has none that ends later by
/// then is asked again after half of what is left.
const LEAD: Duration = Duration::from_secs(3600);
/// What is left when nothing is tried any more.
const LEAST: Duration = Duration::from_secs(60);

impl IkeSa {
    /// The configuration of the peer differs in certificates only. What stands goes on if the peer
    /// would be believed again, and what comes next is judged by the new configuration.
    pub(crate) fn peer_renewed(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        peer: &Arc<PeerConfig>,
    ) {
        self.peer = Some(Arc::clone(peer));
        self.judge_again(now, shared);
    }

    /// The IKE SA ends if the peer would not be believed now.
    fn judge_again(&mut self, now: Instant, shared: &mut Shared) {
        let State::Established(_) = &self.state else { return };
        let (Some(proof), Some(peer)) = (&mut self.proof, &self.peer) else { return };
        if let Err(fault) = proof.judge(&shared.config, shared.time_of_day(now), peer) {
            shared.count(Counter::AuthenticationFailed);
            self.event(shared, EventKind::NoLongerBelieved(fault));
            self.delete_ike(now, shared, "the peer's certificate is not believed any more");
        }
    }

    /// Another IKE SA is to follow in time before a certificate ends that keeps this one.
    pub(in crate::ike_sa) fn plan_reauthentication(&mut self, now: Instant, shared: &mut Shared) {
        let (Some(proof), Some(peer)) = (&self.proof, &self.peer) else { return };
        self.reauthenticate_at = Self::reauthentication_due(now, shared, peer, proof);
    }

    /// When that is, in time since 1970: before the first ends of those that either end has shown.
    fn reauthentication_due(
        now: Instant,
        shared: &mut Shared,
        peer: &PeerConfig,
        proof: &PeerProof,
    ) -> Option<Duration> {
        let now = shared.time_of_day(now)?;
        let ours = match &peer.local_auth {
            LocalAuth::Certificate(credential) => Some(credential),
            LocalAuth::Eap(eap) => eap.tls.as_ref().map(|tls| &tls.credential),
            LocalAuth::Psk(_) | LocalAuth::PublicKey(_) => None,
        };
        let dates = [ours.map(|ours| Credential::ends(ours)), proof.ends()];
        let Date(end) = dates.into_iter().flatten().min()?;
        let left = Duration::from_secs(end).checked_sub(now)?;
        // Not all of those that one certificate concerns at once.
        let wait = if left > LEAD.saturating_mul(2) {
            left.saturating_sub(LEAD.saturating_mul(2)).saturating_add(shared.jittered_time(LEAD))
        } else {
            shared.jittered_time(left.checked_div(2).unwrap_or_default())
        };
        (left > LEAST).then(|| now.saturating_add(wait))
    }

    /// When [`Self::belief_timeout`] has something to do.
    pub(in crate::ike_sa) fn belief_due(&self, shared: &Shared) -> Option<Instant> {
        earlier(self.judged_at(shared), self.reauthenticated_at(shared))
    }

    /// The first moment at which the verdict on the peer may be another.
    fn judged_at(&self, shared: &Shared) -> Option<Instant> {
        let Date(stands) = self.proof.as_ref()?.stands()?;
        // A certificate is valid through the second that it names (RFC 5280 4.1.2.5).
        shared.when(Duration::from_secs(stands.saturating_add(1)))
    }

    fn reauthenticated_at(&self, shared: &Shared) -> Option<Instant> {
        self.reauthenticate_at.and_then(|at| shared.when(at))
    }

    /// What time brings to the belief in a peer; an IKE SA that ends by it is not established then.
    pub(in crate::ike_sa) fn belief_timeout(&mut self, now: Instant, shared: &mut Shared) {
        if self.reauthenticated_at(shared).is_some_and(|due| due <= now) {
            self.reauthenticate_at = None;
            self.reauthenticate(shared);
        }
        if self.judged_at(shared).is_some_and(|due| due <= now) {
            self.judge_again(now, shared);
        }
    }
}
