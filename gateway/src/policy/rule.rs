//! `[rule.NAME]`: which traffic, and what becomes of it.

use core::net::IpAddr;
use core::time::Duration;

use gateway_ike::algorithms::EspProposal;
use gateway_ike::config::{
    ALL_PORTS, Action, ChildLifetime, Childless, Mode, PeerConfig, PeerName, PortRange, Protect,
    Rule, RuleName, Start,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::document::Section;
use super::error::{Fault, PolicyError};
use super::value::{ICMP, ICMPV6, SCTP, TCP, UDP};
use super::{keys, proposal, value};

/// The lifetime of a Child SA whose rule names none.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The element of `local` that stands for what the peer assigns to us.
const ASSIGNED: &str = "assigned";
/// The keys that only a rule with the action "protect" has.
const PROTECT_ONLY: &[&str] = &[
    "peer",
    "mode",
    "start",
    "quantum-safe",
    "esp-proposals",
    "lifetime",
    "lifetime-bytes",
    "lifetime-packets",
];

/// What a rule finds under the name of its peer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    /// This peer.
    Peer(&'a PeerConfig),
    /// Nothing that can be judged by: the peer, or the file that may have it, is itself wrong.
    Unclear,
    /// No such peer; with the nearest name there is.
    Nothing(Option<&'a str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Protect,
    Bypass,
    Discard,
}

/// Reads `[rule.NAME]`; `None` if anything was wrong.
pub(super) fn read<'p>(
    section: &mut Section<'_>,
    name: &RuleName,
    find_peer: impl Fn(&str) -> Found<'p>,
    warnings: &mut Vec<PolicyError>,
) -> Option<Rule> {
    let verb = section.required("action", |text| {
        choose(text, keys::ACTIONS, [Verb::Protect, Verb::Bypass, Verb::Discard])
    });
    let local = section.required_list("local", local_side);
    let remote = section.required_list("remote", value::prefix);
    let assigned = local.as_ref().is_some_and(|local| local.contains(&None));
    let local = read_local(section, local, remote.as_deref());
    let protocol = section.optional("protocol", value::protocol);
    let local_ports = read_ports(section, "local-ports", protocol);
    let remote_ports = read_ports(section, "remote-ports", protocol);
    let priority = section.number("priority").unwrap_or(Rule::DEFAULT_PRIORITY);
    if let (Some(local), Some(remote)) = (&local, &remote) {
        check_families(section, local, remote, protocol);
    }
    let action = match verb {
        Some(Verb::Protect) => {
            let prefixes = local.as_deref().zip(remote.as_deref());
            read_protect(section, prefixes, assigned, find_peer, warnings).map(Action::Protect)
        }
        Some(Verb::Bypass) => {
            forbid_assigned(section, assigned, "bypass");
            section.forbid(PROTECT_ONLY, "has no meaning with the action \"bypass\"");
            Some(Action::Bypass)
        }
        Some(Verb::Discard) => {
            forbid_assigned(section, assigned, "discard");
            section.forbid(PROTECT_ONLY, "has no meaning with the action \"discard\"");
            Some(Action::Discard)
        }
        None => None,
    };
    if let (Some(Action::Protect(_)), Some(local), Some(remote)) = (&action, &local, &remote) {
        check_pairs(section, local, remote);
    }
    if section.failed() {
        return None;
    }
    Some(Rule {
        name: RuleName::clone(name),
        priority,
        local: local?,
        assigned,
        remote: remote?,
        protocol,
        local_ports,
        remote_ports,
        action: action?,
    })
}

/// An element of `local`; `None`: what the peer assigns to us.
fn local_side(text: &str) -> Result<Option<IpNet>, Fault> {
    if text == ASSIGNED { Ok(None) } else { value::prefix(text).map(Some) }
}

/// The prefixes of `local`. What the peer assigns is not known before it has: until then, and ever
/// after, everything of ours is selected that goes to `remote`.
fn read_local(
    section: &mut Section<'_>,
    local: Option<Vec<Option<IpNet>>>,
    remote: Option<&[IpNet]>,
) -> Option<Vec<IpNet>> {
    let local = local?;
    if !local.contains(&None) {
        return Some(local.into_iter().flatten().collect());
    }
    if local.len() > 1 {
        let message = format!("\"{ASSIGNED}\" stands beside prefixes");
        section.fault("local", Fault::new(message).hint("write a rule of its own for these"));
    }
    let any = [IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
    let of_remote = |net: &IpNet| remote?.iter().any(|r| same_family(r, net)).then_some(*net);
    Some(any.iter().filter_map(of_remote).collect())
}

fn forbid_assigned(section: &mut Section<'_>, assigned: bool, action: &str) {
    if assigned {
        let message = format!("\"{ASSIGNED}\" has no meaning with the action \"{action}\"");
        section.fault("local", Fault::expected(message, "prefixes"));
    }
}

/// We must ask the peer for an address of each family that the rule has.
fn check_assigned(section: &mut Section<'_>, peer: &PeerConfig, remote: &[IpNet]) {
    let asked = peer.request_address;
    if let Some(net) = remote.iter().find(|net| !asked.contain(net.addr())) {
        let word = if net.addr().is_ipv4() { "ipv4" } else { "ipv6" };
        let message = format!("peer {} is not asked for an address to reach \"{net}\"", peer.name);
        let hint = format!("add \"{word}\" to its `request-address`");
        section.fault("local", Fault::new(message).hint(hint));
    }
}

/// The value that stands at the place of the word.
fn choose<T: Copy, const N: usize>(
    text: &str,
    words: &[&'static str],
    values: [T; N],
) -> Result<T, Fault> {
    let pairs: Vec<_> = words.iter().copied().zip(values).collect();
    value::word(text, &pairs)
}

fn read_ports(section: &mut Section<'_>, key: &str, protocol: Option<u8>) -> PortRange {
    let Some(ports) = section.optional(key, value::ports) else { return ALL_PORTS };
    if !matches!(protocol, Some(TCP | UDP | SCTP)) {
        let fault = Fault::new("ports need a protocol that has them");
        section.fault(key, fault.hint("set `protocol` to \"tcp\", \"udp\" or \"sctp\""));
    }
    ports
}

/// A Child SA has only so many selectors.
fn check_pairs(section: &mut Section<'_>, local: &[IpNet], remote: &[IpNet]) {
    let of = |nets: &[IpNet], v4: bool| nets.iter().filter(|n| n.addr().is_ipv4() == v4).count();
    let pairs = |v4| of(local, v4).saturating_mul(of(remote, v4));
    let count = pairs(true).saturating_add(pairs(false));
    if count > Rule::MAX_PAIRS {
        let most = Rule::MAX_PAIRS;
        let message =
            format!("combines local and remote prefixes in {count} ways, more than {most}");
        section.whole_fault(Fault::new(message).hint("split the rule, or use wider prefixes"));
    }
}

/// Each family on one side must be on the other, or its prefixes would select nothing.
fn check_families(
    section: &mut Section<'_>,
    local: &[IpNet],
    remote: &[IpNet],
    protocol: Option<u8>,
) {
    for (key, here, other, there) in
        [("local", local, "remote", remote), ("remote", remote, "local", local)]
    {
        let lonely = |net: &&IpNet| !there.iter().any(|n| same_family(n, net));
        if let Some(net) = here.iter().find(lonely) {
            let family = if net.addr().is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("\"{net}\" is {family}, but no prefix in `{other}` is");
            section.fault(
                key,
                Fault::new(message).hint("both sides need prefixes of the same families"),
            );
        }
        let (name, right) = match protocol {
            Some(ICMP) => ("icmp", "icmpv6"),
            Some(ICMPV6) => ("icmpv6", "icmp"),
            _ => continue,
        };
        let foreign = |net: &&IpNet| net.addr().is_ipv4() != (protocol == Some(ICMP));
        if let Some(net) = here.iter().find(foreign) {
            let message = format!("protocol {name} does not exist in the family of \"{net}\"");
            section.fault(
                key,
                Fault::new(message).hint(format!("write a rule of its own with {right}")),
            );
        }
    }
}

const fn same_family(a: &IpNet, b: &IpNet) -> bool {
    matches!((a, b), (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_)))
}

fn read_protect<'p>(
    section: &mut Section<'_>,
    prefixes: Option<(&[IpNet], &[IpNet])>,
    assigned: bool,
    find_peer: impl Fn(&str) -> Found<'p>,
    warnings: &mut Vec<PolicyError>,
) -> Option<Protect> {
    section.missing("peer", ": the action \"protect\" needs one");
    let found = section.optional("peer", |text| match find_peer(text) {
        Found::Nothing(near) => {
            let fault = Fault::new(format!("there is no peer {text:?}"));
            Err(match near {
                Some(near) => fault.hint(format!("did you mean \"{near}\"?")),
                None => fault.hint(format!("define it as [peer.{text}]")),
            })
        }
        found @ (Found::Peer(_) | Found::Unclear) => Ok((PeerName::from(text), found)),
    });
    let mode = section
        .optional("mode", |text| choose(text, keys::MODES, [Mode::Tunnel, Mode::Transport]))
        .unwrap_or(Mode::Tunnel);
    let start = section.optional("start", |text| {
        choose(text, keys::STARTS, [Start::OnDemand, Start::Always, Start::Respond])
    });
    let quantum_safe = section.flag("quantum-safe", false);
    let proposals = read_proposals(section, quantum_safe, warnings);
    let lifetime = ChildLifetime {
        time: section.optional("lifetime", value::interval).unwrap_or(LIFETIME),
        bytes: section.optional("lifetime-bytes", value::octets).unwrap_or(0),
        packets: section.number("lifetime-packets").unwrap_or(0),
    };
    let (name, found) = found?;
    let peer = match found {
        Found::Peer(peer) => Some(peer),
        Found::Unclear | Found::Nothing(_) => None,
    };
    let proposals = proposals.unwrap_or_else(proposal::default_esp);
    // RFC 6023 leaves the first Child SA to CREATE_CHILD_SA, where it could have a key exchange.
    let childless = peer.is_some_and(|peer| peer.childless != Childless::Never);
    if childless && proposals.iter().all(|proposal| proposal.groups.is_empty()) {
        let message = format!(
            "no proposal has a key exchange, so what peer {name} is `childless` for is not had: the \
             keys of every Child SA come from those of the IKE SA alone"
        );
        let fault = Fault::new(message).hint("add one, such as -x25519");
        warnings.push(section.error("esp-proposals", fault));
    }
    let roaming = peer.is_some_and(|peer| peer.remote_address.is_none());
    let by_eap = peer.is_some_and(|peer| !peer.may_initiate());
    let passive = roaming || by_eap;
    if passive && matches!(start, Some(Start::OnDemand | Start::Always)) {
        let why = if roaming { "has any address" } else { "authenticates by EAP" };
        let message = format!("peer {name} {why}, so only it can initiate");
        section.fault("start", Fault::expected(message, "\"respond\""));
    }
    if assigned {
        if start == Some(Start::Respond) {
            let message = "who begins is assigned an address";
            section.fault("start", Fault::expected(message, "\"always\" or \"on-demand\""));
        }
        if let (Some(peer), Some((_, remote))) = (peer, prefixes) {
            check_assigned(section, peer, remote);
        }
    }
    // Nobody wants traffic to begin with another source than it is to have.
    let unsaid = match (passive, assigned) {
        (true, _) => Start::Respond,
        (false, true) => Start::Always,
        (false, false) => Start::OnDemand,
    };
    if let (Mode::Transport, Some((local, remote))) = (mode, prefixes) {
        check_transport(section, "local", local, peer.and_then(|peer| peer.local_address));
        check_transport(section, "remote", remote, peer.and_then(|peer| peer.remote_address));
        if peer.is_some_and(|peer| !peer.other_addresses.is_empty()) {
            let message = format!("peer {name} has several addresses");
            section
                .fault("mode", Fault::expected(message, "one, for transport mode, or \"tunnel\""));
        }
    }
    Some(Protect {
        peer: name,
        mode,
        start: start.unwrap_or(unsaid),
        quantum_safe,
        proposals,
        lifetime,
    })
}

/// The proposals of a rule, if it names any.
fn read_proposals(
    section: &mut Section<'_>,
    quantum_safe: bool,
    warnings: &mut Vec<PolicyError>,
) -> Option<Vec<EspProposal>> {
    let proposals = section.list("esp-proposals", |text| {
        let proposal = proposal::esp(text)?;
        if quantum_safe && proposal.has_sha1() {
            return Err(proposal::not_quantum_safe(text).hint(proposal::WITHOUT_SHA1));
        }
        Ok(proposal)
    })?;
    if proposals.iter().any(EspProposal::has_sha1) {
        warnings.push(section.error("esp-proposals", proposal::sha1_warning()));
    }
    Some(proposals)
}

/// In transport mode an SA protects the packets of the two gateways themselves.
fn check_transport(section: &mut Section<'_>, key: &str, nets: &[IpNet], address: Option<IpAddr>) {
    let whose = if key == "local" { "our own address" } else { "the peer's address" };
    let host = match nets {
        [net] if net.prefix_len() == net.max_prefix_len() => Some(net.addr()),
        _ => None,
    };
    let expected = match (host, address) {
        (Some(host), Some(address)) if host == address => return,
        (Some(_), None) => return,
        (_, Some(address)) => format!("[\"{}\"], {whose}", IpNet::from(address)),
        (None, None) => format!("one prefix of one host, {whose}"),
    };
    section.fault(
        key,
        Fault::expected("transport mode protects the gateways' own packets only", expected),
    );
}
