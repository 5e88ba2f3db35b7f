//! Routes to protected prefixes: which there are to be, and how they come back after an interface
//! has gone and come again.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use tracing::{debug, warn};

use super::claims::Owner;
use super::links::RouteWish;
use super::linux::LinuxKernel;
use super::network::{Interface, NextHop, Route};
use super::transaction::{RouteValue, Undo};
use crate::clock;

impl LinuxKernel {
    /// The routes that a trap or Child SA in tunnel mode wants. What cannot be found out costs a
    /// route, not the SA: without it packets still go the right way, only larger than they should.
    pub(super) async fn routes(&mut self, owner: Owner, wish: RouteWish) -> Vec<RouteValue> {
        if !self.config.routes {
            return Vec::new();
        }
        let peer = wish.peer;
        let planned = self.planned_routes(owner, &wish).await;
        let living = self.children.len().saturating_add(self.traps.len());
        // Wishes of those that are gone are dropped when they are many.
        if self.links.wishes() > living.saturating_mul(2).saturating_add(16) {
            let wishes = self.living_wishes();
            self.links.set_wishes(wishes);
        }
        self.links.wish(owner, wish);
        planned.unwrap_or_else(|why| {
            if self.tables.complaints.take(clock::now()) {
                warn!(%peer, why, "No routes are set for protected prefixes");
            }
            Vec::new()
        })
    }

    async fn planned_routes(
        &self,
        owner: Owner,
        wish: &RouteWish,
    ) -> Result<Vec<RouteValue>, String> {
        let RouteWish { peer, overhead, ref selectors, assigned } = *wish;
        let (hop, underlay) = self.way(peer).await?;
        let addresses = self.tables.network.addresses().await.unwrap_or_else(|error| {
            if self.tables.complaints.take(clock::now()) {
                warn!(%error, "Cannot list our addresses");
            }
            Vec::new()
        });
        let mut prefixes = BTreeSet::new();
        let mut routes = Vec::new();
        let mtu = overhead.inner_mtu(underlay.mtu);
        let negotiated = matches!(owner, Owner::Child(_));
        for (selector, _) in selectors {
            // Where every address of ours is selected, the kernel knows best which to take.
            let selected = |address: &IpAddr| selector.local.contains(address);
            let source = addresses.iter().copied().find(selected);
            let source = source.filter(|_| selector.local.prefix_len() > 0);
            for prefix in destinations(selector.remote.trunc(), peer, assigned) {
                if !prefixes.insert(prefix) || !self.may_route(prefix, peer).await {
                    continue;
                }
                let (interface, gateway) = way_for(prefix, peer, &hop, self.tables.xfrm_interface);
                let route = Route { prefix, interface, gateway, source, mtu };
                routes.push(RouteValue { route, negotiated });
            }
        }
        Ok(routes)
    }

    /// Sets the routes again that went with an interface. Whether all are there; not so while
    /// there is no way to a peer.
    pub(super) async fn restore_routes(&mut self) -> bool {
        let wishes = self.living_wishes();
        let mut is_whole = true;
        let mut wanted = Vec::new();
        for (owner, wish) in &wishes {
            match self.planned_routes(*owner, wish).await {
                Ok(planned) => wanted.extend(planned.into_iter().map(|value| (*owner, value))),
                Err(why) => {
                    debug!(peer = %wish.peer, why, "Routes of protected prefixes are still missing");
                    is_whole = false;
                }
            }
        }
        self.links.set_wishes(wishes);
        match self.tables.restore_routes(&wanted).await {
            Ok(refused) => {
                for (value, error) in refused {
                    debug!(route = %value.route, %error, "Cannot set a route again");
                    // Somebody else's will not go away.
                    is_whole &= error.raw_os_error() == Some(libc::EEXIST);
                }
            }
            Err(error) => {
                if self.tables.complaints.take(clock::now()) {
                    warn!(%error, "Cannot list our routes");
                }
                is_whole = false;
            }
        }
        for (owner, value) in wanted {
            self.remember(owner, Undo::Route(value.route.prefix, owner, None));
        }
        is_whole
    }

    /// Takes out the wishes of traps and Child SAs that are still there.
    fn living_wishes(&mut self) -> BTreeMap<Owner, RouteWish> {
        let (children, traps) = (&self.children, &self.traps);
        self.links.take_wishes(|owner| match owner {
            // Routes belong to what sends.
            Owner::Child(child) => children.get(child).is_some_and(|c| c.outbound.is_some()),
            Owner::Trap(reqid) => traps.contains_key(reqid),
        })
    }

