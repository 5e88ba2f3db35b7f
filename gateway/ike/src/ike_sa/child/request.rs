//! What a responder agrees to when a Child SA is asked for: the rule, the mode, the selectors within both, the
//! algorithms and the keys (RFC 7296 1.3.1, 2.9, 2.17).

use core::cmp::Reverse;
use std::sync::Arc;

use gateway_wire::{NotifyType, TrafficSelector};

use super::super::derive::Agreed;
use super::super::follow_up::{Link, Series};
use super::super::{IkeSa, State};
use super::answer::TermsWords;
use super::{ChildSa, ChildWords, Narrowed, Terms};
use crate::algorithms::Group;
use crate::config::{Mode, PeerName, Protect, Rule, RuleName};
use crate::crypto::key_exchange;
use crate::effect::Effect;
use crate::error::Error;
use crate::io::{ChildId, ChildSpec, kernel_decapsulates};
use crate::keys::Key;
use crate::payloads::Payloads;
use crate::proposal::{self, ChildExchange, Rounds};
use crate::reason::{self, Offer, RuleSelectors};
use crate::selector;
use crate::shared::Shared;

/// What a responder has agreed to; nothing is installed or answered yet.
pub(in crate::ike_sa) struct Negotiated {
    pub(super) child: ChildSa,
    pub(super) spec: Box<ChildSpec>,
    pub(super) answer: ChildWords,
}

/// What a responder has agreed to before there are keys for it.
pub(in crate::ike_sa) struct Agreement {
    pub(in crate::ike_sa) terms: Terms,
    /// The secret of the first key exchange, if the Child SA has any of its own.
    secret: Option<Key>,
    answer: ChildWords,
}

impl Agreement {
    /// The key exchanges that are still to come, with the nonces of initiator and responder.
    pub(in crate::ike_sa) fn series(&self, nonces: (&[u8], &[u8])) -> Option<Series> {
        let additional = self.terms.choice.key_exchange?.additional;
        let first = self.secret.as_ref().filter(|_| !additional.is_empty())?;
        Some(Series::new(first.clone(), nonces, additional))
    }

    /// There are no more key exchanges.
    pub(in crate::ike_sa) fn conclude(
        self,
        shared: &mut Shared,
        sa: &IkeSa,
        nonces: (&[u8], &[u8]),
    ) -> Result<Negotiated, Error> {
        let secret = self.secret.as_ref().map(|s| s.as_slice());
        self.terms.conclude(shared, sa, &Agreed::new(secret, nonces), self.answer)
    }

    /// There are more key exchanges, which this link leads to.
    pub(in crate::ike_sa) fn more(self, link: Link) -> (Terms, ChildWords) {
        (self.terms, ChildWords { link: Some(link), ..self.answer })
    }
}

impl Terms {
    /// Responder: there are keys for it.
    fn conclude(
        self,
        shared: &mut Shared,
        sa: &IkeSa,
        agreed: &Agreed<'_>,
        answer: ChildWords,
    ) -> Result<Negotiated, Error> {
        let State::Established(established) = &sa.state else {
            return Err(Error::Internal("no IKE SA"));
        };
        // Another may have come while keys were exchanged, or the peer have moved.
        if self.protect.mode == Mode::Transport {
            check_alone(shared, sa, &self.rule, &self.narrowed)
                .inspect_err(|_| shared.release_spi(self.spi))?;
        }
        if !self.narrowed.suits(self.protect.mode, self.spi, sa.ends(&shared.config)) {
            shared.release_spi(self.spi);
            return Err(Error::AddressesChanged);
        }
        let keys = agreed.child_keys(&established.channel, self.choice.suite);
        let (mut child, spec) = self.into_child(shared, sa, &keys, false);
        let (heir, mut has_old) = ((sa.id, child.id), child.replaces.is_some());
        if !has_old && let Some(old) = shared.senders.inherits(&child.rule.name, &child.pairs, heir)
        {
            has_old = true;
            // A peer that reauthenticates has anew what it had (RFC 7296 2.8.3), and packets of ours
            // have asked for that as before. What it asks for beside it on the same IKE SA, or when
            // there was nothing any more, is its own.
            let anew = shared.children.owner(old.child) != Some(sa.id);
            child.for_packet = old.for_packet && anew;
            if child.for_packet {
                // The other IKE SA may be gone before this one sends.
                shared.effects.push(Effect::JudgeLike { old: old.child, successor: heir });
            }
        }
        if has_old {
            // The old one sends until the peer is known to have the new one.
            child.waiting = Some(spec.clone());
        }
        Ok(Negotiated { child, spec, answer })
    }

