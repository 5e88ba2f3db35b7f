//! What one responder handshake costs, beside the sum of its primitives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use gateway_ike::config::{EndpointConfig, PolicySet, Start};
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
    fn input(&mut self, now: Instant, input: Input<'_>) -> Option<(Path, Vec<u8>)> {
        self.endpoint.handle(now, input);
        let mut sent = None;
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { path, octets } => sent = Some((path, octets)),
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

    fn receive(&mut self, now: Instant, sent: &(Path, Vec<u8>)) -> Option<(Path, Vec<u8>)> {
        let path = Path { local: sent.0.remote, remote: sent.0.local };
        self.input(now, Input::Datagram { path, octets: &sent.1 })
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

const A: [u8; 4] = [192, 0, 2, 1];
const B: [u8; 4] = [192, 0, 2, 2];

/// One handshake; gives the time that the responder took.
fn handshake() -> Option<Duration> {
    let (a_net, b_net) = ("10.1.0.0/24".parse().ok()?, "10.2.0.0/24".parse().ok()?);
    let initiators = policies(
        vec![peer("b", "a.test", "b.test", Some(B.into()))],
        vec![protect("to-b", "b", a_net, b_net, Start::OnDemand)],
    );
    let responders = policies(
        vec![peer("a", "b.test", "a.test", Some(A.into()))],
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
    let init = initiator.input(start, Input::Kernel(traffic))?;
    let begin = now();
    let answer = responder.receive(start, &init)?;
    let mut took = now().saturating_duration_since(begin);
    let auth = initiator.receive(start, &answer)?;
    let begin = now();
    let answer = responder.receive(start, &auth)?;
    took = took.saturating_add(now().saturating_duration_since(begin));
    initiator.receive(start, &answer);
    // What is measured must be a handshake that came to its end.
    let status = initiator.endpoint.status(start);
    let children = status.ike_sas.first().map(|sa| sa.children.len());
    (children == Some(1)).then_some(took)
}

#[expect(clippy::expect_used, reason = "what comes to no end must not be measured")]
fn responder_handshake(c: &mut Criterion) {
    let mut group = c.benchmark_group("responder_handshake_x25519_psk");
    let floor = common::Floor::new();
    group.bench_function("floor", |b| b.iter(|| floor.run()));
    group.bench_function("endpoint", |b| {
        b.iter_custom(|count| {
            let time = |_| handshake().expect("a handshake that comes to its end");
            (0..count).map(time).fold(Duration::ZERO, Duration::saturating_add)
        });
    });
    group.finish();
}

criterion_group!(benches, responder_handshake);
criterion_main!(benches);
