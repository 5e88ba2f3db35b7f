//! The initiator's side of IKE_SA_INIT: what it offers, and what it makes of an answer that nothing
//! authenticates yet.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{
    ExchangeType, Header, IkeSpi, KeMethod, KeyExchange, Message, MessageId, NotifyType,
};

use super::{
    Extensions, IKE_PORT, NATT_PORT, NONCE_LEN, fragmentation, init_header, init_message, notifies,
    peer_hashes,
};
use crate::algorithms::{Group, IkeProposal, IkeSuite};
use crate::assignment::Assignment;
use crate::channel::{Backoff, Channel, Retry};
use crate::config::PeerConfig;
use crate::counters::Counter;
use crate::crypto::key_exchange::PendingKeyExchange;
use crate::error::{AuthenticationFault, Error};
use crate::event::EventKind;
use crate::ike_sa::auth::Transcript;
use crate::ike_sa::intermediate::KeyRounds;
use crate::ike_sa::mobility::mobike::PATIENCE;
use crate::ike_sa::{IkeSa, Job, State, notify};
use crate::io::{Done, IkeSaId, KernelCommand, KernelError, Path};
use crate::keys::IkeKeys;
use crate::leases::Lease;
use crate::natt;
use crate::payloads::Payloads;
use crate::policies::Needs;
use crate::proposal::{self, Rounds};
use crate::reason::{Offer, bad_choice};
use crate::shared::{Owner, Purpose, Shared};

/// Cookies and changes of the key exchange method that we follow before we stop believing them.
const MOST_RESTARTS: u32 = 4;

/// Initiator: IKE_SA_INIT is sent.
pub(crate) struct AwaitInit {
    pending: Box<dyn PendingKeyExchange>,
    nonce: [u8; NONCE_LEN],
    cookie: Option<Vec<u8>>,
    request: Vec<u8>,
    pub(in crate::ike_sa) backoff: Backoff,
    restarts: u32,
    /// An error that somebody answered; it is unauthenticated and decides nothing.
    heard: Option<NotifyType>,
    /// What was wrong with the last answer that could not be used; unauthenticated, too.
    unusable: Option<Error>,
}

impl AwaitInit {
    /// An answer is of no use. Anybody can send it, and the peer's true answer may still come.
    fn pass_over(&mut self, shared: &mut Shared, error: Error) {
        shared.count(Counter::InvalidInit);
        self.unusable = Some(error);
    }
}

impl IkeSa {
    /// Begins an IKE SA with a peer whose address is known, for the sake of `jobs`.
    pub(crate) fn initiate(
        now: Instant,
        shared: &mut Shared,
        id: IkeSaId,
        peer: &Arc<PeerConfig>,
        remote: IpAddr,
        jobs: VecDeque<Job>,
    ) -> Result<Self, Error> {
        let mut sa = Self {
            id,
            peer: Some(Arc::clone(peer)),
            path: first_path(peer, remote),
            initiator_spi: shared.ike_spi()?,
            responder_spi: IkeSpi::ZERO,
            proof: None,
            reauthenticate_at: None,
            begun: now,
            init_request: None,
            jobs,
            user: None,
            assignment: Assignment::default(),
            keep: Lease::default(),
            claimed: None,
            supersedes: None,
            remnant_of: None,
            state: State::FindingAddress,
        };
        sa.set_out(now, shared)?;
        Ok(sa)
    }

    /// Sends the first IKE_SA_INIT, when it is known from where.
    fn set_out(&mut self, now: Instant, shared: &mut Shared) -> Result<(), Error> {
        if !self.path.local.ip().is_unspecified() {
            return self.send_init(now, shared, None);
        }
        self.state = State::FindingAddress;
        let remote = self.path.remote.ip();
        let owner = Owner::IkeSa(self.id, Purpose::LocalAddress);
        shared.command(owner, KernelCommand::FindLocalAddress { remote });
        Ok(())
    }

    /// The address of the peer that is tried after the one in use has been in vain.
    fn next_address(&self) -> Option<IpAddr> {
        let mut addresses = self.peer.as_ref()?.addresses();
        let _tried = addresses.find(|address| *address == self.path.remote.ip())?;
        addresses.next()
    }

