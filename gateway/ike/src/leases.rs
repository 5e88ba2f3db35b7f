//! Addresses that we assign to peers (RFC 7296 2.19, 3.15): which peer has which of a pool.
//!
//! A lease stays with its peer across IKE SAs and reloads. Only when a pool has nothing free any
//! more does a peer without an IKE SA lose its own. There is at most one lease for each peer that
//! is configured, and for each user of a peer with EAP; users that nobody wrote down, who come with
//! certificates, have theirs only as long as an IKE SA, of which there is a limit.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_wire::{Configuration, ConfigurationAttribute, CpAttribute, CpType, TrafficSelector};
use ipnet::IpNet;

use crate::config::{PeerName, PolicySet, Pool, UserName};

/// Who has addresses: a peer or, where many users come as one peer, each of those.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub(crate) peer: PeerName,
    pub(crate) user: Option<UserName>,
}

/// A peer's addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

impl Lease {
    pub(crate) fn addresses(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// The addresses as selectors of all their traffic.
    pub(crate) fn selectors(self) -> Vec<TrafficSelector> {
        let all = |address| TrafficSelector {
            protocol: 0,
            start_port: 0,
            end_port: u16::MAX,
            start: address,
            end: address,
        };
        self.addresses().map(all).collect()
    }
}

/// Who has what.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    of: BTreeMap<Holder, Lease>,
    taken: BTreeMap<IpAddr, Holder>,
}

impl Leases {
    /// Whether nobody has anything.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty() && self.taken.is_empty()
    }

    /// What a peer has.
    pub(crate) fn of(&self, holder: &Holder) -> Lease {
        self.of.get(holder).copied().unwrap_or_default()
    }

    /// Gives a peer the addresses that it asks for, as far as there are any: those that it had,
    /// if the pool still has them. `idle` says who has no IKE SA.
    pub(crate) fn assign(
        &mut self,
        pool: &Pool,
        holder: &Holder,
        wants: (bool, bool),
        idle: impl Fn(&Holder) -> bool,
    ) -> Lease {
        let had = self.of(holder);
        // Nobody keeps what the pool has no more.
        let held = Lease {
            v4: had.v4.filter(|v4| pool.has((*v4).into())),
            v6: had.v6.filter(|v6| pool.has((*v6).into())),
        };
        let mut lease = Lease::default();
        if wants.0 {
            let had = held.v4.map(IpAddr::V4);
            if let Some(IpAddr::V4(v4)) = self.choose(pool, holder, had, true, &idle) {
                lease.v4 = Some(v4);
            }
        }
        if wants.1 {
            let had = held.v6.map(IpAddr::V6);
            if let Some(IpAddr::V6(v6)) = self.choose(pool, holder, had, false, &idle) {
                lease.v6 = Some(v6);
            }
        }
        // What it does not ask for today stays its own.
        let kept = Lease { v4: lease.v4.or(held.v4), v6: lease.v6.or(held.v6) };
        for old in had.addresses().filter(|a| !kept.addresses().any(|k| k == *a)) {
            self.taken.remove(&old);
        }
        for new in kept.addresses() {
            self.taken.insert(new, holder.clone());
        }
        self.of.insert(holder.clone(), kept);
        lease
    }

    fn choose(
        &mut self,
        pool: &Pool,
        holder: &Holder,
        had: Option<IpAddr>,
        v4: bool,
        idle: impl Fn(&Holder) -> bool,
    ) -> Option<IpAddr> {
        if had.is_some() {
            return had;
        }
        let free = pool
            .addresses
            .iter()
            .filter(|net| net.addr().is_ipv4() == v4)
            .flat_map(hosts)
            .find(|address| !self.taken.contains_key(address));
        if free.is_some() {
            return free;
        }
        let (address, owner) = self
            .taken
            .iter()
            .find(|(a, owner)| {
                a.is_ipv4() == v4 && pool.has(**a) && *owner != holder && idle(owner)
            })
            .map(|(address, owner)| (*address, owner.clone()))?;
        if let Some(lost) = self.of.get_mut(&owner) {
            match address {
                IpAddr::V4(_) => lost.v4 = None,
                IpAddr::V6(_) => lost.v6 = None,
            }
        }
        Some(address)
    }

    /// The operator's wishes have changed: peers that are gone, or have no pool any more, lose
    /// what they had, and so do users that are gone and have no IKE SA.
    pub(crate) fn retain(&mut self, policies: &PolicySet, idle: impl Fn(&Holder) -> bool) {
        let stays = |holder: &Holder| {
            policies.peers.get(&holder.peer).is_some_and(|p| p.pool.is_some())
                && (is_written_down(policies, holder) || !idle(holder))
        };
        self.of.retain(|holder, _| stays(holder));
        self.taken.retain(|_, holder| stays(holder));
    }

    /// The last IKE SA with this holder has ended.
    pub(crate) fn disconnected(&mut self, policies: &PolicySet, holder: &Holder) {
        if is_written_down(policies, holder) {
            return;
        }
        for address in self.of.remove(holder).unwrap_or_default().addresses() {
            self.taken.remove(&address);
        }
    }
}

