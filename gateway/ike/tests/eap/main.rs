//! EAP in IKE_AUTH: A is the initiator and is authenticated by EAP, B asks.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "This is test code.")]

mod alone;
mod ppk;
mod users;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::config::{
    Action, Childless, EapAuthenticatorConfig, EapMethod, EapPeerConfig, EndpointConfig, Identity,
    LocalAuth, Mode, PeerConfig, PolicySet, RemoteAuth, Secret, Start, User,
};
use gateway_ike::counters::Counter;
use gateway_ike::crypto::signature::{PublicKey, SigningKey};
use gateway_ike::error::{AuthenticationFault, EapFault, Error};
use gateway_ike::event::EventKind;
use gateway_ike::io::Path;
use gateway_ike::reason::Cause;
use gateway_ike::testing::{
    FastKeyExchange, Faults, SeededRandom, Simulation, peer, policies, protect,
};
use gateway_ike::{Endpoint, Input};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
const C: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 3));
const MINUTE: Duration = Duration::from_secs(60);

/// What one test has otherwise than the others.
#[derive(Clone)]
struct Plan {
    name: &'static str,
    password: &'static str,
    of_a: Vec<EapMethod>,
    of_b: Vec<EapMethod>,
    ask: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            name: "alice",
            password: "correct horse",
            of_a: vec![EapMethod::MsChapV2],
            of_b: vec![EapMethod::MsChapV2],
            ask: false,
        }
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn policies_of_a(plan: &Plan) -> PolicySet {
    let mut b = peer("b", plan.name, "b.test", Some(B));
    b.local_auth = LocalAuth::Eap(Arc::new(EapPeerConfig {
        identity: plan.name.to_owned(),
        methods: plan.of_a.clone(),
        password: Some(secret(plan.password)),
        tls: None,
        authenticator: b.remote_id.clone(),
    }));
    let (ours, theirs) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    policies(vec![b], vec![protect("to-b", "b", ours, theirs, Start::OnDemand)])
}

fn policies_of_b(plan: &Plan) -> PolicySet {
    let mut users = peer("users", "b.test", "any", None);
    users.remote_auth = RemoteAuth::Eap(Arc::new(EapAuthenticatorConfig {
        methods: plan.of_b.clone(),
        tls: None,
        ask_identity: plan.ask,
        any_ike_identity: true,
    }));
    let (ours, theirs) = ("10.2.0.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap());
    let mut set =
        policies(vec![users], vec![protect("to-users", "users", ours, theirs, Start::Respond)]);
    for (name, password) in [("alice", "correct horse"), ("bob", "battery staple")] {
        let user = User { name: name.into(), password: secret(password) };
        set.users.insert(name.into(), Arc::new(user));
    }
    set
}

fn pair(plan: &Plan, faults: Faults, seed: u64) -> Simulation {
    let mut simulation = Simulation::new(&[A, B], faults, seed);
    simulation.configure(1, policies_of_b(plan));
    simulation.configure(0, policies_of_a(plan));
    simulation
}

fn connect(plan: &Plan) -> Simulation {
    let mut simulation = pair(plan, Faults::default(), 1);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    simulation
}

fn counter(simulation: &Simulation, node: usize, counter: Counter) -> u64 {
    simulation.nodes[node].endpoint.counters().value(counter)
}

fn faults(simulation: &Simulation, node: usize) -> Vec<AuthenticationFault> {
    let fault = |kind: &EventKind| {
        let EventKind::Failed(Error::Authentication(fault)) = kind else { return None };
        Some(fault.clone())
    };
    simulation.nodes[node].events.iter().filter_map(|e| fault(&e.kind)).collect()
}

#[test]
fn a_password_brings_up_both_sas_by_either_method_asked_for_the_name_or_not() {
    for method in [EapMethod::MsChapV2, EapMethod::Md5] {
        for ask in [false, true] {
            let methods = vec![method];
            let plan = Plan { of_a: methods.clone(), of_b: methods, ask, ..Plan::default() };
            let simulation = connect(&plan);
            assert!(simulation.has_one_child_each().unwrap(), "{method} {ask}");
            // IKE_SA_INIT, the question, the rounds of the method, AUTH.
            let rounds = if method == EapMethod::MsChapV2 { 2 } else { 1 };
            assert_eq!(simulation.nodes[0].sent.len(), 3 + rounds + usize::from(ask));
            let status = simulation.nodes[1].endpoint.status(simulation.now);
            assert_eq!(status.ike_sas[0].user.as_deref(), Some("alice"));
            assert_eq!(status.half_open, 0);
            for node in 0..2 {
                assert_eq!(counter(&simulation, node, Counter::EapStarted), 1);
                assert_eq!(counter(&simulation, node, Counter::EapSucceeded), 1);
                assert_eq!(counter(&simulation, node, Counter::EapFailed), 0);
            }
        }
    }
}

#[test]
fn what_is_granted_is_what_the_first_request_asked_for() {
    let simulation = connect(&Plan::default());
    let child = simulation.nodes[1].kernel.children.values().next().unwrap();
    assert_eq!(child.selectors[0].0.remote, "10.1.0.0/24".parse().unwrap());
}

#[test]
fn the_first_child_sa_may_be_left_out_of_ike_auth() {
    let plan = Plan::default();
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, policies_of_b(&plan));
    let mut a = policies_of_a(&plan);
    a.peers.values_mut().for_each(|b| Arc::make_mut(b).childless = Childless::Require);
    simulation.configure(0, a);
    simulation.acquire(0, "to-b");
    let in_auth = |simulation: &Simulation| simulation.nodes[1].kernel.children.len();
    let stands = |simulation: &Simulation| counter(simulation, 1, Counter::IkeSaEstablished) == 1;
    let end = simulation.now + MINUTE;
    while !stands(&simulation) && simulation.step(end) {}
    assert_eq!((stands(&simulation), in_auth(&simulation)), (true, 0));
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
    assert_eq!(counter(&simulation, 1, Counter::EapSucceeded), 1);
}

