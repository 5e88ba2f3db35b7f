//! Identities and their proof: what a peer claims beside what is configured for it.

use gateway_wire::{
    AuthMethod, Authentication, ExchangeType, HashAlgorithm, IdType, Identification,
    SignatureAuthentication, TrafficSelector,
};

use super::{Candidate, Cause, Field, FieldName, Refusal};
use crate::algorithms::{IkeSuite, SignatureScheme};
use crate::channel::Opened;
use crate::config::{Identity, LocalAuth, PeerConfig, PeerName, RemoteAuth};
use crate::crypto::signature::identifier;
use crate::crypto::x509::CertificateFault;
use crate::error::{AuthenticationFault, EapFault};
use crate::identity;
use crate::payloads::Payloads;
use crate::proposal;

/// Octets of a claimed identity that are kept.
const MOST_OF_IDENTITY: usize = 1024;
/// Traffic selectors of either side that are kept.
const MOST_SELECTORS: usize = 8;

/// What a peer says of itself in IKE_AUTH. Nothing of it is proven.
#[derive(Debug)]
pub(crate) struct Claimed {
    id: Option<(IdType, Vec<u8>)>,
    /// Whom the initiator wants to speak to.
    wanted: Option<(IdType, Vec<u8>)>,
    method: Option<AuthMethod>,
    scheme: Option<String>,
    /// The hashes that it can verify, if it knows RFC 7427.
    hashes: Option<Vec<HashAlgorithm>>,
    /// Whose traffic a Child SA is to protect: of our side and of the peer's.
    asked: (Vec<TrafficSelector>, Vec<TrafficSelector>),
}

impl Claimed {
    /// What a message of IKE_AUTH says, of the initiator or of the responder; `None`: it cannot be
    /// read.
    pub(crate) fn in_message(
        opened: &Opened,
        initiator: bool,
        hashes: Option<&[HashAlgorithm]>,
    ) -> Option<Box<Self>> {
        let inner = opened.payloads().ok()?;
        let payloads = Payloads::collect(ExchangeType::IKE_AUTH, &inner).ok()?;
        let (id, wanted) =
            if initiator { (payloads.id_i, payloads.id_r) } else { (payloads.id_r, None) };
        let selectors = |all: Option<Vec<TrafficSelector>>| {
            all.into_iter().flatten().take(MOST_SELECTORS).collect()
        };
        let (ours, theirs) =
            if initiator { (payloads.ts_r, payloads.ts_i) } else { (payloads.ts_i, payloads.ts_r) };
        let keep = |id: &Identification<'_>| {
            (id.kind, id.data.get(..MOST_OF_IDENTITY).unwrap_or(id.data).to_vec())
        };
        Some(Box::new(Self {
            id: id.map(keep),
            wanted: wanted.map(keep),
            method: payloads.auth.map(|auth| auth.method),
            scheme: payloads.auth.and_then(scheme),
            hashes: hashes.map(<[_]>::to_vec),
            asked: (selectors(ours), selectors(theirs)),
        }))
    }

    /// Whose traffic a Child SA is to protect: of our side and of the peer's.
    pub(super) fn asked(&self) -> (&[TrafficSelector], &[TrafficSelector]) {
        (&self.asked.0, &self.asked.1)
    }
}

/// How a signature is made, by its own word.
fn scheme(auth: &Authentication<'_>) -> Option<String> {
    if auth.method != AuthMethod::DIGITAL_SIGNATURE {
        return None;
    }
    let octets = SignatureAuthentication::decode(auth.data).ok()?.algorithm_identifier;
    let unknown = || octets.iter().map(|o| format!("{o:02x}")).collect();
    Some(identifier::to_scheme(octets).map_or_else(unknown, |scheme| scheme.to_string()))
}

fn claimed_id(id: &(IdType, Vec<u8>)) -> String {
    let id = Identification::new(id.0, &id.1);
    format!("{} {}", id.kind, identity::describe(&id))
}

