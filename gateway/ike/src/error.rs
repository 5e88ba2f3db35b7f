//! What can be wrong with a message, and what the peer hears of it.

use gateway_wire::{AuthMethod, ChainError, DecodeError, KeMethod, NotifyType, PayloadType};

use crate::algorithms::{Group, IkeSuite, SignatureScheme};
pub use crate::assignment::ConfigurationFault;
use crate::config::EapMethod;
use crate::crypto::key_exchange::KeyExchangeError;
use crate::crypto::x509::CertificateFault;
pub use crate::eap::Fault as EapFault;
use crate::io::KernelError;
use crate::random::RandomFailed;
use crate::reason::Refusal;

/// Why an exchange could not go on. Messages that fail *before* they are authenticated are
/// counted and dropped instead (see [`crate::counters`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A payload does not decode.
    #[error("malformed message: {0}")]
    Malformed(#[from] DecodeError),
    /// A payload that we do not know is marked critical.
    #[error("critical payload of unknown type {}", .0.0)]
    UnsupportedCriticalPayload(PayloadType),
    /// A payload that the exchange needs is absent.
    #[error("payload {0} is missing")]
    MissingPayload(PayloadType),
    /// A payload that may stand once stands twice.
    #[error("payload {0} is repeated")]
    RepeatedPayload(PayloadType),
    /// The exchange type is not expected in this state.
    #[error("unexpected exchange")]
    UnexpectedExchange,
    /// No proposal of the peer suits us (as responder), or its choice is not ours (as initiator).
    #[error("no common proposal: {0}")]
    NoProposalChosen(Box<Refusal>),
    /// An initiator proposes more than is looked at.
    #[error(
        "the SA payload has {found} proposals and transforms, `init-transform-limit` is {limit}"
    )]
    TooManyTransforms {
        /// As many as there are.
        found: usize,
        /// As many as may be.
        limit: usize,
    },
    /// The KE payload is for another method than the one chosen.
    #[error("key exchange method {wanted} is wanted")]
    InvalidKePayload {
        /// The method that we chose.
        wanted: Group,
    },
    /// An additional key exchange is done with another method than the one agreed on.
    #[error("key exchange with {found}, agreed was {agreed}")]
    WrongKeyExchange {
        /// The method of the KE payload.
        found: KeMethod,
        /// The method whose turn it is.
        agreed: Group,
    },
    /// The peer's public value is bad, or key exchange failed here.
    #[error(transparent)]
    KeyExchange(#[from] KeyExchangeError),
    /// The peer did not prove to be whom we expect.
    #[error("authentication failed: {0}")]
    Authentication(AuthenticationFault),
    /// No selector of the peer lies within a rule.
    #[error("no rule covers the traffic selectors: {0}")]
    TsUnacceptable(Box<Refusal>),
    /// The peer wants a mode that the rule does not have.
    #[error("mode: {why}")]
    Mode {
        /// What is wrong, in words.
        why: &'static str,
        /// The mode that we demand.
        ours: &'static str,
        /// What the peer has of it.
        theirs: &'static str,
    },
    /// Transport mode is for the addresses of the IKE SA, and these are others.
    #[error("mode: transport mode is for the two addresses of the IKE SA alone")]
    TransportAddresses,
    /// The IKE SA has moved, or a NAT has come or gone, since a Child SA was agreed on: its SPI or its
    /// selectors are not for how ESP goes now.
    #[error("addresses, or the NAT in between, have changed before it could be installed")]
    AddressesChanged,
    /// The policy demands more than the IKE SA has.
    #[error("the policy demands a quantum-safe IKE SA, and this one is not: {0}")]
    NotQuantumSafe(IkeSuite),
    /// The policy leaves the first Child SA out of IKE_AUTH, and the peer does not.
    #[error("the policy demands `childless` initiation (RFC 6023), and the peer {0}")]
    NotChildless(&'static str),
    /// Our kernel refused the Child SA.
    #[error("the kernel refused the Child SA: {0}")]
    Kernel(KernelError),
    /// Our kernel did not answer in time.
    #[error("the kernel did not answer in time")]
    KernelTimeout,
    /// Addresses were changed on the way of a peer that does not allow for it (RFC 4555 3.9).
    #[error("a NAT is in between, and the peer allows none")]
    UnexpectedNat,
    /// The peer's request breaks the protocol in a way of its own.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// The peer wants to replace a Child SA that is not there; by its SPI in ESP from us.
    #[error("there is no Child SA with SPI {0:08x}")]
    ChildSaNotFound(u32),
    /// The peer has as many Child SAs on the IKE SA as it may have.
    #[error("the peer has {present} Child SAs on the IKE SA: `child-sa-limit` allows no more")]
    NoAdditionalSas {
        /// Those that it has.
        present: usize,
        /// Those that it may have; to replace some, twice what the file says.
        limit: usize,
    },
    /// It has as many on all its IKE SAs as it may have.
    #[error(
        "the peer has {present} Child SAs on all its IKE SAs: `peer-child-sa-limit` allows no more"
    )]
    NoAdditionalSasOfPeer {
        /// As above.
        present: usize,
        /// As above.
        limit: usize,
    },
    /// What the peer asks for does not go together with what is under way here
    /// (RFC 7296 2.25).
    #[error("not now: {0}")]
    TemporaryFailure(&'static str),
    /// The peer goes on with key exchanges of which we know nothing, or nothing any more
    /// (RFC 9370 2.2.4).
    #[error("IKE_FOLLOWUP_KE with a link to nothing that is known here")]
    StateNotFound,
    /// The peer has begun key exchanges and did not go on with them in time.
    #[error("no IKE_FOLLOWUP_KE in time")]
    FollowUpTimeout,
    /// The peer asks for an address and its pool has none left.
    #[error("pool {0} has no free address: make it larger")]
    NoAddress(String),
    /// The peer must ask for an address, and does not.
    #[error("the peer asks for no address, and has a pool: set it to request one")]
    AddressNotRequested,
    /// The peer assigns us no address that we could use.
    #[error("the peer assigns us no address: {0}")]
    Configuration(#[from] ConfigurationFault),
    /// The peer answered with an error notification.
    #[error("the peer answers {0}")]
    Refused(NotifyType),
    /// The peer takes Child SAs of a single pair of addresses only, and there is no packet that says which.
    #[error(
        "the peer takes Child SAs of a single pair of addresses only: traffic brings them up, each for its own"
    )]
    SinglePairs,
    /// The peer agreed to a Child SA and deleted it before its answer was here.
    #[error("the peer has deleted it before its answer came")]
    DeletedBefore,
    /// The policies want something else by the time the peer agrees to a Child SA.
    #[error("the rule has changed before the answer came")]
    RuleChanged,
    /// The peer narrows a Child SA to what another one protects already.
    #[error("the peer narrows it to what is protected already, and not to the packet that waits")]
    NothingNew,
    /// The peer's answer breaks the protocol in a way of its own.
    #[error("bad answer: {0}")]
    BadAnswer(&'static str),
    /// The system gave no randomness, or a message would not fit its length field.
    #[error("internal: {0}")]
    Internal(&'static str),
}

/// Why the peer was not authenticated. The peer is told only that it was not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationFault {
    /// No configured peer has this identity (at this address, with these proposals).
    #[error("no peer has the identity {0}")]
    UnknownIdentity(String),
    /// The AUTH payload does not verify: usually a different pre-shared key.
    #[error("AUTH does not verify: is the pre-shared key of {0} the same on both sides?")]
    WrongAuth(String),
    /// The peer uses a method that is not configured for it.
    #[error("the peer uses authentication method {found}, but {expected} is configured")]
    Method {
        /// What it uses.
        found: AuthMethod,
        /// What was expected.
        expected: &'static str,
    },
    /// The peer's certificate is not to be believed.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateFault),
    /// The peer shows another raw public key than the one that we know.
    #[error("the peer shows another raw public key than the one in `remote-public-key`")]
    OtherPublicKey,
    /// The signature in AUTH is not of the peer's key, or over other octets.
    #[error("the signature does not verify with {0}")]
    WrongSignature(String),
    /// The data of AUTH has not the form of RFC 7427.
    #[error("the signature has not the form of RFC 7427")]
    MalformedSignature,
    /// The peer signs in a way that we do not know.
    #[error("the peer signs in a way that we do not know: AlgorithmIdentifier {0}")]
    UnknownScheme(String),
    /// The peer signs in a way that the policy does not allow.
    #[error("the peer signs with {0}, which is not among `signature-schemes`")]
    SchemeNotAllowed(SignatureScheme),
    /// The peer signs in a way that its key does not fit.
    #[error("the peer's key is {key}, which AUTH (method {method}) does not fit")]
    SchemeOfOtherKey {
        /// The kind of its key.
        key: String,
        /// The method of AUTH.
        method: AuthMethod,
    },
    /// The peer knows RFC 7427 and yet signs with an older method.
    #[error("the peer knows RFC 7427, but uses the older method {0}")]
    OldMethod(AuthMethod),
    /// The peer signs with SHA-1.
    #[error("the peer signs with SHA-1, which is broken: it needs RFC 7427")]
    Sha1,
    /// There is no way to sign that our key can do and the peer can verify.
    #[error("our key is {key} and can sign with: {ours}; the peer can verify: {theirs}")]
    NoScheme {
        /// The kind of our key.
        key: String,
        /// What we could sign with.
        ours: String,
        /// Which hashes the peer has.
        theirs: String,
    },
    /// A PPK is required, and the peer does not do RFC 8784.
    #[error("the PPK is required, and the peer does not support PPKs (RFC 8784)")]
    PpkUnsupported,
    /// A PPK is required, and the peer does not use the same one.
    #[error(
        "the PPK is required, and the peer does not have it: is `ppk-id` the same on both sides?"
    )]
    PpkUnknown,
    /// The peer wants EAP.
    #[error("the peer asks for EAP, which is not configured for it (`remote-auth = \"eap\"`)")]
    EapNotConfigured,
    /// The peer sends AUTH where EAP is to come first.
    #[error("the peer sends AUTH, but `remote-auth = \"eap\"` is configured for it")]
    EapDemanded,
    /// We have nothing but EAP, and the peer wants another proof before (RFC 5998).
    #[error(
        "the peer does not take EAP for the only authentication, and no other is configured for us"
    )]
    EapNotAlone,
    /// The method that EAP came to may not be the only authentication (RFC 5998 4).
    #[error("EAP method {0} may not be the only authentication")]
    EapTooWeak(EapMethod),
    /// EAP failed.
    #[error("EAP of {who} failed: {fault}")]
    Eap {
        /// The user, as far as known: as the peer calls itself, or as we do.
        who: String,
        /// Why.
        fault: EapFault,
    },
    /// EAP went well, and then AUTH does not verify.
    #[error("AUTH does not verify with the key of EAP of {0}: somebody may stand in between")]
    WrongEapAuth(String),
    /// The user, or the peer's configuration, went while EAP was under way.
    #[error("the configuration of {0} has changed while EAP was under way")]
    EapOutdated(String),
    /// The responder is somebody else.
    #[error("the peer is {found}, expected {expected}")]
    WrongIdentity {
        /// Who it says it is.
        found: String,
        /// Whom we expected.
        expected: String,
    },
}