    /// Responder: the last of several key exchanges is done, with this value of ours.
    pub(in crate::ike_sa) fn conclude_series(
        self,
        shared: &mut Shared,
        sa: &IkeSa,
        agreed: &Agreed<'_>,
        value: (Group, Vec<u8>),
    ) -> Result<Negotiated, Error> {
        let answer = ChildWords { spi: self.spi, terms: None, ke: Some(value), link: None };
        self.conclude(shared, sa, agreed, answer)
    }
}

/// What a request for a Child SA is answered by.
pub(in crate::ike_sa) struct ChildRequest<'a> {
    pub(in crate::ike_sa) payloads: &'a Payloads<'a>,
    /// Of the initiator and of the responder.
    pub(in crate::ike_sa) nonces: (&'a [u8], &'a [u8]),
    pub(in crate::ike_sa) exchange: ChildExchange,
    /// The Child SA that is replaced: its rule is the new one's too.
    pub(in crate::ike_sa) replaces: Option<(ChildId, Arc<Rule>)>,
    /// Whether the peer has said that what else it has with us is dead.
    pub(in crate::ike_sa) initial_contact: bool,
}

impl<'a> ChildRequest<'a> {
    /// For the first Child SA, in IKE_AUTH.
    pub(in crate::ike_sa) const fn in_auth(
        payloads: &'a Payloads<'a>,
        nonces: (&'a [u8], &'a [u8]),
        initial_contact: bool,
    ) -> Self {
        Self { payloads, nonces, exchange: ChildExchange::Auth, replaces: None, initial_contact }
    }
}

/// Responder: finds the rule that covers what the peer asks for and agrees on the rest.
pub(in crate::ike_sa) fn negotiate(
    shared: &mut Shared,
    sa: &IkeSa,
    request: &ChildRequest<'_>,
) -> Result<Agreement, Error> {
    let payloads = request.payloads;
    let offered = payloads.require_sa()?;
    let (theirs, ours) = payloads.require_ts()?;
    let State::Established(established) = &sa.state else {
        return Err(Error::Internal("no IKE SA"));
    };
    let asks_transport = payloads.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
    let only = request.replaces.as_ref().map(|(_, rule)| &rule.name);
    let seen = (asks_transport && established.nat.any())
        .then(|| established.nat.as_seen(sa.path, (ours, theirs)));
    let (found, (ours, theirs)) = match &seen {
        None => {
            let modes: &[_] =
                if asks_transport { &[Mode::Tunnel, Mode::Transport] } else { &[Mode::Tunnel] };
            (find_rule(shared, sa, only, (ours, theirs), modes)?, (ours, theirs))
        }
        Some(seen) => through_nat(shared, sa, only, (ours, theirs), seen.as_ref())?,
    };
    let (rule, protect, narrowed) = found;
    if protect.mode == Mode::Transport {
        check_alone(shared, sa, &rule, &narrowed)?;
    }
    // RFC 7296 2.9.2: not below what is in use, unless the peer itself asks for less.
    let old = request.replaces.as_ref().and_then(|(old, _)| established.children.get(old));
    if let Some(old) = old
        && selector::cover(ours, theirs, &old.pairs)
        && !selector::cover(&narrowed.local, &narrowed.remote, &old.pairs)
    {
        let (local, remote) = (narrowed.local, narrowed.remote);
        let narrower = RuleSelectors { rule: &rule.name, local, remote, mode: protect.mode };
        let mut narrower = [narrower].into_iter();
        let refusal = reason::no_common_selectors(&mut narrower, (ours, theirs), asks_transport);
        return Err(Error::TsUnacceptable(Box::new(refusal)));
    }
    if protect.quantum_safe && !established.channel.is_quantum_safe() {
        return Err(Error::NotQuantumSafe(established.channel.suite));
    }
    let successor = request.replaces.is_some()
        || request.initial_contact
        || shared.senders.sending(&rule.name, &narrowed.pairs).is_some();
    sa.check_room_of_peer(shared, successor)?;
    let id = shared.child_id();
    let encapsulation = sa.ends(&shared.config).encapsulation;
    let by_kernel = kernel_decapsulates(protect.mode, encapsulation);
    let spi = shared.child_spi(sa.id, id, by_kernel)?;
    let chosen = proposal::select_esp(&protect.proposals, offered, spi, request.exchange)
        .ok_or_else(|| {
            let pfs = matches!(request.exchange, ChildExchange::CreateChild(_));
            let sa = proposal::offer_esp(&protect.proposals, spi, pfs);
            let offer = Offer { peer: None, rule: Some(&rule.name), sa };
            let refusal = reason::no_common_proposal(&[offer], offered, Rounds::Possible);
            Error::NoProposalChosen(Box::new(refusal))
        })
        .and_then(|(chosen, choice)| {
            let group = choice.key_exchange.map(|k| k.group);
            let exchanged = group.map(|g| exchange_keys(shared, payloads, g)).transpose()?;
            Ok((chosen, choice, exchanged))
        });
    let (chosen, choice, exchanged) = match chosen {
        Ok(chosen) => chosen,
        Err(error) => {
            shared.release_spi(spi);
            return Err(error);
        }
    };
    let nonce = match request.exchange {
        ChildExchange::Auth => None,
        ChildExchange::CreateChild(_) => Some(request.nonces.1.to_vec()),
    };
    let words = TermsWords {
        sa: chosen,
        ts_i: narrowed.remote.clone(),
        ts_r: narrowed.local.clone(),
        transport: protect.mode == Mode::Transport,
        nonce,
    };
    let (value, secret) = exchanged.map(|e| (e.value, e.secret)).unzip();
    let ke = choice.key_exchange.map(|k| k.group).zip(value);
    let answer = ChildWords { spi, terms: Some(Box::new(words)), ke, link: None };
    let replaces = request.replaces.as_ref().map(|(child, _)| *child);
    let terms = Terms { rule, protect, id, spi, choice, narrowed, replaces, for_packet: false };
    Ok(Agreement { terms, secret, answer })
}

