//! ESP of an inbound SA is handed to the CPU that the daemon has chosen for the SA, where the kernel
//! decrypts it (`BPF_MAP_TYPE_CPUMAP`). A network card that tells packets apart by their addresses
//! gives everything of one peer to one CPU; so its SAs are spread, and each stays in order, since all
//! its packets go through the same queue to the same CPU.
//!
//! A packet whose own CPU it is goes through the queue too: it must not overtake those before it.

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::programs::XdpContext;
use gateway_common::{Reason, SaKey, Subject};

use crate::count;
use crate::maps::{self, Sa};

/// One more than the number of a CPU that is in no map.
const NOWHERE: u16 = u16::MAX;

/// Notes the CPU of an inbound SA, if it has one.
///
/// Only of packets to an address of the interface itself: of a frame that XDP redirects the driver's
/// descriptor is lost, and with it the VLAN tag that a network card has taken off. What is to an
/// interface of that VLAN would come in at the wrong one.
#[inline(always)]
pub fn choose(context: &XdpContext, key: &SaKey, sa: Sa, subject: &mut Subject) {
    let cpu = sa.cpu();
    if cpu != 0 {
        let is_whole = maps::is_of(&key.destination, context.ingress_ifindex() as u32);
        subject.set_cpu(if is_whole { cpu as u16 } else { NOWHERE });
    }
}

/// Hands a packet that passes to the CPU of its SA, if it has one.
#[inline(always)]
#[must_use]
pub fn hand_over(subject: &Subject, octets: u64) -> u32 {
    subject.cpu().map_or(XDP_PASS, |cpu| hand_to_cpu(cpu, octets))
}

/// A function with a symbol has a frame of its own, and no part in those of others. Where the kernel
/// finds no queue for that number, the packet goes on here.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn hand_to_cpu(cpu: u32, octets: u64) -> u32 {
    let (reason, verdict) = match maps::CPUS.redirect(cpu, u64::from(XDP_PASS)) {
        Ok(redirect) => (Reason::Steered, redirect),
        Err(_nowhere) => (Reason::NotSteered, XDP_PASS),
    };
    count::beside(reason, octets);
    verdict
}
