//! From where ESP of an inbound SA comes, by test-run: what the programs remember of it, and when
//! they tell the daemon.
#![expect(clippy::unwrap_used, reason = "This is test code.")]
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]

#[path = "support/bpf.rs"]
mod bpf;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::thread;

use bpf::{isolated, through_xdp};
use gateway::kernel::bpf::{DataPath, EspEvent, EspEvents, EspSource, Sa, SaDirection};
use gateway_common::Reason;
use gateway_tests::packet::{ESP, Ip, UDP, esp, tagged, udp};

const SPI: u32 = 0xc123_4567;
/// Known as one that we send with.
const OUTBOUND_SPI: u32 = 0xc123_4568;

/// The peer, where else it may be, and us.
const ENDS: [[&str; 3]; 2] =
    [["192.0.2.2", "198.51.100.9", "192.0.2.1"], ["2001:db8::2", "2001:db8:9::9", "2001:db8::1"]];

/// Longer than the programs keep quiet about one SA.
const A_SECOND: Duration = Duration::from_millis(1_010);

/// Loads the programs with an SA from the peer, in UDP from port 4500 or bare.
fn with_sa(test: impl Fn(&mut DataPath, [&str; 3], u16) + Sync) {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        for ends in ENDS {
            for port in [4500, 0] {
                let [peer, _, us] = ends;
                let destination = us.parse().unwrap();
                let direction = SaDirection::Inbound { strip: true, from: at(peer, port) };
                data_path.insert_sa(&Sa { destination, spi: SPI, direction }).unwrap();
                let direction = SaDirection::Outbound;
                data_path.insert_sa(&Sa { destination, spi: OUTBOUND_SPI, direction }).unwrap();
                test(&mut data_path, ends, port);
            }
        }
    });
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// A packet of an SA from somewhere; gives what it was counted as beside its own reason.
fn send(data_path: &mut DataPath, from: SocketAddr, to: &str, spi: u32) -> Option<Reason> {
    let (source, esp) = (from.ip().to_string(), esp(spi, 40));
    let packet = if from.port() == 0 {
        Ip::new(&source, to, ESP).packet(&esp)
    } else {
        Ip::new(&source, to, UDP).packet(&udp(from.port(), 4500, &esp))
    };
    let own = [Reason::Stripped, Reason::KernelDecapsulates, Reason::UnknownSpi];
    let counted = through_xdp(data_path, &tagged(&[0x8100], &packet)).counted;
    counted.into_iter().map(|(reason, _)| reason).find(|reason| !own.contains(reason))
}

/// All that the daemon has been told since it has last looked.
fn told(data_path: &DataPath) -> Vec<EspSource> {
    moves(&mut data_path.esp_events().unwrap())
}

fn moves(events: &mut EspEvents) -> Vec<EspSource> {
    let moved = |event| match event {
        EspEvent::Moved(seen) => Some(seen),
        EspEvent::Unknown(_) => None,
    };
    core::iter::from_fn(|| events.take()).filter_map(moved).collect()
}

/// What the programs remember of the SA.
fn remembered(data_path: &DataPath, us: &str) -> SocketAddr {
    let us: IpAddr = us.parse().unwrap();
    let mut all = data_path.sas().unwrap().into_iter();
    let sa = all.find(|sa| sa.destination == us && sa.spi == SPI).unwrap();
    let SaDirection::Inbound { from, .. } = sa.direction else {
        return at(us.to_string().as_str(), 1);
    };
    from
}

#[test]
fn a_peer_that_stays_where_it_is_is_not_told_of() {
    with_sa(|data_path, [peer, _, us], port| {
        for _ in 0..3 {
            assert_eq!(send(data_path, at(peer, port), us, SPI), None);
        }
        assert_eq!(told(data_path), []);
        assert_eq!(remembered(data_path, us), at(peer, port));
    });
}

#[test]
fn another_address_or_port_is_told_at_once_and_once() {
    with_sa(|data_path, [peer, other, us], port| {
        let (port_of_nat, destination) = (port.checked_mul(7).unwrap(), us.parse().unwrap());
        for source in [at(other, port), at(peer, port_of_nat.max(1)), at(other, 4501)] {
            let direction = SaDirection::Inbound { strip: true, from: at(peer, port) };
            data_path.insert_sa(&Sa { destination, spi: SPI, direction }).unwrap();
            assert_eq!(send(data_path, source, us, SPI), Some(Reason::SourceChanged));
            for _ in 0..3 {
                assert_eq!(send(data_path, source, us, SPI), None, "it is known");
            }
            assert_eq!(told(data_path), [EspSource { destination, spi: SPI, source }]);
            assert_eq!(remembered(data_path, us), source);
        }
    });
}

