//! Addresses in MOBIKE's notifications (RFC 4555 3.4, 3.6, 3.9, 4.2).

use core::net::{IpAddr, SocketAddr};

use gateway_wire::{Notify, NotifyType};

use crate::config::PeerConfig;
use crate::io::Path;
use crate::natt::NatDetected;
use crate::payloads::Payloads;
use crate::shared::Shared;

/// A notification that is to be sent.
pub(in crate::ike_sa) type Said = (NotifyType, Vec<u8>);

/// Where else we are, beside the address in use; nowhere if the operator has said where.
pub(super) fn additional(shared: &Shared, peer: &PeerConfig, local: IpAddr) -> Vec<IpAddr> {
    if peer.local_address.is_some() {
        return Vec::new();
    }
    let others = shared.local_addresses.iter().copied().filter(|address| *address != local);
    others.take(shared.config.peer_address_limit).collect()
}

/// What tells the peer these addresses, or that there are none.
pub(super) fn said(addresses: &[IpAddr]) -> Vec<Said> {
    if addresses.is_empty() {
        return vec![(NotifyType::NO_ADDITIONAL_ADDRESSES, Vec::new())];
    }
    let one = |address: &IpAddr| match address {
        IpAddr::V4(address) => (NotifyType::ADDITIONAL_IP4_ADDRESS, address.octets().to_vec()),
        IpAddr::V6(address) => (NotifyType::ADDITIONAL_IP6_ADDRESS, address.octets().to_vec()),
    };
    addresses.iter().map(one).collect()
}

/// What a peer tells of its other addresses.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Those that a host can have, each once.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether there were more than are kept.
    pub(super) too_many: bool,
}

