//! Rules that contradict each other: they overlap, neither comes first, and they do not say the
//! same.
//!
//! Comparing every pair would take minutes for ten thousand rules. Rules can contradict only
//! with the same precedence, in which case the lengths of their two prefixes have the same sum.
//! So they are put into classes by precedence, protocol and local length. Within a class two
//! prefixes overlap only if they are equal. Between two classes one has the shorter local and
//! the other the shorter remote prefix, and they overlap only if they are equal after cutting
//! both to the shorter lengths. Either way a look-up finds the partners.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use gateway_ike::config::{Action, Mode, PortRange, Rule};
use ipnet::IpNet;

use super::error::{Fault, Place, PolicyError};

/// A rule and where its name stands.
#[derive(Debug)]
pub(super) struct Placed {
    /// The rule.
    pub(super) rule: Rule,
    /// Where its name stands.
    pub(super) place: Place,
}

/// One pair of prefixes of a rule.
#[derive(Debug, Clone, Copy)]
struct Pair<'a> {
    placed: &'a Placed,
    local: IpNet,
    remote: IpNet,
}

/// Precedence, whether it is IPv6, protocol.
type Group = (u32, bool, Option<u8>);
/// Two prefixes of the same family as numbers, cut to some lengths.
type Cut = (u128, u128);

/// Reports every rule that contradicts an earlier one; each once.
pub(super) fn check(rules: &[Placed]) -> Vec<PolicyError> {
    let mut groups: BTreeMap<Group, BTreeMap<u8, Vec<Pair<'_>>>> = BTreeMap::new();
    for placed in rules {
        let rule = &placed.rule;
        for (local, remote) in rule.prefix_pairs() {
            let v6 = local.addr().is_ipv6();
            let group = (rule.precedence(&local, &remote), v6, rule.protocol);
            let class = groups.entry(group).or_default().entry(local.prefix_len()).or_default();
            class.push(Pair { placed, local, remote });
        }
    }
    let mut report = Report::default();
    for classes in groups.values() {
        for (length, class) in classes {
            for equal in class_by(class, *length, u8::MAX).values_mut() {
                sweep(equal, &mut report);
            }
            // The longer the local prefix, the shorter the remote one.
            for (_, other) in classes.range(length.saturating_add(1)..) {
                let remote_length = other.first().map_or(0, |pair| pair.remote.prefix_len());
                let here = class_by(class, *length, remote_length);
                for (cut, others) in class_by(other, *length, remote_length) {
                    for pair in here.get(&cut).into_iter().flatten() {
                        others.iter().for_each(|other| report.compare(*pair, *other));
                    }
                }
            }
        }
    }
    report.errors
}

/// The pairs by their prefixes, cut to these lengths.
fn class_by<'a>(pairs: &[Pair<'a>], local: u8, remote: u8) -> BTreeMap<Cut, Vec<Pair<'a>>> {
    let mut map: BTreeMap<Cut, Vec<Pair<'a>>> = BTreeMap::new();
    for pair in pairs {
        map.entry((cut(&pair.local, local), cut(&pair.remote, remote))).or_default().push(*pair);
    }
    map
}

/// The first `length` bits of a prefix, at the upper end of a number.
fn cut(net: &IpNet, length: u8) -> u128 {
    let bits = match net {
        IpNet::V4(net) => u128::from(u32::from(net.network())) << 96,
        IpNet::V6(net) => u128::from(net.network()),
    };
    let dropped = 128_u32.saturating_sub(u32::from(length));
    bits & u128::MAX.checked_shl(dropped).unwrap_or(0)
}

/// Compares the pairs with equal prefixes whose ports meet: in the order of first ports, with
/// those not yet passed. The side with more different ports leaves fewer to compare.
fn sweep<'a>(pairs: &mut [Pair<'a>], report: &mut Report<'a>) {
    let different = |ports: fn(&Rule) -> &PortRange| {
        pairs.iter().map(|pair| *ports(&pair.placed.rule).start()).collect::<BTreeSet<_>>().len()
    };
    let local: fn(&Rule) -> &PortRange = |rule| &rule.local_ports;
    let remote: fn(&Rule) -> &PortRange = |rule| &rule.remote_ports;
    let ports = if different(local) > different(remote) { local } else { remote };
    pairs.sort_by_key(|pair| *ports(&pair.placed.rule).start());
    let mut open: Vec<Pair<'a>> = Vec::new();
    for pair in pairs {
        let first = *ports(&pair.placed.rule).start();
        open.retain(|earlier| *ports(&earlier.placed.rule).end() >= first);
        open.iter().for_each(|earlier| report.compare(*earlier, *pair));
        open.push(*pair);
    }
}