/// It is left in UDP, and a change of its source is told all the same.
#[test]
fn esp_that_the_kernel_decapsulates_is_told_of_as_any_other() {
    with_sa(|data_path, [peer, other, us], _| {
        let destination = us.parse().unwrap();
        let direction = SaDirection::Inbound { strip: false, from: at(peer, 4500) };
        data_path.insert_sa(&Sa { destination, spi: SPI, direction }).unwrap();
        let source = at(other, 31_000);
        assert_eq!(send(data_path, source, us, SPI), Some(Reason::SourceChanged));
        assert_eq!(send(data_path, source, us, SPI), None, "it is known");
        assert_eq!(told(data_path), [EspSource { destination, spi: SPI, source }]);
        assert_eq!(remembered(data_path, us), source);
    });
}

#[test]
fn who_sends_from_many_places_is_told_of_once_a_second_and_hides_nobody_longer() {
    with_sa(|data_path, [peer, other, us], port| {
        let first = at(other, 1000);
        assert_eq!(send(data_path, first, us, SPI), Some(Reason::SourceChanged));
        for port in 1001..1005 {
            let held_back = send(data_path, at(other, port), us, SPI);
            assert_eq!(held_back, Some(Reason::SourceChangeHeldBack));
        }
        // The peer is elsewhere now, in the same second.
        let true_one = at(peer, port.max(1).saturating_add(1));
        assert_eq!(send(data_path, true_one, us, SPI), Some(Reason::SourceChangeHeldBack));
        assert_eq!(remembered(data_path, us), first, "what is not told is not remembered");
        thread::sleep(A_SECOND);
        assert_eq!(send(data_path, true_one, us, SPI), Some(Reason::SourceChanged));
        let sources: Vec<_> = told(data_path).iter().map(|seen| seen.source).collect();
        assert_eq!(sources, [first, true_one]);
    });
}

#[test]
fn nobody_is_told_of_what_is_not_an_inbound_sa() {
    with_sa(|data_path, [_, other, us], port| {
        for spi in [SPI.wrapping_add(7), OUTBOUND_SPI] {
            assert_eq!(send(data_path, at(other, port), us, spi), None);
        }
        assert_eq!(told(data_path), []);
    });
}

#[test]
fn a_full_ring_is_counted_and_what_was_not_told_is_told_later() {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        let [[peer, other, us], _] = ENDS;
        let destination = us.parse().unwrap();
        let direction = SaDirection::Inbound { strip: true, from: at(peer, 4500) };
        let mut last = None;
        let mut fitting = 0_u32;
        for spi in SPI.. {
            data_path.insert_sa(&Sa { destination, spi, direction }).unwrap();
            last = send(&mut data_path, at(other, 4500), us, spi);
            if last != Some(Reason::SourceChanged) {
                break;
            }
            fitting = fitting.saturating_add(1);
        }
        assert_eq!(last, Some(Reason::SourceChangeLost));
        assert!((1_000..2_000).contains(&fitting), "{fitting} events fit");
        assert_eq!(told(&data_path).len(), usize::try_from(fitting).unwrap());
        let spi = SPI.wrapping_add(fitting);
        let told_now = send(&mut data_path, at(other, 4500), us, spi);
        assert_eq!(told_now, Some(Reason::SourceChanged));
        assert_eq!(told(&data_path).len(), 1);
    });
}

#[test]
fn programs_that_are_loaded_anew_go_on_where_the_old_ones_were() {
    isolated(|bpffs| {
        let config = bpf::config(bpffs);
        let mut old = bpf::load(&config);
        let mut events = old.esp_events().unwrap();
        let [[peer, other, us], _] = ENDS;
        let direction = SaDirection::Inbound { strip: true, from: at(peer, 4500) };
        old.insert_sa(&Sa { destination: us.parse().unwrap(), spi: SPI, direction }).unwrap();
        assert_eq!(send(&mut old, at(other, 4500), us, SPI), Some(Reason::SourceChanged));
        drop(old);
        let mut new = bpf::load(&config);
        assert_eq!(send(&mut new, at(other, 4500), us, SPI), None, "it is remembered");
        thread::sleep(A_SECOND);
        assert_eq!(send(&mut new, at(peer, 4500), us, SPI), Some(Reason::SourceChanged));
        let sources: Vec<_> = moves(&mut events).into_iter().map(|seen| seen.source).collect();
        assert_eq!(sources, [at(other, 4500), at(peer, 4500)]);
    });
}
