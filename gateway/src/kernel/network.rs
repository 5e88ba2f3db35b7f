//! Interfaces, addresses and routes, by rtnetlink.

use core::fmt;
use core::net::IpAddr;
use std::collections::BTreeMap;
use std::io;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoXfrm, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Error, Handle, LinkGetRequest, LinkMessageBuilder, LinkUnspec, LinkXfrm};
use tokio::task::JoinHandle;

/// The protocol number that marks our routes and addresses (`rtm_protocol`, `IFA_PROTO`,
/// rtnetlink(7)): free for any use.
pub(super) const OUR_PROTOCOL: u8 = 171;
/// `RTAX_LOCK` holds a mask of metrics by number; the MTU is number 2.
const LOCK_MTU: u32 = 1 << 2;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) up: bool,
    /// What kind of virtual interface; `None`: hardware, or a kind without a name.
    pub(super) kind: Option<InfoKind>,
    /// The `if_id` of an XFRM interface.
    pub(super) if_id: Option<u32>,
    /// The index of the interface that an XFRM interface is over; `None`: of none in particular.
    pub(super) link: Option<u32>,
}

/// The way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextHop {
    /// Index of the interface.
    pub(super) interface: u32,
    /// The router, or none where the address is on the link.
    pub(super) gateway: Option<IpAddr>,
    /// Our address towards it.
    pub(super) source: Option<IpAddr>,
}

/// One of our routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) prefix: IpNet,
    /// Index of the interface.
    pub(super) interface: u32,
    pub(super) gateway: Option<IpAddr>,
    /// Our address for packets that we originate.
    pub(super) source: Option<IpAddr>,
    /// Largest packet, whatever path MTU discovery finds.
    pub(super) mtu: u32,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}", self.prefix)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))?;
        self.source.map_or(Ok(()), |source| write!(f, " src {source}"))?;
        write!(f, " mtu {} over interface {}", self.mtu, self.interface)
    }
}

/// The kernel's interfaces, addresses and routes, in one network namespace.
pub(super) struct Network {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Network {
    /// Opens a socket in the network namespace of the calling thread, and starts the task that
    /// reads it on the current tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// The interface with this name, if there is one.
    pub(super) async fn interface(&self, name: &str) -> io::Result<Option<Interface>> {
        self.find(self.handle.link().get().match_name(name)).await
    }

    /// The interface with this index, if there is one.
    pub(super) async fn interface_at(&self, index: u32) -> io::Result<Option<Interface>> {
        self.find(self.handle.link().get().match_index(index)).await
    }

    async fn find(&self, request: LinkGetRequest) -> io::Result<Option<Interface>> {
        let mut answers = Box::pin(request.execute());
        match answers.try_next().await {
            Ok(message) => Ok(message.as_ref().map(interface)),
            Err(error) => match io_error(error) {
                error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Creates an XFRM interface, under an index that is free if one is given.
    ///
    /// It is over no other interface: over one, it would look for the way to every peer there, and
    /// find none once that has been deleted.
    pub(super) async fn add_xfrm_interface(
        &self,
        name: &str,
        if_id: u32,
        index: Option<u32>,
    ) -> io::Result<()> {
        let mut message = LinkMessageBuilder::<LinkXfrm>::new(name).if_id(if_id).build();
        message.header.index = index.unwrap_or_default();
        self.handle.link().add(message).execute().await.map_err(io_error)
    }

    /// Sets an interface's MTU and brings it up.
    pub(super) async fn bring_up(&self, index: u32, mtu: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        self.handle.link().set(message).execute().await.map_err(io_error)
    }

    /// Removes an interface.
    pub(super) async fn delete_interface(&self, index: u32) -> io::Result<()> {
        self.handle.link().del(index).execute().await.map_err(io_error)
    }

    /// Our own addresses that others may know, link-local ones excepted.
    pub(super) async fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let found = self.addresses_by_interface().await?;
        Ok(found.into_iter().map(|(_, address)| address).collect())
    }

    /// The same, each with the index of its interface.
    pub(super) async fn addresses_by_interface(&self) -> io::Result<Vec<(u32, IpAddr)>> {
        let answers = self.handle.address().get().execute();
        let messages: Vec<_> = answers.try_collect().await.map_err(io_error)?;
        Ok(messages
            .iter()
            .filter(|message| message.header.scope == AddressScope::Universe)
            .filter_map(|message| Some((message.header.index, own_address(message)?)))
            .collect())
    }

    /// Every address of this host, whatever its scope, with the index of its interface.
    pub(super) async fn own_addresses(&self) -> io::Result<BTreeMap<IpAddr, u32>> {
        let answers = self.handle.address().get().execute();
        let messages: Vec<_> = answers.try_collect().await.map_err(io_error)?;
        let own = |message| Some((own_address(message)?, message.header.index));
        Ok(messages.iter().filter_map(own).collect())
    }

    /// Gives an interface an address of a host of its own, marked as ours.
    pub(super) async fn add_address(&self, index: u32, address: IpAddr) -> io::Result<()> {
        let length = IpNet::from(address).prefix_len();
        let mut request = self.handle.address().add(index, address, length);
        let message = request.message_mut();
        // Nobody else is on this link, where it could be a duplicate.
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(OUR_PROTOCOL)));
        request.execute().await.map_err(io_error)
    }

