//! Notifications (RFC 7296 3.10.1).

use core::fmt;

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
        /// RFC 6311: message IDs after a failover.
        IKEV2_MESSAGE_ID_SYNC = 16422,
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
