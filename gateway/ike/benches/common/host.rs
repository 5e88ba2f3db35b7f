//! Hosts that shake hands: endpoints whose kernel says yes to everything.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use gateway_ike::algorithms::{AdditionalOffer, Group, Round};
use gateway_ike::config::{
    EndpointConfig, LocalAuth, PeerConfig, PolicySet, RemoteAuth, Rule, Start,
};
use gateway_ike::crypto::key_exchange::SystemKeyExchange;
use gateway_ike::crypto::signature::{KeyKind, SigningKey};
use gateway_ike::crypto::x509::{Credential, Trust};
use gateway_ike::io::{Done, KernelCommand, KernelEvent, Path, REQIDS};
use gateway_ike::random::SystemSource;
use gateway_ike::testing::{peer, policies, protect};
use gateway_ike::{Endpoint, Input, Output};

use super::certificates::{Authority, NOW, Subject, key, trust};

/// One host under the bench: its endpoint, and what it has to say to the other.
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    address: IpAddr,
}

impl Host {
    /// One of many that initiate.
    pub(crate) fn initiator(nth: u16, policies: PolicySet) -> Self {
        Self::new(address(nth), policies)
    }

    /// The one that responds.
    pub(crate) fn responder(policies: PolicySet) -> Self {
        Self::new(RESPONDER, policies)
    }

    fn new(address: [u8; 4], policies: PolicySet) -> Self {
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Box::new(SystemSource::default()),
            Box::new(SystemKeyExchange),
        );
        let mut host = Self { endpoint, address: address.into() };
        host.input(now(), Input::WallClock(NOW));
        host.input(now(), Input::Policies(Arc::new(policies)));
        host
    }

    /// Hands in one input, answers the kernel's part at once, and gives what is sent.
    pub(crate) fn input(&mut self, now: Instant, input: Input<'_>) -> Vec<(Path, Vec<u8>)> {
        self.endpoint.handle(now, input);
        let mut sent = Vec::new();
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { path, octets } => sent.push((path, octets)),
                Output::Kernel(id, command) => {
                    let local = matches!(command, KernelCommand::FindLocalAddress { .. });
                    let done = if local { Done::LocalAddress(self.address) } else { Done::Ok };
                    self.endpoint.handle(now, Input::CommandDone(id, Ok(done)));
                }
                Output::Event(_)
                | Output::Keepalive { .. }
                | Output::Expect { .. }
                | Output::ExpectNoMore { .. }
                | Output::Cookies(_) => {}
            }
        }
        // Whoever hands in asks.
        black_box(self.endpoint.next_timeout());
        sent
    }

    pub(crate) fn receive(
        &mut self,
        now: Instant,
        sent: &[(Path, Vec<u8>)],
    ) -> Vec<(Path, Vec<u8>)> {
        let mut answers = Vec::new();
        for (path, octets) in sent {
            let path = Path { local: path.remote, remote: path.local };
            answers.extend(self.input(now, Input::Datagram { path, octets }));
        }
        answers
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

const RESPONDER: [u8; 4] = [192, 0, 2, 2];

/// Where an initiator is.
const fn address(nth: u16) -> [u8; 4] {
    let [high, low] = nth.to_be_bytes();
    [198, 18, high, low]
}

/// How the responder finds the peer that an initiator is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found {
    /// Each is configured with its address.
    ByAddress,
    /// Each may be anywhere, and is known by the identity that it proves.
    ByIdentity,
}

pub(crate) const WHERE: [Found; 2] = [Found::ByAddress, Found::ByIdentity];

impl Found {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ByAddress => "by_address",
            Self::ByIdentity => "by_identity",
        }
    }
}

/// What a handshake is made of, beside X25519 and AES-256-GCM.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// An additional key exchange with ML-KEM-768.
    pub(crate) mlkem: bool,
    /// Certificates with P-256 at both ends, issued by the root that is trusted; or else a key.
    pub(crate) ecdsa: bool,
}

pub(crate) const KINDS: [Kind; 4] = [
    Kind { name: "x25519_psk", mlkem: false, ecdsa: false },
    Kind { name: "x25519_mlkem768_psk", mlkem: true, ecdsa: false },
    Kind { name: "x25519_ecdsa", mlkem: false, ecdsa: true },
    Kind { name: "x25519_mlkem768_ecdsa", mlkem: true, ecdsa: true },
];

