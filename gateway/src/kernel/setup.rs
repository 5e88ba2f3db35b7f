//! From nothing, or from what an earlier run left, to a kernel that can take commands.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use caps::{CapSet, Capability};
use gateway_ike::config::{InitLimits, Mode, PolicySet};
use netlink_packet_route::link::InfoKind;
use tracing::{info, warn};

use super::bpf::{
    self, Attached, BpfError, Claim, DataPath, DataPathConfig, LogLevel, NotSteered, Room,
};
use super::claims::Claims;
use super::executor::Tables;
use super::links::Links;
use super::nat::{self, NatError, NatExemption, NatInterfaces};
use super::network::{Interface, Network};
use super::overhead::worst_overhead;
use super::rules::{RuleIds, class_rules};
use super::xfrm::Xfrm;
use super::{Capabilities, Feature, LinuxKernel, Monitor, probe};
use crate::complaints::Complaints;

/// How the kernel is to be set up.
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// The underlay: interfaces that lead to peers. At least one; all of them are guarded.
    pub interfaces: Vec<String>,
    /// The name of the XFRM interface, which is created if it is not there.
    pub xfrm_interface: String,
    /// What marks everything of ours in XFRM; not 0, and nobody else's.
    pub if_id: u32,
    /// The firewall mark of what the IKE sockets and the outbound SAs send, by which the programs
    /// let it pass; 0: none.
    pub own_mark: u32,
    /// Whether to set routes for protected prefixes. They make packets small enough before they
    /// are encrypted, and give packets of this host an inner address.
    pub routes: bool,
    /// Whether source NAT of this host is kept from what the rules select.
    pub nat_exemption: bool,
    /// Whether ESP to us that is of no SA of ours is dropped where it comes in.
    pub drop_unknown_esp: bool,
    /// Whether inbound SAs are spread over the CPUs.
    pub steer_cpus: bool,
    /// Where the BPF programs and maps are pinned: a directory on a bpffs, or to be made there.
    pub pin_dir: PathBuf,
    /// From what on the XDP program keeps IKE_SA_INIT requests from the sockets.
    pub ike: InitLimits,
    /// How much room the maps of the BPF programs have that grow by what peers do.
    pub room: Room,
    /// What the BPF programs log.
    pub bpf_log: LogLevel,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            xfrm_interface: "ipsec0".to_owned(),
            if_id: 71,
            own_mark: 0x6777,
            routes: true,
            nat_exemption: true,
            drop_unknown_esp: true,
            steer_cpus: false,
            pin_dir: PathBuf::from("/sys/fs/bpf/gateway"),
            ike: InitLimits::default(),
            room: Room::default(),
            bpf_log: LogLevel::Off,
        }
    }
}

/// Why the kernel could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum KernelSetupError {
    /// The configuration names no underlay.
    #[error("no interface is configured: name those that lead to the peers")]
    NoInterfaces,
    /// An underlay does not exist.
    #[error("there is no interface {0}")]
    NoSuchInterface(String),
    /// `CAP_NET_ADMIN` is missing.
    #[error("missing capability CAP_NET_ADMIN: run as root, or grant it")]
    MissingCapability,
    /// The kernel has no XFRM.
    #[error("kernel has no IPsec: CONFIG_XFRM_USER ({0})")]
    NoXfrm(io::Error),
    /// The kernel has XFRM, but no ESP, or none of its algorithms.
    #[error(
        "kernel has no ESP: CONFIG_INET_ESP, CONFIG_INET6_ESP or their algorithms \
         (modprobe esp4 esp6). What was tried:\n{0}"
    )]
    NoEsp(Box<Capabilities>),
    /// The kernel has no XFRM interfaces.
    #[error("kernel has no XFRM interfaces: CONFIG_XFRM_INTERFACE (modprobe xfrm_interface)")]
    NoXfrmInterfaces,
    /// The name of the XFRM interface is taken.
    #[error("interface {name} exists and is {found}: remove it, or choose another name")]
    NameTaken {
        /// The name.
        name: String,
        /// What it is.
        found: String,
    },
    /// The `if_id` is taken.
    #[error("another XFRM interface has if_id {0}: choose another")]
    IfIdTaken(u32),
    /// The `if_id` is 0, which XFRM takes for none.
    #[error("if_id must not be 0")]
    ZeroIfId,
    /// The BPF programs cannot be loaded or attached.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The system refuses something else.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried, on what.
        what: String,
        /// The system's error.
        source: io::Error,
    },
}

