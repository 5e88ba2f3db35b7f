//! What has gone through Child SAs.

use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

use gateway_ike::io::{ChildId, ChildUse, Done, KernelError};

use super::linux::{Child, LinuxKernel};
use super::xfrm::{SaId, Usage};
use crate::clock;

/// The last look at an inbound SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    at: Instant,
    packets: u64,
    /// When the last packet came, as far as we know.
    active: Option<Instant>,
}

impl LinuxKernel {
    /// Of one Child SA.
    pub(super) fn query_use(&mut self, child: ChildId) -> Result<Done, KernelError> {
        let child = self.children.get_mut(&child).ok_or(KernelError::NoSuchSa)?;
        let xfrm = &mut self.tables.xfrm;
        let mut ask = |id: SaId| {
            xfrm.usage(id).map_err(|error| {
                if error.is_absent() {
                    KernelError::NoSuchSa
                } else {
                    KernelError::Refused(format!("cannot ask for the use of {id}: {error}"))
                }
            })
        };
        let inbound = ask(child.inbound)?;
        let outbound = child.outbound.as_ref().map(|(id, _)| ask(*id)).transpose()?;
        Ok(Done::Use(child.used(&inbound, outbound.as_ref())))
    }

    /// Of all Child SAs, by one look at every SA that the kernel has, whosever it is: to ask for one
    /// after the other takes longer as soon as an eighth of them is ours. Child SAs of which the
    /// kernel has lost an SA are left out.
    ///
    /// # Errors
    /// The kernel does not list its SAs: then nothing is known of any.
    pub fn uses(&mut self) -> Result<BTreeMap<ChildId, ChildUse>, KernelError> {
        if self.children.is_empty() {
            return Ok(BTreeMap::new());
        }
        let usages = self.tables.xfrm.usages().map_err(|error| {
            KernelError::Refused(format!("cannot list the kernel's SAs: {error}"))
        })?;
        let used = self.children.iter_mut().filter_map(|(id, child)| {
            let inbound = usages.get(&child.inbound)?;
            let outbound = match &child.outbound {
                Some((outbound, _)) => Some(usages.get(outbound)?),
                None => None,
            };
            Some((*id, child.used(inbound, outbound)))
        });
        Ok(used.collect())
    }
}

impl Child {
    /// What the kernel says of its SAs, which is remembered for the next look.
    fn used(&mut self, inbound: &Usage, outbound: Option<&Usage>) -> ChildUse {
        let seen = look(self.seen, inbound, clock::now(), clock::unix_seconds());
        self.seen = Some(seen);
        ChildUse {
            idle_inbound: seen.active.map(|active| seen.at.saturating_duration_since(active)),
            bytes_in: inbound.bytes,
            bytes_out: outbound.map_or(0, |usage| usage.bytes),
            packets_in: inbound.packets,
            packets_out: outbound.map_or(0, |usage| usage.packets),
        }
    }
}

/// Works out when the last packet came: between the last two looks if the count has changed, and
/// more exactly where the kernel tells. Its time is the wall clock's, which may jump: never
/// outside of that interval.
fn look(before: Option<Seen>, usage: &Usage, now: Instant, wall: u64) -> Seen {
    let active = match before {
        _ if usage.packets == 0 => None,
        Some(seen) if seen.packets == usage.packets => seen.active,
        _ => {
            let told = usage.last_used.map_or(0, |last| wall.saturating_sub(last));
            let most = before.map(|seen| now.saturating_duration_since(seen.at));
            let idle = Duration::from_secs(told);
            now.checked_sub(most.map_or(idle, |most| idle.min(most))).or(Some(now))
        }
    };
    Seen { at: now, packets: usage.packets, active }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(packets: u64, last_used: Option<u64>) -> Usage {
        Usage { bytes: 0, packets, last_used, has_direction: false, keepalive: None }
    }

    fn idle(seen: Seen) -> Option<u64> {
        seen.active.map(|active| seen.at.saturating_duration_since(active).as_secs())
    }

    #[test]
    fn an_sa_that_never_had_a_packet_is_not_idle_but_unused() {
        assert_eq!(idle(look(None, &usage(0, None), clock::now(), 1000)), None);
    }

    #[test]
    fn a_changed_count_means_a_packet_since_the_last_look() {
        let start = clock::now();
        let first = look(None, &usage(5, None), start, 1000);
        assert_eq!(idle(first), Some(0));
        let later = look(Some(first), &usage(5, None), start + Duration::from_secs(30), 1030);
        assert_eq!(idle(later), Some(30));
        let again = look(Some(later), &usage(6, None), start + Duration::from_secs(60), 1060);
        assert_eq!(idle(again), Some(0));
    }

    #[test]
    fn the_kernels_own_time_is_finer_but_cannot_leave_the_interval() {
        let start = clock::now();
        let first = look(None, &usage(5, Some(990)), start, 1000);
        let after = start + Duration::from_secs(20);
        assert_eq!(idle(look(Some(first), &usage(6, Some(1013)), after, 1020)), Some(7));
        // The wall clock jumped a day ahead, or a day back.
        assert_eq!(idle(look(Some(first), &usage(6, Some(1013)), after, 87_400)), Some(20));
        assert_eq!(idle(look(Some(first), &usage(6, Some(87_400)), after, 1020)), Some(0));
    }
}
