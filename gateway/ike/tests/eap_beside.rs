//! EAP beside what else IKE_AUTH carries: additional key exchanges before it, addresses, crash
//! tokens, and an IKE SA that gets new keys later.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "This is test code."
)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::Input;
use gateway_ike::algorithms::{Group, Round};
use gateway_ike::config::{
    EapAuthenticatorConfig, EapMethod, EapPeerConfig, LocalAuth, PeerConfig, PolicySet, Pool,
    RemoteAuth, Secret, Start, User,
};
use gateway_ike::counters::Counter;
use gateway_ike::error::{AuthenticationFault, Error};
use gateway_ike::event::EventKind;
use gateway_ike::io::Path;
use gateway_ike::keys::{ChildKeys, IkeKeys};
use gateway_ike::testing::{
    FastKeyExchange, Faults, Forge, Simulation, peer, policies, proposals, protect,
};
use gateway_wire::{
    Authentication, Configuration, ConfigurationAttribute, CpAttribute, CpType, Delete,
    ExchangeType, Header, Message, Notify, NotifyType, Payload, PayloadType, ProtocolId,
};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const C: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn password() -> Secret {
    Secret::new(b"correct horse".to_vec())
}

/// A user, who wants any address of its own to reach B's network; changed by `change`.
fn policies_of_user(name: &str, change: impl Fn(&mut PeerConfig)) -> PolicySet {
    let mut b = peer("b", name, "b.test", Some(B));
    b.local_auth = LocalAuth::Eap(Arc::new(EapPeerConfig {
        identity: name.to_owned(),
        methods: vec![EapMethod::MsChapV2],
        password: Some(password()),
        tls: None,
        authenticator: b.remote_id.clone(),
    }));
    change(&mut b);
    let (any, remote) = ("0.0.0.0/0".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    policies(vec![b], vec![protect("to-b", "b", any, remote, Start::OnDemand)])
}

/// B, which asks alice and bob; changed by `change`.
fn policies_of_b(change: impl Fn(&mut PeerConfig)) -> PolicySet {
    let mut users = peer("users", "b.test", "any", None);
    users.remote_auth = RemoteAuth::Eap(Arc::new(EapAuthenticatorConfig {
        methods: vec![EapMethod::MsChapV2],
        tls: None,
        ask_identity: true,
        any_ike_identity: true,
    }));
    change(&mut users);
    let (ours, theirs) = ("10.2.0.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap());
    let mut set =
        policies(vec![users], vec![protect("to-users", "users", ours, theirs, Start::Respond)]);
    for name in ["alice", "bob"] {
        let user = User { name: name.into(), password: password() };
        set.users.insert(name.into(), Arc::new(user));
    }
    set
}

fn connect(change: impl Fn(&mut PeerConfig)) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, policies_of_b(&change));
    simulation.configure(0, policies_of_user("alice", &change));
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(1));
    assert!(agreed(&simulation));
    simulation
}

fn agreed(simulation: &Simulation) -> bool {
    assert_eq!(simulation.violations(), Vec::<String>::new());
    assert_eq!(simulation.mismatches(), Vec::<String>::new());
    simulation.nodes.iter().all(|n| n.kernel.children.len() == 1)
}

fn users(simulation: &Simulation) -> Vec<(String, Vec<IpAddr>)> {
    let status = simulation.nodes[1].endpoint.status(simulation.now);
    let user = |sa: gateway_ike::status::IkeSaStatus| Some((sa.user?.to_string(), sa.assigned));
    status.ike_sas.into_iter().filter_map(user).collect()
}

#[test]
fn the_user_stays_with_the_ike_sa_over_new_keys() {
    let mut simulation = connect(|peer| peer.lifetime = HOUR);
    simulation.run(3 * HOUR);
    assert!(agreed(&simulation));
    for node in &simulation.nodes {
        assert!(node.endpoint.counters().value(Counter::IkeSaRekeyed) > 1);
        assert_eq!(node.endpoint.counters().value(Counter::EapSucceeded), 1);
    }
    assert_eq!(users(&simulation), [("alice".to_owned(), Vec::new())]);
    // … and ends with the user.
    let mut set = policies_of_b(|_| {});
    set.users.clear();
    simulation.configure(1, set);
    simulation.run(Duration::from_secs(10));
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
}

