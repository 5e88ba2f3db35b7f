//! EAP alone (RFC 5998) by a method that does not authenticate both ends. The policy files have no
//! way to say that; an end that were made to would still refuse.

use gateway_ike::testing::Forge;
use gateway_wire::Payload;

use super::*;

/// A demands that B authenticates itself by EAP, too.
fn alone_at_a() -> PolicySet {
    let mut set = policies_of_a(&Plan::default());
    for peer in set.peers.values_mut() {
        Arc::make_mut(peer).remote_auth = RemoteAuth::Eap(Arc::new(EapAuthenticatorConfig {
            methods: vec![EapMethod::MsChapV2],
            tls: None,
            ask_identity: false,
            any_ike_identity: false,
        }));
    }
    set
}

/// B authenticates itself by nothing but EAP.
fn alone_at_b() -> PolicySet {
    let mut set = policies_of_b(&Plan::default());
    for peer in set.peers.values_mut() {
        Arc::make_mut(peer).local_auth = LocalAuth::Eap(Arc::new(EapPeerConfig {
            identity: "b.test".to_owned(),
            methods: vec![EapMethod::MsChapV2],
            password: Some(secret("correct horse")),
            tls: None,
            authenticator: Identity::Fqdn("alice".to_owned()),
        }));
    }
    set
}

#[test]
fn a_responder_refuses_a_method_that_is_too_weak_to_stand_alone() {
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, alone_at_b());
    simulation.configure(0, alone_at_a());
    simulation.acquire(0, "to-b");
    simulation.run(MINUTE);
    assert_eq!(faults(&simulation, 1), [AuthenticationFault::EapTooWeak(EapMethod::MsChapV2)]);
    assert_eq!(simulation.nodes[1].endpoint.counters().refusals(Cause::Method), 1);
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.is_empty()));
}

/// B proves itself; on the way its AUTH gets lost, as if it had taken A at its word.
#[test]
fn an_initiator_refuses_a_method_that_is_too_weak_to_stand_alone() {
    let mut simulation = Simulation::new(&[A, B], Faults { loss: 100, ..Faults::default() }, 1);
    simulation.configure(1, policies_of_b(&Plan::default()));
    simulation.configure(0, alone_at_a());
    simulation.acquire(0, "to-b");
    for sender in [0, 1].into_iter().cycle().take(20) {
        let (path, mut octets) = simulation.nodes[sender].sent.last().unwrap().clone();
        let forge = Forge::of(&simulation.nodes[sender].endpoint);
        if let Some(forge) = forge.filter(|_| sender == 1)
            && let Some(opened) = forge.open(&octets)
        {
            let mut payloads = opened.payloads().unwrap();
            payloads.retain(|p| !matches!(p, Payload::Authentication(_)));
            octets = forge.seal(&opened.header, &payloads).unwrap();
        }
        let path = Path { local: path.remote, remote: path.local };
        simulation.input(1 - sender, Input::Datagram { path, octets: &octets });
        if !faults(&simulation, 0).is_empty() {
            break;
        }
    }
    assert_eq!(faults(&simulation, 1), [], "B has seen the password");
    assert_eq!(faults(&simulation, 0), [AuthenticationFault::EapTooWeak(EapMethod::MsChapV2)]);
    assert_eq!(counter(&simulation, 0, Counter::EapSucceeded), 0);
    assert!(simulation.nodes[0].kernel.children.is_empty());
}
