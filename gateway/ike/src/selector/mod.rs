//! Traffic selectors: from rules, narrowed between two ends (RFC 7296 2.9), and as pairs of
//! prefixes for the kernel.

use core::net::IpAddr;

use gateway_wire::TrafficSelector;
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::config::{PortRange, Rule};
use crate::io::Selector;
use crate::leases::Lease;

/// One selector of ours and one of the peer's.
pub(crate) type Sides = (TrafficSelector, TrafficSelector);

/// The selectors of a rule: ours and the peer's.
pub(crate) fn of_rule(rule: &Rule) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let side = |nets: &[IpNet], ports: &PortRange| {
        nets.iter().map(|net| of_prefix(net, rule.protocol, ports)).collect()
    };
    (side(&rule.local, &rule.local_ports), side(&rule.remote, &rule.remote_ports))
}

fn of_prefix(net: &IpNet, protocol: Option<u8>, ports: &PortRange) -> TrafficSelector {
    TrafficSelector {
        protocol: protocol.unwrap_or(0),
        start_port: *ports.start(),
        end_port: *ports.end(),
        start: net.network(),
        end: net.broadcast(),
    }
}

/// One side of a packet; of a protocol without ports, port 0.
pub(crate) const fn of_packet(protocol: u8, address: IpAddr, port: u16) -> TrafficSelector {
    let (start_port, end_port) = if port == 0 { (0, u16::MAX) } else { (port, port) };
    TrafficSelector { protocol, start_port, end_port, start: address, end: address }
}

/// What a pair of prefixes selects.
pub(crate) fn sides(pair: &Selector) -> Sides {
    let side = |net, ports| of_prefix(net, pair.protocol, ports);
    (side(&pair.local, &pair.local_ports), side(&pair.remote, &pair.remote_ports))
}

/// A pair of prefixes with its protocol and ports, in a form that has an order.
pub(crate) type Key = ([IpNet; 2], Option<u8>, [u16; 4]);

/// The key of a pair.
pub(crate) fn key(pair: &Selector) -> Key {
    let (local, remote) = (&pair.local_ports, &pair.remote_ports);
    let ports = [*local.start(), *local.end(), *remote.start(), *remote.end()];
    ([pair.local, pair.remote], pair.protocol, ports)
}

/// Whether one of some pairs protects all of this.
pub(crate) fn protect(pairs: &[(Selector, u32)], (local, remote): &Sides) -> bool {
    pairs
        .iter()
        .map(|(pair, _)| sides(pair))
        .any(|(l, r)| contains(&l, local) && contains(&r, remote))
}

/// Whether some pairs protect all that others do.
pub(crate) fn protect_all(pairs: &[(Selector, u32)], others: &[(Selector, u32)]) -> bool {
    others.iter().all(|(other, _)| protect(pairs, &sides(other)))
}

/// Those that none of the others contains, in their order, once.
pub(crate) fn outermost(selectors: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut outermost: Vec<TrafficSelector> = Vec::new();
    for selector in selectors {
        if !outermost.iter().any(|outer| contains(outer, selector)) {
            outermost.retain(|inner| !contains(selector, inner));
            outermost.push(*selector);
        }
    }
    outermost
}

/// Of the selectors on our side of a rule those that a Child SA may have, by the addresses that we
/// are assigned; `None`: the peer has yet to say. `most` as in [`narrow`].
pub(crate) fn assigned(
    most: usize,
    rule: &Rule,
    local: Vec<TrafficSelector>,
    ours: Option<Lease>,
) -> Vec<TrafficSelector> {
    match ours {
        Some(ours) if rule.assigned => narrow(most, &local, &ours.selectors()),
        Some(_) | None => local,
    }
}

