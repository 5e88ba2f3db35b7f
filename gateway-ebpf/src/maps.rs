//! Every map and setting of the programs. The loader pins the maps under their names, so a new
//! program finds what an earlier one left.

use core::ptr::NonNull;

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, CpuMap, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf,
};
use aya_ebpf::macros::btf_map;
use gateway_common::{
    Address, Count, Entry, EspSeen, Family, Flow, IkeProtection, Match, Reason, Requester,
    RuleCount, RuleKey, Rules, SaKey, SaValue, Source, TraceCount, TraceKey, TraceSettings, Tuples,
    load, room, unknown,
};

/// Memory is taken entry by entry, and what a program holds is freed only after it has ended.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

use crate::trace::Traced;

/// The rules of one generation; never changed once the outer slot names it. The loader makes each
/// as large as it needs.
pub type Generation = HashMap<RuleKey, Entry, 1, ON_DEMAND>;

/// The SAs that the programs know.
#[btf_map]
pub static SAS: HashMap<SaKey, SaValue, { room::SAS }, ON_DEMAND> = HashMap::new();

/// Where the kernel has an SA that is reached at another address of ours too.
#[btf_map]
pub static ELSEWHERE: HashMap<SaKey, Address, { room::SAS }, ON_DEMAND> = HashMap::new();

/// The CPUs that take packets of SAs. The loader makes room for every CPU that there may be.
#[btf_map]
pub static CPUS: CpuMap<1> = CpuMap::new();

/// Octets of what the daemon has been told of ESP, and has not read: some thousand events.
const SOURCE_RING: usize = 65_536;

/// What the daemon is told of where ESP comes from, and of ESP without an SA.
#[btf_map]
pub static SOURCE_CHANGES: RingBuf<EspSeen, SOURCE_RING> = RingBuf::new();

/// Whether ESP without an SA is dropped, and how often it was told of.
#[btf_map]
pub static UNKNOWN_ESP: Array<u64, { unknown::COUNT }> = Array::new();

/// To whom IKE or ESP has gone from here that is not the gateway's. Who was forgotten is noted again
/// with the next packet.
#[btf_map]
pub static OTHERS_PEERS: LruHashMap<Address, u32, 16_384> = LruHashMap::new();

/// The slot that holds the generation in force; empty before the first.
#[btf_map]
pub static GENERATION: ArrayOfMaps<Generation, 1> = ArrayOfMaps::new();

/// What was decided about packets.
#[btf_map]
pub static COUNTERS: PerCpuArray<Count, { Reason::COUNT }> = PerCpuArray::new();

/// What each rule did. The loader makes an entry for each rule of a generation.
#[btf_map]
pub static RULE_COUNTERS: PerCpuHashMap<u32, RuleCount, 131_072, ON_DEMAND> = PerCpuHashMap::new();

/// How large a packet may be before encryption, by its destination, in octets.
#[btf_map]
pub static MTUS: LpmTrie<Address, u32, { room::MTUS }> = LpmTrie::new();

/// What is to be traced.
#[btf_map]
pub static TRACE_SETTINGS: Array<TraceSettings, 1> = Array::new();

/// Which rules and SAs, if not all.
#[btf_map]
pub static TRACE_WANTED: HashMap<TraceKey, u8, 65_536, ON_DEMAND> = HashMap::new();

/// How much of it there was.
#[btf_map]
pub static TRACE_COUNTS: PerCpuArray<TraceCount, 1> = PerCpuArray::new();

/// What is told: an event and the packet.
#[btf_map]
pub static TRACE_EVENTS: RingBuf<Traced, { 1 << 20 }> = RingBuf::new();
/// Our own addresses, each with the index of its interface: of a host with a few thousand containers
/// or services, too.
#[btf_map]
pub static LOCAL: HashMap<Address, u32, 65_536, ON_DEMAND> = HashMap::new();

/// How IKE is protected. An entry of a hash map is replaced whole: no packet sees half of a new one.
#[btf_map]
pub static IKE: HashMap<u32, IkeProtection, 1, ON_DEMAND> = HashMap::new();

/// How much IKE comes.
#[btf_map]
pub static IKE_LOAD: Array<u64, { load::COUNT }> = Array::new();

/// Who asked for an IKE SA lately. Who was forgotten begins anew.
#[btf_map]
pub static REQUESTERS: LruHashMap<Requester, u64, 65_536> = LruHashMap::new();

/// The interfaces on which what XDP sends back is lost.
#[btf_map]
pub static NO_ANSWER: HashMap<u32, u32, 4096, ON_DEMAND> = HashMap::new();

/// The index of the XFRM interface; 0 while there is none.
#[unsafe(no_mangle)]
pub static XFRM_INTERFACE: Global<u32> = Global::new(0);

/// The mark of what the daemon's sockets and our outbound SAs send; 0 for none.
#[unsafe(no_mangle)]
pub static OWN_MARK: Global<u32> = Global::new(0);

/// The MTU of the XFRM interface, which is that of what has none of its own; 0 for no limit.
#[unsafe(no_mangle)]
pub static XFRM_MTU: Global<u32> = Global::new(0);

/// Both lists' keys lie ready, so that none is put together for each packet.
static TUPLES_OF_V4: RuleKey = RuleKey::tuples(Family::V4);
static TUPLES_OF_V6: RuleKey = RuleKey::tuples(Family::V6);

