//! The numbers of IKEv2 as newtypes with named constants (RFC 7296 section 3 and IANA's
//! "Internet Key Exchange Version 2 (IKEv2) Parameters"): an unknown value survives decoding,
//! compares and prints.

use core::fmt;

/// Defines a newtype for a number on the wire with its named values.
macro_rules! wire_code {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($(#[$cdoc:meta])* $constant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$cdoc])* pub const $constant: Self = Self($value);)*

            /// The name in the RFC, or `None` for a value that has none here.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($constant)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({})"), self.0),
                }
            }
        }
    };
}

wire_code! {
    /// Exchange type (RFC 7296 3.1).
    ExchangeType(u8) {
        /// Algorithms, nonces and key exchange, in the clear.
        IKE_SA_INIT = 34,
        /// Identities, authentication and the first Child SA.
        IKE_AUTH = 35,
        /// Further Child SAs and rekeying.
        CREATE_CHILD_SA = 36,
        /// Deletes, errors, liveness.
        INFORMATIONAL = 37,
        /// RFC 5723.
        IKE_SESSION_RESUME = 38,
        /// RFC 9242.
        IKE_INTERMEDIATE = 43,
        /// RFC 9370.
        IKE_FOLLOWUP_KE = 44,
    }
}

wire_code! {
    /// Payload type (RFC 7296 3.2).
    PayloadType(u8) {
        /// The end of the chain.
        NONE = 0,
        /// Security Association.
        SA = 33,
        /// Key Exchange.
        KE = 34,
        /// Identification of the initiator.
        ID_I = 35,
        /// Identification of the responder.
        ID_R = 36,
        /// Certificate.
        CERT = 37,
        /// Certificate Request.
        CERTREQ = 38,
        /// Authentication.
        AUTH = 39,
        /// Nonce.
        NONCE = 40,
        /// Notify.
        NOTIFY = 41,
        /// Delete.
        DELETE = 42,
        /// Vendor ID.
        VENDOR_ID = 43,
        /// Traffic Selectors of the initiator.
        TS_I = 44,
        /// Traffic Selectors of the responder.
        TS_R = 45,
        /// Encrypted and Authenticated.
        SK = 46,
        /// Configuration.
        CP = 47,
        /// Extensible Authentication.
        EAP = 48,
        /// Encrypted and Authenticated Fragment (RFC 7383).
        SKF = 53,
    }
}

wire_code! {
    /// Security protocol (RFC 7296 3.3.1).
    ProtocolId(u8) {
        /// None: the notification concerns no existing SA.
        NONE = 0,
        /// The IKE SA.
        IKE = 1,
        /// Authentication Header.
        AH = 2,
        /// Encapsulating Security Payload.
        ESP = 3,
    }
}

wire_code! {
    /// Transform type (RFC 7296 3.3.2).
    TransformType(u8) {
        /// Encryption algorithm.
        ENCR = 1,
        /// Pseudo-random function.
        PRF = 2,
        /// Integrity algorithm.
        INTEG = 3,
        /// Key exchange method (named Diffie-Hellman group before RFC 9370).
        KE = 4,
        /// Extended sequence numbers.
        ESN = 5,
        /// First additional key exchange, RFC 9370.
        ADDKE1 = 6,
        /// Second additional key exchange.
        ADDKE2 = 7,
        /// Third additional key exchange.
        ADDKE3 = 8,
        /// Fourth additional key exchange.
        ADDKE4 = 9,
        /// Fifth additional key exchange.
        ADDKE5 = 10,
        /// Sixth additional key exchange.
        ADDKE6 = 11,
        /// Seventh additional key exchange.
        ADDKE7 = 12,
    }
}

wire_code! {
    /// Encryption algorithm, transform type 1.
    EncrId(u16) {
        /// Triple DES, RFC 2451.
        TRIPLE_DES = 3,
        /// No encryption, RFC 2410.
        NULL = 11,
        /// AES in CBC, RFC 3602.
        AES_CBC = 12,
        /// AES in counter mode, RFC 3686.
        AES_CTR = 13,
        /// AES-CCM with an 8-octet ICV, RFC 4309.
        AES_CCM_8 = 14,
        /// AES-CCM with a 16-octet ICV, RFC 4309.
        AES_CCM_16 = 16,
        /// AES-GCM with an 8-octet ICV, RFC 4106.
        AES_GCM_8 = 18,
        /// AES-GCM with a 16-octet ICV, RFC 4106.
        AES_GCM_16 = 20,
        /// RFC 7634.
        CHACHA20_POLY1305 = 28,
    }
}

