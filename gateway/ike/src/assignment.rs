//! Addresses that a peer assigns to us, as initiator (RFC 7296 2.19, 3.15): what we ask for, and
//! what we take of the answer.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_wire::{Configuration, ConfigurationAttribute, CpAttribute, CpType};

use crate::config::Families;
use crate::leases::Lease;

/// What a peer has assigned to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Our addresses.
    pub(crate) lease: Lease,
    /// The name servers to ask through the tunnel, in the peer's order.
    pub(crate) dns: Vec<IpAddr>,
}

/// How much of an answer is looked at, and kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Attributes above which it is refused.
    pub(crate) attributes: usize,
    /// Name servers that are kept.
    pub(crate) name_servers: usize,
}

/// What is wrong with a peer's answer to our request for addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationFault {
    /// There is no configuration payload.
    #[error("the answer has no configuration payload")]
    Missing,
    /// There is one of another type than CFG_REPLY.
    #[error("the configuration payload is of type {0}, not CFG_REPLY")]
    NoReply(CpType),
    /// There are no addresses in it.
    #[error("it has no address")]
    NoAddress,
    /// More attributes than are looked at.
    #[error("it has {found} attributes, `cfg-attribute-limit` is {limit}")]
    TooManyAttributes {
        /// As many as there are.
        found: usize,
        /// As many as may be.
        limit: usize,
    },
    /// An attribute has not the length of its kind.
    #[error("attribute {kind} has {length} octets")]
    Length {
        /// The attribute.
        kind: CpAttribute,
        /// Its octets.
        length: usize,
    },
    /// An address of a family that we have not asked for.
    #[error("{0} was not asked for")]
    NotAskedFor(IpAddr),
    /// Two addresses of one family, where we have asked for one.
    #[error("{0} is a second address of its family")]
    Second(IpAddr),
    /// An address that no host can have.
    #[error("{0} is no address that a host can have")]
    Unusable(IpAddr),
    /// A prefix length above 128.
    #[error("prefix length {0} of an IPv6 address")]
    PrefixLength(u8),
    /// INTERNAL_IP4_NETMASK without INTERNAL_IP4_ADDRESS.
    #[error("it has a netmask without an address")]
    NetmaskAlone,
}

/// The request for addresses and name servers, as owned octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request(Vec<(CpAttribute, Vec<u8>)>);

impl Request {
    /// For addresses of these families; `None` if that is none. `present`: the addresses that we
    /// have, and would like to keep.
    pub(crate) fn new(families: Families, present: Lease) -> Option<Self> {
        let mut attributes = Vec::new();
        if families.v4 {
            let present = present.v4.map(|a| a.octets().to_vec()).unwrap_or_default();
            attributes.push((CpAttribute::INTERNAL_IP4_ADDRESS, present));
            attributes.push((CpAttribute::INTERNAL_IP4_DNS, Vec::new()));
        }
        if families.v6 {
            let with_length = |a: Ipv6Addr| a.octets().into_iter().chain([128]).collect();
            let present = present.v6.map(with_length).unwrap_or_default();
            attributes.push((CpAttribute::INTERNAL_IP6_ADDRESS, present));
            attributes.push((CpAttribute::INTERNAL_IP6_DNS, Vec::new()));
        }
        (!attributes.is_empty()).then_some(Self(attributes))
    }

    pub(crate) fn payload(&self) -> Configuration<'_> {
        let attributes = self.0.iter();
        Configuration {
            kind: CpType::CFG_REQUEST,
            attributes: attributes
                .map(|(kind, value)| ConfigurationAttribute { kind: *kind, value })
                .collect(),
        }
    }
}