    /// Begins again with another address of the peer (RFC 4555 3.1). Only the SPI stays: what the
    /// first one may still answer fits neither the path nor the request.
    fn try_address(&mut self, now: Instant, shared: &mut Shared, next: IpAddr) {
        let Some(peer) = self.peer.clone() else { return };
        shared.count(Counter::OtherAddressTried);
        self.event(shared, EventKind::NextAddress { tried: self.path.remote.ip(), next });
        self.path = first_path(&peer, next);
        if let Err(error) = self.set_out(now, shared) {
            self.fail(shared, error);
        }
    }

    /// The kernel has said which of our addresses leads to the peer.
    pub(in crate::ike_sa) fn address_found(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        result: Result<Done, KernelError>,
    ) {
        if !matches!(self.state, State::FindingAddress) {
            return;
        }
        let found = match result {
            Ok(Done::LocalAddress(local)) => {
                self.path.local.set_ip(local);
                self.send_init(now, shared, None)
            }
            Ok(_) => Err(Error::Internal("the kernel answered another question")),
            Err(error) => Err(Error::Kernel(error)),
        };
        match (found, self.next_address()) {
            (Ok(()), _) => {}
            (Err(Error::Kernel(_)), Some(next)) => self.try_address(now, shared, next),
            (Err(error), _) => self.fail(shared, error),
        }
    }

    /// Sends IKE_SA_INIT: for the first time, or again with what the peer demanded.
    fn send_init(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        again: Option<Again>,
    ) -> Result<(), Error> {
        let peer = self.peer.clone().ok_or(Error::Internal("no peer to initiate to"))?;
        let (before, cookie, group) = match again {
            None => (None, None, first_group(&peer.proposals)?),
            Some(Again { before, demand: Demand::Cookie(cookie) }) => {
                let group = before.pending.group();
                (Some(before), Some(cookie), group)
            }
            Some(Again { before, demand: Demand::Group(group) }) => {
                let cookie = before.cookie.clone();
                (Some(before), cookie, group)
            }
        };
        if before.is_none() {
            self.event(shared, EventKind::Initiating);
        }
        let restarts = before.as_ref().map_or(0, |b| b.restarts.saturating_add(1));
        let heard = before.as_ref().and_then(|b| b.heard);
        let unusable = before.as_ref().and_then(|b| b.unusable.clone());
        let (pending, nonce) = match before {
            Some(before) if before.pending.group() == group => (before.pending, before.nonce),
            Some(before) => (shared.key_exchange.generate(group)?, before.nonce),
            None => (shared.key_exchange.generate(group)?, shared.octets()?),
        };
        let sa = proposal::offer_ike(&peer.proposals);
        let header = init_header(self.initiator_spi, IkeSpi::ZERO, false);
        // RFC 7296 2.6: the cookie comes first, the rest stays as it was.
        let cookie_payload = cookie.as_deref().map(|c| notify(NotifyType::COOKIE, c));
        let additional = peer.proposals.iter().any(|p| !p.additional.is_empty());
        let notifies = notifies(shared.config.fragment_size > 0, additional, peer.ppk.is_some());
        let extensions = Extensions::new(notifies, Needs::of(&peer), false);
        let ke = KeyExchange { method: pending.group().id(), data: pending.public() };
        let request =
            init_message(&header, cookie_payload, &sa, ke, &nonce, self.path, &extensions)?;
        shared.transmit(self.path, request.clone());
        let backoff = Backoff::new(now, &shared.config);
        self.state = State::AwaitInit(Box::new(AwaitInit {
            pending,
            nonce,
            cookie,
            request,
            backoff,
            restarts,
            heard,
            unusable,
        }));
        Ok(())
    }

