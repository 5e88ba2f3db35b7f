//! An IKE SA and its Child SAs go on between other addresses or ports.
//!
//! Without MOBIKE there is one reason: a NAT in front of the peer has given it another address or
//! port, and whoever is not behind NAT follows what is authentic and new (RFC 7296 2.23). With
//! MOBIKE (`mobike`) one end chooses, and tells the other.

mod addresses;
mod heard;
mod hint;
pub(super) mod mobike;
mod said;

use core::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

pub(super) use self::addresses::{Said, forbids_nats, meets_nat};
pub(crate) use self::heard::Heard;
pub(super) use self::hint::Hints;
pub(crate) use self::mobike::Mobike;
pub(crate) use self::said::Saying;
pub(super) use self::said::Updating;
use super::init::IKE_PORT;
use super::{IkeSa, State};
use crate::config::{EndpointConfig, Mode};
use crate::counters::Counter;
use crate::error::Error;
use crate::event::EventKind;
use crate::io::{ChildId, Encapsulation, Ends, KernelCommand, KernelError, Path};
use crate::natt::NatDetected;
use crate::shared::{Owner, Purpose, Shared};

impl IkeSa {
    /// Between which addresses ESP travels, given where IKE does; with keepalives, which one Child
    /// SA is enough for ([`Ends::without_keepalive`]).
    pub(super) fn ends(&self, config: &EndpointConfig) -> Ends {
        if let Some(proven) = self.mobike().and_then(Mobike::unproven) {
            return proven;
        }
        let Path { local, remote } = self.path;
        let nat = if let State::Established(established) = &self.state {
            established.nat
        } else {
            NatDetected::default()
        };
        // RFC 7296 2.23: never on port 500, whatever the peer does.
        let encapsulate = nat.any() && local.port() != IKE_PORT;
        let seconds = u32::try_from(config.keepalive_interval.as_secs()).unwrap_or(u32::MAX);
        let encapsulation = encapsulate.then(|| Encapsulation {
            local_port: local.port(),
            remote_port: remote.port(),
            keepalive: NonZeroU32::new(seconds).filter(|_| nat.local && config.kernel_keepalives),
        });
        Ends { local: local.ip(), remote: remote.ip(), encapsulation }
    }

    /// A message has come by a path that is authentic and new: it is the next request, or the
    /// response that was awaited. Whoever is not behind NAT follows a peer that is; who is
    /// behind NAT does not, or anybody on the way could send both ends elsewhere by turns
    /// (RFC 7296 2.23).
    ///
    /// With MOBIKE nobody does: the peer says where it is (RFC 4555 3.8).
    pub(super) fn follow(&mut self, now: Instant, shared: &mut Shared, path: Path, answer: bool) {
        let State::Established(established) = &self.state else { return };
        if established.mobike.is_some() {
            if answer {
                self.answered_by(now, shared, path);
            }
        } else if established.nat.remote && !established.nat.local {
            let before = self.ends(&shared.config);
            self.change_path(shared, path, "the NAT in front of the peer has changed its mapping");
            self.move_children(now, shared, before, false);
        }
    }

    /// From now on IKE goes by this path.
    fn change_path(&mut self, shared: &mut Shared, path: Path, why: &'static str) {
        if path != self.path {
            let from = core::mem::replace(&mut self.path, path);
            shared.count(Counter::PathChanged);
            // An IPv6 header is longer.
            if let State::Established(established) = &mut self.state {
                established.channel.use_path(&shared.config, path);
            }
            self.hint_followed();
            self.event(shared, EventKind::PathChanged { from, to: path, why });
        }
    }

    /// The Child SAs go where the IKE SA has gone, if that is elsewhere than before. `gently`: where
    /// they were, they could stay for some time.
    fn move_children(&mut self, now: Instant, shared: &mut Shared, before: Ends, gently: bool) {
        let ends = self.ends(&shared.config);
        if ends == before {
            return;
        }
        let State::Established(established) = &mut self.state else { return };
        let (mut moved, mut lost) = (Vec::new(), Vec::new());
        let mut keeper_wanted =
            !established.children.values().any(|c| c.is_live() && c.keeps_alive());
        let addresses = |ends: &Ends| (ends.local, ends.remote, ends.encapsulation.is_some());
        let only_ports = addresses(&ends) == addresses(&before);
        for child in established.children.values_mut() {
            let is_transport = child.mode == Mode::Transport;
            if is_transport && !only_ports {
                lost.push(child.id);
                continue;
            }
            let keeps = !is_transport
                && (child.keeps_alive() || child.is_live() && core::mem::take(&mut keeper_wanted));
            let ends = if keeps { ends } else { ends.without_keepalive() };
            child.encapsulation = ends.encapsulation;
            if let Some(waiting) = &mut child.waiting {
                waiting.set_ends(ends);
            }
            moved.push((child.id, ends));
        }
        for (child, ends) in moved {
            let owner = Owner::IkeSa(self.id, Purpose::MoveChild(child));
            shared.command(owner, KernelCommand::MoveChild { child, ends, gently });
        }
        for child in lost {
            let why = "its selectors are addresses that one of the ends has no more";
            self.delete_child(now, shared, child, why);
        }
    }

    /// The kernel has answered a move. A Child SA that stays behind is of no use: it goes, and
    /// its rule gets another one.
    pub(super) fn child_moved(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        child: ChildId,
        result: Result<(), KernelError>,
    ) {
        let Err(error) = result else { return };
        let State::Established(established) = &self.state else { return };
        // Absent: it was given up in the meantime, or could not be installed.
        let Some(lost) = established.children.get(&child) else { return };
        let rule = Arc::clone(&lost.rule.name);
        shared.count(Counter::ChildSaNotMoved);
        self.event(
            shared,
            EventKind::ChildFailed { rule: Some(rule), error: Error::Kernel(error) },
        );
        self.delete_child(now, shared, child, "it could not go where its IKE SA went");
    }
}
