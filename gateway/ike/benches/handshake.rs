//! What one responder handshake costs, beside the sum of its primitives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use gateway_ike::algorithms::{AdditionalOffer, Group, Round};
use gateway_ike::config::{EndpointConfig, PeerConfig, PolicySet, Start};
use gateway_ike::crypto::key_exchange::SystemKeyExchange;
use gateway_ike::io::{Done, KernelCommand, KernelEvent, Path, REQIDS};
use gateway_ike::random::SystemSource;
use gateway_ike::testing::{peer, policies, protect};
use gateway_ike::{Endpoint, Input, Output};

mod common;

/// One host under the bench: its endpoint, and what it has to say to the other.
struct Host {
    endpoint: Endpoint,
    address: std::net::IpAddr,
}

impl Host {
    fn new(address: [u8; 4], policies: PolicySet) -> Self {
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Box::new(SystemSource::default()),
            Box::new(SystemKeyExchange),
        );
        let mut host = Self { endpoint, address: address.into() };
        host.input(now(), Input::Policies(Arc::new(policies)));
        host
    }

    /// Hands in one input, answers the kernel's part at once, and gives what is sent.
    fn input(&mut self, now: Instant, input: Input<'_>) -> Vec<(Path, Vec<u8>)> {
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
                Output::Event(_) | Output::Keepalive { .. } => {}
            }
        }
        sent
    }

    fn receive(&mut self, now: Instant, sent: &[(Path, Vec<u8>)]) -> Vec<(Path, Vec<u8>)> {
        let mut answers = Vec::new();
        for (path, octets) in sent {
            let path = Path { local: path.remote, remote: path.local };
            answers.extend(self.input(now, Input::Datagram { path, octets }));
        }
        answers
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

const A: [u8; 4] = [192, 0, 2, 1];
const B: [u8; 4] = [192, 0, 2, 2];

/// The peer of a host, with X25519 and these additional methods.
fn peer_with(
    name: &str,
    ids: [&str; 2],
    address: [u8; 4],
    additional: &AdditionalOffer,
) -> PeerConfig {
    let mut peer = peer(name, ids[0], ids[1], Some(address.into()));
    for proposal in &mut peer.proposals {
        proposal.additional.clone_from(additional);
    }
    peer
}

/// One handshake; gives the time that the responder took.
fn handshake(additional: &AdditionalOffer) -> Option<Duration> {
    let (a_net, b_net) = ("10.1.0.0/24".parse().ok()?, "10.2.0.0/24".parse().ok()?);
    let initiators = policies(
        vec![peer_with("b", ["a.test", "b.test"], B, additional)],
        vec![protect("to-b", "b", a_net, b_net, Start::OnDemand)],
    );
    let responders = policies(
        vec![peer_with("a", ["b.test", "a.test"], A, additional)],
        vec![protect("to-a", "a", b_net, a_net, Start::Respond)],
    );
    let (mut initiator, mut responder) = (Host::new(A, initiators), Host::new(B, responders));
    let start = now();
    let traffic = KernelEvent::Acquire {
        reqid: *REQIDS.start(),
        seq: 1,
        source: A.into(),
        destination: B.into(),
        protocol: 1,
        source_port: 0,
        destination_port: 0,
    };
    let mut request = initiator.input(start, Input::Kernel(traffic));
    let mut took = Duration::ZERO;
    while !request.is_empty() {
        let begin = now();
        let answer = responder.receive(start, &request);
        took = took.saturating_add(now().saturating_duration_since(begin));
        request = initiator.receive(start, &answer);
    }
    // What is measured must be a handshake that came to its end.
    let status = initiator.endpoint.status(start);
    let sa = status.ike_sas.first()?;
    let agreed = sa.suite?.additional.iter().count() == additional.len();
    (sa.children.len() == 1 && agreed).then_some(took)
}

#[expect(clippy::expect_used, reason = "a failure must stop the bench")]
fn responder_handshake(c: &mut Criterion) {
    let classic = AdditionalOffer::new();
    let hybrid = AdditionalOffer::from([(Round::Ke1, vec![Some(Group::MlKem768)])]);
    for (name, additional, method) in [
        ("responder_handshake_x25519_psk", classic, None),
        ("responder_handshake_x25519_mlkem768_psk", hybrid, Some(Group::MlKem768)),
    ] {
        let mut group = c.benchmark_group(name);
        let floor = common::Floor::new(method);
        group.bench_function("floor", |b| b.iter(|| floor.run()));
        group.bench_function("endpoint", |b| {
            b.iter_custom(|count| {
                let time = |_| handshake(&additional).expect("a handshake that comes to its end");
                (0..count).map(time).fold(Duration::ZERO, Duration::saturating_add)
            });
        });
        group.finish();
    }
}

criterion_group!(benches, responder_handshake);
criterion_main!(benches);
