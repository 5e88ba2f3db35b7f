//! The Child SA that we ask the peer for, and the check of its answer (RFC 7296 1.2, 1.3.1, 2.9).

use std::collections::VecDeque;
use std::sync::Arc;

use gateway_wire::{KeMethod, NotifyType, Payload, TrafficSelector, TrafficSelectors};

use super::child::Narrowed;
use super::jobs::{Current, Wish};
use super::{IkeSa, State, notify, single_pair};
use crate::algorithms::Group;
use crate::config::{Mode, Protect, Rule, RuleName};
use crate::counters::Counter;
use crate::error::Error;
use crate::io::{ChildId, KERNEL_SPIS, Path, Selector};
use crate::leases::Lease;
use crate::natt::NatDetected;
use crate::payloads::Payloads;
use crate::proposal::{self, ChildExchange, EspChoice, Rounds};
use crate::reason::{Offer, RuleSelectors, bad_choice, no_common_selectors};
use crate::selector::{self, Sides};
use crate::shared::Shared;

/// Selectors in a payload that libreswan takes; with one more it refuses the whole request. A rule
/// with more is none for libreswan, and none has as many as a payload has room for (RFC 7296 3.13).
const MOST_OF_LIBRESWAN: usize = 16;

/// A Child SA that we ask the peer for.
#[derive(Debug, Clone)]
pub(crate) struct ChildOffer {
    pub(super) wish: Wish,
    pub(super) rule: Arc<Rule>,
    pub(super) protect: Protect,
    pub(super) id: ChildId,
    /// Our inbound SPI, reserved.
    pub(super) spi: u32,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    /// What is named before them, and lies within.
    first: Option<Sides>,
    /// Whether they are of a single pair of addresses because the peer takes no more.
    single_pair: bool,
    /// Pairs of prefixes that it may have.
    most_pairs: usize,
    /// What the Child SA that is replaced protects.
    in_use: Vec<(Selector, u32)>,
    /// What the peer has deleted meanwhile that is not known here, by its SPIs: this may be among it.
    deleted: VecDeque<u32>,
}

/// The peer's good answer to a [`ChildOffer`].
#[derive(Debug)]
pub(super) struct ChildAnswer {
    pub(super) choice: EspChoice,
    pub(super) narrowed: Narrowed,
}

impl IkeSa {
    /// What is sent next is the last that the peer needs for a Child SA: it may send by it as soon as
    /// it has answered, before we can receive (RFC 7296 2.8). What the kernel takes out of UDP nobody
    /// can keep until then.
    pub(super) fn expect(&self, shared: &mut Shared, offer: &ChildOffer) {
        if !KERNEL_SPIS.contains(&offer.spi) {
            shared.expect(self.path.local.ip(), offer.spi);
        }
    }

    /// The same is sent again: its answer may come that much later.
    pub(super) fn expect_again(&self, shared: &mut Shared) {
        let offer = match &self.state {
            State::AwaitAuth(waiting) => waiting.child.as_ref(),
            State::Established(established) => {
                established.current.as_ref().and_then(Current::offer)
            }
            State::FindingAddress
            | State::AwaitInit(_)
            | State::AwaitIntermediate(_)
            | State::HalfOpen(_)
            | State::Closing(_)
            | State::Closed => None,
        };
        // Before the last request of EAP, or of several key exchanges, nothing is expected yet.
        if let Some(offer) = offer.filter(|offer| shared.expected.contains(&offer.spi)) {
            self.expect(shared, offer);
        }
    }
}

const fn mode(transport: bool) -> &'static str {
    if transport { "transport" } else { "tunnel" }
}

/// Selectors with one before them that they contain, which a peer that must choose is to choose
/// (RFC 7296 2.9).
fn led_by(first: Option<TrafficSelector>, all: &[TrafficSelector]) -> TrafficSelectors {
    let others = all.iter().copied().filter(|selector| Some(*selector) != first);
    TrafficSelectors::new(first.into_iter().chain(others).collect())
}

