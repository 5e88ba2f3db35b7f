//! Two sites with what lies between them.
//!
//! ```text
//!  client.host --- client.gateway ---[client  middle  server]--- server.gateway --- server.host
//!  10.1.0.2        10.1.0.1   eth0     a switch, or a router     eth0    10.2.0.1   10.2.0.2
//!                                      that masquerades                  10.3.0.1   10.3.0.2
//! ```
//!
//! Both IP versions are there always, inside and outside. Every capture is made in the middle:
//! what is seen there is what was on the wire, whatever XDP and TC did at its ends. What leaves a
//! gateway in the clear finds a next hop that answers ARP, so that a leak is seen and not hidden
//! by an unreachable route.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use crate::error::Result;
use crate::namespace::Namespace;

/// IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What lies between the gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// A switch: they see each other's addresses.
    Switch,
    /// A router that hides the client behind its own address.
    Nat,
}

/// A gateway and a host behind it.
#[derive(Debug)]
pub struct Site {
    /// Where the daemon runs: `eth0` outside, `lan0` inside.
    pub gateway: Namespace,
    /// A host that has the gateway as its router.
    pub host: Namespace,
    number: u8,
    outer: (Ipv4Addr, Ipv6Addr),
    next_hop: (Ipv4Addr, Ipv6Addr),
}

impl Site {
    fn new(
        name: &str,
        number: u8,
        outer: (Ipv4Addr, Ipv6Addr),
        next_hop: (Ipv4Addr, Ipv6Addr),
    ) -> Result<Self> {
        let gateway = Namespace::without_loopback(name)?;
        let host = Namespace::without_loopback(&format!("{name}-host"))?;
        for version in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            gateway.sysctl(version, "1")?;
        }
        // With redirects on, the gateway would tell the host to go round it.
        gateway.sysctl("net/ipv4/conf/all/send_redirects", "0")?;
        Ok(Self { gateway, host, number, outer, next_hop })
    }

    /// The line for `ip` that makes the wire between gateway and host, wherever it runs.
    fn wire(&self) -> String {
        let (gateway, host) = (self.gateway.path(), self.host.path());
        format!("link add lan0 netns {gateway} type veth peer name eth0 netns {host}\n")
    }

    /// Devices, addresses and routes, once there are wires; with an IPv4 prefix `later` beside the
    /// one of the site.
    fn configure(&self, other: &Self, later: Option<u8>) -> Result {
        let n = self.number;
        let more = |host: u8, device: &str| {
            later.map_or_else(String::new, |n| format!("addr add 10.{n}.0.{host}/24 dev {device}"))
        };
        self.gateway.ip(&format!(
            "link set lo up\n\
             link set lan0 up\n\
             link set eth0 up\n\
             addr add 10.{n}.0.1/24 dev lan0\n\
             addr add fd00:{n}::1/64 dev lan0 nodad\n\
             {}\n{}",
            more(1, "lan0"),
            self.outside(other)
        ))?;
        self.host.ip(&format!(
            "link set lo up\n\
             link set eth0 up\n\
             addr add 10.{n}.0.2/24 dev eth0\n\
             addr add fd00:{n}::2/64 dev eth0 nodad\n\
             {}\n\
             route add default via 10.{n}.0.1\n\
             route add default via fd00:{n}::1",
            more(2, "eth0")
        ))
    }

    /// The lines for `ip` that give `eth0` its addresses and routes.
    fn outside(&self, other: &Self) -> String {
        let (v4, v6) = self.outer;
        let (via4, via6) = self.next_hop;
        let (n, m) = (self.number, other.number);
        // A next hop for the other site's prefixes with our inner address as the source: traffic
        // of the gateway itself is selected as that of its site is. A daemon that runs already
        // would have routes of its own to them as soon as there is a way to the peer.
        format!(
            "addr add {v4}/24 dev eth0\n\
             addr add {v6}/64 dev eth0 nodad\n\
             route add 10.{m}.0.0/24 via {via4} src 10.{n}.0.1\n\
             route add fd00:{m}::/64 via {via6} src fd00:{n}::1\n\
             route add default via {via4}\n\
             route add default via {via6}"
        )
    }

    /// The gateway's address on the underlay.
    #[must_use]
    pub fn outer(&self, family: Family) -> IpAddr {
        pick(family, self.outer)
    }

    /// The one that it may come to.
    #[must_use]
    pub fn other_outer(&self, family: Family) -> IpAddr {
        let (v4, v6) = self.outer;
        let ([a, b, c, _], mut segments) = (v4.octets(), v6.segments());
        if let Some(last) = segments.last_mut() {
            *last = 0x77;
        }
        pick(family, (Ipv4Addr::new(a, b, c, 77), segments.into()))
    }

    /// The prefix behind the gateway.
    #[must_use]
    pub fn prefix(&self, family: Family) -> String {
        match family {
            Family::V4 => format!("10.{}.0.0/24", self.number),
            Family::V6 => format!("fd00:{}::/64", self.number),
        }
    }

    /// The gateway's address inside its prefix.
    #[must_use]
    pub fn inner(&self, family: Family) -> IpAddr {
        self.address(family, 1)
    }

    /// The host's address.
    #[must_use]
    pub fn host_address(&self, family: Family) -> IpAddr {
        self.address(family, 2)
    }

    fn address(&self, family: Family, host: u8) -> IpAddr {
        let n = self.number;
        pick(
            family,
            (
                Ipv4Addr::new(10, n, 0, host),
                Ipv6Addr::new(0xfd00, n.into(), 0, 0, 0, 0, 0, host.into()),
            ),
        )
    }
}

