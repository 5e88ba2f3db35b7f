//! Which Child SA sends what, and which one waits to do so in its place.
//!
//! An IKE SA that reauthenticates is made anew (RFC 7296 2.8.3), and the Child SAs of the two do
//! not know each other. The responder must not send by the new one before the initiator has it,
//! and may send by the old one until then; if the old one goes first, the new one begins at once.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};

use crate::config::RuleName;
use crate::io::{ChildId, IkeSaId, Selector};
use crate::selector::{self, Key};

/// A Child SA of some IKE SA.
pub(crate) type OfIkeSa = (IkeSaId, ChildId);

/// See the module. One that is gone may stay as an heir: whoever asks it to send finds nothing.
#[derive(Debug, Default)]
pub(crate) struct Senders(BTreeMap<Traffic, Sender>);

#[derive(Debug)]
struct Sender {
    sending: Sending,
    heir: Option<OfIkeSa>,
    /// The others of its selectors.
    others: Box<[Key]>,
}

/// A Child SA that sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) child: ChildId,
    /// As it is of the Child SA.
    pub(crate) for_packet: bool,
}

/// What a Child SA sends: its rule, and the first of its selectors. Two that agree in that one hardly
/// differ in the others.
type Traffic = (RuleName, Key);

fn traffic(rule: &RuleName, pairs: &[(Selector, u32)]) -> Option<Traffic> {
    let (first, _) = pairs.first()?;
    Some((RuleName::clone(rule), selector::key(first)))
}

/// Whether a pair of prefixes has packets that this is too.
fn shares(([local, remote], protocol, ports): &Key, pair: &Selector) -> bool {
    let nets = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let [local_start, local_end, remote_start, remote_end] = ports;
    nets(local, &pair.local)
        && nets(remote, &pair.remote)
        && protocol.is_none_or(|one| pair.protocol.is_none_or(|other| one == other))
        && local_start <= pair.local_ports.end()
        && pair.local_ports.start() <= local_end
        && remote_start <= pair.remote_ports.end()
        && pair.remote_ports.start() <= remote_end
}

impl Senders {
    /// Whether nothing sends.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What sends this already, beside which another would be its heir.
    pub(crate) fn sending(&self, rule: &RuleName, pairs: &[(Selector, u32)]) -> Option<Sending> {
        self.0.get(&traffic(rule, pairs)?).map(|sender| sender.sending)
    }

    /// Those of a rule that send some of this.
    pub(crate) fn sending_some(
        &self,
        rule: &RuleName,
        pairs: &[(Selector, u32)],
    ) -> impl Iterator<Item = ChildId> {
        let least = ([IpNet::V4(Ipv4Net::default()); 2], None, [0; 4]);
        let first = (RuleName::clone(rule), least);
        self.0
            .range(first..)
            .take_while(move |((of, ..), _)| of == rule)
            .filter(move |((_, first), sender)| {
                let mut keys = core::iter::once(first).chain(&sender.others);
                keys.any(|key| pairs.iter().any(|(pair, _)| shares(key, pair)))
            })
            .map(|(_, sender)| sender.sending.child)
    }

    /// From now on this one sends.
    pub(crate) fn begins(
        &mut self,
        rule: &RuleName,
        pairs: &[(Selector, u32)],
        child: ChildId,
        for_packet: bool,
    ) {
        let Some(traffic) = traffic(rule, pairs) else { return };
        let others = pairs.iter().skip(1).map(|(pair, _)| selector::key(pair)).collect();
        let sending = Sending { child, for_packet };
        let sender = self.0.entry(traffic).or_insert_with(|| Sender {
            sending,
            heir: None,
            others: Box::default(),
        });
        sender.sending = sending;
        sender.others = others;
        sender.heir = sender.heir.filter(|(_, heir)| *heir != child);
    }

    /// This one is to send when its peer is known to have it. Gives what sends until then, if
    /// something does.
    pub(crate) fn inherits(
        &mut self,
        rule: &RuleName,
        pairs: &[(Selector, u32)],
        heir: OfIkeSa,
    ) -> Option<Sending> {
        let sender = self.0.get_mut(&traffic(rule, pairs)?)?;
        sender.heir = Some(heir);
        Some(sender.sending)
    }

