//! The operations.

use core::net::SocketAddr;
use core::time::Duration;

use gateway_ike::Input;
use gateway_ike::io::{KernelError, KernelEvent};
use gateway_ike::testing::{Faults, NodeId, Refusal};

use super::Run;
use crate::certificates::NOW;
use crate::octets::Octets;
use crate::plan::{OTHERS, Plan};
use crate::{A, B, EVE};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Run {
    /// Does one operation.
    pub(super) fn step(&mut self, octets: &mut Octets<'_>) {
        let operation = octets.one();
        // The high bit chooses the host.
        let node = usize::from(operation >> 7);
        match operation & 0x0f {
            0 | 1 => self.send_own(node, octets),
            2..=4 => self.send_captured(node, operation & 0x0f, octets),
            5 => self.send_spliced(node, octets),
            6 => self.flood(node, octets),
            // Time passes: up to a minute and a bit, or up to 25 ms.
            7 | 8 => self.pass(Duration::from_millis(u64::from(octets.one()) * 250)),
            9 => self.pass(Duration::from_micros(u64::from(octets.one()) * 100)),
            10 => {
                let (loss, duplication) = (octets.one() % 101, octets.one() % 101);
                let (loss, duplication) = (u64::from(loss), u64::from(duplication));
                let faults = Faults { loss, duplication, reordering: 20, corruption: loss / 4 };
                self.simulation.network.set_faults(faults);
            }
            11 => {
                let nth = usize::from(operation >> 4 & 7) % self.plan.rules().len();
                self.simulation.acquire(node, &Plan::name(nth));
            }
            12 => {
                let refusal = match octets.one() % 4 {
                    0 => Refusal::Error(KernelError::SpiInUse),
                    1 => Refusal::Error(KernelError::Unsupported("no ESP".to_owned())),
                    2 => Refusal::Silence,
                    _ => Refusal::None,
                };
                self.simulation.nodes[node].kernel.refusals.push_back(refusal);
            }
            13 => self.expire(node, usize::from(operation >> 4 & 7), octets.one()),
            14 => self.reload(node, octets.one()),
            _ => match octets.one() {
                255 => self.simulation.input(node, Input::Shutdown),
                254 => self.restart(node),
                200..=253 => self.forge(node, octets),
                other => self.seldom(node, other % 16, octets),
            },
        }
    }

    /// What happens to a host now and then.
    fn seldom(&mut self, node: NodeId, what: u8, octets: &mut Octets<'_>) {
        match what {
            // Some of its addresses, in any order.
            1 => {
                let mut all = [&[[A, B][node]], OTHERS[node].as_slice()].concat();
                let choice = octets.one();
                let some = (0..=choice % 3).map(|nth| {
                    let which = usize::from(choice >> (2 + 2 * nth)) % all.len();
                    all.swap_remove(which)
                });
                let addresses: Vec<_> = some.collect();
                self.simulation.readdress(node, &addresses);
            }
            2 if self.plan.nat => {
                let nth = octets.one();
                self.plan.translate(&mut self.simulation, nth);
            }
            // An address is reached no more, or again.
            3 => {
                let (which, dead) = (octets.one(), octets.one());
                let all = [[A, B].as_slice(), &OTHERS.concat()].concat();
                let address = all[usize::from(which) % all.len()];
                if dead & 1 == 0 {
                    self.simulation.network.cut_off(address);
                } else {
                    self.simulation.network.connect(address);
                }
            }
            // It is suspended, or wakes.
            4 => self.simulation.nodes[node].asleep ^= true,
            // Somebody sets its clock: certificates may not be valid any more, or not yet.
            5 => {
                let clock = match octets.one() % 4 {
                    0 => NOW,
                    1 => NOW + 5 * DAY,
                    2 => NOW + 40 * DAY,
                    _ => NOW - 40 * DAY,
                };
                self.clocks[node] = clock;
                self.simulation.input(node, Input::WallClock(clock));
            }
            // Both ends, and all between them, are held up.
            6 => self.simulation.now += Duration::from_secs(4 * u64::from(octets.one())),
            7 => drop(self.simulation.exchange_traffic()),
            // What is under way to it for longest arrives now, or never.
            8 => self.simulation.deliver(node, false),
            9 => self.simulation.deliver(node, true),
            10 => self.send_reshaped(node, octets),
            11 => {
                let idle = u64::from(octets.one());
                let kernel = &mut self.simulation.nodes[node].kernel;
                kernel.idle_inbound = Some(Duration::from_secs(idle)).filter(|_| idle > 0);
            }
            _ => self.simulation.input(node, Input::Timeout),
        }
    }

    /// A host loses everything but its crash secret and its policies.
    fn restart(&mut self, node: NodeId) {
        let mine = &self.simulation.nodes[node];
        let addresses = [&[mine.address], mine.others.as_slice()].concat();
        self.next += 1;
        self.simulation.crash(node, self.next);
        self.simulation.readdress(node, &addresses);
        self.configure(node);
    }

    /// An operator takes a rule away, or has it again; or something of the peer is changed.
    fn reload(&mut self, node: NodeId, what: u8) {
        let nth = usize::from(what >> 2) % self.plan.rules().len();
        let wishes = &mut self.wishes[node];
        match what & 3 {
            0 => {}
            1 => wishes.renewed ^= true,
            2 => wishes.changed ^= true,
            _ => {
                if !wishes.rules.remove(&nth) {
                    wishes.rules.insert(nth);
                }
            }
        }
        self.configure(node);
    }

    /// A Child SA of a host reaches a limit, vanishes, or is heard of from elsewhere.
    fn expire(&mut self, node: NodeId, which: usize, how: u8) {
        let kernel = &mut self.simulation.nodes[node].kernel;
        let Some(which) = which.checked_rem(kernel.children.len()) else { return };
        let Some((child, spec)) = kernel.children.iter().nth(which) else { return };
        let (child, spi, destination) = (*child, spec.inbound.spi, spec.inbound.destination);
        let event = match how % 4 {
            0 => KernelEvent::Expire { spi, destination, hard: false },
            2 => KernelEvent::PeerMoved { spi, from: SocketAddr::new(EVE, 4500) },
            how => {
                kernel.children.remove(&child);
                kernel.outbound.retain(|sends| *sends != child);
                if how == 1 {
                    KernelEvent::Expire { spi, destination, hard: true }
                } else {
                    KernelEvent::Vanished { child }
                }
            }
        };
        self.simulation.input(node, Input::Kernel(event));
    }
}
