//! The SAs that the programs know.

use crate::{Address, Source};

/// What the kernel finds an ESP SA by: the destination and the SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SaKey {
    /// The outer destination.
    pub destination: Address,
    /// The SPI, its octets in network order.
    pub spi: u32,
    /// Always zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<SaKey>() == 24);

impl SaKey {
    /// The key of an SA.
    #[inline(always)]
    #[must_use]
    pub const fn new(destination: Address, spi: [u8; 4]) -> Self {
        Self { destination, spi: u32::from_ne_bytes(spi), zero: 0 }
    }
}

/// What the programs may do with packets of an SA, and what they remember of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SaValue {
    /// A combination of the constants below.
    pub flags: u32,
    /// One more than the number of the CPU that handles its packets ([`crate::map::CPUS`]); 0: the one
    /// that receives them.
    pub cpu: u32,
    /// From where the peer was last seen to send: at first where the loader says that it is, then
    /// what [`EspSeen`](crate::EspSeen) has told. Of no meaning for an outbound SA.
    pub seen: Source,
    /// When that was told, in nanoseconds since the kernel's start; 0: never.
    pub told: u64,
}

const _: () = assert!(size_of::<SaValue>() == 40);

impl SaValue {
    /// The peer sends with it to us.
    pub const INBOUND: u32 = 1;
    /// We send with it: such packets leave as they are.
    pub const OUTBOUND: u32 = 2;
    /// XDP takes the UDP header off. The kernel's SA must then have no encapsulation template,
    /// since `xfrm_input` drops a packet whose encapsulation differs from its SA's.
    pub const STRIP: u32 = 4;
    /// The kernel has the SA under another destination of ours ([`crate::map::ELSEWHERE`]): XDP
    /// puts that into the packet.
    pub const ELSEWHERE: u32 = 8;
    /// There is no SA yet: we have offered the SPI, and the peer may send with it as soon as it has
    /// agreed. Alone, without the others.
    pub const AWAITED: u32 = 16;

    /// An SA whose peer is expected to send from `seen`.
    #[must_use]
    pub const fn new(flags: u32, seen: Source) -> Self {
        Self { flags, cpu: 0, seen, told: 0 }
    }

    /// The same, with its packets handled by this CPU.
    #[must_use]
    pub fn on(self, cpu: Option<u32>) -> Self {
        Self { cpu: cpu.map_or(0, |cpu| cpu.saturating_add(1)), ..self }
    }

    /// Whether every bit of `flags` is set.
    #[must_use]
    pub const fn has(self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}

#[cfg(feature = "user")]
// SAFETY: it is repr(C), numbers only; the sizes add up to its size.
unsafe impl aya::Pod for SaKey {}

#[cfg(feature = "user")]
// SAFETY: it is repr(C), numbers only; the sizes add up to its size.
unsafe impl aya::Pod for SaValue {}