#[test]
fn auth_covers_the_additional_key_exchanges_before_eap() {
    let simulation = connect(|peer| {
        let mut hybrid = proposals().0.remove(0);
        hybrid.additional = [(Round::Ke1, vec![Some(Group::MlKem768)])].into_iter().collect();
        peer.proposals = vec![hybrid];
    });
    for node in &simulation.nodes {
        assert_eq!(node.endpoint.status(simulation.now).ike_sas[0].quantum_safe, Some(true));
    }
}

#[test]
fn crash_tokens_go_with_the_last_auth_of_each_end_and_not_before() {
    let simulation = connect(|_| {});
    let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    for node in &simulation.nodes {
        let has_token = |octets: &Vec<u8>| {
            let (header, ..) = Header::decode(octets).unwrap();
            let opened = (header.exchange == ExchangeType::IKE_AUTH).then(|| forge.open(octets))?;
            let opened = opened.unwrap();
            let token = opened.payloads().unwrap().iter().any(|payload| {
                matches!(payload, Payload::Notify(n) if n.kind == NotifyType::QUICK_CRASH_DETECTION)
            });
            Some(token)
        };
        let tokens: Vec<bool> = node.sent.iter().filter_map(|(_, o)| has_token(o)).collect();
        let (last, before) = tokens.split_last().unwrap();
        assert!(*last && !before.contains(&true), "{tokens:?}");
    }
}

#[test]
fn a_user_and_its_gateway_agree_that_message_ids_may_be_set() {
    let mut simulation = connect(|_| {});
    let supported = NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED;
    let data = [1, 2, 3, 4, 0, 0, 0, 90, 0, 0, 0, 90];
    for from in [0, 1] {
        let forge = Forge::of(&simulation.nodes[from].endpoint).unwrap();
        let says = |octets: &Vec<u8>| {
            let (header, ..) = Header::decode(octets).unwrap();
            let opened = (header.exchange == ExchangeType::IKE_AUTH).then(|| forge.open(octets))?;
            let opened = opened.unwrap();
            let is = |p: &Payload<'_>| matches!(p, Payload::Notify(n) if n.kind == supported);
            Some(opened.payloads().unwrap().iter().any(is))
        };
        let sent = simulation.nodes[from].sent.iter();
        let said: Vec<bool> = sent.filter_map(|(_, octets)| says(octets)).collect();
        assert_eq!(said.iter().filter(|said| **said).count(), 1, "{said:?}");
        // A with its first request, B with its last answer.
        assert!(said[if from == 0 { 0 } else { said.len() - 1 }], "{said:?}");
        let kind = NotifyType::IKEV2_MESSAGE_ID_SYNC;
        let sync = Notify { protocol: ProtocolId::NONE, spi: &[], kind, data: &data };
        let header = forge.header(ExchangeType::INFORMATIONAL, false, 0);
        let octets = forge.seal(&header, &[Payload::Notify(sync)]).unwrap();
        let path = simulation.nodes[1 - from].sent.last().unwrap().0;
        simulation.input(1 - from, Input::Datagram { path, octets: &octets });
        let counters = simulation.nodes[1 - from].endpoint.counters();
        assert_eq!(counters.value(Counter::MessageIdsSet), 1);
    }
}

/// What becomes of AUTH in the last request or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Damage,
    LeaveOut,
}

/// Carries messages to and fro until one with AUTH comes after EAP has ended, from A (`of` 0) or
/// from B, and changes that.
fn with_changed_auth(of: usize, change: Change) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, policies_of_b(|_| {}));
    simulation.configure(0, policies_of_user("alice", |_| {}));
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    simulation.acquire(0, "to-b");
    for sender in [0, 1].into_iter().cycle().take(20) {
        let (path, mut octets) = simulation.nodes[sender].sent.last().unwrap().clone();
        let succeeded = simulation.nodes[sender].endpoint.counters().value(Counter::EapSucceeded);
        let forge = Forge::of(&simulation.nodes[0].endpoint);
        let opened = forge.as_ref().and_then(|forge| forge.open(&octets));
        let mut last = false;
        if let Some(opened) = opened.filter(|_| sender == of && succeeded > 0) {
            let mut payloads = opened.payloads().unwrap();
            let found = payloads.iter().position(|p| matches!(p, Payload::Authentication(_)));
            if let Some(position) = found {
                let Payload::Authentication(auth) = payloads.remove(position) else { continue };
                let mut data = auth.data.to_vec();
                data[0] ^= 1;
                if change == Change::Damage {
                    let auth = Authentication { data: &data, ..auth };
                    payloads.insert(position, Payload::Authentication(auth));
                }
                let forge = Forge::of(&simulation.nodes[sender].endpoint).unwrap();
                octets = forge.seal(&opened.header, &payloads).unwrap();
                last = true;
            }
        }
        let to = Path { local: path.remote, remote: path.local };
        simulation.input(1 - sender, Input::Datagram { path: to, octets: &octets });
        if last {
            return simulation;
        }
    }
    simulation
}

