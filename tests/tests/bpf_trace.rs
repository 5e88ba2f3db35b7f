//! What the programs tell of their decisions, by test-run: who asks for what, and what he is told.
#![expect(clippy::unwrap_used, clippy::unwrap_in_result, reason = "This is test code.")]
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "support/bpf.rs"]
mod bpf;

use core::time::Duration;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use aya::maps::{Array, MapData};
use bpf::{isolated, rule, through_tc, through_xdp};
use gateway::kernel::bpf::{BpfError, DataPath, Decided, Sa, SaDirection, Tracer, Wish};
use gateway_common::{Action, Hook, Reason, TraceKey, Verdict, program};
use gateway_tests::packet::{ESP, Ip, UDP, esp, ethernet, udp};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Of an SA that comes in, in UDP.
const SPI: u32 = 0xc123_4567;
/// Of one that goes out.
const OUTBOUND_SPI: u32 = 0xc123_4569;
const SITE: u32 = 11;
const DENIED: u32 = 12;

fn wish() -> Wish {
    Wish { reasons: Reason::ALL.to_vec(), passed: false, selected: None, rate: 1000, octets: 192 }
}

/// One that traces the programs that are pinned below a bpffs.
struct Ear {
    runtime: Runtime,
    tracer: Tracer,
}

impl Ear {
    fn open(bpffs: &Path) -> Result<Self, BpfError> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let tracer = runtime.block_on(async { Tracer::open(&bpffs.join("gateway")) })?;
        Ok(Self { runtime, tracer })
    }

    fn wish(&mut self, wish: &Wish) {
        self.tracer.wish(wish).unwrap();
    }

    /// All that has been told.
    fn all(&mut self) -> Vec<Decided> {
        let mut all = Vec::new();
        let wait = Duration::from_millis(50);
        self.runtime.block_on(async {
            while let Ok(decided) = timeout(wait, self.tracer.next()).await {
                all.push(decided.unwrap());
            }
        });
        all
    }
}

fn with_ear(test: impl FnOnce(&mut DataPath, &mut Ear) + Send) {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        data_path
            .classify(&[
                rule(SITE, "10.1.0.0/16", "10.2.0.0/16", Action::Protect),
                rule(DENIED, "10.1.0.0/16", "10.3.0.0/16", Action::Discard),
            ])
            .unwrap();
        let from = "192.0.2.2:31000".parse().unwrap();
        for (destination, spi, direction) in [
            ("192.0.2.1", SPI, SaDirection::Inbound { strip: true, from }),
            ("192.0.2.2", OUTBOUND_SPI, SaDirection::Outbound),
        ] {
            let destination = destination.parse().unwrap();
            data_path.insert_sa(&Sa { destination, spi, direction }).unwrap();
        }
        let mut ear = Ear::open(bpffs).unwrap();
        test(&mut data_path, &mut ear);
    });
}

fn to_site(octets: usize) -> Vec<u8> {
    ethernet(&Ip::new("10.1.0.9", "10.2.0.9", UDP).packet(&udp(5000, 53, &vec![0x5a; octets])))
}

fn to_denied() -> Vec<u8> {
    ethernet(&Ip::new("10.1.0.9", "10.3.0.9", UDP).packet(&udp(5000, 53, &[1; 8])))
}

fn esp_in_udp() -> Vec<u8> {
    let datagram = udp(31_000, 4500, &esp(SPI, 40));
    ethernet(&Ip::new("192.0.2.2", "192.0.2.1", UDP).packet(&datagram))
}

fn own_esp() -> Vec<u8> {
    ethernet(&Ip::new("192.0.2.1", "192.0.2.2", ESP).packet(&esp(OUTBOUND_SPI, 40)))
}

/// One packet of each kind.
fn one_of_each(data_path: &mut DataPath) {
    through_tc(data_path, program::STEER_EGRESS, &to_site(8), 0);
    through_tc(data_path, program::STEER_EGRESS, &to_denied(), 0);
    through_tc(data_path, program::STEER_EGRESS, &own_esp(), 0);
    through_xdp(data_path, &esp_in_udp());
}

fn reasons(decided: &[Decided]) -> Vec<Option<Reason>> {
    decided.iter().map(|decided| decided.reason).collect()
}

