//! A peer that does not do what was agreed on.

use super::*;

/// An initiator that does what it likes after an orderly IKE_SA_INIT.
struct Rogue {
    simulation: Simulation,
    header: Header,
    sealer: Sealer,
    opener: Opener,
    path: Path,
}

impl Rogue {
    /// Agrees on AES-256-GCM and X25519 with B, and on these rounds.
    fn new(rounds: &[(TransformType, KeMethod)]) -> Self {
        let mut simulation = Simulation::new(&[A, B], Faults::default(), 1);
        simulation.configure(1, policies_of_b(&[hybrid(), classic()]));
        let spi = IkeSpi([7; 8]);
        let header = |responder_spi, exchange, id| Header {
            initiator_spi: spi,
            responder_spi,
            exchange,
            flags: Flags { response: false, version: false, initiator: true },
            message_id: MessageId(id),
        };
        let transform =
            |kind, id, key_length| Transform { kind, id, key_length, unknown_attribute: false };
        let mut transforms = vec![
            transform(TransformType::ENCR, 20, Some(256)),
            transform(TransformType::PRF, 5, None),
            transform(TransformType::KE, 31, None),
        ];
        transforms.extend(rounds.iter().map(|(kind, method)| transform(*kind, method.0, None)));
        let proposal =
            Proposal { number: 1, protocol: ProtocolId::IKE, spi: Vec::new(), transforms };
        let pending = FastKeyExchange::new(5).generate(Group::X25519).unwrap();
        let public = pending.public().to_vec();
        let request = encode_message(
            &header(IkeSpi::ZERO, ExchangeType::IKE_SA_INIT, 0),
            &[
                Payload::SecurityAssociation(SecurityAssociation { proposals: vec![proposal] }),
                Payload::KeyExchange(KePayload { method: KeMethod::CURVE25519, data: &public }),
                Payload::Nonce(Nonce(&[1; 32])),
                notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED),
            ],
        )
        .unwrap();
        let path = Path {
            local: std::net::SocketAddr::new(B, 500),
            remote: std::net::SocketAddr::new(A, 500),
        };
        let [answer] = <[Vec<u8>; 1]>::try_from(receive(&mut simulation, path, &request)).unwrap();
        let answer = Message::decode(&answer).unwrap();
        let responder_spi = answer.header.responder_spi;
        let (mut value, mut nonce) = (Vec::new(), Vec::new());
        for payload in &answer.payloads {
            match payload {
                Payload::KeyExchange(ke) => value = ke.data.to_vec(),
                Payload::Nonce(n) => nonce = n.0.to_vec(),
                _ => {}
            }
        }
        let secret = pending.agree(&value).unwrap();
        let status = simulation.nodes[1].endpoint.status(simulation.now);
        let suite = status.ike_sas[0].suite.unwrap();
        let keys = IkeKeys::derive(suite, &secret, &[1; 32], &nonce, spi, responder_spi);
        let sealer = Sealer::new(suite.encryption, None, keys.sk_ei(), &[]).unwrap();
        let opener = Opener::new(suite.encryption, None, keys.sk_er(), &[]).unwrap();
        let header = header(responder_spi, ExchangeType::IKE_INTERMEDIATE, 1);
        Self { simulation, header, sealer, opener, path }
    }

    /// Sends message 1 under the first keys; gives the notifications of the answer, and whether
    /// there was a KE payload in it.
    fn send(
        &mut self,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
    ) -> (Vec<NotifyType>, bool) {
        let (first, plaintext) = encode_chain(payloads).unwrap();
        let header = Header { exchange, ..self.header };
        let body_len = self.sealer.body_len(plaintext.len());
        let mut message = encode_sk_prefix(&header, first, body_len).unwrap();
        self.sealer.seal(&mut SeededRandom::new(3), &mut message, &plaintext).unwrap();
        let answers = receive(&mut self.simulation, self.path, &message);
        let [mut answer] = <[Vec<u8>; 1]>::try_from(answers).unwrap();
        let decoded = Message::decode(&answer).unwrap();
        let Some(Payload::Encrypted(sk)) = decoded.payloads.last() else { panic!("no SK payload") };
        let (first, offset) = (sk.first, sk.body_offset);
        let plaintext = self.opener.open(&mut answer, offset).unwrap();
        let payloads = decode_chain(first, plaintext).unwrap();
        let kinds = payloads.iter().filter_map(|p| match p {
            Payload::Notify(notify) => Some(notify.kind),
            _ => None,
        });
        let ke = payloads.iter().any(|p| matches!(p, Payload::KeyExchange(_)));
        (kinds.collect(), ke)
    }

    /// Whether it is refused with these words, and forgotten.
    fn refused(mut self, exchange: ExchangeType, payloads: &[Payload<'_>], words: &str) {
        assert_eq!(self.send(exchange, payloads), (vec![NotifyType::INVALID_SYNTAX], false));
        assert!(failed_with(&self.simulation, 1, words), "{words}");
        nothing_left(&mut self.simulation);
    }
}