#[test]
fn each_failure_is_told_in_its_own_words_and_to_the_peer_in_none() {
    let name = |user: &str| user.to_owned();
    let eap = |who: &str, fault| AuthenticationFault::Eap { who: name(who), fault };
    for (plan, at_b) in [
        (Plan { password: "x", ..Plan::default() }, eap("alice", EapFault::WrongPassword)),
        (Plan { name: "mallory", ..Plan::default() }, eap("mallory", EapFault::UnknownUser)),
        (
            Plan { of_a: vec![EapMethod::Md5], ..Plan::default() },
            eap(
                "alice",
                EapFault::NoCommonMethod { ours: name("MSCHAP_V2"), theirs: name("MD5_CHALLENGE") },
            ),
        ),
    ] {
        let mut simulation = connect(&plan);
        assert!(!simulation.has_one_child_each().unwrap());
        assert_eq!(faults(&simulation, 1), [at_b]);
        let at_a = faults(&simulation, 0);
        assert!(matches!(&at_a[..], [AuthenticationFault::Eap { .. }]), "{at_a:?}");
        for node in 0..2 {
            assert_eq!(counter(&simulation, node, Counter::EapFailed), 1);
            assert_eq!(counter(&simulation, node, Counter::AuthenticationFailed), 1);
        }
        simulation.run(MINUTE);
        assert!(simulation.nodes.iter().all(|n| n.endpoint.is_empty()));
        let status = simulation.nodes[0].endpoint.status(simulation.now);
        assert!(status.rules[0].last_error.as_ref().unwrap().contains("EAP of "));
        let words = simulation.nodes.iter().flat_map(|n| &n.events).map(ToString::to_string);
        assert!(words.into_iter().all(|w| !w.contains("horse")), "no secret is told");
    }
}