#[derive(Debug, Default)]
struct Report<'a> {
    errors: Vec<PolicyError>,
    reported: BTreeSet<&'a str>,
}

impl<'a> Report<'a> {
    /// Compares two pairs of prefixes that overlap.
    fn compare(&mut self, a: Pair<'a>, b: Pair<'a>) {
        let (first, second) = match a.placed.place.cmp(&b.placed.place) {
            Ordering::Less => (a, b),
            Ordering::Greater => (b, a),
            Ordering::Equal => return, // one rule
        };
        let (one, two) = (&first.placed.rule, &second.placed.rule);
        let ports_meet =
            meet(&one.local_ports, &two.local_ports) && meet(&one.remote_ports, &two.remote_ports);
        if !ports_meet || self.reported.contains(two.name.as_ref()) {
            return;
        }
        if let Some(fault) = contradiction(first, second) {
            let _new = self.reported.insert(&two.name);
            let field = Some(format!("rule.{}", two.name));
            self.errors.push(PolicyError::at(&second.placed.place, field, fault));
        }
    }
}

/// What is wrong with the second of two pairs that overlap, if anything.
fn contradiction(first: Pair<'_>, second: Pair<'_>) -> Option<Fault> {
    let (one, two) = (&first.placed.rule, &second.placed.rule);
    let earlier = format_args!("rule.{} ({})", one.name, first.placed.place);
    if same_outcome(&one.action, &two.action) {
        if !matches!(one.action, Action::Protect(_)) || !same_traffic(first, second) {
            return None;
        }
        let message = format!("selects the same traffic as {earlier}");
        return Some(Fault::new(message).hint("remove one of them"));
    }
    let local = narrower(first.local, second.local);
    let remote = narrower(first.remote, second.remote);
    let (here, there) = (outcome(&two.action), outcome(&one.action));
    let difference = if here == there {
        format!("{here} with other `esp-proposals`")
    } else {
        format!("here {here}, there {there}")
    };
    let message = format!(
        "contradicts {earlier}: both select {local} to {remote} with the same precedence, {difference}"
    );
    Some(Fault::new(message).hint("set `priority` on one of them; the lower number applies"))
}

/// Of two prefixes, of which one contains the other, the contained one.
fn narrower(a: IpNet, b: IpNet) -> IpNet {
    if a.prefix_len() >= b.prefix_len() { a } else { b }
}

fn meet(a: &PortRange, b: &PortRange) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

/// Protocols are equal already.
fn same_traffic(a: Pair<'_>, b: Pair<'_>) -> bool {
    let (one, two) = (&a.placed.rule, &b.placed.rule);
    a.local == b.local
        && a.remote == b.remote
        && one.local_ports == two.local_ports
        && one.remote_ports == two.remote_ports
}

/// Whether traffic fares the same: which of two SAs to one peer with the same mode and
/// algorithms carries a packet makes no difference.
fn same_outcome(a: &Action, b: &Action) -> bool {
    match (a, b) {
        (Action::Protect(a), Action::Protect(b)) => {
            a.peer == b.peer && a.mode == b.mode && a.proposals == b.proposals
        }
        (Action::Bypass, Action::Bypass) | (Action::Discard, Action::Discard) => true,
        (Action::Protect(_) | Action::Bypass | Action::Discard, _) => false,
    }
}

fn outcome(action: &Action) -> String {
    match action {
        Action::Bypass => "bypass".to_owned(),
        Action::Discard => "discard".to_owned(),
        Action::Protect(protect) => {
            let mode = match protect.mode {
                Mode::Tunnel => "tunnel",
                Mode::Transport => "transport",
            };
            format!("protect (peer {}, {mode})", protect.peer)
        }
    }
}