/// The generation in force.
pub struct Current(&'static Generation);

impl Current {
    /// What the outer slot names at this moment.
    #[inline(always)]
    #[must_use]
    pub fn get() -> Option<Self> {
        GENERATION.get(0).map(Self)
    }
}

impl Rules for Current {
    #[inline(always)]
    fn tuples(&self, family: Family) -> Option<&Tuples> {
        let key = match family {
            Family::V4 => &TUPLES_OF_V4,
            Family::V6 => &TUPLES_OF_V6,
        };
        let found = self.0.get_ptr(key)?;
        // SAFETY: the loader writes Tuples under such a key; they have the size of an Entry, whose
        // alignment is larger, and a generation is not changed while a program can reach it.
        unsafe { found.cast::<Tuples>().as_ref() }
    }

    #[inline(always)]
    fn find(&self, key: &RuleKey, flow: &Flow) -> Option<Match> {
        let found = self.0.get_ptr(key)?;
        // SAFETY: a generation is not changed while a program can reach it.
        let entry = unsafe { found.as_ref() }?;
        entry.at(first_match(entry, flow))
    }
}

/// The place of the first rule of an entry that matches a flow; beyond the last if none does.
///
/// A function with a symbol is verified by itself: its loop once, and not again for each tuple.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn first_match(entry: *const Entry, flow: *const Flow) -> u32 {
    // SAFETY: the kernel checks that all of it can be read.
    let Some(entry) = (unsafe { entry.as_ref() }) else { return u32::MAX };
    // SAFETY: as above.
    let Some(flow) = (unsafe { flow.as_ref() }) else { return u32::MAX };
    entry.first(flow).unwrap_or(u32::MAX)
}

/// An SA in the map. The map is not preallocated, and the loader puts another value in its place
/// rather than writing to it: so it outlives the program's run, and only programs change it.
///
/// It is nothing but the pointer, and is not to be put into anything that is kept: the compiler
/// might keep it in halves, and the kernel's verifier takes no pointer that was.
#[derive(Clone, Copy)]
pub struct Sa(NonNull<SaValue>);

impl Sa {
    /// What the programs may do with its packets: the constants of [`SaValue`].
    #[inline(always)]
    #[must_use]
    pub fn flags(self) -> u32 {
        // SAFETY: the map gave the pointer; one number, read at once.
        unsafe { (*self.0.as_ptr()).flags }
    }

    /// The CPU that handles its packets, as [`SaValue::cpu`].
    #[inline(always)]
    #[must_use]
    pub fn cpu(self) -> u32 {
        // SAFETY: the map gave the pointer; one number, read at once, that no program changes.
        unsafe { (*self.0.as_ptr()).cpu }
    }

    /// Whether the peer was last seen to send from there. While another CPU writes it this may be
    /// half of it, which is another source than either: the next packet mends that.
    #[inline(always)]
    #[must_use]
    pub fn was_seen_at(self, source: Source) -> bool {
        // SAFETY: the map gave the pointer, and any content is good.
        unsafe { (*self.0.as_ptr()).seen }.is(source)
    }

    /// When the daemon was last told of that, in nanoseconds since the kernel's start; 0: never.
    #[inline(always)]
    #[must_use]
    pub fn told(self) -> u64 {
        // SAFETY: as above; one number, read at once.
        unsafe { (*self.0.as_ptr()).told }
    }

    /// Remembers from where the peer was seen to send, and when the daemon was told.
    #[inline(always)]
    pub fn remember(self, seen: Source, told: u64) {
        // SAFETY: the map gave the pointer; what two CPUs write at once is good for either.
        unsafe { (*self.0.as_ptr()).told = told };
        // SAFETY: as above.
        unsafe { (*self.0.as_ptr()).seen = seen };
    }
}

/// The SA with this key, if the programs know it.
#[inline(always)]
#[must_use]
pub fn sa(key: &SaKey) -> Option<Sa> {
    NonNull::new(SAS.get_ptr_mut(key)?).map(Sa)
}

/// How large a packet to a destination may be before encryption, in octets; 0 for no limit.
#[inline(always)]
#[must_use]
pub fn mtu(destination: Address) -> u32 {
    let key = Key::new(128, destination);
    MTUS.get(&key).copied().unwrap_or_else(|| XFRM_MTU.load())
}

/// Under which destination the kernel has an SA that the map says is elsewhere.
#[inline(always)]
#[must_use]
pub fn elsewhere(key: &SaKey) -> Option<Address> {
    let found = ELSEWHERE.get_ptr(key)?;
    // SAFETY: the map is not preallocated: the value outlives the program's run, and the loader
    // puts another in its place rather than writing to it.
    unsafe { found.as_ref() }.copied()
}

/// Whether an address is one of ours.
#[inline(always)]
#[must_use]
pub fn is_local(address: &Address) -> bool {
    LOCAL.get_ptr(address).is_some()
}

/// Whether others here have IKE or ESP with an address.
#[inline(always)]
#[must_use]
pub fn is_others_peer(address: &Address) -> bool {
    OTHERS_PEERS.get_ptr(address).is_some()
}

/// Whether an address is one of this interface.
#[inline(always)]
#[must_use]
pub fn is_of(address: &Address, interface: u32) -> bool {
    let Some(of) = LOCAL.get_ptr(address) else { return false };
    // SAFETY: the map is not preallocated: the value outlives the program's run.
    unsafe { *of == interface }
}

/// How IKE is protected, if it is.
#[inline(always)]
#[must_use]
pub fn ike() -> Option<&'static IkeProtection> {
    let found = IKE.get_ptr(0)?;
    // SAFETY: the map is not preallocated: the value outlives the program's run, and the loader
    // puts another in its place rather than writing to it.
    unsafe { found.as_ref() }
}

/// Whether what XDP sends back from an address by an interface arrives. From that of another
/// interface it may not: a network card that takes VLAN tags off shows none to the program, and what
/// the program sends has none.
#[inline(always)]
#[must_use]
pub fn can_answer(from: &Address, interface: u32) -> bool {
    is_of(from, interface) && NO_ANSWER.get_ptr(interface).is_none()
}
