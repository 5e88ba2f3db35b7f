//! Loads the BPF programs, fills their maps, attaches them and reads their counters.
//!
//! The order that leaks nothing: [`DataPath::load`], [`DataPath::classify`], the SAs that are
//! known, then [`DataPath::attach`]. Programs, links and maps are pinned, so they go on without
//! the daemon; the next run takes them over by the same calls, and rules and SAs are there until
//! it changes them.

mod attach;
mod claim;
mod cpus;
mod error;
mod ike;
mod log;
mod mtus;
mod outer;
mod pins;
mod room;
mod rules;
mod sas;
mod sources;
mod trace;
mod unknown;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use aya::maps::{
    Array, ArrayOfMaps, CpuMap, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray,
    PerCpuHashMap, PerCpuValues,
};
use aya::programs::{Program, ProgramError, SchedClassifier, SocketFilter, TcAttachType, Xdp};
use aya::sys::SyscallError;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use caps::{CapSet, Capability};
use gateway_common::{
    Address, Count, Entry, IkeProtection, Reason, RuleCount, SaKey, SaValue, Tuples, global, map,
    program,
};
use tracing::warn;

pub use attach::{Attached, TcMode, XdpMode};
pub use claim::Claim;
pub use cpus::NotSteered;
pub use error::{BpfError, RuleError};
pub use gateway_common::Action;
pub use log::BpfLog;
pub use pins::remove;
pub(super) use pins::remove_maps;
pub use room::Room;
pub use rules::{ClassRule, Generation};
pub use sources::{EspEvent, EspEvents, EspSource};
pub use trace::{Decided, Tracer, Wish};
pub use unknown::UnknownEsp;

use super::nat::NatPrograms;
use attach::{Interface, Made};
use cpus::Cpus;
use error::{chain, refused};
use log::logger;
use outer::Inner;
use pins::{MAPS, check_layout, forget_other_layouts, make_pin_dir};

/// The programs, as `build.rs` made them; empty with `GATEWAY_EBPF_SKIP=1`.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gateway-ebpf"));

/// How to load the programs.
#[derive(Clone, Debug)]
pub struct DataPathConfig {
    /// The directory for maps and links; made if it is not there. It is on a bpffs.
    pub pin_dir: PathBuf,
    /// The index of the XFRM interface; 0 if there is none, which drops what it should protect.
    pub xfrm_ifindex: u32,
    /// Its MTU, in octets.
    pub xfrm_mtu: u32,
    /// The mark of what the daemon's sockets and our outbound SAs send; 0 for none.
    pub own_mark: u32,
    /// Whether inbound SAs are spread over the CPUs.
    pub steer_cpus: bool,
    /// How much room the maps have that grow by what peers do.
    pub room: Room,
    /// What the programs log.
    pub log: LogLevel,
}

/// What the programs log. A program that does not log pays nothing for it: the kernel removes the
/// code when it loads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing.
    #[default]
    Off,
    /// Each packet that is counted.
    Trace,
}

/// What an SA is for the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SaDirection {
    /// The peer sends with it.
    Inbound {
        /// Whether XDP takes the UDP header off; the kernel's SA then has no encapsulation.
        strip: bool,
        /// From where: at first from where the peer is expected to send, then from where it was
        /// last seen to. The port is that of ESP in UDP, or 0.
        from: SocketAddr,
    },
    /// We send with it: its packets leave as they are.
    Outbound,
    /// It is not there yet: the peer may send with it as soon as it has agreed.
    Awaited,
}

/// An SA in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sa {
    /// The outer destination.
    pub destination: IpAddr,
    /// The SPI.
    pub spi: u32,
    /// What it is.
    pub direction: SaDirection,
}

/// How many packets were handled in one way, over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The way.
    pub reason: Reason,
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub octets: u64,
}

