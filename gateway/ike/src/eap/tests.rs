//! Both ends against each other: every method, every way to fail, and any octets.
#![expect(clippy::arithmetic_side_effects, reason = "a panic is how a test fails")]

use std::sync::Arc;

use gateway_wire::{Eap, EapCode, EapType};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::{Identity, Secret};
use crate::testing::SeededRandom;

const LIMITS: Limits =
    Limits { rounds: 20, message: 65_536, certificates: Bounds { count: 8, size: 16_384 } };

fn users(of: &[(&str, &str)]) -> Users {
    let user = |(name, password): &(&str, &str)| {
        let password = Secret::new(password.as_bytes().to_vec());
        ((*name).into(), Arc::new(User { name: (*name).into(), password }))
    };
    of.iter().map(user).collect()
}

fn peer_config(methods: &[EapMethod], identity: &str, password: &str) -> EapPeerConfig {
    EapPeerConfig {
        identity: identity.to_owned(),
        methods: methods.to_vec(),
        password: Some(Secret::new(password.as_bytes().to_vec())),
        tls: None,
        authenticator: Identity::Fqdn("b.test".to_owned()),
    }
}

fn authenticator_config(methods: &[EapMethod], ask_identity: bool) -> EapAuthenticatorConfig {
    EapAuthenticatorConfig {
        methods: methods.to_vec(),
        tls: None,
        ask_identity,
        any_ike_identity: false,
    }
}

fn none() -> Users {
    Users::new()
}

fn around<'a>(random: &'a mut SeededRandom, users: &'a Users) -> Surroundings<'a> {
    Surroundings { random, users, time_of_day: None }
}

/// How a conversation ended at both ends.
struct Ends {
    peer: Result<Success, Fault>,
    authenticator: Result<Success, Fault>,
    messages: usize,
    identity: Option<String>,
}

/// Runs a conversation to its end.
fn converse(
    peer: EapPeerConfig,
    methods: &[EapMethod],
    ask_identity: bool,
    users: &Users,
    limits: (Limits, Limits),
) -> Ends {
    let mut random = SeededRandom::new(5);
    let ike_identity = (!ask_identity).then(|| peer.identity.clone());
    let config = authenticator_config(methods, ask_identity);
    let mut peer = Peer::new(Arc::new(peer), limits.0);
    let (mut authenticator, mut message) = Authenticator::begin(
        Arc::new(config),
        limits.1,
        &mut around(&mut random, users),
        ike_identity,
    )
    .unwrap();
    let mut messages = 0;
    loop {
        messages += 1;
        let identity = |a: &Authenticator| a.identity().map(str::to_owned);
        let answer = match peer.handle(&mut around(&mut random, &none()), &message.as_wire()) {
            Action::Send(answer) => answer,
            Action::Success(..) => panic!("success before the authenticator's"),
            Action::Failure(nothing, fault) => {
                assert_eq!(nothing, None);
                return Ends {
                    peer: Err(fault),
                    authenticator: Err(Fault::Unexpected("the peer has left")),
                    messages,
                    identity: identity(&authenticator),
                };
            }
        };
        let (last, authenticator_end) =
            match authenticator.handle(&mut around(&mut random, users), &answer.as_wire()) {
                Action::Send(next) => {
                    message = next;
                    continue;
                }
                Action::Success(last, success) => (last.unwrap(), Ok(success)),
                Action::Failure(last, fault) => (last.unwrap(), Err(fault)),
            };
        let peer_end = match peer.handle(&mut around(&mut random, &none()), &last.as_wire()) {
            Action::Success(None, success) => Ok(success),
            Action::Failure(None, fault) => Err(fault),
            other @ (Action::Send(_) | Action::Success(..) | Action::Failure(..)) => {
                panic!("{other:?} after the end")
            }
        };
        return Ends {
            peer: peer_end,
            authenticator: authenticator_end,
            messages,
            identity: identity(&authenticator),
        };
    }
}

fn with_password(method: EapMethod, name: &str, password: &str, ask: bool) -> Ends {
    let users = users(&[("alice", "correct horse"), ("bob", "battery staple")]);
    converse(peer_config(&[method], name, password), &[method], ask, &users, (LIMITS, LIMITS))
}

