//! Rekeying to other algorithms than before (RFC 7296 2.8, 2.17, 2.18). What each end then uses is
//! held against keys that are made here, by the formulas of the RFC, of what went over the wire.

use std::collections::BTreeSet;

use gateway_ike::algorithms::{Encryption, EspProposal, Group, IkeProposal, Integrity, Prf};
use gateway_ike::crypto::prf::{prf, prf_plus};
use gateway_ike::crypto::protect::Opener;
use gateway_ike::io::{ChildSpec, KernelEvent};
use gateway_ike::testing::FastKeyExchange;
use gateway_wire::{KeyExchange, SecurityAssociation, TransformType};

use super::*;

const EXCHANGE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const HOUR: Duration = Duration::from_secs(3600);

/// Two proposals for the IKE SA, and two for the Child SA: the second of each has nothing of the
/// first but the group.
fn two_of_each(policies: PolicySet) -> PolicySet {
    let policies = with_peer(policies, |p| {
        let second = IkeProposal {
            encryption: vec![Encryption::Aes128Cbc],
            integrity: vec![Integrity::HmacSha512],
            prf: vec![Prf::HmacSha384],
            ..p.proposals[0].clone()
        };
        p.proposals.push(second);
    });
    with_protect(policies, |p| {
        let groups = vec![Group::X25519];
        let first = EspProposal { groups, ..p.proposals[0].clone() };
        let second = EspProposal {
            encryption: vec![Encryption::Aes128Cbc],
            integrity: vec![Integrity::HmacSha512],
            ..first.clone()
        };
        p.proposals = vec![first, second];
    })
}

/// What an exchange adds to the secrets of both ends.
struct Agreed {
    secret: Vec<u8>,
    ni: Vec<u8>,
    nr: Vec<u8>,
    /// Those of the SA payloads, or of the headers.
    spis: Vec<u8>,
}