/// Names what was tried.
fn cannot(what: impl Into<String>) -> impl FnOnce(io::Error) -> KernelSetupError {
    let what = what.into();
    move |source| KernelSetupError::System { what, source }
}

/// After a negotiation that failed, the kernel asks again only when its larval state expires; no
/// traffic gets an answer until then. This is the kernel's own default.
const ACQUIRE_EXPIRES: Duration = Duration::from_secs(30);

/// How long a `gateway guard` that is at work is waited for, or a gateway that is about to end.
pub(super) const CLAIM_PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn open(
    config: KernelConfig,
    policies: &PolicySet,
    complaints: Complaints,
) -> Result<(LinuxKernel, Monitor), KernelSetupError> {
    if config.interfaces.is_empty() {
        return Err(KernelSetupError::NoInterfaces);
    }
    if config.if_id == 0 {
        return Err(KernelSetupError::ZeroIfId);
    }
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false) {
        return Err(KernelSetupError::MissingCapability);
    }
    let network = Network::open().map_err(cannot("open an rtnetlink socket"))?;
    let mut underlays = Vec::with_capacity(config.interfaces.len());
    for name in &config.interfaces {
        underlays.push(underlay(&network, name).await?);
    }
    let mut xfrm = Xfrm::open(config.if_id).map_err(KernelSetupError::NoXfrm)?;
    xfrm.set_output_mark(config.own_mark);
    // Before anything is pruned, so that no event of what follows is lost.
    let mut monitor = Monitor::open(config.if_id).map_err(cannot("listen to XFRM events"))?;
    let mut capabilities = probe::capabilities(&network, &mut xfrm).await;
    if !capabilities.has_esp() {
        return Err(KernelSetupError::NoEsp(Box::new(capabilities)));
    }
    capabilities.log();
    let smallest = underlays.iter().map(|underlay| underlay.mtu).min();
    let mtu = xfrm_mtu(smallest.ok_or(KernelSetupError::NoInterfaces)?);
    let (interface, is_new) = xfrm_interface(&network, &config, mtu, None).await?;
    xfrm.set_state_direction(capabilities.state_direction);
    let local = network.own_addresses().await.map_err(cannot("list our addresses"));
    let guard = match local {
        Ok(local) => guard(&config, &interface, policies, &local).await,
        Err(error) => {
            if is_new {
                remove(&network, &interface).await;
            }
            return Err(error);
        }
    };
    let (claim, guarding) = match guard {
        Ok(guard) => guard,
        Err(error) => {
            if is_new {
                remove(&network, &interface).await;
            }
            return Err(error.into());
        }
    };
    let Guarding { data_path, rule_ids, attached, nat } = guarding;
    if let Some(outcome) = &nat {
        capabilities.set(nat_feature(outcome.as_ref().err()));
    }
    if let Err(why) = data_path.steering()
        && why != NotSteered::NotWanted
    {
        warn!(%why, "Inbound SAs are not spread over the CPUs");
    }
    let (policies, routes) = (Claims::default(), Claims::default());
    let (addresses, xfrm_interface) = (Claims::default(), interface.index);
    let mut tables = Tables {
        xfrm,
        network,
        data_path,
        nat: nat.and_then(Result::ok),
        policies,
        routes,
        addresses,
        xfrm_interface,
        complaints,
    };
    if let Err(error) = tables.data_path.let_go_of_others(&config.interfaces) {
        warn!(%error, "Cannot detach the BPF programs of other interfaces");
    }
    // What an earlier run left: its keys are lost to us, so that its SAs cannot be rekeyed.
    tables.remove_all().await;
    let esp = tables.data_path.esp_events()?;
    monitor.follow(esp).map_err(cannot("listen to the BPF programs"))?;
    let links = Links::new(underlays.into_iter().zip(attached).collect(), mtu);
    let mut kernel = LinuxKernel::new(config, claim, capabilities, tables, rule_ids, links);
    kernel.follow_log();
    kernel.look_for_other_sas();
    Ok((kernel, monitor))
}

