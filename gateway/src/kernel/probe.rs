//! What this kernel can and cannot do, found out by trying.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU32;
use core::time::Duration;
use std::path::Path;
use std::{fs, io, process};

use aya::util::KernelVersion;
use gateway_ike::algorithms::{Encryption, EspSuite, Integrity};
use gateway_ike::config::{ChildLifetime, Mode};
use gateway_ike::io::{ChildId, ChildSpec, Encapsulation, SaSpec};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::network::Network;
use super::xfrm::{NetlinkError, SaDirection, SaId, Xfrm};

/// One thing that a kernel has or lacks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Feature {
    /// What, in words for operators.
    pub name: String,
    /// Whether this kernel has it.
    pub available: bool,
    /// Why not, or what follows from its absence; may be empty.
    pub detail: String,
}

/// What this kernel can do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Capabilities {
    /// The kernel's release.
    pub release: String,
    /// ESP over IPv4.
    pub esp_v4: bool,
    /// ESP over IPv6.
    pub esp_v6: bool,
    /// SAs know their direction (6.10 and newer).
    pub state_direction: bool,
    /// SAs in UDP have keepalives of the kernel's own (6.11 and newer).
    pub nat_keepalive: bool,
    /// Each thing that was tried.
    pub features: Vec<Feature>,
}

impl Capabilities {
    /// Whether the kernel can do ESP with any suite of ours.
    #[must_use]
    pub fn has_esp(&self) -> bool {
        self.esp_v4 || self.esp_v6
    }

    /// Writes to the log what was found: one line, and one more for each thing whose absence an
    /// operator may come to feel.
    pub(super) fn log(&self) {
        let Self { release, esp_v4, esp_v6, state_direction, nat_keepalive, .. } = self;
        let tc = if self.has(TCX) { "tcx" } else { "clsact" };
        let sa_direction = state_direction;
        info!(%release, esp_v4, esp_v6, sa_direction, nat_keepalive, tc, "Kernel probed");
        for missing in self.missed() {
            warn!("Kernel {missing}");
        }
    }

    /// Takes a finding in the place of an earlier one.
    pub(super) fn set(&mut self, found: Feature) {
        self.features.retain(|feature| feature.name != found.name);
        self.features.push(found);
    }

    /// Whether a thing is there, by its name.
    fn has(&self, name: &str) -> bool {
        self.features.iter().any(|feature| feature.name == name && feature.available)
    }

    /// What is missing and matters, in words that say what follows: there is a way round the other
    /// things. HMAC-SHA1 is only in proposals that name it, and who reads those is warned of it.
    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for (over, there) in [("IPv4", self.esp_v4), ("IPv6", self.esp_v6)] {
            if !there {
                missed.push(format!(
                    "has no ESP over {over}: no tunnel to a peer with such an address"
                ));
                continue;
            }
            let of_family = |feature: &&Feature| {
                feature.name.starts_with(ESP) && feature.name.ends_with(over) && !feature.available
            };
            let old = Integrity::HmacSha1.to_string();
            let in_use = |feature: &&Feature| !feature.name.contains(&old);
            for Feature { name, detail, .. } in
                self.features.iter().filter(of_family).filter(in_use)
            {
                missed
                    .push(format!("lacks {name}: Child SAs that agree on it will fail ({detail})"));
            }
        }
        missed
    }
}

/// How the names of the features begin that are suites of ESP.
const ESP: &str = "ESP with ";
/// The name of the feature that TC programs have links.
const TCX: &str = "tcx";

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}", self.release)?;
        for Feature { name, available, detail } in &self.features {
            write!(f, "\n{}: {name}", if *available { "yes" } else { "no" })?;
            if !detail.is_empty() {
                write!(f, " ({detail})")?;
            }
        }
        Ok(())
    }
}

/// The suites that are tried: one for each algorithm of ESP.
const SUITES: &[EspSuite] = &[
    EspSuite { encryption: Encryption::Aes128Gcm16, integrity: None, esn: true },
    EspSuite { encryption: Encryption::ChaCha20Poly1305, integrity: None, esn: true },
    EspSuite {
        encryption: Encryption::Aes128Cbc,
        integrity: Some(Integrity::HmacSha256),
        esn: true,
    },
    EspSuite {
        encryption: Encryption::Aes256Cbc,
        integrity: Some(Integrity::HmacSha384),
        esn: true,
    },
    EspSuite {
        encryption: Encryption::Aes256Cbc,
        integrity: Some(Integrity::HmacSha512),
        esn: true,
    },
    EspSuite { encryption: Encryption::Aes128Cbc, integrity: Some(Integrity::HmacSha1), esn: true },
];