/// Responder: the key exchange of the Child SA's own.
fn exchange_keys(
    shared: &Shared,
    payloads: &Payloads<'_>,
    group: Group,
) -> Result<key_exchange::Agreed, Error> {
    let theirs = payloads.ke.filter(|ke| ke.method == group.id());
    let theirs = theirs.ok_or(Error::InvalidKePayload { wanted: group })?;
    Ok(shared.key_exchange.respond(group, theirs.data)?)
}

/// Whether a rule covers a request whole, and what the request names first; and how early it applies
/// to the traffic that both have.
type Fit = (bool, bool, Reverse<u32>);

/// A rule, and what of it a Child SA is to protect.
type Found = (Arc<Rule>, Protect, Narrowed);

/// Selectors of our side and of the peer's.
type Asked<'a> = (&'a [TrafficSelector], &'a [TrafficSelector]);

/// Responder: the rule for a peer that asks for transport mode through NAT, and the selectors that it
/// was found by: those that we see, or, where no rule has transport mode for them, the peer's own
/// for one of tunnel mode (RFC 7296 2.23.1).
fn through_nat<'a>(
    shared: &Shared,
    sa: &IkeSa,
    only: Option<&RuleName>,
    asked: Asked<'a>,
    seen: Option<&'a (Vec<TrafficSelector>, Vec<TrafficSelector>)>,
) -> Result<(Found, Asked<'a>), Error> {
    let transport = match seen {
        None => Err(Error::TransportAddresses),
        Some((ours, theirs)) => {
            let seen = (ours.as_slice(), theirs.as_slice());
            find_rule(shared, sa, only, seen, &[Mode::Transport]).map(|found| (found, seen))
        }
    };
    transport.or_else(|error| {
        let found = find_rule(shared, sa, only, asked, &[Mode::Tunnel]);
        let peer = sa.peer.as_ref().map(|peer| &peer.name);
        let mut rules = peer.into_iter().flat_map(|peer| rules_of(shared, peer, only));
        let has_transport = rules.any(|(_, protect)| protect.mode == Mode::Transport);
        found
            .map(|found| (found, asked))
            .map_err(|of_tunnel| if has_transport { error } else { of_tunnel })
    })
}

