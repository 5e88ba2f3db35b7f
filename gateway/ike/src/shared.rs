//! What all IKE SAs of an endpoint share: configuration, randomness, the queue of outputs, and
//! the tables that tie SPIs, commands and rules to their owners.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{Header, IkeSpi, TrafficSelector};

use crate::channel::Datagrams;
use crate::children::Children;
use crate::config::{Action, EndpointConfig, PeerName, Pool, Rule, UserName};
use crate::contacts::Contacts;
use crate::counters::{Counter, Counters};
use crate::crash::Tokens;
use crate::crypto::key_exchange::KeyExchange;
use crate::effect::Effect;
use crate::event::{Event, EventKind};
use crate::io::{ChildId, CommandId, IkeSaId, KERNEL_SPIS, KernelCommand, Output, Path};
use crate::leases::{Holder, Lease, Leases};
use crate::policies::Policies;
use crate::random::{Random, RandomFailed};
use crate::reason;
use crate::reqids::{Asked, Reqids};
use crate::selector;
use crate::senders::{OfIkeSa, Senders};
use crate::single_pairs::SinglePairs;

/// The SHA-1 hash of a message, to tell it from others.
pub(crate) type Digest = [u8; 20];

/// Less than this between two readings of the wall clock and the time that has passed is no news: the
/// two clocks are not read at the same moment, and certificates end by the second.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

/// Whom the answer to a command concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// An IKE SA.
    IkeSa(IkeSaId, Purpose),
    /// The endpoint itself: nobody waits, a failure is reported with these words.
    Endpoint(String),
}

/// What an IKE SA wanted of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Our address towards the peer.
    LocalAddress,
    /// A Child SA in place, whole or as far as it receives.
    InstallChild(ChildId),
    /// What sends of a Child SA in place.
    InstallOutbound(ChildId),
    /// A Child SA between other addresses.
    MoveChild(ChildId),
    /// Our address towards the peer, which is at this one, in the place of one that is gone.
    NewAddress(IpAddr),
    /// Whether packets come in on a Child SA.
    Poll(ChildId),
    /// When a Child SA was used last.
    QueryUse(ChildId),
    /// Whether a Child SA has been used at all; `due`: it is at its soft limit.
    Idle { child: ChildId, due: bool },
    /// Whether what this Child SA has taken the place of had been used.
    IdleBefore(ChildId),
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) config: EndpointConfig,
    pub(crate) policies: Arc<Policies>,
    /// What the wall clock said, in time since 1970, and when.
    wall_clock: Option<(Instant, Duration)>,
    pub(crate) random: Box<dyn Random>,
    pub(crate) key_exchange: Box<dyn KeyExchange>,
    pub(crate) crash_tokens: Tokens,
    pub(crate) leases: Leases,
    /// Our addresses on the way to peers, as far as anybody has said.
    pub(crate) local_addresses: Vec<IpAddr>,
    pub(crate) counters: Counters,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) effects: Vec<Effect>,
    /// Inbound SPIs in use or reserved, with their owners.
    pub(crate) spis: BTreeMap<u32, (IkeSaId, ChildId)>,
    /// Those of them by which a peer may send before we can receive.
    pub(crate) expected: BTreeSet<u32>,
    pub(crate) children: Children,
    pub(crate) reqids: Reqids,
    pub(crate) senders: Senders,
    pub(crate) single_pairs: SinglePairs,
    /// Inbound SPIs that are gone here and whose Delete the peer has not answered, with the IKE SA
    /// that waits: they are not used again before (RFC 7296 1.4.1).
    half_closed: BTreeMap<u32, IkeSaId>,
    pub(crate) contacts: Contacts,
    commands: BTreeMap<CommandId, Owner>,
    next_command: u64,
    next_child: u64,
}

impl Shared {
    pub(crate) fn new(
        config: EndpointConfig,
        random: Box<dyn Random>,
        key_exchange: Box<dyn KeyExchange>,
    ) -> Self {
        Self {
            config,
            policies: Arc::default(),
            wall_clock: None,
            random,
            key_exchange,
            crash_tokens: Tokens::default(),
            leases: Leases::default(),
            local_addresses: Vec::new(),
            counters: Counters::default(),
            outputs: VecDeque::new(),
            effects: Vec::new(),
            spis: BTreeMap::new(),
            expected: BTreeSet::new(),
            half_closed: BTreeMap::new(),
            children: Children::default(),
            reqids: Reqids::default(),
            senders: Senders::default(),
            single_pairs: SinglePairs::default(),
            contacts: Contacts::default(),
            commands: BTreeMap::new(),
            next_command: 1,
            next_child: 1,
        }
    }