#[test]
fn an_end_whose_auth_does_not_come_from_the_same_eap_is_refused() {
    for of in [0, 1] {
        for change in [Change::Damage, Change::LeaveOut] {
            let simulation = with_changed_auth(of, change);
            let failed = simulation.nodes[1 - of].events.iter().filter_map(|e| match &e.kind {
                EventKind::Failed(error) => Some(error.clone()),
                _ => None,
            });
            let failed: Vec<_> = failed.collect();
            let meant = match change {
                Change::Damage => matches!(
                    &failed[..],
                    [Error::Authentication(AuthenticationFault::WrongEapAuth(_))]
                ),
                Change::LeaveOut => {
                    matches!(&failed[..], [Error::MissingPayload(PayloadType::AUTH)])
                }
            };
            assert!(meant, "{of} {change:?}: {failed:?}");
            assert!(simulation.nodes[1 - of].kernel.children.is_empty());
        }
    }
}

/// RFC 7296 2.16: the key of EAP serves nothing else. The keys of the Child SA come from what was
/// sent, and from nothing that only EAP knows.
#[test]
fn the_key_of_eap_makes_auth_and_nothing_else() {
    let simulation = connect(|_| {});
    let [request, answer] = [0, 1].map(|node: usize| simulation.nodes[node].sent[0].1.clone());
    let (header, ..) = Header::decode(&answer).unwrap();
    let sent = |datagram: &[u8]| {
        let message = Message::decode(datagram).unwrap();
        let mut sent = (Vec::new(), Vec::new());
        for payload in &message.payloads {
            match payload {
                Payload::KeyExchange(ke) => sent.0 = ke.data.to_vec(),
                Payload::Nonce(nonce) => sent.1 = nonce.0.to_vec(),
                _ => {}
            }
        }
        sent
    };
    let ((ke_i, ni), (ke_r, nr)) = (sent(&request), sent(&answer));
    let status = simulation.nodes[0].endpoint.status(simulation.now);
    let suite = status.ike_sas[0].suite.unwrap();
    let secret = FastKeyExchange::secret(&ke_i, &ke_r);
    let spis = (header.initiator_spi, header.responder_spi);
    let keys = IkeKeys::derive(suite, &secret, &ni, &nr, spis.0, spis.1);
    let child = simulation.nodes[0].kernel.children.values().next().unwrap();
    let keys = ChildKeys::derive(suite.prf, keys.sk_d(), None, &ni, &nr, &[], child.suite);
    let (outbound, inbound) = keys.by_direction(true);
    assert_eq!(*child.outbound.encryption_key, *outbound.0);
    assert_eq!(*child.inbound.encryption_key, *inbound.0);
}