    /// Adds to what takes back a trap or Child SA.
    fn remember(&mut self, owner: Owner, undo: Undo) {
        let undos = match owner {
            Owner::Child(child) => {
                let outbound = self.children.get_mut(&child).and_then(|c| c.outbound.as_mut());
                outbound.map(|(_, undo)| undo)
            }
            Owner::Trap(reqid) => self.traps.get_mut(&reqid),
        };
        if let Some(undos) = undos.filter(|undos| !undos.contains(&undo)) {
            undos.push(undo);
        }
    }

    /// The way to a peer, which must lead over an underlay: elsewhere no program steers.
    pub(super) async fn way(&self, peer: IpAddr) -> Result<(NextHop, Interface), String> {
        let network = &self.tables.network;
        let hop = network.next_hop(peer).await.map_err(|error| format!("no way there: {error}"))?;
        for name in &self.config.interfaces {
            let found = network.interface(name).await;
            if let Ok(Some(interface)) = found
                && interface.index == hop.interface
            {
                return Ok((hop, interface));
            }
        }
        Err(format!("it is reached by interface {}, which is not configured", hop.interface))
    }

    async fn may_route(&self, prefix: IpNet, peer: IpAddr) -> bool {
        if prefix.contains(&peer) {
            debug!(%prefix, %peer, "No route to a prefix that contains the peer itself");
            return false;
        }
        match self.tables.network.has_foreign_route(prefix).await {
            Ok(false) => true,
            Ok(true) => {
                debug!(%prefix, "Another route to this prefix is left as it is");
                false
            }
            Err(error) => {
                if self.tables.complaints.take(clock::now()) {
                    warn!(%prefix, %error, "Cannot look up the route to a protected prefix");
                }
                false
            }
        }
    }
}

/// Interface and router for packets to a protected prefix, whom steering then catches.
fn way_for(
    prefix: IpNet,
    peer: IpAddr,
    hop: &NextHop,
    xfrm_interface: u32,
) -> (u32, Option<IpAddr>) {
    if prefix.addr().is_ipv4() == peer.is_ipv4() {
        (hop.interface, Some(hop.gateway.unwrap_or(peer)))
    } else {
        // A peer of the other family is no router for these: straight into the XFRM interface.
        (xfrm_interface, None)
    }
}

/// The prefixes to which routes are set for a protected one. The way to the peer itself is not
/// ours to change; what is sent elsewhere within a prefix that contains the peer needs a route
/// only where the source must be an address that is `assigned` to us.
fn destinations(prefix: IpNet, peer: IpAddr, assigned: bool) -> Vec<IpNet> {
    if !assigned || !prefix.contains(&peer) {
        return vec![prefix];
    }
    let mut around = Vec::new();
    let mut rest = prefix;
    while let Ok(mut halves) = rest.subnets(rest.prefix_len().saturating_add(1))
        && let (Some(lower), Some(upper)) = (halves.next(), halves.next())
    {
        let (with, without) = if lower.contains(&peer) { (lower, upper) } else { (upper, lower) };
        around.push(without);
        rest = with;
    }
    around
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_for_an_assigned_source_go_round_the_peer() {
        let nets = |prefix: &str, peer: &str, assigned| {
            let found = destinations(prefix.parse().unwrap(), peer.parse().unwrap(), assigned);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(nets("10.2.0.0/16", "198.51.100.1", true), ["10.2.0.0/16"]);
        assert_eq!(nets("0.0.0.0/0", "198.51.100.1", false), ["0.0.0.0/0"]);
        let peer = "198.51.100.1";
        assert_eq!(nets("198.51.100.0/30", peer, true), ["198.51.100.2/31", "198.51.100.0/32"]);
        let all = nets("0.0.0.0/0", peer, true);
        assert_eq!((all.len(), all[0].as_str()), (32, "0.0.0.0/1"));
        assert!(
            all.iter()
                .all(|n| !n.parse::<IpNet>().unwrap().contains(&peer.parse::<IpAddr>().unwrap()))
        );
        assert_eq!(nets("::/0", "2001:db8::1", true).len(), 128);
        assert_eq!(nets("0.0.0.0/0", "2001:db8::1", true), ["0.0.0.0/0"]);
    }

    #[test]
    fn packets_to_a_prefix_of_the_peers_family_take_the_peers_router() {
        let hop =
            NextHop { interface: 3, gateway: Some("192.0.2.254".parse().unwrap()), source: None };
        let peer = "198.51.100.1".parse().unwrap();
        let way = |prefix: &str, hop| way_for(prefix.parse().unwrap(), peer, hop, 9);
        assert_eq!(way("10.2.0.0/16", &hop), (3, hop.gateway));
        let on_link = NextHop { gateway: None, ..hop };
        assert_eq!(way("10.2.0.0/16", &on_link), (3, Some(peer)));
        assert_eq!(way("fd00:2::/64", &hop), (9, None));
    }
}
