//! The policies as they are served: with what every request asks of them found, not searched for.
//! There may be ten thousand peers and rules, and whoever asks is often nobody that we know.

use core::net::IpAddr;
use core::ops::Deref;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_wire::{HashAlgorithm, Identification};

use crate::config::{PeerConfig, PeerName, PolicySet, Protect, RemoteAuth, Rule};
use crate::identity::IdentityKey;
use crate::ike_sa::Wanted;
use crate::io::Path;

/// A set of policies and its indices, which are made with it and never change.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    set: Arc<PolicySet>,
    places: BTreeMap<Place, Peers>,
    /// The rules that protect traffic with a peer, by name.
    rules: BTreeMap<PeerName, Vec<Arc<Rule>>>,
}

/// Our address and the peer's, each if it must be one.
type Place = (Option<IpAddr>, Option<IpAddr>);

/// Where a peer may be.
fn places_of(peer: &PeerConfig) -> BTreeSet<Place> {
    let known: BTreeSet<Place> =
        peer.addresses().map(|address| (peer.local_address, Some(address))).collect();
    if known.is_empty() { BTreeSet::from([(peer.local_address, None)]) } else { known }
}

/// The peers of one place.
#[derive(Debug, Default)]
struct Peers {
    /// All of them, by name.
    all: Vec<Arc<PeerConfig>>,
    by_identity: BTreeMap<IdentityKey, Vec<Arc<PeerConfig>>>,
    /// Those that may say in IKE that they are anybody.
    anybody: Vec<Arc<PeerConfig>>,
    /// The first with each list of proposals that some of them have.
    proposing: Vec<Arc<PeerConfig>>,
    needs: Needs,
}

/// What IKE_SA_INIT says on behalf of whoever may be at the other end, of which nobody knows yet
/// who it is; of signatures nothing, unless one of them uses any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    /// With which hashes either end may sign (RFC 7427 4).
    pub(crate) hashes: BTreeSet<HashAlgorithm>,
    /// What CERTREQ asks for.
    pub(crate) wanted: Wanted,
    /// Whether there is a PPK with one of them.
    pub(crate) ppk: bool,
}

impl Needs {
    /// What this peer needs.
    pub(crate) fn of(peer: &PeerConfig) -> Self {
        let mut needs = Self::default();
        needs.add(peer);
        needs
    }

    fn add(&mut self, peer: &PeerConfig) {
        if peer.uses_signatures() {
            self.hashes.extend(peer.signature_schemes.iter().map(|scheme| scheme.hash()));
        }
        self.wanted.add(peer);
        self.ppk |= peer.ppk.is_some();
    }

    /// What these need too.
    fn merge(&mut self, others: &Self) {
        self.hashes.extend(&others.hashes);
        self.wanted.merge(&others.wanted);
        self.ppk |= others.ppk;
    }
}

impl Deref for Policies {
    type Target = PolicySet;

    fn deref(&self) -> &PolicySet {
        &self.set
    }
}

impl Policies {
    pub(crate) fn new(set: Arc<PolicySet>) -> Self {
        let mut places = BTreeMap::<Place, Peers>::new();
        let mut proposals = BTreeSet::new();
        for peer in set.peers.values() {
            for place in places_of(peer) {
                let peers = places.entry(place).or_default();
                peers.all.push(Arc::clone(peer));
                let key = IdentityKey::from(&peer.remote_id);
                peers.by_identity.entry(key).or_default().push(Arc::clone(peer));
                if peer.is_anybody() {
                    peers.anybody.push(Arc::clone(peer));
                }
                if proposals.insert((place, &peer.proposals)) {
                    peers.proposing.push(Arc::clone(peer));
                }
                peers.needs.add(peer);
            }
        }
        let mut rules = BTreeMap::<PeerName, Vec<Arc<Rule>>>::new();
        for rule in set.rules.values() {
            if let Some(protect) = rule.protect() {
                rules.entry(PeerName::clone(&protect.peer)).or_default().push(Arc::clone(rule));
            }
        }
        Self { set, places, rules }
    }

    /// The places that the other end of a path may be at: those of its address first, then those
    /// of any; among them those of our address first. A peer behind NAT shows another address than
    /// its own, so any peer configured with *another* address is none.
    fn places(&self, path: Path) -> impl Iterator<Item = &Peers> {
        self.around((Some(path.local.ip()), Some(path.remote.ip())))
    }