fn sa_of<'a>(payloads: &'a [Payload<'_>]) -> &'a SecurityAssociation {
    let sa = payloads.iter().find_map(|p| match p {
        Payload::SecurityAssociation(sa) => Some(sa),
        _ => None,
    });
    sa.unwrap()
}

fn agreed(request: &[Payload<'_>], answer: &[Payload<'_>]) -> Agreed {
    let ke = |payloads: &[Payload<'_>]| {
        let ke = payloads.iter().find_map(|p| match p {
            Payload::KeyExchange(KeyExchange { data, .. }) => Some(data.to_vec()),
            _ => None,
        });
        ke.unwrap()
    };
    let nonce = |payloads: &[Payload<'_>]| {
        let nonce = payloads.iter().find_map(|p| match p {
            Payload::Nonce(nonce) => Some(nonce.0.to_vec()),
            _ => None,
        });
        nonce.unwrap()
    };
    let spi = |payloads: &[Payload<'_>]| sa_of(payloads).proposals[0].spi.clone();
    Agreed {
        secret: FastKeyExchange::secret(&ke(request), &ke(answer)).to_vec(),
        ni: nonce(request),
        nr: nonce(answer),
        spis: [spi(request), spi(answer)].concat(),
    }
}

/// Octets cut into pieces of these lengths.
fn cut<const N: usize>(octets: &[u8], lengths: [usize; N]) -> [Vec<u8>; N] {
    let mut rest = octets;
    lengths.map(|length| {
        let (piece, behind) = rest.split_at(length);
        rest = behind;
        piece.to_vec()
    })
}

/// SK_d of the first IKE SA, whose PRF is HMAC-SHA2-256 (RFC 7296 2.14).
fn first_sk_d(simulation: &Simulation) -> Vec<u8> {
    let [request, answer] = [0, 1].map(|node: usize| simulation.nodes[node].sent[0].1.clone());
    let first = Message::decode(&request).unwrap();
    let second = Message::decode(&answer).unwrap();
    let made = agreed(&first.payloads, &second.payloads);
    let skeyseed = prf(Prf::HmacSha256, &[&made.ni[..], &made.nr].concat(), &[&made.secret]);
    let seed: [&[u8]; 3] = [&made.ni, &made.nr, &answer[..16]];
    prf_plus(Prf::HmacSha256, &skeyseed, &seed, 32).to_vec()
}

/// The second IKE SA, as a third who has SK_d of the first would know it.
struct Successor {
    sk_d: Vec<u8>,
    /// SK_e and SK_a of the initiator, and of the responder.
    keys: [[Vec<u8>; 2]; 2],
    spis: Vec<u8>,
}

impl Successor {
    /// RFC 7296 2.18: SKEYSEED comes by the PRF of the old IKE SA, all else by that of the new one.
    fn new(sk_d: &[u8], made: &Agreed) -> Self {
        let skeyseed = prf(Prf::HmacSha256, sk_d, &[&made.secret, &made.ni, &made.nr]);
        let seed: [&[u8]; 3] = [&made.ni, &made.nr, &made.spis];
        let octets = prf_plus(Prf::HmacSha384, &skeyseed, &seed, 48 + 2 * (64 + 16));
        let [sk_d, ai, ar, ei, er] = cut(&octets, [48, 64, 64, 16, 16]);
        Self { sk_d, keys: [[ei, ai], [er, ar]], spis: made.spis.clone() }
    }

    /// Whether a message is of this IKE SA and protected by its keys.
    fn opens(&self, datagram: &[u8]) -> bool {
        let message = Message::decode(datagram).unwrap();
        let Some(Payload::Encrypted(sk)) = message.payloads.last() else { return false };
        let [encryption, integrity] = &self.keys[usize::from(!message.header.flags.initiator)];
        let suite = (Encryption::Aes128Cbc, Some(Integrity::HmacSha512));
        let opener = Opener::new(suite.0, suite.1, encryption, integrity).unwrap();
        datagram[..16] == self.spis && opener.open(&mut datagram.to_vec(), sk.body_offset).is_ok()
    }
}

/// The same request, whose first proposal nobody has.
fn second_only(simulation: &Simulation, sender: usize, request: &[u8]) -> Vec<u8> {
    resealed(simulation, sender, request, |payloads| {
        for payload in payloads.iter_mut() {
            if let Payload::SecurityAssociation(sa) = payload {
                for transform in &mut sa.proposals[0].transforms {
                    if transform.kind == TransformType::ENCR {
                        transform.id = 9999;
                    }
                }
            }
        }
    })
}

/// Has a node ask for something; gives the request, which is changed to leave the second proposal
/// alone, the answer, and what the node sends upon that.
fn rekey_to_second(
    simulation: &mut Simulation,
    from: usize,
    begin: impl FnOnce(&mut Simulation),
) -> (Agreed, Vec<Vec<u8>>) {
    let before = simulation.nodes[from].sent.len();
    begin(simulation);
    let request = simulation.nodes[from].sent[before].1.clone();
    assert_eq!(header(&request).exchange, EXCHANGE);
    let forge = forge(simulation, from);
    let request = second_only(simulation, from, &request);
    let answer = deliver(simulation, 1 - from, &request).remove(0);
    let (first, second) = (forge.open(&request).unwrap(), forge.open(&answer).unwrap());
    let (first, second) = (first.payloads().unwrap(), second.payloads().unwrap());
    assert_eq!(sa_of(&second).proposals[0].number, 2);
    let made = agreed(&first, &second);
    (made, deliver(simulation, from, &answer))
}

/// A and B have the first algorithms; `from` has replaced the IKE SA by one with the second.
fn rekeyed(from: usize) -> (Simulation, Successor) {
    let policies = [policies_of_a(), policies_of_b()].map(two_of_each);
    let mut policies = policies.into_iter().enumerate().map(|(node, policies)| {
        with_peer(policies, |p| p.lifetime = if node == from { HOUR } else { Duration::ZERO })
    });
    let (a, b) = (policies.next().unwrap(), policies.next().unwrap());
    let mut simulation = connect(a, b);
    let suite = |simulation: &Simulation, node: usize| {
        let status = simulation.nodes[node].endpoint.status(simulation.now);
        let suites = status.ike_sas.iter().filter(|sa| sa.state == "established");
        suites.filter_map(|sa| sa.suite).map(|s| s.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(suite(&simulation, from), ["aes256gcm16-prfsha256-x25519"]);
    let sk_d = first_sk_d(&simulation);
    let (made, sent) = rekey_to_second(&mut simulation, from, |simulation| {
        simulation.now += HOUR;
        simulation.input(from, Input::Timeout);
    });
    let successor = Successor::new(&sk_d, &made);
    // The old one is deleted by its own keys; what comes next is of the new one.
    assert_eq!(sent.iter().map(|m| successor.opens(m)).collect::<Vec<_>>(), [false, true]);
    let mut before = simulation.nodes.iter().map(|node| node.sent.len()).collect::<Vec<_>>();
    before[from] -= sent.len();
    simulation.network.set_faults(Faults::default());
    simulation.run(MINUTE);
    simulation.network.set_faults(CUT);
    for (node, before) in before.into_iter().enumerate() {
        assert_eq!(suite(&simulation, node), ["aes128-sha512-prfsha384-x25519"], "{node}");
        let sent = &simulation.nodes[node].sent[before..];
        assert!(sent.iter().any(|(_, octets)| successor.opens(octets)), "{node}");
    }
    (simulation, successor)
}

#[test]
fn an_ike_sa_gets_other_algorithms_with_its_new_keys_whoever_asks() {
    for from in [0, 1] {
        let (simulation, _) = rekeyed(from);
        assert!(simulation.has_one_child_each().unwrap(), "it has gone to the new one");
    }
}

#[test]
fn a_child_sa_gets_other_algorithms_and_keys_of_their_lengths_whoever_asks() {
    for from in [0, 1] {
        let (mut simulation, successor) = rekeyed(from);
        let of = |simulation: &Simulation, node: usize| -> ChildSpec {
            simulation.nodes[node].kernel.children.values().next_back().unwrap().clone()
        };
        let old = of(&simulation, from);
        assert_eq!(old.suite.to_string(), "aes256gcm16-esn");
        let lengths = (old.inbound.encryption_key.len(), old.inbound.integrity_key.len());
        assert_eq!(lengths, (36, 0));
        let (made, _) = rekey_to_second(&mut simulation, from, |simulation| {
            let (spi, destination) = (old.inbound.spi, old.inbound.destination);
            let expire = KernelEvent::Expire { spi, destination, hard: false };
            simulation.input(from, Input::Kernel(expire));
        });
        // RFC 7296 2.17, by the PRF that the IKE SA has now.
        let seed: [&[u8]; 3] = [&made.secret, &made.ni, &made.nr];
        let octets = prf_plus(Prf::HmacSha384, &successor.sk_d, &seed, 2 * (16 + 64));
        let [ei, ai, er, ar] = cut(&octets, [16, 64, 16, 64]);
        simulation.network.set_faults(Faults::default());
        simulation.run(MINUTE);
        assert!(simulation.has_one_child_each().unwrap());
        for node in [0, 1] {
            let new = of(&simulation, node);
            assert_eq!(new.suite.to_string(), "aes128-sha512-esn");
            let (sends, receives) = ((&ei, &ai), (&er, &ar));
            let (outbound, inbound) =
                if node == from { (sends, receives) } else { (receives, sends) };
            for (sa, (encryption, integrity)) in [(new.outbound, outbound), (new.inbound, inbound)]
            {
                assert_eq!(*sa.encryption_key, *encryption);
                assert_eq!(*sa.integrity_key, *integrity);
            }
        }
    }
}

/// RFC 7296 2.12: ours are never used again.
#[test]
fn every_exchange_has_key_exchange_values_of_its_own() {
    let [a, b] = [policies_of_a(), policies_of_b()].map(two_of_each);
    let often = |policies| with_peer(policies, |p| p.lifetime = HOUR);
    let mut simulation = connect(often(a), often(b));
    simulation.network.set_faults(Faults::default());
    let mut values = BTreeSet::new();
    let mut exchanges = 0;
    let mut forges = vec![forge(&simulation, 0)];
    let mut seen = [0, 0];
    for _ in 0..20 {
        simulation.run(HOUR / 4);
        let child = simulation.nodes[0].kernel.children.values().next().unwrap();
        let (spi, destination) = (child.inbound.spi, child.inbound.destination);
        let expire = KernelEvent::Expire { spi, destination, hard: false };
        simulation.input(0, Input::Kernel(expire));
        simulation.run(MINUTE);
        forges.push(forge(&simulation, 0));
        for (node, seen) in seen.iter_mut().enumerate() {
            for (_, octets) in &simulation.nodes[node].sent[*seen..] {
                let opened = forges.iter().rev().find_map(|forge| forge.open(octets));
                let message = Message::decode(octets).unwrap();
                let inside = opened.as_ref().map(|o| o.payloads().unwrap());
                for payload in message.payloads.iter().chain(inside.iter().flatten()) {
                    if let Payload::KeyExchange(ke) = payload {
                        values.insert(ke.data.to_vec());
                        exchanges += 1;
                    }
                }
            }
            *seen = simulation.nodes[node].sent.len();
        }
    }
    assert!(exchanges > 2 * 20, "of IKE_SA_INIT, of the IKE SA and of its Child SAs");
    assert_eq!(values.len(), exchanges);
}
