//! Refusals as records: ours beside theirs at both ends, with what nearly matched.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "This is test code."
)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_ike::algorithms::{Encryption, Group, IkeProposal, Integrity, Prf, Round};
use gateway_ike::config::{Action, Identity, Mode, PeerConfig, PolicySet, Protect, Rule, Secret};
use gateway_ike::config::{LocalAuth, Start};
use gateway_ike::counters::Counter;
use gateway_ike::event::Event;
use gateway_ike::reason::{Candidate, Cause, Field, Kind, Refusal};
use gateway_ike::testing::{Faults, Simulation, peer, policies, protect};
use gateway_wire::NotifyType;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

/// Two ends that agree, after a change of each.
fn run(change_a: impl FnOnce(&mut PolicySet), change_b: impl FnOnce(&mut PolicySet)) -> Simulation {
    let (left, right) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let mut a = policies(
        vec![peer("b", "a.test", "b.test", Some(B))],
        vec![protect("to-b", "b", left, right, Start::OnDemand)],
    );
    let mut b = policies(
        vec![peer("a", "b.test", "a.test", Some(A))],
        vec![protect("to-a", "a", right, left, Start::Respond)],
    );
    change_a(&mut a);
    change_b(&mut b);
    let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
    simulation.configure(1, b);
    simulation.configure(0, a);
    simulation.acquire(0, "to-b");
    simulation.run(Duration::from_secs(10));
    simulation
}

fn of_peer(policies: &mut PolicySet, change: impl Fn(&mut PeerConfig)) {
    policies.peers.values_mut().for_each(|p| change(Arc::make_mut(p)));
}

fn of_rule(policies: &mut PolicySet, change: impl Fn(&mut Rule)) {
    policies.rules.values_mut().for_each(|r| change(Arc::make_mut(r)));
}

fn of_protect(policies: &mut PolicySet, change: impl Fn(&mut Protect)) {
    of_rule(policies, |rule| {
        if let Action::Protect(protect) = &mut rule.action {
            change(protect);
        }
    });
}

/// The one refusal at a node, which may have been repeated, and the milestone that it came with; it
/// has been counted as often.
fn refusal(simulation: &Simulation, node: usize) -> (&Event, &Refusal) {
    let events = simulation.nodes[node].events.iter();
    let found: Vec<_> = events.filter_map(|e| Some((e, e.refusal.as_deref()?))).collect();
    let [(event, refusal), rest @ ..] = found.as_slice() else { panic!("nothing is refused") };
    assert!(rest.iter().all(|(_, again)| again == refusal), "{found:#?}");
    let counters = simulation.nodes[node].endpoint.counters();
    let times = u64::try_from(found.len()).unwrap();
    assert_eq!(counters.refusals(refusal.cause), times);
    let counted = counters.iter().find(|(name, _)| *name == refusal.cause.counter()).unwrap();
    assert_eq!(counted.1, times);
    (event, refusal)
}

fn field<'a>(candidate: &'a Candidate, name: &str) -> &'a Field {
    let found = candidate.fields.iter().find(|f| f.name.to_string() == name);
    found.unwrap_or_else(|| panic!("no {name} in {candidate:#?}"))
}

fn values(field: &Field) -> (Vec<&str>, Vec<&str>) {
    (
        field.ours.iter().map(String::as_str).collect(),
        field.theirs.iter().map(String::as_str).collect(),
    )
}

#[test]
fn ends_that_agree_refuse_nothing() {
    let simulation = run(|_| {}, |_| {});
    for node in &simulation.nodes {
        assert_eq!(node.kernel.children.len(), 1);
        assert!(node.events.iter().all(|e| e.refusal.is_none()));
        assert!(Cause::ALL.iter().all(|c| node.endpoint.counters().refusals(*c) == 0));
    }
}