    /// A place and those that contain it.
    fn around(&self, (ours, theirs): Place) -> impl Iterator<Item = &Peers> {
        let all = [(ours, theirs), (None, theirs), (ours, None), (None, None)];
        all.into_iter().filter_map(|place| self.places.get(&place))
    }

    /// The peers that may be at the other end of a path, the likeliest places first.
    pub(crate) fn candidates(&self, path: Path) -> impl Iterator<Item = &Arc<PeerConfig>> {
        self.places(path).flat_map(|peers| &peers.all)
    }

    /// Of these, place by place, as many as differ in their proposals.
    pub(crate) fn proposing(&self, path: Path) -> impl Iterator<Item = &[Arc<PeerConfig>]> {
        self.places(path).map(|peers| peers.proposing.as_slice())
    }

    /// Those that have an identity.
    pub(crate) fn identified(
        &self,
        path: Path,
        id: &Identification<'_>,
    ) -> impl Iterator<Item = &Arc<PeerConfig>> {
        let key = IdentityKey::from(id);
        self.places(path).filter_map(move |peers| peers.by_identity.get(&key)).flatten()
    }

    /// Those that may have an identity: at each place those that have it, then those that EAP will
    /// ask who they are.
    pub(crate) fn perhaps(
        &self,
        path: Path,
        id: &Identification<'_>,
    ) -> impl Iterator<Item = &Arc<PeerConfig>> {
        let key = IdentityKey::from(id);
        self.places(path).flat_map(move |peers| {
            peers.by_identity.get(&key).into_iter().flatten().chain(&peers.anybody)
        })
    }

    /// What those need that may be at the other end of a path.
    pub(crate) fn needs(&self, path: Path) -> Needs {
        self.needs_at((Some(path.local.ip()), Some(path.remote.ip())))
    }

    fn needs_at(&self, place: Place) -> Needs {
        let mut all = Needs::default();
        self.around(place).for_each(|peers| all.merge(&peers.needs));
        all
    }

    /// The rules that protect traffic with a peer.
    pub(crate) fn rules_of(&self, peer: &PeerName) -> impl Iterator<Item = (&Arc<Rule>, &Protect)> {
        let rules = self.rules.get(peer).into_iter().flatten();
        rules.filter_map(|rule| Some((rule, rule.protect()?)))
    }
}

impl PolicySet {
    /// Whether a Child SA made for `before` is still what the policies want. When it starts and how
    /// long it lives concern only its successor.
    pub(crate) fn still_wants(&self, before: &Rule, is_quantum_safe: bool) -> bool {
        let Some(now) = self.rules.get(&before.name) else { return false };
        let traffic = |r: &Rule| {
            (
                r.local.clone(),
                r.assigned,
                r.remote.clone(),
                r.protocol,
                r.local_ports.clone(),
                r.remote_ports.clone(),
                r.priority,
            )
        };
        match (before.protect(), now.protect()) {
            (Some(b), Some(n)) => {
                traffic(before) == traffic(now)
                    && b.peer == n.peer
                    && b.mode == n.mode
                    && b.proposals == n.proposals
                    && (is_quantum_safe || !n.quantum_safe)
            }
            _ => false,
        }
    }

