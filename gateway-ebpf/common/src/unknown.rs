//! The places of numbers about ESP to an address of ours with an SPI of no SA of ours; all are 0 at
//! first. Times are in nanoseconds since boot without sleep (`CLOCK_MONOTONIC`).

/// Until when it is dropped where it comes bare.
pub const BARE_UNTIL: u32 = 0;
/// Until when it is dropped where it comes in UDP.
pub const IN_UDP_UNTIL: u32 = 1;
/// The state of the rate at which it is told of.
pub const TOLD: u32 = 2;
/// How many there are.
pub const COUNT: usize = 3;