/// The loaded programs and their maps.
pub struct DataPath {
    ebpf: Ebpf,
    links: PathBuf,
    sas: HashMap<MapData, SaKey, SaValue>,
    cpus: Cpus,
    elsewhere: HashMap<MapData, SaKey, Address>,
    generation: ArrayOfMaps<MapData, Inner>,
    counters: PerCpuArray<MapData, Count>,
    rule_counters: PerCpuHashMap<MapData, u32, RuleCount>,
    mtus: LpmTrie<MapData, Address, u32>,
    local: HashMap<MapData, Address, u32>,
    ike: HashMap<MapData, u32, IkeProtection>,
    no_answer: HashMap<MapData, u32, u32>,
    unknown_esp: Array<MapData, u64>,
    log: Option<BpfLog>,
    /// How it was loaded.
    config: DataPathConfig,
    /// What was attached where nothing of ours was before.
    made: Vec<Made>,
}

impl DataPath {
    /// Loads the programs, with the maps that an earlier run pinned if there are any. Attaches
    /// nothing.
    ///
    /// # Errors
    /// Something that this needs is missing, or the kernel refuses a program: the text says what
    /// to do. Nothing is attached or changed then.
    pub fn load(config: &DataPathConfig) -> Result<Self, BpfError> {
        if OBJECT.is_empty() {
            return Err(BpfError::NotBuilt);
        }
        check_capabilities()?;
        let links = make_pin_dir(&config.pin_dir)?;
        forget_other_layouts(&config.pin_dir)?;
        room::make_in(&config.pin_dir, config.room)?;
        outer::create(&config.pin_dir.join(map::GENERATION))?;
        let mut loader = EbpfLoader::new();
        for (name, _, _) in MAPS {
            loader.map_pin_path(name, config.pin_dir.join(name));
        }
        let level: u8 = match config.log {
            LogLevel::Off => 0,
            LogLevel::Trace => aya_log::Level::Trace.into(),
        };
        let possible = u32::try_from(possible_cpus()?).unwrap_or(u32::MAX);
        loader
            .map_max_entries(map::CPUS, possible)
            .map_max_entries(map::SAS, config.room.sas)
            .map_max_entries(map::ELSEWHERE, config.room.sas)
            .map_max_entries(map::MTUS, config.room.mtus)
            .override_global(global::XFRM_INTERFACE, &config.xfrm_ifindex, true)
            .override_global(global::XFRM_MTU, &config.xfrm_mtu, true)
            .override_global(global::OWN_MARK, &config.own_mark, true)
            .override_global(aya_log::LEVEL, &level, false);
        let mut ebpf = loader
            .load(OBJECT)
            .map_err(|error| BpfError::kernel("the BPF maps cannot be created", &error))?;
        check_layout(&config.pin_dir)?;
        let log = match config.log {
            LogLevel::Off => None,
            LogLevel::Trace => Some(logger(&mut ebpf)?),
        };
        let mut data_path = Self {
            links,
            sas: typed(&mut ebpf, map::SAS)?,
            cpus: cpus(&mut ebpf, config.steer_cpus)?,
            elsewhere: typed(&mut ebpf, map::ELSEWHERE)?,
            generation: typed(&mut ebpf, map::GENERATION)?,
            counters: typed(&mut ebpf, map::COUNTERS)?,
            rule_counters: typed(&mut ebpf, map::RULE_COUNTERS)?,
            mtus: typed(&mut ebpf, map::MTUS)?,
            local: typed(&mut ebpf, map::LOCAL)?,
            ike: typed(&mut ebpf, map::IKE)?,
            no_answer: typed(&mut ebpf, map::NO_ANSWER)?,
            unknown_esp: typed(&mut ebpf, map::UNKNOWN_ESP)?,
            log,
            ebpf,
            config: config.clone(),
            made: Vec::new(),
        };
        // Those that every underlay needs, so that a refusal is seen before anything changes.
        data_path.xdp(program::NATT_INGRESS)?;
        data_path.classifier(program::STEER_EGRESS)?;
        data_path.classifier(program::GUARD_INGRESS)?;
        Ok(data_path)
    }

