//! NAT detection (RFC 7296 2.23).

use core::net::{IpAddr, SocketAddr};

use gateway_wire::{IkeSpi, Notify, NotifyType, TrafficSelector};

use crate::crypto::prf::sha1;
use crate::io::Path;
use crate::selector;

/// Who is behind NAT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NatDetected {
    /// We are.
    pub(crate) local: bool,
    /// The peer is.
    pub(crate) remote: bool,
    /// Whether the peer speaks of it at all: without, there is no ESP in UDP.
    pub(crate) possible: bool,
}

impl NatDetected {
    pub(crate) const fn any(self) -> bool {
        self.local || self.remote
    }

    /// The peer's selectors of transport mode, for our side and for its own, by the addresses that we
    /// see (RFC 7296 2.23.1): whoever is behind NAT is known there by another than here. `None`
    /// unless each side has exactly one address, that of the IKE SA. What the peer has said is not
    /// kept: only a checksum that is mended would need it, and the kernel looks at none.
    pub(crate) fn as_seen(
        self,
        path: Path,
        (ours, theirs): (&[TrafficSelector], &[TrafficSelector]),
    ) -> Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)> {
        let side = |is_translated, selectors: &[TrafficSelector], address| {
            if is_translated {
                selector::readdressed(selectors, address)
            } else {
                selector::are_of(selectors, address).then(|| selectors.to_vec())
            }
        };
        let ours = side(self.local, ours, path.local.ip())?;
        Some((ours, side(self.remote, theirs, path.remote.ip())?))
    }
}

/// The hash of an address as in the NAT_DETECTION notifications: SPIi, SPIr, address, port.
pub(crate) fn hash(initiator_spi: IkeSpi, responder_spi: IkeSpi, address: SocketAddr) -> [u8; 20] {
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => sha1(&[&initiator_spi.0, &responder_spi.0, &ip.octets(), &port]),
        IpAddr::V6(ip) => sha1(&[&initiator_spi.0, &responder_spi.0, &ip.octets(), &port]),
    }
}

/// The data of the two notifications for a message that we send: source and destination.
pub(crate) fn hashes(
    initiator_spi: IkeSpi,
    responder_spi: IkeSpi,
    path: Path,
) -> [(NotifyType, [u8; 20]); 2] {
    [
        (NotifyType::NAT_DETECTION_SOURCE_IP, hash(initiator_spi, responder_spi, path.local)),
        (NotifyType::NAT_DETECTION_DESTINATION_IP, hash(initiator_spi, responder_spi, path.remote)),
    ]
}

