//! A certificate of a peer, or of an authority that an operator trusts (RFC 5280 4.1).
#![no_main]

use gateway_fuzz::chain_of_trust::chain;
use gateway_ike::crypto::x509::{Certificate, Revocation, Trust, TrustAnchors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    let Ok(certificate) = Certificate::from_der(der) else { return };
    assert_eq!(certificate.der(), der);
    for identity in certificate.identities() {
        assert!(certificate.holds(&identity), "{identity}");
    }
    let chain = chain();
    let trust = |anchor: &[u8]| {
        let anchors = TrustAnchors::new(&[anchor.to_vec()]).ok()?;
        let (lists, responses) = (Vec::new(), Vec::new());
        Some(Trust { anchors, revocation: Revocation::Off, lists, responses })
    };
    // In each place of a chain: it certifies nothing that it has not signed.
    let _verdict = trust(&chain.root).map(|trust| trust.verify(&[der, &chain.sub], chain.now));
    let below = trust(&chain.root).unwrap().verify(&[&chain.leaf, der], chain.now);
    assert!(below.is_err() || der == chain.sub);
    if let Some(trust) = trust(der) {
        let _verdict = trust.verify(&[&chain.leaf, &chain.sub], chain.now);
        let _verdict = trust.verify(&[der], chain.now);
    }
});