/// Loads the BPF programs, has them classify by the policies, and attaches them. On failure what
/// this run has attached and pinned is taken back; what an earlier run left goes on guarding.
async fn guard(
    config: &KernelConfig,
    xfrm: &Interface,
    policies: &PolicySet,
    local: &BTreeMap<IpAddr, u32>,
) -> Result<(Claim, Guarding), BpfError> {
    let claim = Claim::take(&config.pin_dir, CLAIM_PATIENCE).await?;
    let outcome = DataPath::load(&DataPathConfig {
        pin_dir: config.pin_dir.clone(),
        xfrm_ifindex: xfrm.index,
        xfrm_mtu: xfrm.mtu,
        own_mark: config.own_mark,
        steer_cpus: config.steer_cpus,
        room: config.room,
        log: config.bpf_log,
    })
    .and_then(|mut data_path| match attach(&mut data_path, config, policies, local) {
        Ok((rule_ids, attached, nat)) => Ok(Guarding { data_path, rule_ids, attached, nat }),
        Err(error) => {
            data_path.take_back();
            Err(error)
        }
    });
    if outcome.is_err()
        && claim.is_new()
        && let Err(error) =
            nat::remove().map_err(BpfError::from).and_then(|()| bpf::remove_maps(&config.pin_dir))
    {
        warn!(%error, "Cannot remove what was set or pinned");
    }
    outcome.map(|guarding| (claim, guarding))
}

/// The exemption from NAT, or why there is none; nothing if none is wanted.
type Exemption = Option<Result<NatExemption, NatError>>;

/// What guards.
struct Guarding {
    data_path: DataPath,
    rule_ids: RuleIds,
    attached: Vec<Attached>,
    nat: Exemption,
}

/// Keeps source NAT from what the rules select, which stand already; or not, if it is not wanted.
/// A kernel that cannot, or a host whose NAT is elsewhere, is no reason not to guard.
pub(super) fn exempt_from_nat(config: &KernelConfig, data_path: &mut DataPath) -> Exemption {
    if !config.nat_exemption {
        if let Err(error) = nat::remove() {
            warn!(%error, "Cannot remove the exemption from NAT");
        }
        return None;
    }
    let mut exemption = NatExemption::new(NatInterfaces {
        underlays: config.interfaces.clone(),
        xfrm: config.xfrm_interface.clone(),
    });
    let outcome = exemption.put(data_path).map(|()| exemption);
    if let Err(error) = &outcome {
        warn!(%error, "{}", nat::NOT_EXEMPT);
    }
    Some(outcome)
}

/// What `status` tells of the exemption, which is in force unless there is an error.
pub(super) fn nat_feature(error: Option<&NatError>) -> Feature {
    Feature {
        name: "exemption from source NAT".to_owned(),
        available: error.is_none(),
        detail: error.map(ToString::to_string).unwrap_or_default(),
    }
}

fn attach(
    data_path: &mut DataPath,
    config: &KernelConfig,
    policies: &PolicySet,
    local: &BTreeMap<IpAddr, u32>,
) -> Result<(RuleIds, Vec<Attached>, Exemption), BpfError> {
    // Without it IKE is not protected there, and goes through only where no rule protects all
    // between two hosts.
    if let Err(error) = data_path.set_local(local) {
        warn!(%error, "The eBPF programs do not know our addresses, and do not protect IKE");
    }
    // The rules stand before the first packet is looked at.
    let mut rule_ids = RuleIds::default();
    data_path.classify(&class_rules(policies, &mut rule_ids))?;
    let nat = exempt_from_nat(config, data_path);
    let mut all = Vec::with_capacity(config.interfaces.len());
    for name in &config.interfaces {
        let attached = data_path.attach(name)?;
        info!(interface = %name, xdp = ?attached.xdp, tc = ?attached.tc, "BPF programs attached");
        all.push(attached);
    }
    Ok((rule_ids, all, nat))
}

/// Removes an interface that this run has made.
async fn remove(network: &Network, interface: &Interface) {
    if let Err(error) = network.delete_interface(interface.index).await {
        warn!(interface = %interface.name, %error, "Cannot remove the interface again");
    }
}

async fn underlay(network: &Network, name: &str) -> Result<Interface, KernelSetupError> {
    let found =
        network.interface(name).await.map_err(cannot(format!("look up interface {name}")))?;
    let interface = found.ok_or_else(|| KernelSetupError::NoSuchInterface(name.to_owned()))?;
    if !interface.up {
        warn!(interface = %name, "The interface is down");
    }
    Ok(interface)
}

/// The MTU of the XFRM interface over underlays of this one: what is left by the worst that may be
/// negotiated, so that packets routed into the interface are fragmented before they are encrypted.
/// A fragment of an outer packet could not be stripped by XDP.
pub(super) fn xfrm_mtu(underlay: u32) -> u32 {
    worst_overhead(Mode::Tunnel, true).inner_mtu(underlay)
}

