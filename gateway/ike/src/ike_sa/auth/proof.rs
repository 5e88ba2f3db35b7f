//! The proof of who an end is: ours is made here, the peer's is checked here.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use gateway_wire::{AuthMethod, Authentication, CertEncoding, Certificate};
use zeroize::Zeroizing;

use super::{Transcript, certificate, psk, signature};
use crate::algorithms::{Prf, SignatureScheme};
use crate::config::{
    EapMethod, EapTls, EndpointConfig, Identity, LocalAuth, PeerConfig, RemoteAuth,
};
use crate::crypto::x509::{Date, DistinguishedName, Verified};
use crate::eap::{Shown, Success};
use crate::error::{AuthenticationFault, Error};
use crate::keys::shared_key_auth;

/// How a peer proved who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerProof {
    /// The signature, or `None` for a pre-shared key.
    pub scheme: Option<SignatureScheme>,
    /// Its certificate, if it has one.
    pub certificate: Option<PeerCertificate>,
    /// The method, if it was EAP.
    pub eap: Option<EapMethod>,
    /// What it showed by EAP beside another proof.
    beside: Option<Box<PeerCertificate>>,
}

impl PeerProof {
    /// In one word.
    #[must_use]
    pub fn method(&self) -> String {
        match (self.eap, self.scheme) {
            (Some(method), _) => format!("eap-{method}"),
            (None, Some(scheme)) => scheme.to_string(),
            (None, None) => "psk".to_owned(),
        }
    }
}

/// What is kept of a peer's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Whose it is.
    pub subject: DistinguishedName,
    /// Until when it is valid.
    pub not_after: Date,
    /// What it sent, in order to be judged again.
    chain: Arc<[Vec<u8>]>,
    /// When the first certificate of the chain by which it is believed ends.
    ends: Date,
    /// Until when it is believed without being judged again.
    stands: Date,
    /// By EAP: the identities of which it has to hold one.
    named: Option<Vec<Identity>>,
}

impl PeerCertificate {
    fn by_eap(shown: Shown) -> Self {
        Self { named: Some(shown.named), ..Self::new(&shown.verified, shown.chain) }
    }

    fn new(verified: &Verified, chain: Vec<Vec<u8>>) -> Self {
        let Verified { certificate, ends, stands } = verified;
        Self {
            subject: certificate.subject().clone(),
            not_after: certificate.not_after(),
            chain: chain.into(),
            ends: *ends,
            stands: *stands,
            named: None,
        }
    }
}

impl PeerProof {
    /// When the first certificate ends of the chain by which the peer is believed.
    pub(super) fn ends(&self) -> Option<Date> {
        self.shown().map(|shown| shown.ends).min()
    }

    /// Until when the peer is believed without being judged again.
    pub(super) fn stands(&self) -> Option<Date> {
        self.shown().map(|shown| shown.stands).min()
    }

    fn shown(&self) -> impl Iterator<Item = &PeerCertificate> {
        self.certificate.iter().chain(self.beside.as_deref())
    }

    /// Whether the peer would still be believed, at another time or under another configuration.
    pub(super) fn judge(
        &mut self,
        limits: &EndpointConfig,
        now: Option<Duration>,
        peer: &PeerConfig,
    ) -> Result<(), AuthenticationFault> {
        for shown in self.certificate.iter_mut().chain(self.beside.as_deref_mut()) {
            let own = core::slice::from_ref(&peer.remote_id);
            let (trust, named) = match (&shown.named, &peer.remote_auth) {
                (Some(named), _) => (eap_tls(peer).map(|tls| &tls.trust), named.as_slice()),
                (None, RemoteAuth::Certificate(trust)) => (Some(trust), own),
                (None, _) => (None, own),
            };
            // The configuration is of the same kind as the one by which it was believed.
            let Some(trust) = trust else { continue };
            let chain: Vec<&[u8]> = shown.chain.iter().map(Vec::as_slice).collect();
            let found = trust.identify(&chain, certificate::bounds(limits), now, named)?;
            (shown.ends, shown.stands) = (found.ends, found.stands);
        }
        Ok(())
    }
}

/// What the peer's end of EAP-TLS, or ours, needs.
fn eap_tls(peer: &PeerConfig) -> Option<&EapTls> {
    match (&peer.remote_auth, &peer.local_auth) {
        (RemoteAuth::Eap(eap), _) => eap.tls.as_ref(),
        (_, LocalAuth::Eap(eap)) => eap.tls.as_ref(),
        _ => None,
    }
}

