//! The payloads of one message by name, checked against the table of what the exchange may hold
//! (RFC 7296 1.2, 1.3, 1.4, and section 2.5 for what is unknown).

use gateway_wire::{
    Authentication, Certificate, Configuration, Delete, Eap, ExchangeType, Identification,
    KeyExchange, Notify, NotifyType, Payload, PayloadType, SecurityAssociation, TrafficSelector,
};

use crate::error::Error;

/// What a message of some exchange may hold beside notifications and vendor IDs, which are
/// welcome in any number everywhere, and beside certificates, which belong to IKE_AUTH. All of these may stand once; which are *needed* is said
/// where they are read, by the `require_*` methods.
const RULES: &[(ExchangeType, &[PayloadType])] = &[
    (ExchangeType::IKE_SA_INIT, &[PayloadType::SA, PayloadType::KE, PayloadType::NONCE]),
    (ExchangeType::IKE_INTERMEDIATE, &[PayloadType::KE]),
    (
        ExchangeType::IKE_AUTH,
        &[
            PayloadType::ID_I,
            PayloadType::ID_R,
            PayloadType::AUTH,
            PayloadType::EAP,
            PayloadType::SA,
            PayloadType::TS_I,
            PayloadType::TS_R,
            PayloadType::CP,
        ],
    ),
    (
        ExchangeType::CREATE_CHILD_SA,
        &[
            PayloadType::SA,
            PayloadType::NONCE,
            PayloadType::KE,
            PayloadType::TS_I,
            PayloadType::TS_R,
        ],
    ),
    (ExchangeType::IKE_FOLLOWUP_KE, &[PayloadType::KE]),
    (ExchangeType::INFORMATIONAL, &[]),
];

/// The payloads of one message by name.
#[derive(Debug, Default)]
pub(crate) struct Payloads<'a> {
    pub(crate) sa: Option<&'a SecurityAssociation>,
    pub(crate) ke: Option<&'a KeyExchange<'a>>,
    pub(crate) nonce: Option<&'a [u8]>,
    pub(crate) id_i: Option<&'a Identification<'a>>,
    pub(crate) id_r: Option<&'a Identification<'a>>,
    pub(crate) auth: Option<&'a Authentication<'a>>,
    pub(crate) eap: Option<&'a Eap<'a>>,
    pub(crate) ts_i: Option<Vec<TrafficSelector>>,
    pub(crate) ts_r: Option<Vec<TrafficSelector>>,
    pub(crate) cp: Option<&'a Configuration<'a>>,
    pub(crate) certificates: Vec<Certificate<'a>>,
    pub(crate) notifies: Vec<Notify<'a>>,
    pub(crate) deletes: Vec<&'a Delete>,
}