/// What both sides allow: every non-empty intersection of one of `allowed` with one of
/// `proposed`, in the order of `proposed`, without repetition. Above `most`, with one of the other
/// side each making a pair, the rest is left out, which is more than [`pairs`] takes.
pub(crate) fn narrow(
    most: usize,
    allowed: &[TrafficSelector],
    proposed: &[TrafficSelector],
) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for theirs in proposed {
        for ours in allowed {
            if let Some(both) = intersect(ours, theirs)
                && !narrowed.iter().any(|n| contains(n, &both))
            {
                // A peer may propose 255, and a rule have as many: each is compared with all.
                if narrowed.len() > most {
                    return narrowed;
                }
                narrowed.retain(|n| !contains(&both, n));
                narrowed.push(both);
            }
        }
    }
    narrowed
}

/// Whether each of `inner` lies within one of `outer`.
pub(crate) fn within(inner: &[TrafficSelector], outer: &[TrafficSelector]) -> bool {
    inner.iter().all(|i| outer.iter().any(|o| contains(o, i)))
}

/// Whether selectors are of one address and no other.
pub(crate) fn are_of(selectors: &[TrafficSelector], address: IpAddr) -> bool {
    selectors.iter().all(|s| s.start == address && s.end == address)
}

/// Selectors of one address, whichever it is, as those of another; `None` if they are of several.
pub(crate) fn readdressed(
    selectors: &[TrafficSelector],
    address: IpAddr,
) -> Option<Vec<TrafficSelector>> {
    let theirs = selectors.first()?.start;
    let moved = |s: &TrafficSelector| TrafficSelector { start: address, end: address, ..*s };
    are_of(selectors, theirs).then(|| selectors.iter().map(moved).collect())
}

/// Whether selectors cover traffic that is in use (RFC 7296 2.9.2).
pub(crate) fn cover(
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
    in_use: &[(Selector, u32)],
) -> bool {
    let mut in_use = in_use.iter().map(|(pair, _)| sides(pair));
    in_use.all(|(ours, theirs)| within(&[ours], local) && within(&[theirs], remote))
}

fn intersect(a: &TrafficSelector, b: &TrafficSelector) -> Option<TrafficSelector> {
    let both = TrafficSelector {
        protocol: if a.protocol == 0 { b.protocol } else { a.protocol },
        start_port: a.start_port.max(b.start_port),
        end_port: a.end_port.min(b.end_port),
        start: a.start.max(b.start),
        end: a.end.min(b.end),
    };
    (share_addresses(a, b) && share_protocol(a, b) && share_ports(a, b)).then_some(both)
}

fn contains(outer: &TrafficSelector, inner: &TrafficSelector) -> bool {
    intersect(outer, inner).as_ref() == Some(inner)
}

/// The precedence of a pair that lies in a rule: that of the rule's own prefixes around it, as the
/// classifier has them. However far a peer narrows, another rule that goes before this one still does.
fn precedence(rule: &Rule, pair: &Selector) -> u32 {
    let around = |(local, remote): &(IpNet, IpNet)| {
        local.contains(&pair.local) && remote.contains(&pair.remote)
    };
    let own = rule.prefix_pairs().filter(around).map(|(l, r)| rule.precedence(&l, &r)).min();
    // What is agreed lies in the rule; anything else would go before nothing.
    own.unwrap_or(u32::MAX)
}

/// The agreed selectors as pairs of prefixes, each with the rule's precedence for it; `None`
/// when there are more than `most` or none.
pub(crate) fn pairs(
    most: usize,
    rule: &Rule,
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
) -> Option<Vec<(Selector, u32)>> {
    let mut pairs = Vec::new();
    for l in local {
        for r in remote.iter().filter(|r| r.start.is_ipv4() == l.start.is_ipv4()) {
            let protocol = match (l.protocol, r.protocol) {
                (0, p) | (p, 0) => p,
                (p, q) if p == q => p,
                _ => continue,
            };
            for local_net in prefixes(most, l.start, l.end) {
                for remote_net in prefixes(most, r.start, r.end) {
                    if pairs.len() == most {
                        return None;
                    }
                    let selector = Selector {
                        local: local_net,
                        remote: remote_net,
                        protocol: (protocol != 0).then_some(protocol),
                        local_ports: l.start_port..=l.end_port,
                        remote_ports: r.start_port..=r.end_port,
                    };
                    let precedence = precedence(rule, &selector);
                    pairs.push((selector, precedence));
                }
            }
        }
    }
    (!pairs.is_empty()).then_some(pairs)
}

