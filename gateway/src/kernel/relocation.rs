//! A Child SA goes on between other addresses or ports.
//!
//! What receives first, so that an answer to what is sent finds its SA; then what sends: the SA
//! under its new name, the policies that lead to it, the routes. The old SA goes on sending until
//! the policies have changed, and is deleted after them.

use gateway_ike::algorithms::EspSuite;
use gateway_ike::config::Mode;
use gateway_ike::io::{ChildId, Done, Ends, KernelError};

use super::claims::Owner;
use super::links::RouteWish;
use super::linux::{Child, LinuxKernel};
use super::overhead::overhead;
use super::transaction::{Step, Undo, policy_source, take_back};
use super::xfrm::{PolicyValue, SaDirection, SaEnds, SaId, SaMove};

impl LinuxKernel {
    /// Moves a Child SA, whole or not at all.
    pub(super) async fn move_child(
        &mut self,
        id: ChildId,
        ends: Ends,
    ) -> Result<Done, KernelError> {
        let child = self.children.get(&id).ok_or(KernelError::NoSuchSa)?;
        if child.ends == ends {
            return Ok(Done::Ok);
        }
        let (before, owner) = (child.ends, Owner::Child(id));
        let plan = self.plan(child, owner, ends)?;
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
        if before.local != ends.local {
            child.inbound.destination = ends.local;
            old.extend(replace(&mut child.undo_inbound, done));
        }
        if let Some((outbound, undo)) = &mut child.outbound {
            outbound.destination = ends.remote;
            old.extend(replace(undo, sending));
        }
        // It has moved, even if something of the old one stays.
        let _logged = take_back(&mut self.tables, old).await;
        Ok(Done::Ok)
    }

    fn plan(&self, child: &Child, owner: Owner, ends: Ends) -> Result<Plan, KernelError> {
        // The selectors of transport mode are the addresses.
        if child.mode == Mode::Transport {
            let why = "a Child SA in transport mode cannot move";
            return Err(KernelError::Unsupported(why.to_owned()));
        }
        let before = child.ends;
        let mut plan = Plan {
            mode: child.mode,
            suite: child.suite,
            sends: child.outbound.is_some(),
            inbound: Vec::new(),
            outbound: Vec::new(),
        };
        if before.local != ends.local {
            let sa = side_move(child.inbound.spi, SaDirection::Inbound, before, ends);
            if self.children.values().any(|other| other.inbound == sa.target()) {
                return Err(KernelError::SpiInUse);
            }
            plan.inbound = self.steps(&sa, child.mode, owner, &child.undo_inbound);
        }
        if let Some((outbound, undo)) = &child.outbound {
            let sa = side_move(outbound.spi, SaDirection::Outbound, before, ends);
            let taken = |id: SaId| {
                let mut others = self.children.values().filter_map(|c| c.outbound.as_ref());
                id != *outbound && others.any(|(other, _)| *other == id)
            };
            if taken(sa.target()) {
                let what = sa.target();
                return Err(KernelError::Refused(format!("the outbound {what} exists already")));
            }
            plan.outbound = self.steps(&sa, child.mode, owner, undo);
        }
        Ok(plan)
    }

    /// The steps for one SA and the policies that its undo list names.
    fn steps(&self, sa: &SaMove, mode: Mode, owner: Owner, undo: &[Undo]) -> Vec<Step<'static>> {
        let mut steps = Vec::new();
        if sa.old() != sa.target() {
            steps.push(Step::Entry(sa.target(), sa.direction));
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

fn side_move(spi: u32, direction: SaDirection, from: Ends, to: Ends) -> SaMove {
    let side = |ends: Ends| match direction {
        SaDirection::Inbound => {
            SaEnds { source: ends.remote, destination: ends.local, encapsulation: None }
        }
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