#[test]
fn a_peer_that_skips_eap_or_asks_for_it_in_vain_is_refused() {
    let by_psk = {
        let mut set = policies_of_a(&Plan::default());
        Arc::make_mut(set.peers.values_mut().next().unwrap()).local_auth =
            LocalAuth::Psk(secret("a pre-shared key for tests"));
        set
    };
    let mut simulation = pair(&Plan::default(), Faults::default(), 1);
    let known = {
        let mut set = policies_of_b(&Plan::default());
        let peer = Arc::make_mut(set.peers.values_mut().next().unwrap());
        peer.remote_id = Identity::Fqdn("alice".to_owned());
        set
    };
    simulation.configure(1, known);
    simulation.configure(0, by_psk);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(faults(&simulation, 1), [AuthenticationFault::EapDemanded]);

    let mut simulation = pair(&Plan::default(), Faults::default(), 1);
    let without = {
        let mut set = policies_of_b(&Plan::default());
        Arc::make_mut(set.peers.values_mut().next().unwrap()).remote_auth =
            RemoteAuth::Psk(secret("a pre-shared key for tests"));
        set
    };
    simulation.configure(1, without);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(faults(&simulation, 1), [AuthenticationFault::EapNotConfigured]);
    assert!(!simulation.has_one_child_each().unwrap());
}

#[test]
fn the_responder_must_prove_itself_before_anything_is_shown_to_it() {
    let mut simulation = pair(&Plan::default(), Faults::default(), 1);
    let mut set = policies_of_b(&Plan::default());
    Arc::make_mut(set.peers.values_mut().next().unwrap()).local_auth =
        LocalAuth::Psk(secret("another"));
    simulation.configure(1, set);
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(faults(&simulation, 0), [AuthenticationFault::WrongAuth("b".to_owned())]);
    assert_eq!(simulation.nodes[0].sent.len(), 2, "no answer to the challenge");
    assert!(!simulation.has_one_child_each().unwrap());
}

/// The gateway's key, with which it signs.
fn signing() -> SigningKey {
    SigningKey::from_pem(include_bytes!("../keys/p256.pem")).unwrap()
}

#[test]
fn a_gateway_that_signs_is_believed_and_one_that_shares_a_key_instead_is_shown_nothing() {
    for signs in [true, false] {
        let mut simulation = pair(&Plan::default(), Faults::default(), 1);
        let mut set = policies_of_a(&Plan::default());
        Arc::make_mut(set.peers.values_mut().next().unwrap()).remote_auth = RemoteAuth::PublicKey(
            Arc::new(PublicKey::from_pem(include_bytes!("../keys/p256.pub.pem")).unwrap()),
        );
        simulation.configure(0, set);
        if signs {
            let mut set = policies_of_b(&Plan::default());
            Arc::make_mut(set.peers.values_mut().next().unwrap()).local_auth =
                LocalAuth::PublicKey(Arc::new(signing()));
            simulation.configure(1, set);
        }
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        assert_eq!(simulation.has_one_child_each().unwrap(), signs);
        if !signs {
            let faults = faults(&simulation, 0);
            assert!(matches!(&faults[..], [AuthenticationFault::Method { .. }]), "{faults:?}");
            assert_eq!(simulation.nodes[0].sent.len(), 2, "no answer to the challenge");
        }
    }
}

#[test]
fn a_user_without_a_realm_is_a_key_id_and_known_by_it() {
    for (name, id) in [
        ("alice", Identity::KeyId(b"alice".to_vec())),
        ("bob@example", Identity::Email("bob@example".to_owned())),
    ] {
        let plan = Plan { name, ..Plan::default() };
        let mut simulation = pair(&plan, Faults::default(), 1);
        let mut set = policies_of_a(&plan);
        Arc::make_mut(set.peers.values_mut().next().unwrap()).local_id = id;
        simulation.configure(0, set);
        let mut set = policies_of_b(&plan);
        let user = User { name: name.into(), password: secret(plan.password) };
        set.users.insert(name.into(), Arc::new(user));
        simulation.configure(1, set);
        simulation.acquire(0, "to-b");
        simulation.run(MINUTE);
        assert!(simulation.has_one_child_each().unwrap(), "{name}");
        let status = simulation.nodes[1].endpoint.status(simulation.now);
        assert_eq!(status.ike_sas[0].user.as_deref(), Some(name));
    }
}

