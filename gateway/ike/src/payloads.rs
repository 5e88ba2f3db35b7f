//! The payloads of one message by name, checked against the table of what the exchange may hold
//! (RFC 7296 1.2, 1.3, 1.4, and section 2.5 for what is unknown).

use gateway_wire::{
    Authentication, Delete, ExchangeType, Identification, KeyExchange, Notify, NotifyType, Payload, PayloadType,
    SecurityAssociation, TrafficSelector,
};

use crate::error::Error;

/// What a message of some exchange may hold beside notifications and vendor IDs, which are
/// welcome in any number everywhere. All of these may stand once; which are *needed* is said
/// where they are read, by the `require_*` methods.
const RULES: &[(ExchangeType, &[PayloadType])] = &[
    (ExchangeType::IKE_SA_INIT, &[PayloadType::SA, PayloadType::KE, PayloadType::NONCE]),
    (
        ExchangeType::IKE_AUTH,
        &[
            PayloadType::ID_I,
            PayloadType::ID_R,
            PayloadType::AUTH,
            PayloadType::SA,
            PayloadType::TS_I,
            PayloadType::TS_R,
        ],
    ),
    (
        ExchangeType::CREATE_CHILD_SA,
        &[PayloadType::SA, PayloadType::NONCE, PayloadType::KE, PayloadType::TS_I, PayloadType::TS_R],
    ),
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
    pub(crate) ts_i: Option<Vec<TrafficSelector>>,
    pub(crate) ts_r: Option<Vec<TrafficSelector>>,
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
    pub(crate) fn collect(exchange: ExchangeType, payloads: &'a [Payload<'a>]) -> Result<Self, Error> {
        let allowed = RULES.iter().find(|(e, _)| *e == exchange).map_or(&[][..], |(_, allowed)| allowed);
        let mut found = Self::default();
        for payload in payloads {
            let kind = payload.payload_type();
            let known = allowed.contains(&kind);
            let repeated = match payload {
                Payload::Notify(notify) => {
                    found.notifies.push(*notify);
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
                Payload::TsInitiator(ts) if known => found.ts_i.replace(ts.known().copied().collect()).is_some(),
                Payload::TsResponder(ts) if known => found.ts_r.replace(ts.known().copied().collect()).is_some(),
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
