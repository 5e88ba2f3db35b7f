//! What of a set of policies the data path has no room for, found before anything is changed by
//! compiling it as it will be compiled when it is applied.

use gateway_common::Entry;
use gateway_ike::config::{Action, PolicySet, Rule, RuleName};
use gateway_ike::io::Selector;

use super::bpf::{Generation, RuleError};
use super::rules::{RuleIds, class_rules};
use super::xfrm::{PolicyDirection, SelectorError, policy_keys};

/// Something that has no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The rule that is too much; `None`: all of them together.
    pub rule: Option<RuleName>,
    /// What there is too much of, and how much there may be.
    pub message: String,
    /// What can be done.
    pub hint: &'static str,
}

/// Everything that has no room, in the order of the rules' names.
#[must_use]
pub fn beyond_limits(policies: &PolicySet) -> Vec<Excess> {
    let mut excesses: Vec<Excess> =
        policies.rules.values().filter_map(|rule| too_many_blocks(rule)).collect();
    let mut ids = RuleIds::default();
    let rules = class_rules(policies, &mut ids);
    excesses.extend(Generation::new(&rules).err().map(|error| {
        let (rule, hint) = match error {
            RuleError::Tuples { .. } => (None, "use fewer different prefix lengths"),
            RuleError::Alternatives { rule } => (Some(rule), "merge port ranges"),
            RuleError::Families(rule) | RuleError::Ports(rule) => (Some(rule), "mend the rule"),
        };
        let name = |id| ids.names().find(|(other, _)| *other == id).map(|(_, name)| name);
        let rule = rule.and_then(name).map(RuleName::clone);
        // In the maps a rule is a number; in the files it has a name.
        let message = match error {
            RuleError::Alternatives { .. } => {
                format!("more than {} rules differ from this one only by ports", Entry::MAX)
            }
            RuleError::Tuples { .. } | RuleError::Families(_) | RuleError::Ports(_) => {
                error.to_string()
            }
        };
        Excess { rule, message, hint }
    }));
    excesses
}

/// XFRM has no port ranges: they are cut into blocks, and each pair of blocks is a policy.
fn too_many_blocks(rule: &Rule) -> Option<Excess> {
    let Action::Protect(protect) = &rule.action else { return None };
    let (local, remote) = rule.prefix_pairs().next()?;
    let selector = Selector {
        local,
        remote,
        protocol: rule.protocol,
        local_ports: rule.local_ports.clone(),
        remote_ports: rule.remote_ports.clone(),
    };
    match policy_keys(&selector, protect.mode, PolicyDirection::Out) {
        Err(error @ SelectorError::Ports { .. }) => Some(Excess {
            rule: Some(RuleName::clone(&rule.name)),
            message: error.to_string(),
            hint: "restrict ports on one side only, or split the rule",
        }),
        Ok(_) | Err(SelectorError::Families(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gateway_ike::config::{ALL_PORTS, Mode, PortRange, Protect, Start};
    use ipnet::IpNet;

    use super::*;

    fn rule(name: &str, remote: IpNet, ports: PortRange) -> Rule {
        Rule {
            assigned: false,
            name: name.into(),
            priority: Rule::DEFAULT_PRIORITY,
            local: vec!["10.0.0.0/8".parse().unwrap()],
            remote: vec![remote],
            protocol: (ports != ALL_PORTS).then_some(6),
            local_ports: ALL_PORTS,
            remote_ports: ports,
            action: Action::Bypass,
        }
    }

    fn set(rules: impl IntoIterator<Item = Rule>) -> PolicySet {
        let rules = rules.into_iter().map(|rule| (Arc::clone(&rule.name), Arc::new(rule)));
        PolicySet { rules: rules.collect(), ..PolicySet::default() }
    }

    #[test]
    fn what_fits_is_no_excess() {
        let fits = (1..=16)
            .map(|port| rule(&format!("r{port}"), "10.2.0.0/16".parse().unwrap(), port..=port));
        assert_eq!(beyond_limits(&set(fits)), []);
    }

    #[test]
    fn too_many_port_ranges_for_one_pair_of_prefixes_name_the_rule() {
        let rules = (1..=17)
            .map(|port| rule(&format!("r{port:02}"), "10.2.0.0/16".parse().unwrap(), port..=port));
        let excesses = beyond_limits(&set(rules));
        assert_eq!(excesses.len(), 1);
        assert!(excesses[0].rule.is_some() && excesses[0].message.contains("more than 16"));
    }

    #[test]
    fn too_many_combinations_of_prefix_lengths_concern_all_rules() {
        let net = |bits: u8| IpNet::new("2001:db8::".parse().unwrap(), bits).unwrap();
        let rules = (32..=72).map(|bits| Rule {
            assigned: false,
            local: vec!["fd00::/8".parse().unwrap()],
            ..rule(&format!("r{bits}"), net(bits), ALL_PORTS)
        });
        let excesses = beyond_limits(&set(rules));
        assert_eq!(excesses.len(), 1);
        assert_eq!(excesses[0].rule, None);
        assert!(excesses[0].message.contains("in 41 ways, more than 40"), "{excesses:?}");
    }

    #[test]
    fn ranges_of_ports_on_both_sides_that_xfrm_cannot_hold_name_the_rule() {
        let protect = Protect {
            peer: "p".into(),
            mode: Mode::Tunnel,
            start: Start::OnDemand,
            quantum_safe: false,
            proposals: Vec::new(),
            lifetime: gateway_ike::config::ChildLifetime {
                time: core::time::Duration::ZERO,
                bytes: 0,
                packets: 0,
            },
        };
        let ragged = Rule {
            assigned: false,
            local_ports: 1..=65_534,
            action: Action::Protect(protect),
            ..rule("ragged", "10.2.0.0/16".parse().unwrap(), 1..=65_534)
        };
        let excesses = beyond_limits(&set([ragged]));
        assert_eq!(excesses.len(), 1);
        assert_eq!(excesses[0].rule.as_deref(), Some("ragged"));
        assert!(excesses[0].message.contains("900 XFRM policies"), "{excesses:?}");
    }
}