fn own_id(id: &Identity) -> String {
    format!("{} {id}", id.to_wire().0)
}

/// The refusal of a peer that could be one of `peers`.
pub(super) fn refusal(
    fault: &AuthenticationFault,
    peers: &mut dyn Iterator<Item = &PeerConfig>,
    claimed: Option<&Claimed>,
    suite: Option<IkeSuite>,
) -> Refusal {
    let (cause, field) = verdict(fault);
    let candidates: Vec<_> = peers.map(|p| compare(p, claimed, suite)).collect();
    let mut refusal = Refusal::nearest(candidates, 0, |_| cause);
    refusal.cause = cause;
    if refusal.candidates.is_empty() {
        // Nobody at this address: what the peer says stands alone.
        let theirs = claimed.and_then(|c| c.id.as_ref()).map(claimed_id);
        let fields = vec![Field::new(FieldName::RemoteIdentity, [], theirs, Some(false))];
        refusal.candidates.push(Candidate { fields, ..Candidate::default() });
    }
    if let (Some(nearest), Some(field)) = (refusal.candidates.first_mut(), field) {
        nearest.fields.retain(|f| f.name != field.name);
        nearest.fields.push(field);
        // What stands in the way is the certificate; whose, EAP says.
        if let AuthenticationFault::Eap { who, fault: EapFault::Certificate(_) } = fault {
            nearest.fields.push(Field::new(FieldName::User, [], [who.clone()], None));
        }
    }
    refusal
}

/// What we show a peer that does not say what it wants.
pub(super) fn shown(peer: &PeerConfig) -> Refusal {
    let mut fields = vec![
        Field::new(FieldName::LocalIdentity, [own_id(&peer.local_id)], [], None),
        Field::new(FieldName::Method, [peer.local_auth.name().to_owned()], [], None),
    ];
    if matches!(&peer.local_auth, LocalAuth::Certificate(_) | LocalAuth::PublicKey(_)) {
        let schemes = peer.signature_schemes.iter().map(ToString::to_string);
        fields.push(Field::new(FieldName::Scheme, schemes, [], None));
    }
    let name = Some(PeerName::clone(&peer.name));
    let candidate = Candidate { peer: name, fields, ..Candidate::default() };
    Refusal::nearest(vec![candidate], 0, |_| Cause::AuthenticationByPeer)
}

fn compare(peer: &PeerConfig, claimed: Option<&Claimed>, suite: Option<IkeSuite>) -> Candidate {
    let mut fields = Vec::new();
    let is = |ours: &Identity, theirs: &(IdType, Vec<u8>)| {
        ours.is(&Identification::new(theirs.0, &theirs.1))
    };
    if let Some(id) = claimed.and_then(|c| c.id.as_ref()) {
        let (ours, fits) = if peer.is_anybody() {
            ("any".to_owned(), true)
        } else {
            (own_id(&peer.remote_id), is(&peer.remote_id, id))
        };
        fields.push(Field::new(FieldName::RemoteIdentity, [ours], [claimed_id(id)], Some(fits)));
    }
    if let Some(wanted) = claimed.and_then(|c| c.wanted.as_ref()) {
        let (ours, fits) = (own_id(&peer.local_id), is(&peer.local_id, wanted));
        fields.push(Field::new(FieldName::LocalIdentity, [ours], [claimed_id(wanted)], Some(fits)));
    }
    if let Some(suite) = suite.filter(|suite| !proposal::accepts(&peer.proposals, *suite)) {
        let offer = proposal::offer_ike(&peer.proposals);
        let ours = offer.proposals.iter().map(proposal::describe);
        fields.push(Field::new(FieldName::Suite, ours, [suite.to_string()], Some(false)));
    }
    if let Some(claimed) = claimed {
        let signs =
            matches!(&peer.remote_auth, RemoteAuth::Certificate(_) | RemoteAuth::PublicKey(_));
        let fits = match (&peer.remote_auth, claimed.method) {
            (RemoteAuth::Psk(_), method) => method == Some(AuthMethod::SHARED_KEY),
            // Who sends no AUTH asks for EAP (RFC 7296 2.16).
            (RemoteAuth::Eap(_), method) => method.is_none(),
            (RemoteAuth::Certificate(_) | RemoteAuth::PublicKey(_), method) => {
                method.is_some_and(|m| m != AuthMethod::SHARED_KEY && m != AuthMethod::NULL)
            }
        };
        let ours = peer.remote_auth.name().to_owned();
        let theirs = claimed.method.map_or_else(|| "eap".to_owned(), |m| m.to_string());
        fields.push(Field::new(FieldName::Method, [ours], [theirs], Some(fits)));
        if signs {
            fields.extend(signature(&peer.signature_schemes, claimed));
        }
    }
    let name = Some(PeerName::clone(&peer.name));
    Candidate { peer: name, fields, ..Candidate::default() }
}