    /// Attaches the programs to an underlay, in the place of those of an earlier run. The maps
    /// are to be filled before.
    ///
    /// # Errors
    /// There is no such interface, or a program cannot be attached. Those that already are stay.
    pub fn attach(&mut self, interface: &str) -> Result<Attached, BpfError> {
        let interface = Interface::find(interface)?;
        let tc = self.attach_tc(&interface)?;
        let xdp = if interface.ethernet {
            let links = self.links.clone();
            // First that it cannot answer, then whether it can.
            self.set_answering(interface.index, false)?;
            let (xdp, made) = attach::xdp(self.xdp(program::NATT_INGRESS)?, &interface, &links)?;
            self.set_answering(interface.index, attach::can_answer(&interface.name, xdp))?;
            self.made.extend(made);
            xdp
        } else {
            XdpMode::None
        };
        Ok(Attached { xdp, tc })
    }

    /// Attaches what guards, and not the XDP program: that one is for SAs, and a driver that has
    /// one may refuse what the network's configuration is still to change, such as a large MTU.
    ///
    /// # Errors
    /// As [`DataPath::attach`].
    pub fn guard(&mut self, interface: &str) -> Result<TcMode, BpfError> {
        self.attach_tc(&Interface::find(interface)?)
    }

    fn attach_tc(&mut self, interface: &Interface) -> Result<TcMode, BpfError> {
        let links = self.links.clone();
        let (steer, guard) = if interface.ethernet {
            (program::STEER_EGRESS, program::GUARD_INGRESS)
        } else {
            (program::STEER_EGRESS_L3, program::GUARD_INGRESS_L3)
        };
        // The way out first: a leak is worse than a clear packet taken in.
        let egress = TcAttachType::Egress;
        let (tc, made) = attach::tc(self.classifier(steer)?, steer, egress, interface, &links)?;
        self.made.extend(made);
        let ingress = TcAttachType::Ingress;
        let (_, made) = attach::tc(self.classifier(guard)?, guard, ingress, interface, &links)?;
        self.made.extend(made);
        Ok(tc)
    }

    /// Detaches what an earlier run, or `gateway guard`, has attached to any other interface than
    /// these.
    ///
    /// # Errors
    /// The interfaces cannot be listed, or a pin cannot be removed.
    pub fn let_go_of_others(&self, underlays: &[String]) -> Result<(), BpfError> {
        attach::detach_others(underlays, &self.links)
    }

    /// Detaches what this value attached, for a start that failed. Programs of an earlier run that
    /// it has replaced stay: they were guarding before.
    pub fn take_back(&mut self) {
        for made in std::mem::take(&mut self.made).into_iter().rev() {
            if let Err(error) = made.take_back() {
                warn!(%error, "Cannot detach a BPF program again");
            }
        }
    }

    /// Forgets what is pinned of an interface that is gone.
    ///
    /// # Errors
    /// A pin cannot be removed.
    pub fn forget(&mut self, index: u32) -> Result<(), BpfError> {
        self.set_answering(index, true)?;
        attach::forget(index, &self.links)
    }

    /// Has the programs steer into another XFRM interface, of this index and MTU: loads them anew,
    /// in the place of the old ones on these underlays. Rules, SAs and counters stay. What the new ones log is to be
    /// taken again.
    ///
    /// # Errors
    /// As [`DataPath::load`] and [`DataPath::attach`]. The old programs then stay where the new
    /// ones are not yet attached.
    pub fn steer_into(
        &mut self,
        (xfrm_ifindex, xfrm_mtu): (u32, u32),
        underlays: &[&str],
    ) -> Result<(), BpfError> {
        let config = DataPathConfig { xfrm_ifindex, xfrm_mtu, ..self.config.clone() };
        let mut new = Self::load(&config)?;
        for underlay in underlays {
            new.attach(underlay)?;
        }
        std::mem::swap(&mut new.cpus, &mut self.cpus);
        *self = new;
        Ok(())
    }

