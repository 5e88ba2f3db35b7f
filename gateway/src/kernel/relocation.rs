//! A Child SA goes on between other addresses or ports.
//!
//! What receives is reached at the new address first, so that an answer to what is sent finds its
//! SA; then what sends: the SA under its new name, the policies that lead to it, the routes. The old
//! SA goes on sending until the policies have changed, and is deleted after them.
//!
//! As long as the address that we leave is ours, nothing is taken away at all. The inbound SA keeps
//! its name, which has that address in it, and the BPF program puts that into what comes to the new
//! one: the peer may send to either, and what is on its way to the old one arrives. There cannot be
//! an SA under each of the names instead. A copy has the replay window of the moment in which it
//! was made (`xfrm_state_clone` does the same), so whatever the one accepts later, somebody who
//! repeats it to the other address gets in again; and to make one from the other means a moment
//! without either. If the path carries still, the outbound SA stays as well, since it has the peer's
//! address in its name and not ours: the kernel has room for one, and two that count on their own
//! would use a nonce twice. A successor, which the endpoint asks for at once, is made with other keys
//! for the new path, and with it the old addresses are forgotten.
//!
//! If the address is gone, what is on its way to it is lost whatever we do. Then the SA is made anew
//! under the new name (`super::xfrm`).

use core::net::{IpAddr, SocketAddr};

use gateway_ike::algorithms::EspSuite;
use gateway_ike::config::Mode;
use gateway_ike::io::{ChildId, Done, Ends, KernelError, kernel_decapsulates};
use tracing::warn;

use super::claims::Owner;
use super::links::RouteWish;
use super::linux::{Child, LinuxKernel};
use super::overhead::overhead;
use super::transaction::{Step, Undo, entry, policy_source, source_of, take_back};
use super::xfrm::{PolicyValue, SaDirection, SaEnds, SaId, SaMove, decapsulation};
use crate::clock;

impl LinuxKernel {
    /// Our address under which the kernel has the inbound SA of a Child SA.
    #[must_use]
    pub fn received_at(&self, child: ChildId) -> Option<IpAddr> {
        self.children.get(&child).map(|child| child.inbound.destination)
    }

    /// Our addresses have changed: SAs that are still at one that is gone go to where their Child SA
    /// is. Gives those that receive, and where they are now.
    pub async fn leave_lost_addresses(&mut self) -> Vec<(ChildId, IpAddr)> {
        let lags = |child: &&Child| {
            child.inbound_ends.local != child.ends.local
                || child.outbound.is_some() && child.outbound_ends.local != child.ends.local
        };
        if !self.children.values().any(|child| lags(&child)) {
            return Vec::new();
        }
        let addresses = self.addresses().await;
        let is_lost = |ends: &Ends| !addresses.contains(&ends.local);
        let lost: Vec<(ChildId, Ends)> = self
            .children
            .iter()
            .filter(|(_, child)| lags(child) && addresses.contains(&child.ends.local))
            .filter(|(_, c)| is_lost(&c.inbound_ends) || is_lost(&c.outbound_ends))
            .map(|(id, child)| (*id, child.ends))
            .collect();
        let mut moved = Vec::new();
        for (id, ends) in lost {
            match self.relocate(id, ends, Staying::default()).await {
                Ok(()) => moved.push((id, ends.local)),
                // It expires, or is replaced: the endpoint has asked for its successor.
                Err(error) => {
                    if self.tables.complaints.take(clock::now()) {
                        warn!(child = id.0, %error, "A Child SA stays at an address that is gone");
                    }
                }
            }
        }
        moved
    }

    /// Moves a Child SA, whole or not at all.
    pub(super) async fn move_child(
        &mut self,
        id: ChildId,
        ends: Ends,
        gently: bool,
    ) -> Result<Done, KernelError> {
        let child = self.children.get(&id).ok_or(KernelError::NoSuchSa)?;
        if child.ends == ends {
            return Ok(Done::Ok);
        }
        let (inbound, outbound) = (child.inbound_ends, child.outbound_ends);
        let is_transport = child.mode == Mode::Transport;
        let staying = Staying {
            inbound: !is_transport && self.is_reached(inbound.local, ends.local).await,
            outbound: gently
                && !is_transport
                && Ends { local: ends.local, ..outbound } == ends
                && self.is_way_out(outbound.local, outbound.remote).await,
        };
        self.relocate(id, ends, staying).await.map(|()| Done::Ok)
    }

    /// Whether what is sent to the one address of ours still comes, so that an SA there can receive
    /// what is sent to the other.
    async fn is_reached(&self, old: IpAddr, new: IpAddr) -> bool {
        old.is_ipv4() == new.is_ipv4()
            && self.links.have_xdp()
            && self.addresses().await.contains(&old)
    }