impl<'a> Payloads<'a> {
    /// Sorts the payloads of a message.
    ///
    /// # Errors
    /// [`Error::RepeatedPayload`] when a payload that may stand once stands twice. A known
    /// payload that the exchange has no use for is ignored, as other implementations do:
    /// RFC 7296 2.5 asks to be lenient with what is not critical.
    pub(crate) fn collect(
        exchange: ExchangeType,
        payloads: &'a [Payload<'a>],
    ) -> Result<Self, Error> {
        let allowed =
            RULES.iter().find(|(e, _)| *e == exchange).map_or(&[][..], |(_, allowed)| allowed);
        let mut found = Self::default();
        for payload in payloads {
            let kind = payload.payload_type();
            let known = allowed.contains(&kind);
            let repeated = match payload {
                Payload::Notify(notify) => {
                    found.notifies.push(*notify);
                    false
                }
                Payload::Certificate(certificate) if exchange == ExchangeType::IKE_AUTH => {
                    found.certificates.push(*certificate);
                    false
                }
                Payload::Delete(delete) => {
                    found.deletes.push(delete);
                    false
                }
                Payload::SecurityAssociation(sa) if known => found.sa.replace(sa).is_some(),
                Payload::KeyExchange(ke) if known => found.ke.replace(ke).is_some(),
                Payload::Nonce(nonce) if known => found.nonce.replace(nonce.0).is_some(),
                Payload::IdInitiator(id) if known => found.id_i.replace(id).is_some(),
                Payload::IdResponder(id) if known => found.id_r.replace(id).is_some(),
                Payload::Authentication(auth) if known => found.auth.replace(auth).is_some(),
                Payload::Eap(eap) if known => found.eap.replace(eap).is_some(),
                Payload::TsInitiator(ts) if known => {
                    found.ts_i.replace(ts.known().copied().collect()).is_some()
                }
                Payload::TsResponder(ts) if known => {
                    found.ts_r.replace(ts.known().copied().collect()).is_some()
                }
                Payload::Configuration(cp) if known => found.cp.replace(cp).is_some(),
                // Known or not, the exchange has no use for it.
                Payload::SecurityAssociation(_)
                | Payload::KeyExchange(_)
                | Payload::Nonce(_)
                | Payload::IdInitiator(_)
                | Payload::IdResponder(_)
                | Payload::Authentication(_)
                | Payload::TsInitiator(_)
                | Payload::TsResponder(_)
                | Payload::Certificate(_)
                | Payload::CertificateRequest(_)
                | Payload::VendorId(_)
                | Payload::Encrypted(_)
                | Payload::EncryptedFragment(_)
                | Payload::Configuration(_)
                | Payload::Eap(_)
                | Payload::Unknown(_) => false,
            };
            if repeated {
                return Err(Error::RepeatedPayload(kind));
            }
        }
        Ok(found)
    }

    pub(crate) fn require_sa(&self) -> Result<&'a SecurityAssociation, Error> {
        self.sa.ok_or(Error::MissingPayload(PayloadType::SA))
    }

    pub(crate) fn require_ke(&self) -> Result<&'a KeyExchange<'a>, Error> {
        self.ke.ok_or(Error::MissingPayload(PayloadType::KE))
    }

    /// What links IKE_FOLLOWUP_KE to the exchange before (RFC 9370 2.2.4).
    pub(crate) fn require_link(&self) -> Result<&'a [u8], Error> {
        let link = self.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE).map(|n| n.data);
        link.ok_or(Error::BadAnswer("no link to the key exchanges to come"))
    }

    pub(crate) fn require_nonce(&self) -> Result<&'a [u8], Error> {
        self.nonce.ok_or(Error::MissingPayload(PayloadType::NONCE))
    }

    pub(crate) fn require_ts(&self) -> Result<(&[TrafficSelector], &[TrafficSelector]), Error> {
        let ts_i = self.ts_i.as_deref().ok_or(Error::MissingPayload(PayloadType::TS_I))?;
        let ts_r = self.ts_r.as_deref().ok_or(Error::MissingPayload(PayloadType::TS_R))?;
        Ok((ts_i, ts_r))
    }

    /// The first notification of a type.
    pub(crate) fn notify(&self, kind: NotifyType) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|n| n.kind == kind)
    }

    /// The first error notification.
    pub(crate) fn error(&self) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|n| n.kind.is_error())
    }
}

#[cfg(test)]
mod tests {
    use gateway_wire::{
        AuthMethod, EapCode, IdType, KeMethod, Nonce, ProtocolId, TrafficSelectors,
    };

    use super::*;