    /// Puts a whole new generation of rules in force, in one step: no packet sees half of it, and
    /// when this returns none is still under the old one. A counter of a rule that is gone and that
    /// cannot be removed is only logged.
    ///
    /// # Errors
    /// A rule cannot be expressed, or the kernel refuses memory. The old rules then stay.
    pub fn classify(&mut self, rules: &[ClassRule]) -> Result<(), BpfError> {
        let generation = Generation::new(rules)?;
        let failed = |what| move |error: MapError| BpfError::kernel(what, &error);
        let no_rule = failed("a rule cannot be written");
        let no_counter = failed("a rule's counter cannot be written");
        let room = generation.entries().len().saturating_add(2);
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let mut new = outer::inner(room).map_err(no_rule)?;
        for (key, list) in generation.lists() {
            new.insert(key, as_entry(list), 0).map_err(no_rule)?;
        }
        for (key, entry) in generation.entries() {
            new.insert(key, entry, 0).map_err(no_rule)?;
        }
        let wanted: BTreeSet<u32> = rules.iter().map(|rule| rule.id).collect();
        let known: BTreeSet<u32> = self.rule_counters.keys().flatten().collect();
        for rule in wanted.difference(&known) {
            let zero = vec![RuleCount::default(); possible_cpus()?];
            let zero = PerCpuValues::try_from(zero)
                .map_err(|error| BpfError::kernel("the counters cannot be written", &error))?;
            self.rule_counters.insert(rule, zero, 0).map_err(no_counter)?;
        }
        // The kernel waits here until no program runs that has seen the old map
        // (kernel/bpf/syscall.c, maybe_wait_bpf_programs).
        self.generation.set(0, &new, 0).map_err(failed("the rules cannot be put in force"))?;
        let removed = known.difference(&wanted).map(|rule| self.rule_counters.remove(rule));
        let failed: Vec<MapError> =
            removed.filter_map(Result::err).filter(|error| !is_absent(error)).collect();
        if let Some(error) = failed.first() {
            let (count, error) = (failed.len(), chain(error));
            warn!(count, error, "Counters of rules that are gone cannot be removed");
        }
        Ok(())
    }

    /// What was decided about packets since the maps were made, one entry for each reason.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Vec<Counter>, BpfError> {
        Reason::ALL
            .iter()
            .map(|reason| {
                let values = self
                    .counters
                    .get(&reason.index(), 0)
                    .map_err(|error| BpfError::kernel("the counters cannot be read", &error))?;
                let Count { packets, octets } = sum(values.iter().copied());
                Ok(Counter { reason: *reason, packets, octets })
            })
            .collect()
    }

    /// What each rule did since it has been in force without a break, in the order of their
    /// identifiers.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn rule_counters(&self) -> Result<Vec<(u32, RuleCount)>, BpfError> {
        let mut counters = self
            .rule_counters
            .iter()
            .map(|found| {
                found.map(|(rule, values)| {
                    let outbound = sum(values.iter().map(|count| count.outbound));
                    let refused = sum(values.iter().map(|count| count.refused));
                    (rule, RuleCount { outbound, refused })
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| BpfError::kernel("the rules' counters cannot be read", &error))?;
        counters.sort_unstable_by_key(|(rule, _)| *rule);
        Ok(counters)
    }

    /// Over how many CPUs inbound SAs are spread.
    ///
    /// # Errors
    /// Why they are not.
    pub fn steering(&self) -> Result<usize, NotSteered> {
        self.cpus.count()
    }

    /// What the programs log; none with [`LogLevel::Off`], or if it was taken before.
    pub fn take_log(&mut self) -> Option<BpfLog> {
        self.log.take()
    }

    /// The XDP program with this name, loaded; for test-runs.
    ///
    /// # Errors
    /// There is none, or the kernel refuses it.
    pub fn xdp(&mut self, name: &'static str) -> Result<&mut Xdp, BpfError> {
        let xdp: &mut Xdp = self.program(name)?.try_into().map_err(not_in(name))?;
        if xdp.fd().is_err() {
            xdp.load().map_err(refused(name))?;
        }
        Ok(xdp)
    }

    /// The TC program with this name, loaded; for test-runs.
    ///
    /// # Errors
    /// There is none, or the kernel refuses it.
    pub fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, BpfError> {
        let classifier: &mut SchedClassifier =
            self.program(name)?.try_into().map_err(not_in(name))?;
        if classifier.fd().is_err() {
            classifier.load().map_err(refused(name))?;
        }
        Ok(classifier)
    }

    /// What the exemption from NAT asks about packets.
    ///
    /// # Errors
    /// The kernel refuses a program.
    pub fn nat_programs(&mut self) -> Result<NatPrograms<'_>, BpfError> {
        for name in [program::KEEP_SOURCE, program::DROP_TRANSLATED, program::DROP_DESTINED] {
            let filter: &mut SocketFilter = self.program(name)?.try_into().map_err(not_in(name))?;
            if filter.fd().is_err() {
                filter.load().map_err(refused(name))?;
            }
        }
        Ok(NatPrograms {
            keep_source: self.loaded(program::KEEP_SOURCE)?,
            drop_translated: self.loaded(program::DROP_TRANSLATED)?,
            drop_destined: self.loaded(program::DROP_DESTINED)?,
        })
    }

    fn loaded(&self, name: &'static str) -> Result<BorrowedFd<'_>, BpfError> {
        let program = self.ebpf.program(name).ok_or(BpfError::NotInObject(name))?;
        Ok(program.fd().map_err(refused(name))?.as_fd())
    }

    fn program(&mut self, name: &'static str) -> Result<&mut Program, BpfError> {
        self.ebpf.program_mut(name).ok_or(BpfError::NotInObject(name))
    }
}

/// Loading needs these; the kernel's own answer would be a bare EPERM. `CAP_SYS_ADMIN` was the one
/// for BPF before 5.8 and still stands for the newer two.
fn check_capabilities() -> Result<(), BpfError> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let admin = has(Capability::CAP_SYS_ADMIN);
    let missing: Vec<&'static str> = [
        ("CAP_BPF", admin || has(Capability::CAP_BPF)),
        ("CAP_PERFMON", admin || has(Capability::CAP_PERFMON)),
        ("CAP_NET_ADMIN", has(Capability::CAP_NET_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, there)| (!there).then_some(name))
    .collect();
    if missing.is_empty() { Ok(()) } else { Err(BpfError::MissingCapability(missing)) }
}

