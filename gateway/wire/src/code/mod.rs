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

mod algorithm;
mod authentication;
mod notify;

pub use self::algorithm::{EncrId, EsnId, IntegId, KeMethod, PrfId, TransformType};
pub use self::authentication::{AuthMethod, CertEncoding, EapCode, EapType, HashAlgorithm, IdType};
pub use self::notify::NotifyType;

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