wire_code! {
    /// Pseudo-random function, transform type 2.
    PrfId(u16) {
        /// RFC 2104.
        HMAC_MD5 = 1,
        /// RFC 2104.
        HMAC_SHA1 = 2,
        /// RFC 4434.
        AES128_XCBC = 4,
        /// RFC 4868.
        HMAC_SHA2_256 = 5,
        /// RFC 4868.
        HMAC_SHA2_384 = 6,
        /// RFC 4868.
        HMAC_SHA2_512 = 7,
    }
}

wire_code! {
    /// Integrity algorithm, transform type 3.
    IntegId(u16) {
        /// None: the cipher authenticates by itself.
        NONE = 0,
        /// RFC 2403.
        HMAC_MD5_96 = 1,
        /// RFC 2404.
        HMAC_SHA1_96 = 2,
        /// RFC 3566.
        AES_XCBC_96 = 5,
        /// RFC 4868.
        HMAC_SHA2_256_128 = 12,
        /// RFC 4868.
        HMAC_SHA2_384_192 = 13,
        /// RFC 4868.
        HMAC_SHA2_512_256 = 14,
    }
}

wire_code! {
    /// Key exchange method, transform type 4.
    KeMethod(u16) {
        /// None.
        NONE = 0,
        /// RFC 7296 B.2.
        MODP_1024 = 2,
        /// RFC 3526.
        MODP_1536 = 5,
        /// RFC 3526.
        MODP_2048 = 14,
        /// RFC 3526.
        MODP_3072 = 15,
        /// RFC 3526.
        MODP_4096 = 16,
        /// RFC 5903.
        ECP_256 = 19,
        /// RFC 5903.
        ECP_384 = 20,
        /// RFC 5903.
        ECP_521 = 21,
        /// RFC 8031.
        CURVE25519 = 31,
        /// RFC 8031.
        CURVE448 = 32,
        /// ML-KEM, RFC 9370 and IANA.
        ML_KEM_512 = 35,
        /// ML-KEM, RFC 9370 and IANA.
        ML_KEM_768 = 36,
        /// ML-KEM, RFC 9370 and IANA.
        ML_KEM_1024 = 37,
    }
}

wire_code! {
    /// Extended sequence numbers, transform type 5.
    EsnId(u16) {
        /// 32-bit sequence numbers.
        NO = 0,
        /// 64-bit sequence numbers.
        YES = 1,
    }
}

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
    /// Traffic selector type (RFC 7296 3.13.1).
    TsType(u8) {
        /// A range of IPv4 addresses.
        IPV4_ADDR_RANGE = 7,
        /// A range of IPv6 addresses.
        IPV6_ADDR_RANGE = 8,
    }
}

wire_code! {
    /// Configuration type (RFC 7296 3.15).
    CpType(u8) {
        /// Asks.
        CFG_REQUEST = 1,
        /// Answers.
        CFG_REPLY = 2,
        /// Sets.
        CFG_SET = 3,
        /// Confirms.
        CFG_ACK = 4,
    }
}

