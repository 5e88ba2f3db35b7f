//! Why a packet was handled the way it was: one list for the programs, the metrics and the tests.

/// What a program does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It ends here.
    Drop,
    /// It goes into the XFRM interface.
    Redirect,
    /// What it has become goes back to where it came from.
    Answer,
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal => $verdict:ident,)+) => {
        /// Why a program decided about a packet as it did; the index of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in metrics and in `gateway status`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What becomes of the packet.
            #[inline(always)]
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict,)+ }
            }
        }
    };
}

reasons! {
    /// XDP: the UDP header of an ESP packet was taken off.
    Stripped = "esp_in_udp_stripped" => Pass,
    /// XDP, left as it is: ESP in UDP of an SA that the kernel decapsulates itself.
    KernelDecapsulates = "esp_in_udp_kernel" => Pass,
    /// XDP, left as it is: ESP in UDP without an SA of ours, to another address than ours or while
    /// such is not dropped.
    UnknownSpi = "esp_in_udp_unknown_spi" => Pass,
    /// XDP: ESP in UDP of a known SA whose lengths contradict each other.
    BadLength = "esp_in_udp_bad_length" => Drop,
    /// XDP: the packet of a known SA could not be changed.
    NotStripped = "esp_in_udp_not_stripped" => Drop,
    /// XDP: the first fragment of a datagram to port 4500, which XDP cannot strip; over IPv6 of IKE,
    /// too.
    OuterFragment = "esp_in_udp_fragment" => Pass,
    /// XDP: an IKE message on port 4500.
    IkeOn4500 = "ike_on_4500" => Pass,
    /// XDP: a NAT keepalive (RFC 3948 2.3) to us.
    Keepalive = "nat_keepalive" => Drop,
    /// XDP: a datagram to port 4500 too short to be ESP.
    TooShort = "udp_4500_too_short" => Pass,
    /// Egress: selected traffic, redirected into the XFRM interface.
    Protected = "egress_protected" => Redirect,
    /// Egress: selected traffic while there is no XFRM interface.
    NoXfrmInterface = "egress_no_xfrm_interface" => Drop,
    /// Egress: selected traffic that could not be made ready for the XFRM interface.
    NotRedirected = "egress_not_redirected" => Drop,
    /// Egress, beside the packet's own reason: the TCP segment size in it was lowered.
    MssClamped = "egress_mss_clamped" => Redirect,
    /// Egress: a bypass rule.
    BypassedOut = "egress_bypassed" => Pass,
    /// Egress: a discard rule.
    DiscardedOut = "egress_discarded" => Drop,
    /// Egress: selected, but it is our own ESP.
    OwnEsp = "egress_own_esp" => Pass,
    /// Egress: selected, but it is our own IKE, or a later fragment of our own ESP in UDP.
    OwnIke = "egress_own_ike" => Pass,
    /// Egress: an IP packet whose headers cannot be read, so that no rule can be found.
    UnreadableOut = "egress_unreadable" => Drop,
    /// Before source NAT: selected traffic of a connection to which NAT gave another source before a
    /// rule selected it.
    Translated = "egress_translated" => Drop,
    /// Ingress: a clear packet that a rule says must arrive encrypted.
    ClearInbound = "ingress_clear" => Drop,
    /// Ingress: a bypass rule.
    BypassedIn = "ingress_bypassed" => Pass,
    /// Ingress: a discard rule.
    DiscardedIn = "ingress_discarded" => Drop,
    /// Ingress: an IP packet whose headers cannot be read, so that no rule can be found.
    UnreadableIn = "ingress_unreadable" => Drop,
    /// XDP: bare ESP to an address of ours that is not the one under which the kernel has the SA.
    Readdressed = "esp_readdressed" => Pass,
    /// XDP, beside the packet's own reason: ESP of an SA from elsewhere than before. The daemon was
    /// told.
    SourceChanged = "esp_source_changed" => Pass,
    /// The same, but the daemon was told of the same SA less than a second ago: it is not told.
    SourceChangeHeldBack = "esp_source_change_held_back" => Pass,
    /// The same, but the ring to the daemon is full.
    SourceChangeLost = "esp_source_change_lost" => Pass,
    /// XDP: ESP in UDP to an address of ours, of no SA of ours.
    UnknownSpiDropped = "esp_in_udp_unknown_spi_dropped" => Drop,
    /// XDP, left as it is: bare ESP to an address of ours, of no SA of ours, while such is not
    /// dropped.
    BareUnknownSpi = "esp_bare_unknown_spi" => Pass,
    /// XDP: bare ESP to an address of ours, of no SA of ours.
    BareUnknownSpiDropped = "esp_bare_unknown_spi_dropped" => Drop,
    /// XDP, left as it is: ESP of a Child SA of which the peer is still to be heard that it has agreed.
    Awaited = "esp_awaited" => Pass,
    /// XDP, left as it is: a packet to us with ESP or UDP behind IPv4 options, or with IPv6 extension
    /// headers, behind which it does not look.
    BehindOptions = "ip_options" => Pass,
    /// XDP: an IKE message to us on port 500.
    IkeOn500 = "ike_on_500" => Pass,
    /// XDP: an IKE_SA_INIT request to us without a cookie.
    IkeInit = "ike_init" => Pass,
    /// XDP: an IKE_SA_INIT request to us with a cookie of ours.
    IkeInitWithCookie = "ike_init_with_cookie" => Pass,
    /// XDP: an IKE_SA_INIT request to us without a cookie of ours, answered with one.
    IkeCookieAnswered = "ike_cookie_answered" => Answer,
    /// XDP: the same, but no cookie could be put in its place.
    IkeCookieNotAnswered = "ike_cookie_not_answered" => Drop,
    /// XDP: an IKE_SA_INIT request with a cookie of ours, of a prefix of which there are too many.
    IkePrefixLimited = "ike_init_prefix_limited" => Drop,
    /// XDP: a datagram to an IKE port of ours that is shorter than an IKE header.
    IkeTooShort = "ike_too_short" => Drop,
    /// XDP: an IKE message to us whose length is not that of the datagram.
    IkeBadLength = "ike_bad_length" => Drop,
    /// XDP: an IKE message to us of another major version that is not to be answered.
    IkeBadVersion = "ike_bad_version" => Drop,
    /// XDP: an IKE message to us of another major version, of which there are too many.
    IkeVersionLimited = "ike_version_limited" => Drop,
    /// XDP: an IKE message to us in which an SPI is zero that must not be.
    IkeZeroSpi = "ike_zero_spi" => Drop,
    /// XDP: an IKE message to us that has no payload.
    IkeEmpty = "ike_empty" => Drop,
    /// XDP: an IKE_SA_INIT message to us whose flags, SPIs and message ID contradict each other.
    IkeBadInit = "ike_init_contradictory" => Drop,
    /// XDP, beside the packet's own reason: ESP that was handed to the CPU of its SA.
    Steered = "esp_steered" => Redirect,
    /// XDP, beside the packet's own reason: ESP that was not handed to the CPU of its SA, since that
    /// CPU takes none or the address is of another interface. It goes on where it is.
    NotSteered = "esp_not_steered" => Pass,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The index of its counter.
    #[expect(clippy::as_conversions, reason = "the discriminant of a repr(u32) enumeration")]
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_place() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::COUNT);
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(usize::try_from(reason.index()).unwrap(), place);
        }
    }
}
