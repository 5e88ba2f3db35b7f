//! What `gateway trace` asks of the programs, and what they tell it.

/// The most octets of a packet in an event: what jumbo frames have beyond is cut off.
pub const PACKET_LIMIT: usize = 2048;

/// What is to be told. One who traces renews it, so that it ends with him however he ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceSettings {
    /// Until when, in nanoseconds since boot without sleep (`CLOCK_MONOTONIC`); 0 for not at all.
    pub until: u64,
    /// Which reasons: the bit of [`Reason::index`](crate::Reason::index).
    pub reasons: [u64; 2],
    /// The most events of one CPU in [`WINDOW`].
    pub rate: u32,
    /// The most octets of a packet in an event, rounded up to a multiple of 16.
    pub octets: u32,
    /// A combination of the constants below.
    pub flags: u32,
    /// Always zero.
    pub zero: u32,
}

const _: () = assert!(size_of::<TraceSettings>() == 40);

/// The bits of nanoseconds in which events are counted: about a second.
pub const WINDOW: u32 = 30;

impl TraceSettings {
    /// Only what is in [`crate::map::TRACE_WANTED`].
    pub const SELECTED: u32 = 1;
    /// ESP of known SAs that passes without a reason to count, too.
    pub const PASSED: u32 = 2;

    /// Whether every bit of `flags` is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}

/// A rule or an SA that is to be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct TraceKey {
    /// [`TraceKey::RULE`] or [`TraceKey::SPI`].
    pub kind: u32,
    /// The rule's identifier, or the SPI, its octets in network order.
    pub value: u32,
}

const _: () = assert!(size_of::<TraceKey>() == 8);

impl TraceKey {
    /// By the identifier of the rule that decided.
    pub const RULE: u32 = 1;
    /// By the SPI in the packet.
    pub const SPI: u32 = 2;
}

/// How many events of a CPU there were, and were not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceCount {
    /// The window of the last event.
    pub window: u64,
    /// Events in it.
    pub events: u64,
    /// Decisions that were not told because there had been [`TraceSettings::rate`].
    pub over_rate: u64,
    /// Decisions that were not told because nobody had read the ones before.
    pub full: u64,
}

const _: () = assert!(size_of::<TraceCount>() == 32);

/// Where in the packet's way a program decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    /// XDP: it comes in.
    Xdp = 1,
    /// TC ingress: it comes in.
    Ingress = 2,
    /// TC egress: it goes out.
    Egress = 3,
    /// Netfilter's POSTROUTING, before source NAT: it goes out.
    Postrouting = 4,
    /// Netfilter's PREROUTING, after destination NAT: it comes in.
    Prerouting = 5,
}

impl Hook {
    /// The one of an event.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Xdp),
            2 => Some(Self::Ingress),
            3 => Some(Self::Egress),
            4 => Some(Self::Postrouting),
            5 => Some(Self::Prerouting),
            _ => None,
        }
    }
}

/// A decision. In the ring [`PACKET_LIMIT`] octets follow, of which the first `captured` are the
/// packet's and the others mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TraceEvent {
    /// When, in nanoseconds since boot without sleep (`CLOCK_MONOTONIC`).
    pub at: u64,
    /// [`Reason::index`](crate::Reason::index), or [`TraceEvent::PASSED`].
    pub reason: u32,
    /// The CPU.
    pub cpu: u32,
    /// The interface's index.
    pub interface: u32,
    /// The identifier of the rule that decided; see `flags`.
    pub rule: u32,
    /// The SPI, its octets in network order; see `flags`.
    pub spi: u32,
    /// Octets of the packet, with its link header.
    pub length: u32,
    /// Octets of it that are here.
    pub captured: u32,
    /// A combination of the constants below.
    pub flags: u16,
    /// A [`Hook`].
    pub hook: u8,
    /// Always zero.
    pub zero: u8,
}

const _: () = assert!(size_of::<TraceEvent>() == 40);