    /// This one does not send any more: who is to do it now.
    pub(crate) fn ends(
        &mut self,
        rule: &RuleName,
        pairs: &[(Selector, u32)],
        child: ChildId,
    ) -> Option<OfIkeSa> {
        let traffic = traffic(rule, pairs)?;
        if self.0.get(&traffic)?.sending.child != child {
            return None;
        }
        self.0.remove(&traffic)?.heir
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ALL_PORTS;

    fn pairs(remote: &str) -> Vec<(Selector, u32)> {
        let (local, remote) = ("10.0.0.0/8".parse().unwrap(), remote.parse().unwrap());
        let ports = (ALL_PORTS, ALL_PORTS);
        let selector =
            Selector { local, remote, protocol: None, local_ports: ports.0, remote_ports: ports.1 };
        vec![(selector, 1)]
    }

    const fn of(ike_sa: u64, child: u64) -> OfIkeSa {
        (IkeSaId(ike_sa), ChildId(child))
    }

    #[test]
    fn an_heir_follows_once_whoever_sent_the_same() {
        let rule: RuleName = "site".into();
        let (here, elsewhere) = (pairs("10.1.0.0/16"), pairs("10.2.0.0/16"));
        let mut senders = Senders::default();
        assert_eq!(senders.inherits(&rule, &here, of(2, 20)), None, "nobody sends");
        senders.begins(&rule, &here, ChildId(10), false);
        assert_eq!(senders.inherits(&rule, &elsewhere, of(2, 20)), None, "it sends something else");
        assert!(
            senders.sending(&rule, &here).is_some() && senders.sending(&rule, &elsewhere).is_none()
        );
        assert_eq!(senders.inherits(&rule, &here, of(2, 20)).unwrap().child, ChildId(10));
        assert_eq!(senders.ends(&rule, &here, ChildId(11)), None, "it never sent");
        // A successor of the one that sends takes the heir over.
        senders.begins(&rule, &here, ChildId(12), false);
        assert_eq!(senders.ends(&rule, &here, ChildId(10)), None);
        assert_eq!(senders.ends(&rule, &here, ChildId(12)), Some(of(2, 20)));
        assert_eq!(senders.ends(&rule, &here, ChildId(12)), None);
    }

    #[test]
    fn who_sends_some_of_the_same_is_found_by_addresses_protocol_and_ports() {
        let (rule, other): (RuleName, RuleName) = ("b".into(), "c".into());
        let with = |remote, protocol, ports| {
            let mut pairs = pairs(remote);
            (pairs[0].0.protocol, pairs[0].0.remote_ports) = (protocol, ports);
            pairs
        };
        let web = with("10.1.0.1/32", Some(6), 80..=90);
        let mut senders = Senders::default();
        senders.begins(&"a".into(), &web, ChildId(1), false);
        senders.begins(&rule, &web, ChildId(2), false);
        senders.begins(&other, &web, ChildId(4), false);
        let found =
            |pairs: Vec<(Selector, u32)>| senders.sending_some(&rule, &pairs).collect::<Vec<_>>();
        for pairs in [
            web.clone(),
            pairs("10.1.0.0/16"),
            with("10.1.0.1/32", None, 90..=100),
            with("10.1.0.1/32", Some(6), 1..=80),
        ] {
            assert_eq!(found(pairs), [ChildId(2)]);
        }
        for pairs in [
            pairs("10.2.0.0/16"),
            with("10.1.0.1/32", Some(17), 80..=90),
            with("10.1.0.1/32", Some(6), 91..=100),
            with("10.1.0.1/32", Some(6), 1..=79),
        ] {
            assert_eq!(found(pairs), []);
        }
        assert_eq!(senders.sending_some(&other, &pairs("10.0.0.0/8")).next(), Some(ChildId(4)));
        // Not only the first of its selectors counts.
        let two = [web, with("10.1.0.1/32", Some(6), 443..=443)].concat();
        senders.begins(&rule, &two, ChildId(5), false);
        let https = with("10.1.0.1/32", Some(6), 443..=443);
        assert_eq!(senders.sending_some(&rule, &https).next(), Some(ChildId(5)));
    }

    #[test]
    fn an_heir_that_sends_inherits_from_nobody() {
        let (rule, here) = ("site".into(), pairs("10.1.0.0/16"));
        let mut senders = Senders::default();
        senders.begins(&rule, &here, ChildId(10), false);
        assert_eq!(senders.inherits(&rule, &here, of(2, 20)).unwrap().child, ChildId(10));
        senders.begins(&rule, &here, ChildId(20), false);
        assert_eq!(senders.ends(&rule, &here, ChildId(10)), None);
        assert_eq!(senders.ends(&rule, &here, ChildId(20)), None);
        assert!(senders.0.is_empty());
    }
}