#[test]
fn a_refused_ike_proposal_names_the_transform_and_the_nearest_of_ours() {
    let cbc = |p: &mut PeerConfig| {
        let mut cbc = p.proposals[0].clone();
        cbc.encryption = vec![Encryption::Aes256Cbc];
        cbc.integrity = vec![Integrity::HmacSha384];
        let mut near = p.proposals[0].clone();
        near.prf = vec![Prf::HmacSha512];
        p.proposals = vec![cbc, near];
    };
    let simulation = run(|_| {}, |b| of_peer(b, cbc));
    let (event, refusal) = refusal(&simulation, 1);
    assert_eq!((refusal.cause, refusal.cause.kind()), (Cause::Prf, Kind::Proposal));
    assert_eq!((refusal.candidates.len(), refusal.said), (2, None));
    let nearest = refusal.nearest_candidate().unwrap();
    assert_eq!((nearest.peer.as_deref(), nearest.rule.as_deref()), (Some("a"), Some("to-a")));
    assert_eq!((nearest.proposal, nearest.their_proposal), (Some(2), Some(1)));
    let prf = field(nearest, "prf");
    assert_eq!(prf.fits, Some(false));
    assert_eq!(values(prf), (vec!["PRF_HMAC_SHA2_512"], vec!["PRF_HMAC_SHA2_256"]));
    assert_eq!(field(nearest, "encryption").fits, Some(true));
    assert_eq!(field(nearest, "key_exchange").fits, Some(true));
    let other = &refusal.candidates[1];
    assert_eq!(other.proposal, Some(1));
    let unfit: Vec<_> = other.unfit().map(|f| f.name.to_string()).collect();
    assert_eq!(unfit, ["encryption", "integrity"]);
    let line = event.to_string();
    assert!(line.contains("prf: ours PRF_HMAC_SHA2_512, theirs PRF_HMAC_SHA2_256"), "{line}");
    assert!(line.ends_with("(nearest: peer a, rule to-a, proposal 2, their proposal 1)"), "{line}");
    assert!(event.is_of_a_stranger(), "nothing says who sent the request");
    assert!(simulation.nodes[1].endpoint.counters().value(Counter::NoProposalChosen) >= 1);

    // The initiator says what it offered, and what it was told.
    let (event, told) = self::refusal(&simulation, 0);
    assert_eq!(told.cause, Cause::ProposalByPeer);
    assert_eq!(told.said, Some(NotifyType::NO_PROPOSAL_CHOSEN));
    let offered = told.nearest_candidate().unwrap();
    assert_eq!(offered.rule.as_deref(), Some("to-b"));
    let prf = field(offered, "prf");
    assert_eq!((values(prf), prf.fits), ((vec!["PRF_HMAC_SHA2_256"], vec![]), None));
    assert!(event.is_of_a_stranger(), "anybody could have sent it");
}

#[test]
fn an_address_of_nobody_is_refused_with_what_was_proposed() {
    let simulation =
        run(|_| {}, |b| of_peer(b, |p| p.remote_address = Some([192, 0, 2, 9].into())));
    let (_, refusal) = refusal(&simulation, 1);
    assert_eq!(refusal.cause, Cause::NoPeer);
    let proposed = refusal.nearest_candidate().unwrap();
    assert_eq!((proposed.peer.as_ref(), proposed.their_proposal), (None, Some(1)));
    assert_eq!(proposed.rule, None, "nobody has one");
    let (ours, theirs) = values(field(proposed, "encryption"));
    assert!(ours.is_empty() && theirs.len() == 2, "{ours:?} {theirs:?}");
}

#[test]
fn a_refused_esp_proposal_names_the_rule() {
    let simulation = run(
        |a| of_protect(a, |p| p.proposals[0].encryption = vec![Encryption::Aes128Gcm16]),
        |_| {},
    );
    let (event, refusal) = refusal(&simulation, 1);
    assert_eq!(refusal.cause, Cause::Encryption);
    assert_eq!(event.peer.as_deref(), Some("a"));
    assert!(!event.is_of_a_stranger());
    let nearest = refusal.nearest_candidate().unwrap();
    assert_eq!(nearest.rule.as_deref(), Some("to-a"));
    let (ours, theirs) = values(field(nearest, "encryption"));
    assert_eq!((ours, theirs), (vec!["AES_GCM_16_256"], vec!["AES_GCM_16_128"]));
    let (_, told) = self::refusal(&simulation, 0);
    assert_eq!(
        (told.cause, told.said),
        (Cause::ProposalByPeer, Some(NotifyType::NO_PROPOSAL_CHOSEN))
    );
    assert_eq!(told.nearest_candidate().unwrap().rule.as_deref(), Some("to-b"));
}