impl TraceEvent {
    /// The reason of what passes for none.
    pub const PASSED: u32 = u32::MAX;
    /// A rule decided.
    pub const HAS_RULE: u16 = 1;
    /// It is ESP.
    pub const HAS_SPI: u16 = 2;
    /// The packet begins with an Ethernet header.
    pub const ETHERNET: u16 = 4;

    /// What lies in the ring; none if it is not as long as it should be.
    #[must_use]
    pub fn read(octets: &[u8]) -> Option<(Self, &[u8])> {
        let (at, rest) = octets.split_first_chunk()?;
        let mut rest = rest;
        let mut number = || {
            let (number, others) = rest.split_first_chunk()?;
            rest = others;
            Some(u32::from_ne_bytes(*number))
        };
        let [reason, cpu, interface, rule, spi, length, captured] =
            [number()?, number()?, number()?, number()?, number()?, number()?, number()?];
        let ([a, b, hook, zero], packet) = rest.split_first_chunk()?;
        let flags = u16::from_ne_bytes([*a, *b]);
        let (hook, zero, at) = (*hook, *zero, u64::from_ne_bytes(*at));
        let packet = packet.get(..captured as usize)?;
        let event =
            Self { at, reason, cpu, interface, rule, spi, length, captured, flags, hook, zero };
        Some((event, packet))
    }
}

/// What a packet has been found to be, for who traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    rule: u32,
    spi: u32,
    /// As [`SaValue::cpu`](crate::SaValue::cpu), of a kind that leaves no padding. No kernel has so
    /// many CPUs that it would not do.
    cpu: u16,
    /// Of the flags of an event, those that say what is known. An `Option` would be half undefined,
    /// and the verifier refuses to copy what nobody has written.
    flags: u16,
}

impl Subject {
    /// The rule with this identifier decides.
    #[inline(always)]
    pub fn set_rule(&mut self, rule: u32) {
        self.rule = rule;
        self.flags |= TraceEvent::HAS_RULE;
    }

    /// It is ESP with this SPI, its octets in network order.
    #[inline(always)]
    pub fn set_spi(&mut self, spi: u32) {
        self.spi = spi;
        self.flags |= TraceEvent::HAS_SPI;
    }

    /// It is handled by this CPU: what [`SaValue::cpu`](crate::SaValue::cpu) says.
    #[inline(always)]
    pub const fn set_cpu(&mut self, cpu: u16) {
        self.cpu = cpu;
    }

    /// The CPU that handles it, if that is said.
    #[inline(always)]
    #[must_use]
    pub const fn cpu(&self) -> Option<u32> {
        if self.cpu == 0 { None } else { Some((self.cpu as u32).wrapping_sub(1)) }
    }

    /// The identifier of the rule that decided.
    #[inline(always)]
    #[must_use]
    pub const fn rule(&self) -> Option<u32> {
        if self.flags & TraceEvent::HAS_RULE == 0 { None } else { Some(self.rule) }
    }

    /// The SPI, its octets in network order.
    #[inline(always)]
    #[must_use]
    pub const fn spi(&self) -> Option<u32> {
        if self.flags & TraceEvent::HAS_SPI == 0 { None } else { Some(self.spi) }
    }

    /// An event about it, as far as that is known.
    #[inline(always)]
    #[must_use]
    pub const fn event(&self, at: u64, reason: u32, cpu: u32) -> TraceEvent {
        let Self { rule, spi, cpu: _, flags } = *self;
        TraceEvent {
            at,
            reason,
            cpu,
            interface: 0,
            rule,
            spi,
            length: 0,
            captured: 0,
            flags,
            hook: 0,
            zero: 0,
        }
    }
}

#[cfg(feature = "user")]
// SAFETY: it is repr(C), numbers only, without padding (the sizes add up to its size).
unsafe impl aya::Pod for TraceSettings {}

#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for TraceKey {}

#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for TraceCount {}

#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for TraceEvent {}
