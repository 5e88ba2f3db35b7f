//! Counters.

/// Packets and their octets, from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Octets; of a packet that XDP handles and of a link without headers, what the program saw;
    /// on other links the link's header included.
    pub octets: u64,
}

const _: () = assert!(size_of::<Count>() == 16);

/// What one rule did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleCount {
    /// Clear packets on their way out that the rule matched: redirected into the XFRM interface,
    /// passed or dropped, as its action says, or dropped because NAT would change their source.
    pub outbound: Count,
    /// Packets on their way in that were dropped because of the rule.
    pub refused: Count,
}

const _: () = assert!(size_of::<RuleCount>() == 32);

#[cfg(feature = "user")]
// SAFETY: it is repr(C), numbers only, without padding.
unsafe impl aya::Pod for Count {}

#[cfg(feature = "user")]
// SAFETY: it is repr(C), numbers only, without padding.
unsafe impl aya::Pod for RuleCount {}
