//! How large packets may be before encryption.

/// TCP's header without options (RFC 9293 3.1), in octets.
const TCP: u32 = 20;

/// The least that Linux takes for a segment size (`TCP_MIN_MSS`).
const LEAST: u32 = 88;

/// The largest TCP segment, as the option of a SYN counts it (RFC 6691: without options of IP and
/// TCP), in a packet of at most `mtu` octets; 0 if there is no such limit or none that makes sense.
#[inline(always)]
#[must_use]
pub const fn largest_segment(mtu: u32, is_v6: bool) -> u16 {
    let ip = if is_v6 { 40 } else { 20 };
    let largest = mtu.saturating_sub(ip).saturating_sub(TCP);
    if largest < LEAST || largest > u16::MAX as u32 { 0 } else { largest as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_and_its_headers_fill_the_packet() {
        assert_eq!([1438, 1280].map(|mtu| largest_segment(mtu, false)), [1398, 1240]);
        assert_eq!([1438, 1280].map(|mtu| largest_segment(mtu, true)), [1378, 1220]);
        assert_eq!([0, 60, 127, u32::MAX].map(|mtu| largest_segment(mtu, false)), [0; 4]);
        assert_eq!(largest_segment(128, false), 88);
    }
}
