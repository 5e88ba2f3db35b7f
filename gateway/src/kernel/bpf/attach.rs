//! Attaching the programs to an interface, and finding what an earlier run attached.
//!
//! Links are pinned, so the programs stay when the daemon dies. A program that takes over finds
//! the links and puts itself in the old one's place in one step, so that no packet passes
//! unguarded in between. A pin's name holds the inode of the network namespace and the interface's
//! index in it, which stay when the interface is renamed, and which no other interface has.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcError, TcHandle,
    qdisc_add_clsact, qdisc_detach_program,
};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp};
use gateway_common::program;
use nix::net::if_::{if_nameindex, if_nametoindex};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::error::{BpfError, chain};

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Driver,
    /// In the kernel's generic path, after the packet has its `sk_buff`.
    Generic,
    /// Not at all, since the link has no Ethernet headers: ESP in UDP then reaches the daemon's
    /// socket.
    None,
}

/// How the TC programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcMode {
    /// By links (kernel 6.6 and newer).
    Tcx,
    /// As filters of the clsact queueing discipline.
    Clsact,
}

/// How the programs are attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The XDP program.
    pub xdp: XdpMode,
    /// The TC programs.
    pub tc: TcMode,
}

/// An attachment that was not there before, so that it can be taken back.
pub(super) enum Made {
    /// A link, by its pin.
    Link(PathBuf),
    /// A filter.
    Filter { interface: String, program: &'static str, direction: TcAttachType },
}

impl Made {
    /// Detaches what was attached.
    pub(super) fn take_back(self) -> Result<(), BpfError> {
        match self {
            // With its last reference the kernel detaches it.
            Self::Link(path) => fs::remove_file(&path).map_err(|error| pin_error(&path, error)),
            Self::Filter { interface, program, direction } => {
                qdisc_detach_program(&interface, direction, program)
                    .map_err(|error| BpfError::Attach { program, interface, why: chain(&error) })
            }
        }
    }
}

/// An interface.
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    /// The inode of its network namespace.
    namespace: u64,
    /// Whether packets on it begin with an Ethernet header.
    pub(super) ethernet: bool,
}

/// Where our clsact filters are: before all others, under a handle of our own.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0x6777);

/// Every TC program and its direction.
const TC_PROGRAMS: [(&str, TcAttachType); 4] = [
    (program::STEER_EGRESS, TcAttachType::Egress),
    (program::STEER_EGRESS_L3, TcAttachType::Egress),
    (program::GUARD_INGRESS, TcAttachType::Ingress),
    (program::GUARD_INGRESS_L3, TcAttachType::Ingress),
];

impl Interface {
    /// Looks an interface up.
    pub(super) fn find(name: &str) -> Result<Self, BpfError> {
        let missing = || BpfError::NoInterface(name.to_owned());
        let index = if_nametoindex(name).map_err(|_unknown| missing())?;
        let kind = link_type(name).ok_or_else(missing)?;
        let ethernet = match kind {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => true,
            libc::ARPHRD_NONE
            | libc::ARPHRD_PPP
            | libc::ARPHRD_TUNNEL
            | libc::ARPHRD_TUNNEL6
            | libc::ARPHRD_SIT
            | libc::ARPHRD_IPGRE
            | ARPHRD_IP6GRE
            | ARPHRD_RAWIP => false,
            kind => return Err(BpfError::UnknownLink { name: name.to_owned(), kind }),
        };
        Ok(Self { name: name.to_owned(), index, namespace: namespace()?, ethernet })
    }

    /// Where a link of this kind is pinned.
    fn pin(&self, links: &Path, kind: &str) -> PathBuf {
        pin_of(links, kind, self.namespace, self.index)
    }

    fn error(&self, program: &'static str, error: &ProgramError) -> BpfError {
        BpfError::Attach { program, interface: self.name.clone(), why: chain(error) }
    }
}

/// The inode of this thread's network namespace.
fn namespace() -> Result<u64, BpfError> {
    let namespace = Path::new("/proc/thread-self/ns/net");
    Ok(namespace.metadata().map_err(|error| pin_error(namespace, error))?.ino())
}

fn pin_of(links: &Path, kind: &str, namespace: u64, index: u32) -> PathBuf {
    links.join(format!("{kind}-{namespace}-{index}"))
}

/// The kinds of the links of TC programs.
const TCX_EGRESS: &str = "tcx-egress";
const TCX_INGRESS: &str = "tcx-ingress";

