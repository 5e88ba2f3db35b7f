//! Which authorities CERTREQ names where there is no room for all of them.

use std::sync::Arc;

use gateway_ike::config::{PeerConfig, RemoteAuth, Start};
use gateway_ike::testing::{Faults, Simulation, peer, policies, protect};
use gateway_wire::{Message, Payload};

use super::certificates::{Authority, trust_in_each};
use super::{A, B, EndpointConfig};

fn trusting(name: &str, address: Option<std::net::IpAddr>, roots: &[Authority]) -> PeerConfig {
    let remote_auth = RemoteAuth::Certificate(Arc::new(trust_in_each(roots)));
    PeerConfig { remote_auth, ..peer(name, "b.test", &format!("{name}.test"), address) }
}

#[test]
fn those_of_peers_at_the_address_come_first_and_who_misses_one_is_named() {
    let roots: Vec<Authority> = (0..40).map(|n| Authority::new(&format!("Root {n}"))).collect();
    // By name the one who may be anywhere would come first.
    let anybody = trusting("anybody", None, &roots[..37]);
    let here = trusting("here", Some(A), &roots[37..]);
    let set = policies(vec![anybody, here.clone()], Vec::new());
    assert_eq!(set.not_asked_for(), [("anybody".into(), 1)]);
    assert_eq!(policies(vec![here.clone()], Vec::new()).not_asked_for(), []);

    let config = EndpointConfig::default();
    let mut simulation = Simulation::with_config(&[A, B], &config, Faults::default(), 1);
    simulation.configure(1, set);
    let net = |text: &str| text.parse().unwrap();
    let (ours, theirs) = (net("10.1.0.0/24"), net("10.2.0.0/24"));
    let rule = protect("to-b", "b", ours, theirs, Start::OnDemand);
    simulation.configure(0, policies(vec![peer("b", "a.test", "b.test", Some(B))], vec![rule]));
    simulation.acquire(0, "to-b");
    simulation.run(super::MINUTE);
    let (_, answer) = &simulation.nodes[1].sent[0];
    assert!(answer.len() <= 1280 - 48, "one packet of IPv6: {}", answer.len());
    let message = Message::decode(answer).unwrap();
    let asked = message.payloads.iter().find_map(|payload| match payload {
        Payload::CertificateRequest(request) => Some(request.authorities),
        _ => None,
    });
    let asked = asked.unwrap();
    assert_eq!(asked.len(), 36 * 20);
    let RemoteAuth::Certificate(trust) = &here.remote_auth else { panic!("{here:?}") };
    assert!(asked.starts_with(trust.anchors.key_hashes().as_flattened()));
}