    /// One payload of each kind that may stand once in some exchange.
    fn single_payloads() -> Vec<Payload<'static>> {
        let selectors = || TrafficSelectors { entries: Vec::new() };
        let id = Identification::new(IdType::FQDN, b"a.test");
        vec![
            Payload::SecurityAssociation(SecurityAssociation { proposals: Vec::new() }),
            Payload::KeyExchange(KeyExchange { method: KeMethod::CURVE25519, data: &[1] }),
            Payload::Nonce(Nonce(&[2; 16])),
            Payload::IdInitiator(id),
            Payload::IdResponder(id),
            Payload::Authentication(AUTH),
            Payload::Eap(Eap { code: EapCode::SUCCESS, identifier: 1, data: &[] }),
            Payload::TsInitiator(selectors()),
            Payload::TsResponder(selectors()),
            Payload::Configuration(Configuration {
                kind: gateway_wire::CpType::CFG_REQUEST,
                attributes: Vec::new(),
            }),
        ]
    }

    const AUTH: Authentication<'static> =
        Authentication { method: AuthMethod::SHARED_KEY, data: &[3] };

    const fn notification(kind: NotifyType) -> Notify<'static> {
        Notify { protocol: ProtocolId::NONE, spi: &[], kind, data: &[] }
    }

    #[test]
    fn a_repeated_payload_is_refused_where_the_exchange_has_it_and_ignored_elsewhere() {
        for (exchange, allowed) in RULES {
            for payload in single_payloads() {
                let kind = payload.payload_type();
                let twice = [payload.clone(), payload];
                let collected = Payloads::collect(*exchange, &twice);
                if allowed.contains(&kind) {
                    assert_eq!(collected.unwrap_err(), Error::RepeatedPayload(kind));
                } else {
                    assert!(collected.is_ok(), "{kind} in {exchange}");
                }
            }
        }
    }

    #[test]
    fn each_exchange_has_its_payloads_and_no_others() {
        let payloads = single_payloads();
        let found = |exchange| {
            let p = Payloads::collect(exchange, &payloads).unwrap();
            [
                p.sa.is_some(),
                p.ke.is_some(),
                p.nonce.is_some(),
                p.id_i.is_some(),
                p.id_r.is_some(),
                p.auth.is_some(),
                p.ts_i.is_some(),
                p.ts_r.is_some(),
            ]
            .map(u8::from)
        };
        assert_eq!(found(ExchangeType::IKE_SA_INIT), [1, 1, 1, 0, 0, 0, 0, 0]);
        assert_eq!(found(ExchangeType::IKE_AUTH), [1, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!(found(ExchangeType::CREATE_CHILD_SA), [1, 1, 1, 0, 0, 0, 1, 1]);
        assert_eq!(found(ExchangeType::INFORMATIONAL), [0; 8]);
        assert_eq!(found(ExchangeType(240)), [0; 8]);
    }

    #[test]
    fn notifications_and_deletes_are_welcome_in_any_number_and_kept_in_order() {
        let kinds = [
            NotifyType::INITIAL_CONTACT,
            NotifyType::NO_PROPOSAL_CHOSEN,
            NotifyType::INITIAL_CONTACT,
            NotifyType::TS_UNACCEPTABLE,
        ];
        let delete = |spi| Payload::Delete(Delete { protocol: ProtocolId::ESP, spis: vec![spi] });
        let mut payloads: Vec<_> = kinds.map(|k| Payload::Notify(notification(k))).to_vec();
        payloads.extend([delete(1), delete(2)]);
        let found = Payloads::collect(ExchangeType::INFORMATIONAL, &payloads).unwrap();
        assert_eq!(found.notifies.iter().map(|n| n.kind).collect::<Vec<_>>(), kinds);
        assert_eq!(found.deletes.iter().map(|d| d.spis[0]).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(found.error().unwrap().kind, NotifyType::NO_PROPOSAL_CHOSEN);
        assert!(found.notify(NotifyType::TS_UNACCEPTABLE).is_some());
        assert!(found.notify(NotifyType::COOKIE).is_none());
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = Payloads::default();
        let missing = Error::MissingPayload;
        assert_eq!(none.require_sa().unwrap_err(), missing(PayloadType::SA));
        assert_eq!(none.require_ke().unwrap_err(), missing(PayloadType::KE));
        assert_eq!(none.require_nonce().unwrap_err(), missing(PayloadType::NONCE));
        assert_eq!(none.require_ts().unwrap_err(), missing(PayloadType::TS_I));
        let one = Payloads { ts_i: Some(Vec::new()), ..Payloads::default() };
        assert_eq!(one.require_ts().unwrap_err(), missing(PayloadType::TS_R));
    }
}