/// Finds out what the kernel can do, in the network namespace of the calling thread. Needs
/// `CAP_NET_ADMIN`, and a tokio runtime.
///
/// SAs are tried between loopback addresses and an XFRM interface without a link; both are
/// removed at once, and the SAs would expire by themselves.
///
/// # Errors
/// The kernel has no XFRM or no rtnetlink, or refuses the sockets.
pub async fn probe(if_id: u32) -> io::Result<Capabilities> {
    let network = Network::open()?;
    let mut xfrm = Xfrm::open(if_id)?;
    Ok(capabilities(&network, &mut xfrm).await)
}

/// As [`probe()`], by sockets that are open.
pub(super) async fn capabilities(network: &Network, xfrm: &mut Xfrm) -> Capabilities {
    let xfrm_interface = try_xfrm_interface(network).await;
    let mut features = Vec::new();
    let mut state_direction = false;
    let mut esp = |v6: bool| {
        let mut any = false;
        for suite in SUITES {
            let over = if v6 { "IPv6" } else { "IPv4" };
            let outcome = try_suite(xfrm, *suite, v6);
            any |= outcome.is_ok();
            state_direction |= outcome.as_ref().is_ok_and(|has_direction| *has_direction);
            features.push(Feature {
                name: format!("{ESP}{suite} over {over}"),
                available: outcome.is_ok(),
                detail: outcome.err().map(|e| e.to_string()).unwrap_or_default(),
            });
        }
        any
    };
    let (esp_v4, esp_v6) = (esp(false), esp(true));
    // ESP in UDP is no matter of the family.
    let nat_keepalive = state_direction && try_keepalive(xfrm, !esp_v4).unwrap_or(false);
    let mut feature = |name: &str, available, detail: &str| {
        let detail = if available { String::new() } else { detail.to_owned() };
        features.push(Feature { name: name.to_owned(), available, detail });
    };
    let missing = xfrm_interface.as_ref().err().map(ToString::to_string).unwrap_or_default();
    feature("XFRM interfaces", xfrm_interface.is_ok(), &missing);
    feature("direction of SAs", state_direction, "since 6.10; not needed");
    feature("NAT keepalives", nat_keepalive, "since 6.11; the gateway sends them itself");
    let tcx = KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0));
    feature(TCX, tcx, "since 6.6; clsact is used");
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    feature("BTF", btf, "CONFIG_DEBUG_INFO_BTF; not needed");
    let bpffs = statfs("/sys/fs/bpf").is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    feature("bpffs at /sys/fs/bpf", bpffs, "mount -t bpf bpf /sys/fs/bpf");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim().to_owned();
    Capabilities { release, esp_v4, esp_v6, state_direction, nat_keepalive, features }
}

/// Installs an SA and deletes it; gives whether the kernel kept its direction.
fn try_suite(xfrm: &mut Xfrm, suite: EspSuite, v6: bool) -> Result<bool, NetlinkError> {
    let spec = trial(suite, v6);
    let id = SaId { destination: spec.inbound.destination, spi: spec.inbound.spi };
    xfrm.set_state_direction(true);
    let added = xfrm.add_sa(&spec, SaDirection::Inbound);
    xfrm.set_state_direction(false);
    added?;
    let usage = xfrm.usage(id);
    xfrm.delete_sa(id)?;
    Ok(usage?.has_direction)
}

/// Installs an SA in UDP and deletes it; gives whether the kernel would keep a NAT's mapping for it
/// alive. It may send one octet at once: to the discard port (RFC 863) of this host. The time is as
/// short as can be, because the kernel looks at all SAs together, and at a new one no sooner than
/// it had meant to look again (`xfrm_nat_keepalive_state_updated`).
fn try_keepalive(xfrm: &mut Xfrm, v6: bool) -> Result<bool, NetlinkError> {
    let suite = EspSuite { encryption: Encryption::Aes128Gcm16, integrity: None, esn: false };
    let mut spec = trial(suite, v6);
    spec.encapsulation =
        Some(Encapsulation { local_port: 9, remote_port: 9, keepalive: Some(NonZeroU32::MIN) });
    let id = SaId { destination: spec.outbound.destination, spi: spec.outbound.spi };
    xfrm.set_state_direction(true);
    let added = xfrm.add_sa(&spec, SaDirection::Outbound);
    xfrm.set_state_direction(false);
    added?;
    let usage = xfrm.usage(id);
    xfrm.delete_sa(id)?;
    Ok(usage?.keepalive.is_some())
}