fn root() -> &'static (Authority, Arc<Trust>) {
    static ROOT: OnceLock<(Authority, Arc<Trust>)> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = Authority::new("Root");
        let trust = Arc::new(trust(&root));
        (root, trust)
    })
}

/// A certificate for a name, and trust in who issued it.
pub(crate) fn certified(name: &str) -> (Arc<Credential>, Arc<Trust>) {
    static B: OnceLock<Arc<Credential>> = OnceLock::new();
    let (root, trust) = root();
    let issue = || {
        // For as long as the program runs, as those of the tests are.
        let subject = Subject::new(String::leak(name.to_owned()), KeyKind::P256);
        let key = SigningKey::from_pem(key(subject.key)).unwrap();
        Arc::new(Credential::new(root.issue(&subject), key).unwrap())
    };
    let credential = if name == "b.test" { Arc::clone(B.get_or_init(issue)) } else { issue() };
    (credential, Arc::clone(trust))
}

impl Kind {
    fn peer(self, name: &str, us: &str, them: &str, at: Option<[u8; 4]>) -> PeerConfig {
        let mut peer = peer(name, us, them, at.map(IpAddr::from));
        if self.mlkem {
            let offer = AdditionalOffer::from([(Round::Ke1, vec![Some(Group::MlKem768)])]);
            for proposal in &mut peer.proposals {
                proposal.additional.clone_from(&offer);
            }
        }
        if self.ecdsa {
            let (credential, trust) = certified(us);
            peer.local_auth = LocalAuth::Certificate(credential);
            peer.remote_auth = RemoteAuth::Certificate(trust);
        }
        peer
    }

    /// One of many initiators.
    pub(crate) fn initiator(self, nth: u16) -> PolicySet {
        let peer = self.peer("b", &name(nth), "b.test", Some(RESPONDER));
        policies(vec![peer], vec![rule("to-b", "b", site(nth), CENTRE, Start::OnDemand)])
    }

    /// The responder of so many.
    pub(crate) fn responder(self, count: u16, found: Found) -> PolicySet {
        let peer = |nth| {
            let at = match found {
                Found::ByAddress => Some(address(nth)),
                Found::ByIdentity => None,
            };
            self.peer(&name(nth), "b.test", &name(nth), at)
        };
        let rules = (0..count)
            .map(|n| rule(&format!("to-{}", name(n)), &name(n), CENTRE, site(n), Start::Respond));
        policies((0..count).map(peer).collect(), rules.collect())
    }
}

/// The prefix behind the responder.
const CENTRE: [u8; 3] = [172, 16, 0];

/// The prefix behind an initiator.
const fn site(nth: u16) -> [u8; 3] {
    let [high, low] = nth.to_be_bytes();
    [10, high, low]
}

fn name(nth: u16) -> String {
    format!("a{nth}.test")
}

fn rule(name: &str, peer: &str, local: [u8; 3], remote: [u8; 3], start: Start) -> Rule {
    let net = |[a, b, c]: [u8; 3]| format!("{a}.{b}.{c}.0/24").parse().unwrap();
    protect(name, peer, net(local), net(remote), start)
}

/// One handshake; gives the time that the responder took. What is measured must be a handshake
/// that came to its end.
pub(crate) fn handshake(kind: Kind, initiator: &mut Host, responder: &mut Host) -> Duration {
    let start = now();
    let traffic = KernelEvent::Acquire {
        reqid: *REQIDS.start(),
        seq: 1,
        source: initiator.address,
        destination: responder.address,
        protocol: 1,
        source_port: 0,
        destination_port: 0,
    };
    let took = converse(start, initiator, responder, Input::Kernel(traffic));
    let status = initiator.endpoint.status(start);
    let sa = status.ike_sas.first().unwrap();
    let rounds = sa.suite.unwrap().additional.iter().count();
    assert_eq!((sa.children.len(), rounds), (1, usize::from(kind.mlkem)));
    took
}

/// Something happens to the initiator, and both go on until neither has a word to say. Gives the
/// time that the responder took.
pub(crate) fn converse(
    start: Instant,
    initiator: &mut Host,
    responder: &mut Host,
    input: Input<'_>,
) -> Duration {
    let mut request = initiator.input(start, input);
    let mut took = Duration::ZERO;
    while !request.is_empty() {
        let begin = now();
        let answer = responder.receive(start, &request);
        took = took.saturating_add(now().saturating_duration_since(begin));
        request = initiator.receive(start, &answer);
    }
    took
}
