//! What is to be done on an IKE SA: one exchange at a time, in order (RFC 7296 2.3, window 1).

use core::mem;
use std::time::Instant;

use gateway_wire::{Delete, ExchangeType, Payload, ProtocolId};

use super::create_child::CreatingChild;
use super::follow_up::{FollowUp, TheirSeries};
use super::mobility::{Updating, mobike::COOKIE_LEN};
use super::offer::ChildOffer;
use super::rekey_ike::RekeyingIke;
use super::{ChildSa, Closing, Established, IkeSa, State};
use crate::algorithms::Group;
use crate::channel::Opened;
use crate::config::RuleName;
use crate::counters::Counter;
use crate::crash;
use crate::effect::Effect;
use crate::io::{ChildId, Path};
use crate::selector::{self, Sides};
use crate::shared::Shared;

/// A Child SA that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The rule that it is to serve.
    pub(crate) rule: RuleName,
    /// What it is to protect in any case, if that is less than the rule says: a packet that waits,
    /// or what the Child SA protects in whose place it is to be. Ours and the peer's.
    pub(crate) first: Option<Sides>,
    /// Whether it is for a packet, or for what was asked for because of one.
    pub(crate) for_packet: bool,
    /// The Child SA whose successor it is.
    pub(crate) replaces: Option<ChildId>,
    /// The key exchange method that the peer has asked for, and how often it did.
    pub(crate) group: Option<Group>,
    pub(crate) tries: u32,
    /// How often the peer has put it off.
    pub(crate) failures: u32,
}

impl Wish {
    /// For a rule, with no more to it.
    pub(crate) const fn new(rule: RuleName) -> Self {
        let (first, replaces, group) = (None, None, None);
        Self { rule, first, for_packet: false, replaces, group, tries: 0, failures: 0 }
    }

    /// For what a Child SA protects, to be in its place.
    pub(crate) fn like(child: &ChildSa) -> Self {
        let first = child.pairs.first().map(|(first, _)| selector::sides(first));
        Self { first, for_packet: child.for_packet, ..Self::new(RuleName::clone(&child.rule.name)) }
    }
}

/// Something to be done on an IKE SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Job {
    /// Make a Child SA.
    CreateChild(Wish),
    /// Delete a Child SA, named by our inbound SPI.
    DeleteChild {
        /// Our inbound SPI: it may never have been installed.
        spi: u32,
        /// The peer's; 0 where we never learnt it.
        peer_spi: u32,
    },
    /// Give the IKE SA new keys.
    RekeyIke,
    /// Delete the IKE SA and all that is in it.
    DeleteIke {
        /// Why, for the log.
        reason: &'static str,
    },
    /// Ask whether the peer lives.
    Liveness,
    /// Ask it where its ESP comes from.
    Probe,
    /// See whether the peer is at its new address (RFC 4555 3.7).
    CheckPath,
    /// Tell the peer that we go on by another path (RFC 4555 3.5).
    UpdateAddresses,
    /// Tell the peer where else we are (RFC 4555 3.6).
    TellAddresses,
    /// Tell the peer our token of the keys in use (RFC 6290 4.3).
    CrashToken,
}

impl Job {
    /// Whether others like it may wait. Of the rest there is one each at most.
    const fn is_one_of_many(&self) -> bool {
        matches!(self, Self::CreateChild(_) | Self::DeleteChild { .. })
    }

    /// The rule that it is for.
    pub(crate) const fn rule(&self) -> Option<&RuleName> {
        match self {
            Self::CreateChild(wish) => Some(&wish.rule),
            Self::DeleteChild { .. }
            | Self::RekeyIke
            | Self::DeleteIke { .. }
            | Self::Liveness
            | Self::Probe
            | Self::CheckPath
            | Self::UpdateAddresses
            | Self::TellAddresses
            | Self::CrashToken => None,
        }
    }
}

/// The job whose request is under way.
pub(super) enum Current {
    CreateChild(Box<CreatingChild>),
    DeleteChild {
        spi: u32,
        peer_spi: u32,
    },
    RekeyIke(Box<RekeyingIke>),
    /// What either of the two has led to (RFC 9370 2.2.4).
    FollowUp(Box<FollowUp>),
    Liveness,
    /// The same, because ESP has come from elsewhere.
    Probe,
    CheckPath {
        cookie: [u8; COOKIE_LEN],
        path: Path,
    },
    UpdateAddresses(Updating),
    TellAddresses {
        path: Path,
    },
}