/// RFC 7296 2.16: the IKE SA stands when EAP is through, and no sooner.
#[test]
fn nothing_but_ike_auth_is_taken_before_eap_is_through() {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, policies_of_b(|_| {}));
    simulation.configure(0, policies_of_user("alice", |_| {}));
    simulation.acquire(0, "to-b");
    let started = |simulation: &Simulation| {
        let counters = simulation.nodes[0].endpoint.counters();
        counters.value(Counter::EapStarted)
    };
    while started(&simulation) == 0 {
        assert!(simulation.step(simulation.now + MINUTE));
    }
    // A's answer to B's first question is under way, and what comes here is sooner there.
    let forge = Forge::of(&simulation.nodes[0].endpoint).unwrap();
    let (path, octets) = simulation.nodes[0].sent.last().unwrap().clone();
    let (next, ..) = Header::decode(&octets).unwrap();
    let to = Path { local: path.remote, remote: path.local };
    let before = simulation.nodes[1].sent.len();
    for exchange in [ExchangeType::INFORMATIONAL, ExchangeType::CREATE_CHILD_SA] {
        let delete = Delete { protocol: ProtocolId::IKE, spis: Vec::new() };
        let header = forge.header(exchange, false, next.message_id.0);
        let early = forge.seal(&header, &[Payload::Delete(delete)]).unwrap();
        simulation.input(1, Input::Datagram { path: to, octets: &early });
        assert_eq!(simulation.nodes[1].sent.len(), before, "{exchange}");
    }
    assert_eq!(simulation.nodes[1].endpoint.status(simulation.now).half_open, 1);
    simulation.run(MINUTE);
    assert!(agreed(&simulation), "and EAP goes on as if nothing had been");
}

/// Connects a user whose first IKE_AUTH request also asks for an address, which ours does not.
fn connect_asking(simulation: &mut Simulation, node: usize) {
    simulation.acquire(node, "to-b");
    let to_b = |path: Path| Path { local: path.remote, remote: path.local };
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    let (there, request) = simulation.nodes[node].sent.last().unwrap().clone();
    simulation.input(1, Input::Datagram { path: to_b(there), octets: &request });
    let (back, answer) = simulation.nodes[1].sent.last().unwrap().clone();
    simulation.input(node, Input::Datagram { path: to_b(back), octets: &answer });

    let (there, request) = simulation.nodes[node].sent.last().unwrap().clone();
    let at_user = Forge::of(&simulation.nodes[node].endpoint).unwrap();
    let at_b = Forge::of(&simulation.nodes[1].endpoint).unwrap();
    let opened = at_b.open(&request).unwrap();
    let mut payloads = opened.payloads().unwrap();
    let address = ConfigurationAttribute { kind: CpAttribute::INTERNAL_IP4_ADDRESS, value: &[] };
    let (kind, attributes) = (CpType::CFG_REQUEST, vec![address]);
    payloads.push(Payload::Configuration(Configuration { kind, attributes }));
    let (header, ..) = Header::decode(&request).unwrap();
    let sealed = at_user.seal(&header, &payloads).unwrap();
    simulation.input(1, Input::Datagram { path: to_b(there), octets: &sealed });
    simulation.network.set_faults(Faults::default());
    let (back, answer) = simulation.nodes[1].sent.last().unwrap().clone();
    simulation.input(node, Input::Datagram { path: to_b(back), octets: &answer });
    simulation.run(Duration::from_secs(1));

    let (_, last) = simulation.nodes[1].sent.last().unwrap();
    let last = at_user.open(last).unwrap();
    let given =
        |p: &Payload<'_>| matches!(p, Payload::Configuration(c) if c.kind == CpType::CFG_REPLY);
    assert!(last.payloads().unwrap().iter().any(given), "the last answer has the address");
}

#[test]
fn each_user_gets_an_address_of_its_own_in_the_last_answer() {
    let pool = Pool {
        name: "pool".into(),
        addresses: vec!["10.9.0.0/24".parse().unwrap()],
        dns: Vec::new(),
    };
    let pool = Arc::new(pool);
    let mut simulation = Simulation::new(&[A, B, C], Faults::default(), 1);
    simulation.configure(1, policies_of_b(|users| users.pool = Some(Arc::clone(&pool))));
    simulation.configure(0, policies_of_user("alice", |_| {}));
    simulation.configure(2, policies_of_user("bob", |_| {}));
    connect_asking(&mut simulation, 0);
    let of = |name: &str, last: u8| (name.to_owned(), vec![IpAddr::from([10, 9, 0, last])]);
    assert_eq!(users(&simulation), [of("alice", 1)]);
    simulation.run(MINUTE);
    connect_asking(&mut simulation, 2);
    assert_eq!(users(&simulation), [of("alice", 1), of("bob", 2)]);
    let remote = |child: &gateway_ike::io::ChildSpec| child.selectors[0].0.remote.to_string();
    let mut agreed: Vec<_> = simulation.nodes[1].kernel.children.values().map(remote).collect();
    agreed.sort();
    assert_eq!(agreed, ["10.9.0.1/32", "10.9.0.2/32"]);
}