impl ChildOffer {
    /// An offer for a rule as it is *now*; `None` when there is no such rule any more, or it is one
    /// with another peer. `ours`: the addresses that we are assigned; `None`: we are about to ask.
    /// `in_udp`: how ESP will be sent.
    pub(super) fn new(
        shared: &mut Shared,
        sa: &IkeSa,
        ours: Option<Lease>,
        in_udp: bool,
        wish: Wish,
    ) -> Result<Option<Self>, Error> {
        let Some(rule) = shared.policies.rules.get(&wish.rule).cloned() else { return Ok(None) };
        let with_peer =
            |protect: &&Protect| sa.peer.as_ref().is_some_and(|p| p.name == protect.peer);
        let Some(protect) = rule.protect().filter(with_peer).cloned() else { return Ok(None) };
        let (local, remote) = shared.selectors(&rule, sa.user.as_ref(), ours);
        if local.is_empty() || remote.is_empty() {
            return Ok(None); // One of us has no address of the rule's.
        }
        // Beside another Child SA of the rule nothing could come of it unless the packet is named: a
        // refusal is no worse.
        let is_more = wish.replaces.is_none()
            && sa.children().any(|c| c.is_live() && c.rule.name == rule.name);
        // With which address we come is not known before the peer has assigned it.
        let known = ours.is_some() || !rule.assigned;
        let single = known && sa.owes_single_pairs(shared, &rule.name);
        let pair = wish.first.filter(|_| single);
        let pair = pair.and_then(|first| single_pair::of((&local, &remote), &first));
        let (local, remote) = pair.map_or((local, remote), |(l, r)| (vec![l], vec![r]));
        let first = pair.or(wish.first).filter(|first| {
            let has_room =
                |all: &[_], first| all.len() != MOST_OF_LIBRESWAN || is_more || all.contains(first);
            let is_within =
                selector::within(&[first.0], &local) && selector::within(&[first.1], &remote);
            known && is_within && has_room(&local, &first.0) && has_room(&remote, &first.1)
        });
        let id = shared.child_id();
        let by_kernel = in_udp && protect.mode == Mode::Transport;
        let spi = shared.child_spi(sa.id, id, by_kernel)?;
        Ok(Some(Self {
            wish,
            rule,
            protect,
            id,
            spi,
            local,
            remote,
            first,
            single_pair: pair.is_some(),
            most_pairs: shared.config.selector_pair_limit,
            in_use: Vec::new(),
            deleted: VecDeque::new(),
        }))
    }

    /// It is to protect at least this, which a Child SA does that it replaces.
    pub(super) fn keeping(self, in_use: Vec<(Selector, u32)>) -> Self {
        Self { in_use, ..self }
    }

    /// The peer has deleted Child SAs that are not known here. With its answer lost, and perhaps for
    /// long, that may be the very one that the answer makes. Of more than may be kept the oldest are
    /// forgotten.
    pub(super) fn note_deleted(&mut self, shared: &mut Shared, spis: impl Iterator<Item = u32>) {
        for spi in spis {
            self.deleted.push_back(spi);
            if self.deleted.len() > shared.config.deleted_spi_limit {
                self.deleted.pop_front();
                shared.count(Counter::DeletedSpiForgotten);
            }
        }
    }

    /// Whether the peer has deleted what its answer makes.
    pub(super) fn is_deleted(&self, answer: &ChildAnswer) -> bool {
        self.deleted.contains(&answer.choice.peer_spi)
    }

    /// Transport mode can be offered for the two addresses of the IKE SA alone (RFC 4301 4.1), each as
    /// its own end knows it (RFC 7296 2.23.1).
    pub(super) fn check_addresses(&self, path: Path) -> Result<(), Error> {
        let are_those = || {
            selector::are_of(&self.local, path.local.ip())
                && selector::are_of(&self.remote, path.remote.ip())
        };
        if self.protect.mode == Mode::Tunnel || are_those() {
            Ok(())
        } else {
            Err(Error::TransportAddresses)
        }
    }

    /// Whether it names what is wanted in any case, which the rule may not select for this peer.
    pub(super) const fn names_first(&self) -> bool {
        self.first.is_some()
    }

    /// Whether no more than a single pair of addresses is asked for, since the peer takes no more.
    pub(super) const fn is_single_pair(&self) -> bool {
        self.single_pair
    }

    /// Whether there is a single pair of addresses to be asked for.
    pub(super) fn has_single_pair(&self) -> bool {
        let pair =
            self.wish.first.and_then(|first| single_pair::of((&self.local, &self.remote), &first));
        pair.is_some()
    }

    pub(super) fn serves(&self, rule: &RuleName) -> bool {
        self.wish.rule == *rule && self.wish.replaces.is_none()
    }