    /// Takes an address from an interface.
    pub(super) async fn delete_address(&self, index: u32, address: IpAddr) -> io::Result<()> {
        let found = self.addresses_of(index).await?;
        let message = found.into_iter().find(|message| own_address(message) == Some(address));
        match message {
            Some(message) => self.handle.address().del(message).execute().await.map_err(io_error),
            None => Ok(()),
        }
    }

    /// The addresses of an interface that are marked as ours. A kernel before 5.18 forgets marks.
    pub(super) async fn our_addresses(&self, index: u32) -> io::Result<Vec<IpAddr>> {
        let ours = AddressAttribute::Protocol(AddressProtocol::Other(OUR_PROTOCOL));
        let found = self.addresses_of(index).await?;
        let marked = found.iter().filter(|message| message.attributes.contains(&ours));
        Ok(marked.filter_map(own_address).collect())
    }

    async fn addresses_of(&self, index: u32) -> io::Result<Vec<AddressMessage>> {
        let request = self.handle.address().get().set_link_index_filter(index);
        request.execute().try_collect().await.map_err(io_error)
    }

    /// How packets to this address go.
    pub(super) async fn next_hop(&self, address: IpAddr) -> io::Result<NextHop> {
        self.next_hop_from(address, None).await
    }

    /// The same for packets from an address of ours.
    pub(super) async fn next_hop_from(
        &self,
        address: IpAddr,
        source: Option<IpAddr>,
    ) -> io::Result<NextHop> {
        let found = self.lookup(IpNet::from(address), source, RouteFlags::empty()).await?;
        let mut hop = NextHop { interface: 0, gateway: None, source: None };
        for attribute in &found.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                hop.interface = *index;
            } else if let RouteAttribute::Gateway(address) = attribute {
                hop.gateway = ip(address);
            } else if let RouteAttribute::PrefSource(address) = attribute {
                hop.source = ip(address);
            }
        }
        Ok(hop)
    }

    /// Whether somebody else has a route to exactly this prefix.
    pub(super) async fn has_foreign_route(&self, prefix: IpNet) -> io::Result<bool> {
        match self.lookup(prefix, None, RouteFlags::FibMatch).await {
            Ok(found) => Ok(destination(&found) == Some(prefix)
                && found.header.protocol != RouteProtocol::Other(OUR_PROTOCOL)),
            Err(error) => match error.raw_os_error() {
                // A hole in the table is nobody's route.
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ESRCH) => Ok(false),
                _ => Err(error),
            },
        }
    }

    async fn lookup(
        &self,
        prefix: IpNet,
        source: Option<IpAddr>,
        flags: RouteFlags,
    ) -> io::Result<RouteMessage> {
        let mut query = RouteMessage::default();
        query.header.address_family = family(prefix);
        query.header.destination_prefix_length = prefix.max_prefix_len();
        query.header.flags = flags;
        query.attributes.push(RouteAttribute::Destination(prefix.network().into()));
        if let Some(source) = source {
            query.header.source_prefix_length = IpNet::from(source).prefix_len();
            query.attributes.push(RouteAttribute::Source(source.into()));
        }
        let mut answers = Box::pin(self.handle.route().get(query).execute());
        answers
            .try_next()
            .await
            .map_err(io_error)?
            .ok_or_else(|| io::Error::other("no answer to a route lookup"))
    }

    /// Adds a route where there is none to its prefix, or exchanges ours for it.
    pub(super) async fn set_route(&self, route: &Route, replace: bool) -> io::Result<()> {
        let request = self.handle.route().add(message(route));
        let request = if replace { request.replace() } else { request };
        request.execute().await.map_err(io_error)
    }

    /// Removes our route to this prefix.
    pub(super) async fn delete_route(&self, prefix: IpNet) -> io::Result<()> {
        let mut message = our_route(prefix);
        message.header.scope = RouteScope::NoWhere;
        self.handle.route().del(message).execute().await.map_err(io_error)
    }

    /// The prefixes of all our routes in the main table.
    pub(super) async fn our_routes(&self) -> io::Result<Vec<IpNet>> {
        let mut prefixes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            query.header.table = RouteHeader::RT_TABLE_MAIN;
            query.header.protocol = RouteProtocol::Other(OUR_PROTOCOL);
            let answers = self.handle.route().get(query).execute();
            let found: Vec<_> = answers.try_collect().await.map_err(io_error)?;
            prefixes.extend(
                found
                    .iter()
                    .filter(|m| m.header.protocol == RouteProtocol::Other(OUR_PROTOCOL))
                    .filter_map(destination),
            );
        }
        Ok(prefixes)
    }
}