impl fmt::Display for PeerProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(method) = self.eap {
            write!(f, "EAP method {method}")?;
            if let Some(PeerCertificate { subject, not_after, .. }) = &self.certificate {
                write!(f, " with the certificate of {subject}, valid until {not_after}")?;
            }
            return Ok(());
        }
        match (&self.scheme, &self.certificate) {
            (None, _) => f.write_str("pre-shared key"),
            (Some(scheme), None) => write!(f, "{scheme} with its public key"),
            (Some(scheme), Some(PeerCertificate { subject, not_after, .. })) => {
                write!(f, "{scheme} with the certificate of {subject}, valid until {not_after}")
            }
        }
    }
}

/// Proof that the peer showed who it is: only [`verify`] and the checks of `eap` make one.
pub(super) struct PeerAuthenticated {
    peer: Arc<PeerConfig>,
    proof: PeerProof,
}

impl PeerAuthenticated {
    /// For the checks of `eap`: EAP went well, and AUTH with its key verifies.
    pub(super) fn by_eap(peer: Arc<PeerConfig>, success: Success) -> Self {
        let certificate = success.shown.map(|shown| PeerCertificate::by_eap(*shown));
        let proof = PeerProof { certificate, eap: Some(success.method), ..PeerProof::default() };
        Self { peer, proof }
    }

    /// The same, where the peer has proven itself before.
    pub(super) fn with_eap(mut self, success: Success) -> Self {
        let shown = success.shown.map(|shown| PeerCertificate::by_eap(*shown));
        self.proof.beside = shown.map(Box::new);
        self
    }

    pub(super) const fn peer(&self) -> &Arc<PeerConfig> {
        &self.peer
    }

    pub(super) const fn proof(&self) -> &PeerProof {
        &self.proof
    }
}

/// The data of our AUTH payload, over these octets, and how it is made.
pub(super) fn prove(
    peer: &PeerConfig,
    prf: Prf,
    transcript: &Transcript,
    octets: &[u8],
) -> Result<(AuthMethod, Zeroizing<Vec<u8>>), Error> {
    let key = match &peer.local_auth {
        LocalAuth::Psk(key) => {
            let data = shared_key_auth(prf, key.expose(), octets);
            return Ok((AuthMethod::SHARED_KEY, data));
        }
        LocalAuth::Certificate(credential) => credential.key(),
        LocalAuth::PublicKey(key) => key,
        LocalAuth::Eap(_) => return Err(AuthenticationFault::EapNotAlone.into()),
    };
    let hashes = transcript.peer_hashes.as_deref();
    let (method, data) = signature::sign(key, &peer.signature_schemes, hashes, octets)?;
    Ok((method, Zeroizing::new(data)))
}

/// What a peer's proof is checked against, and with.
pub(super) struct Claim<'a> {
    pub(super) limits: &'a EndpointConfig,
    /// The time of day.
    pub(super) now: Option<Duration>,
    pub(super) prf: Prf,
    pub(super) transcript: &'a Transcript,
    pub(super) auth: &'a Authentication<'a>,
    pub(super) certificates: &'a [Certificate<'a>],
    /// What AUTH covers.
    pub(super) octets: &'a [u8],
}

/// Whether a claim shows that the other end is this peer. All that takes long, such as the
/// validation of a chain, is done in here, from nothing but the arguments.
pub(super) fn verify(
    peer: &Arc<PeerConfig>,
    claim: &Claim<'_>,
) -> Result<PeerAuthenticated, Error> {
    let Claim { limits, now, prf, transcript, auth, certificates, octets } = claim;
    let signed = |key, whose: &str| {
        let knows = transcript.peer_hashes.is_some();
        signature::verify(key, whose, &peer.signature_schemes, knows, auth, octets)
    };
    let proof = match &peer.remote_auth {
        RemoteAuth::Psk(key) => {
            psk::verify(*prf, key, &peer.name, auth, octets)?;
            PeerProof::default()
        }
        RemoteAuth::Certificate(trust) => {
            let found = certificate::verified(limits, *now, peer, trust, certificates)
                .map_err(AuthenticationFault::from)?;
            let whose = format!("the certificate of {}", found.certificate.subject());
            let scheme = signed(found.certificate.key(), &whose)?;
            let x509 = certificates.iter().filter(|c| c.encoding == CertEncoding::X509_SIGNATURE);
            let certificate = PeerCertificate::new(&found, x509.map(|c| c.data.to_vec()).collect());
            let certificate = Some(certificate);
            PeerProof { scheme: Some(scheme), certificate, ..PeerProof::default() }
        }
        RemoteAuth::PublicKey(key) => {
            certificate::same_key(key, certificates)?;
            let scheme = signed(key, &format!("the public key of {}", peer.name))?;
            PeerProof { scheme: Some(scheme), ..PeerProof::default() }
        }
        RemoteAuth::Eap(_) => return Err(AuthenticationFault::EapDemanded.into()),
    };
    Ok(PeerAuthenticated { peer: Arc::clone(peer), proof })
}