fn pick(family: Family, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> IpAddr {
    match family {
        Family::V4 => v4.into(),
        Family::V6 => v6.into(),
    }
}

/// Two sites and the middle.
#[derive(Debug)]
pub struct Topology {
    /// The site that a NAT hides, if there is one.
    pub client: Site,
    /// The other site.
    pub server: Site,
    /// The switch or router, with the ports [`Topology::CLIENT_PORT`] and
    /// [`Topology::SERVER_PORT`].
    pub middle: Namespace,
    between: Between,
}

impl Topology {
    /// The device of the middle that leads to the client.
    pub const CLIENT_PORT: &'static str = "client";
    /// The device of the middle that leads to the server.
    pub const SERVER_PORT: &'static str = "server";
    /// The device of the middle that both ports are on where it is a switch: what a gateway sends
    /// to its router ends here.
    pub const SWITCH: &'static str = "bridge";
    /// A second prefix behind the server, for a rule that comes later.
    pub const LATER_PREFIX: &'static str = "10.3.0.0/24";
    /// The host's address in [`Topology::LATER_PREFIX`].
    pub const LATER_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 3, 0, 2));

    /// Builds it.
    ///
    /// # Errors
    /// A namespace, device, address or rule cannot be made.
    pub fn new(between: Between) -> Result<Self> {
        let v6 = |net: u16, host: u16| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host);
        let (client, server) = match between {
            Between::Switch => {
                let middle = (Ipv4Addr::new(192, 0, 2, 254), v6(1, 0xfe));
                (
                    Site::new("client", 1, (Ipv4Addr::new(192, 0, 2, 1), v6(1, 1)), middle)?,
                    Site::new("server", 2, (Ipv4Addr::new(192, 0, 2, 2), v6(1, 2)), middle)?,
                )
            }
            Between::Nat => {
                let inside = (Ipv4Addr::new(192, 168, 7, 1), v6(7, 1));
                let outside = (Ipv4Addr::new(203, 0, 113, 1), v6(113, 1));
                (
                    Site::new("client", 1, (Ipv4Addr::new(192, 168, 7, 2), v6(7, 2)), inside)?,
                    Site::new("server", 2, (Ipv4Addr::new(203, 0, 113, 2), v6(113, 2)), outside)?,
                )
            }
        };
        let middle = Namespace::without_loopback("middle")?;
        // Under emulation a process costs more than what it does: one makes all wires, and then one
        // in each namespace configures it.
        let outside = |port: &str, site: &Site| {
            format!("link add {port} type veth peer name eth0 netns {}\n", site.gateway.path())
        };
        let wires = [
            outside(Self::CLIENT_PORT, &client),
            outside(Self::SERVER_PORT, &server),
            client.wire(),
            server.wire(),
        ];
        middle.ip(&wires.concat())?;
        let topology = Self { client, server, middle, between };
        match between {
            Between::Switch => topology.switch()?,
            Between::Nat => topology.router()?,
        }
        topology.client.configure(&topology.server, None)?;
        topology.server.configure(&topology.client, Some(3))?;
        Ok(topology)
    }

    fn switch(&self) -> Result {
        let (v4, v6) = self.client.next_hop;
        self.middle.ip(&format!(
            "link set lo up\n\
             link add {switch} type bridge\n\
             link set {client} up master {switch}\n\
             link set {server} up master {switch}\n\
             link set {switch} up\n\
             addr add {v4}/24 dev {switch}\n\
             addr add {v6}/64 dev {switch} nodad",
            switch = Self::SWITCH,
            client = Self::CLIENT_PORT,
            server = Self::SERVER_PORT,
        ))
    }

    /// The router forgets what it has mapped, and maps to other ports from now on; with an address,
    /// behind that too.
    ///
    /// # Errors
    /// `ip` or `nft` refuses.
    pub fn rebind(&self, outside: Option<Ipv4Addr>) -> Result {
        let server = Self::SERVER_PORT;
        let (v4, _) = self.server.next_hop;
        self.masquerade("31000-40000")?;
        // Masquerading forgets what was mapped to an address that goes.
        self.middle.ip(&format!("addr del {v4}/24 dev {server}"))?;
        // What stands first is what it maps to; the other is still the server's next hop.
        let first = outside.map_or_else(String::new, |a| format!("addr add {a}/24 dev {server}\n"));
        self.middle.ip(&format!("{first}addr add {v4}/24 dev {server}"))
    }

    fn router(&self) -> Result {
        let ((in4, in6), (out4, out6)) = (self.client.next_hop, self.server.next_hop);
        let (client, server) = (Self::CLIENT_PORT, Self::SERVER_PORT);
        self.middle.ip(&format!(
            "link set lo up\n\
             link set {client} up\n\
             link set {server} up\n\
             addr add {in4}/24 dev {client}\n\
             addr add {in6}/64 dev {client} nodad\n\
             addr add {out4}/24 dev {server}\n\
             addr add {out6}/64 dev {server} nodad"
        ))?;
        for version in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            self.middle.sysctl(version, "1")?;
        }
        // Left alone, the first client keeps its ports 500 and 4500, and a peer that answers to
        // the wrong port gets away with it.
        self.masquerade("20000-30000")
    }

    /// In one transaction, whatever it did before: no packet passes as it is.
    fn masquerade(&self, ports: &str) -> Result {
        let server = Self::SERVER_PORT;
        self.middle.nft(&format!(
            "table inet nat
            delete table inet nat
            table inet nat {{
                chain postrouting {{
                    type nat hook postrouting priority srcnat
                    oifname \"{server}\" meta l4proto udp masquerade to :{ports}
                    oifname \"{server}\" masquerade
                }}
            }}"
        ))
    }

    /// Gives the client's `eth0` another address in the place of the one that it has, and gives that.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn readdress_client(&self, family: Family) -> Result<IpAddr> {
        self.exchange_address(family, self.client.outer(family), self.client.other_outer(family))
    }

    /// The same back, after [`Self::add_address_of_client`] and [`Self::leave_old_address_of_client`].
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn readdress_client_back(&self) -> Result<IpAddr> {
        let (old, new) = (self.client.other_outer(Family::V4), self.client.outer(Family::V4));
        let server = self.server.outer(Family::V4);
        self.client.gateway.ip(&format!(
            "route del {server} dev eth0\naddr add {new}/24 dev eth0\naddr del {old}/32 dev eth0"
        ))?;
        Ok(new)
    }

    fn exchange_address(&self, family: Family, old: IpAddr, new: IpAddr) -> Result<IpAddr> {
        // Else the second address of a prefix goes with the first.
        self.client.gateway.sysctl("net/ipv4/conf/eth0/promote_secondaries", "1")?;
        let (length, flags) = match family {
            Family::V4 => (24, ""),
            Family::V6 => (64, " nodad"),
        };
        self.client.gateway.ip(&format!(
            "addr add {new}/{length} dev eth0{flags}\naddr del {old}/{length} dev eth0"
        ))?;
        Ok(new)
    }

    /// Gives the client's `eth0` the other address beside the one that it has, with the way to the
    /// server from it, and gives that. The old one serves as before. The new one is in no prefix: if
    /// it were the second of one, the kernel would take it away for a moment with the first
    /// (`__inet_del_ifa`), and what comes then.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn add_address_of_client(&self) -> Result<IpAddr> {
        let (new, server) = (self.client.other_outer(Family::V4), self.server.outer(Family::V4));
        self.client
            .gateway
            .ip(&format!("addr add {new}/32 dev eth0\nroute add {server} dev eth0 src {new}"))?;
        Ok(new)
    }

    /// Takes the client's `eth0` the address that it had before [`Self::add_address_of_client`].
    ///
    /// # Errors
    /// `ip` or the kernel refuses.
    pub fn leave_old_address_of_client(&self) -> Result {
        let old = self.client.outer(Family::V4);
        self.client.gateway.ip(&format!("addr del {old}/24 dev eth0"))
    }

    /// Takes the client's `eth0` the IPv4 address that it has come back to.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn take_ipv4_of_client(&self) -> Result {
        let last = self.client.outer(Family::V4);
        self.client.gateway.ip(&format!("addr del {last}/24 dev eth0"))
    }

    /// Deletes the client's `eth0`, and with it the wire.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn unplug_client(&self) -> Result {
        self.client.gateway.ip("link del eth0")
    }

    /// Makes it anew, on the switch, without addresses and routes.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn plug_client(&self) -> Result {
        self.client.gateway.link("eth0", &self.middle, Self::CLIENT_PORT)?;
        self.middle.ip(&format!("link set {} master {}", Self::CLIENT_PORT, Self::SWITCH))
    }

    /// Gives it its addresses and routes.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn configure_client(&self) -> Result {
        self.client.gateway.ip(&self.client.outside(&self.server))
    }

    /// Lets everything between the gateways, each way, arrive later by this time. What is under way
    /// when it changes keeps the time that it had.
    ///
    /// # Errors
    /// `tc` or `ip` refuses.
    pub fn delay(&self, time: Duration) -> Result {
        // Whom a gateway knows it would forget before a slow wire brings the answer to its ARP.
        for gateway in [&self.client.gateway, &self.server.gateway] {
            let known = gateway.run("ip", &["-4", "neigh", "show", "dev", "eth0"])?;
            let entries = known.lines().filter_map(|line| line.split_once(" lladdr "));
            let lines = entries.filter_map(|(address, rest)| {
                let link = rest.split(' ').next()?;
                Some(format!("neigh replace {address} lladdr {link} dev eth0 nud permanent\n"))
            });
            gateway.ip(&lines.collect::<String>())?;
        }
        let time = format!("{}ms", time.as_millis());
        for port in [Self::CLIENT_PORT, Self::SERVER_PORT] {
            let arguments = ["qdisc", "replace", "dev", port, "root", "netem", "limit", "10000"];
            self.middle.run("tc", &[&arguments[..], &["delay", &time]].concat())?;
        }
        Ok(())
    }

    /// What lies between the gateways.
    #[must_use]
    pub const fn between(&self) -> Between {
        self.between
    }

    /// The address under which the server sees the client.
    #[must_use]
    pub fn client_as_seen(&self, family: Family) -> IpAddr {
        match self.between {
            Between::Switch => self.client.outer(family),
            Between::Nat => pick(family, self.server.next_hop),
        }
    }
}
