//! Two endpoints that talk to each other while somebody between them does what the input says:
//! sends octets of his own, repeats, changes, cuts and withholds theirs, and lets time pass.
//!
//! The first octet chooses the setup, each further one an operation; the operation takes its
//! arguments from the octets that follow. See [`Fuzz::step`].
#![no_main]

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use gateway_ike::Input;
use gateway_ike::algorithms::{Encryption, Integrity};
use gateway_ike::config::{
    Action, EapAuthenticatorConfig, EapMethod, EapPeerConfig, EndpointConfig, LocalAuth,
    PeerConfig, RemoteAuth, SMALLEST_FRAGMENT, Secret, Start, User,
};
use gateway_ike::counters::Counter;
use gateway_ike::io::{KernelError, KernelEvent, Path};
use gateway_ike::testing::{Faults, Forge, Refusal, Simulation, peer, policies, protect};
use gateway_wire::{Header, MessageId};
use libfuzzer_sys::fuzz_target;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const NAT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const EVE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
/// Operations in one run, so that none takes long.
const STEPS: usize = 96;
/// Datagrams that a message is cut into at most, with the smallest fragments.
const FRAGMENTS: usize = 4;
/// Offset of the exchange type in the IKE header, and the one that is open to everybody.
const EXCHANGE: usize = 18;
const IKE_SA_INIT: u8 = 34;

fuzz_target!(|input: &[u8]| {
    let mut octets = Octets(input);
    let mut fuzz = Fuzz::new(octets.one());
    for _ in 0..STEPS {
        if octets.0.is_empty() {
            break;
        }
        fuzz.step(&mut octets);
        fuzz.check();
    }
});

/// What is left of the input; zeros follow it.
struct Octets<'a>(&'a [u8]);

impl Octets<'_> {
    fn one(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn two(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.one(), self.one()]))
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}

/// A shows by EAP who it is: by MSCHAPv2, or by MD5 after its name has been asked for. EAP-TLS
/// draws randomness of its own, and a run could not be repeated.
fn by_eap(peer: &mut PeerConfig, node: usize, md5: bool) {
    let methods = vec![if md5 { EapMethod::Md5 } else { EapMethod::MsChapV2 }];
    if node == 0 {
        peer.local_auth = LocalAuth::Eap(Arc::new(EapPeerConfig {
            identity: "a".to_owned(),
            methods,
            password: Some(password()),
            tls: None,
            authenticator: peer.remote_id.clone(),
        }));
    } else {
        peer.remote_auth = RemoteAuth::Eap(Arc::new(EapAuthenticatorConfig {
            methods,
            tls: None,
            ask_identity: md5,
            any_ike_identity: false,
        }));
    }
}

fn password() -> Secret {
    Secret::new(b"correct horse".to_vec())
}

struct Fuzz {
    simulation: Simulation,
    /// Everything that was done so far and may have begun an IKE SA.
    done: usize,
    /// A flood's next initiator SPI.
    next_spi: u64,
}

