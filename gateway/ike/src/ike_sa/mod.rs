//! One IKE SA, in whatever state: what it holds in each, and how messages, answers of the
//! kernel and time reach the code of that state.
//!
//! A message is handled in two steps (RFC 7296 2.21, and this project's invariant): first it is
//! placed in the window and verified, which changes nothing; only what is authentic goes on to
//! change the state.

mod auth;
mod child;
mod childless;
mod closing;
mod collision;
mod configure;
mod create_child;
mod derive;
mod established;
mod failover;
mod follow_up;
mod informational;
mod init;
mod intermediate;
mod jobs;
mod leftover;
mod mobility;
mod offer;
mod put_off;
mod reauthentication;
mod rekey_ike;
mod room;
mod single_pair;
mod successor;
mod surplus;
mod switch;
mod view;

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{ExchangeType, Header, IkeSpi, Notify, NotifyType, Payload, ProtocolId};

pub(crate) use self::auth::{AwaitAuth, HalfOpen, Wanted};
pub use self::auth::{PeerCertificate, PeerProof};
pub(crate) use self::child::{ChildSa, ChildState};
pub(crate) use self::closing::Closing;
pub(crate) use self::established::Established;
pub(crate) use self::init::{AwaitInit, answer_init, init_header};
pub(crate) use self::intermediate::AwaitIntermediate;
pub(crate) use self::jobs::{Job, Wish};
pub(crate) use self::mobility::{Heard, Mobike, Saying};
use crate::assignment::Assignment;
use crate::channel::{Channel, Opened, Place, Received};
use crate::config::{PeerConfig, UserName};
use crate::counters::Counter;
use crate::effect::Effect;
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::io::{Done, IkeSaId, KernelError, Path};
use crate::leases::Lease;
use crate::reason::{self, Claimed, Refusal};
use crate::shared::{Digest, Purpose, Shared};

/// One IKE SA.
pub(crate) struct IkeSa {
    pub(crate) id: IkeSaId,
    /// The peer: known from the start to the initiator, from IKE_AUTH on to the responder.
    pub(crate) peer: Option<Arc<PeerConfig>>,
    /// How the peer proved who it is, once it has.
    pub(crate) proof: Option<PeerProof>,
    /// When we begin another one because a certificate ends, in time since 1970.
    pub(crate) reauthenticate_at: Option<Duration>,
    /// The user that the peer proved by EAP to be.
    pub(crate) user: Option<UserName>,
    /// What a peer said of itself that was not believed.
    pub(crate) claimed: Option<Box<Claimed>>,
    pub(crate) path: Path,
    pub(crate) initiator_spi: IkeSpi,
    /// Zero until the responder's is known.
    pub(crate) responder_spi: IkeSpi,
    pub(crate) begun: Instant,
    /// The IKE_SA_INIT request that we answered (RFC 7296 2.1).
    pub(crate) init_request: Option<Digest>,
    /// What is to be done on it, in order; before it stands, what it is wanted for.
    pub(crate) jobs: VecDeque<Job>,
    /// The addresses that the peer has assigned to us.
    pub(crate) assignment: Assignment,
    /// The addresses that we ask for because we have them from the IKE SA before.
    pub(crate) keep: Lease,
    /// The IKE SA that ends when this one has taken over.
    pub(crate) supersedes: Option<IkeSaId>,
    /// The IKE SA whose old keys these are.
    pub(crate) remnant_of: Option<IkeSaId>,
    pub(crate) state: State,
}

/// Each state holds what is known in it, and nothing else.
pub(crate) enum State {
    /// Initiator: the kernel is asked for our address towards the peer.
    FindingAddress,
    /// Initiator: IKE_SA_INIT is sent.
    AwaitInit(Box<AwaitInit>),
    /// Initiator: IKE_INTERMEDIATE is sent, for an additional key exchange.
    AwaitIntermediate(Box<AwaitIntermediate>),
    /// Initiator: IKE_AUTH is sent.
    AwaitAuth(Box<AwaitAuth>),
    /// Responder: IKE_SA_INIT is answered.
    HalfOpen(Box<HalfOpen>),
    /// Both ends are authenticated.
    Established(Box<Established>),
    /// Over, but for a last message that may have to be repeated.
    Closing(Box<Closing>),
    /// Over.
    Closed,
}