/// IFA_LOCAL is ours where the link is point to point, and absent for IPv6.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| {
        let AddressAttribute::Local(address) = attribute else { return None };
        Some(*address)
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| {
            let AddressAttribute::Address(address) = attribute else { return None };
            Some(*address)
        })
    })
}

fn interface(message: &LinkMessage) -> Interface {
    let mut found = Interface {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        kind: None,
        if_id: None,
        link: None,
    };
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            found.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            found.mtu = *mtu;
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            for info in infos {
                if let LinkInfo::Kind(kind) = info {
                    found.kind = Some(kind.clone());
                } else if let LinkInfo::Data(InfoData::Xfrm(items)) = info {
                    for item in items {
                        if let InfoXfrm::IfId(if_id) = item {
                            found.if_id = Some(*if_id);
                        } else if let InfoXfrm::Link(link) = item {
                            found.link = Some(*link).filter(|link| *link != 0);
                        }
                    }
                }
            }
        }
    }
    found
}

/// A message that names a route of ours.
fn our_route(prefix: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(prefix);
    message.header.destination_prefix_length = prefix.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(OUR_PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Destination(prefix.network().into()));
    message
}

fn message(route: &Route) -> RouteMessage {
    let mut message = our_route(route.prefix);
    // Without a router the destination is on the link, which IPv4 wants to be told.
    message.header.scope =
        if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.attributes.push(RouteAttribute::Oif(route.interface));
    if let Some(gateway) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    if let Some(source) = route.source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    let metrics = vec![RouteMetric::Lock(LOCK_MTU), RouteMetric::Mtu(route.mtu)];
    message.attributes.push(RouteAttribute::Metrics(metrics));
    message
}

fn destination(message: &RouteMessage) -> Option<IpNet> {
    let length = message.header.destination_prefix_length;
    let address = message.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Destination(address) = attribute else { return None };
        ip(address)
    });
    // A default route names no destination.
    let none = || {
        let unspecified = if message.header.address_family == AddressFamily::Inet6 {
            IpAddr::from([0; 16])
        } else {
            IpAddr::from([0; 4])
        };
        (length == 0).then_some(unspecified)
    };
    IpNet::new(address.or_else(none)?, length).ok()
}

fn family(prefix: IpNet) -> AddressFamily {
    match prefix {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(address) = address {
        Some(IpAddr::V4(*address))
    } else if let RouteAddress::Inet6(address) = address {
        Some(IpAddr::V6(*address))
    } else {
        None
    }
}

/// The system's error, where there is one in it.
fn io_error(error: Error) -> io::Error {
    if let Error::NetlinkError(message) = error {
        message.to_io()
    } else {
        io::Error::other(error.to_string())
    }
}