impl Current {
    /// The Child SA that it asks for.
    pub(super) fn offer(&self) -> Option<&ChildOffer> {
        match self {
            Self::CreateChild(creating) => Some(&creating.offer),
            Self::FollowUp(follow_up) => follow_up.goal.offer(),
            Self::DeleteChild { .. }
            | Self::RekeyIke(_)
            | Self::Liveness
            | Self::Probe
            | Self::CheckPath { .. }
            | Self::UpdateAddresses(_)
            | Self::TellAddresses { .. } => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn offer_mut(&mut self) -> Option<&mut ChildOffer> {
        if let Self::FollowUp(follow_up) = self {
            return follow_up.goal.offer_mut();
        }
        if let Self::CreateChild(creating) = self { Some(&mut creating.offer) } else { None }
    }
}

impl Established {
    /// Whether a job does not ask about something that the peer may not have yet, or that it is
    /// replacing: it would only put that off (RFC 7296 2.25).
    fn may_begin(&self, job: &Job) -> bool {
        let moving = self.theirs.iter().any(TheirSeries::is_of_ike_sa);
        let hindered = match job {
            Job::CreateChild(wish) => {
                let replaced = |old| self.theirs.iter().any(|s| s.replaces(old));
                moving || wish.replaces.is_some_and(replaced)
            }
            Job::DeleteChild { .. } | Job::RekeyIke => moving,
            Job::DeleteIke { .. }
            | Job::Liveness
            | Job::Probe
            | Job::CheckPath
            | Job::UpdateAddresses
            | Job::TellAddresses
            | Job::CrashToken => false,
        };
        if hindered {
            return false;
        }
        let Some(answered) = self.answered else { return true };
        let about = match job {
            Job::DeleteChild { spi, .. } => Some(*spi),
            Job::CreateChild(wish) => {
                wish.replaces.and_then(|old| self.children.get(&old)).map(|old| old.inbound_spi)
            }
            Job::RekeyIke
            | Job::DeleteIke { .. }
            | Job::Liveness
            | Job::Probe
            | Job::CheckPath
            | Job::UpdateAddresses
            | Job::TellAddresses
            | Job::CrashToken => None,
        };
        about != Some(answered.spi)
    }
}

impl IkeSa {
    /// Adds a job unless the same one waits already, or too many do.
    pub(crate) fn add_job(&mut self, now: Instant, shared: &mut Shared, job: Job) {
        if self.jobs.contains(&job) {
            return self.next_job(now, shared);
        }
        if self.jobs.len() >= shared.config.job_limit && job.is_one_of_many() {
            return self.refuse_job(now, shared, job);
        }
        if let Job::DeleteChild { spi, .. } = job {
            shared.half_close(spi, self.id);
        }
        self.jobs.push_back(job);
        self.next_job(now, shared);
    }

    /// There is no room for one of many. What is not made is tried again later; but a peer that keeps
    /// what we have deleted would send by it for ever, and the IKE SA goes with all of it.
    fn refuse_job(&mut self, now: Instant, shared: &mut Shared, job: Job) {
        shared.count(Counter::JobLimit);
        let Job::CreateChild(wish) = job else {
            let reason = "more waits to be deleted than `job-limit` allows";
            return self.delete_ike(now, shared, reason);
        };
        if wish.replaces.is_some() {
            return self.rekey_failed(now, shared, wish.replaces);
        }
        let error = Some("more waits on the IKE SA than `job-limit` allows".to_owned());
        shared.effects.push(Effect::RuleLost { rule: wish.rule, error });
    }

    /// Starts the next job if nothing is under way.
    pub(super) fn next_job(&mut self, now: Instant, shared: &mut Shared) {
        self.delete_stranded(shared);
        self.wind_up(now, shared);
        loop {
            let State::Established(established) = &self.state else { return };
            // An answer that is being taken in may move the IKE SA, and what that brings about waits
            // until the answer has been read: it belongs to the request that is still noted here.
            let under_way = established.channel.is_busy() || established.current.is_some();
            if under_way || established.withheld.is_some() {
                let means = |job: &Job| *job != Job::Probe && established.may_begin(job);
                if self.jobs.iter().any(means) {
                    self.mean_probe(now, shared);
                }
                return;
            }
            let ready = self.jobs.iter().position(|job| established.may_begin(job));
            let Some(job) = ready.and_then(|at| self.jobs.remove(at)) else {
                return self.check_superseded(now, shared);
            };
            let begun = match job {
                Job::CreateChild(wish) => self.send_create_child(now, shared, wish),
                Job::RekeyIke => self.send_rekey_ike(now, shared),
                Job::DeleteChild { spi, peer_spi } => {
                    let delete =
                        Payload::Delete(Delete { protocol: ProtocolId::ESP, spis: vec![spi] });
                    self.set_current(Current::DeleteChild { spi, peer_spi });
                    self.send_request(now, shared, ExchangeType::INFORMATIONAL, &[delete])
                }
                Job::CrashToken => {
                    let spis = (self.initiator_spi, self.responder_spi);
                    let Some(token) = shared.crash_tokens.token(spis) else { continue };
                    self.set_current(Current::Liveness);
                    let payloads = [crash::payload(&token)];
                    self.send_request(now, shared, ExchangeType::INFORMATIONAL, &payloads)
                }
                Job::Liveness => self.send_liveness(now, shared),
                Job::Probe => match self.send_probe(now, shared) {
                    Some(sent) => sent,
                    None => continue,
                },
                Job::CheckPath => self.send_check(now, shared),
                Job::UpdateAddresses => self.send_update(now, shared),
                Job::TellAddresses => self.send_addresses(now, shared),
                Job::DeleteIke { reason } => return self.delete_ike(now, shared, reason),
            };
            if let Err(error) = begun {
                return self.fail(shared, error);
            }
        }
    }

    pub(super) fn set_current(&mut self, current: Current) {
        if let State::Established(established) = &mut self.state {
            established.current = Some(current);
        }
    }

    /// The authentic response to the request under way.
    pub(super) fn job_response(&mut self, now: Instant, shared: &mut Shared, opened: &Opened) {
        let State::Established(established) = &mut self.state else { return };
        match established.current.take() {
            Some(Current::CreateChild(creating)) => {
                self.create_child_response(now, shared, opened, *creating);
            }
            Some(Current::RekeyIke(rekeying)) => {
                self.rekey_ike_response(now, shared, opened, *rekeying);
            }
            Some(Current::FollowUp(follow_up)) => {
                self.follow_up_response(now, shared, opened, *follow_up);
            }
            Some(Current::DeleteChild { spi, .. }) => {
                self.await_silence(now, spi);
                self.deleted(shared);
            }
            Some(Current::Liveness) => self.liveness_response(shared, opened),
            Some(Current::Probe) => {}
            Some(Current::CheckPath { cookie, path }) => {
                self.check_response(now, shared, opened, (cookie, path));
            }
            Some(Current::UpdateAddresses(updating)) => {
                self.update_response(now, shared, opened, updating);
            }
            Some(Current::TellAddresses { path }) => self.addresses_response(path),
            None => {}
        }
        self.next_job(now, shared);
    }

    /// The peer has answered a Delete: only those that wait for their turn keep their SPIs.
    fn deleted(&self, shared: &mut Shared) {
        let waiting = self.jobs.iter().filter_map(|job| {
            if let Job::DeleteChild { spi, .. } = job { Some(*spi) } else { None }
        });
        shared.keep_half_closed(self.id, &waiting.collect::<Vec<_>>());
    }

    /// Says goodbye: the children go at once, the IKE SA when the peer has answered.
    pub(crate) fn delete_ike(&mut self, now: Instant, shared: &mut Shared, reason: &'static str) {
        if !self.is_established() {
            return self.close(shared, reason);
        }
        self.abandon(shared, reason, None);
        let State::Established(established) = mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        self.state = State::Closing(Box::new(Closing::new(now, shared, established.channel)));
        self.event(shared, crate::event::EventKind::Closed(reason));
        self.say_goodbye(now, shared);
    }

    /// Deletes a Child SA at both ends: here now, there by a job.
    pub(crate) fn delete_child(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        reason: &'static str,
    ) {
        let State::Established(established) = &self.state else { return };
        let Some(deleted) = established.children.get(&child) else { return };
        let (spi, peer_spi) = (deleted.inbound_spi, deleted.outbound_spi);
        // A redundant one, or one that has been replaced, is deleted by whoever is to do so.
        let by_us = deleted.is_live();
        self.remove_child(shared, child, reason);
        if by_us {
            self.add_job(now, shared, Job::DeleteChild { spi, peer_spi });
        }
    }
}