impl Assignment {
    /// What a peer answers to a request for addresses of these families.
    ///
    /// Attributes that we have not asked for and do not know are ignored (RFC 7296 3.15.1), and so
    /// are name servers at addresses that no host can have, with which some fill up. The number is
    /// that of the name servers that are left out because there are too many.
    ///
    /// # Errors
    /// The answer is not what we can use: then nothing of it is.
    pub(crate) fn read(
        families: Families,
        answer: Option<&Configuration<'_>>,
        bounds: Bounds,
    ) -> Result<(Self, usize), ConfigurationFault> {
        let answer = answer.ok_or(ConfigurationFault::Missing)?;
        if answer.kind != CpType::CFG_REPLY {
            return Err(ConfigurationFault::NoReply(answer.kind));
        }
        let (found, limit) = (answer.attributes.len(), bounds.attributes);
        if found > limit {
            return Err(ConfigurationFault::TooManyAttributes { found, limit });
        }
        let mut found = Self::default();
        let mut has_netmask = false;
        for ConfigurationAttribute { kind, value } in &answer.attributes {
            let wrong = || ConfigurationFault::Length { kind: *kind, length: value.len() };
            match *kind {
                // An empty one stands for an address that there is not.
                CpAttribute::INTERNAL_IP4_ADDRESS if value.is_empty() => {}
                CpAttribute::INTERNAL_IP6_ADDRESS if value.is_empty() => {}
                CpAttribute::INTERNAL_IP4_ADDRESS => {
                    let address =
                        Ipv4Addr::from(<[u8; 4]>::try_from(*value).map_err(|_length| wrong())?);
                    check(address.into(), families.v4, found.lease.v4.is_some())?;
                    found.lease.v4 = Some(address);
                }
                CpAttribute::INTERNAL_IP6_ADDRESS => {
                    let (octets, length) = value.split_last_chunk::<1>().ok_or_else(wrong)?;
                    let octets = <[u8; 16]>::try_from(octets).map_err(|_length| wrong())?;
                    if let [length] = *length
                        && length > 128
                    {
                        return Err(ConfigurationFault::PrefixLength(length));
                    }
                    let address = Ipv6Addr::from(octets);
                    check(address.into(), families.v6, found.lease.v6.is_some())?;
                    found.lease.v6 = Some(address);
                }
                CpAttribute::INTERNAL_IP4_NETMASK => {
                    if !matches!(value.len(), 0 | 4) {
                        return Err(wrong());
                    }
                    has_netmask = true;
                }
                CpAttribute::INTERNAL_IP4_DNS => {
                    let octets = <[u8; 4]>::try_from(*value).map_err(|_length| wrong())?;
                    found.add_name_server(octets.into());
                }
                CpAttribute::INTERNAL_IP6_DNS => {
                    let octets = <[u8; 16]>::try_from(*value).map_err(|_length| wrong())?;
                    found.add_name_server(octets.into());
                }
                _ => {}
            }
        }
        if has_netmask && found.lease.v4.is_none() {
            return Err(ConfigurationFault::NetmaskAlone);
        }
        if found.lease == Lease::default() {
            return Err(ConfigurationFault::NoAddress);
        }
        let too_many = found.dns.len().saturating_sub(bounds.name_servers);
        found.dns.truncate(bounds.name_servers);
        Ok((found, too_many))
    }

    fn add_name_server(&mut self, address: IpAddr) {
        if is_usable(address) && !self.dns.contains(&address) {
            self.dns.push(address);
        }
    }
}

/// Whether an address may become ours: `asked` for its family, and `taken` by another one.
fn check(address: IpAddr, asked: bool, taken: bool) -> Result<(), ConfigurationFault> {
    if !asked {
        return Err(ConfigurationFault::NotAskedFor(address));
    }
    if !is_usable(address) {
        return Err(ConfigurationFault::Unusable(address));
    }
    if taken {
        return Err(ConfigurationFault::Second(address));
    }
    Ok(())
}