#[test]
fn a_rekeying_that_is_refused_has_a_record_too() {
    // In IKE_AUTH no key exchange may be named; afterwards the two disagree on it.
    let lifetime = |p: &mut Protect| {
        p.lifetime.time = Duration::from_secs(4);
        p.proposals[0].groups = vec![Group::X25519];
    };
    let simulation = run(|a| of_protect(a, lifetime), |_| {});
    let (_, refusal) =
        simulation.nodes[1].events.iter().find_map(|e| Some((e, e.refusal.as_deref()?))).unwrap();
    assert_eq!(refusal.cause, Cause::KeyExchange);
    let told = simulation.nodes[0].events.iter().find_map(|e| e.refusal.as_deref()).unwrap();
    assert_eq!(told.nearest_candidate().unwrap().rule.as_deref(), Some("to-b"));
    let offered = field(told.nearest_candidate().unwrap(), "key_exchange");
    assert_eq!(values(offered), (vec!["CURVE25519"], vec![]));
}

#[test]
fn refused_selectors_stand_beside_those_of_each_rule_the_nearest_first() {
    let (left, right) = ("10.1.0.0/24".parse().unwrap(), "10.2.0.0/24".parse().unwrap());
    let simulation = run(
        |a| of_rule(a, |r| r.protocol = Some(6)),
        |b| {
            of_rule(b, |r| {
                r.local = vec!["172.16.0.0/12".parse().unwrap()];
                r.remote = vec!["172.32.0.0/16".parse().unwrap()];
            });
            let mut near = protect("udp", "a", right, left, Start::Respond);
            near.protocol = Some(17);
            b.rules.insert("udp".into(), Arc::new(near));
        },
    );
    let (event, refusal) = refusal(&simulation, 1);
    assert_eq!((refusal.cause, refusal.cause.kind()), (Cause::SelectorProtocol, Kind::Selectors));
    assert_eq!(refusal.candidates.len(), 2);
    let nearest = refusal.nearest_candidate().unwrap();
    assert_eq!(nearest.rule.as_deref(), Some("udp"));
    assert_eq!(values(field(nearest, "ip_protocol")), (vec!["17"], vec!["6"]));
    assert_eq!(field(nearest, "local_addresses").fits, Some(true));
    let other = &refusal.candidates[1];
    assert_eq!(other.rule.as_deref(), Some("to-a"));
    let local = field(other, "local_addresses");
    assert_eq!(values(local), (vec!["172.16.0.0/12"], vec!["10.2.0.0/32", "10.2.0.0/24"]));
    assert_eq!(local.fits, Some(false));
    assert_eq!(field(other, "remote_addresses").fits, Some(false));
    let line = event.to_string();
    assert!(line.contains("ip_protocol: ours 17, theirs 6 (nearest: rule udp)"), "{line}");

    let (_, told) = self::refusal(&simulation, 0);
    assert_eq!(
        (told.cause, told.said),
        (Cause::SelectorsByPeer, Some(NotifyType::TS_UNACCEPTABLE))
    );
    let asked = told.nearest_candidate().unwrap();
    assert_eq!(asked.rule.as_deref(), Some("to-b"));
    assert_eq!(values(field(asked, "remote_addresses")), (vec!["10.2.0.0/24"], vec![]));
}

#[test]
fn ports_modes_and_absent_rules_are_told_apart() {
    let ports = |range: core::ops::RangeInclusive<u16>| {
        move |p: &mut PolicySet| {
            of_rule(p, |r| {
                r.protocol = Some(6);
                (r.local_ports, r.remote_ports) = (range.clone(), range.clone());
            });
        }
    };
    let simulation = run(ports(1..=10), ports(11..=20));
    let (_, refusal) = refusal(&simulation, 1);
    assert_eq!(refusal.cause, Cause::Ports);
    let nearest = refusal.nearest_candidate().unwrap();
    assert_eq!(values(field(nearest, "local_ports")), (vec!["11-20"], vec!["1", "1-10"]));

    let simulation = run(|_| {}, |b| b.rules.clear());
    let (_, refusal) = self::refusal(&simulation, 1);
    assert_eq!(refusal.cause, Cause::NoRule);
    let asked = refusal.nearest_candidate().unwrap();
    assert_eq!(asked.rule, None);
    assert_eq!(
        values(field(asked, "local_addresses")),
        (vec![], vec!["10.2.0.0/32", "10.2.0.0/24"])
    );

    let simulation = run(|_| {}, |b| of_protect(b, |p| p.mode = Mode::Transport));
    let (_, refusal) = self::refusal(&simulation, 1);
    assert_eq!(refusal.cause, Cause::Mode);
    let nearest = refusal.nearest_candidate().unwrap();
    assert_eq!(nearest.rule.as_deref(), Some("to-a"));
    assert_eq!(values(field(nearest, "mode")), (vec!["transport"], vec!["tunnel"]));

    // The peer grants less than was asked for.
    let between = |policies: &mut PolicySet, [local, remote]: [IpAddr; 2]| {
        of_rule(policies, |rule| {
            (rule.local, rule.remote) = (vec![local.into()], vec![remote.into()]);
        });
    };
    let transport = |a: &mut PolicySet| {
        between(a, [A, B]);
        of_protect(a, |p| p.mode = Mode::Transport);
    };
    let simulation = run(transport, |b| between(b, [B, A]));
    let (_, refusal) = self::refusal(&simulation, 0);
    assert_eq!(refusal.cause, Cause::Mode);
    let nearest = refusal.nearest_candidate().unwrap();
    assert_eq!((nearest.peer.as_deref(), nearest.rule.as_deref()), (Some("b"), Some("to-b")));
    assert_eq!(values(field(nearest, "mode")), (vec!["transport"], vec!["tunnel"]));
}