/// Whether the policy names the holder; users with certificates it does not name.
fn is_written_down(policies: &PolicySet, holder: &Holder) -> bool {
    holder.user.as_ref().is_none_or(|user| policies.users.contains_key(user))
}

/// The addresses of a prefix that a host may have: without the network's own and the broadcast
/// address of IPv4, and the routers' anycast address of IPv6 (RFC 4291 2.6.1).
fn hosts(net: &IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    match net {
        IpNet::V4(net) => Box::new(net.hosts().map(IpAddr::V4)),
        IpNet::V6(net) => {
            let network = net.network();
            let single = net.prefix_len() >= 127;
            Box::new(net.hosts().filter(move |a| single || *a != network).map(IpAddr::V6))
        }
    }
}

/// Which families of addresses a request asks for; `None`: for none, or it is no request.
pub(crate) fn wanted(request: Option<&Configuration<'_>>) -> Option<(bool, bool)> {
    let request = request.filter(|c| c.kind == CpType::CFG_REQUEST)?;
    let asks = |kind| request.attributes.iter().any(|a| a.kind == kind);
    let wants = (asks(CpAttribute::INTERNAL_IP4_ADDRESS), asks(CpAttribute::INTERNAL_IP6_ADDRESS));
    (wants.0 || wants.1).then_some(wants)
}

/// The answer to a request, as owned octets (RFC 7296 3.15.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply(Vec<(CpAttribute, Vec<u8>)>);

impl Reply {
    pub(crate) fn new(lease: Lease, pool: &Arc<Pool>) -> Self {
        let mut attributes = Vec::new();
        if let Some(v4) = lease.v4 {
            attributes.push((CpAttribute::INTERNAL_IP4_ADDRESS, v4.octets().to_vec()));
        }
        if let Some(v6) = lease.v6 {
            let value = v6.octets().into_iter().chain([128]).collect();
            attributes.push((CpAttribute::INTERNAL_IP6_ADDRESS, value));
        }
        for dns in &pool.dns {
            attributes.push(match dns {
                IpAddr::V4(a) => (CpAttribute::INTERNAL_IP4_DNS, a.octets().to_vec()),
                IpAddr::V6(a) => (CpAttribute::INTERNAL_IP6_DNS, a.octets().to_vec()),
            });
        }
        Self(attributes)
    }