    /// Whether packets from this address of ours leave by the interface that has it: elsewhere they
    /// are strangers, and may be dropped.
    async fn is_way_out(&self, local: IpAddr, remote: IpAddr) -> bool {
        let network = &self.tables.network;
        let (Ok(hop), Ok(addresses)) = (
            network.next_hop_from(remote, Some(local)).await,
            network.addresses_by_interface().await,
        ) else {
            return false;
        };
        addresses.contains(&(hop.interface, local))
    }

    /// Has the SAs follow, but for those that may stay behind.
    async fn relocate(
        &mut self,
        id: ChildId,
        ends: Ends,
        staying: Staying,
    ) -> Result<(), KernelError> {
        let child = self.children.get(&id).ok_or(KernelError::NoSuchSa)?;
        let owner = Owner::Child(id);
        let plan = self.plan(child, owner, ends, staying)?;
        let old_wish = self.links.wish_of(owner).cloned();
        let mut steps = plan.inbound;
        let inbound_steps = steps.len();
        steps.extend(plan.outbound);
        if let (Some(wish), true) = (&old_wish, plan.sends) {
            let encapsulated = ends.encapsulation.is_some();
            let overhead = overhead(plan.suite, plan.mode, encapsulated, ends.remote.is_ipv6());
            let wish = RouteWish { peer: ends.remote, overhead, ..wish.clone() };
            let routes = self.routes(owner, wish).await;
            steps.extend(routes.into_iter().map(|route| Step::Route(owner, route)));
        }
        let mut done = match self.carry_out(&steps).await {
            Ok(done) => done,
            Err(error) => {
                if let Some(wish) = old_wish {
                    self.links.wish(owner, wish);
                }
                return Err(error);
            }
        };
        let sending = done.split_off(inbound_steps.min(done.len()));
        let Some(child) = self.children.get_mut(&id) else { return Err(KernelError::NoSuchSa) };
        child.ends = ends;
        let mut old = Vec::new();
        if staying.inbound {
            done.retain(|undo| !child.undo_inbound.contains(undo));
            child.undo_inbound.append(&mut done);
        } else {
            if child.inbound_ends.local != ends.local {
                child.inbound.destination = ends.local;
                old.extend(replace(&mut child.undo_inbound, done));
            }
            child.inbound_ends = ends;
        }
        if let (Some((outbound, undo)), false) = (&mut child.outbound, staying.outbound) {
            outbound.destination = ends.remote;
            old.extend(replace(undo, sending));
            child.outbound_ends = ends;
        }
        // It has moved, even if something of the old one stays.
        let _logged = take_back(&mut self.tables, old).await;
        Ok(())
    }

    fn plan(
        &self,
        child: &Child,
        owner: Owner,
        ends: Ends,
        staying: Staying,
    ) -> Result<Plan, KernelError> {
        // The selectors of transport mode are the addresses.
        let addresses = |ends: Ends| (ends.local, ends.remote, ends.encapsulation.is_some());
        if child.mode == Mode::Transport && addresses(child.ends) != addresses(ends) {
            let why = "a Child SA in transport mode can only go to other ports";
            return Err(KernelError::Unsupported(why.to_owned()));
        }
        let mut plan = Plan {
            mode: child.mode,
            suite: child.suite,
            sends: child.outbound.is_some() && !staying.outbound,
            inbound: Vec::new(),
            outbound: Vec::new(),
        };
        let before = child.inbound_ends;
        let from = source_of(ends.remote, ends.encapsulation);
        if before.local != ends.local {
            let sa = side_move(child, child.inbound.spi, SaDirection::Inbound, (before, ends));
            if self.children.values().any(|other| other.inbound == sa.target()) {
                return Err(KernelError::SpiInUse);
            }
            plan.inbound = if staying.inbound {
                vec![Step::Reach { at: sa.target(), to: before.local, from }]
            } else {
                self.steps(&sa, from, (child.mode, owner), &child.undo_inbound)
            };
        } else if kernel_decapsulates(child.mode, ends.encapsulation) {
            // It has the ports in it, and from others the kernel tells of every packet.
            let sa = side_move(child, child.inbound.spi, SaDirection::Inbound, (before, ends));
            plan.inbound = vec![Step::Move(sa)];
        }
        if let (Some((outbound, undo)), false) = (&child.outbound, staying.outbound) {
            let way = (child.outbound_ends, ends);
            let sa = side_move(child, outbound.spi, SaDirection::Outbound, way);
            let taken = |id: SaId| {
                let mut others = self.children.values().filter_map(|c| c.outbound.as_ref());
                id != *outbound && others.any(|(other, _)| *other == id)
            };
            if taken(sa.target()) {
                let what = sa.target();
                return Err(KernelError::Refused(format!("the outbound {what} exists already")));
            }
            plan.outbound = self.steps(&sa, from, (child.mode, owner), undo);
        }
        Ok(plan)
    }

