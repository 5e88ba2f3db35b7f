//! What both ends have agreed on for a Child SA, and what the kernel is given of it.

use std::sync::Arc;

use gateway_wire::TrafficSelector;

use super::super::{IkeSa, State};
use super::{ChildSa, ChildState};
use crate::algorithms::EspSuite;
use crate::config::{ChildLifetime, Mode, PeerName, Protect, Rule};
use crate::io::{ChildId, ChildSpec, Ends, KERNEL_SPIS, SaSpec, Selector, kernel_decapsulates};
use crate::keys::ChildKeys;
use crate::proposal::EspChoice;
use crate::selector;
use crate::shared::Shared;

/// The most packets by an SA without extended sequence numbers until it is replaced: none may come
/// twice (RFC 4303 3.3.3), so that the kernel drops whatever follows the last one
/// (`xfrm_replay_overflow`). Beyond it is room for the hard limit, a tenth above, and for some hundred
/// moves, each of which leaves a million numbers out.
const MOST_WITHOUT_ESN: u64 = 0xc000_0000;

/// Proof that selectors lie within a rule: made by the checks of an answer and of a request.
#[derive(Debug, Clone)]
pub(in crate::ike_sa) struct Narrowed {
    pub(in crate::ike_sa) local: Vec<TrafficSelector>,
    pub(in crate::ike_sa) remote: Vec<TrafficSelector>,
    pub(in crate::ike_sa) pairs: Vec<(Selector, u32)>,
}

impl Narrowed {
    /// Whether they are the two addresses between which ESP goes.
    pub(super) fn is_of(&self, ends: Ends) -> bool {
        selector::are_of(&self.local, ends.local) && selector::are_of(&self.remote, ends.remote)
    }

    /// Whether a Child SA of this mode and inbound SPI can be for them between these ends: since both
    /// were chosen a NAT may have come or gone, and in transport mode what is sent between other
    /// addresses is other traffic.
    pub(super) fn suits(&self, mode: Mode, spi: u32, ends: Ends) -> bool {
        KERNEL_SPIS.contains(&spi) == kernel_decapsulates(mode, ends.encapsulation)
            && (mode == Mode::Tunnel || self.is_of(ends))
    }
}

/// Everything that both ends have agreed on.
pub(in crate::ike_sa) struct Terms {
    pub(in crate::ike_sa) rule: Arc<Rule>,
    pub(super) protect: Protect,
    pub(in crate::ike_sa) id: ChildId,
    pub(in crate::ike_sa) spi: u32,
    pub(in crate::ike_sa) choice: EspChoice,
    pub(super) narrowed: Narrowed,
    pub(in crate::ike_sa) replaces: Option<ChildId>,
    /// As in [`ChildSa`], but for what it replaces.
    pub(super) for_packet: bool,
}

impl Terms {
    /// Whether the kernel sends keepalives for another Child SA of the IKE SA, all of which go by
    /// the same ports. What this one replaces, or replaces too, is not there for long.
    fn is_kept_alive(&self, sa: &IkeSa) -> bool {
        let State::Established(established) = &sa.state else { return false };
        let mut keepers = established.children.values().filter(|c| c.is_live() && c.keeps_alive());
        keepers.any(|c| {
            let replaced = Some(c.id) == self.replaces;
            let rival = self.replaces.is_some() && c.replaces == self.replaces;
            !replaced && !rival
        })
    }

    /// The record that we keep and the one that the kernel gets. `initiator`: whether we began
    /// this exchange, since its initiator's keys come first (RFC 7296 2.17).
    pub(super) fn into_child(
        self,
        shared: &mut Shared,
        sa: &IkeSa,
        keys: &ChildKeys,
        initiator: bool,
    ) -> (ChildSa, Box<ChildSpec>) {
        let reqid = shared.reqids.give(&self.rule.name);
        let replaced = self.replaces.and_then(|old| sa.children().find(|c| c.id == old));
        let for_packet = replaced.map_or(self.for_packet, |old| old.for_packet);
        let sends_by = shared.reqids.share(&self.rule.name, &self.narrowed.pairs);
        let mut ends = sa.ends(&shared.config);
        // In transport mode the keepalives of the kernel are selected traffic as any other:
        // `nat_keepalive_send_ipv6` looks for a policy.
        if self.protect.mode == Mode::Transport || self.is_kept_alive(sa) {
            ends = ends.without_keepalive();
        }
        let Ends { local: ours, remote: theirs, encapsulation } = ends;
        let (outbound_keys, inbound_keys) = keys.by_direction(initiator);
        let limits = self.protect.lifetime;
        let spec = ChildSpec {
            child: self.id,
            replaces: self.replaces,
            rule: Arc::clone(&self.rule.name),
            mode: self.protect.mode,
            inbound: SaSpec {
                spi: self.spi,
                reqid,
                source: theirs,
                destination: ours,
                encryption_key: inbound_keys.0.clone(),
                integrity_key: inbound_keys.1.clone(),
            },
            outbound: SaSpec {
                spi: self.choice.peer_spi,
                reqid: sends_by,
                source: ours,
                destination: theirs,
                encryption_key: outbound_keys.0.clone(),
                integrity_key: outbound_keys.1.clone(),
            },
            suite: self.choice.suite,
            selectors: selector::before_traps(&self.rule, &self.narrowed.pairs),
            addresses: sa.assignment.lease.addresses().collect(),
            // In transport mode what is sent to another address is other traffic.
            reached_at: sa.left_behind(shared).filter(|_| self.protect.mode == Mode::Tunnel),
            peer: PeerName::clone(&self.protect.peer),
            name_servers: sa.assignment.dns.clone(),
            encapsulation,
            replay_window: shared.config.replay_window,
            lifetime: ChildLifetime {
                time: limits.time,
                bytes: shared.jittered(limits.bytes),
                packets: shared.jittered(packet_limit(limits.packets, self.choice.suite)),
            },
        };
        let quantum_safe = self.is_quantum_safe(sa);
        let child = ChildSa {
            id: self.id,
            rule: self.rule,
            mode: self.protect.mode,
            inbound_spi: self.spi,
            outbound_spi: self.choice.peer_spi,
            suite: self.choice.suite,
            key_exchange: self.choice.key_exchange,
            quantum_safe,
            pairs: self.narrowed.pairs,
            encapsulation,
            since: sa.begun,
            state: ChildState::Installing,
            replaces: self.replaces,
            for_packet,
            judgement: None,
            alone_until: None,
            successor_wanted: false,
            rekey_at: None,
            failures: 0,
            waiting: None,
            doubtful: false,
            redundant: false,
            why: "replaced",
            poll: None,
        };
        (child, Box::new(spec))
    }

    /// Whether what goes by it withstands quantum computers: by its IKE SA, or by a key exchange of
    /// its own, and with no SHA-1 between that and its keys, or beside them.
    fn is_quantum_safe(&self, sa: &IkeSa) -> bool {
        let own = self.choice.key_exchange.is_some_and(|own| own.is_quantum_safe());
        let of_ike = sa.state.channel().is_none_or(|channel| channel.suite.has_sha1());
        let sha1 = self.choice.suite.has_sha1() || of_ike;
        !sha1 && (own || sa.is_quantum_safe() == Some(true))
    }
}

/// After how many packets an SA is replaced, if a rule wants it so; 0: no limit.
fn packet_limit(wanted: u64, suite: EspSuite) -> u64 {
    match wanted {
        _ if suite.esn => wanted,
        0 => MOST_WITHOUT_ESN,
        _ => wanted.min(MOST_WITHOUT_ESN),
    }
}
