//! What a seed, or the input of the fuzz target `endpoint`, makes of two ends: what lies between them, what each wants and has negotiated, and
//! how long their SAs live. How they prove who they are is in `proof`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::algorithms::{AdditionalOffer, Encryption, Group, Integrity, Round};
use gateway_ike::config::{
    Action, Childless, EndpointConfig, Families, Mode, PeerConfig, PolicySet, Pool, Ppk, Renewal,
    Rule, Secret, Start,
};
use gateway_ike::testing::{
    Choices, Faults, NodeId, SeededRandom, Simulation, peer, policies, protect,
};
use ipnet::IpNet;

use crate::proof::Proof;
use crate::{A, B, NAT};

/// Where else A and B may be.
pub(crate) const OTHERS: [[IpAddr; 3]; 2] = [
    [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11)),
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 11)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    ],
    [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 12)),
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 12)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
    ],
];

/// The two ends of one seed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    seed: u64,
    pub(crate) proof: Proof,
    /// A is behind a NAT: B does not know its address, and cannot begin.
    pub(crate) nat: bool,
    /// Both ends speak MOBIKE, and B does not know where A is.
    pub(crate) mobike: bool,
    /// B assigns A its addresses, of these families.
    pool: Families,
    /// The first rule is for the two ends' own packets.
    transport: bool,
    /// B has less behind it than A believes: two parts of each prefix.
    narrower: bool,
    /// The limits of both ends.
    pub(crate) config: EndpointConfig,
    /// IKE and ESP by AES-CBC with HMAC.
    cbc: bool,
    /// A offers a KE payload that B does not take (RFC 7296 1.3).
    groups_differ: bool,
    additional: AdditionalOffer,
    quantum_safe: bool,
    ppk: Option<Ppk>,
    /// When each rule begins, at A and at B.
    starts: Vec<[Start; 2]>,
    /// Whether Child SAs have key exchanges of their own.
    pfs: bool,
    additional_of_children: AdditionalOffer,
    child_lifetime: Duration,
    ike_lifetime: Duration,
    renewal: Renewal,
    /// Whether IKE_AUTH leaves the first Child SA out, at both ends.
    childless: Childless,
}

/// What the operator of one end wants at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The numbers of the rules that it has.
    pub(crate) rules: BTreeSet<usize>,
    /// The certificate has been renewed.
    pub(crate) renewed: bool,
    /// Something else of the peer is not as it was, so that what stands has to go.
    pub(crate) changed: bool,
}

fn one_of<T: Copy>(random: &mut impl Choices, choices: &[T]) -> T {
    choices[usize::try_from(random.below(u64::try_from(choices.len()).unwrap())).unwrap()]
}