    /// The peers that may come to show a certificate of which we do not ask for all authorities,
    /// each with how many, since CERTREQ has no room for them (RFC 7296 3.7). What others need that
    /// may be at the same place comes before them.
    #[must_use]
    pub fn not_asked_for(&self) -> Vec<(PeerName, usize)> {
        let policies = Policies::new(Arc::new(self.clone()));
        let left_out = |peer: &PeerConfig| {
            let RemoteAuth::Certificate(trust) = &peer.remote_auth else { return 0 };
            let places = places_of(peer).into_iter();
            let at = |place| {
                let Needs { wanted, .. } = policies.needs_at(place);
                trust.anchors.key_hashes().iter().filter(|hash| !wanted.names(hash)).count()
            };
            places.map(at).max().unwrap_or(0)
        };
        let all = self.peers.values().map(|peer| (PeerName::clone(&peer.name), left_out(peer)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::algorithms::Prf;
    use crate::config::{Identity, Start};
    use crate::testing::{peer, policies, protect};

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    /// One of few addresses, or none.
    fn place() -> impl Strategy<Value = Option<IpAddr>> {
        prop::option::of((0..3u8).prop_map(address))
    }

    fn identity() -> impl Strategy<Value = Identity> {
        prop::sample::select(&["a.test", "A.test", "b.test"][..])
            .prop_map(|name| Identity::Fqdn(name.to_owned()))
    }

    /// Our address and the peer's, where else it may be, who it is, and whether its proposals differ.
    type Drawn = (Option<IpAddr>, Option<IpAddr>, Vec<IpAddr>, Identity, bool);

    fn peers() -> impl Strategy<Value = Vec<PeerConfig>> {
        let others = prop::collection::vec((0..3u8).prop_map(address), 0..3);
        let one = (place(), place(), others, identity(), any::<bool>());
        prop::collection::vec(one, 0..12).prop_map(|all| {
            let peer = |(number, (local_address, remote_address, others, remote_id, sha512)): (
                usize,
                Drawn,
            )| {
                let mut peer = peer(&format!("p{number:02}"), "us.test", "a.test", None);
                if sha512 {
                    peer.proposals.iter_mut().for_each(|p| p.prf = vec![Prf::HmacSha512]);
                }
                let other_addresses = if remote_address.is_some() { others } else { Vec::new() };
                PeerConfig { local_address, remote_address, other_addresses, remote_id, ..peer }
            };
            all.into_iter().enumerate().map(peer).collect()
        })
    }

    fn names<'a>(peers: impl Iterator<Item = &'a Arc<PeerConfig>>) -> Vec<&'a PeerName> {
        peers.map(|peer| &peer.name).collect()
    }

    proptest! {
        /// What is found is what a walk over all of them would find.
        #[test]
        fn nobody_is_missed_and_nobody_is_too_many(
            peers in peers(), ours in 0..4u8, theirs in 0..4u8, who in identity(),
        ) {
            let policies = Policies::new(Arc::new(policies(peers, Vec::new())));
            let [local, remote] = [ours, theirs].map(|a| (address(a), 500).into());
            let path = Path { local, remote };
            let fits = |asked: Option<IpAddr>, is: IpAddr| asked.is_none_or(|asked| asked == is);
            let mut all: Vec<_> = policies
                .peers
                .values()
                .filter(|p| fits(p.local_address, local.ip()) && p.may_be_at(remote.ip()))
                .collect();
            // Stable: within one place by name.
            all.sort_by_key(|p| (p.remote_address.is_none(), p.local_address.is_none()));
            prop_assert_eq!(names(policies.candidates(path)), names(all.iter().copied()));
            let (kind, data) = who.to_wire();
            let id = Identification::new(kind, &data);
            let of_id = all.iter().copied().filter(|p| p.remote_id.is(&id));
            prop_assert_eq!(names(policies.identified(path, &id)), names(of_id.clone()));
            prop_assert_eq!(names(policies.perhaps(path, &id)), names(of_id));
            let different = |peers: Vec<&Arc<PeerConfig>>| {
                peers.into_iter().map(|p| p.proposals.clone()).collect::<BTreeSet<_>>()
            };
            prop_assert_eq!(different(policies.proposing(path).flatten().collect()), different(all));
            prop_assert!(policies.proposing(path).flatten().count() <= 4 * 2);
        }
    }

    #[test]
    fn the_rules_of_a_peer_are_found_by_it() {
        let net = "10.0.0.0/8".parse().unwrap();
        let rule = |name: &str, peer: &str| protect(name, peer, net, net, Start::Respond);
        let peers = ["a", "b"].map(|name| peer(name, "us.test", "a.test", None));
        let rules = vec![rule("1", "b"), rule("2", "a"), rule("3", "b")];
        let policies = Policies::new(Arc::new(policies(peers.into(), rules)));
        let of = |peer: &str| {
            policies.rules_of(&peer.into()).map(|(rule, _)| &*rule.name).collect::<Vec<_>>()
        };
        assert_eq!([of("a"), of("b"), of("c")], [vec!["2"], vec!["1", "3"], vec![]]);
    }
}