impl From<AuthenticationFault> for Error {
    fn from(fault: AuthenticationFault) -> Self {
        Self::Authentication(fault)
    }
}

impl From<ChainError> for Error {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Decode(e) => Self::Malformed(e),
            ChainError::UnsupportedCritical(kind) => Self::UnsupportedCriticalPayload(kind),
        }
    }
}

impl From<RandomFailed> for Error {
    fn from(RandomFailed: RandomFailed) -> Self {
        Self::Internal("no randomness")
    }
}

/// An error notification: its type and data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The notify message type.
    pub kind: NotifyType,
    /// The notification data.
    pub data: Vec<u8>,
}

/// The one place that decides what the peer is told of an error; `None`: nothing.
#[must_use]
pub fn notification_for(error: &Error) -> Option<Notification> {
    let plain = |kind| Some(Notification { kind, data: Vec::new() });
    match error {
        Error::Malformed(_)
        | Error::MissingPayload(_)
        | Error::RepeatedPayload(_)
        | Error::WrongKeyExchange { .. }
        | Error::BadRequest(_)
        | Error::UnexpectedExchange => plain(NotifyType::INVALID_SYNTAX),
        Error::UnsupportedCriticalPayload(kind) => Some(Notification {
            kind: NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
            data: vec![kind.0],
        }),
        // RFC 7296 has no notification for what is not acceptable in other ways; this is what others
        // send.
        Error::NoProposalChosen(_)
        | Error::TooManyTransforms { .. }
        | Error::Mode { .. }
        | Error::NotQuantumSafe(_)
        | Error::NotChildless(_)
        | Error::Kernel(_)
        | Error::KernelTimeout => plain(NotifyType::NO_PROPOSAL_CHOSEN),
        Error::InvalidKePayload { wanted } => Some(Notification {
            kind: NotifyType::INVALID_KE_PAYLOAD,
            data: wanted.id().0.to_be_bytes().to_vec(), // RFC 7296 1.3
        }),
        Error::KeyExchange(KeyExchangeError::InvalidPublicValue) => {
            plain(NotifyType::INVALID_SYNTAX)
        }
        Error::Authentication(_) => plain(NotifyType::AUTHENTICATION_FAILED),
        Error::UnexpectedNat => plain(NotifyType::UNEXPECTED_NAT_DETECTED),
        Error::TsUnacceptable(_) | Error::TransportAddresses => plain(NotifyType::TS_UNACCEPTABLE),
        // Its SPI field names the Child SA (RFC 7296 2.25): that is the sender's business.
        Error::ChildSaNotFound(_) => plain(NotifyType::CHILD_SA_NOT_FOUND),
        Error::StateNotFound => plain(NotifyType::STATE_NOT_FOUND),
        Error::NoAddress(_) => plain(NotifyType::INTERNAL_ADDRESS_FAILURE),
        Error::AddressNotRequested => plain(NotifyType::FAILED_CP_REQUIRED),
        Error::NoAdditionalSas { .. } | Error::NoAdditionalSasOfPeer { .. } => {
            plain(NotifyType::NO_ADDITIONAL_SAS)
        }
        Error::TemporaryFailure(_)
        | Error::AddressesChanged
        | Error::KeyExchange(_)
        | Error::Internal(_) => plain(NotifyType::TEMPORARY_FAILURE),
        Error::Refused(_)
        | Error::SinglePairs
        | Error::DeletedBefore
        | Error::RuleChanged
        | Error::NothingNew
        | Error::BadAnswer(_)
        | Error::Configuration(_)
        | Error::FollowUpTimeout => None,
    }
}