    /// A response to IKE_SA_INIT, which nothing authenticates yet.
    pub(in crate::ike_sa) fn init_response(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        header: &Header,
        path: Path,
        datagram: &[u8],
    ) {
        if path.remote != self.path.remote || header.message_id != MessageId(0) {
            return shared.count(Counter::OutsideWindow);
        }
        let State::AwaitInit(waiting) = &mut self.state else { return };
        let message = match Message::decode(datagram) {
            Ok(message) => message,
            Err(error) => return waiting.pass_over(shared, error.into()),
        };
        let payloads = match Payloads::collect(header.exchange, &message.payloads) {
            Ok(payloads) => payloads,
            Err(error) => return waiting.pass_over(shared, error),
        };
        // RFC 7296 2.6 and 1.2: two errors are demands that we follow, a few times.
        let may_restart = waiting.restarts < MOST_RESTARTS;
        let proposals = self.peer.as_ref().map(|p| p.proposals.as_slice()).unwrap_or_default();
        let demand = demand_of(&payloads, proposals, waiting.pending.group());
        match demand {
            Some(demand) if may_restart => {
                if let State::AwaitInit(before) =
                    std::mem::replace(&mut self.state, State::FindingAddress)
                {
                    self.event(shared, demand.event());
                    if let Err(error) = self.send_init(now, shared, Some(Again { before, demand }))
                    {
                        self.fail(shared, error);
                    }
                }
                return;
            }
            Some(_) => {
                let error = Error::BadAnswer("one more cookie or key exchange method demanded");
                return waiting.pass_over(shared, error);
            }
            None => {}
        }
        if let Some(error) = payloads.error() {
            // Anybody can send this. The peer's true answer may still come: note it and go on.
            if waiting.heard != Some(error.kind) {
                waiting.heard = Some(error.kind);
                self.event(shared, EventKind::UnauthenticatedError(error.kind));
            }
            return;
        }
        if header.responder_spi.is_zero() {
            return waiting.pass_over(shared, Error::BadAnswer("no SPI of the responder"));
        }
        // What the answer must hold is checked before anything is given up.
        let answer = match InitAnswer::check(&payloads, proposals, waiting.pending.group()) {
            Ok(answer) => answer,
            Err(error) => {
                let error = explained(error, self.peer.as_deref(), &payloads);
                return waiting.pass_over(shared, error);
            }
        };
        let (nonce, peer_value) = (answer.nonce.to_vec(), answer.peer_value.to_vec());
        let peer_hashes = peer_hashes(&payloads);
        let childless = self.begins_childless(&payloads);
        let suite = answer.suite;
        let nat = natt::detect(self.initiator_spi, header.responder_spi, path, &payloads.notifies);
        let mobile = nat.possible && self.peer.as_ref().is_some_and(|peer| peer.mobike);
        let State::AwaitInit(waiting) = std::mem::replace(&mut self.state, State::FindingAddress)
        else {
            return;
        };
        let AwaitInit { pending, nonce: our_nonce, request, .. } = *waiting;
        self.responder_spi = header.responder_spi;
        let spis = (self.initiator_spi, self.responder_spi);
        let established = pending.agree(&peer_value).map_err(Error::from).and_then(|secret| {
            let keys = IkeKeys::derive(suite, &secret, &our_nonce, &nonce, spis.0, spis.1);
            Channel::new(spis, true, suite, keys)
        });
        let fragmentation = fragmentation(shared, path, &payloads);
        let peer_ppk = payloads.notify(NotifyType::USE_PPK).is_some();
        let our_ppk = self.peer.as_ref().and_then(|p| p.ppk.as_ref());
        let use_ppk = peer_ppk && our_ppk.is_some();
        let lacks_ppk = !use_ppk && our_ppk.is_some_and(|ppk| ppk.required);
        let next = established.and_then(|mut channel| {
            channel.set_fragmentation(fragmentation);
            if lacks_ppk {
                return Err(Error::Authentication(AuthenticationFault::PpkUnsupported));
            }
            let childless = childless?;
            if nat.any() || mobile {
                // RFC 7296 2.23: from here on both ends use 4500. With MOBIKE also where there is
                // no NAT yet (RFC 4555 3.3).
                self.path.local.set_port(NATT_PORT);
                self.path.remote.set_port(NATT_PORT);
            }
            let transcript = Transcript {
                request,
                response: datagram.to_vec(),
                initiator_nonce: our_nonce.to_vec(),
                responder_nonce: nonce,
                int_auth: Vec::new(),
                use_ppk,
                peer_hashes,
            };
            let rounds = suite.additional.iter().map(|(_, group)| group).collect();
            self.next_round(now, shared, KeyRounds { channel, transcript, nat, childless, rounds })
        });
        if let Err(error) = next {
            self.fail(shared, error);
        }
    }