/// The XFRM interface, adopted or created, with its MTU and up; and whether it is new. A new one
/// gets the index `wanted`, if that is free.
pub(super) async fn xfrm_interface(
    network: &Network,
    config: &KernelConfig,
    mtu: u32,
    wanted: Option<u32>,
) -> Result<(Interface, bool), KernelSetupError> {
    let name = &config.xfrm_interface;
    let look_up = || async {
        network.interface(name).await.map_err(cannot(format!("look up interface {name}")))
    };
    let mut existing = look_up().await?;
    if let Some(found) = &existing {
        is_ours(found, config)?;
        if has_lost_its_link(network, found).await {
            info!(interface = %name, "The interface below the XFRM interface is gone");
            remove(network, found).await;
            existing = look_up().await?;
        }
    }
    let (interface, is_new) = match existing {
        Some(existing) => (existing, false),
        None => {
            create(network, name, config.if_id, wanted).await?;
            let made = look_up().await?;
            (made.ok_or_else(|| KernelSetupError::NoSuchInterface(name.clone()))?, true)
        }
    };
    tune(name);
    if let Err(error) = network.bring_up(interface.index, mtu).await {
        if is_new {
            remove(network, &interface).await;
        }
        return Err(cannot(format!("set MTU {mtu} of interface {name} and bring it up"))(error));
    }
    Ok((Interface { mtu, up: true, ..interface }, is_new))
}

/// Whether an XFRM interface is over another one that is not there any more, where it would look
/// for the way to peers.
pub(super) async fn has_lost_its_link(network: &Network, interface: &Interface) -> bool {
    match interface.link {
        Some(link) => matches!(network.interface_at(link).await, Ok(None)),
        None => false,
    }
}

/// Whether an interface of the name is an XFRM interface with our `if_id`.
pub(super) fn is_ours(existing: &Interface, config: &KernelConfig) -> Result<(), KernelSetupError> {
    let found = if existing.kind != Some(InfoKind::Xfrm) {
        existing.kind.as_ref().map_or_else(
            || "no XFRM interface".to_owned(),
            |kind| format!("of kind {kind:?}").to_lowercase(),
        )
    } else if existing.if_id != Some(config.if_id) {
        existing.if_id.map_or_else(
            || "an XFRM interface without if_id".to_owned(),
            |if_id| format!("an XFRM interface with if_id {if_id}"),
        )
    } else {
        return Ok(());
    };
    Err(KernelSetupError::NameTaken { name: config.xfrm_interface.clone(), found })
}

async fn create(
    network: &Network,
    name: &str,
    if_id: u32,
    wanted: Option<u32>,
) -> Result<(), KernelSetupError> {
    let mut outcome = network.add_xfrm_interface(name, if_id, wanted).await;
    // The kernel says the same of an index and of an if_id that is taken.
    if wanted.is_some() && outcome.is_err() {
        outcome = network.add_xfrm_interface(name, if_id, None).await;
    }
    outcome.map_err(|error| match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => KernelSetupError::NoXfrmInterfaces,
        Some(libc::EEXIST) => KernelSetupError::IfIdTaken(if_id),
        _ => cannot(format!("create XFRM interface {name} with if_id {if_id}"))(error),
    })
}

/// Settings without which traffic may be lost. A system that does not let us set them may have
/// them already, so that a failure is only told.
fn tune(interface: &str) {
    // Decrypted packets come from this interface, although the way back to their source is by the
    // underlay. 2, loose, also overrules a 1 for all interfaces: the higher one applies.
    let reverse_path = format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter");
    set(&reverse_path, "2");
    // Without link-local addresses nothing but selected traffic is ever sent into it.
    set(&format!("/proc/sys/net/ipv6/conf/{interface}/addr_gen_mode"), "1");
    // Some IKE daemons raise this for the whole network namespace, and leave it so.
    let acquire = "/proc/sys/net/core/xfrm_acq_expires";
    let seconds = fs::read_to_string(acquire).ok().and_then(|text| text.trim().parse().ok());
    if seconds.is_some_and(|seconds: u64| seconds > ACQUIRE_EXPIRES.as_secs()) {
        set(acquire, &ACQUIRE_EXPIRES.as_secs().to_string());
    }
}

fn set(path: &str, value: &str) {
    match fs::write(path, value) {
        Ok(()) => {}
        // Such as IPv6 on a machine without.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!(path, value, %error, "Cannot set a kernel parameter"),
    }
}