#[test]
fn the_right_password_is_believed_and_both_ends_have_the_same_key() {
    for method in [EapMethod::Md5, EapMethod::MsChapV2] {
        for ask in [false, true] {
            let ends = with_password(method, "alice", "correct horse", ask);
            let (peer, authenticator) = (ends.peer.unwrap(), ends.authenticator.unwrap());
            assert_eq!(peer.method, method);
            assert_eq!(peer.msk, authenticator.msk);
            let has_key = method == EapMethod::MsChapV2;
            assert_eq!(peer.msk.map(|msk| msk.len()), has_key.then_some(64));
            assert_eq!(ends.identity.as_deref(), Some("alice"));
            let rounds = if has_key { 2 } else { 1 } + usize::from(ask);
            assert_eq!(ends.messages, rounds);
        }
    }
}

#[test]
fn a_windows_domain_is_not_looked_at() {
    for method in [EapMethod::Md5, EapMethod::MsChapV2] {
        let ends = with_password(method, "ACME\\alice", "correct horse", true);
        assert!(ends.authenticator.is_ok(), "{method}");
        assert!(ends.peer.is_ok(), "{method}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same_from_outside() {
    for method in [EapMethod::Md5, EapMethod::MsChapV2] {
        let wrong = with_password(method, "alice", "another", false);
        assert_eq!(wrong.authenticator, Err(Fault::WrongPassword));
        let unknown = with_password(method, "mallory", "correct horse", false);
        assert_eq!(unknown.authenticator, Err(Fault::UnknownUser));
        assert_eq!(wrong.peer, unknown.peer, "the peer hears one thing");
        assert_eq!(wrong.messages, unknown.messages, "after as many messages");
        let Err(Fault::Refused(words)) = wrong.peer else { panic!("the peer hears of it") };
        let expected = match method {
            EapMethod::MsChapV2 => "E=691, wrong name or password",
            EapMethod::Md5 | EapMethod::Tls => "EAP-Failure, without a reason",
        };
        assert_eq!(words, expected);
    }
}

#[test]
fn an_empty_password_of_an_unknown_user_is_wrong() {
    let ends = with_password(EapMethod::Md5, "mallory", "", false);
    assert_eq!(ends.authenticator, Err(Fault::UnknownUser));
}

#[test]
fn methods_are_negotiated_by_nak() {
    use EapMethod::{Md5, MsChapV2};
    let users = users(&[("alice", "x")]);
    let converse = |peer: &[EapMethod], ours: &[EapMethod]| {
        converse(peer_config(peer, "alice", "x"), ours, false, &users, (LIMITS, LIMITS))
    };
    for (peer, ours, chosen, messages) in [
        (&[Md5][..], &[MsChapV2, Md5][..], Md5, 2),
        (&[MsChapV2, Md5], &[Md5, MsChapV2], Md5, 1),
        (&[MsChapV2], &[Md5, MsChapV2], MsChapV2, 3),
    ] {
        let ends = converse(peer, ours);
        assert_eq!(ends.peer.unwrap().method, chosen);
        assert_eq!(ends.authenticator.unwrap().method, chosen);
        assert_eq!(ends.messages, messages);
    }
    let ends = converse(&[Md5], &[MsChapV2]);
    let words = |name: &str| name.to_owned();
    assert_eq!(
        ends.authenticator,
        Err(Fault::NoCommonMethod { ours: words("MSCHAP_V2"), theirs: words("MD5_CHALLENGE") })
    );
    assert_eq!(
        ends.peer,
        Err(Fault::MethodNotAcceptable {
            theirs: words("MSCHAP_V2"),
            ours: words("MD5_CHALLENGE")
        })
    );
}

#[test]
fn either_end_stops_after_so_many_messages() {
    let users = users(&[("alice", "x")]);
    let one = Limits { rounds: 1, ..LIMITS };
    let config = || peer_config(&[EapMethod::MsChapV2], "alice", "x");
    let methods = &[EapMethod::MsChapV2];
    let ends = converse(config(), methods, true, &users, (LIMITS, one));
    assert_eq!(ends.authenticator, Err(Fault::TooManyRounds(1)));
    let ends = converse(config(), methods, true, &users, (one, LIMITS));
    assert_eq!(ends.peer, Err(Fault::TooManyRounds(1)));
}

fn peer(methods: &[EapMethod]) -> Peer {
    Peer::new(Arc::new(peer_config(methods, "alice", "x")), LIMITS)
}

fn request(data: &[u8]) -> Eap<'_> {
    Eap { code: EapCode::REQUEST, identifier: 9, data }
}

#[test]
fn a_notification_is_acknowledged() {
    let mut random = SeededRandom::new(1);
    let Action::Send(answer) = peer(&[EapMethod::Md5])
        .handle(&mut around(&mut random, &none()), &request(b"\x02Your password expires"))
    else {
        panic!("an answer")
    };
    assert_eq!(answer.as_wire(), Eap { code: EapCode::RESPONSE, identifier: 9, data: &[2] });
}

#[test]
fn success_out_of_nothing_is_not_believed() {
    let mut random = SeededRandom::new(1);
    let success = Eap { code: EapCode::SUCCESS, identifier: 9, data: &[] };
    let mut fresh = peer(&[EapMethod::MsChapV2]);
    assert!(matches!(
        fresh.handle(&mut around(&mut random, &none()), &success),
        Action::Failure(None, Fault::Unexpected(_))
    ));
    // After the response, before the authenticator has proven that it knows the password.
    let mut asked = peer(&[EapMethod::MsChapV2]);
    let challenge = [&[26, 1, 9, 0, 22, 16][..], &[7; 16], b"s"].concat();
    assert!(matches!(
        asked.handle(&mut around(&mut random, &none()), &request(&challenge)),
        Action::Send(_)
    ));
    assert!(matches!(
        asked.handle(&mut around(&mut random, &none()), &success),
        Action::Failure(None, Fault::Unexpected(_))
    ));
}

#[test]
fn an_authenticator_that_does_not_know_the_password_is_not_believed() {
    let mut random = SeededRandom::new(1);
    let mut peer = peer(&[EapMethod::MsChapV2]);
    let challenge = [&[26, 1, 9, 0, 22, 16][..], &[7; 16], b"s"].concat();
    assert!(matches!(
        peer.handle(&mut around(&mut random, &none()), &request(&challenge)),
        Action::Send(_)
    ));
    let proof = [&[26, 3, 9, 0, 46][..], b"S=", &[b'0'; 40]].concat();
    assert_eq!(
        peer.handle(&mut around(&mut random, &none()), &request(&proof)),
        Action::Failure(None, Fault::UnprovenAuthenticator)
    );
}

#[test]
fn another_method_after_the_first_is_refused() {
    let mut random = SeededRandom::new(1);
    let mut peer = peer(&[EapMethod::MsChapV2, EapMethod::Md5]);
    assert!(matches!(
        peer.handle(&mut around(&mut random, &none()), &request(&[4, 2, 1, 1])),
        Action::Send(_)
    ));
    let challenge = [&[26, 1, 9, 0, 22, 16][..], &[7; 16], b"s"].concat();
    assert!(matches!(
        peer.handle(&mut around(&mut random, &none()), &request(&challenge)),
        Action::Failure(None, Fault::Unexpected(_))
    ));
}

#[test]
fn a_vendors_method_is_refused_with_what_we_have() {
    let mut random = SeededRandom::new(1);
    let expanded = [254, 0, 1, 2, 0, 0, 0, 9];
    let Action::Send(nak) =
        peer(&[EapMethod::MsChapV2]).handle(&mut around(&mut random, &none()), &request(&expanded))
    else {
        panic!("an answer")
    };
    assert_eq!(nak.as_wire().data, [EapType::NAK.0, EapType::MSCHAP_V2.0]);
}

#[test]
fn a_response_to_another_request_is_none() {
    for code in [EapCode::RESPONSE, EapCode::REQUEST, EapCode::SUCCESS] {
        let mut random = SeededRandom::new(1);
        let config = authenticator_config(&[EapMethod::Md5], true);
        let users = users(&[("alice", "x")]);
        let (mut authenticator, asked) =
            Authenticator::begin(Arc::new(config), LIMITS, &mut around(&mut random, &users), None)
                .unwrap();
        let other = u8::from(code == EapCode::RESPONSE);
        let identifier = asked.as_wire().identifier.wrapping_add(other);
        let answer = Eap { code, identifier, data: b"\x01alice" };
        let Action::Failure(Some(failure), Fault::Malformed(_)) =
            authenticator.handle(&mut around(&mut random, &users), &answer)
        else {
            panic!("{code} is refused")
        };
        assert_eq!(failure.code, EapCode::FAILURE);
    }
}

#[test]
fn an_identity_that_is_no_name_is_refused() {
    for name in [&b""[..], b"\xff", b"a\0b", &[b'x'; 254]] {
        let mut random = SeededRandom::new(1);
        let config = authenticator_config(&[EapMethod::Md5], true);
        let users = users(&[]);
        let (mut authenticator, asked) =
            Authenticator::begin(Arc::new(config), LIMITS, &mut around(&mut random, &users), None)
                .unwrap();
        let data = [&[1], name].concat();
        let answer =
            Eap { code: EapCode::RESPONSE, identifier: asked.as_wire().identifier, data: &data };
        let Action::Failure(Some(failure), fault) =
            authenticator.handle(&mut around(&mut random, &users), &answer)
        else {
            panic!("{name:?} is refused")
        };
        assert_eq!(fault, Fault::NoIdentity);
        assert_eq!(failure.code, EapCode::FAILURE);
    }
}

proptest! {
    /// Whatever comes, neither end panics, and both stop in time.
    #[test]
    fn any_messages_are_borne(
        seed: u64, ask: bool,
        messages in vec((1..5_u8, vec(any::<u8>(), 0..80), 0..6_u8), 1..30),
    ) {
        let mut random = SeededRandom::new(seed);
        let users = users(&[("alice", "x")]);
        let methods = [EapMethod::MsChapV2, EapMethod::Md5];
        let config = authenticator_config(&methods, ask);
        let identity = (!ask).then(|| "alice".to_owned());
        let (mut authenticator, mut last) =
            Authenticator::begin(Arc::new(config), LIMITS, &mut around(&mut random, &users), identity).unwrap();
        let mut peer = peer(&methods);
        for (code, mut data, kind) in messages {
            // Mostly types that mean something.
            if let Some(first) = data.first_mut() && kind > 0 {
                *first = [*first, 1, 3, 4, 13, 26][usize::from(kind)];
            }
            let code = EapCode(code);
            let from_authenticator = Eap { code, identifier: 3, data: &data };
            let _action = peer.handle(&mut around(&mut random, &none()), &from_authenticator);
            let identifier = last.as_wire().identifier;
            let from_peer = Eap { code: EapCode::RESPONSE, identifier, data: &data };
            match authenticator.handle(&mut around(&mut random, &users), &from_peer) {
                Action::Send(next) => last = next,
                Action::Success(..) => prop_assert!(false, "nobody knew the password"),
                Action::Failure(..) => break,
            }
        }
    }

    /// A conversation with one octet changed, or cut, in one message ends like any other.
    #[test]
    fn damage_never_authenticates(seed: u64, at in 0..4_usize, position: u16, change in 1..=255_u8, cut: bool) {
        let mut random = SeededRandom::new(seed);
        let users = users(&[("alice", "x")]);
        let config = authenticator_config(&[EapMethod::MsChapV2], false);
        let (mut authenticator, first) = Authenticator::begin(
            Arc::new(config), LIMITS, &mut around(&mut random, &users), Some("alice".to_owned()),
        ).unwrap();
        let mut peer = peer(&[EapMethod::MsChapV2]);
        let mut message = first;
        let mut keys = (None, None);
        for step in 0..8 {
            let wire = message.as_wire();
            let mut data = wire.data.to_vec();
            if step == at && !data.is_empty() {
                let position = usize::from(position) % data.len();
                if cut { data.truncate(position) } else { data[position] ^= change }
            }
            let damaged = Eap { data: &data, ..wire };
            let action = if step % 2 == 0 {
                peer.handle(&mut around(&mut random, &none()), &damaged)
            } else {
                authenticator.handle(&mut around(&mut random, &users), &damaged)
            };
            match action {
                Action::Send(next) => message = next,
                Action::Success(Some(last), success) => {
                    keys.1 = success.msk;
                    message = last;
                }
                Action::Success(None, success) => {
                    keys.0 = success.msk;
                    break;
                }
                Action::Failure(Some(last), _) => message = last,
                Action::Failure(None, _) => break,
            }
        }
        if keys.0.is_some() {
            prop_assert_eq!(keys.0, keys.1, "what the peer believes is what both know");
        }
    }
}