impl State {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::FindingAddress | Self::AwaitInit(_) => "connecting",
            Self::AwaitIntermediate(_) => "exchanging keys",
            Self::AwaitAuth(_) => "authenticating",
            Self::HalfOpen(_) => "half-open",
            Self::Established(_) => "established",
            Self::Closing(_) => "closing",
            Self::Closed => "closed",
        }
    }

    pub(crate) fn channel(&self) -> Option<&Channel> {
        match self {
            Self::AwaitIntermediate(s) => Some(&s.rounds.channel),
            Self::AwaitAuth(s) => Some(&s.channel),
            Self::HalfOpen(s) => Some(&s.channel),
            Self::Established(s) => Some(&s.channel),
            Self::Closing(s) => Some(&s.channel),
            Self::FindingAddress | Self::AwaitInit(_) | Self::Closed => None,
        }
    }

    fn channel_mut(&mut self) -> Option<&mut Channel> {
        match self {
            Self::AwaitIntermediate(s) => Some(&mut s.rounds.channel),
            Self::AwaitAuth(s) => Some(&mut s.channel),
            Self::HalfOpen(s) => Some(&mut s.channel),
            Self::Established(s) => Some(&mut s.channel),
            Self::Closing(s) => Some(&mut s.channel),
            Self::FindingAddress | Self::AwaitInit(_) | Self::Closed => None,
        }
    }
}