#[test]
fn nobody_is_told_what_he_has_not_asked_for() {
    with_ear(|data_path, ear| {
        one_of_each(data_path);
        assert_eq!(ear.all(), []);
        ear.wish(&wish());
        one_of_each(data_path);
        let told = reasons(&ear.all());
        assert_eq!(told, [Reason::Protected, Reason::DiscardedOut, Reason::Stripped].map(Some));

        ear.wish(&Wish { reasons: vec![Reason::DiscardedOut], ..wish() });
        one_of_each(data_path);
        assert_eq!(reasons(&ear.all()), [Some(Reason::DiscardedOut)]);
        ear.wish(&Wish { passed: true, reasons: vec![Reason::Stripped], ..wish() });
        one_of_each(data_path);
        assert_eq!(reasons(&ear.all()), [None, Some(Reason::Stripped)]);
    });
}

#[test]
fn a_selection_is_of_rules_and_spis() {
    with_ear(|data_path, ear| {
        let rule = |value| TraceKey { kind: TraceKey::RULE, value };
        let spi = |spi: u32| TraceKey { kind: TraceKey::SPI, value: spi.to_be() };
        let mut told = |keys: &[TraceKey]| {
            let selected = Some(keys.iter().copied().collect());
            ear.wish(&Wish { selected, passed: true, ..wish() });
            one_of_each(data_path);
            reasons(&ear.all())
        };
        assert_eq!(told(&[rule(SITE)]), [Some(Reason::Protected)]);
        assert_eq!(told(&[rule(DENIED)]), [Some(Reason::DiscardedOut)]);
        assert_eq!(told(&[spi(SPI)]), [Some(Reason::Stripped)]);
        assert_eq!(told(&[spi(OUTBOUND_SPI)]), [None]);
        let both = [rule(SITE), spi(SPI)];
        assert_eq!(told(&both), [Reason::Protected, Reason::Stripped].map(Some));
        // Neither a rule with an SPI's number, nor the reverse, nor nothing.
        let crossed = [rule(SPI.to_be()), spi(SITE.to_be()), rule(999)];
        assert_eq!(told(&crossed), []);
        assert_eq!(told(&[]), []);
    });
}

#[test]
fn a_decision_is_told_whole() {
    with_ear(|data_path, ear| {
        ear.wish(&Wish { passed: true, ..wish() });
        one_of_each(data_path);
        let told = ear.all();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        for decided in &told {
            assert!(now.abs_diff(decided.at) < Duration::from_secs(5), "{decided:?}");
            assert!(decided.ethernet && decided.cpu < 1024 && decided.interface > 0, "{decided:?}");
        }
        let [site, denied, own, stripped] = &told[..] else { panic!("{told:?}") };
        assert_eq!((site.hook, site.rule, site.spi), (Hook::Egress, Some(SITE), None));
        assert_eq!(site.packet, to_site(8));
        assert_eq!((denied.verdict(), denied.rule), (Verdict::Drop, Some(DENIED)));
        assert_eq!((own.verdict(), own.spi), (Verdict::Pass, Some(OUTBOUND_SPI)));
        assert_eq!((stripped.hook, stripped.spi), (Hook::Xdp, Some(SPI)));
        // As it goes on: without the UDP header.
        let bare = ethernet(&Ip::new("192.0.2.2", "192.0.2.1", ESP).packet(&esp(SPI, 40)));
        assert_eq!(stripped.packet, bare);
        assert_eq!(usize::try_from(stripped.length), Ok(bare.len()));
    });
}

/// Chunks of 16 octets and what is left, at both kinds of hook.
#[test]
fn as_much_of_a_packet_is_told_as_is_wished_and_there() {
    with_ear(|data_path, ear| {
        for octets in [16, 192, 2048] {
            ear.wish(&Wish { octets, rate: 100_000, ..wish() });
            let limit = usize::try_from(octets).unwrap();
            let sizes = [0, 1, 2, 15, 16, 17, 150, 1400, 2006, 2007, 3000];
            for size in sizes {
                let packet = to_site(size);
                through_tc(data_path, program::STEER_EGRESS, &packet, 0);
                let told = ear.all();
                assert_eq!(told.len(), 1, "{octets} {size}");
                let expected = &packet[..packet.len().min(limit)];
                assert_eq!(told[0].packet, expected, "{octets} {size}");
                assert_eq!(usize::try_from(told[0].length), Ok(packet.len()));
            }
            for size in [0, 3, 9, 14, 1400, 3000] {
                let datagram = udp(31_000, 4500, &esp(SPI + 1, size));
                let packet = ethernet(&Ip::new("192.0.2.2", "192.0.2.1", UDP).packet(&datagram));
                through_xdp(data_path, &packet);
                let told = ear.all();
                assert_eq!(told.len(), 1, "{octets} {size}");
                assert_eq!(told[0].packet, packet[..packet.len().min(limit)], "{octets} {size}");
            }
        }
    });
}

