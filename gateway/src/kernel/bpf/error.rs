//! What can go wrong with the BPF programs, each with what to do about it.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::sys::SyscallError;
use gateway_common::{Entry, Family, Tuples};

use crate::kernel::nat::NatError;

/// Why the data path could not be loaded, attached or changed.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The daemon was built with `GATEWAY_EBPF_SKIP=1`.
    #[error("this build has no BPF programs: build it without GATEWAY_EBPF_SKIP")]
    NotBuilt,

    /// The process lacks capabilities.
    #[error("the BPF programs need {}: run as root or grant them", .0.join(" and "))]
    MissingCapability(Vec<&'static str>),

    /// The pin directory is not on a BPF filesystem.
    #[error("bpffs is not mounted at {}: mount -t bpf bpf {}", .0.display(), .0.display())]
    NoBpffs(PathBuf),

    /// Somebody else has the pin directory.
    #[error(
        "another gateway, or `gateway guard`, has the BPF programs at {}: stop it, or choose another \
         `pin-dir`", .0.display()
    )]
    Claimed(PathBuf),

    /// Somebody else traces.
    #[error("another `gateway trace` reads what the BPF programs at {} tell", .0.display())]
    Traced(PathBuf),

    /// What a trace needs is not pinned there.
    #[error(
        "no programs that can be traced are pinned at {}: is the gateway running, of this version \
         and with this `pin-dir`?", .0.display()
    )]
    NothingToTrace(PathBuf),

    /// Something in the pin directory cannot be created, read or removed.
    #[error("{}: {error}", path.display())]
    Pin {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },

    /// A map that another version of the program pinned has another layout.
    #[error(
        "{} was pinned by another version of gateway: stop it and remove {}",
        path.display(),
        dir.display()
    )]
    OtherLayout {
        /// The map.
        path: PathBuf,
        /// The pin directory.
        dir: PathBuf,
    },

    /// An SA is to be reached at an address of another family.
    #[error("{at} and {to} are of two address families")]
    OtherFamily {
        /// Where it is to be reached too.
        at: IpAddr,
        /// Where it is.
        to: IpAddr,
    },

    /// The object is not what this loader expects.
    #[error("the BPF object has no {0}: it is not the one of this version")]
    NotInObject(&'static str),

    /// The kernel refused a program.
    #[error("the kernel refused the BPF program {program}: {why}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The error, and the end of what the verifier said.
        why: String,
    },

    /// There is no such interface.
    #[error("there is no interface {0}")]
    NoInterface(String),

    /// Packets of this kind of interface cannot be read.
    #[error("interface {name} has link type {kind}, which is neither Ethernet nor plain IP")]
    UnknownLink {
        /// The interface.
        name: String,
        /// `ARPHRD_*`.
        kind: u16,
    },

    /// Another XDP program is attached, and XDP has room for one.
    #[error("another XDP program is attached to {0}: ip link set dev {0} xdp off")]
    OtherXdp(String),

    /// A program could not be attached.
    #[error("cannot attach {program} to {interface}: {why}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// Why.
        why: String,
    },

    /// There is more than the programs have room for.
    #[error("{what}: the BPF map {map} is full, it has room for {room}")]
    Full {
        /// What was being done.
        what: &'static str,
        /// The map.
        map: &'static str,
        /// How many entries it has room for.
        room: usize,
    },

    /// The kernel refused something else.
    #[error("{what}: {why}")]
    Kernel {
        /// What was being done.
        what: &'static str,
        /// Why.
        why: String,
    },

    /// The exemption from NAT cannot be removed.
    #[error(transparent)]
    Nat(#[from] NatError),

    /// A rule cannot be expressed.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

/// Why a set of rules cannot be expressed in the maps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// One prefix is of IPv4 and the other of IPv6.
    #[error("rule {0}: the local and the remote prefix are of different families")]
    Families(u32),

    /// A range ends before it begins.
    #[error("rule {0}: a port range ends before it begins")]
    Ports(u32),

    /// Too many combinations of prefix lengths.
    #[error(
        "the {} rules combine prefix lengths in {count} ways, more than {}",
        name(*family),
        Tuples::MAX
    )]
    Tuples {
        /// The family.
        family: Family,
        /// How many.
        count: usize,
    },

    /// Too many rules that differ only by ports.
    #[error("more than {} rules differ from rule {rule} only by ports", Entry::MAX)]
    Alternatives {
        /// The first rule that has no room.
        rule: u32,
    },
}

const fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

impl BpfError {
    /// What it means that a map with so much room took no entry.
    pub(super) fn insertion(
        what: &'static str,
        map: &'static str,
        room: usize,
        error: &MapError,
    ) -> Self {
        // htab_map_update_elem() says E2BIG, trie_update_elem() ENOSPC.
        let MapError::SyscallError(SyscallError { io_error, .. }) = error else {
            return Self::kernel(what, error);
        };
        match io_error.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => Self::Full { what, map, room },
            _ => Self::kernel(what, error),
        }
    }

    /// An error of aya, with what caused it: its own texts leave that out.
    pub(crate) fn kernel(what: &'static str, error: &dyn Error) -> Self {
        Self::Kernel { what, why: chain(error) }
    }
}

/// The texts of an error and of its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

/// The verifier's log is long: its first line has the error, and its last ones, before what it
/// says of its own work, the cause.
pub(super) fn refused(program: &'static str) -> impl Fn(ProgramError) -> BpfError {
    const OWN_WORK: [&str; 4] =
        ["verification time", "stack depth", "processed", "insns processed"];
    move |error| {
        let text = chain(&error);
        let is_cause = |line: &&str| !OWN_WORK.iter().any(|start| line.starts_with(start));
        let lines: Vec<&str> = text.lines().filter(is_cause).collect();
        let why = match lines.as_slice() {
            [first, .., c, b, a] => [first, c, b, a].map(|line| line.trim()).join("\n"),
            _ => text.clone(),
        };
        BpfError::Refused { program, why }
    }
}