wire_code! {
    /// Configuration attribute type (RFC 7296 3.15.1); fifteen bits.
    CpAttribute(u16) {
        /// An address for the asker: 4 octets.
        INTERNAL_IP4_ADDRESS = 1,
        /// The netmask of that address.
        INTERNAL_IP4_NETMASK = 2,
        /// A name server.
        INTERNAL_IP4_DNS = 3,
        /// A NetBIOS name server.
        INTERNAL_IP4_NBNS = 4,
        /// A DHCP server.
        INTERNAL_IP4_DHCP = 6,
        /// The other side's software in words.
        APPLICATION_VERSION = 7,
        /// An address for the asker: 16 octets and a prefix length.
        INTERNAL_IP6_ADDRESS = 8,
        /// A name server.
        INTERNAL_IP6_DNS = 10,
        /// A DHCP server.
        INTERNAL_IP6_DHCP = 12,
        /// A network that is reached through the answerer.
        INTERNAL_IP4_SUBNET = 13,
        /// Which attributes the answerer knows.
        SUPPORTED_ATTRIBUTES = 14,
        /// A network that is reached through the answerer.
        INTERNAL_IP6_SUBNET = 15,
        /// RFC 8598.
        INTERNAL_DNS_DOMAIN = 25,
        /// RFC 8598.
        INTERNAL_DNSSEC_TA = 26,
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
    /// Notify message type (RFC 7296 3.10.1); below 16384 an error, above a status.
    NotifyType(u16) {
        /// A critical payload is not understood.
        UNSUPPORTED_CRITICAL_PAYLOAD = 1,
        /// An SPI of IKE that we do not know.
        INVALID_IKE_SPI = 4,
        /// A version above ours.
        INVALID_MAJOR_VERSION = 5,
        /// A malformed message.
        INVALID_SYNTAX = 7,
        /// Outside the window.
        INVALID_MESSAGE_ID = 9,
        /// An SPI of ESP that we do not know.
        INVALID_SPI = 11,
        /// No proposal suits.
        NO_PROPOSAL_CHOSEN = 14,
        /// Another key exchange method is wanted.
        INVALID_KE_PAYLOAD = 17,
        /// The peer could not be authenticated.
        AUTHENTICATION_FAILED = 24,
        /// One address pair only.
        SINGLE_PAIR_REQUIRED = 34,
        /// No more Child SAs on this IKE SA.
        NO_ADDITIONAL_SAS = 35,
        /// No address to assign.
        INTERNAL_ADDRESS_FAILURE = 36,
        /// A configuration is required.
        FAILED_CP_REQUIRED = 37,
        /// No selector is acceptable.
        TS_UNACCEPTABLE = 38,
        /// The packet does not match the SA's selectors.
        INVALID_SELECTORS = 39,
        /// RFC 4555.
        UNACCEPTABLE_ADDRESSES = 40,
        /// RFC 4555.
        UNEXPECTED_NAT_DETECTED = 41,
        /// Try again later.
        TEMPORARY_FAILURE = 43,
        /// The Child SA does not exist.
        CHILD_SA_NOT_FOUND = 44,
        /// RFC 9370: the exchange that this one continues is forgotten.
        STATE_NOT_FOUND = 47,
        /// RFC 9611: no more Child SAs with these selectors.
        TS_MAX_QUEUE = 48,
        /// This is the only IKE SA between the identities.
        INITIAL_CONTACT = 16384,
        /// The window may grow.
        SET_WINDOW_SIZE = 16385,
        /// There would be more selectors.
        ADDITIONAL_TS_POSSIBLE = 16386,
        /// IP compression.
        IPCOMP_SUPPORTED = 16387,
        /// Hash of the source address.
        NAT_DETECTION_SOURCE_IP = 16388,
        /// Hash of the destination address.
        NAT_DETECTION_DESTINATION_IP = 16389,
        /// Return this.
        COOKIE = 16390,
        /// Transport mode is wanted or granted.
        USE_TRANSPORT_MODE = 16391,
        /// Certificates by address.
        HTTP_CERT_LOOKUP_SUPPORTED = 16392,
        /// Which Child SA is rekeyed.
        REKEY_SA = 16393,
        /// No TFC padding.
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
        /// Fragments apart from their first.
        NON_FIRST_FRAGMENTS_ALSO = 16395,
        /// RFC 4555.
        MOBIKE_SUPPORTED = 16396,
        /// RFC 4555.
        ADDITIONAL_IP4_ADDRESS = 16397,
        /// RFC 4555.
        ADDITIONAL_IP6_ADDRESS = 16398,
        /// RFC 4555.
        NO_ADDITIONAL_ADDRESSES = 16399,
        /// RFC 4555.
        UPDATE_SA_ADDRESSES = 16400,
        /// RFC 4555.
        COOKIE2 = 16401,
        /// RFC 4555.
        NO_NATS_ALLOWED = 16402,
        /// RFC 4478.
        AUTH_LIFETIME = 16403,
        /// RFC 4739.
        MULTIPLE_AUTH_SUPPORTED = 16404,
        /// RFC 4739.
        ANOTHER_AUTH_FOLLOWS = 16405,
        /// RFC 5685.
        REDIRECT_SUPPORTED = 16406,
        /// RFC 5685.
        REDIRECT = 16407,
        /// RFC 5685.
        REDIRECTED_FROM = 16408,
        /// RFC 5998.
        EAP_ONLY_AUTHENTICATION = 16417,
        /// RFC 6023.
        CHILDLESS_IKEV2_SUPPORTED = 16418,
        /// RFC 6290.
        QUICK_CRASH_DETECTION = 16419,
        /// RFC 6311.
        IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420,
        /// RFC 7383.
        IKEV2_FRAGMENTATION_SUPPORTED = 16430,
        /// RFC 7427.
        SIGNATURE_HASH_ALGORITHMS = 16431,
        /// RFC 8784.
        USE_PPK = 16435,
        /// RFC 8784.
        PPK_IDENTITY = 16436,
        /// RFC 8784.
        NO_PPK_AUTH = 16437,
        /// RFC 9242.
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438,
        /// RFC 9370.
        ADDITIONAL_KEY_EXCHANGE = 16441,
        /// RFC 9593.
        SUPPORTED_AUTH_METHODS = 16443,
        /// RFC 9611: which CPU a Child SA is for.
        SA_RESOURCE_INFO = 16444,
    }
}

impl NotifyType {
    /// Whether the notification reports an error (RFC 7296 3.10.1).
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 < 16384
    }
}