/// A Child SA that nobody will ever use: from this host to this host, by an SPI of this process.
fn trial(suite: EspSuite, v6: bool) -> ChildSpec {
    let loopback =
        if v6 { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let salt = if suite.integrity.is_none() { 4 } else { 0 };
    let key = |length: usize| Zeroizing::new(vec![0; length]);
    let sa = SaSpec {
        // Process numbers have at most 22 bits.
        spi: process::id() | 0x4000_0000,
        reqid: 0,
        source: loopback,
        destination: loopback,
        encryption_key: key(suite.encryption.key_len().saturating_add(salt)),
        integrity_key: key(suite.integrity.map_or(0, Integrity::key_len)),
    };
    ChildSpec {
        child: ChildId(0),
        replaces: None,
        rule: "probe".into(),
        mode: Mode::Tunnel,
        inbound: sa.clone(),
        outbound: sa,
        suite,
        selectors: Vec::new(),
        addresses: Vec::new(),
        reached_at: None,
        peer: "probe".into(),
        name_servers: Vec::new(),
        encapsulation: None,
        replay_window: 64,
        lifetime: ChildLifetime { time: Duration::from_secs(10), bytes: 0, packets: 0 },
    }
}

/// Creates an XFRM interface and removes it.
async fn try_xfrm_interface(network: &Network) -> io::Result<()> {
    let name = format!("gwprobe{}", process::id());
    network.add_xfrm_interface(&name, process::id() | 0x4000_0000, None).await?;
    match network.interface(&name).await? {
        Some(interface) => network.delete_interface(interface.index).await,
        None => Err(io::Error::other("the interface that was created is not there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(missing: &[&str]) -> Capabilities {
        let names = [
            "ESP with aes128gcm16-esn over IPv4",
            "ESP with chacha20poly1305-esn over IPv4",
            "ESP with aes128gcm16-esn over IPv6",
            "BTF",
            TCX,
        ];
        let features = names.iter().map(|name| Feature {
            name: (*name).to_owned(),
            available: !missing.contains(name),
            detail: "why".to_owned(),
        });
        Capabilities {
            release: "6.1".to_owned(),
            esp_v4: true,
            esp_v6: !missing.contains(&names[2]),
            state_direction: false,
            nat_keepalive: false,
            features: features.collect(),
        }
    }

    #[test]
    fn a_later_finding_takes_the_place_of_an_earlier_one() {
        let mut capabilities = found(&[]);
        let names = |all: &Capabilities| {
            let mut names: Vec<_> = all.features.iter().map(|one| one.name.clone()).collect();
            names.sort();
            names
        };
        let before = names(&capabilities);
        let detail = "gone".to_owned();
        capabilities.set(Feature { name: TCX.to_owned(), available: false, detail });
        assert!(!capabilities.has(TCX));
        assert_eq!(names(&capabilities), before);
    }

    #[test]
    fn only_what_an_operator_would_miss_is_a_warning() {
        assert_eq!(found(&[]).missed(), [""; 0]);
        assert_eq!(found(&["BTF", TCX]).missed(), [""; 0]);
        assert!(found(&[]).has(TCX) && !found(&[TCX]).has(TCX));
    }

    #[test]
    fn a_family_or_a_suite_without_esp_is_a_warning() {
        assert_eq!(
            found(&["ESP with aes128gcm16-esn over IPv6"]).missed(),
            ["has no ESP over IPv6: no tunnel to a peer with such an address"]
        );
        assert_eq!(
            found(&["ESP with chacha20poly1305-esn over IPv4"]).missed(),
            ["lacks ESP with chacha20poly1305-esn over IPv4: \
              Child SAs that agree on it will fail (why)"]
        );
        // What is in no proposal but one that names it.
        assert_eq!(found(&["ESP with aes128-sha1-esn over IPv4"]).missed(), [""; 0]);
    }
}