/// Whether a host can have this address beyond its link.
fn is_usable(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !special
        && match address {
            // RFC 1122 3.2.1.3: 0/8 is this network, class E is reserved, broadcast among it.
            IpAddr::V4(v4) => !v4.is_link_local() && !matches!(v4.octets(), [0 | 240.., ..]),
            IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Families = Families { v4: true, v6: false };
    const BOTH: Families = Families { v4: true, v6: true };
    const BOUNDS: Bounds = Bounds { attributes: 64, name_servers: 8 };
    const V6_ADDRESS: &[u8] = &[0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 64];

    fn read(
        families: Families,
        attributes: &[(CpAttribute, &[u8])],
    ) -> Result<Assignment, ConfigurationFault> {
        read_as(CpType::CFG_REPLY, families, attributes)
    }

    fn read_as(
        kind: CpType,
        families: Families,
        attributes: &[(CpAttribute, &[u8])],
    ) -> Result<Assignment, ConfigurationFault> {
        let attributes = attributes
            .iter()
            .map(|(kind, value)| ConfigurationAttribute { kind: *kind, value })
            .collect();
        let answer = Configuration { kind, attributes };
        Assignment::read(families, Some(&answer), BOUNDS).map(|(found, _)| found)
    }

    const IP4: CpAttribute = CpAttribute::INTERNAL_IP4_ADDRESS;
    const IP6: CpAttribute = CpAttribute::INTERNAL_IP6_ADDRESS;
    const MASK: CpAttribute = CpAttribute::INTERNAL_IP4_NETMASK;
    const DNS4: CpAttribute = CpAttribute::INTERNAL_IP4_DNS;
    const DNS6: CpAttribute = CpAttribute::INTERNAL_IP6_DNS;

    #[test]
    fn addresses_and_name_servers_are_taken() {
        let all: &[(CpAttribute, &[u8])] = &[
            (DNS4, &[192, 0, 2, 53]),
            (MASK, &[255, 255, 255, 0]),
            (CpAttribute(0x7abc), b"nobody knows"),
            (IP4, &[10, 9, 0, 7]),
            (IP6, V6_ADDRESS),
            (DNS4, &[0, 0, 0, 0]),
            (DNS6, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53]),
            (DNS4, &[192, 0, 2, 53]),
        ];
        let assignment = read(BOTH, all).unwrap();
        assert_eq!(assignment.lease.v4, Some([10, 9, 0, 7].into()));
        assert_eq!(assignment.lease.v6, Some("2001:db8:9::7".parse().unwrap()));
        let dns: Vec<_> = assignment.dns.iter().map(ToString::to_string).collect();
        assert_eq!(dns, ["192.0.2.53", "2001:db8::53"]);
        // One of two families is better than none.
        let empty: &[u8] = &[];
        assert_eq!(read(BOTH, &[(IP6, empty), (IP4, &[10, 9, 0, 7])]).unwrap().lease.v6, None);
    }

    #[test]
    fn every_bad_answer_has_its_name() {
        use ConfigurationFault as Fault;
        let good: (CpAttribute, &[u8]) = (IP4, &[10, 9, 0, 7]);
        let length = |kind, length| Fault::Length { kind, length };
        assert_eq!(Assignment::read(V4, None, BOUNDS), Err(Fault::Missing));
        let request = read_as(CpType::CFG_REQUEST, V4, &[good]);
        assert_eq!(request, Err(Fault::NoReply(CpType::CFG_REQUEST)));
        for (attributes, fault) in [
            (vec![], Fault::NoAddress),
            (vec![(DNS4, &[192, 0, 2, 53][..])], Fault::NoAddress),
            (vec![(IP4, &[][..])], Fault::NoAddress),
            (vec![(IP4, &[10, 9, 0])], length(IP4, 3)),
            (vec![(IP4, &[10, 9, 0, 7, 0])], length(IP4, 5)),
            (vec![good, (IP6, V6_ADDRESS)], Fault::NotAskedFor("2001:db8:9::7".parse().unwrap())),
            (vec![good, (IP6, &V6_ADDRESS[..16])], length(IP6, 16)),
            (vec![good, (IP4, &[10, 9, 0, 8])], Fault::Second([10, 9, 0, 8].into())),
            (vec![(MASK, &[255, 255, 255, 0])], Fault::NetmaskAlone),
            (vec![good, (MASK, &[255])], length(MASK, 1)),
            (vec![good, (DNS4, &[1, 2])], length(DNS4, 2)),
            (vec![good, (DNS6, &[1, 2])], length(DNS6, 2)),
            (vec![good; 65], Fault::TooManyAttributes { found: 65, limit: 64 }),
        ] {
            assert_eq!(read(V4, &attributes), Err(fault), "{attributes:?}");
        }
        let mut long = V6_ADDRESS.to_vec();
        long[16] = 129;
        assert_eq!(read(BOTH, &[(IP6, &long)]), Err(Fault::PrefixLength(129)));
    }

    #[test]
    fn what_no_host_can_have_is_refused() {
        for octets in [
            [0, 0, 0, 0],
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [169, 254, 1, 1],
            [240, 0, 0, 1],
            [255, 255, 255, 255],
        ] {
            let fault = ConfigurationFault::Unusable(octets.into());
            assert_eq!(read(V4, &[(IP4, &octets)]), Err(fault));
        }
        for text in ["::", "::1", "ff02::1", "fe80::1", "::ffff:10.0.0.1"] {
            let address: Ipv6Addr = text.parse().unwrap();
            let value = [&address.octets()[..], &[64]].concat();
            let fault = ConfigurationFault::Unusable(address.into());
            assert_eq!(read(BOTH, &[(IP6, &value)]), Err(fault));
        }
    }

    #[test]
    fn the_request_names_what_we_have() {
        assert_eq!(Request::new(Families::default(), Lease::default()), None);
        let values = |families, lease| {
            let request = Request::new(families, lease).unwrap();
            let payload = request.payload();
            assert_eq!(payload.kind, CpType::CFG_REQUEST);
            payload.attributes.iter().map(|a| (a.kind, a.value.to_vec())).collect::<Vec<_>>()
        };
        let none = Vec::new;
        assert_eq!(values(V4, Lease::default()), [(IP4, none()), (DNS4, none())]);
        let lease = read(BOTH, &[(IP4, &[10, 9, 0, 7]), (IP6, V6_ADDRESS)]).unwrap().lease;
        let mut own = V6_ADDRESS.to_vec();
        own[16] = 128;
        let expected = [(IP4, vec![10, 9, 0, 7]), (DNS4, none()), (IP6, own), (DNS6, none())];
        assert_eq!(values(BOTH, lease), expected);
    }
}