fn typed<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, BpfError> {
    let map = ebpf.take_map(name).ok_or(BpfError::NotInObject(name))?;
    T::try_from(map).map_err(|error| BpfError::kernel("a map has another type", &error))
}

/// The map stays where it is: no more is done to it, and the programs are still to be loaded.
fn cpus(ebpf: &mut Ebpf, wanted: bool) -> Result<Cpus, BpfError> {
    let map = ebpf.map_mut(map::CPUS).ok_or(BpfError::NotInObject(map::CPUS))?;
    let mut map = CpuMap::try_from(map)
        .map_err(|error| BpfError::kernel("a map has another type", &error))?;
    Ok(Cpus::set_up(&mut map, wanted))
}

fn not_in(name: &'static str) -> impl Fn(ProgramError) -> BpfError {
    move |_other_type| BpfError::NotInObject(name)
}

fn possible_cpus() -> Result<usize, BpfError> {
    aya::util::nr_cpus()
        .map_err(|(_, error)| BpfError::kernel("the CPUs cannot be counted", &error))
}

fn is_absent(error: &MapError) -> bool {
    let not_found = |error: &SyscallError| error.io_error.kind() == std::io::ErrorKind::NotFound;
    matches!(error, MapError::KeyNotFound | MapError::ElementNotFound)
        || matches!(error, MapError::SyscallError(error) if not_found(error))
}

fn sum(counts: impl Iterator<Item = Count>) -> Count {
    counts.fold(Count::default(), |sum, count| Count {
        packets: sum.packets.wrapping_add(count.packets),
        octets: sum.octets.wrapping_add(count.octets),
    })
}

/// The list of tuples as the value of a map of entries.
fn as_entry(list: &Tuples) -> Entry {
    // SAFETY: both are numbers only, of one size (asserted beside them), and any octets are good.
    unsafe { std::mem::transmute_copy(list) }
}
