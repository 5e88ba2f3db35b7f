//! Policies as the BPF classifier wants them.

use std::collections::BTreeMap;

use gateway_ike::config::{Action, PolicySet, RuleName};

use super::bpf::{self, ClassRule};

/// Numbers for rules: derived from the name, so that a rule's counters are still its own after a
/// reload or a restart.
#[derive(Debug, Clone, Default)]
pub(super) struct RuleIds {
    names: BTreeMap<u32, RuleName>,
}

impl RuleIds {
    /// The number of a rule.
    fn id(&mut self, name: &RuleName) -> u32 {
        let mut id = hash(name);
        // Two names with one hash: the next free number.
        while self.names.get(&id).is_some_and(|other| other != name) {
            id = id.wrapping_add(1);
        }
        self.names.entry(id).or_insert_with(|| RuleName::clone(name));
        id
    }

    /// Every number with its rule.
    pub(super) fn names(&self) -> impl Iterator<Item = (u32, &RuleName)> {
        self.names.iter().map(|(id, name)| (*id, name))
    }
}

/// FNV-1a, 32 bits: short, and the same in every version of the program.
fn hash(name: &str) -> u32 {
    name.bytes()
        .fold(0x811c_9dc5, |hash: u32, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193))
}

/// Every pair of prefixes of every rule. Numbers of rules that are gone are free again.
pub(super) fn class_rules(policies: &PolicySet, ids: &mut RuleIds) -> Vec<ClassRule> {
    ids.names.retain(|_, name| policies.rules.contains_key(name));
    let mut rules = Vec::new();
    for rule in policies.rules.values() {
        let id = ids.id(&rule.name);
        rules.extend(rule.prefix_pairs().map(|(local, remote)| ClassRule {
            id,
            precedence: rule.precedence(&local, &remote),
            local,
            remote,
            protocol: rule.protocol,
            local_ports: rule.local_ports.clone(),
            remote_ports: rule.remote_ports.clone(),
            action: match rule.action {
                Action::Protect(_) => bpf::Action::Protect,
                Action::Bypass => bpf::Action::Bypass,
                Action::Discard => bpf::Action::Discard,
            },
        }));
    }
    rules
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gateway_ike::config::{ALL_PORTS, Rule};

    use super::*;

    fn rule(name: &str, local: &[&str], remote: &[&str]) -> (RuleName, Arc<Rule>) {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let rule = Rule {
            assigned: false,
            name: name.into(),
            priority: Rule::DEFAULT_PRIORITY,
            local: nets(local),
            remote: nets(remote),
            protocol: None,
            local_ports: ALL_PORTS,
            remote_ports: 80..=90,
            action: Action::Discard,
        };
        (name.into(), Arc::new(rule))
    }

    fn set(rules: Vec<(RuleName, Arc<Rule>)>) -> PolicySet {
        PolicySet { rules: rules.into_iter().collect(), ..PolicySet::default() }
    }

    #[test]
    fn a_rule_becomes_one_entry_for_each_pair_of_a_family() {
        let policies =
            set(vec![rule("r", &["10.1.0.0/16", "fd00:1::/64"], &["10.2.0.0/24", "fd00:2::/64"])]);
        let rules = class_rules(&policies, &mut RuleIds::default());
        let pairs: Vec<_> = rules.iter().map(|r| (r.local.to_string(), r.precedence)).collect();
        let rule = &policies.rules["r"];
        let precedence =
            |l: &str, r: &str| rule.precedence(&l.parse().unwrap(), &r.parse().unwrap());
        let v4 = ("10.1.0.0/16".to_owned(), precedence("10.1.0.0/16", "10.2.0.0/24"));
        let v6 = ("fd00:1::/64".to_owned(), precedence("fd00:1::/64", "fd00:2::/64"));
        assert_eq!(pairs, [v4, v6]);
        assert!(
            rules.iter().all(|r| r.action == bpf::Action::Discard && r.remote_ports == (80..=90))
        );
        assert_eq!(rules[0].id, rules[1].id);
    }

    #[test]
    fn a_rule_keeps_its_number_whatever_comes_and_goes() {
        let [a, b] = [
            rule("a", &["10.1.0.0/16"], &["10.2.0.0/16"]),
            rule("b", &["10.1.0.0/16"], &["10.3.0.0/16"]),
        ];
        let mut ids = RuleIds::default();
        let alone = class_rules(&set(vec![b.clone()]), &mut ids)[0].id;
        let both = class_rules(&set(vec![a, b]), &mut ids);
        assert_eq!(both[1].id, alone);
        assert_ne!(both[0].id, alone);
        class_rules(&PolicySet::default(), &mut ids);
        assert_eq!(ids.names().count(), 0);
    }

    #[test]
    fn names_with_one_hash_get_two_numbers() {
        // A collision of 32-bit FNV-1a.
        let (one, two): (RuleName, RuleName) = ("costarring".into(), "liquid".into());
        assert_eq!(hash(&one), hash(&two));
        let mut ids = RuleIds::default();
        let (a, b) = (ids.id(&one), ids.id(&two));
        assert_ne!(a, b);
        assert_eq!((ids.id(&one), ids.id(&two)), (a, b));
    }
}