fn signature(schemes: &[SignatureScheme], claimed: &Claimed) -> impl Iterator<Item = Field> {
    let ours = || schemes.iter().map(ToString::to_string);
    let scheme = claimed.scheme.as_ref().map(|theirs| {
        let fits = ours().any(|ours| ours == *theirs);
        Field::new(FieldName::Scheme, ours(), [theirs.clone()], Some(fits))
    });
    let mut hashes: Vec<_> = schemes.iter().map(|s| s.hash()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    let theirs = claimed.hashes.as_deref();
    let fits = theirs.is_some_and(|theirs| hashes.iter().any(|h| theirs.contains(h)));
    let ours = hashes.iter().map(ToString::to_string);
    let theirs = theirs.unwrap_or_default().iter().map(ToString::to_string);
    // A peer that does not know RFC 7427 may sign as one did before it.
    let fits = (fits || claimed.hashes.is_some()).then_some(fits);
    scheme.into_iter().chain([Field::new(FieldName::Hashes, ours, theirs, fits)])
}

/// The cause of a fault, and the field that shows it.
fn verdict(fault: &AuthenticationFault) -> (Cause, Option<Field>) {
    use AuthenticationFault as F;
    let wrong = |name, ours: Vec<String>, theirs: Vec<String>| {
        Some(Field::new(name, ours, theirs, Some(false)))
    };
    let word = |word: &str| vec![word.to_owned()];
    let user = |who: &str| Some(Field::new(FieldName::User, [], [who.to_owned()], None));
    match fault {
        F::UnknownIdentity(_) => (Cause::UnknownIdentity, None),
        // The claim has both, with their types.
        F::WrongIdentity { .. } => (Cause::OtherIdentity, None),
        F::WrongAuth(_) => (Cause::SharedKey, None),
        F::Method { found, expected } => {
            (Cause::Method, wrong(FieldName::Method, word(expected), vec![found.to_string()]))
        }
        F::EapNotConfigured => (Cause::Method, None),
        F::EapDemanded => (Cause::Method, wrong(FieldName::Method, word("eap"), word("AUTH"))),
        F::EapNotAlone => {
            (Cause::Method, wrong(FieldName::Method, word("eap"), word("AUTH first")))
        }
        F::OldMethod(method) => {
            let ours = word("digital signature (RFC 7427)");
            (Cause::Scheme, wrong(FieldName::Method, ours, vec![method.to_string()]))
        }
        F::OtherPublicKey => (Cause::PublicKey, None),
        F::WrongSignature(_) => (Cause::Signature, None),
        F::MalformedSignature => (Cause::Signature, None),
        F::UnknownScheme(_) | F::SchemeNotAllowed(_) => (Cause::Scheme, None),
        F::SchemeOfOtherKey { key, method } => {
            let ours = vec![format!("a key of kind {key}")];
            (Cause::Scheme, wrong(FieldName::Scheme, ours, vec![method.to_string()]))
        }
        F::Sha1 => (Cause::Scheme, wrong(FieldName::Hashes, Vec::new(), word("SHA1"))),
        F::NoScheme { ours, theirs, .. } => {
            (Cause::Scheme, wrong(FieldName::Scheme, vec![ours.clone()], vec![theirs.clone()]))
        }
        F::PpkUnsupported | F::PpkUnknown => (Cause::Ppk, None),
        F::EapTooWeak(method) => {
            let ours = word("a method that may stand alone");
            (Cause::Method, wrong(FieldName::Method, ours, vec![format!("eap-{method}")]))
        }
        F::Eap { who, fault } if fault.is_limit() => (Cause::EapLimit, user(who)),
        F::Eap { fault: EapFault::Certificate(fault), .. } => of_certificate(fault),
        F::Eap { who, .. } | F::WrongEapAuth(who) | F::EapOutdated(who) => (Cause::Eap, user(who)),
        F::Certificate(fault) => of_certificate(fault),
    }
}

fn of_certificate(fault: &CertificateFault) -> (Cause, Option<Field>) {
    use CertificateFault as F;
    let wrong = |name, ours: Option<String>, theirs: Option<String>| {
        Some(Field::new(name, ours, theirs, Some(false)))
    };
    match fault {
        F::Absent | F::ByUrl => (Cause::Absent, None),
        F::Malformed(_) => (Cause::Malformed, None),
        F::Key { error, .. } => {
            (Cause::Key, wrong(FieldName::Usage, None, Some(error.to_string())))
        }
        F::TooMany { found, limit } => {
            let (ours, theirs) = (format!("{limit} at most"), found.to_string());
            (Cause::Limit, wrong(FieldName::ChainLength, Some(ours), Some(theirs)))
        }
        F::TooLarge { found, limit } => {
            let (ours, theirs) = (format!("{limit} octets at most"), format!("{found} octets"));
            (Cause::Limit, wrong(FieldName::CertificateSize, Some(ours), Some(theirs)))
        }
        F::NoTime => {
            let ours = "the time of day is not known".to_owned();
            (Cause::Validity, wrong(FieldName::Validity, Some(ours), None))
        }
        F::Expired { since, .. } => {
            (Cause::Validity, wrong(FieldName::Validity, None, Some(format!("until {since}"))))
        }
        F::NotYetValid { from, .. } => {
            (Cause::Validity, wrong(FieldName::Validity, None, Some(format!("from {from}"))))
        }
        F::NoChain { issuer, anchors, .. } => {
            let theirs = issuer.to_string();
            (Cause::Chain, wrong(FieldName::Issuer, Some(anchors.clone()), Some(theirs)))
        }
        F::Revoked(subject) | F::RevocationUnknown(subject) => {
            (Cause::Revocation, wrong(FieldName::Issuer, None, Some(subject.to_string())))
        }
        F::StatusUnknown { subject, reason } => {
            let (ours, theirs) = (Some(reason.clone()), Some(subject.clone()));
            (Cause::Revocation, wrong(FieldName::Validity, ours, theirs))
        }
        F::RevocationListExpired { since, .. } => {
            let ours = format!("a revocation list until {since}");
            (Cause::Revocation, wrong(FieldName::Validity, Some(ours), None))
        }
        F::Usage { reason, .. } => {
            let ours = "digital signature".to_owned();
            (Cause::Usage, wrong(FieldName::Usage, Some(ours), Some(reason.clone())))
        }
        F::NameConstraints(subject) => {
            (Cause::NameConstraints, wrong(FieldName::Issuer, None, Some(subject.to_string())))
        }
        F::Identity { identity, found, .. } => {
            let (ours, theirs) = (Some(identity.clone()), Some(found.clone()));
            (Cause::IdentityNotInCertificate, wrong(FieldName::CertificateIdentities, ours, theirs))
        }
        F::Algorithm { algorithm, .. } => {
            let theirs = Some(algorithm.clone());
            (Cause::CertifiedBy, wrong(FieldName::CertificateAlgorithm, None, theirs))
        }
        F::WrongSignature(_) => (Cause::CertifiedBy, None),
        F::Other { .. } => (Cause::OtherCertificate, None),
    }
}