    /// At `now` the wall clock says this much time since 1970. Gives whether that is news: it is read
    /// before each input, and mostly says only that time has passed.
    pub(crate) fn set_wall_clock(&mut self, now: Instant, since_1970: Duration) -> bool {
        let known = self.time_of_day(now);
        let is_set = known.is_none_or(|known| known.abs_diff(since_1970) >= CLOCKS_DIFFER);
        if is_set {
            self.wall_clock = Some((now, since_1970));
        }
        is_set
    }

    /// The time since 1970, if anybody has said it.
    pub(crate) fn time_of_day(&self, now: Instant) -> Option<Duration> {
        let (then, since_1970) = self.wall_clock?;
        Some(since_1970.saturating_add(now.saturating_duration_since(then)))
    }

    /// When the wall clock says this, in time since 1970; if it is past, a moment that is past too.
    pub(crate) fn when(&self, since_1970: Duration) -> Option<Instant> {
        let (then, at) = self.wall_clock?;
        then.checked_add(since_1970.saturating_sub(at))
    }

    /// Sends a message, which may be in several datagrams.
    pub(crate) fn transmit(&mut self, path: Path, message: impl Into<Datagrams>) {
        let message = message.into();
        if message.len() > 1 {
            self.count(Counter::MessageFragmented);
        }
        self.outputs.extend(message.into_iter().map(|octets| Output::Transmit { path, octets }));
    }

    /// A peer may send by this SPI as soon as it has answered what we are about to send, when we
    /// cannot receive it yet (RFC 7296 2.8).
    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn expect(&mut self, local: IpAddr, spi: u32) {
        self.expected.insert(spi);
        self.outputs.push_back(Output::Expect { local, spi });
    }

    /// What comes by this SPI is received.
    pub(crate) fn receives(&mut self, spi: u32) {
        self.expected.remove(&spi);
    }

    pub(crate) fn keepalive(&mut self, path: Path) {
        self.count(Counter::KeepaliveSent);
        self.outputs.push_back(Output::Keepalive { path });
    }

    pub(crate) fn event(&mut self, mut event: Event) {
        if let Some(refusal) = &mut event.refusal {
            self.counters.count_refusal(refusal.cause);
            if refusal.shorten(self.config.refusal_size_limit) {
                self.count(Counter::RefusalShortened);
            }
        }
        self.outputs.push_back(Output::Event(event));
    }

    /// An event that concerns no IKE SA.
    pub(crate) fn report(&mut self, path: Option<Path>, kind: EventKind) {
        self.event(Event {
            ike_sa: None,
            spis: None,
            peer: None,
            user: None,
            path,
            kind,
            refusal: None,
        });
    }

    /// An event about a message that belongs to no IKE SA of ours.
    pub(crate) fn report_stray(&mut self, header: &Header, path: Path, kind: EventKind) {
        let spis = Some((header.initiator_spi, header.responder_spi));
        let refusal = reason::of_stray(&kind).map(Box::new);
        self.event(Event {
            ike_sa: None,
            spis,
            peer: None,
            user: None,
            path: Some(path),
            kind,
            refusal,
        });
    }

    pub(crate) fn command(&mut self, owner: Owner, command: KernelCommand) {
        let id = CommandId(self.next_command);
        self.next_command = self.next_command.saturating_add(1);
        self.commands.insert(id, owner);
        self.outputs.push_back(Output::Kernel(id, command));
    }

    /// What a packet has asked for is there: the kernel is to tell of the next that nothing protects.
    pub(crate) fn forget_acquire(&mut self, asked: Option<Asked>) {
        if let Some(Asked { reqid, seq }) = asked {
            let words = format!("forgetting the acquire {seq} of request ID {reqid:#x}");
            self.command(Owner::Endpoint(words), KernelCommand::ForgetAcquire { reqid, seq });
        }
    }

    /// A command by which a Child SA ends to send; `heir` is the one that does it from now on.
    pub(crate) fn command_after(
        &mut self,
        heir: Option<OfIkeSa>,
        owner: Owner,
        command: KernelCommand,
    ) {
        match heir {
            Some(heir) => self.effects.push(Effect::Inherit { heir, then: (owner, command) }),
            None => self.command(owner, command),
        }
    }

    pub(crate) fn answered(&mut self, id: CommandId) -> Option<Owner> {
        self.commands.remove(&id)
    }

