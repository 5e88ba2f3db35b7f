//! What a test needs of the machine, and how it says that this is not there.
//!
//! A skipped test says so on one line and in the file that `GATEWAY_SKIP_LOG` names, so that it
//! is counted as skipped and not as passed.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;

use crate::error::{Context as _, Result};
use crate::libreswan::Libreswan;
use crate::namespace::Namespace;
use crate::strongswan::StrongSwan;

/// Something a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// ESP with AES-GCM and XFRM interfaces in the kernel.
    Esp,
    /// A kernel without ESP, to see how the daemon says so.
    NoEsp,
    /// strongSwan's packages.
    StrongSwan,
    /// A newer strongSwan in a directory of its own; `GATEWAY_PEERS` names what holds it.
    NewerStrongSwan,
    /// libreswan, in the same place.
    Libreswan,
    /// strongSwan's plugins for EAP.
    StrongSwanEap,
    /// Our daemon.
    Gateway,
    /// More than one CPU to run on.
    TwoCpus,
}

impl Requirement {
    fn missing(self) -> Result<Option<&'static str>> {
        let esp = matches!(self, Self::Esp | Self::NoEsp) && kernel_has_esp()?;
        Ok(match self {
            Self::Esp if !esp => Some("the kernel has no ESP or no XFRM interfaces"),
            Self::NoEsp if esp => Some("the kernel has ESP"),
            Self::StrongSwan if !StrongSwan::is_installed() => {
                Some("charon-systemd and strongswan-swanctl are not installed")
            }
            Self::NewerStrongSwan if StrongSwan::newer().is_none() => {
                Some("there is no newer strongSwan; cargo xtask test fetches it")
            }
            Self::Libreswan if Libreswan::root().is_none() => {
                Some("there is no libreswan; cargo xtask test fetches it")
            }
            Self::StrongSwanEap if !StrongSwan::has_eap() => {
                Some("libcharon-extauth-plugins and libcharon-extra-plugins are not installed")
            }
            Self::Gateway if !gateway_binary().exists() => {
                Some("there is no gateway binary; GATEWAY_BIN names it")
            }
            Self::TwoCpus if thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) => {
                Some("there is only one CPU")
            }
            Self::Esp
            | Self::NoEsp
            | Self::StrongSwan
            | Self::NewerStrongSwan
            | Self::Libreswan
            | Self::StrongSwanEap
            | Self::Gateway
            | Self::TwoCpus => None,
        })
    }
}

/// Whether the machine has all of it. If not, says what is missing: the test returns then.
///
/// # Errors
/// It cannot be found out, for want of privilege.
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
pub fn met(requirements: &[Requirement]) -> Result<bool> {
    for requirement in requirements {
        let Some(why) = requirement.missing()? else { continue };
        let thread = thread::current();
        let test = thread.name().unwrap_or("?");
        eprintln!("SKIPPED {test}: {why}");
        if let Some(log) = env::var_os("GATEWAY_SKIP_LOG") {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .and_then(|mut file| writeln!(file, "{test}: {why}"))
                .context(log.display())?;
        }
        return Ok(false);
    }
    Ok(true)
}

/// The daemon: `GATEWAY_BIN`, or `gateway` beside the directory of the running test.
#[must_use]
pub fn gateway_binary() -> PathBuf {
    env::var_os("GATEWAY_BIN").map_or_else(
        || {
            let test = env::current_exe().unwrap_or_default();
            // target/PROFILE/deps/TEST-HASH, or target/PROFILE/demo.
            let mut beside = test.ancestors().skip(1).take(2).map(|d| d.join("gateway"));
            let found = beside.find(|path| fs::metadata(path).is_ok_and(|m| m.is_file()));
            found.unwrap_or_else(|| PathBuf::from("target/debug/gateway"))
        },
        PathBuf::from,
    )
}

/// Asks the kernel for what a tunnel needs, in a namespace.
fn kernel_has_esp() -> Result<bool> {
    let namespace = Namespace::new("probe")?;
    // Each by itself, so that the kernel loads the module it may have for it.
    let wanted = [
        "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 mode tunnel \
         aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128",
        "link add ipsec0 type xfrm dev lo if_id 7",
    ];
    Ok(wanted.iter().all(|line| namespace.ip(line).is_ok()))
}