/// A rule's own pairs, for its trap.
pub(crate) fn rule_pairs(rule: &Rule) -> Vec<(Selector, u32)> {
    let selector = |(local, remote): (IpNet, IpNet)| {
        let precedence = rule.precedence(&local, &remote);
        let selector = Selector {
            local,
            remote,
            protocol: rule.protocol,
            local_ports: rule.local_ports.clone(),
            remote_ports: rule.remote_ports.clone(),
        };
        (selector, precedence)
    };
    rule.prefix_pairs().map(selector).collect()
}

/// What a Child SA protects, once more where its rule has longer prefixes within: its policies must
/// go before the traps of the rule, of which the longest would apply.
pub(crate) fn before_traps(rule: &Rule, pairs: &[(Selector, u32)]) -> Vec<(Selector, u32)> {
    let mut all = pairs.to_vec();
    for (trap, better) in rule_pairs(rule) {
        for (pair, _) in pairs.iter().filter(|(_, precedence)| better < *precedence) {
            let local = longer(pair.local, trap.local);
            if let Some((local, remote)) = local.zip(longer(pair.remote, trap.remote)) {
                let within = Selector { local, remote, ..pair.clone() };
                match all.iter_mut().find(|(known, _)| *known == within) {
                    Some((_, precedence)) => *precedence = better.min(*precedence),
                    None => all.push((within, better)),
                }
            }
        }
    }
    all
}

/// What two prefixes have in common: the longer one, if it lies in the other.
fn longer(a: IpNet, b: IpNet) -> Option<IpNet> {
    if a.contains(&b) { Some(b) } else { b.contains(&a).then_some(a) }
}

/// The fewest prefixes that cover a range of addresses exactly, one above `most` at most.
fn prefixes(most: usize, start: IpAddr, end: IpAddr) -> Vec<IpNet> {
    let most = most.saturating_add(1);
    match (start, end) {
        (IpAddr::V4(s), IpAddr::V4(e)) => {
            Ipv4Subnets::new(s, e, 0).take(most).map(IpNet::V4).collect()
        }
        (IpAddr::V6(s), IpAddr::V6(e)) => {
            Ipv6Subnets::new(s, e, 0).take(most).map(IpNet::V6).collect()
        }
        _ => Vec::new(),
    }
}

/// The addresses of a selector in words: a prefix, or a range.
pub(crate) fn addresses(s: &TrafficSelector) -> String {
    match prefixes(1, s.start, s.end).as_slice() {
        [net] => net.to_string(),
        _ => format!("{}-{}", s.start, s.end),
    }
}

/// The ports of a selector in words.
pub(crate) fn ports(s: &TrafficSelector) -> String {
    match (s.start_port, s.end_port) {
        (0, u16::MAX) => "any".to_owned(),
        (a, b) if a == b => a.to_string(),
        (a, b) => format!("{a}-{b}"),
    }
}

/// Whether two selectors have an address in common.
pub(crate) fn share_addresses(a: &TrafficSelector, b: &TrafficSelector) -> bool {
    a.start.is_ipv4() == b.start.is_ipv4() && a.start.max(b.start) <= a.end.min(b.end)
}

/// Whether two selectors have an IP protocol in common.
pub(crate) const fn share_protocol(a: &TrafficSelector, b: &TrafficSelector) -> bool {
    a.protocol == 0 || b.protocol == 0 || a.protocol == b.protocol
}

/// Whether two selectors have a port in common.
pub(crate) fn share_ports(a: &TrafficSelector, b: &TrafficSelector) -> bool {
    a.start_port.max(b.start_port) <= a.end_port.min(b.end_port)
}

/// Agreed pairs in words.
pub(crate) fn describe_pairs(pairs: &[(Selector, u32)]) -> String {
    pairs.iter().map(|(s, _)| s.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
