//! What a seed makes of two ends: how they prove who they are, what lies between them, which rules
//! they have and how long their SAs live.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::algorithms::{AdditionalOffer, Group, Round};
use gateway_ike::config::{
    Action, EapAuthenticatorConfig, EapMethod, EapPeerConfig, EndpointConfig, LocalAuth,
    PeerConfig, PolicySet, Ppk, RemoteAuth, Renewal, Rule, Secret, Start, User,
};
use gateway_ike::crypto::signature::{KeyKind, SigningKey};
use gateway_ike::crypto::x509::{Credential, Trust};
use gateway_ike::testing::{Faults, NodeId, SeededRandom, Simulation, peer, policies, protect};

use crate::certificates::{Authority, NOW, Subject, key, trust};
use crate::{A, B, NAT};

/// How the two ends prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Psk,
    /// By certificates, with keys that sign the same each time, so that a run can be replayed.
    Certificates,
    /// A by EAP, B by a key. Not by EAP-TLS, whose library draws its own randomness.
    Eap(EapMethod),
}

/// The two ends of one seed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    seed: u64,
    proof: Proof,
    /// A is behind a NAT: B does not know its address, and cannot begin.
    pub(crate) nat: bool,
    fragment_size: usize,
    additional: AdditionalOffer,
    ppk: Option<Ppk>,
    /// When each rule begins, at A and at B.
    starts: Vec<[Start; 2]>,
    /// Whether Child SAs have key exchanges of their own.
    pfs: bool,
    child_lifetime: Duration,
    ike_lifetime: Duration,
    renewal: Renewal,
}