impl IkeSa {
    /// A message whose SPI is ours has come.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        header: Header,
        path: Path,
        datagram: &[u8],
    ) {
        if matches!(self.state, State::AwaitInit(_)) {
            if header.exchange == ExchangeType::IKE_SA_INIT && header.flags.response {
                self.init_response(now, shared, &header, path, datagram);
            } else {
                shared.count(Counter::OutsideWindow);
            }
            return;
        }
        let Some(channel) = self.state.channel() else {
            shared.count(Counter::OutsideWindow);
            return;
        };
        // The peer says of itself whether it was the original initiator: it is what we are not.
        if header.flags.initiator == channel.initiator {
            shared.count(Counter::OutsideWindow);
            return;
        }
        if self.check_crash(shared, &header, datagram) {
            return;
        }
        let Some(channel) = self.state.channel() else { return };
        let beside_window = match channel.place(&header, datagram) {
            Place::Outside => return shared.count(Counter::OutsideWindow),
            Place::RepeatedInPart => return shared.count(Counter::FragmentDuplicate),
            Place::Repeated(response) => {
                let response = response.clone();
                shared.count(Counter::Retransmission);
                return shared.transmit(path, response);
            }
            Place::PerhapsSetsIds => true,
            Place::NextRequest | Place::AwaitedResponse => false,
        };
        // EAP keeps the first message, in fragments or not.
        let size = datagram.len();
        if matches!(self.state, State::HalfOpen(_)) && size > shared.config.reassembly_limit {
            return shared.count(Counter::FragmentLimit);
        }
        let Some(channel) = self.state.channel_mut() else { return };
        let response = header.flags.response;
        match channel.receive(now, header, datagram) {
            Received::Dropped(reason) => shared.count(reason),
            Received::Fragment => shared.count(Counter::FragmentReceived),
            Received::Message(opened) if response => {
                self.handle_response(now, shared, path, &opened);
            }
            Received::Message(opened) if channel.is_to_set_ids(&opened) => {
                let datagram = opened.representative(datagram);
                self.set_ids(now, shared, path, &opened, datagram);
            }
            Received::Message(_) if beside_window => shared.count(Counter::OutsideWindow),
            Received::Message(opened) => {
                let datagram = opened.representative(datagram);
                self.handle_request(now, shared, path, &opened, datagram);
            }
        }
    }

    /// An authentic request that comes next in the window.
    fn handle_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
        opened: &Opened,
        datagram: &[u8],
    ) {
        match (&mut self.state, opened.header.exchange) {
            (State::HalfOpen(_), ExchangeType::IKE_AUTH) => {
                self.auth_request(now, shared, path, opened, datagram)
            }
            (State::HalfOpen(_), ExchangeType::IKE_INTERMEDIATE) => {
                self.intermediate_request(now, shared, path, opened, datagram)
            }
            (State::Established(established), exchange) => {
                established.heard(now);
                established.last_sent = now; // by the answer
                if established.withheld.is_some() {
                    return; // The same request again: its answer waits for the kernel.
                }
                established.unconfirmed &= exchange == ExchangeType::INFORMATIONAL;
                self.follow(now, shared, path, false);
                match exchange {
                    ExchangeType::INFORMATIONAL => {
                        self.informational_request(now, shared, path, opened, datagram)
                    }
                    ExchangeType::CREATE_CHILD_SA => {
                        self.create_child_request(now, shared, path, opened, datagram)
                    }
                    ExchangeType::IKE_FOLLOWUP_KE => {
                        self.follow_up_request(now, shared, path, opened, datagram)
                    }
                    _ => self.refuse_request(
                        now,
                        shared,
                        path,
                        opened,
                        datagram,
                        &Error::UnexpectedExchange,
                    ),
                }
            }
            (State::Closing(_), _) => self.closing_request(now, shared, path, opened, datagram),
            _ => shared.count(Counter::OutsideWindow),
        }
    }

    /// An authentic response to our request.
    fn handle_response(&mut self, now: Instant, shared: &mut Shared, path: Path, opened: &Opened) {
        if let Some(channel) = self.state.channel_mut() {
            channel.response_received();
        }
        match &mut self.state {
            State::AwaitIntermediate(_) => self.intermediate_response(now, shared, opened),
            State::AwaitAuth(_) => self.auth_response(now, shared, path, opened),
            State::Established(established) => {
                established.heard(now);
                if says_invalid_syntax(opened) {
                    // RFC 7296 2.21.3: fatal at both ends, without a Delete.
                    return self.close(shared, "the peer found our request malformed");
                }
                self.hint_answered(now, shared, path);
                self.follow(now, shared, path, true);
                self.job_response(now, shared, opened);
            }
            State::Closing(_) => self.closing_response(now, shared),
            State::FindingAddress | State::AwaitInit(_) | State::HalfOpen(_) | State::Closed => {}
        }
    }

    /// The kernel has answered a command of ours.
    pub(crate) fn handle_command(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        purpose: Purpose,
        result: Result<Done, KernelError>,
    ) {
        match purpose {
            Purpose::LocalAddress => self.address_found(now, shared, result),
            Purpose::InstallChild(child) => {
                self.child_installed(now, shared, child, result.map(drop))
            }
            Purpose::InstallOutbound(child) => {
                self.outbound_installed(now, shared, child, result.map(drop))
            }
            Purpose::MoveChild(child) => self.child_moved(now, shared, child, result.map(drop)),
            Purpose::NewAddress(remote) => self.new_address(now, shared, remote, result),
            Purpose::Poll(child) => self.poll_answered(now, shared, child, result),
            Purpose::QueryUse(child) => self.use_reported(now, shared, child, result),
            Purpose::Idle { child, due } => self.idle_reported(now, shared, child, due, &result),
            Purpose::IdleBefore(child) => self.idle_before(child, &result),
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) {
        let dropped = self.state.channel_mut().map_or(0, |channel| channel.drop_stale_parts(now));
        (0..dropped).for_each(|_| shared.count(Counter::FragmentTimeout));
        match &self.state {
            State::AwaitInit(_) => self.init_timeout(now, shared),
            State::HalfOpen(half_open) if half_open.deadline <= now && half_open.eap.is_some() => {
                self.eap_timed_out(shared);
            }
            State::AwaitAuth(waiting) if waiting.eap_deadline().is_some_and(|at| at <= now) => {
                self.eap_timed_out(shared);
            }
            State::HalfOpen(half_open) if half_open.deadline <= now => {
                shared.count(Counter::HalfOpenTimeout);
                self.close(shared, "no IKE_AUTH in time");
            }
            State::Closing(closing) if closing.until <= now => self.state = State::Closed,
            State::AwaitIntermediate(_) | State::AwaitAuth(_) | State::Closing(_) => {
                self.retransmit(now, shared)
            }
            State::Established(_) => {
                self.retransmit(now, shared);
                self.belief_timeout(now, shared);
                self.established_timeout(now, shared);
            }
            State::HalfOpen(_) | State::FindingAddress | State::Closed => {}
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn next_timeout(&self, shared: &Shared) -> Option<Instant> {
        let parts = self.state.channel().and_then(Channel::parts_due);
        let state = match &self.state {
            State::FindingAddress | State::Closed => None,
            State::AwaitInit(s) => Some(s.backoff.next()),
            State::AwaitIntermediate(s) => s.rounds.channel.next_retransmission(),
            State::AwaitAuth(s) => {
                crate::time::earlier(s.eap_deadline(), s.channel.next_retransmission())
            }
            State::HalfOpen(s) => Some(s.deadline),
            State::Established(s) => crate::time::earlier(
                s.next_timeout(self.peer.as_deref(), shared),
                self.belief_due(shared),
            ),
            State::Closing(s) => {
                crate::time::earlier(Some(s.until), s.channel.next_retransmission())
            }
        };
        crate::time::earlier(parts, state)
    }

    fn retransmit(&mut self, now: Instant, shared: &mut Shared) {
        let least = self.least_patience();
        let Some(channel) = self.state.channel_mut() else { return };
        let due = channel.poll_retransmission(now, &shared.config, least).map(|due| due.cloned());
        let tries = channel.retransmissions();
        let path = self.path_of_retransmission(shared, tries);
        match due {
            None => {}
            Some(Ok(datagrams)) => {
                shared.count(Counter::Retransmitted);
                self.expect_again(shared);
                shared.transmit(path, datagrams);
                self.sent(now);
                if path != self.path {
                    self.sent_elsewhere();
                }
            }
            Some(Err(_)) if self.let_rest() => {}
            Some(Err((exchange, tries))) => {
                shared.count(Counter::PeerDead);
                self.event(shared, EventKind::PeerDead { tries, exchange: exchange.to_string() });
                self.close(shared, "the peer does not answer");
            }
        }
    }

    /// Seals a request, sends it, and keeps it for retransmission.
    fn send_request(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) -> Result<(), Error> {
        let path = self.path;
        let channel = self.state.channel_mut().ok_or(Error::Internal("no channel"))?;
        let datagrams =
            channel.request(now, &shared.config, shared.random.as_mut(), exchange, payloads)?;
        shared.transmit(path, datagrams);
        self.sent(now);
        Ok(())
    }

    /// A message of ours is on its way: a NAT between us has seen it.
    const fn sent(&mut self, now: Instant) {
        if let State::Established(established) = &mut self.state {
            established.last_sent = now;
        }
    }

    /// Ends the IKE SA without a word to the peer: children, SPIs and reservations go, and the
    /// rules that it served are told.
    pub(crate) fn close(&mut self, shared: &mut Shared, reason: &'static str) {
        self.abandon(shared, reason, None);
        if !matches!(self.state, State::Closed) {
            self.event(shared, EventKind::Closed(reason));
        }
        self.enter(shared, State::Closed);
    }

    /// Moves on to a state that is not half-open any more.
    fn enter(&mut self, shared: &mut Shared, state: State) {
        if let State::HalfOpen(half_open) = &self.state {
            shared.effects.push(Effect::NoLongerHalfOpen { key: half_open.key });
        }
        self.state = state;
    }

    pub(crate) fn event(&self, shared: &mut Shared, kind: EventKind) {
        let refusal = reason::of_event(shared, self, &kind);
        self.event_with(shared, kind, refusal);
    }

    /// The same with a record that has been made before.
    fn event_with(&self, shared: &mut Shared, kind: EventKind, refusal: Option<Refusal>) {
        let refusal = refusal.map(Box::new);
        shared.event(Event {
            ike_sa: Some(self.id),
            spis: Some((self.initiator_spi, self.responder_spi)),
            peer: self.peer.as_ref().map(|p| Arc::clone(&p.name)),
            user: self.user.clone(),
            path: Some(self.path),
            kind,
            refusal,
        });
    }
}

/// Whether a response says that our request could not be read.
fn says_invalid_syntax(opened: &Opened) -> bool {
    opened.payloads().is_ok_and(|payloads| {
        let is = |n: &Notify<'_>| n.kind == NotifyType::INVALID_SYNTAX;
        payloads.iter().any(|p| matches!(p, Payload::Notify(n) if is(n)))
    })
}

/// A notification that concerns no Child SA.
pub(crate) const fn notify(kind: NotifyType, data: &[u8]) -> Payload<'_> {
    Payload::Notify(Notify { protocol: ProtocolId::NONE, spi: &[], kind, data })
}