/// The addresses that the peer tells, `most` of them; `None`: it says nothing of them.
pub(super) fn told(most: usize, notifies: &[Notify<'_>]) -> Option<Told> {
    let mut said = false;
    let mut told = Told::default();
    for notify in notifies {
        let address = if notify.kind == NotifyType::ADDITIONAL_IP4_ADDRESS {
            <[u8; 4]>::try_from(notify.data).ok().map(IpAddr::from)
        } else if notify.kind == NotifyType::ADDITIONAL_IP6_ADDRESS {
            <[u8; 16]>::try_from(notify.data).ok().map(IpAddr::from)
        } else if notify.kind == NotifyType::NO_ADDITIONAL_ADDRESSES {
            None
        } else {
            continue;
        };
        said = true;
        let Some(address) = address.filter(is_of_a_host) else { continue };
        if told.addresses.contains(&address) {
            continue;
        }
        if told.addresses.len() < most {
            told.addresses.push(address);
        } else {
            told.too_many = true;
        }
    }
    said.then_some(told)
}

fn is_of_a_host(address: &IpAddr) -> bool {
    let nowhere = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !nowhere && *address != IpAddr::from([255; 4])
}

/// The data of NO_NATS_ALLOWED in a message that has come by this path unchanged: source and
/// destination, then their ports (RFC 4555 4.2.6).
fn no_nats(path: Path) -> Vec<u8> {
    let (from, to) = (path.remote, path.local);
    let mut data = Vec::with_capacity(36);
    for end in [from, to] {
        match end.ip() {
            IpAddr::V4(address) => data.extend(address.octets()),
            IpAddr::V6(address) => data.extend(address.octets()),
        }
    }
    for end in [from, to] {
        data.extend(end.port().to_be_bytes());
    }
    data
}

/// What a message that changes addresses says beside it where one of the ends has no NAT traversal
/// (RFC 4555 3.9).
pub(in crate::ike_sa) fn forbids_nats(path: Path, nat: NatDetected) -> Option<Said> {
    let there = Path { local: path.remote, remote: path.local };
    (!nat.possible).then(|| (NotifyType::NO_NATS_ALLOWED, no_nats(there)))
}

/// Whether a message says that no NAT may be on its way, and one is.
pub(in crate::ike_sa) fn meets_nat(path: Path, payloads: &Payloads<'_>) -> bool {
    payloads.notify(NotifyType::NO_NATS_ALLOWED).is_some_and(|n| n.data != no_nats(path))
}

/// The other paths on which the peer may be reached, the likeliest first: by another address of
/// ours to where it is, then to where else it says that it is.
pub(super) fn other_paths(path: Path, ours: &[IpAddr], theirs: &[IpAddr]) -> Vec<Path> {
    let remotes = core::iter::once(path.remote.ip()).chain(theirs.iter().copied());
    let mut paths = Vec::new();
    for remote in remotes {
        let locals = core::iter::once(path.local.ip()).chain(ours.iter().copied());
        for local in locals.filter(|local| local.is_ipv4() == remote.is_ipv4()) {
            let other = Path {
                local: SocketAddr::new(local, path.local.port()),
                remote: SocketAddr::new(remote, path.remote.port()),
            };
            if other != path && !paths.contains(&other) {
                paths.push(other);
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use gateway_wire::ProtocolId;

    use super::*;

    fn parsed(said: &[Said]) -> Option<Vec<IpAddr>> {
        let notify = |(kind, data): &(NotifyType, Vec<u8>)| (*kind, data.clone());
        let said: Vec<Said> = said.iter().map(notify).collect();
        let notifies: Vec<_> = said
            .iter()
            .map(|(kind, data)| Notify { protocol: ProtocolId::NONE, spi: &[], kind: *kind, data })
            .collect();
        told(8, &notifies).map(|told| told.addresses)
    }

    #[test]
    fn what_is_said_is_told() {
        for addresses in [vec![], vec!["192.0.2.7", "2001:db8::7"], vec!["198.51.100.1"]] {
            let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(parsed(&said(&addresses)), Some(addresses));
        }
        assert_eq!(parsed(&[(NotifyType::MOBIKE_SUPPORTED, Vec::new())]), None);
    }

    #[test]
    fn what_no_host_has_is_left_out_and_so_is_what_is_too_many_or_twice() {
        let v4 = |octets: &[u8]| (NotifyType::ADDITIONAL_IP4_ADDRESS, octets.to_vec());
        let bad: [&[u8]; 6] =
            [&[0; 4], &[255; 4], &[127, 0, 0, 1], &[224, 0, 0, 1], &[1, 2, 3], &[1, 2, 3, 4, 5]];
        assert_eq!(parsed(&bad.map(v4)), Some(Vec::new()));
        assert_eq!(parsed(&[v4(&[192, 0, 2, 1]), v4(&[192, 0, 2, 1])]).unwrap().len(), 1);
        let many: Vec<Said> = (1..200).map(|last| v4(&[192, 0, 2, last])).collect();
        assert_eq!(parsed(&many).unwrap().len(), 8);
    }

    #[test]
    fn no_nats_allowed_names_both_ends_as_the_sender_sees_them() {
        let path = |local: &str, remote: &str| Path {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        let v4 = no_nats(path("192.0.2.2:4500", "192.0.2.1:500"));
        assert_eq!(v4, [192, 0, 2, 1, 192, 0, 2, 2, 1, 0xf4, 0x11, 0x94]);
        assert_eq!(no_nats(path("[2001:db8::2]:4500", "[2001:db8::1]:4500")).len(), 36);
    }

    #[test]
    fn nats_are_forbidden_where_one_end_could_not_traverse_them() {
        let path = Path {
            local: "192.0.2.1:500".parse().unwrap(),
            remote: "192.0.2.2:500".parse().unwrap(),
        };
        let nat = NatDetected::default();
        let ends = vec![192, 0, 2, 1, 192, 0, 2, 2, 1, 0xf4, 1, 0xf4];
        assert_eq!(forbids_nats(path, nat), Some((NotifyType::NO_NATS_ALLOWED, ends)));
        assert_eq!(forbids_nats(path, NatDetected { possible: true, ..nat }), None);
    }

    #[test]
    fn other_paths_stay_within_a_family_and_leave_the_one_in_use_out() {
        let ip = |address: &str| -> IpAddr { address.parse().unwrap() };
        let path = Path {
            local: "192.0.2.1:4500".parse().unwrap(),
            remote: "198.51.100.1:4500".parse().unwrap(),
        };
        let ours = [ip("192.0.2.1"), ip("192.0.2.9"), ip("2001:db8::1")];
        let theirs = [ip("198.51.100.2"), ip("2001:db8::2")];
        let found: Vec<_> = other_paths(path, &ours, &theirs)
            .into_iter()
            .map(|p| (p.local.ip(), p.remote.ip()))
            .collect();
        assert_eq!(
            found,
            [
                (ip("192.0.2.9"), ip("198.51.100.1")),
                (ip("192.0.2.1"), ip("198.51.100.2")),
                (ip("192.0.2.9"), ip("198.51.100.2")),
                (ip("2001:db8::1"), ip("2001:db8::2")),
            ]
        );
        assert_eq!(other_paths(path, &[], &[]), []);
    }
}
