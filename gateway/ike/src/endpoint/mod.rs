//! The endpoint: finds the IKE SA that a message, an answer or an event belongs to, begins new
//! ones, and keeps the rules served.

mod allowance;
mod contacts;
mod cookies;
mod effects;
mod half_open;
#[cfg(any(test, feature = "testing"))]
mod in_step;
mod init_request;
mod policies;
mod rules;

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{ExchangeType, Header, HeaderError, IkeSpi};

use self::allowance::Allowance;
use self::contacts::Over;
use self::cookies::Sharing;
use self::half_open::HalfOpenSas;
pub(crate) use self::rules::RuleState;
use self::rules::Rules;
use crate::config::{EndpointConfig, PeerName, RuleName, Secret};
use crate::cookie::Cookies;
use crate::counters::{Counter, Counters};
use crate::crypto::key_exchange::KeyExchange;
use crate::event::EventKind;
use crate::ike_sa::{IkeSa, Job, State, Wish};
use crate::io::{ChildId, CommandId, Done, IkeSaId, Input, KernelError, KernelEvent, Output, Path};
use crate::random::Random;
use crate::selector::{self, Sides};
use crate::shared::{Digest, Owner, Shared};
use crate::time::earlier;

/// Outputs for which the empty queue keeps room: more than one message leads to.
const OUTPUTS_KEPT: usize = 16;

/// IKEv2 for one host: every IKE SA of it.
///
/// Everything goes in by [`Self::handle`] and comes out by [`Self::poll_output`], which must be
/// drained after each call; [`Self::next_timeout`] then says when to call again at the latest.
/// There is no I/O, no clock and no thread in here: the same inputs give the same outputs.
pub struct Endpoint {
    shared: Shared,
    sas: BTreeMap<IkeSaId, IkeSa>,
    /// IKE SAs by our own SPI.
    by_spi: BTreeMap<IkeSpi, IkeSaId>,
    /// Every IKE SA of which it is known with whom it is.
    by_peer: BTreeSet<(PeerName, IkeSaId)>,
    /// What is left of the keys that IKE SAs have replaced, by the number of each that goes on.
    remnants: BTreeSet<(IkeSaId, IkeSaId)>,
    half_open: HalfOpenSas,
    over: Over,
    /// What is left of initiators that were refused, the oldest first.
    refused: BTreeSet<IkeSaId>,
    /// Every IKE SA that we answered, by its IKE_SA_INIT request.
    answered: BTreeMap<Digest, IkeSaId>,
    /// One deadline for each IKE SA that has one.
    deadlines: BTreeSet<(Instant, IkeSaId)>,
    deadline_of: BTreeMap<IkeSaId, Instant>,
    rules: Rules,
    cookies: Cookies,
    sharing: Sharing,
    demanding_cookies: bool,
    /// Until when cookies are demanded because too many requests were refused.
    refusing_until: Option<Instant>,
    /// What is left for answers to messages that nothing protects.
    unprotected: Allowance,
    next_sa: u64,
    shutting_down: bool,
}

impl Endpoint {
    /// An endpoint without policies: it answers nobody until it gets some.
    #[must_use]
    pub fn new(
        config: EndpointConfig,
        random: Box<dyn Random>,
        key_exchange: Box<dyn KeyExchange>,
    ) -> Self {
        Self {
            shared: Shared::new(config, random, key_exchange),
            sas: BTreeMap::new(),
            by_spi: BTreeMap::new(),
            by_peer: BTreeSet::new(),
            remnants: BTreeSet::new(),
            half_open: HalfOpenSas::default(),
            over: Over::default(),
            refused: BTreeSet::new(),
            answered: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
            rules: Rules::default(),
            cookies: Cookies::default(),
            sharing: Sharing::default(),
            demanding_cookies: false,
            refusing_until: None,
            unprotected: Allowance::default(),
            next_sa: 1,
            shutting_down: false,
        }
    }

    /// With a secret of at least 32 octets that outlives the process: peers learn at once when
    /// IKE SAs are lost (RFC 6290). Nobody else may know it.
    #[must_use]
    pub fn with_crash_secret(mut self, secret: Secret) -> Self {
        self.shared.crash_tokens.set_secret(secret);
        self
    }