/// Compares the notifications of a message that came by `path`. The peer may send several
/// source hashes; one that fits is enough. A peer that sends none does not do NAT traversal,
/// and then none is assumed.
pub(crate) fn detect(
    initiator_spi: IkeSpi,
    responder_spi: IkeSpi,
    path: Path,
    notifies: &[Notify<'_>],
) -> NatDetected {
    let moved = |kind: NotifyType, address: SocketAddr| {
        let expected = hash(initiator_spi, responder_spi, address);
        let mut sent = notifies.iter().filter(|n| n.kind == kind).peekable();
        sent.peek().is_some() && !sent.any(|n| n.data == expected)
    };
    NatDetected {
        local: moved(NotifyType::NAT_DETECTION_DESTINATION_IP, path.local),
        remote: moved(NotifyType::NAT_DETECTION_SOURCE_IP, path.remote),
        possible: notifies.iter().any(|n| n.kind == NotifyType::NAT_DETECTION_SOURCE_IP),
    }
}

#[cfg(test)]
mod tests {
    use gateway_wire::ProtocolId;

    use super::*;
    use crate::crypto::hex;

    const SPIS: (IkeSpi, IkeSpi) = (IkeSpi([1; 8]), IkeSpi([2; 8]));
    const NOBODY: NatDetected = NatDetected { local: false, remote: false, possible: true };

    fn path(local: &str, remote: &str) -> Path {
        Path { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    /// What is detected when a message is sent by one path and comes by another, with some
    /// notifications put before.
    fn detected(sent: Path, came: Path, before: &[(NotifyType, &[u8])]) -> NatDetected {
        let own = hashes(SPIS.0, SPIS.1, sent);
        let own = own.iter().map(|(kind, data)| (*kind, data.as_slice()));
        let notifies = before.iter().copied().chain(own).map(|(kind, data)| Notify {
            protocol: ProtocolId::NONE,
            spi: &[],
            kind,
            data,
        });
        detect(SPIS.0, SPIS.1, came, &notifies.collect::<Vec<_>>())
    }

    #[test]
    fn nobody_is_behind_nat_when_the_addresses_are_as_they_were_sent() {
        for (a, b) in
            [("192.0.2.1:500", "192.0.2.2:500"), ("[2001:db8::1]:500", "[2001:db8::2]:4500")]
        {
            assert_eq!(detected(path(a, b), path(b, a), &[]), NOBODY);
        }
    }

    #[test]
    fn a_changed_source_means_that_the_peer_is_behind_nat() {
        let sent = path("10.0.0.1:500", "192.0.2.2:500");
        let expected = NatDetected { local: false, remote: true, possible: true };
        for shown in ["198.51.100.1:500", "10.0.0.1:501"] {
            assert_eq!(detected(sent, path("192.0.2.2:500", shown), &[]), expected);
        }
        assert!(expected.any());
    }

    #[test]
    fn a_changed_destination_means_that_we_are_behind_nat() {
        let sent = path("192.0.2.1:500", "198.51.100.1:500");
        let expected = NatDetected { local: true, remote: false, possible: true };
        for ours in ["10.0.0.2:500", "198.51.100.1:4500"] {
            assert_eq!(detected(sent, path(ours, "192.0.2.1:500"), &[]), expected);
        }
        assert!(expected.any());
    }

    /// Over IPv6 as over IPv4; the one end is behind NAT, the other, both or none.
    #[test]
    fn the_selectors_of_transport_mode_are_those_of_the_path_where_there_is_nat() {
        let host = |address: &str, port| {
            let address = address.parse().unwrap();
            TrafficSelector {
                protocol: 6,
                start_port: port,
                end_port: port,
                start: address,
                end: address,
            }
        };
        for (path, theirs) in [
            (path("192.0.2.2:4500", "198.51.100.1:40000"), ["203.0.113.2", "10.0.0.1"]),
            (path("[2001:db8::2]:4500", "[2001:db8:9::1]:40000"), ["2001:db8:7::2", "fd00::1"]),
        ] {
            let here = [path.local, path.remote].map(|end| end.ip().to_string());
            for (local, remote) in [(false, false), (false, true), (true, false), (true, true)] {
                let nat = NatDetected { local, remote, possible: true };
                // By what the peer knows itself and us.
                let ours = if local { theirs[0] } else { &here[0] };
                let own = if remote { theirs[1] } else { &here[1] };
                let said = (vec![host(ours, 1), host(ours, 2)], vec![host(own, 3)]);
                let expected =
                    (vec![host(&here[0], 1), host(&here[0], 2)], vec![host(&here[1], 3)]);
                assert_eq!(nat.as_seen(path, (&said.0, &said.1)), Some(expected), "{nat:?}");
                let two = [host(ours, 1), host(own, 1)];
                assert_eq!(nat.as_seen(path, (&two, &said.1)), None, "{nat:?}");
                assert_eq!(nat.as_seen(path, (&said.0, &two)), None, "{nat:?}");
                if !remote {
                    assert_eq!(nat.as_seen(path, (&said.0, &[host(theirs[1], 3)])), None);
                }
            }
        }
    }

    #[test]
    fn both_may_be_behind_nat() {
        let sent = path("10.0.0.1:500", "198.51.100.1:500");
        let came = path("10.0.0.2:500", "198.51.100.9:500");
        let both = NatDetected { local: true, remote: true, possible: true };
        assert_eq!(detected(sent, came, &[]), both);
    }

    #[test]
    fn one_fitting_source_hash_of_several_is_enough() {
        let sent = path("192.0.2.1:500", "192.0.2.2:500");
        let came = path("192.0.2.2:500", "192.0.2.1:500");
        let others = [
            (NotifyType::NAT_DETECTION_SOURCE_IP, [7; 20].as_slice()),
            (NotifyType::NAT_DETECTION_SOURCE_IP, &[]),
        ];
        assert_eq!(detected(sent, came, &others), NOBODY);
        let moved = path("192.0.2.2:500", "192.0.2.3:500");
        assert!(detected(sent, moved, &others).remote);
    }

    #[test]
    fn a_peer_that_sends_no_hashes_does_no_nat_traversal() {
        let came = path("192.0.2.2:500", "192.0.2.1:500");
        assert_eq!(detect(SPIS.0, SPIS.1, came, &[]), NatDetected::default());
        assert!(!NOBODY.any());
    }

    #[test]
    fn the_hash_is_of_spis_address_and_port() {
        // SHA-1 of 0101010101010101 0202020202020202 c0000201 01f4, by sha1sum.
        let expected = hex("3ca7080caf618c11fe64bf2eb2d9795ba76b573d");
        assert_eq!(hash(SPIS.0, SPIS.1, "192.0.2.1:500".parse().unwrap()), expected[..]);
    }
}
