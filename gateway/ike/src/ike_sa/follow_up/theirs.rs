//! The responder's part of IKE_FOLLOWUP_KE: what it keeps between two of them, and for how long.

use core::mem;
use core::time::Duration;
use std::time::Instant;

use gateway_wire::{ExchangeType, IkeSpi, NotifyType};

use super::super::child::{ChildWords, Terms, Withheld};
use super::super::intermediate::value_for;
use super::super::successor::{Successor, Words};
use super::super::{Established, IkeSa, State};
use super::{Link, Series};
use crate::algorithms::{Group, IkeSuite};
use crate::channel::{Opened, RequestId};
use crate::counters::Counter;
use crate::error::Error;
use crate::event::EventKind;
use crate::io::{ChildId, Path};
use crate::payloads::Payloads;
use crate::shared::Shared;
use crate::time::after;

/// How long the next exchange may take: RFC 9370 2.2.4 calls 5 to 20 seconds appropriate.
const PATIENCE: Duration = Duration::from_secs(20);

/// The peer's series: what we keep between two of its exchanges.
pub(in super::super) struct TheirSeries {
    series: Series,
    link: Link,
    deadline: Instant,
    goal: TheirGoal,
}

/// What the peer's series is for.
pub(in super::super) enum TheirGoal {
    /// A Child SA.
    Child(Box<Terms>),
    /// New keys of the IKE SA.
    Ike {
        /// The peer's and ours.
        spis: (IkeSpi, IkeSpi),
        /// What was negotiated.
        suite: IkeSuite,
    },
}

/// Our value, and its method.
type Value = (Group, Vec<u8>);

/// What an exchange has led to.
enum Round {
    /// There are more to come.
    More(ChildWords),
    /// That was the last one, with this value of ours.
    Last(Box<TheirSeries>, Value),
}

impl TheirSeries {
    pub(in super::super) const fn is_of_ike_sa(&self) -> bool {
        matches!(self.goal, TheirGoal::Ike { .. })
    }

    /// Whether it is to replace this Child SA.
    pub(in super::super) fn replaces(&self, child: ChildId) -> bool {
        matches!(&self.goal, TheirGoal::Child(terms) if terms.replaces == Some(child))
    }

    /// Whether it is to make this Child SA.
    pub(in super::super) fn makes(&self, child: ChildId) -> bool {
        matches!(&self.goal, TheirGoal::Child(terms) if terms.id == child)
    }

    /// Whether it is to make an IKE SA with this SPI of ours.
    pub(in super::super) fn makes_ike(&self, spi: IkeSpi) -> bool {
        matches!(&self.goal, TheirGoal::Ike { spis, .. } if spis.1 == spi)
    }

    pub(in super::super) fn lowest_nonce(&self) -> &[u8] {
        self.series.lowest_nonce()
    }
}

impl Established {
    /// When a series of the peer's is given up.
    pub(in super::super) fn series_due(&self) -> Option<Instant> {
        self.theirs.iter().map(|s| s.deadline).min()
    }

    /// A series leads to nothing.
    fn release(&mut self, shared: &mut Shared, series: TheirSeries) {
        if let TheirGoal::Child(terms) = series.goal {
            shared.release_spi(terms.spi);
            self.forget_collided(terms.id);
        }
    }
}

impl IkeSa {
    /// CREATE_CHILD_SA is about to be answered with this link. What is kept is bounded.
    pub(in super::super) fn keep_series(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        (series, link): (Series, Link),
        goal: TheirGoal,
    ) {
        let deadline = after(now, PATIENCE);
        let kept = TheirSeries { series, link, deadline, goal };
        // Who begins anew has given up what it was about before.
        let same = |other: &TheirSeries| match &kept.goal {
            TheirGoal::Ike { .. } => other.is_of_ike_sa(),
            TheirGoal::Child(terms) => terms.replaces.is_some_and(|old| other.replaces(old)),
        };
        self.drop_series(shared, same);
        let State::Established(established) = &mut self.state else { return };
        established.theirs.push(kept);
        if established.theirs.len() > shared.config.followup_ke_limit {
            shared.count(Counter::FollowUpForgotten);
            let oldest = established.theirs.remove(0);
            established.release(shared, oldest);
        }
    }

    /// Forgets series of the peer's.
    pub(in super::super) fn drop_series(
        &mut self,
        shared: &mut Shared,
        which: impl Fn(&TheirSeries) -> bool,
    ) {
        let State::Established(established) = &mut self.state else { return };
        let (dropped, kept) = mem::take(&mut established.theirs).into_iter().partition(which);
        established.theirs = kept;
        let dropped: Vec<TheirSeries> = dropped;
        for series in dropped {
            established.release(shared, series);
        }
    }

