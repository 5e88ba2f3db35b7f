//! What follows when nothing comes of a Child SA: who is told, and whether the rule asks again.

use std::sync::Arc;
use std::time::Instant;

use gateway_wire::NotifyType;

use super::super::offer::ChildOffer;
use super::super::{IkeSa, Job, Wish};
use crate::config::RuleName;
use crate::counters::Counter;
use crate::effect::Effect;
use crate::error::Error;
use crate::event::EventKind;
use crate::shared::Shared;

impl IkeSa {
    /// A Child SA could not be made: counted and logged. `served`: another one serves the rule,
    /// which else is told.
    pub(in crate::ike_sa) fn child_failed(
        &self,
        shared: &mut Shared,
        rule: Option<RuleName>,
        served: bool,
        error: Error,
    ) {
        shared.count(Counter::ChildSaFailed);
        if matches!(
            error,
            Error::NoProposalChosen(_) | Error::Refused(NotifyType::NO_PROPOSAL_CHOSEN)
        ) {
            shared.count(Counter::NoProposalChosen);
        }
        if matches!(
            error,
            Error::TsUnacceptable(_)
                | Error::TransportAddresses
                | Error::Refused(NotifyType::TS_UNACCEPTABLE)
        ) {
            shared.count(Counter::TsUnacceptable);
        }
        if let Some(rule) = rule.as_ref().filter(|_| !served) {
            shared
                .effects
                .push(Effect::RuleLost { rule: Arc::clone(rule), error: Some(error.to_string()) });
        }
        self.event(shared, EventKind::ChildFailed { rule, error });
    }

    /// Initiator: our offer came to nothing.
    pub(in crate::ike_sa) fn offer_failed(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        offer: ChildOffer,
        error: Error,
    ) {
        let spi = offer.spi;
        // Unless the peer itself refused or deleted it, it believes that the Child SA stands.
        let stands = !matches!(error, Error::Refused(_) | Error::DeletedBefore);
        self.give_up(now, shared, offer, error);
        if stands {
            self.add_job(now, shared, Job::DeleteChild { spi, peer_spi: 0 });
        }
    }

    /// Nothing comes of a Child SA that the peer has none of either.
    pub(in crate::ike_sa) fn give_up(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        offer: ChildOffer,
        error: Error,
    ) {
        shared.release_spi(offer.spi);
        let Wish { rule, replaces, first, for_packet, .. } = offer.wish;
        let changed = shared.policies.rules.get(&rule).is_some_and(|now| *now != offer.rule);
        // A Child SA that should be replaced still serves its rule, and so does one beside which
        // the peer gives no other.
        let served = replaces.is_some() || self.will_serve(&rule, None);
        self.child_failed(shared, Some(RuleName::clone(&rule)), served, error);
        if changed && replaces.is_none() {
            let wish = Wish { first, for_packet, ..Wish::new(rule) };
            shared.effects.push(Effect::RuleChanged { wish });
        }
        self.rekey_failed(now, shared, replaces);
    }
}
