//! Socket options that no crate wraps. The only unsafe code of the sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use super::Family;

/// Leaves the don't-fragment bit clear, so that a large IKE message gets through where the path
/// is narrow (RFC 7296 2: implementations need to handle fragmented messages).
pub(super) fn allow_fragments(socket: &impl AsFd, family: Family) -> io::Result<()> {
    let (level, name, value) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
    };
    set(socket, level, name, &value.to_ne_bytes())
}

/// Has the kernel take ESP out of the UDP of this socket, by the SA that has its SPI. ESP without one is
/// lost; what is no ESP comes as ever (`xfrm4_udp_encap_rcv`, `xfrm6_udp_encap_rcv`).
pub(super) fn decapsulate(socket: &impl AsFd) -> io::Result<()> {
    const UDP_ENCAP: i32 = 100; // linux/udp.h
    const UDP_ENCAP_ESPINUDP: i32 = 2;
    set(socket, libc::IPPROTO_UDP, UDP_ENCAP, &UDP_ENCAP_ESPINUDP.to_ne_bytes())
}

/// Octets of `struct xfrm_userpolicy_info` (linux/xfrm.h).
const POLICY_LEN: usize = 168;
/// Where `sel.family` lies in it.
const POLICY_FAMILY: usize = 40;
/// Where `dir` lies in it: behind the selector, two lifetimes, the priority and the index.
const POLICY_DIRECTION: usize = 56 + 64 + 32 + 8;

/// Exempts the socket from XFRM in both directions, so that the messages that make an SA never
/// wait for one, whatever policies the host has. Needs CAP_NET_ADMIN.
pub(super) fn exempt_from_xfrm(socket: &impl AsFd, family: Family) -> io::Result<()> {
    // `xfrm_user_policy` asks the registered key managers, and xfrm_user registers when its
    // module is loaded, which opening its netlink family does.
    match netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_XFRM) {
        Ok(_) => {}
        // No XFRM: nothing to be exempted from. The set-up of the kernel says so in clear words.
        Err(e) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(()),
        Err(e) => return Err(e),
    }
    let (level, name, number) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_XFRM_POLICY, libc::AF_INET),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_XFRM_POLICY, libc::AF_INET6),
    };
    let family = u16::try_from(number).map_err(io::Error::other)?;
    for direction in [0, 1] {
        // XFRM_POLICY_IN and XFRM_POLICY_OUT; all else zero: any traffic of this socket, and
        // `action` XFRM_POLICY_ALLOW.
        let mut policy = [0_u8; POLICY_LEN];
        if let Some(field) = policy.get_mut(POLICY_FAMILY..POLICY_FAMILY.saturating_add(2)) {
            field.copy_from_slice(&family.to_ne_bytes());
        }
        if let Some(field) = policy.get_mut(POLICY_DIRECTION) {
            *field = direction;
        }
        set(socket, level, name, &policy)?;
    }
    Ok(())
}

/// The packets that a socket has not received because its queue was full (`sk_drops`).
pub(super) fn dropped(socket: &impl AsFd) -> io::Result<u32> {
    /// `SK_MEMINFO_DROPS` (linux/sock_diag.h), the last of what there is.
    const DROPS: usize = 8;
    let mut info = [0_u32; DROPS + 1];
    let octets = size_of_val(&info);
    let mut length = libc::socklen_t::try_from(octets).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the call, and the kernel writes no more than `length` octets
    // to the pointer, which is the array's size; any octets are numbers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(info[DROPS]) } else { Err(io::Error::last_os_error()) }
}

fn set(socket: &impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the call, and the kernel reads `length` octets from the
    // pointer, which is exactly the slice.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
