//! How much larger ESP makes a packet (RFC 4303 2, RFC 3948 2.1).

use gateway_ike::algorithms::{Encryption, EspSuite, Integrity};
use gateway_ike::config::Mode;

/// The least MTU of IPv6 (RFC 8200 5). Below it an interface speaks no IPv6 at all, so an MTU is
/// never set lower: on a smaller underlay outer packets are fragmented.
pub(super) const LEAST_MTU: u32 = 1280;

/// Pad length and next header (RFC 4303 2.4, 2.6).
const TRAILER: u32 = 2;

/// What ESP adds to a packet, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overhead {
    /// The outer IP header; 0 in transport mode.
    pub outer_ip: u32,
    /// The UDP header of encapsulation; 0 without.
    pub udp: u32,
    /// SPI and sequence number.
    pub esp_header: u32,
    /// What the cipher sends of its IV.
    pub iv: u32,
    /// Pad length and next header.
    pub trailer: u32,
    /// What authenticates the packet.
    pub icv: u32,
    /// Padding fills what is encrypted up to a multiple of this.
    block: u32,
    /// The packet's own IP header, which is not encrypted; 0 in tunnel mode.
    own_ip: u32,
}

impl Overhead {
    /// All but the padding.
    #[must_use]
    pub fn total(self) -> u32 {
        let Self { outer_ip, udp, esp_header, iv, trailer, icv, block: _, own_ip: _ } = self;
        [outer_ip, udp, esp_header, iv, trailer, icv].into_iter().sum()
    }

    /// The largest packet that fits, as `xfrm_state_mtu` of the kernel has it, and what is left then
    /// because it does not fill a block.
    #[must_use]
    pub fn largest(self, underlay: u32) -> (u32, u32) {
        let room = underlay.saturating_sub(self.total()).saturating_sub(self.own_ip);
        // With the trailer it is whole blocks.
        let encrypted = room.saturating_add(self.trailer);
        let left = encrypted.checked_rem(self.block).unwrap_or(0).min(room);
        (room.saturating_sub(left).saturating_add(self.own_ip), left)
    }

    /// The MTU for packets before encryption, on an underlay with this MTU: of the largest packet
    /// that fits, but not less than IPv6 needs.
    #[must_use]
    pub fn inner_mtu(self, underlay: u32) -> u32 {
        self.largest(underlay).0.max(LEAST_MTU.min(underlay))
    }
}

/// What ESP adds to a packet.
#[must_use]
pub fn overhead(suite: EspSuite, mode: Mode, encapsulated: bool, outer_v6: bool) -> Overhead {
    let ip = if outer_v6 { 40 } else { 20 };
    let (outer_ip, own_ip) = match mode {
        Mode::Tunnel => (ip, 0),
        Mode::Transport => (0, ip),
    };
    let udp = if encapsulated { 8 } else { 0 };
    // RFC 4106 3.1, RFC 7634 2: an IV of 8 octets, RFC 3602 2: of one block.
    let (iv, block, combined_icv) = match suite.encryption {
        Encryption::Aes128Gcm16 | Encryption::Aes256Gcm16 | Encryption::ChaCha20Poly1305 => {
            (8, 4, 16)
        }
        Encryption::Aes128Cbc | Encryption::Aes256Cbc => (16, 16, 0),
    };
    let icv = match suite.integrity {
        None => combined_icv,
        Some(Integrity::HmacSha256) => 16,
        Some(Integrity::HmacSha384) => 24,
        Some(Integrity::HmacSha512) => 32,
        // RFC 2404 2.
        Some(Integrity::HmacSha1) => 12,
    };
    Overhead { outer_ip, udp, esp_header: 8, iv, trailer: TRAILER, icv, block, own_ip }
}

/// The overhead of the worst suite there is, for when nothing has been negotiated.
#[must_use]
pub fn worst_overhead(mode: Mode, outer_v6: bool) -> Overhead {
    let suite = EspSuite {
        encryption: Encryption::Aes256Cbc,
        integrity: Some(Integrity::HmacSha512),
        esn: true,
    };
    overhead(suite, mode, true, outer_v6)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "This is test code.")]
mod tests {
    use super::*;

