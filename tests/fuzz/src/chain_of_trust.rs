//! A chain of certificates, to be judged by what a target reads.

use core::time::Duration;
use std::sync::OnceLock;

use gateway_ike::crypto::x509::{
    Certificate, CertificateFault, OcspResponse, Revocation, RevocationList, Trust, TrustAnchors,
    certificates_from_pem,
};

/// An authority, one below it, and a leaf of that one, in DER.
pub struct Chain {
    /// The authority's certificate.
    pub root: Vec<u8>,
    /// That of the one below.
    pub sub: Vec<u8>,
    /// The leaf's.
    pub leaf: Vec<u8>,
    /// When all of them are good.
    pub now: Duration,
}

/// The chain of gateway-ike's tests of OCSP.
pub fn chain() -> &'static Chain {
    static CHAIN: OnceLock<Chain> = OnceLock::new();
    let der = |pem: &[u8]| certificates_from_pem(pem).unwrap().remove(0);
    CHAIN.get_or_init(|| {
        let leaf = der(include_bytes!("../../../gateway/ike/tests/ocsp/leaf.pem"));
        let begins = Certificate::from_der(&leaf).unwrap().not_before().0;
        Chain {
            root: der(include_bytes!("../../../gateway/ike/tests/ocsp/ca.pem")),
            sub: der(include_bytes!("../../../gateway/ike/tests/ocsp/sub.pem")),
            leaf,
            now: Duration::from_secs(begins + 3600),
        }
    })
}

impl Chain {
    /// Whether the leaf is believed with these lists and responses.
    pub fn verify(
        &self,
        revocation: Revocation,
        lists: Vec<RevocationList>,
        responses: Vec<OcspResponse>,
    ) -> Result<(), CertificateFault> {
        let anchors = TrustAnchors::new(core::slice::from_ref(&self.root)).unwrap();
        let trust = Trust { anchors, revocation, lists, responses };
        trust.verify(&[&self.leaf, &self.sub], self.now).map(drop)
    }
}
