//! Who somebody is, and how that is proved: identities, certificates, AUTH, EAP.

use core::fmt;

wire_code! {
    /// Identification type (RFC 7296 3.5).
    IdType(u8) {
        /// Four octets.
        IPV4_ADDR = 1,
        /// A domain name.
        FQDN = 2,
        /// An e-mail address.
        RFC822_ADDR = 3,
        /// Sixteen octets.
        IPV6_ADDR = 5,
        /// A distinguished name in DER.
        DER_ASN1_DN = 9,
        /// A general name in DER.
        DER_ASN1_GN = 10,
        /// Opaque octets.
        KEY_ID = 11,
        /// RFC 7619.
        NULL = 13,
    }
}

wire_code! {
    /// Authentication method (RFC 7296 3.8).
    AuthMethod(u8) {
        /// RSA with PKCS#1 v1.5.
        RSA = 1,
        /// A key that both ends share.
        SHARED_KEY = 2,
        /// Obsolete.
        DSS = 3,
        /// RFC 4754.
        ECDSA_SHA256_P256 = 9,
        /// RFC 4754.
        ECDSA_SHA384_P384 = 10,
        /// RFC 4754.
        ECDSA_SHA512_P521 = 11,
        /// RFC 7619.
        NULL = 13,
        /// RFC 7427.
        DIGITAL_SIGNATURE = 14,
    }
}

wire_code! {
    /// Certificate encoding (RFC 7296 3.6).
    CertEncoding(u8) {
        /// Deprecated.
        PKCS7 = 1,
        /// A certificate in DER.
        X509_SIGNATURE = 4,
        /// A certificate revocation list.
        CRL = 7,
        /// SHA-1 and address of a certificate.
        HASH_AND_URL = 12,
        /// SHA-1 and address of a bundle.
        HASH_AND_URL_BUNDLE = 13,
        /// RFC 4806.
        OCSP = 14,
        /// RFC 7670.
        RAW_PUBLIC_KEY = 15,
    }
}

wire_code! {
    /// Hash algorithm of RFC 7427.
    HashAlgorithm(u16) {
        /// SHA-1.
        SHA1 = 1,
        /// SHA2-256.
        SHA2_256 = 2,
        /// SHA2-384.
        SHA2_384 = 3,
        /// SHA2-512.
        SHA2_512 = 4,
        /// None of its own (Ed25519), RFC 8420.
        IDENTITY = 5,
    }
}

wire_code! {
    /// Code of an EAP message (RFC 3748 4).
    EapCode(u8) {
        /// From the authenticator.
        REQUEST = 1,
        /// From the peer.
        RESPONSE = 2,
        /// The peer is authenticated.
        SUCCESS = 3,
        /// The peer is not authenticated.
        FAILURE = 4,
    }
}

wire_code! {
    /// Type of an EAP request or response (RFC 3748 5): what its data begins with.
    EapType(u8) {
        /// Who the peer is.
        IDENTITY = 1,
        /// Words for the peer's user.
        NOTIFICATION = 2,
        /// The peer will not have the method, and names others.
        NAK = 3,
        /// MD5-Challenge.
        MD5_CHALLENGE = 4,
        /// EAP-TLS (RFC 5216, RFC 9190).
        TLS = 13,
        /// EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2).
        MSCHAP_V2 = 26,
        /// A type of some vendor.
        EXPANDED = 254,
    }
}
