//! IKE_AUTH without the first Child SA, both roles (RFC 6023): CREATE_CHILD_SA makes that one too.
//!
//! What goes to the Child SA is left out: SA, TSi, TSr and the notifications beside them. The
//! configuration payload stays, since section 4 has it where IKE_AUTH always has it.

use std::time::Instant;

use gateway_wire::NotifyType;

use super::offer::{ChildAnswer, ChildOffer};
use super::{IkeSa, Job};
use crate::assignment::Assignment;
use crate::config::{Childless, PeerConfig, RuleName};
use crate::error::Error;
use crate::io::Path;
use crate::natt::NatDetected;
use crate::payloads::Payloads;
use crate::shared::Shared;

/// What an initiator's IKE_AUTH asks for.
pub(super) enum FirstChild {
    /// The first Child SA.
    Asked,
    /// The first Child SA, which it does not get there.
    Refused(Error),
    /// An IKE SA, and nothing else for now.
    LeftOut,
}

/// Responder: what an initiator that is authenticated asks for.
pub(super) fn check_request(peer: &PeerConfig, payloads: &Payloads<'_>) -> FirstChild {
    if payloads.sa.is_none() {
        return FirstChild::LeftOut;
    }
    match peer.childless {
        Childless::Never | Childless::Prefer => FirstChild::Asked,
        // It may ask again by CREATE_CHILD_SA: the IKE SA stands (RFC 7296 1.2).
        Childless::Require => {
            FirstChild::Refused(Error::NotChildless("asks for a Child SA in IKE_AUTH"))
        }
    }
}

impl IkeSa {
    /// Initiator: whether IKE_AUTH leaves the first Child SA out, by what the responder's
    /// IKE_SA_INIT says (RFC 6023 3). Nothing has authenticated that yet; AUTH will.
    pub(super) fn begins_childless(&self, init: &Payloads<'_>) -> Result<bool, Error> {
        let supported = init.notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED).is_some();
        match self.peer.as_ref().map_or(Childless::Never, |peer| peer.childless) {
            Childless::Never => Ok(false),
            Childless::Prefer => Ok(supported),
            Childless::Require if supported => Ok(true),
            Childless::Require => Err(Error::NotChildless("does not support it")),
        }
    }

    /// Initiator: the offer for the first Child SA, which goes into IKE_AUTH; `None` if that leaves
    /// it out, and all that is wanted waits until the IKE SA stands. One that cannot be made through
    /// NAT is not asked for.
    ///
    /// # Errors
    /// Nothing is wanted of the peer any more.
    pub(super) fn first_child(
        &mut self,
        shared: &mut Shared,
        childless: bool,
        nat: NatDetected,
    ) -> Result<Option<ChildOffer>, Error> {
        while let Some(job) = self.jobs.pop_front() {
            let Job::CreateChild(wish) = job else { continue };
            let again = childless.then(|| wish.clone());
            let offer = ChildOffer::new(shared, self, None, nat.any(), wish)?;
            let Some(offer) = offer else { continue };
            if let Err(error) = offer.check_addresses(self.path) {
                shared.release_spi(offer.spi);
                let rule = RuleName::clone(&offer.rule.name);
                self.child_failed(shared, Some(rule), false, error);
                continue;
            }
            let Some(wish) = again else { return Ok(Some(offer)) };
            // It is offered when the addresses are known that the peer may assign.
            shared.release_spi(offer.spi);
            self.jobs.push_front(Job::CreateChild(wish));
            return Ok(None);
        }
        Err(Error::Internal("nothing is wanted of the peer any more"))
    }

    /// Initiator: what an authentic answer says of the addresses that were asked for, and of the Child
    /// SA that was offered, if one was.
    pub(super) fn first_child_answered(
        &self,
        shared: &mut Shared,
        payloads: &Payloads<'_>,
        offered: Option<&ChildOffer>,
        through: (NatDetected, Path),
    ) -> (Assignment, Result<Option<ChildAnswer>, Error>) {
        let read = self.read_assignment(shared, payloads);
        if let Some(error) = payloads.error().filter(|_| payloads.sa.is_none()) {
            // Who refuses the Child SA may assign addresses, with which others can be made, or not.
            return (read.unwrap_or_default(), Err(Error::Refused(error.kind)));
        }
        let answer = read.and_then(|given| {
            let answer = match offered {
                Some(offer) => Some(offer.check_answer(payloads, through, given.lease)?),
                None if payloads.sa.is_none() => None,
                None => return Err(Error::BadAnswer("a Child SA that nobody asked for")),
            };
            Ok((given, answer))
        });
        match answer {
            Ok((given, answer)) => (given, Ok(answer)),
            Err(error) => (Assignment::default(), Err(error)),
        }
    }

    /// Initiator: the answer to an IKE_AUTH without a Child SA has an error beside AUTH, or a Child SA.
    pub(super) fn childless_answer_failed(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        error: Error,
    ) {
        // Of an error the Child SAs that are asked for next will tell: for them it may not hold. But
        // a peer that has a Child SA which is not here would send by it.
        let ends = matches!(error, Error::BadAnswer(_));
        self.child_failed(shared, None, true, error);
        if ends {
            self.delete_ike(now, shared, "the peer has a Child SA that nobody asked for");
        }
    }
}