    /// Takes an input; what it causes waits in [`Self::poll_output`].
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Datagram { path, octets } => self.handle_datagram(now, path, octets),
            Input::CommandDone(id, result) => self.handle_command(now, id, result),
            Input::Kernel(event) => self.handle_kernel(now, event),
            Input::Policies(policies) => self.apply_policies(now, policies),
            Input::WallClock(since_1970) => self.wall_clock_read(now, since_1970),
            Input::LocalAddresses(addresses) => self.addresses_changed(now, addresses),
            Input::Shutdown => self.shut_down(now),
            Input::Timeout => self.handle_timeout(now),
        }
        self.apply_effects(now);
        self.share_cookies(now);
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.shared.outputs.pop_front();
        if output.is_none() {
            // What a reload of many rules took is given back.
            self.shared.outputs.shrink_to(OUTPUTS_KEPT);
        }
        output
    }

    /// When to hand in [`Input::Timeout`] at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let own = earlier(self.deadlines.first().map(|(at, _)| *at), self.rules.next_retry());
        earlier(own, self.sharing.due())
    }

    /// What happened how often.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// After [`Input::Shutdown`]: whether every goodbye has been answered or given up.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shutting_down
            && self
                .sas
                .values()
                .all(|sa| matches!(&sa.state, State::Closing(c) if !c.awaits_answer()))
    }

    /// Whether nothing is left of any IKE SA: no table has an entry for one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remains().next().is_none()
    }

    /// The tables that still have an entry of some IKE SA.
    pub(crate) fn remains(&self) -> impl Iterator<Item = &'static str> {
        let own = [
            ("IKE SAs", self.sas.is_empty()),
            ("half-open IKE SAs", self.half_open.is_empty()),
            ("IKE SAs that are over", self.over.is_empty()),
            ("IKE SAs that were refused", self.refused.is_empty()),
            ("requests that were answered", self.answered.is_empty()),
            ("SPIs of IKE", self.by_spi.is_empty()),
            ("IKE SAs with peers", self.by_peer.is_empty()),
            ("IKE SAs with old keys", self.remnants.is_empty()),
            ("deadlines", self.deadlines.is_empty() && self.deadline_of.is_empty()),
        ];
        let all = own.into_iter().chain(self.shared.remains());
        all.filter(|(_, is_empty)| !is_empty).map(|(what, _)| what)
    }

    pub(crate) fn sas(&self) -> impl Iterator<Item = &IkeSa> {
        self.sas.values()
    }

    /// For tests that bring an IKE SA into a state which needs another kind of peer.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn alter<T>(&mut self, id: IkeSaId, act: impl FnOnce(&mut IkeSa) -> T) -> Option<T> {
        let result = self.sas.get_mut(&id).map(act);
        self.settle(id);
        result
    }

    pub(crate) const fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn half_open_count(&self) -> usize {
        self.half_open.len()
    }

    pub(crate) fn rule_state(&self, rule: &RuleName) -> Option<&RuleState> {
        self.rules.get(rule)
    }

    fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        let (header, first) = match Header::decode(datagram) {
            Ok((header, first, _)) => (header, first),
            Err(HeaderError::Decode(_)) => return self.shared.count(Counter::MalformedHeader),
            Err(HeaderError::Version(version)) => return self.other_version(now, path, &version),
        };
        if header.exchange == ExchangeType::IKE_SA_INIT
            && datagram.len() > self.shared.config.init_size_limit
        {
            return self.shared.count(Counter::InitSizeLimit);
        }
        if header.exchange == ExchangeType::IKE_SA_INIT && !header.flags.response {
            return self.init_request(now, &header, path, datagram);
        }
        // The sender says whether it was the original initiator; the other SPI is ours.
        let ours = if header.flags.initiator { header.responder_spi } else { header.initiator_spi };
        match self.by_spi.get(&ours).copied() {
            None => self.unknown_spi(now, &header, first, path),
            Some(id) => self
                .with_sa(id, |sa, shared| sa.handle_datagram(now, shared, header, path, datagram)),
        }
    }

    fn handle_command(&mut self, now: Instant, id: CommandId, result: Result<Done, KernelError>) {
        match (self.shared.answered(id), result) {
            (Some(Owner::IkeSa(sa, purpose)), result) => {
                self.with_sa(sa, |sa, shared| sa.handle_command(now, shared, purpose, result));
            }
            (Some(Owner::Endpoint(what)), Err(error)) => {
                self.shared
                    .report(None, EventKind::KernelFailed { what, error: error.to_string() });
            }
            (Some(Owner::Endpoint(_)), Ok(_)) | (None, _) => {}
        }
    }

    fn handle_kernel(&mut self, now: Instant, event: KernelEvent) {
        match event {
            KernelEvent::Acquire {
                reqid,
                seq,
                source,
                destination,
                protocol,
                source_port,
                destination_port,
            } => {
                let ours = selector::of_packet(protocol, source, source_port);
                let theirs = selector::of_packet(protocol, destination, destination_port);
                self.acquire(now, reqid, seq, (ours, theirs));
            }
            KernelEvent::Expire { spi, destination, hard } => {
                // The event names either direction; a Child SA expires as a whole.
                if let Some((sa, child)) = self.find_child(spi, destination) {
                    self.with_sa(sa, |sa, shared| sa.child_expired(now, shared, child, hard));
                }
            }
            KernelEvent::PeerMoved { spi, from } => {
                if let Some((sa, _)) = self.shared.spis.get(&spi).copied() {
                    self.with_sa(sa, |sa, shared| sa.source_seen(now, shared, (spi, from)));
                }
            }
            KernelEvent::Vanished { child } => {
                if let Some(sa) = self.shared.children.owner(child) {
                    self.with_sa(sa, |sa, shared| {
                        sa.delete_child(now, shared, child, "vanished from the kernel")
                    });
                }
            }
        }
    }

    /// The Child SA that receives or sends by an SPI. A peer may choose one that another has chosen,
    /// or we: then the destination tells, which may still be that from before a move.
    fn find_child(&self, spi: u32, destination: IpAddr) -> Option<(IkeSaId, ChildId)> {
        let goes_there = |(id, _): &(IkeSaId, ChildId), end: fn(&Path) -> IpAddr| {
            self.sas.get(id).is_some_and(|sa| end(&sa.path) == destination)
        };
        let inbound = self.shared.spis.get(&spi).copied();
        let inbound = inbound.into_iter().map(|of| (goes_there(&of, |path| path.local.ip()), of));
        let outbound = self.shared.children.sending_by(spi);
        let outbound = outbound.map(|of| (goes_there(&of, |path| path.remote.ip()), of));
        inbound.chain(outbound).max_by_key(|(fits, _)| *fits).map(|(_, of)| of)
    }

    /// The kernel wants an SA for traffic that met a trap.
    fn acquire(&mut self, now: Instant, reqid: u32, seq: u32, packet: Sides) {
        self.shared.count(Counter::Acquire);
        let Some(rule) = self.shared.reqids.asks(reqid, seq, packet) else {
            return self.shared.count(Counter::AcquireIgnored);
        };
        let first = Some(packet);
        let wish = Wish { first, for_packet: true, ..Wish::new(RuleName::clone(&rule)) };
        if self.start_rule(now, wish) {
            return;
        }
        self.shared.count(Counter::AcquireIgnored);
        if self.sends(&rule, &packet) {
            let asked = self.shared.reqids.strays(&rule);
            self.shared.forget_acquire(asked);
        }
    }

    /// Begins an IKE SA; `false` if the peer's address is not known.
    fn initiate(
        &mut self,
        now: Instant,
        peer: &PeerName,
        jobs: VecDeque<Job>,
        supersedes: Option<IkeSaId>,
    ) -> bool {
        let keep = supersedes.and_then(|old| self.sas.get(&old)).map(|old| old.assignment.lease);
        let Some(peer) = self.shared.policies.peers.get(peer).map(Arc::clone) else { return false };
        let Some(remote) = peer.remote_address.filter(|_| peer.may_initiate()) else {
            return false;
        };
        let id = self.sa_id();
        let first_rule = jobs.iter().find_map(Job::rule).cloned();
        match IkeSa::initiate(now, &mut self.shared, id, &peer, remote, jobs) {
            Ok(mut sa) => {
                sa.supersedes = supersedes;
                sa.keep = keep.unwrap_or_default();
                self.by_spi.insert(sa.initiator_spi, id);
                self.put_new(sa);
                true
            }
            Err(error) => {
                let error = error.to_string();
                if let Some(rule) = first_rule {
                    self.rule_lost(now, &rule, Some(error));
                }
                false
            }
        }
    }

    fn sa_id(&mut self) -> IkeSaId {
        let id = IkeSaId(self.next_sa);
        self.next_sa = self.next_sa.saturating_add(1);
        id
    }

    /// What is due by the wall clock, such as the end of a certificate, is due at another moment when
    /// somebody has set it.
    fn wall_clock_read(&mut self, now: Instant, since_1970: Duration) {
        if self.shared.set_wall_clock(now, since_1970) {
            let all: Vec<IkeSaId> = self.sas.keys().copied().collect();
            for id in all {
                self.settle(id);
            }
        }
    }

    fn addresses_changed(&mut self, now: Instant, addresses: Vec<IpAddr>) {
        self.shared.local_addresses = addresses;
        let all: Vec<IkeSaId> = self.sas.keys().copied().collect();
        for id in all {
            self.with_sa(id, |sa, shared| sa.addresses_changed(now, shared, true));
        }
    }

    fn shut_down(&mut self, now: Instant) {
        self.shutting_down = true;
        self.rules.give_up();
        let all: Vec<IkeSaId> = self.sas.keys().copied().collect();
        for id in all {
            self.with_sa(id, |sa, shared| {
                if !matches!(sa.state, State::Closing(_)) {
                    sa.delete_ike(now, shared, "shutting down");
                }
            });
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= now
        {
            self.with_sa(id, |sa, shared| sa.handle_timeout(now, shared));
            if self.deadline_of.get(&id) == Some(&at) {
                break; // Nothing moved: it would not move the next time either.
            }
        }
        for rule in self.rules.take_due(now) {
            self.start_rule(now, Wish::new(rule));
        }
    }

    /// Lends an IKE SA out, and brings what is kept of it in step.
    fn with_sa(&mut self, id: IkeSaId, act: impl FnOnce(&mut IkeSa, &mut Shared)) {
        let Some(sa) = self.sas.get_mut(&id) else { return };
        let knew_peer = sa.peer.is_some();
        act(sa, &mut self.shared);
        if !knew_peer {
            self.file(id);
        }
        self.settle(id);
    }

    /// An IKE SA that has begun.
    fn put_new(&mut self, sa: IkeSa) {
        let id = sa.id;
        self.sas.insert(id, sa);
        self.file(id);
        self.settle(id);
    }

    /// Notes with whom an IKE SA is, once that is known, and whose old keys it has.
    fn file(&mut self, id: IkeSaId) {
        let Some(sa) = self.sas.get(&id) else { return };
        let peer = sa.peer.as_ref().map(|peer| PeerName::clone(&peer.name));
        self.by_peer.extend(peer.map(|peer| (peer, id)));
        self.remnants.extend(sa.remnant_of.map(|of| (of, id)));
    }

    /// Notes when an IKE SA wants to be called, and forgets one that is closed.
    fn settle(&mut self, id: IkeSaId) {
        let Some(sa) = self.sas.get(&id) else { return };
        let closed = sa.is_closed();
        let deadline = sa.next_timeout(&self.shared).filter(|_| !closed);
        let known = self.deadline_of.get(&id).copied();
        if deadline != known {
            if let Some(old) = known {
                self.deadlines.remove(&(old, id));
            }
            if let Some(at) = deadline {
                self.deadlines.insert((at, id));
                self.deadline_of.insert(id, at);
            } else {
                self.deadline_of.remove(&id);
            }
        }
        let excess = self.over.note(sa, self.shared.config.peer_ike_sa_limit);
        if closed {
            self.refused.remove(&id);
            if let Some(peer) = &sa.peer {
                self.by_peer.remove(&(PeerName::clone(&peer.name), id));
            }
            if let Some(of) = sa.remnant_of {
                self.remnants.remove(&(of, id));
            }
            self.shared.keep_half_closed(id, &[]);
            for spi in [sa.initiator_spi, sa.responder_spi] {
                if self.by_spi.get(&spi) == Some(&id) {
                    self.by_spi.remove(&spi);
                }
            }
            if let Some(request) = sa.init_request
                && self.answered.get(&request) == Some(&id)
            {
                self.answered.remove(&request);
            }
            self.sas.remove(&id);
        }
        if let Some(oldest) = excess {
            self.with_sa(oldest, |sa, _| sa.state = State::Closed);
        }
    }
}