#[test]
fn we_do_not_initiate_to_a_peer_that_we_would_have_to_ask_by_eap() {
    let mut set = policies_of_b(&Plan::default());
    let peer = Arc::make_mut(set.peers.values_mut().next().unwrap());
    peer.remote_address = Some(A);
    let mut simulation = Simulation::new(&[B], Faults::default(), 1);
    simulation.configure(0, set);
    simulation.acquire(0, "to-users");
    simulation.run(MINUTE);
    assert!(simulation.nodes[0].sent.is_empty());
}

#[test]
fn a_wrong_password_is_told_at_once_though_the_peer_never_comes_back() {
    let plan = Plan { password: "another", ..Plan::default() };
    let mut simulation = pair(&plan, Faults::default(), 1);
    simulation.acquire(0, "to-b");
    // IKE_SA_INIT, the question, the answer, and then silence.
    for _ in 0..5 {
        simulation.step(simulation.now + MINUTE);
    }
    let fault = EapFault::WrongPassword;
    let expected = [AuthenticationFault::Eap { who: "alice".to_owned(), fault }];
    assert_eq!(faults(&simulation, 1), expected);
    simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
    simulation.run(Duration::from_secs(70));
    assert_eq!(faults(&simulation, 1), expected, "and once");
    assert_eq!(counter(&simulation, 1, Counter::EapFailed), 1);
    assert_eq!(counter(&simulation, 1, Counter::EapTimeout), 0);
    assert!(simulation.nodes[1].endpoint.is_empty());
}

#[test]
fn eap_of_too_many_messages_fails_at_whichever_end_has_the_limit() {
    for node in [0, 1] {
        let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
        simulation.nodes[node].endpoint = Endpoint::new(
            EndpointConfig { eap_round_limit: 1, ..EndpointConfig::default() },
            Box::new(SeededRandom::new(7)),
            Box::new(FastKeyExchange::new(7)),
        );
        simulation.configure(1, policies_of_b(&Plan::default()));
        simulation.configure(0, policies_of_a(&Plan::default()));
        simulation.acquire(0, "to-b");
        simulation.run(Duration::from_secs(1));
        assert!(!simulation.has_one_child_each().unwrap());
        let counters = simulation.nodes[node].endpoint.counters();
        assert_eq!(counters.refusals(Cause::EapLimit), 1);
        let named = counters.iter().find(|(name, _)| *name == "refused_authentication_eap_limit");
        assert_eq!(named.map(|(_, value)| value), Some(1));
        assert_eq!(counter(&simulation, node, Counter::EapFailed), 1);
        assert_eq!(simulation.nodes[1 - node].endpoint.counters().refusals(Cause::EapLimit), 0);
    }
}

#[test]
fn eap_that_stalls_ends_with_its_time() {
    let second = Duration::from_secs(1);
    for eap_timeout in [EndpointConfig::default().eap_timeout, 20 * second] {
        let config = EndpointConfig { eap_timeout, ..EndpointConfig::default() };
        let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
        simulation.configure(1, policies_of_b(&Plan::default()));
        simulation.configure(0, policies_of_a(&Plan::default()));
        simulation.acquire(0, "to-b");
        // Up to B's first question, and no further.
        for _ in 0..3 {
            simulation.step(simulation.now + MINUTE);
        }
        assert_eq!(counter(&simulation, 1, Counter::EapStarted), 1);
        assert_eq!(simulation.nodes[1].endpoint.status(simulation.now).half_open, 1);
        simulation.network.set_faults(Faults { loss: 100, ..Faults::default() });
        simulation.run(eap_timeout - second);
        for (time, ended) in [(Duration::ZERO, 0), (2 * second, 1)] {
            simulation.run(time);
            for node in 0..2 {
                assert_eq!(counter(&simulation, node, Counter::EapTimeout), ended);
                assert_eq!(simulation.nodes[node].endpoint.is_empty(), ended == 1);
            }
        }
    }
}