    /// The payloads of the offer in IKE_AUTH: SA, TSi, TSr and, for transport mode, its
    /// notification.
    pub(super) fn payloads(&self) -> Vec<Payload<'static>> {
        self.payloads_with(false)
    }

    /// The same in CREATE_CHILD_SA, where a key exchange may be offered too.
    pub(super) fn payloads_with(&self, pfs: bool) -> Vec<Payload<'static>> {
        let sa = proposal::offer_esp(&self.protect.proposals, self.spi, pfs);
        let transport = (self.protect.mode == Mode::Transport)
            .then(|| notify(NotifyType::USE_TRANSPORT_MODE, &[]));
        let (ours, theirs) = self.first.unzip();
        transport
            .into_iter()
            .chain([
                Payload::SecurityAssociation(sa),
                Payload::TsInitiator(led_by(ours, &self.local)),
                Payload::TsResponder(led_by(theirs, &self.remote)),
            ])
            .collect()
    }

    /// The method for which CREATE_CHILD_SA brings a value: the one that the peer asked for, else
    /// the one that the IKE SA has, which the peer surely knows, else our best.
    pub(super) fn group(&self, of_ike_sa: Group) -> Option<Group> {
        let ours = || self.protect.proposals.iter().flat_map(|p| p.groups.iter().copied());
        let known = ours().find(|g| Some(*g) == self.wish.group);
        known.or_else(|| ours().find(|g| *g == of_ike_sa)).or_else(|| ours().next())
    }

    /// Whether the peer may ask for this method instead of the one we sent.
    pub(super) fn may_use(&self, group: Group) -> bool {
        self.protect.proposals.iter().any(|p| p.groups.contains(&group))
    }

    /// The peer's answer in IKE_AUTH, which came by this path, must be one of our proposals and lie
    /// within our selectors. `ours`: the addresses that it has assigned to us.
    pub(super) fn check_answer(
        &self,
        payloads: &Payloads<'_>,
        through: (NatDetected, Path),
        ours: Lease,
    ) -> Result<ChildAnswer, Error> {
        self.check(payloads, through, ChildExchange::Auth, Some(ours))
    }

    /// The same in CREATE_CHILD_SA, to which we sent a value for the method `sent`.
    pub(super) fn check_created(
        &self,
        payloads: &Payloads<'_>,
        through: (NatDetected, Path),
        sent: Option<KeMethod>,
    ) -> Result<ChildAnswer, Error> {
        self.check(payloads, through, ChildExchange::CreateChild(sent), None)
    }

    fn check(
        &self,
        payloads: &Payloads<'_>,
        (nat, path): (NatDetected, Path),
        exchange: ChildExchange,
        ours: Option<Lease>,
    ) -> Result<ChildAnswer, Error> {
        // RFC 7296 3.10.1: an error in a response means that the request has failed, known or not.
        match payloads.error() {
            Some(error) if payloads.sa.is_none() => return Err(Error::Refused(error.kind)),
            Some(_) => return Err(Error::BadAnswer("an error beside a Child SA")),
            None => {}
        }
        let chosen = payloads.require_sa()?;
        let choice = proposal::accept_esp(&self.protect.proposals, chosen, exchange);
        let choice = choice.map_err(|error| {
            let pfs = matches!(exchange, ChildExchange::CreateChild(_));
            let sa = proposal::offer_esp(&self.protect.proposals, self.spi, pfs);
            let offer = Offer { peer: Some(&self.protect.peer), rule: Some(&self.rule.name), sa };
            bad_choice(error, offer, chosen, Rounds::Possible)
        })?;
        let (local, remote) = payloads.require_ts()?;
        let granted = payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
        if granted != (self.protect.mode == Mode::Transport) {
            let why = "the peer does not use the mode that the rule demands";
            let [ours, theirs] = [!granted, granted].map(mode);
            return Err(Error::Mode { why, ours, theirs });
        }
        let seen = granted
            .then(|| nat.as_seen(path, (local, remote)).ok_or(Error::TransportAddresses))
            .transpose()?;
        let (local, remote) =
            seen.as_ref().map_or((local, remote), |(local, remote)| (local, remote));
        if !selector::within(local, &self.local) || !selector::within(remote, &self.remote) {
            return Err(self.other_selectors(local, remote, granted));
        }
        // What was named first may be named again, beside what contains it.
        let (local, remote) = (selector::outermost(local), selector::outermost(remote));
        // A peer that does not narrow leaves that to us: nothing but what is assigned passes.
        let local = selector::assigned(self.most_pairs, &self.rule, local, ours);
        let pairs = selector::pairs(self.most_pairs, &self.rule, &local, &remote)
            .ok_or(Error::BadAnswer("unusable traffic selectors"))?;
        if !selector::cover(&local, &remote, &self.in_use) {
            return Err(self.other_selectors(&local, &remote, granted));
        }
        let narrowed = Narrowed { local, remote, pairs };
        Ok(ChildAnswer { choice, narrowed })
    }

    /// The peer's selectors are not within ours, or below what is in use.
    fn other_selectors(
        &self,
        local: &[TrafficSelector],
        remote: &[TrafficSelector],
        transport: bool,
    ) -> Error {
        let ours = RuleSelectors {
            rule: &self.rule.name,
            local: self.local.clone(),
            remote: self.remote.clone(),
            mode: self.protect.mode,
        };
        let refusal = no_common_selectors(&mut [ours].into_iter(), (local, remote), transport);
        Error::TsUnacceptable(Box::new(refusal))
    }
}