#[test]
fn an_unknown_identity_stands_beside_those_that_are_configured() {
    let name = |name: &str| Identity::Fqdn(name.to_owned());
    let simulation = run(
        |a| of_peer(a, |p| p.local_id = name("c.test")),
        |b| {
            let mut other = peer("mail", "b.test", "", Some(A));
            other.remote_id = Identity::Email("me@a.test".to_owned());
            other.local_id = name("x.test");
            b.peers.insert("mail".into(), Arc::new(other));
        },
    );
    let (event, refusal) = refusal(&simulation, 1);
    assert_eq!((refusal.cause, refusal.cause.kind()), (Cause::UnknownIdentity, Kind::Identity));
    let nearest = refusal.nearest_candidate().unwrap();
    assert_eq!(nearest.peer.as_deref(), Some("a"), "whose own identity fits at least");
    let identity = field(nearest, "remote_identity");
    assert_eq!(values(identity), (vec!["FQDN a.test"], vec!["FQDN c.test"]));
    assert_eq!(identity.fits, Some(false));
    assert_eq!(field(nearest, "local_identity").fits, Some(true));
    assert_eq!(field(nearest, "method").fits, Some(true));
    let other = field(&refusal.candidates[1], "remote_identity");
    assert_eq!(values(other).0, ["RFC822_ADDR me@a.test"]);
    assert!(event.is_of_a_stranger());

    // The initiator hears nothing but that it was refused, and records what it showed.
    let (_, told) = self::refusal(&simulation, 0);
    assert_eq!(told.cause, Cause::AuthenticationByPeer);
    assert_eq!(told.said, Some(NotifyType::AUTHENTICATION_FAILED));
    let shown = told.nearest_candidate().unwrap();
    assert_eq!(values(field(shown, "local_identity")).0, ["FQDN c.test"]);
    assert_eq!(values(field(shown, "method")).0, ["psk"]);
}