#[test]
fn policies_that_change_under_way_count_at_the_end() {
    let mut simulation = pair(&Plan::default(), Faults::default(), 1);
    simulation.acquire(0, "to-b");
    for _ in 0..3 {
        simulation.step(simulation.now + MINUTE);
    }
    let mut set = policies_of_b(&Plan::default());
    set.users.remove("alice");
    simulation.configure(1, set);
    simulation.run(MINUTE);
    assert!(!simulation.has_one_child_each().unwrap());
    assert_eq!(faults(&simulation, 1), [AuthenticationFault::EapOutdated("alice".to_owned())]);
}

#[test]
fn a_lossy_network_costs_time_only() {
    let mut up = 0;
    for seed in 0..200 {
        let bad = Faults { loss: 20, duplication: 20, reordering: 20, corruption: 5 };
        let mut random = SeededRandom::new(seed);
        let right = random.percent(70);
        let plan = Plan {
            password: if right { "correct horse" } else { "wrong" },
            of_a: vec![EapMethod::MsChapV2, EapMethod::Md5],
            of_b: if random.percent(50) {
                vec![EapMethod::Md5, EapMethod::MsChapV2]
            } else {
                vec![EapMethod::MsChapV2]
            },
            ask: random.percent(50),
            ..Plan::default()
        };
        let mut simulation = pair(&plan, bad, seed);
        simulation.acquire(0, "to-b");
        simulation.run(Duration::from_secs(200));
        simulation.network.set_faults(Faults::default());
        simulation.run(Duration::from_secs(200));
        assert_eq!(simulation.violations(), Vec::<String>::new(), "seed {seed}");
        let stands = simulation.nodes.iter().all(|n| !n.kernel.children.is_empty());
        assert!(right || !stands, "seed {seed}: a wrong password");
        up += usize::from(stands);
        if stands {
            assert!(simulation.mismatches().is_empty(), "seed {seed}");
        }
        simulation.input(0, Input::Shutdown);
        simulation.input(1, Input::Shutdown);
        simulation.run(Duration::from_secs(200));
        assert!(simulation.nodes.iter().all(|n| n.endpoint.is_empty()), "seed {seed}");
    }
    assert!(up > 100, "only {up} of about 140 came up");
}

#[test]
fn datagrams_of_an_attacker_change_nothing_between_the_rounds() {
    let mut simulation = pair(&Plan::default(), Faults::default(), 1);
    simulation.acquire(0, "to-b");
    let limit = simulation.now + MINUTE;
    let mut random = SeededRandom::new(3);
    while simulation.step(limit) {
        // Whatever was sent last, with an octet of its body changed, to both ends.
        let sent: Vec<_> = simulation.nodes.iter().filter_map(|n| n.sent.last().cloned()).collect();
        for (path, mut octets) in sent {
            let body = u64::try_from(octets.len() - 28).unwrap();
            octets[28 + usize::try_from(random.below(body)).unwrap()] ^= 1;
            if octets[18] == 34 {
                continue; // IKE_SA_INIT is not protected.
            }
            let to = if path.remote.ip() == A { 0 } else { 1 };
            let path = Path { local: path.remote, remote: path.local };
            simulation.input(to, Input::Datagram { path, octets: &octets });
        }
    }
    assert!(simulation.has_one_child_each().unwrap());
}

#[test]
fn peers_of_one_address_are_told_apart_by_how_they_authenticate() {
    // The same identity may come with AUTH or with EAP: each finds its own configuration.
    let mut set = policies_of_b(&Plan::default());
    let by_psk: PeerConfig = peer("gate", "b.test", "alice", None);
    set.peers.insert("gate".into(), Arc::new(by_psk));
    let mut simulation = pair(&Plan::default(), Faults::default(), 1);
    simulation.configure(1, set.clone());
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert!(simulation.has_one_child_each().unwrap());
    let status = simulation.nodes[1].endpoint.status(simulation.now);
    assert_eq!(status.ike_sas[0].peer.as_deref(), Some("users"));
}