#[test]
fn more_than_the_rate_is_counted_and_not_told() {
    with_ear(|data_path, ear| {
        ear.wish(&Wish { rate: 3, ..wish() });
        let begin = Instant::now();
        for _ in 0..50 {
            through_tc(data_path, program::STEER_EGRESS, &to_denied(), 0);
        }
        // 3 for each CPU that a run was on and each window of about a second.
        let windows = begin.elapsed().as_secs() + 2;
        let told = u64::try_from(ear.all().len()).unwrap();
        let cpus = u64::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
        assert!((3..=3 * windows * cpus).contains(&told), "{told}");
        let (over_rate, full) = ear.tracer.untold().unwrap();
        assert_eq!((over_rate, full), (50 - told, 0));
    });
}

#[test]
fn what_nobody_reads_is_counted_and_costs_no_packet() {
    with_ear(|data_path, ear| {
        ear.wish(&Wish { rate: u32::MAX, ..wish() });
        // More than the ring holds.
        for _ in 0..600 {
            let outcome = through_tc(data_path, program::STEER_EGRESS, &to_denied(), 0);
            assert_eq!(outcome.counted, [(Reason::DiscardedOut, 1)]);
            ear.wish(&Wish { rate: u32::MAX, ..wish() });
        }
        let told = u64::try_from(ear.all().len()).unwrap();
        let (over_rate, full) = ear.tracer.untold().unwrap();
        assert!(full > 0 && over_rate == 0 && told + full == 600, "{told} told, {full} not");
        through_tc(data_path, program::STEER_EGRESS, &to_denied(), 0);
        assert_eq!(ear.all().len(), 1, "there is room again");
    });
}

#[test]
fn one_at_a_time_traces_and_it_ends_with_him() {
    isolated(|bpffs| {
        let nothing = Ear::open(bpffs).err().unwrap().to_string();
        assert!(nothing.contains("no programs that can be traced are pinned"), "{nothing}");
        let mut data_path = bpf::load(&bpf::config(bpffs));
        data_path.classify(&[rule(DENIED, "10.1.0.0/16", "10.3.0.0/16", Action::Discard)]).unwrap();
        let mut send = || through_tc(&mut data_path, program::STEER_EGRESS, &to_denied(), 0);
        let mut first = Ear::open(bpffs).unwrap();
        assert!(matches!(Ear::open(bpffs), Err(BpfError::Traced(_))));
        first.wish(&wish());
        send();
        drop(first);
        send();
        let mut second = Ear::open(bpffs).unwrap();
        assert_eq!(second.all(), [], "neither what was left nor what came since");
        // One who is killed takes nothing back: what he wished for ends by itself.
        second.wish(&wish());
        std::thread::sleep(Duration::from_millis(3500));
        send();
        assert_eq!(second.all(), []);
        second.wish(&wish());
        send();
        assert_eq!(second.all().len(), 1);
    });
}

/// Their numbers may mean other reasons.
#[test]
fn programs_of_another_build_are_not_traced() {
    isolated(|bpffs| {
        let config = bpf::config(bpffs);
        let _data_path = bpf::load(&config);
        drop(Ear::open(bpffs).unwrap());
        let path = config.pin_dir.join(gateway_common::map::COUNTERS);
        std::fs::remove_file(&path).unwrap();
        let fewer = u32::try_from(Reason::COUNT).unwrap() - 1;
        let other: Array<MapData, [u64; 2]> = Array::create(fewer, 0).unwrap();
        other.pin(&path).unwrap();
        assert!(matches!(Ear::open(bpffs), Err(BpfError::NothingToTrace(_))));
    });
}