/// Hands B a datagram, and gives what it sends.
fn receive(simulation: &mut Simulation, path: Path, octets: &[u8]) -> Vec<Vec<u8>> {
    let now = simulation.now;
    let b = &mut simulation.nodes[1];
    b.endpoint.handle(now, Input::Datagram { path, octets });
    let mut sent = Vec::new();
    while let Some(output) = b.endpoint.poll_output() {
        match output {
            Output::Transmit { octets, .. } => sent.push(octets),
            Output::Event(event) => b.events.push(event),
            Output::Kernel(..)
            | Output::Keepalive { .. }
            | Output::Expect { .. }
            | Output::ExpectNoMore { .. }
            | Output::Cookies(_) => {}
        }
    }
    sent
}

const fn notify(kind: NotifyType) -> Payload<'static> {
    Payload::Notify(Notify { protocol: ProtocolId::NONE, spi: &[], kind, data: &[] })
}

const ML_KEM_768: &[(TransformType, KeMethod)] = &[(TransformType::ADDKE1, KeMethod::ML_KEM_768)];

const fn ke(method: KeMethod, data: &[u8]) -> Payload<'_> {
    Payload::KeyExchange(KePayload { method, data })
}

#[test]
fn an_orderly_round_of_the_rogue_is_answered() {
    let payloads = [ke(KeMethod::ML_KEM_768, &[1; 1184])];
    let answer = Rogue::new(ML_KEM_768).send(ExchangeType::IKE_INTERMEDIATE, &payloads);
    assert_eq!(answer, (Vec::new(), true));
}

#[test]
fn a_round_with_another_method_or_without_a_value_is_refused() {
    let intermediate = ExchangeType::IKE_INTERMEDIATE;
    let other = [ke(KeMethod::ML_KEM_512, &[1; 800])];
    let words = "key exchange with ML_KEM_512, agreed was mlkem768";
    Rogue::new(ML_KEM_768).refused(intermediate, &other, words);
    Rogue::new(ML_KEM_768).refused(intermediate, &[], "KE is missing");
    let good = ke(KeMethod::ML_KEM_768, &[1; 1184]);
    Rogue::new(ML_KEM_768).refused(intermediate, &[good.clone(), good], "KE is repeated");
}

#[test]
fn ike_auth_before_the_last_round_is_refused() {
    let payloads = [
        Payload::IdInitiator(Identification::new(IdType::FQDN, b"a.test")),
        Payload::Authentication(Authentication { method: AuthMethod::SHARED_KEY, data: &[1; 32] }),
    ];
    Rogue::new(ML_KEM_768).refused(ExchangeType::IKE_AUTH, &payloads, "unexpected exchange");
}

#[test]
fn a_round_that_was_not_agreed_on_is_refused() {
    let payloads = [ke(KeMethod::ML_KEM_768, &[1; 1184])];
    Rogue::new(&[]).refused(ExchangeType::IKE_INTERMEDIATE, &payloads, "unexpected exchange");
}