    /// IKE_SA_INIT is due again, or was sent in vain.
    pub(in crate::ike_sa) fn init_timeout(&mut self, now: Instant, shared: &mut Shared) {
        let next = self.next_address();
        let State::AwaitInit(waiting) = &mut self.state else { return };
        let retry = waiting.backoff.poll(now, &shared.config);
        match (&retry, next) {
            (Retry::Again, Some(next)) if waiting.backoff.sent_again() > PATIENCE => {
                return self.try_address(now, shared, next);
            }
            (Retry::GiveUp { .. }, Some(next)) => return self.try_address(now, shared, next),
            (Retry::Wait | Retry::Again | Retry::GiveUp { .. }, _) => {}
        }
        match retry {
            Retry::Wait => {}
            Retry::Again => {
                let request = waiting.request.clone();
                shared.count(Counter::Retransmitted);
                shared.transmit(self.path, request);
            }
            Retry::GiveUp { tries } => {
                let (heard, unusable) = (waiting.heard.take(), waiting.unusable.take());
                shared.count(Counter::PeerDead);
                let exchange = heard.map_or_else(
                    || ExchangeType::IKE_SA_INIT.to_string(),
                    |error| {
                        format!(
                            "{} (last unauthenticated answer: {error})",
                            ExchangeType::IKE_SA_INIT
                        )
                    },
                );
                self.event(shared, EventKind::PeerDead { tries, exchange });
                match unusable {
                    // It answers, but not so that we could go on.
                    Some(error) => self.fail(shared, error),
                    None => self.close(shared, "the peer does not answer"),
                }
            }
        }
    }
}

/// From where IKE_SA_INIT goes to an address of the peer; what is unspecified, the kernel says.
fn first_path(peer: &PeerConfig, remote: IpAddr) -> Path {
    let unspecified: IpAddr = if remote.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let local = peer.local_address.unwrap_or(unspecified);
    Path { local: SocketAddr::new(local, IKE_PORT), remote: SocketAddr::new(remote, IKE_PORT) }
}

/// IKE_SA_INIT once more.
struct Again {
    before: Box<AwaitInit>,
    demand: Demand,
}

/// What a responder demands before it answers.
enum Demand {
    Cookie(Vec<u8>),
    Group(Group),
}

impl Demand {
    fn event(&self) -> EventKind {
        match self {
            Self::Cookie(_) => EventKind::CookieReceived,
            Self::Group(group) => EventKind::OtherGroup(group.to_string()),
        }
    }
}

/// COOKIE, or INVALID_KE_PAYLOAD with another method that we have offered. The demand is
/// unauthenticated, so it can only choose among what we accept anyway (RFC 7296 2.7).
fn demand_of(payloads: &Payloads<'_>, proposals: &[IkeProposal], sent: Group) -> Option<Demand> {
    if let Some(cookie) = payloads.notify(NotifyType::COOKIE) {
        let fits = (1..=64).contains(&cookie.data.len()); // RFC 7296 2.6
        return fits.then(|| Demand::Cookie(cookie.data.to_vec()));
    }
    let wanted = payloads.notify(NotifyType::INVALID_KE_PAYLOAD)?;
    let id: [u8; 2] = wanted.data.try_into().ok()?;
    let group = Group::from_wire(KeMethod(u16::from_be_bytes(id)))?;
    let ours = proposals.iter().any(|p| p.groups.contains(&group));
    (ours && group != sent).then_some(Demand::Group(group))
}

/// What the responder's answer must hold.
struct InitAnswer<'a> {
    suite: IkeSuite,
    nonce: &'a [u8],
    peer_value: &'a [u8],
}

impl<'a> InitAnswer<'a> {
    fn check(
        payloads: &Payloads<'a>,
        proposals: &[IkeProposal],
        sent: Group,
    ) -> Result<Self, Error> {
        let rounds = Rounds::of(payloads);
        let suite = proposal::accept_ike(proposals, payloads.require_sa()?, rounds)?;
        let ke = payloads.require_ke()?;
        if suite.group != sent || ke.method != sent.id() {
            return Err(Error::BadAnswer("another key exchange method than the one we sent"));
        }
        Ok(Self { suite, nonce: payloads.require_nonce()?, peer_value: ke.data })
    }
}

/// Transforms that are none of ours get a record, ours beside theirs.
fn explained(error: Error, peer: Option<&PeerConfig>, payloads: &Payloads<'_>) -> Error {
    let (Some(peer), Ok(chosen)) = (peer, payloads.require_sa()) else { return error };
    bad_choice(error, Offer::ike(peer), chosen, Rounds::of(payloads))
}

fn first_group(proposals: &[IkeProposal]) -> Result<Group, Error> {
    let group = proposals.first().and_then(|p| p.groups.first()).copied();
    group.ok_or(Error::Internal("a peer has no proposal"))
}
