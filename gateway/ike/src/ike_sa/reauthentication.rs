//! An IKE SA that is made anew (RFC 7296 2.8.3): another one is begun beside it, and it goes when that
//! one has all that it was begun for.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use super::jobs::Wish;
use super::{IkeSa, Job, State};
use crate::effect::Effect;
use crate::shared::Shared;
use crate::time::after;

/// The least time between two attempts to begin another IKE SA in the place of one.
const LEAST_WAIT: Duration = Duration::from_secs(1);

impl IkeSa {
    /// Begins another IKE SA for the rules that this one serves; it goes when they have it.
    pub(super) fn reauthenticate(&mut self, shared: &mut Shared) {
        let State::Established(established) = &mut self.state else { return };
        let live = established.children.values().filter(|c| c.is_live());
        let mut wishes: Vec<_> = live.map(|c| Wish::like(c)).collect();
        wishes.sort_by(|a, b| a.rule.cmp(&b.rule));
        wishes.dedup();
        if let Some(peer) = &self.peer
            && !wishes.is_empty()
            && !established.replaced
        {
            established.replaced = true;
            let peer = Arc::clone(&peer.name);
            shared.effects.push(Effect::Reauthenticate { ike_sa: self.id, peer, wishes });
        }
    }

    /// Whether the successor of another IKE SA has done all that it was begun for. One of which nothing
    /// came ends: it would stand in the way of the next.
    pub(super) fn check_superseded(&mut self, now: Instant, shared: &mut Shared) {
        let State::Established(established) = &self.state else { return };
        let asks = self.jobs.iter().any(|j| matches!(j, Job::CreateChild(_)));
        let (Some(ike_sa), false) = (self.supersedes, asks || established.awaits_child()) else {
            return;
        };
        if established.children.values().any(|c| c.is_live()) {
            self.supersedes = None;
            shared.effects.push(Effect::Superseded { ike_sa, heir: self.id });
        } else {
            self.delete_ike(now, shared, "nothing came of it in the place of another IKE SA");
        }
    }

    /// Nothing came of the IKE SA that was begun in its place: another one is begun halfway to the end
    /// of this one, or before the certificates end that keep it.
    pub(crate) fn not_superseded(&mut self, now: Instant, shared: &mut Shared) {
        let State::Established(established) = &mut self.state else { return };
        if established.superseded {
            return;
        }
        established.replaced = false;
        if let Some(end) = established.dies_at
            && established.renew_at.is_none()
        {
            let left = end.saturating_duration_since(now);
            let wait = left.checked_div(2).unwrap_or_default().max(LEAST_WAIT);
            established.renew_at = Some(after(now, wait));
        }
        if established.began {
            self.plan_reauthentication(now, shared);
        }
    }
}