impl Fuzz {
    fn new(setup: u8) -> Self {
        let fragment_size = if setup & 32 != 0 { SMALLEST_FRAGMENT } else { 1280 };
        let config = EndpointConfig { fragment_size, ..EndpointConfig::default() };
        let seed = u64::from(setup);
        let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), seed);
        let nat = setup & 1 != 0;
        if nat {
            simulation.network.translate(A, NAT);
        }
        let start = |always| if always { Start::Always } else { Start::OnDemand };
        let configure = |simulation: &mut Simulation, node, remote, start| {
            let (names, nets) = (["a", "b"], ["10.1.0.0/24", "10.2.0.0/24"]);
            let (us, them) = (names[node], names[1 - node]);
            let net = |n: usize| nets[n].parse().unwrap();
            let mut peer = peer(them, us, them, remote);
            let mut rule = protect("rule", them, net(node), net(1 - node), start);
            peer.liveness_interval = Duration::from_secs(u64::from(setup & 8));
            peer.lifetime = Duration::from_secs(u64::from(setup & 16));
            if setup & 2 != 0 {
                peer.proposals[0].encryption = vec![Encryption::Aes128Cbc];
                peer.proposals[0].integrity = vec![Integrity::HmacSha256];
                let Action::Protect(action) = &mut rule.action else { unreachable!() };
                action.proposals[0].encryption = vec![Encryption::Aes256Cbc];
                action.proposals[0].integrity = vec![Integrity::HmacSha512];
            }
            if setup & 64 != 0 {
                by_eap(&mut peer, node, setup & 128 != 0);
            }
            let mut set = policies(vec![peer], vec![rule]);
            let user = User { name: "a".into(), password: password() };
            set.users.insert("a".into(), Arc::new(user));
            simulation.configure(node, set);
        };
        let always = start(setup & 4 != 0);
        // Nobody can begin an IKE SA with a peer that EAP is to authenticate.
        let at_b = if setup & 64 != 0 { Start::Respond } else { always };
        configure(&mut simulation, 1, if nat { None } else { Some(A) }, at_b);
        configure(&mut simulation, 0, Some(B), always);
        Self { simulation, done: 0, next_spi: 1 }
    }

    fn step(&mut self, octets: &mut Octets<'_>) {
        self.done += 1;
        let operation = octets.one();
        // The high bit chooses the host.
        let node = usize::from(operation >> 7);
        match operation & 0x0f {
            // Octets of our own.
            0 | 1 => {
                let (place, count) = (octets.one(), octets.two());
                let datagram = octets.take(count);
                self.inject(node, place, &datagram);
            }
            // One of theirs: as it was, changed, or cut.
            2..=4 => {
                let (place, which) = (octets.one(), octets.one());
                let Some(mut datagram) = self.captured(which) else { return };
                match operation & 0x0f {
                    2 => {}
                    3 => {
                        for _ in 0..=octets.one() % 4 {
                            let (at, change) = (octets.two() % datagram.len(), octets.one());
                            datagram[at] ^= change;
                        }
                    }
                    _ => datagram.truncate(octets.two() % datagram.len()),
                }
                self.inject(node, place, &datagram);
            }
            // One of theirs with octets of ours in the middle, and the length put right.
            5 => {
                let (place, which, at) = (octets.one(), octets.one(), octets.two());
                let (remove, insert) = (usize::from(octets.one()), usize::from(octets.one()));
                let inserted = octets.take(insert);
                let Some(mut datagram) = self.captured(which) else { return };
                let start = at % datagram.len();
                let end = start.saturating_add(remove).min(datagram.len());
                datagram.splice(start..end, inserted);
                if let Ok(length) = u32::try_from(datagram.len())
                    && let Some(field) = datagram.get_mut(24..28)
                {
                    field.copy_from_slice(&length.to_be_bytes());
                }
                self.inject(node, place, &datagram);
            }
            // The same request from many initiators.
            6 => {
                let (place, which, count) = (octets.one(), octets.one(), octets.one());
                let Some(mut datagram) = self.captured(which) else { return };
                for _ in 0..count {
                    if let Some(spi) = datagram.get_mut(..8) {
                        spi.copy_from_slice(&self.next_spi.to_be_bytes());
                    }
                    self.next_spi += 1;
                    self.inject(node, place, &datagram);
                }
            }
            // Time passes: up to a minute and a bit, or up to 25 ms.
            7 | 8 => self.pass(Duration::from_millis(u64::from(octets.one()) * 250)),
            9 => self.pass(Duration::from_micros(u64::from(octets.one()) * 100)),
            10 => {
                let (loss, duplication) = (octets.one() % 101, octets.one() % 101);
                let (loss, duplication) = (u64::from(loss), u64::from(duplication));
                let faults = Faults { loss, duplication, reordering: 20, corruption: loss / 4 };
                self.simulation.network.set_faults(faults);
            }
            11 => self.simulation.acquire(node, "rule"),
            12 => {
                let refusal = match octets.one() % 4 {
                    0 => Refusal::Error(KernelError::SpiInUse),
                    1 => Refusal::Error(KernelError::Unsupported("no ESP".to_owned())),
                    2 => Refusal::Silence,
                    _ => Refusal::None,
                };
                self.simulation.nodes[node].kernel.refusals.push_back(refusal);
            }
            13 => self.expire(node, octets.one()),
            14 => {
                let set = self.simulation.nodes[node].kernel.classified.clone();
                let mut set = set.as_deref().cloned().unwrap_or_default();
                if octets.one() & 1 != 0 {
                    set.rules.clear();
                }
                self.simulation.configure(node, set);
            }
            _ => match octets.one() {
                255 => self.simulation.input(node, Input::Shutdown),
                // A host loses everything but its crash secret and its policies.
                254 => {
                    let set = self.simulation.nodes[node].kernel.classified.clone();
                    self.simulation.crash(node, self.next_spi);
                    self.next_spi += 1;
                    self.simulation.input(node, Input::Policies(set.unwrap_or_default()));
                }
                200..=253 => self.forge(node, octets),
                _ => self.simulation.input(node, Input::Timeout),
            },
        }
    }

    /// One of the datagrams that the two have sent.
    fn captured(&self, which: u8) -> Option<Vec<u8>> {
        let sent = self.simulation.nodes.iter().flat_map(|n| &n.sent);
        let count = sent.clone().count();
        let which = usize::from(which).checked_rem(count)?;
        sent.map(|(_, octets)| octets.clone()).nth(which).filter(|o| !o.is_empty())
    }

    /// A host that has keys and bad intentions: one of the messages that it can open goes to the
    /// other, authentic, with octets changed inside. So the payloads of whoever is not yet
    /// authenticated are reached, EAP above all.
    fn forge(&mut self, node: usize, octets: &mut Octets<'_>) {
        let (which, later, at) = (octets.one(), octets.one(), octets.two());
        let (remove, insert) = (usize::from(octets.one()), usize::from(octets.one()));
        let inserted = octets.take(insert);
        let Some(forge) = Forge::of(&self.simulation.nodes[node].endpoint) else { return };
        let Some(opened) = self.captured(which).and_then(|datagram| forge.open(&datagram)) else {
            return;
        };
        let mut plaintext = opened.plaintext;
        let start = at.min(plaintext.len());
        let end = start.saturating_add(remove).min(plaintext.len());
        plaintext.splice(start..end, inserted);
        let id = opened.header.message_id.0.saturating_add(u32::from(later % 3));
        let header = Header { message_id: MessageId(id), ..opened.header };
        let Some(sealed) = forge.seal_octets(&header, opened.first, &plaintext) else { return };
        self.done += 1;
        let [from, to] = [node, 1 - node].map(|n| self.simulation.nodes[n].address);
        let path = Path { local: SocketAddr::new(to, 4500), remote: SocketAddr::new(from, 4500) };
        self.simulation.input(1 - node, Input::Datagram { path, octets: &sealed });
    }

    /// Hands a datagram to a host, and sees to it that nothing comes of what is not authentic.
    fn inject(&mut self, node: usize, place: u8, datagram: &[u8]) {
        self.done += 1;
        let now = self.simulation.now;
        let other = match place & 3 {
            0 | 1 => self.simulation.nodes[1 - node].address,
            2 => NAT,
            _ => EVE,
        };
        let port = if place & 4 == 0 { 500 } else { 4500 };
        let far = if place & 8 == 0 { port } else { 1024 + u16::from(place) };
        let local = SocketAddr::new(self.simulation.nodes[node].address, port);
        let path = Path { local, remote: SocketAddr::new(other, far) };
        let genuine =
            self.simulation.nodes.iter().flat_map(|n| &n.sent).any(|(_, o)| o == datagram);
        let open = datagram.get(EXCHANGE) == Some(&IKE_SA_INIT);
        let before = (!genuine && !open).then(|| self.state(node));
        let sent = self.simulation.nodes[node].sent.len();
        let crashes = self.crashes(node);

        self.simulation.input(node, Input::Datagram { path, octets: datagram });

        let answers = self.simulation.nodes[node].sent.len() - sent;
        assert!(answers <= 2 * FRAGMENTS, "{answers} datagrams for one");
        // A token that one end has shown is a proof in whatever message it stands (RFC 6290).
        let proved = self.crashes(node) > crashes;
        if let Some(before) = before.filter(|_| !proved) {
            assert_eq!(before, self.state(node), "what is not authentic has changed something");
            assert!(answers <= 1);
        }
        assert_eq!(now, self.simulation.now);
    }

    fn crashes(&self, node: usize) -> u64 {
        self.simulation.nodes[node].endpoint.counters().value(Counter::PeerCrashed)
    }

    /// All that can be seen of a host but its counters.
    fn state(&self, node: usize) -> String {
        let node = &self.simulation.nodes[node];
        let status = node.endpoint.status(self.simulation.now);
        format!(
            "{:?} {:?} {} {:?} {:?}",
            status.ike_sas,
            status.rules,
            status.half_open,
            node.endpoint.next_timeout(),
            node.kernel.children.keys(),
        )
    }

    /// Far fewer steps are enough for a minute of two hosts.
    fn pass(&mut self, time: Duration) {
        let steps = self.simulation.run(time);
        assert!(steps < 100_000, "it does not come to rest");
    }

    /// A Child SA of a host reaches a limit, vanishes, or is heard of from elsewhere.
    fn expire(&mut self, node: usize, how: u8) {
        let kernel = &mut self.simulation.nodes[node].kernel;
        let Some((child, spec)) = kernel.children.iter().next() else { return };
        let (child, spi, destination) = (*child, spec.inbound.spi, spec.inbound.destination);
        let event = match how % 4 {
            0 => KernelEvent::Expire { spi, destination, hard: false },
            1 => {
                kernel.children.remove(&child);
                KernelEvent::Expire { spi, destination, hard: true }
            }
            2 => KernelEvent::PeerMoved { spi, from: SocketAddr::new(EVE, 4500) },
            _ => {
                kernel.children.remove(&child);
                KernelEvent::Vanished { child }
            }
        };
        self.simulation.input(node, Input::Kernel(event));
    }

    fn check(&self) {
        let violations = self.simulation.violations();
        assert!(violations.is_empty(), "{}", violations.join("\n"));
        for node in &self.simulation.nodes {
            let status = node.endpoint.status(self.simulation.now);
            let bound = 4 + 4 * self.done;
            assert!(status.ike_sas.len() <= bound, "{} IKE SAs", status.ike_sas.len());
            assert!(status.half_open <= bound, "{} half-open IKE SAs", status.half_open);
        }
    }
}