#[test]
fn who_is_refused_is_shown_the_rule_that_is_nearest_to_what_was_asked_for() {
    let net = |net: &str| net.parse().unwrap();
    let rules_of_b = |b: &mut PolicySet| {
        let a_rule = |name: &str, left: &str, right: &str| {
            let rule = protect(name, "a", net(right), net(left), Start::Respond);
            (name.into(), Arc::new(rule))
        };
        b.rules = [
            a_rule("1-elsewhere", "10.1.9.0/24", "10.2.9.0/24"),
            a_rule("2-half", "10.1.0.0/24", "10.2.9.0/24"),
            a_rule("3-whole", "10.1.0.0/24", "10.2.0.0/24"),
        ]
        .into();
    };
    let more_of_a = |a: &mut PolicySet| {
        // By name before the one that traffic has asked for.
        let more = protect("more", "b", net("10.1.9.0/24"), net("10.2.9.0/24"), Start::OnDemand);
        a.rules.insert("more".into(), Arc::new(more));
    };
    let rule = |simulation: &Simulation, node: usize| {
        let (_, refusal) = refusal(simulation, node);
        let nearest = refusal.nearest_candidate().unwrap();
        let rule = nearest.rule.clone().unwrap().to_string();
        let peer = nearest.peer.as_deref().unwrap();
        assert!(refusal.to_string().contains(&format!("nearest: peer {peer}, rule {rule}")));
        (refusal.cause, rule)
    };
    // The identity and its proof come with the selectors; whoever asks knows for which rule.
    let other = |p: &mut PeerConfig| p.local_auth = LocalAuth::Psk(Secret::new(b"x".to_vec()));
    let simulation = run(
        |a| {
            of_peer(a, other);
            more_of_a(a);
        },
        rules_of_b,
    );
    assert_eq!(rule(&simulation, 1), (Cause::SharedKey, "3-whole".to_owned()));
    assert_eq!(rule(&simulation, 0), (Cause::AuthenticationByPeer, "to-b".to_owned()));
    let other = |p: &mut PeerConfig| p.local_id = Identity::Fqdn("c.test".to_owned());
    let simulation = run(|a| of_peer(a, other), rules_of_b);
    assert_eq!(rule(&simulation, 1), (Cause::UnknownIdentity, "3-whole".to_owned()));
    // An IKE proposal comes without any: the first.
    let other = |p: &mut PeerConfig| p.proposals[0].prf = vec![Prf::HmacSha512];
    let simulation = run(|a| of_peer(a, other), rules_of_b);
    assert_eq!(rule(&simulation, 1), (Cause::Prf, "1-elsewhere".to_owned()));
    // One without rules has none to show.
    let simulation = run(|a| of_peer(a, other), |b| b.rules.clear());
    assert_eq!(refusal(&simulation, 1).1.nearest_candidate().unwrap().rule, None);
}

#[test]
fn a_responder_that_is_somebody_else_stands_beside_whom_we_expect() {
    let simulation = run(
        |a| of_peer(a, |p| p.remote_id = Identity::Fqdn("c.test".to_owned())),
        // It calls itself as before, and is asked for by that name.
        |b| of_peer(b, |p| p.local_id = Identity::Fqdn("c.test".to_owned())),
    );
    assert!(simulation.nodes.iter().all(|n| n.kernel.children.len() == 1));
    let simulation =
        run(|a| of_peer(a, |p| p.remote_id = Identity::Fqdn("c.test".to_owned())), |_| {});
    let (_, refusal) = refusal(&simulation, 1);
    let nearest = refusal.nearest_candidate().unwrap();
    let wanted = field(nearest, "local_identity");
    assert_eq!(
        (values(wanted), wanted.fits),
        ((vec!["FQDN b.test"], vec!["FQDN c.test"]), Some(false))
    );
}

#[test]
fn a_peer_that_has_only_sha1_is_refused_with_a_record_that_names_it() {
    let cbc = |integrity, prf| {
        move |p: &mut PeerConfig| {
            p.proposals[0].encryption = vec![Encryption::Aes128Cbc];
            (p.proposals[0].integrity, p.proposals[0].prf) = (vec![integrity], vec![prf]);
        }
    };
    let simulation = run(
        |a| of_peer(a, cbc(Integrity::HmacSha1, Prf::HmacSha1)),
        |b| of_peer(b, cbc(Integrity::HmacSha256, Prf::HmacSha256)),
    );
    let (event, refusal) = refusal(&simulation, 1);
    let nearest = refusal.nearest_candidate().unwrap();
    let integrity = field(nearest, "integrity");
    assert_eq!(values(integrity), (vec!["AUTH_HMAC_SHA2_256_128"], vec!["AUTH_HMAC_SHA1_96"]));
    let prf = field(nearest, "prf");
    assert_eq!(values(prf), (vec!["PRF_HMAC_SHA2_256"], vec!["PRF_HMAC_SHA1"]));
    assert_eq!([integrity.fits, prf.fits], [Some(false); 2]);
    let line = event.to_string();
    assert!(line.contains("ours PRF_HMAC_SHA2_256, theirs PRF_HMAC_SHA1"), "{line}");
    assert!(simulation.nodes.iter().all(|node| node.kernel.children.is_empty()));
}