    /// The steps for one SA and the policies that its undo list names.
    fn steps(
        &self,
        sa: &SaMove,
        from: SocketAddr,
        (mode, owner): (Mode, Owner),
        undo: &[Undo],
    ) -> Vec<Step<'static>> {
        let mut steps = Vec::new();
        if sa.old() != sa.target() {
            // Only tunnel mode comes to another address.
            steps.push(Step::Entry(sa.target(), entry(sa.direction, from, true)));
        }
        steps.push(Step::Move(*sa));
        for undo in undo {
            let Undo::Policy(key, ..) = undo else { continue };
            let Some(value) = self.tables.policies.of(key, owner) else { continue };
            let source = policy_source(sa.to.source, mode, sa.direction);
            let value = PolicyValue { source, destination: sa.to.destination, ..*value };
            steps.push(Step::Policy(*key, owner, value));
        }
        steps
    }
}

/// Which SAs of a Child SA stay at the address that it leaves.
#[derive(Debug, Clone, Copy, Default)]
struct Staying {
    /// What receives, which is reached at the new address all the same.
    inbound: bool,
    /// What sends.
    outbound: bool,
}

/// What a move consists of, but for its routes.
struct Plan {
    mode: Mode,
    suite: EspSuite,
    sends: bool,
    inbound: Vec<Step<'static>>,
    outbound: Vec<Step<'static>>,
}

/// Puts the undo list of a move in the place of the old one, of which it gives back what is no
/// more. What the move has not touched stays.
fn replace(present: &mut Vec<Undo>, mut done: Vec<Undo>) -> Vec<Undo> {
    let has_entry = done.iter().any(|undo| matches!(undo, Undo::Entry(_)));
    let (mut stays, old): (Vec<_>, Vec<_>) =
        core::mem::take(present).into_iter().partition(|undo| match undo {
            // What the peer has assigned to us does not depend on where we are.
            Undo::Address(..) => true,
            Undo::Entry(_) => !has_entry,
            Undo::Nothing | Undo::Sa(_) | Undo::Move(_) | Undo::Policy(..) | Undo::Route(..) => {
                false
            }
        });
    let gone = old.into_iter().filter(|undo| !done.contains(undo)).collect();
    stays.append(&mut done);
    *present = stays;
    gone
}

fn side_move(child: &Child, spi: u32, direction: SaDirection, (from, to): (Ends, Ends)) -> SaMove {
    let side = |ends: Ends| match direction {
        SaDirection::Inbound => SaEnds {
            source: ends.remote,
            destination: ends.local,
            encapsulation: decapsulation(child.mode, ends.encapsulation),
        },
        SaDirection::Outbound => SaEnds {
            source: ends.local,
            destination: ends.remote,
            encapsulation: ends.encapsulation,
        },
    };
    SaMove { spi, direction, from: side(from), to: side(to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_move_has_put_in_the_place_of_something_is_all_that_is_taken_back() {
        let id = |last: u8, spi| SaId { destination: [192, 0, 2, last].into(), spi };
        let route = |net: &str| Undo::Route(net.parse().unwrap(), Owner::Child(ChildId(1)), None);
        let old = vec![
            Undo::Entry(id(2, 1)),
            Undo::Sa(id(2, 1)),
            route("10.2.0.0/16"),
            route("10.3.0.0/16"),
        ];
        let mut present = old.clone();
        let moved = vec![Undo::Entry(id(3, 1)), Undo::Sa(id(3, 1)), route("10.2.0.0/16")];
        let gone = replace(&mut present, moved.clone());
        assert_eq!(present, moved);
        assert_eq!(gone, [old[0].clone(), old[1].clone(), old[3].clone()]);
        // An address that is assigned to us comes along.
        let own = Undo::Address([10, 9, 0, 1].into(), Owner::Child(ChildId(1)), None);
        let mut present = vec![Undo::Sa(id(2, 1)), own.clone()];
        let gone = replace(&mut present, vec![Undo::Sa(id(3, 1))]);
        assert_eq!(present, [own, Undo::Sa(id(3, 1))]);
        assert_eq!(gone, [Undo::Sa(id(2, 1))]);
        // Only ports: the entry of the BPF programs is the same.
        let mut present = old.clone();
        let gone = replace(&mut present, old[1..].to_vec());
        assert_eq!((present, gone), (old, Vec::new()));
    }
}
