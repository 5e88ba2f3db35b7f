//! TLS for EAP-TLS: rustls with ring, without sockets, session tickets or names of servers. Whom
//! to believe is decided by [`Judge`], not by a list of public authorities.
//!
//! The randomness of TLS is ring's own: rustls takes no other. So a conversation by EAP-TLS is the
//! one thing in this crate that does not repeat from a seed.

use core::fmt;
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ServerConnection};
use rustls::sign::{CertifiedKey, Signer, SigningKey as TlsSigningKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, Connection, DigitallySignedStruct, DistinguishedName,
    OtherError, ProtocolVersion, ServerConfig, SignatureAlgorithm, SignatureScheme as TlsScheme,
};
use webpki::ring;

use super::signature::{KeyKind, P521_CERTIFICATE_SIGNATURES, SigningKey};
use super::x509::{self, CertificateFault, Credential};
use crate::algorithms::SignatureScheme;
use crate::eap::{Fault, Msk};

/// Decides whether a chain of certificates is the other end's.
pub(crate) trait Judge: Send + Sync {
    /// # Errors
    /// Why it is not.
    fn judge(&self, chain: &[&[u8]]) -> Result<(), CertificateFault>;
}

/// One end of a TLS connection.
pub(crate) struct Session {
    connection: Connection,
    /// Whether the last word of RFC 9190 has been said, or heard.
    confirmed: bool,
}

/// The last word: RFC 9190 2.5.
const CONFIRMATION: &[u8] = &[0];
/// RFC 5216 2.3.
const LABEL_12: &[u8] = b"client EAP encryption";
/// RFC 9190 2.3, whose context is the number of the method.
const LABEL_13: &[u8] = b"EXPORTER_EAP_TLS_Key_Material";
const METHOD: &[u8] = &[13];

impl Session {
    /// The client's end. `now`: the time since 1970.
    pub(crate) fn client(
        now: Duration,
        ours: &Arc<Credential>,
        judge: Arc<dyn Judge>,
    ) -> Result<Self, Fault> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Verifier(judge));
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(Moment(now)))
            .with_safe_default_protocol_versions()
            .map_err(|error| fault(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(ours))));
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        // The verifier does not look at it, and it is not sent.
        let nobody = ServerName::from(core::net::IpAddr::from([0, 0, 0, 0]));
        let connection = ClientConnection::new(Arc::new(config), nobody);
        let connection = Connection::Client(connection.map_err(|error| fault(&error))?);
        Ok(Self { connection, confirmed: false })
    }

    /// The server's end, which demands a certificate.
    pub(crate) fn server(
        now: Duration,
        ours: &Arc<Credential>,
        judge: Arc<dyn Judge>,
    ) -> Result<Self, Fault> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Verifier(judge));
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(Moment(now)))
            .with_safe_default_protocol_versions()
            .map_err(|error| fault(&error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified(ours))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let connection = ServerConnection::new(Arc::new(config));
        let connection = Connection::Server(connection.map_err(|error| fault(&error))?);
        Ok(Self { connection, confirmed: false })
    }

    /// Takes octets of the other end.
    pub(crate) fn feed(&mut self, mut octets: &[u8]) -> Result<(), Fault> {
        while !octets.is_empty() {
            let before = octets.len();
            self.connection
                .read_tls(&mut octets)
                .map_err(|_full| Fault::Malformed("more TLS data than can be taken"))?;
            let state = self.connection.process_new_packets().map_err(|error| fault(&error))?;
            if state.plaintext_bytes_to_read() > 0 {
                self.hear()?;
            }
            if octets.len() == before {
                return Err(Fault::Unexpected("TLS data after its end"));
            }
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<(), Fault> {
        let mut heard = [0; 2];
        let length = self.connection.reader().read(&mut heard).unwrap_or(0);
        // RFC 9190 2.1.1: nothing else may be sent in the tunnel.
        let is_confirmation = heard.get(..length) == Some(CONFIRMATION);
        if self.is_server() || self.confirmed || !is_confirmation {
            return Err(Fault::Unexpected("data within EAP-TLS"));
        }
        self.confirmed = true;
        Ok(())
    }

    /// What is to be sent.
    pub(crate) fn output(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut octets).is_err() {
                break; // A vector takes everything.
            }
        }
        octets
    }

    /// Whether both ends are authenticated, as far as this end can know.
    pub(crate) fn is_established(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// The server's last word.
    pub(crate) fn confirm(&mut self) {
        if !self.confirmed && self.is_13() {
            // It goes into a buffer.
            let _written = self.connection.writer().write(CONFIRMATION);
        }
        self.confirmed = true;
    }

    /// Whether nothing is left to say.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.is_established() && (self.confirmed || !self.is_13())
    }

    /// The key for EAP: the first half of what the exporter gives.
    pub(crate) fn msk(&self) -> Result<Msk, Fault> {
        let (label, context) =
            if self.is_13() { (LABEL_13, Some(METHOD)) } else { (LABEL_12, None) };
        let material = Msk::new(vec![0; 128]);
        let material = self
            .connection
            .export_keying_material(material, label, context)
            .map_err(|error| fault(&error))?;
        Ok(Msk::new(material.get(..64).unwrap_or_default().to_vec()))
    }

    fn is_13(&self) -> bool {
        self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    const fn is_server(&self) -> bool {
        matches!(self.connection, Connection::Server(_))
    }
}