/// Additional key exchanges: mostly none.
fn additional(random: &mut impl Choices, percent: u64, group: Group) -> AdditionalOffer {
    let mut rounds = AdditionalOffer::new();
    if random.percent(percent) {
        rounds.insert(Round::Ke1, vec![Some(group)]);
        if random.percent(30) {
            rounds.insert(Round::Ke3, vec![Some(Group::MlKem1024), None]);
        }
    }
    rounds
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        Self::draw(seed, &mut SeededRandom::new(seed ^ 0x706c_616e))
    }

    /// What is chosen so; `seed` is for all that happens later.
    pub(crate) fn draw(seed: u64, random: &mut impl Choices) -> Self {
        let proof = Proof::draw(random);
        let nat = random.percent(25);
        let mobike = random.percent(35);
        let pool = if random.percent(20) {
            Families { v4: true, v6: random.percent(50) }
        } else {
            Families::default()
        };
        let additional_of_ike = additional(random, 30, Group::MlKem768);
        let ppk = random.percent(20).then(|| {
            let (id, key) = (b"ppk".to_vec(), Secret::new(vec![7; 32]));
            Ppk { id, key, required: seed.is_multiple_of(2) }
        });
        let b_begins = !nat && !mobike && pool.is_empty() && proof.b_may_begin();
        let starts: Vec<_> = (0..1 + random.below(3))
            .map(|_| {
                let a = one_of(random, &[Start::Always, Start::OnDemand]);
                let of_b: &[_] = if b_begins {
                    &[Start::Always, Start::OnDemand, Start::Respond]
                } else {
                    &[Start::Respond]
                };
                [a, one_of(random, of_b)]
            })
            .collect();
        let pfs = random.percent(40);
        let default = EndpointConfig::default();
        let config = EndpointConfig {
            fragment_size: one_of(random, &[200, 1280, 1280, 0]),
            // In some runs everybody must show by a cookie to be there.
            cookie_threshold: one_of(random, &[0, default.cookie_threshold]),
            // In some there is room for just as much as is needed, and both ends may need the same.
            peer_ike_sa_limit: one_of(random, &[2, 64, 64, 64]),
            child_sa_limit: one_of(random, &[2 * starts.len() + 1, 256, 256, 256]),
            ..default
        };
        Self {
            seed,
            proof,
            nat,
            mobike,
            pool,
            transport: pool.is_empty()
                && if nat { !mobike && seed.is_multiple_of(3) } else { random.percent(20) },
            narrower: pool.is_empty() && seed % 5 == 3,
            config,
            cbc: random.percent(20),
            groups_differ: random.percent(20),
            quantum_safe: !additional_of_ike.is_empty() && random.percent(30),
            additional: additional_of_ike,
            ppk,
            starts,
            pfs,
            additional_of_children: additional(random, if pfs { 30 } else { 0 }, Group::MlKem512),
            child_lifetime: Duration::from_secs(one_of(random, &[0, 0, 10, 60])),
            ike_lifetime: Duration::from_secs(one_of(random, &[0, 0, 20, 90])),
            renewal: one_of(random, &[Renewal::Rekey, Renewal::Rekey, Renewal::Reauthenticate]),
            childless: {
                use Childless::{Never, Prefer, Require};
                one_of(random, &[Never, Never, Prefer, Require])
            },
        }
    }

    /// The two ends, with nothing to do yet.
    pub(crate) fn begin(&self, faults: Faults) -> Simulation {
        let mut simulation = Simulation::with_config(&[A, B], &self.config, faults, self.seed);
        if self.nat {
            self.translate(&mut simulation, 0);
        }
        simulation
    }

    /// The NAT forgets all that it knew, and has another address.
    pub(crate) fn translate(&self, simulation: &mut Simulation, nth: u8) {
        let IpAddr::V4(nat) = NAT else { return };
        let [a, b, c, d] = nat.octets();
        let outside = Ipv4Addr::new(a, b, c, d.wrapping_add(nth % 4));
        // Some NATs forget soon, so that keepalives are needed, and some keepalives are lost.
        let lifetime = if self.seed.is_multiple_of(2) { 30 } else { 600 };
        simulation.network.translate_for(A, outside.into(), Duration::from_secs(lifetime));
    }

    /// Whether nothing is replaced because of its age.
    pub(crate) fn is_lasting(&self) -> bool {
        self.child_lifetime.is_zero() && self.ike_lifetime.is_zero()
    }

    /// The addresses that an end has in the beginning, and has again in the end.
    pub(crate) fn home(&self, node: NodeId) -> Vec<IpAddr> {
        // Of B, A knows one address from the beginning, and hears of the others.
        let others = if self.mobike && node == 1 { 1 } else { 0 };
        [&[[A, B][node]], &OTHERS[node][..others]].concat()
    }

    /// The numbers of the rules.
    pub(crate) fn rules(&self) -> core::ops::Range<usize> {
        0..self.starts.len()
    }

    /// What both ends want in the beginning, and again in the end.
    pub(crate) fn wishes(&self) -> Wishes {
        Wishes { rules: self.rules().collect(), renewed: false, changed: false }
    }

    /// The policies of a node whose operator wants that.
    pub(crate) fn policies(&self, node: NodeId, wishes: &Wishes) -> PolicySet {
        let rules = wishes.rules.iter().map(|nth| self.rule(node, *nth)).collect();
        let mut set = policies(vec![self.peer(node, wishes)], rules);
        set.users = self.proof.users(node);
        set
    }

    fn peer(&self, node: NodeId, wishes: &Wishes) -> PeerConfig {
        let (us, them) = if node == 0 { ("a.test", "b.test") } else { ("b.test", "a.test") };
        let unknown = self.nat || self.mobike || !self.pool.is_empty();
        let remote = if node == 0 { Some(B) } else { Some(A).filter(|_| !unknown) };
        // A peer is asked whether it lives: without that, an end whose last answer was lost for
        // good would hold an SA that the other has given up.
        let mut peer = PeerConfig {
            liveness_interval: Duration::from_secs(if wishes.changed { 25 } else { 20 }),
            lifetime: self.ike_lifetime,
            renewal: self.renewal,
            mobike: self.mobike,
            childless: self.childless,
            ppk: self.ppk.clone(),
            ..peer("other", us, them, remote)
        };
        let proposal = &mut peer.proposals[0];
        proposal.additional.clone_from(&self.additional);
        if self.cbc {
            proposal.encryption = vec![Encryption::Aes256Cbc];
            proposal.integrity = vec![Integrity::HmacSha256];
        }
        if self.groups_differ && node == 1 {
            proposal.groups = vec![Group::EcpP256];
        }
        if node == 0 {
            peer.request_address = self.pool;
        } else if !self.pool.is_empty() {
            // Of the size of a host's need, so that whoever is forgotten in it is in the way.
            let pools = if wishes.changed {
                ["10.9.0.4/30", "fd00:9::10/126"]
            } else {
                ["10.9.0.0/30", "fd00:9::/126"]
            };
            let addresses = pools.map(|net| net.parse().unwrap()).to_vec();
            peer.pool = Some(Arc::new(Pool { name: "pool".into(), addresses, dns: vec![B] }));
        }
        self.proof.apply(&mut peer, node, wishes.renewed);
        peer
    }

    fn rule(&self, node: NodeId, nth: usize) -> Rule {
        let name = Self::name(nth);
        let (local, remote) = self.nets(node, nth);
        let start = self.starts[nth][node];
        let mut rule =
            Rule { local, remote, ..protect(&name, "other", net("::/0"), net("::/0"), start) };
        rule.assigned = node == 0 && !self.pool.is_empty();
        if self.has_ports(nth) {
            rule.protocol = Some(6);
            let (ours, theirs) =
                if node == 0 { (1024..=65535, 443..=444) } else { (443..=444, 1024..=65535) };
            (rule.local_ports, rule.remote_ports) = (ours, theirs);
        }
        let Action::Protect(protect) = &mut rule.action else { return rule };
        protect.lifetime.time = self.child_lifetime;
        protect.quantum_safe = self.quantum_safe;
        if self.is_transport(nth) {
            protect.mode = Mode::Transport;
        }
        let proposal = &mut protect.proposals[0];
        if self.cbc {
            proposal.encryption = vec![Encryption::Aes256Cbc];
            proposal.integrity = vec![Integrity::HmacSha256];
        }
        if self.pfs {
            proposal.groups = vec![Group::X25519, Group::EcpP256];
            proposal.additional.clone_from(&self.additional_of_children);
            if self.groups_differ && node == 1 {
                proposal.groups = vec![Group::EcpP256];
            }
        }
        rule
    }

    /// Whether a rule is for some ports of TCP.
    fn has_ports(&self, nth: usize) -> bool {
        self.seed.is_multiple_of(4) && nth > 0 && nth + 1 == self.starts.len()
    }

    /// The prefixes on our and on the other side.
    fn nets(&self, node: NodeId, nth: usize) -> (Vec<IpNet>, Vec<IpNet>) {
        let site = |site: usize| {
            if self.is_transport(nth) {
                // What B sees of A, whatever address the NAT has at the moment.
                let translated = self.nat && (site, node) == (0, 1);
                return vec![if translated { net("198.51.100.0/24") } else { [A, B][site].into() }];
            }
            if self.narrower && (site, node) == (1, 1) {
                return PARTS.map(|part| net(&format!("10.2.{nth}.{part}"))).to_vec();
            }
            if self.pool.is_empty() {
                return vec![net(&format!("10.{}.{nth}.0/24", site + 1))];
            }
            // What A is assigned; it does not know what that will be.
            let nets = match (site, node) {
                (0, 0) => [net("0.0.0.0/0"), net("::/0")],
                (0, _) => [net("10.9.0.0/24"), net("fd00:9::/64")],
                _ => [net(&format!("10.2.{nth}.0/24")), net(&format!("fd00:2:0:{nth}::/64"))],
            };
            nets.into_iter().filter(|net| self.pool.contain(net.addr())).collect()
        };
        (site(node), site(1 - node))
    }

    /// Addresses of a packet of A that may, or may not, be for what B has of it.
    pub(crate) fn packet(&self, nth: usize, random: &mut impl Choices) -> Option<[IpAddr; 2]> {
        if !self.narrower || self.is_transport(nth) {
            return None;
        }
        let address = |text: String| text.parse().unwrap();
        let to = one_of(random, &[5, 200, 150]);
        Some([address(format!("10.1.{nth}.1")), address(format!("10.2.{nth}.{to}"))])
    }

    /// Whether a rule is for the two ends' own packets.
    fn is_transport(&self, nth: usize) -> bool {
        self.transport && nth == 0
    }

    /// The name of a rule, at both ends.
    pub(crate) fn name(nth: usize) -> String {
        format!("rule-{nth}")
    }

    /// Whether a rule is to be up whatever has happened.
    pub(crate) fn is_always(&self, nth: usize) -> bool {
        // Who moves has the addresses of transport mode no more.
        let stays = !self.is_transport(nth) || !self.mobike;
        stays && self.starts[nth].contains(&Start::Always)
    }
}

/// What B has of a prefix of which A believes that B has it all.
const PARTS: [&str; 2] = ["0/25", "192/26"];

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}