/// The `ARPHRD_*` number of an interface in this thread's network namespace.
fn link_type(name: &str) -> Option<u16> {
    let mut request = request(name);
    ask(libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: it is the member that this call sets.
    Some(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

/// `ETHTOOL_GDRVINFO` of linux/ethtool.h.
const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    /// What nobody asks for here.
    other: [u8; 160],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

/// The name of an interface's driver.
fn driver(name: &str) -> Option<String> {
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], other: [0; 160] };
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    ask(libc::SIOCETHTOOL, &mut request)?;
    let DriverInfo { driver, .. } = info;
    let end = driver.iter().position(|octet| *octet == 0)?;
    String::from_utf8(driver.get(..end)?.to_vec()).ok()
}

/// What asks about an interface.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: all of it is numbers, for which zero is good.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last octet stays zero.
    let room = request.ifr_name.iter_mut().take(libc::IFNAMSIZ.saturating_sub(1));
    for (place, octet) in room.zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([octet]);
    }
    request
}

/// Asks the kernel about an interface in this thread's network namespace.
fn ask(what: libc::c_ulong, request: &mut libc::ifreq) -> Option<()> {
    let family = AddressFamily::Unix;
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    // SAFETY: the kernel reads and writes the request and what it points to, which are there for
    // this call and large enough for what is asked.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), what, request) };
    (done == 0).then_some(())
}

/// `ARPHRD_IP6GRE` of linux/if_arp.h.
const ARPHRD_IP6GRE: u16 = 823;
/// `ARPHRD_RAWIP` of linux/if_arp.h.
const ARPHRD_RAWIP: u16 = 519;

/// Attaches the XDP program, in the driver if that can.
pub(super) fn xdp(
    xdp: &mut Xdp,
    interface: &Interface,
    links: &Path,
) -> Result<(XdpMode, Option<Made>), BpfError> {
    for (mode, _, name) in XDP_MODES {
        let pin = interface.pin(links, name);
        let replaced = take_over(&pin, |link| {
            let link = XdpLink::try_from(link).map_err(link_error)?;
            xdp.attach_to_link(link).map(drop::<XdpLinkId>)
        });
        if replaced.map_err(|error| interface.error(program::NATT_INGRESS, &error))? {
            return Ok((mode, None));
        }
    }
    let mut refused = None;
    for (mode, how, name) in XDP_MODES {
        match xdp.attach_to_if_index(interface.index, how) {
            Ok(id) => {
                let link = xdp.take_link(id).and_then(|link| link.try_into().map_err(link_error));
                let link = link.map_err(|error| interface.error(program::NATT_INGRESS, &error))?;
                let path = interface.pin(links, name);
                pin(link, &path)?;
                return Ok((mode, Some(Made::Link(path))));
            }
            Err(error) if matches!(errno(&error), Some(libc::EBUSY | libc::EEXIST)) => {
                return Err(BpfError::OtherXdp(interface.name.clone()));
            }
            Err(error) => refused = Some(interface.error(program::NATT_INGRESS, &error)),
        }
    }
    Err(refused.unwrap_or(BpfError::NotInObject(program::NATT_INGRESS)))
}

/// Whether what the XDP program sends back by itself goes out. In the driver of veth it is lost
/// unless the other end of the pair has an XDP program or GRO (`veth_xdp_xmit`), which cannot be
/// seen from here.
pub(super) fn can_answer(interface: &str, mode: XdpMode) -> bool {
    match mode {
        XdpMode::Driver => driver(interface).is_some_and(|driver| driver != "veth"),
        XdpMode::Generic => true,
        XdpMode::None => false,
    }
}

const XDP_MODES: [(XdpMode, aya::programs::XdpMode, &str); 2] = [
    (XdpMode::Driver, aya::programs::XdpMode::Driver, "xdp-driver"),
    (XdpMode::Generic, aya::programs::XdpMode::Skb, "xdp-generic"),
];

/// Attaches a TC program before all others: one that ends the walk would let packets past it.
pub(super) fn tc(
    classifier: &mut SchedClassifier,
    program: &'static str,
    direction: TcAttachType,
    interface: &Interface,
    links: &Path,
) -> Result<(TcMode, Option<Made>), BpfError> {
    let is_egress = matches!(direction, TcAttachType::Egress);
    let path = interface.pin(links, if is_egress { TCX_EGRESS } else { TCX_INGRESS });
    let replaced = take_over(&path, |link| {
        let link = SchedClassifierLink::try_from(link).map_err(link_error)?;
        classifier.attach_to_link(link).map(drop::<SchedClassifierLinkId>)
    });
    if replaced.map_err(|error| interface.error(program, &error))? {
        return Ok((TcMode::Tcx, None));
    }
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    match classifier.attach_with_options(&interface.name, direction, first) {
        Ok(id) => {
            let link =
                classifier.take_link(id).and_then(|link| link.try_into().map_err(link_error));
            pin(link.map_err(|error| interface.error(program, &error))?, &path)?;
            Ok((TcMode::Tcx, Some(Made::Link(path))))
        }
        // Kernels before 6.6 do not know the attach type.
        Err(error) if errno(&error) == Some(libc::EINVAL) => {
            let is_new = clsact(classifier, direction, interface)
                .map_err(|error| interface.error(program, &error))?;
            let made = || Made::Filter { interface: interface.name.clone(), program, direction };
            Ok((TcMode::Clsact, is_new.then(made)))
        }
        Err(error) => Err(interface.error(program, &error)),
    }
}