fn certified(ours: &Arc<Credential>) -> CertifiedKey {
    let chain = ours.chain().map(|der| CertificateDer::from(der.to_vec())).collect();
    CertifiedKey::new(chain, Arc::new(Key(Arc::clone(ours))))
}

/// What TLS says, in our words.
fn fault(error: &rustls::Error) -> Fault {
    if let rustls::Error::AlertReceived(alert) = error {
        return Fault::TlsAlert(format!("{alert:?}"));
    }
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = error
        && let Some(fault) = other.downcast_ref::<CertificateFault>()
    {
        return Fault::Certificate(Box::new(fault.clone()));
    }
    if *error == rustls::Error::NoCertificatesPresented {
        return Fault::Certificate(Box::new(CertificateFault::Absent));
    }
    Fault::Tls(error.to_string())
}

/// The time of day as it was when the conversation began.
#[derive(Debug)]
struct Moment(Duration);

impl TimeProvider for Moment {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0))
    }
}

/// What the other end may sign the handshake with: what its certificates may be signed with, which
/// is what ring verifies, and P-521, which it does not. With TLS 1.3 the first of a line is the only
/// one; with TLS 1.2 the curve does not follow from the scheme.
const SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: x509::SIGNATURES,
    mapping: &[
        (TlsScheme::ECDSA_NISTP521_SHA512, &[P521_CERTIFICATE_SIGNATURES[2]]),
        (
            TlsScheme::ECDSA_NISTP384_SHA384,
            &[ring::ECDSA_P384_SHA384, ring::ECDSA_P256_SHA384, P521_CERTIFICATE_SIGNATURES[1]],
        ),
        (
            TlsScheme::ECDSA_NISTP256_SHA256,
            &[ring::ECDSA_P256_SHA256, ring::ECDSA_P384_SHA256, P521_CERTIFICATE_SIGNATURES[0]],
        ),
        (TlsScheme::ED25519, &[ring::ED25519]),
        (TlsScheme::RSA_PSS_SHA512, &[ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
        (TlsScheme::RSA_PSS_SHA384, &[ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (TlsScheme::RSA_PSS_SHA256, &[ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (TlsScheme::RSA_PKCS1_SHA512, &[ring::RSA_PKCS1_2048_8192_SHA512]),
        (TlsScheme::RSA_PKCS1_SHA384, &[ring::RSA_PKCS1_2048_8192_SHA384]),
        (TlsScheme::RSA_PKCS1_SHA256, &[ring::RSA_PKCS1_2048_8192_SHA256]),
    ],
};

/// Asks the judge about certificates, and [`SIGNATURES`] about signatures.
struct Verifier(Arc<dyn Judge>);

impl Verifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let chain: Vec<&[u8]> =
            core::iter::once(leaf.as_ref()).chain(others.iter().map(AsRef::as_ref)).collect();
        self.0.judge(&chain).map_err(|fault| {
            let fault = OtherError(Arc::new(fault));
            rustls::Error::InvalidCertificate(CertificateError::Other(fault))
        })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _nobody: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(leaf, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &SIGNATURES)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<TlsScheme> {
        SIGNATURES.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(leaf, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &SIGNATURES)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<TlsScheme> {
        SIGNATURES.supported_schemes()
    }
}

/// Our private key, as rustls wants it.
#[derive(Debug)]
struct Key(Arc<Credential>);

/// Our key, and how it is to sign.
#[derive(Debug)]
struct KeySigner(Arc<Credential>, SignatureScheme);

impl TlsSigningKey for Key {
    fn choose_scheme(&self, offered: &[TlsScheme]) -> Option<Box<dyn Signer>> {
        let ours = self.0.key().schemes().iter().copied();
        let scheme = ours.into_iter().find(|ours| offered.contains(&to_tls(*ours)))?;
        Some(Box::new(KeySigner(Arc::clone(&self.0), scheme)))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0.key().public().kind() {
            KeyKind::Rsa(_) => SignatureAlgorithm::RSA,
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => SignatureAlgorithm::ECDSA,
            KeyKind::Ed25519 => SignatureAlgorithm::ED25519,
        }
    }
}

impl Signer for KeySigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let key: &SigningKey = self.0.key();
        key.sign(self.1, message).map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> TlsScheme {
        to_tls(self.1)
    }
}

const fn to_tls(scheme: SignatureScheme) -> TlsScheme {
    match scheme {
        SignatureScheme::RsaPssSha256 => TlsScheme::RSA_PSS_SHA256,
        SignatureScheme::RsaPssSha384 => TlsScheme::RSA_PSS_SHA384,
        SignatureScheme::RsaPssSha512 => TlsScheme::RSA_PSS_SHA512,
        SignatureScheme::RsaPkcs1Sha256 => TlsScheme::RSA_PKCS1_SHA256,
        SignatureScheme::RsaPkcs1Sha384 => TlsScheme::RSA_PKCS1_SHA384,
        SignatureScheme::RsaPkcs1Sha512 => TlsScheme::RSA_PKCS1_SHA512,
        SignatureScheme::EcdsaSha256 => TlsScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::EcdsaSha384 => TlsScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::EcdsaSha512 => TlsScheme::ECDSA_NISTP521_SHA512,
        SignatureScheme::Ed25519 => TlsScheme::ED25519,
    }
}