    pub(crate) fn payload(&self) -> Configuration<'_> {
        let attributes = self.0.iter();
        Configuration {
            kind: CpType::CFG_REPLY,
            attributes: attributes
                .map(|(kind, value)| ConfigurationAttribute { kind: *kind, value })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(addresses: &[&str]) -> Arc<Pool> {
        Arc::new(Pool {
            name: "pool".into(),
            addresses: addresses.iter().map(|n| n.parse().unwrap()).collect(),
            dns: vec!["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()],
        })
    }

    fn v4(lease: Lease) -> String {
        lease.v4.map(|a| a.to_string()).unwrap_or_default()
    }

    fn peer(name: &str) -> Holder {
        Holder { peer: name.into(), user: None }
    }

    const V4: (bool, bool) = (true, false);
    const BOTH: (bool, bool) = (true, true);

    #[test]
    fn each_peer_gets_its_own_addresses_and_keeps_them() {
        let pool = pool(&["10.9.0.0/29", "2001:db8:9::/64"]);
        let mut leases = Leases::default();
        let a = leases.assign(&pool, &peer("a"), BOTH, |_| true);
        let b = leases.assign(&pool, &peer("b"), BOTH, |_| true);
        let text = |lease: Lease| lease.addresses().map(|a| a.to_string()).collect::<Vec<_>>();
        assert_eq!(text(a), ["10.9.0.1", "2001:db8:9::1"]);
        assert_eq!(text(b), ["10.9.0.2", "2001:db8:9::2"]);
        assert_eq!(leases.assign(&pool, &peer("a"), BOTH, |_| true), a);
        // Asking for less today does not lose the other.
        assert_eq!(leases.assign(&pool, &peer("a"), V4, |_| true).v6, None);
        assert_eq!(leases.assign(&pool, &peer("a"), BOTH, |_| true), a);
        let selectors = a.selectors();
        assert!(selectors.iter().all(|s| s.start == s.end && s.protocol == 0));
        assert_eq!(selectors.len(), 2);
    }

    #[test]
    fn a_pool_that_is_used_up_takes_from_peers_that_are_not_there_and_from_no_others() {
        let pool = pool(&["10.9.0.0/30"]);
        let mut leases = Leases::default();
        for name in ["a", "b"] {
            assert!(leases.assign(&pool, &peer(name), V4, |_| false).v4.is_some());
        }
        assert_eq!(leases.assign(&pool, &peer("c"), V4, |_| false), Lease::default());
        let taken = leases.assign(&pool, &peer("c"), V4, |holder| &*holder.peer == "b");
        assert_eq!(v4(taken), "10.9.0.2");
        assert_eq!(leases.of(&peer("b")), Lease::default());
        assert_eq!(leases.of(&peer("c")), taken);
    }

    #[test]
    fn each_user_of_a_peer_has_addresses_and_a_stranger_only_while_connected() {
        let pool = pool(&["10.9.0.0/29"]);
        let user = |name: &str| Holder { user: Some(name.into()), ..peer("office") };
        let mut leases = Leases::default();
        let alice = leases.assign(&pool, &user("alice"), V4, |_| true);
        let bob = leases.assign(&pool, &user("bob"), V4, |_| true);
        assert_eq!((v4(alice).as_str(), v4(bob).as_str()), ("10.9.0.1", "10.9.0.2"));
        // A policy that names neither.
        leases.disconnected(&PolicySet::default(), &user("alice"));
        assert_eq!(leases.of(&user("alice")), Lease::default());
        assert_eq!(leases.assign(&pool, &user("carol"), V4, |_| true), alice);
        assert_eq!(leases.of(&user("bob")), bob);
        leases.assign(&pool, &peer("a"), V4, |_| true);
        leases.disconnected(&PolicySet::default(), &peer("a"));
        assert_ne!(leases.of(&peer("a")), Lease::default(), "a peer keeps its own");
    }

    #[test]
    fn a_family_that_the_pool_lacks_is_not_assigned() {
        let lease = Leases::default().assign(&pool(&["10.9.0.7/32"]), &peer("a"), BOTH, |_| true);
        assert_eq!((v4(lease).as_str(), lease.v6), ("10.9.0.7", None));
    }

    #[test]
    fn a_changed_pool_gives_new_addresses() {
        let mut leases = Leases::default();
        leases.assign(&pool(&["10.9.0.0/24"]), &peer("a"), V4, |_| true);
        let moved = leases.assign(&pool(&["10.8.0.0/24"]), &peer("a"), V4, |_| true);
        assert_eq!(v4(moved), "10.8.0.1");
        let other = leases.assign(&pool(&["10.9.0.0/24"]), &peer("b"), V4, |_| true);
        assert_eq!(v4(other), "10.9.0.1", "what a had is free again");
        // The new pool is used up: the address of the old one is nobody's any more.
        let none = leases.assign(&pool(&["10.9.0.1/32"]), &peer("a"), V4, |_| false);
        assert_eq!((none, leases.of(&peer("a"))), (Lease::default(), Lease::default()));
        leases.retain(&PolicySet::default(), |_| true);
        assert!(leases.of.is_empty() && leases.taken.is_empty());
    }

    #[test]
    fn attributes_that_are_not_known_are_ignored() {
        let asks = |kinds: &[u16]| {
            let attribute =
                |kind: &u16| ConfigurationAttribute { kind: CpAttribute(*kind), value: &[1, 2, 3] };
            let attributes = kinds.iter().map(attribute).collect();
            wanted(Some(&Configuration { kind: CpType::CFG_REQUEST, attributes }))
        };
        // INTERNAL_ADDRESS_EXPIRY of RFC 4306, and one that nobody has.
        assert_eq!(asks(&[5, 1, 9999]), Some((true, false)));
        assert_eq!(asks(&[5, 9999, 3]), None, "whoever asks for no address gets none");
    }

    #[test]
    fn the_reply_has_the_lengths_of_the_rfc() {
        let pool = pool(&["10.9.0.0/24", "2001:db8:9::/64"]);
        let lease = Leases::default().assign(&pool, &peer("a"), BOTH, |_| true);
        let reply = Reply::new(lease, &pool);
        let payload = reply.payload();
        let lengths: Vec<_> = payload.attributes.iter().map(|a| (a.kind, a.value.len())).collect();
        let expected = [
            (CpAttribute::INTERNAL_IP4_ADDRESS, 4),
            (CpAttribute::INTERNAL_IP6_ADDRESS, 17),
            (CpAttribute::INTERNAL_IP4_DNS, 4),
            (CpAttribute::INTERNAL_IP6_DNS, 16),
        ];
        assert_eq!(lengths, expected);
        assert_eq!(payload.kind, CpType::CFG_REPLY);
        assert_eq!(wanted(Some(&payload)), None, "a reply asks for nothing");
        let request = Configuration { kind: CpType::CFG_REQUEST, ..payload };
        assert_eq!(wanted(Some(&request)), Some((true, true)));
        assert_eq!(wanted(None), None);
    }
}