/// Responder: two clients behind one NAT have one address here. What they protect with us must differ
/// by protocol or ports, or what is meant for one would go to the other: who comes second is refused.
/// Whether there is a NAT is not asked, since a client says that.
fn check_alone(shared: &Shared, sa: &IkeSa, rule: &Rule, narrowed: &Narrowed) -> Result<(), Error> {
    let holder = sa.holder();
    let is_its_own = |id| {
        id == sa.id || holder.iter().any(|holder| shared.contacts.of(holder).any(|own| own == id))
    };
    let mut senders = shared.senders.sending_some(&rule.name, &narrowed.pairs);
    if senders.all(|child| shared.children.owner(child).is_none_or(is_its_own)) {
        return Ok(());
    }
    let why = "another client at the same address has transport mode for this traffic";
    Err(Error::Mode { why, ours: "transport, of another client", theirs: "transport" })
}

/// The rule of the peer that shares traffic with the request: one that covers it whole is preferred,
/// then one that covers what it names first (RFC 7296 2.9), then the one that applies to that traffic
/// before others, as it does to packets. `only`: the rule of the Child SA that is replaced. `modes`:
/// a peer that offers transport mode may be answered with tunnel mode (RFC 7296 1.3.1); one that
/// does not may not be answered with transport mode.
fn find_rule(
    shared: &Shared,
    sa: &IkeSa,
    only: Option<&RuleName>,
    (ours, theirs): Asked<'_>,
    modes: &[Mode],
) -> Result<Found, Error> {
    let peer = sa.peer.as_ref().ok_or(Error::Internal("no peer"))?;
    let most = shared.config.selector_pair_limit;
    let ends = sa.ends(&shared.config);
    let mut elsewhere = false;
    let mut best: Option<(Fit, Arc<Rule>, Protect, Narrowed)> = None;
    for (rule, protect) in rules_of(shared, &peer.name, only) {
        let (local, remote) = shared.selectors(rule, sa.user.as_ref(), Some(sa.assignment.lease));
        let narrow = |allowed: &[_], proposed: &[_]| selector::narrow(most, allowed, proposed);
        let (local, remote) = (narrow(&local, ours), narrow(&remote, theirs));
        let Some(pairs) = selector::pairs(most, rule, &local, &remote) else { continue };
        if !modes.contains(&protect.mode) {
            continue;
        }
        let narrowed = Narrowed { local, remote, pairs };
        if protect.mode == Mode::Transport && !narrowed.is_of(ends) {
            elsewhere = true;
            continue;
        }
        let Narrowed { local, remote, pairs } = &narrowed;
        let whole = selector::within(ours, local) && selector::within(theirs, remote);
        // RFC 7296 2.9: what the initiator names first must be in the subset, if it can be.
        let first = |proposed: &[TrafficSelector], narrowed: &[TrafficSelector]| {
            selector::within(proposed.get(..1).unwrap_or_default(), narrowed)
        };
        let applies = pairs.iter().map(|(_, precedence)| *precedence).min();
        let applies = Reverse(applies.unwrap_or(u32::MAX));
        let fit = (whole, first(ours, local) && first(theirs, remote), applies);
        if best.as_ref().is_none_or(|(before, ..)| fit > *before) {
            best = Some((fit, Arc::clone(rule), protect.clone(), narrowed));
        }
    }
    match best {
        Some((_, rule, protect, narrowed)) => Ok((rule, protect, narrowed)),
        None if elsewhere => Err(Error::TransportAddresses),
        None => {
            let mut rules = rules_of(shared, &peer.name, only).map(|(rule, protect)| {
                let (local, remote) =
                    shared.selectors(rule, sa.user.as_ref(), Some(sa.assignment.lease));
                RuleSelectors { rule: &rule.name, local, remote, mode: protect.mode }
            });
            let asks_transport = modes.contains(&Mode::Transport);
            let refusal = reason::no_common_selectors(&mut rules, (ours, theirs), asks_transport);
            Err(Error::TsUnacceptable(Box::new(refusal)))
        }
    }
}

/// The rules that protect traffic with a peer, or that one of them.
fn rules_of<'a>(
    shared: &'a Shared,
    peer: &'a PeerName,
    only: Option<&'a RuleName>,
) -> impl Iterator<Item = (&'a Arc<Rule>, &'a Protect)> {
    let is_meant = move |rule: &Rule| only.is_none_or(|name| rule.name == *name);
    shared.policies.rules_of(peer).filter(move |(rule, _)| is_meant(rule))
}
