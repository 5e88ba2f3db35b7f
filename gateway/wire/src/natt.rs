//! What arrives on UDP port 4500: IKE behind a marker, ESP, and keepalives (RFC 3948 2).

/// Stands before every IKE message on port 4500, where an ESP packet has its SPI.
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The only octet of a NAT keepalive.
pub const KEEPALIVE: u8 = 0xff;

/// What a datagram on port 4500 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A NAT keepalive: it is not answered and proves nothing.
    Keepalive,
    /// An IKE message, without the marker; it may be of any length, even empty.
    Ike(&'a [u8]),
    /// An ESP packet.
    Esp {
        /// Its SPI in host order, never zero.
        spi: u32,
    },
    /// Too short for any of these.
    Short,
}

/// Says what a datagram on port 4500 is, by its first octets.
#[must_use]
pub const fn classify(datagram: &[u8]) -> Datagram<'_> {
    match datagram {
        [KEEPALIVE] => Datagram::Keepalive,
        [0, 0, 0, 0, message @ ..] => Datagram::Ike(message),
        // SPI and sequence number at least (RFC 4303 2).
        [a, b, c, d, _, _, _, _, ..] => Datagram::Esp { spi: u32::from_be_bytes([*a, *b, *c, *d]) },
        _ => Datagram::Short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_octet_of_ones_is_a_keepalive() {
        assert_eq!(classify(&[0xff]), Datagram::Keepalive);
        assert_eq!(classify(&[0xfe]), Datagram::Short);
        assert_eq!(classify(&[0xff, 0xff]), Datagram::Short);
    }

    #[test]
    fn the_marker_is_removed_from_ike() {
        assert_eq!(classify(&[0, 0, 0, 0, 7, 8]), Datagram::Ike(&[7, 8]));
        assert_eq!(classify(&NON_ESP_MARKER), Datagram::Ike(&[]));
        assert_eq!(classify(&[0, 0, 0]), Datagram::Short);
    }

    #[test]
    fn esp_has_an_spi_and_a_sequence_number() {
        let packet = [0xc0, 1, 2, 3, 0, 0, 0, 1];
        assert_eq!(classify(&packet), Datagram::Esp { spi: 0xc001_0203 });
        assert_eq!(classify(&packet[..7]), Datagram::Short);
    }

    #[test]
    fn an_empty_datagram_is_short() {
        assert_eq!(classify(&[]), Datagram::Short);
    }
}