#[test]
fn another_pre_shared_key_is_said_and_never_shown() {
    let other = || Secret::new(b"another secret".to_vec());
    let simulation = run(|a| of_peer(a, |p| p.local_auth = LocalAuth::Psk(other())), |_| {});
    let (event, refusal) = refusal(&simulation, 1);
    assert_eq!((refusal.cause, refusal.cause.kind()), (Cause::SharedKey, Kind::Authentication));
    let text = format!("{event} {event:?} {refusal}");
    assert!(!text.contains("secret") && !text.contains("for tests"), "{text}");
}

#[test]
fn what_a_stranger_is_told_says_nothing_of_the_record() {
    // One octet of type and no data: the answers are as short as ever.
    let simulation = run(|_| {}, |b| of_peer(b, |p| p.proposals[0].prf = vec![Prf::HmacSha512]));
    let answers: Vec<_> = simulation.nodes[1].sent.iter().map(|(_, octets)| octets.len()).collect();
    assert!(!answers.is_empty() && answers.iter().all(|len| *len == 28 + 8), "{answers:?}");
}

/// Of peers that may be at the same place, the one for which somebody allows SHA-1 decides for no other.
#[test]
fn sha1_that_one_peer_may_use_is_not_what_another_gets() {
    let cbc = |integrity: Vec<_>, prf: Vec<_>| {
        move |p: &mut PeerConfig| {
            p.proposals[0].encryption = vec![Encryption::Aes128Cbc];
            (p.proposals[0].integrity, p.proposals[0].prf) = (integrity.clone(), prf.clone());
        }
    };
    let sha2 = || cbc(vec![Integrity::HmacSha256], vec![Prf::HmacSha256]);
    let sha1 = || cbc(vec![Integrity::HmacSha1], vec![Prf::HmacSha1]);
    let both =
        cbc(vec![Integrity::HmacSha1, Integrity::HmacSha256], vec![Prf::HmacSha1, Prf::HmacSha256]);
    let with_old = |b: &mut PolicySet| {
        of_peer(b, sha2());
        of_peer(b, |p| p.remote_address = None);
        let mut old = peer("0-old", "b.test", "old.test", None);
        sha1()(&mut old);
        b.peers.insert("0-old".into(), Arc::new(old));
    };
    let simulation = run(|a| of_peer(a, both), with_old);
    for node in &simulation.nodes {
        let ike_sas = node.endpoint.status(simulation.now).ike_sas;
        let suite = ike_sas.first().unwrap().suite.unwrap();
        assert_eq!((suite.integrity, suite.prf), (Some(Integrity::HmacSha256), Prf::HmacSha256));
        assert_eq!(node.kernel.children.len(), 1);
    }
    // Who has nothing else has SHA-1, where it is allowed.
    let old = |a: &mut PolicySet| {
        of_peer(a, sha1());
        of_peer(a, |p| p.local_id = Identity::Fqdn("old.test".to_owned()));
    };
    let simulation = run(old, with_old);
    let counters = simulation.nodes[0].endpoint.counters();
    assert_eq!(counters.value(Counter::IkeSaEstablished), 1);
}

/// Nor does another get no post-quantum key exchange because one has none; where both are at their own
/// addresses each has what is configured for it.
#[test]
fn a_peer_without_ml_kem_keeps_no_other_from_it() {
    let hybrid = |p: &mut PeerConfig| {
        let classic = p.proposals[0].clone();
        let additional = [(Round::Ke1, vec![Some(Group::MlKem768)])].into();
        p.proposals = vec![IkeProposal { additional, ..classic.clone() }, classic];
    };
    let with_old = |at: Option<IpAddr>| {
        move |b: &mut PolicySet| {
            of_peer(b, hybrid);
            of_peer(b, |p| p.remote_address = None);
            let old = peer("0-old", "b.test", "old.test", at);
            b.peers.insert("0-old".into(), Arc::new(old));
        }
    };
    let safe = |simulation: &Simulation| {
        let ike_sas = simulation.nodes[1].endpoint.status(simulation.now).ike_sas;
        ike_sas.first().unwrap().suite.unwrap().is_quantum_safe()
    };
    assert!(safe(&run(|a| of_peer(a, hybrid), with_old(None))));
    let old = |a: &mut PolicySet| {
        of_peer(a, hybrid);
        of_peer(a, |p| p.local_id = Identity::Fqdn("old.test".to_owned()));
    };
    let simulation = run(old, with_old(Some(A)));
    assert_eq!(simulation.nodes[0].endpoint.counters().value(Counter::IkeSaEstablished), 1);
    assert!(!safe(&simulation));
}