    /// The selectors of a rule, ours and the peer's. A peer with a pool sends and receives by its
    /// own addresses only, whatever it or the rule says; and so do we, by a rule for what we are
    /// assigned. `ours` is that; `None`: the peer has yet to say.
    pub(crate) fn selectors(
        &self,
        rule: &Rule,
        user: Option<&UserName>,
        ours: Option<Lease>,
    ) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
        let (local, remote) = selector::of_rule(rule);
        let local = selector::assigned(self.config.selector_pair_limit, rule, local, ours);
        let Action::Protect(protect) = &rule.action else { return (local, remote) };
        let peer = self.policies.peers.get(&protect.peer);
        if peer.is_none_or(|p| p.pool.is_none()) {
            return (local, remote);
        }
        let holder = Holder { peer: PeerName::clone(&protect.peer), user: user.cloned() };
        let own = self.leases.of(&holder).selectors();
        (local, selector::narrow(self.config.selector_pair_limit, &remote, &own))
    }

    /// Gives a peer addresses of its pool, as far as there are any.
    pub(crate) fn assign(&mut self, pool: &Pool, holder: &Holder, wants: (bool, bool)) -> Lease {
        let contacts = &self.contacts;
        self.leases.assign(pool, holder, wants, |holder| !contacts.has(holder))
    }

    /// Takes addresses from whom the policy does not give any now.
    pub(crate) fn retain_leases(&mut self) {
        let contacts = &self.contacts;
        self.leases.retain(&self.policies, |holder| !contacts.has(holder));
    }

    /// One more IKE SA stands.
    pub(crate) fn contacted(&mut self, holder: Holder, newest: IkeSaId) {
        let count = self.contacts.insert(holder.clone(), newest);
        if count > self.config.peer_ike_sa_limit {
            self.effects.push(Effect::TooManyContacts { holder, newest });
        }
    }

    /// An IKE SA stands no longer.
    pub(crate) fn contact_lost(&mut self, holder: &Holder, ike_sa: IkeSaId) {
        if self.contacts.remove(holder, ike_sa) {
            self.leases.disconnected(&self.policies, holder);
            let rules = self.single_pairs.disconnected(holder);
            let lost = |rule| Effect::RuleLost { rule, error: None };
            self.effects.extend(rules.into_iter().map(lost));
        }
    }

    pub(crate) fn count(&mut self, counter: Counter) {
        self.counters.count(counter);
    }

    pub(crate) fn octets<const N: usize>(&mut self) -> Result<[u8; N], RandomFailed> {
        let mut octets = [0; N];
        self.random.fill(&mut octets)?;
        Ok(octets)
    }

    /// A number less a random part of a tenth of it: limits that two ends have alike are then
    /// hardly ever reached at once.
    pub(crate) fn jittered(&mut self, value: u64) -> u64 {
        let most = value / 10;
        let random = self.octets().map_or(0, u64::from_be_bytes);
        value.saturating_sub(random.checked_rem(most.saturating_add(1)).unwrap_or(0))
    }

    /// A time less a random part of a tenth of it.
    pub(crate) fn jittered_time(&mut self, time: Duration) -> Duration {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.jittered(millis))
    }

    /// How long to wait before something is tried again that has failed so often: longer and
    /// longer, and never the same for two ends that stood in each other's way (RFC 7296 2.25).
    pub(crate) fn backoff(&mut self, failures: u32) -> Duration {
        let most = 1000_u64.saturating_mul(1 << failures.min(5));
        let random = self.octets().map_or(0, u64::from_be_bytes);
        let half = most / 2;
        let part = random.checked_rem(half.saturating_add(1)).unwrap_or(0);
        Duration::from_millis(half.saturating_add(part))
    }

    /// A fresh IKE SPI: random, so that nobody can guess it, and never zero.
    pub(crate) fn ike_spi(&mut self) -> Result<IkeSpi, RandomFailed> {
        loop {
            let spi = IkeSpi(self.octets()?);
            if !spi.is_zero() {
                return Ok(spi);
            }
        }
    }

    /// A fresh inbound SPI for a Child SA, reserved until [`Self::release_spi`].
    pub(crate) fn child_spi(
        &mut self,
        owner: IkeSaId,
        child: ChildId,
        kernel_decapsulates: bool,
    ) -> Result<u32, RandomFailed> {
        loop {
            let mut spi = u32::from_be_bytes(self.octets()?);
            if kernel_decapsulates {
                spi |= *KERNEL_SPIS.start();
            } else if KERNEL_SPIS.contains(&spi) {
                continue;
            }
            // RFC 4303 2.1: 0 to 255 are reserved.
            let taken = self.spis.contains_key(&spi) || self.half_closed.contains_key(&spi);
            if spi >= 256 && !taken {
                self.spis.insert(spi, (owner, child));
                return Ok(spi);
            }
        }
    }

    pub(crate) fn release_spi(&mut self, spi: u32) {
        self.spis.remove(&spi);
        if self.expected.remove(&spi) {
            self.outputs.push_back(Output::ExpectNoMore { spi });
        }
    }

    /// The peer is yet to hear that the SA with this inbound SPI is gone.
    pub(crate) fn half_close(&mut self, spi: u32, sa: IkeSaId) {
        self.half_closed.insert(spi, sa);
    }

    /// Of the SPIs for which an IKE SA waited, only these are still waited for.
    pub(crate) fn keep_half_closed(&mut self, sa: IkeSaId, waiting: &[u32]) {
        self.half_closed.retain(|spi, of| *of != sa || waiting.contains(spi));
    }

    /// Whether every inbound SPI is free again.
    pub(crate) fn has_no_spis(&self) -> bool {
        self.spis.is_empty() && self.half_closed.is_empty()
    }

    /// What an SA may leave, and whether none has: every SPI is free, the kernel owes no answer, no
    /// peer counts as connected, none counts as sending, and nothing waits to be said or done.
    pub(crate) fn remains(&self) -> [(&'static str, bool); 10] {
        [
            ("SPIs", self.has_no_spis()),
            ("expected SPIs", self.expected.is_empty()),
            ("Child SAs", self.children.is_empty()),
            ("commands", self.commands.is_empty()),
            ("contacts", self.contacts.is_empty()),
            ("senders", self.senders.is_empty()),
            ("single pairs of addresses", self.single_pairs.is_empty()),
            ("request IDs of Child SAs", self.reqids.nothing_sends()),
            ("outputs", self.outputs.is_empty()),
            ("effects", self.effects.is_empty()),
        ]
    }

    pub(crate) fn child_id(&mut self) -> ChildId {
        let id = ChildId(self.next_child);
        self.next_child = self.next_child.saturating_add(1);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FastKeyExchange, SeededRandom};

    /// Gives the same SPI time and again, and then another.
    #[derive(Debug)]
    struct Stuck(u8);

    impl Random for Stuck {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomFailed> {
            self.0 = self.0.saturating_add(1);
            buffer.fill(if self.0 < 4 { 0x11 } else { 0x22 });
            Ok(())
        }
    }

    #[test]
    fn an_spi_is_not_used_again_before_its_delete_is_answered() {
        let key_exchange = Box::new(FastKeyExchange::new(1));
        let mut shared =
            Shared::new(EndpointConfig::default(), Box::new(SeededRandom::new(1)), key_exchange);
        let (sa, child) = (IkeSaId(1), ChildId(1));
        let fresh = |shared: &mut Shared| {
            shared.random = Box::new(Stuck(0));
            shared.child_spi(sa, child, false).unwrap()
        };
        assert_eq!(fresh(&mut shared), 0x1111_1111);
        assert_eq!(fresh(&mut shared), 0x2222_2222, "one in use is not given again");
        shared.release_spi(0x1111_1111);
        shared.release_spi(0x2222_2222);
        shared.half_close(0x1111_1111, sa);
        assert_eq!(fresh(&mut shared), 0x2222_2222);
        shared.release_spi(0x2222_2222);
        assert!(!shared.has_no_spis());
        shared.keep_half_closed(IkeSaId(2), &[]);
        shared.keep_half_closed(sa, &[0x1111_1111]);
        assert_eq!(fresh(&mut shared), 0x2222_2222);
        shared.keep_half_closed(sa, &[]);
        assert_eq!(fresh(&mut shared), 0x1111_1111);
    }

    #[test]
    fn lifetimes_are_jittered_and_never_longer() {
        let key_exchange = Box::new(FastKeyExchange::new(1));
        let mut shared =
            Shared::new(EndpointConfig::default(), Box::new(SeededRandom::new(1)), key_exchange);
        let hour = Duration::from_secs(3600);
        let times: Vec<_> = (0..100).map(|_| shared.jittered_time(hour)).collect();
        assert!(times.iter().all(|t| *t <= hour && *t >= hour * 9 / 10));
        let different: BTreeSet<_> = times.iter().collect();
        assert!(different.len() > 90, "{}", different.len());
        assert_eq!(shared.jittered(0), 0);
    }

    #[test]
    fn what_failed_waits_longer_and_longer_up_to_a_limit() {
        let key_exchange = Box::new(FastKeyExchange::new(1));
        let mut shared =
            Shared::new(EndpointConfig::default(), Box::new(SeededRandom::new(1)), key_exchange);
        for (failures, most) in [(0, 1), (1, 2), (4, 16), (5, 32), (60, 32)] {
            let wait = shared.backoff(failures);
            let most = Duration::from_secs(most);
            assert!((most / 2..=most).contains(&wait), "{failures}: {wait:?}");
        }
    }
}
