//! How much larger ESP makes a packet (RFC 4303 2, RFC 3948 2.1).

use gateway_ike::algorithms::{Encryption, EspSuite, Integrity};
use gateway_ike::config::Mode;

/// The least MTU of IPv6 (RFC 8200 5). Below it an interface speaks no IPv6 at all, so an MTU is
/// never set lower: on a smaller underlay outer packets are fragmented.
pub(super) const LEAST_MTU: u32 = 1280;

/// Octets that the worst packet grows by: a packet of `mtu - overhead(..)` octets fits.
///
/// Counts the outer IP header (tunnel mode), the UDP header (`encapsulated`), SPI and sequence
/// number, IV, the most padding, pad length, next header, and ICV.
#[must_use]
pub fn overhead(suite: EspSuite, mode: Mode, encapsulated: bool, outer_v6: bool) -> u32 {
    let outer = match (mode, outer_v6) {
        (Mode::Transport, _) => 0,
        (Mode::Tunnel, false) => 20,
        (Mode::Tunnel, true) => 40,
    };
    let udp = if encapsulated { 8 } else { 0 };
    let spi_and_sequence = 8;
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
    };
    [outer, udp, spi_and_sequence, iv, block, 1, icv].into_iter().sum()
}

/// The overhead of the worst suite there is, for when nothing has been negotiated.
#[must_use]
pub fn worst_overhead(mode: Mode, outer_v6: bool) -> u32 {
    let suite = EspSuite {
        encryption: Encryption::Aes256Cbc,
        integrity: Some(Integrity::HmacSha512),
        esn: true,
    };
    overhead(suite, mode, true, outer_v6)
}

/// The MTU for packets before encryption, on an underlay with this MTU.
#[must_use]
pub fn inner_mtu(underlay: u32, overhead: u32) -> u32 {
    underlay.saturating_sub(overhead).max(LEAST_MTU.min(underlay))
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
    fn the_overhead_is_the_growth_of_the_worst_packet() {
        for &algorithms in ALL {
            for mode in [Mode::Tunnel, Mode::Transport] {
                for (encapsulated, v6) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    let s = suite(algorithms);
                    let worst = (100..200)
                        .map(|inner| on_the_wire(inner, s, mode, encapsulated, v6) - inner)
                        .max()
                        .unwrap();
                    assert_eq!(overhead(s, mode, encapsulated, v6), worst, "{s} {mode:?}");
                }
            }
        }
    }

    #[test]
    fn known_overheads() {
        let gcm = suite((Encryption::Aes128Gcm16, None));
        let cbc = suite((Encryption::Aes128Cbc, Some(Integrity::HmacSha256)));
        assert_eq!(overhead(gcm, Mode::Tunnel, false, false), 57);
        assert_eq!(overhead(gcm, Mode::Tunnel, true, false), 65);
        assert_eq!(overhead(gcm, Mode::Tunnel, true, true), 85);
        assert_eq!(overhead(gcm, Mode::Transport, false, false), 37);
        assert_eq!(overhead(cbc, Mode::Tunnel, false, false), 77);
    }

    #[test]
    fn no_suite_is_worse_than_the_worst() {
        for &algorithms in ALL {
            for v6 in [false, true] {
                for mode in [Mode::Tunnel, Mode::Transport] {
                    assert!(
                        overhead(suite(algorithms), mode, true, v6) <= worst_overhead(mode, v6)
                    );
                }
            }
        }
    }

    #[test]
    fn an_mtu_never_falls_below_what_ipv6_needs() {
        assert_eq!(inner_mtu(1500, 57), 1443);
        assert_eq!(inner_mtu(1300, 57), 1280);
        assert_eq!(inner_mtu(576, 57), 576);
    }
}
