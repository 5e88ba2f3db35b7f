//! What is to be done on an IKE SA: one exchange at a time, in order (RFC 7296 2.3, window 1).

use core::mem;
use std::time::Instant;

use gateway_wire::{Delete, ExchangeType, Payload, ProtocolId};

use super::child::ChildOffer;
use super::{Closing, IkeSa, State};
use crate::channel::Opened;
use crate::config::RuleName;
use crate::io::ChildId;
use crate::shared::Shared;
use crate::time::after;

/// A Child SA that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The rule that it is to serve.
    pub(crate) rule: RuleName,
    /// The acquire that asked for it.
    pub(crate) acquire_seq: Option<u32>,
    /// The Child SA whose successor it is.
    pub(crate) replaces: Option<ChildId>,
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
    },
    /// Delete the IKE SA and all that is in it.
    DeleteIke {
        /// Why, for the log.
        reason: &'static str,
    },
    /// Ask whether the peer lives.
    Liveness,
}

impl Job {
    /// The rule that it is for.
    pub(crate) const fn rule(&self) -> Option<&RuleName> {
        match self {
            Self::CreateChild(wish) => Some(&wish.rule),
            Self::DeleteChild { .. } | Self::DeleteIke { .. } | Self::Liveness => None,
        }
    }
}

/// The job whose request is under way.
#[derive(Debug, Clone)]
pub(super) enum Current {
    CreateChild { offer: Box<ChildOffer>, nonce: Vec<u8> },
    DeleteChild,
    Liveness,
}

impl IkeSa {
    /// Adds a job unless the same one waits already.
    pub(crate) fn add_job(&mut self, now: Instant, shared: &mut Shared, job: Job) {
        if let Job::DeleteChild { spi } = job {
            shared.half_close(spi, self.id);
        }
        if !self.jobs.contains(&job) {
            self.jobs.push_back(job);
        }
        self.next_job(now, shared);
    }

    /// Starts the next job if nothing is under way.
    pub(super) fn next_job(&mut self, now: Instant, shared: &mut Shared) {
        loop {
            let State::Established(established) = &self.state else { return };
            if established.channel.is_busy() || established.withheld.is_some() {
                return;
            }
            let Some(job) = self.jobs.pop_front() else { return };
            let begun = match job {
                Job::CreateChild(wish) => self.send_create_child(now, shared, wish),
                Job::DeleteChild { spi } => {
                    let delete =
                        Payload::Delete(Delete { protocol: ProtocolId::ESP, spis: vec![spi] });
                    self.set_current(Current::DeleteChild);
                    self.send_request(now, shared, ExchangeType::INFORMATIONAL, &[delete])
                }
                Job::Liveness => {
                    self.set_current(Current::Liveness);
                    self.send_request(now, shared, ExchangeType::INFORMATIONAL, &[])
                }
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
            Some(Current::CreateChild { offer, nonce }) => {
                self.create_child_response(now, shared, opened, *offer, &nonce);
            }
            Some(Current::DeleteChild) => self.deleted(shared),
            Some(Current::Liveness) | None => {}
        }
        self.next_job(now, shared);
    }

    /// The peer has answered a Delete: only those that wait for their turn keep their SPIs.
    fn deleted(&self, shared: &mut Shared) {
        let waiting = self
            .jobs
            .iter()
            .filter_map(|job| if let Job::DeleteChild { spi } = job { Some(*spi) } else { None });
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

    /// Sends the Delete of an IKE SA that is closing. With a request under way it waits for that
    /// one's response: the window is one message (RFC 7296 2.3), and a peer that has not seen the
    /// earlier request could not take this one.
    pub(super) fn say_goodbye(&mut self, now: Instant, shared: &mut Shared) {
        let State::Closing(closing) = &mut self.state else { return };
        closing.owes_delete = closing.channel.is_busy();
        if closing.owes_delete {
            return;
        }
        closing.until = after(now, shared.config.half_open_timeout);
        let delete = Payload::Delete(Delete { protocol: ProtocolId::IKE, spis: Vec::new() });
        if self.send_request(now, shared, ExchangeType::INFORMATIONAL, &[delete]).is_err() {
            self.state = State::Closed;
        }
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
        let Some(spi) = established.children.get(&child).map(|c| c.inbound_spi) else { return };
        self.remove_child(shared, child, reason);
        self.add_job(now, shared, Job::DeleteChild { spi });
    }
}