fn one_of<T: Copy>(random: &mut SeededRandom, choices: &[T]) -> T {
    choices[usize::try_from(random.below(u64::try_from(choices.len()).unwrap())).unwrap()]
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = SeededRandom::new(seed ^ 0x706c_616e);
        let random = &mut random;
        let proof = match random.below(10) {
            0..5 => Proof::Psk,
            5..7 => Proof::Certificates,
            7..9 => Proof::Eap(EapMethod::MsChapV2),
            _ => Proof::Eap(EapMethod::Md5),
        };
        let nat = random.percent(30);
        let mut additional = AdditionalOffer::new();
        if random.percent(30) {
            additional.insert(Round::Ke1, vec![Some(Group::MlKem768)]);
            if random.percent(30) {
                additional.insert(Round::Ke3, vec![Some(Group::MlKem1024), None]);
            }
        }
        // The policy files allow no PPK beside EAP.
        let is_eap = matches!(proof, Proof::Eap(_));
        let ppk = (!is_eap && random.percent(20)).then(|| {
            let (id, key) = (b"ppk".to_vec(), Secret::new(vec![7; 32]));
            Ppk { id, key, required: seed.is_multiple_of(2) }
        });
        let b_begins = !nat && !is_eap;
        let starts = (0..1 + random.below(3))
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
        Self {
            seed,
            proof,
            nat,
            fragment_size: one_of(random, &[200, 1280, 1280, 0]),
            additional,
            ppk,
            starts,
            pfs: random.percent(40),
            child_lifetime: Duration::from_secs(one_of(random, &[0, 0, 10, 60])),
            ike_lifetime: Duration::from_secs(one_of(random, &[0, 0, 20, 90])),
            renewal: one_of(random, &[Renewal::Rekey, Renewal::Rekey, Renewal::Reauthenticate]),
        }
    }

    /// The two ends with all their rules, and nothing done yet.
    pub(crate) fn begin(&self, faults: Faults) -> Simulation {
        let config =
            EndpointConfig { fragment_size: self.fragment_size, ..EndpointConfig::default() };
        let mut simulation = Simulation::with_config(&[A, B], &config, faults, self.seed);
        if self.nat {
            self.translate(&mut simulation, 0);
        }
        for node in [1, 0] {
            self.configure(&mut simulation, node, &self.rules().collect());
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

    /// The numbers of the rules.
    pub(crate) fn rules(&self) -> core::ops::Range<usize> {
        0..self.starts.len()
    }

    /// Gives a node its policies, with some of the rules.
    pub(crate) fn configure(
        &self,
        simulation: &mut Simulation,
        node: NodeId,
        present: &BTreeSet<usize>,
    ) {
        simulation.input(node, Input::WallClock(NOW));
        simulation.configure(node, self.policies(node, present));
    }

    fn policies(&self, node: NodeId, present: &BTreeSet<usize>) -> PolicySet {
        let mut set = policies(
            vec![self.peer(node)],
            present.iter().map(|nth| self.rule(node, *nth)).collect(),
        );
        if node == 1 && matches!(self.proof, Proof::Eap(_)) {
            let user = User { name: "a.test".into(), password: password() };
            set.users.insert("a.test".into(), Arc::new(user));
        }
        set
    }

    fn peer(&self, node: NodeId) -> PeerConfig {
        let (us, them) = if node == 0 { ("a.test", "b.test") } else { ("b.test", "a.test") };
        let remote = if node == 0 { Some(B) } else { Some(A).filter(|_| !self.nat) };
        // A peer is asked whether it lives: without that, an end whose last answer was lost for
        // good would hold an SA that the other has given up.
        let mut peer = PeerConfig {
            liveness_interval: Duration::from_secs(20),
            lifetime: self.ike_lifetime,
            renewal: self.renewal,
            ppk: self.ppk.clone(),
            ..peer("other", us, them, remote)
        };
        peer.proposals[0].additional.clone_from(&self.additional);
        match self.proof {
            Proof::Psk => {}
            Proof::Certificates => {
                let (credentials, trust) = certificates();
                peer.local_auth = LocalAuth::Certificate(Arc::clone(&credentials[node]));
                peer.remote_auth = RemoteAuth::Certificate(Arc::clone(trust));
            }
            Proof::Eap(method) if node == 0 => {
                peer.local_auth = LocalAuth::Eap(Arc::new(EapPeerConfig {
                    identity: us.to_owned(),
                    methods: vec![method],
                    password: Some(password()),
                    tls: None,
                    authenticator: peer.remote_id.clone(),
                }));
            }
            Proof::Eap(method) => {
                peer.remote_auth = RemoteAuth::Eap(Arc::new(EapAuthenticatorConfig {
                    methods: vec![method],
                    tls: None,
                    ask_identity: self.seed.is_multiple_of(2),
                    any_ike_identity: false,
                }));
            }
        }
        peer
    }

    fn rule(&self, node: NodeId, nth: usize) -> Rule {
        let net = |site: usize| format!("10.{}.{nth}.0/24", site + 1).parse().unwrap();
        let name = Self::name(nth);
        let start = self.starts[nth][node];
        let mut rule = protect(&name, "other", net(node), net(1 - node), start);
        let Action::Protect(protect) = &mut rule.action else { return rule };
        protect.lifetime.time = self.child_lifetime;
        if self.pfs {
            protect.proposals[0].groups = vec![Group::X25519, Group::EcpP256];
        }
        rule
    }

    /// The name of a rule, at both ends.
    pub(crate) fn name(nth: usize) -> String {
        format!("rule-{nth}")
    }

    /// Whether a rule is to be up whatever has happened.
    pub(crate) fn is_always(&self, nth: usize) -> bool {
        self.starts[nth].contains(&Start::Always)
    }
}

fn password() -> Secret {
    Secret::new(b"correct horse".to_vec())
}

/// Certificates of A and B, and trust in who issued them.
fn certificates() -> &'static ([Arc<Credential>; 2], Arc<Trust>) {
    static ONCE: OnceLock<([Arc<Credential>; 2], Arc<Trust>)> = OnceLock::new();
    ONCE.get_or_init(|| {
        let root = Authority::with_key("Root", KeyKind::Ed25519);
        let credential = |name| {
            let subject = Subject::new(name, KeyKind::Ed25519);
            let key = SigningKey::from_pem(key(subject.key)).unwrap();
            Arc::new(Credential::new(root.issue(&subject), key).unwrap())
        };
        ([credential("a.test"), credential("b.test")], Arc::new(trust(&root)))
    })
}