    const ALL: &[(Encryption, Option<Integrity>)] = &[
        (Encryption::Aes128Gcm16, None),
        (Encryption::Aes256Gcm16, None),
        (Encryption::ChaCha20Poly1305, None),
        (Encryption::Aes128Cbc, Some(Integrity::HmacSha256)),
        (Encryption::Aes128Cbc, Some(Integrity::HmacSha1)),
        (Encryption::Aes128Cbc, Some(Integrity::HmacSha384)),
        (Encryption::Aes256Cbc, Some(Integrity::HmacSha512)),
    ];

    fn suite((encryption, integrity): (Encryption, Option<Integrity>)) -> EspSuite {
        EspSuite { encryption, integrity, esn: false }
    }

    /// The size on the wire as RFC 4303 2 builds a packet, field by field.
    fn on_the_wire(inner: u32, s: EspSuite, mode: Mode, encapsulated: bool, v6: bool) -> u32 {
        let ip = if v6 { 40 } else { 20 };
        let (iv, block) = if s.integrity.is_none() { (8, 4) } else { (16, 16) };
        let icv = s.integrity.map_or(16, |i| u32::try_from(i.icv_len()).unwrap());
        let payload = if mode == Mode::Tunnel { inner } else { inner - ip };
        ip + if encapsulated { 8 } else { 0 } + 8 + iv + (payload + 2).next_multiple_of(block) + icv
    }

    #[test]
    fn the_largest_packet_fits_and_the_next_larger_one_does_not() {
        for &algorithms in ALL {
            for mode in [Mode::Tunnel, Mode::Transport] {
                for (encapsulated, v6) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    let s = suite(algorithms);
                    let overhead = overhead(s, mode, encapsulated, v6);
                    for underlay in (576..600).chain(1480..1520).chain(9000..9020) {
                        let (largest, left) = overhead.largest(underlay);
                        let wire = |inner| on_the_wire(inner, s, mode, encapsulated, v6);
                        assert_eq!(wire(largest), underlay - left, "{s} {mode:?} on {underlay}");
                        assert!(wire(largest + 1) > underlay, "{s} {mode:?} on {underlay}");
                        assert_eq!(largest + overhead.total() + left, underlay);
                    }
                }
            }
        }
    }

    #[test]
    fn known_mtus() {
        let gcm = suite((Encryption::Aes128Gcm16, None));
        let cbc = suite((Encryption::Aes128Cbc, Some(Integrity::HmacSha256)));
        let mtu = |suite, mode, udp, v6| overhead(suite, mode, udp, v6).inner_mtu(1500);
        assert_eq!(mtu(gcm, Mode::Tunnel, false, false), 1446);
        assert_eq!(mtu(gcm, Mode::Tunnel, true, false), 1438);
        assert_eq!(mtu(gcm, Mode::Tunnel, true, true), 1418);
        assert_eq!(mtu(gcm, Mode::Transport, false, false), 1466);
        assert_eq!(mtu(cbc, Mode::Tunnel, false, false), 1438);
        let sha1 = suite((Encryption::Aes128Cbc, Some(Integrity::HmacSha1)));
        // 20 + 8 + 16 + 12 octets leave 1444: 90 blocks, of which the trailer takes 2 octets.
        assert_eq!(mtu(sha1, Mode::Tunnel, false, false), 1438);
        assert_eq!(mtu(sha1, Mode::Tunnel, true, false), 1422);
        assert_eq!(mtu(cbc, Mode::Tunnel, true, false), 1422);
    }

    #[test]
    fn no_suite_is_worse_than_the_worst() {
        for &algorithms in ALL {
            for v6 in [false, true] {
                for mode in [Mode::Tunnel, Mode::Transport] {
                    for underlay in 1280..1520 {
                        let worst = worst_overhead(mode, v6).largest(underlay).0;
                        let overhead = overhead(suite(algorithms), mode, true, v6);
                        assert!(overhead.largest(underlay).0 >= worst, "{underlay}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_mtu_never_falls_below_what_ipv6_needs() {
        let gcm = overhead(suite((Encryption::Aes128Gcm16, None)), Mode::Tunnel, false, false);
        for (underlay, expected) in [(1300, 1280), (1280, 1280), (576, 576), (60, 60), (0, 0)] {
            assert_eq!(gcm.inner_mtu(underlay), expected);
        }
    }
}