/// Puts the program in the place of our filter, or adds the filter: `true`.
fn clsact(
    classifier: &mut SchedClassifier,
    direction: TcAttachType,
    interface: &Interface,
) -> Result<bool, ProgramError> {
    match qdisc_add_clsact(&interface.name) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let ours = SchedClassifierLink::attached(&interface.name, direction, PRIORITY, HANDLE, None)?;
    let (id, is_new) = match classifier.attach_to_link(ours) {
        Ok(id) => (id, false),
        Err(_no_filter_of_ours) => {
            let new = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            let new = TcAttachOptions::Netlink(new);
            (classifier.attach_with_options(&interface.name, direction, new)?, true)
        }
    };
    // A dropped link would take the filter away; it is to outlive us.
    std::mem::forget(classifier.take_link(id)?);
    Ok(is_new)
}

/// Removes the pins of an interface: one that is gone, whose index another one may get, or one that is
/// to be let go.
pub(super) fn forget(index: u32, links: &Path) -> Result<(), BpfError> {
    let namespace = namespace()?;
    let kinds = XDP_MODES.iter().map(|(_, _, name)| *name).chain([TCX_EGRESS, TCX_INGRESS]);
    for kind in kinds {
        let path = pin_of(links, kind, namespace, index);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(pin_error(&path, error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Detaches whatever a run with these links attached, on every interface.
pub(super) fn detach_all(links: &Path) -> Result<(), BpfError> {
    let entries = match fs::read_dir(links) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(pin_error(links, error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| pin_error(links, error))?.path();
        // With its last reference the kernel detaches it.
        fs::remove_file(&path).map_err(|error| pin_error(&path, error))?;
    }
    for (_, name) in interfaces()? {
        detach_filters(&name);
    }
    Ok(())
}

/// The same on all interfaces of this thread's network namespace but these.
pub(super) fn detach_others(kept: &[String], links: &Path) -> Result<(), BpfError> {
    for (index, name) in interfaces()? {
        if !kept.contains(&name) {
            forget(index, links)?;
            detach_filters(&name);
        }
    }
    Ok(())
}

/// The interfaces of this thread's network namespace.
fn interfaces() -> Result<Vec<(u32, String)>, BpfError> {
    let all = if_nameindex()
        .map_err(|error| BpfError::kernel("the interfaces cannot be listed", &error))?;
    let both = all.iter().map(|one| (one.index(), one.name().to_string_lossy().into_owned()));
    Ok(both.collect())
}

fn detach_filters(interface: &str) {
    for (program, direction) in TC_PROGRAMS {
        // There is none where no filter is ours, or no clsact at all.
        drop::<Result<(), TcError>>(qdisc_detach_program(interface, direction, program));
    }
}

/// Opens a pinned link, if there is one, and lets `update` put a program into it. Whether there
/// was one; one whose interface is gone is removed and does not count.
fn take_over(
    path: &Path,
    update: impl FnOnce(FdLink) -> Result<(), ProgramError>,
) -> Result<bool, ProgramError> {
    let pinned = match PinnedLink::from_pin(path) {
        Ok(pinned) => pinned,
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            return Ok(false);
        }
        Err(error) => return Err(link_error(error)),
    };
    match update(pinned.into()) {
        Ok(()) => Ok(true),
        Err(error) if errno(&error) == Some(libc::ENOLINK) => {
            fs::remove_file(path)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn pin(link: FdLink, path: &Path) -> Result<(), BpfError> {
    link.pin(path).map(drop::<PinnedLink>).map_err(|error| BpfError::Pin {
        path: path.to_owned(),
        error: io::Error::other(chain(&error)),
    })
}

pub(super) fn pin_error(path: &Path, error: io::Error) -> BpfError {
    BpfError::Pin { path: PathBuf::from(path), error }
}

fn link_error(error: LinkError) -> ProgramError {
    match error {
        LinkError::SyscallError(error) => error.into(),
        other @ (LinkError::InvalidLink | LinkError::UnknownLinkType(_)) => {
            io::Error::other(other.to_string()).into()
        }
    }
}

/// The kernel's error number.
fn errno(error: &ProgramError) -> Option<i32> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && let Some(number) = io.raw_os_error()
        {
            return Some(number);
        }
        cause = error.source();
    }
    None
}
