//! NAT detection (RFC 7296 2.23).

use core::net::{IpAddr, SocketAddr};

use gateway_wire::{IkeSpi, Notify, NotifyType};

use crate::crypto::prf::sha1;
use crate::io::Path;

/// Who is behind NAT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NatDetected {
    /// We are.
    pub(crate) local: bool,
    /// The peer is.
    pub(crate) remote: bool,
}

impl NatDetected {
    pub(crate) const fn any(self) -> bool {
        self.local || self.remote
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
pub(crate) fn hashes(initiator_spi: IkeSpi, responder_spi: IkeSpi, path: Path) -> [(NotifyType, [u8; 20]); 2] {
    [
        (NotifyType::NAT_DETECTION_SOURCE_IP, hash(initiator_spi, responder_spi, path.local)),
        (NotifyType::NAT_DETECTION_DESTINATION_IP, hash(initiator_spi, responder_spi, path.remote)),
    ]
}

/// Compares the notifications of a message that came by `path`. The peer may send several
/// source hashes; one that fits is enough. A peer that sends none does not do NAT traversal,
/// and then none is assumed.
pub(crate) fn detect(initiator_spi: IkeSpi, responder_spi: IkeSpi, path: Path, notifies: &[Notify<'_>]) -> NatDetected {
    let moved = |kind: NotifyType, address: SocketAddr| {
        let expected = hash(initiator_spi, responder_spi, address);
        let mut sent = notifies.iter().filter(|n| n.kind == kind).peekable();
        sent.peek().is_some() && !sent.any(|n| n.data == expected)
    };
    NatDetected {
        local: moved(NotifyType::NAT_DETECTION_DESTINATION_IP, path.local),
        remote: moved(NotifyType::NAT_DETECTION_SOURCE_IP, path.remote),
    }
}