    /// The peer has not gone on in time with what it had begun (RFC 9370 2.2.4).
    pub(in super::super) fn series_timed_out(&mut self, now: Instant, shared: &mut Shared) {
        self.drop_series(shared, |series| series.deadline <= now);
        shared.count(Counter::FollowUpTimeout);
        self.event(shared, EventKind::PutOff(Error::FollowUpTimeout));
        self.next_job(now, shared);
    }

    /// Responder: the next key exchange of a series.
    pub(in super::super) fn follow_up_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) {
        self.peer_has_answers(shared);
        let inner = match opened.payloads() {
            Ok(inner) => inner,
            Err(error) => {
                let error = Error::from(error);
                return self.refuse_request(now, shared, path, opened, datagram, &error);
            }
        };
        let payloads = match Payloads::collect(ExchangeType::IKE_FOLLOWUP_KE, &inner) {
            Ok(payloads) => payloads,
            Err(error) => return self.refuse_request(now, shared, path, opened, datagram, &error),
        };
        let request = RequestId::new(opened, datagram);
        let done = match self.their_round(now, shared, &payloads) {
            Ok(Round::Last(series, value)) => (*series, value),
            Ok(Round::More(words)) => {
                let withheld = Withheld::new(now, request, path, None);
                return self.release_answer(now, shared, withheld, Ok(Some(words)));
            }
            Err(error) => {
                let withheld = Withheld::new(now, request, path, None);
                return self.release_answer(now, shared, withheld, Err(error));
            }
        };
        let (TheirSeries { series, goal, .. }, value) = done;
        match goal {
            TheirGoal::Child(terms) => {
                let withheld = Withheld::new(now, request, path, None);
                let child = terms.id;
                match terms.conclude_series(shared, self, &series.agreed(), value) {
                    Ok(negotiated) => self.install_withheld(now, shared, withheld, negotiated),
                    Err(error) => {
                        if let State::Established(established) = &mut self.state {
                            established.forget_collided(child);
                        }
                        self.release_answer(now, shared, withheld, Err(error));
                    }
                }
            }
            TheirGoal::Ike { spis, suite } => {
                let State::Established(established) = &self.state else { return };
                let channel = series.agreed().successor(&established.channel, spis, false, suite);
                let agreed = channel.map(|channel| {
                    let successor = Successor::of_series(channel, series.lowest_nonce());
                    (Some(successor), Words::value(value))
                });
                self.answer_rekey(now, shared, path, request, agreed);
            }
        }
    }

    /// Does the key exchange that a request links to.
    fn their_round(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        payloads: &Payloads<'_>,
    ) -> Result<Round, Error> {
        let link = payloads.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE).map(|n| n.data);
        let State::Established(established) = &mut self.state else {
            return Err(Error::Internal("no IKE SA"));
        };
        let found = established.theirs.iter().position(|s| Some(s.link.as_slice()) == link);
        let mut series =
            found.map(|at| established.theirs.remove(at)).ok_or(Error::StateNotFound)?;
        match self.advance(shared, &mut series, payloads) {
            Err(error) => {
                if let State::Established(established) = &mut self.state {
                    established.release(shared, series);
                }
                Err(error)
            }
            Ok((value, None)) => Ok(Round::Last(Box::new(series), value)),
            Ok((value, Some(link))) => {
                (series.link, series.deadline) = (link, after(now, PATIENCE));
                if let State::Established(established) = &mut self.state {
                    established.theirs.push(series);
                }
                Ok(Round::More(ChildWords::more(value, link)))
            }
        }
    }

    /// Our value, and the link to the next exchange if there is one.
    fn advance(
        &self,
        shared: &mut Shared,
        TheirSeries { series, goal, .. }: &mut TheirSeries,
        payloads: &Payloads<'_>,
    ) -> Result<(Value, Option<Link>), Error> {
        if let TheirGoal::Child(terms) = &*goal {
            // What it was begun for may be gone meanwhile, here or by the peer itself.
            let is_quantum_safe = self.is_quantum_safe() == Some(true);
            let is_wanted = shared.policies.still_wants(&terms.rule, is_quantum_safe);
            let old = |old| self.children().any(|c| c.id == old && c.is_live());
            if !is_wanted || !terms.replaces.is_none_or(old) {
                return Err(Error::StateNotFound);
            }
        }
        let group = *series.rounds.front().ok_or(Error::StateNotFound)?;
        let exchanged = shared.key_exchange.respond(group, value_for(group, payloads)?)?;
        series.add(&exchanged.secret);
        let link = if series.rounds.is_empty() { None } else { Some(shared.octets()?) };
        Ok(((group, exchanged.value), link))
    }
}
