//! From one run to the next: what stays, what is replaced, and whose it is.

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError};
use gateway::kernel::bpf::Room;
use gateway_common::{Address, SaKey, map};
use gateway_ike::config::EndpointConfig;

use super::*;

#[test]
fn the_guard_stays_when_its_process_ends_and_goes_when_it_is_removed() {
    on_a_wire(|wire, bpffs| {
        let server = udp_socket(&wire.us, US, 7000);
        let client = udp_socket(&wire.peer, PEER, 31_000);
        let mut data_path = loaded(wire, bpffs);
        let protect = rule(1, "192.0.2.1/32", "192.0.2.2/32", Action::Protect);
        data_path.classify(std::slice::from_ref(&protect)).unwrap();
        attach(wire, &mut data_path);
        drop(data_path);
        assert!(!arrives(&client, &server, A_WHILE), "the rules are still there");

        // The next run finds maps and links.
        let mut data_path = loaded(wire, bpffs);
        assert_eq!(count(&data_path, Reason::ClearInbound), 1);
        assert!(!arrives(&client, &server, A_WHILE));
        let first = attach(wire, &mut data_path);
        assert!(!arrives(&client, &server, A_WHILE));
        assert_eq!(attach(wire, &mut data_path), first, "attaching again changes nothing");
        assert_eq!(count(&data_path, Reason::ClearInbound), 3);
        data_path.classify(&[]).unwrap();
        assert!(arrives(&client, &server, SOON));
        data_path.classify(&[protect]).unwrap();
        assert!(!arrives(&client, &server, A_WHILE));
        drop(data_path);

        let pins = bpf::config(bpffs).pin_dir;
        wire.us.enter(|| data_path::remove(&pins).unwrap()).unwrap();
        assert!(get_through(&client, &server));
        assert!(!pins.exists());
        wire.us.enter(|| data_path::remove(&pins).unwrap()).unwrap();
    });
}

#[test]
fn the_pin_directory_is_somebody_s_until_he_ends_or_lets_go() {
    isolated(|bpffs| {
        let dir = bpf::config(bpffs).pin_dir;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let take = |patience| runtime.block_on(Claim::take(&dir, patience));
        let is_claimed = |outcome: Result<(), BpfError>| matches!(outcome, Err(BpfError::Claimed(found)) if found == dir);
        let first = take(Duration::ZERO).unwrap();
        assert!(first.is_new());
        assert!(is_claimed(Claim::of_existing(&dir).map(drop)));
        assert!(is_claimed(take(Duration::from_millis(50)).map(drop)));
        assert!(is_claimed(data_path::remove(&dir)));
        // Who waits has it as soon as it is free, even if it is removed before.
        let waited = thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                runtime.unwrap().block_on(Claim::take(&dir, SOON))
            });
            std::fs::remove_dir_all(&dir).unwrap();
            drop(first);
            waiting.join().unwrap()
        });
        let second = waited.unwrap();
        assert!(second.is_new());
        assert!(is_claimed(take(Duration::ZERO).map(drop)));
        drop(second);
        assert!(take(Duration::ZERO).unwrap().is_new(), "nothing is pinned there yet");
        drop(bpf::load(&bpf::config(bpffs)));
        assert!(!take(Duration::ZERO).unwrap().is_new());
        data_path::remove(&dir).unwrap();
        assert!(!dir.exists());
        assert!(!is_claimed(Claim::of_existing(&dir).map(drop)), "it is not there");
    });
}

#[test]
fn no_packet_slips_through_while_the_programs_are_replaced() {
    on_a_wire(|wire, bpffs| {
        let server = udp_socket(&wire.us, US, 7000);
        let client = udp_socket(&wire.peer, PEER, 31_000);
        let mut data_path = loaded(wire, bpffs);
        let protect = rule(1, "192.0.2.1/32", "192.0.2.2/32", Action::Protect);
        data_path.classify(&[protect]).unwrap();
        attach(wire, &mut data_path);
        let done = AtomicBool::new(false);
        let sent = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sent = 0;
                while !done.load(Ordering::Relaxed) {
                    client.send_to(b"in the clear", server.local_addr().unwrap()).unwrap();
                    sent += 1;
                }
                sent
            });
            for _ in 0..5 {
                data_path = loaded(wire, bpffs);
                attach(wire, &mut data_path);
            }
            done.store(true, Ordering::Relaxed);
            sender.join().unwrap()
        });
        // The wire itself may lose some.
        assert!(sent > 0 && count(&data_path, Reason::ClearInbound) > 0);
        server.set_nonblocking(true).unwrap();
        assert!(server.recv(&mut [0; 64]).is_err(), "nothing arrived");
    });
}

#[test]
fn an_interface_that_was_made_anew_is_guarded_again() {
    on_a_wire(|wire, bpffs| {
        let mut data_path = loaded(wire, bpffs);
        let protect = rule(1, "192.0.2.1/32", "192.0.2.2/32", Action::Protect);
        data_path.classify(&[protect]).unwrap();
        let before = attach(wire, &mut data_path);
        wire.us.ip("link del eth0").unwrap();
        let gone = wire.us.enter(|| data_path.attach("eth0")).unwrap().unwrap_err();
        assert_eq!(gone.to_string(), "there is no interface eth0");
        wire.us.link("eth0", &wire.peer, "eth0").unwrap();
        wire.us.ip("addr add 192.0.2.1/24 dev eth0").unwrap();
        wire.peer.ip("addr add 192.0.2.2/24 dev eth0").unwrap();
        assert_eq!(attach(wire, &mut data_path), before);
        let server = udp_socket(&wire.us, US, 7000);
        let client = udp_socket(&wire.peer, PEER, 31_000);
        assert!(!arrives(&client, &server, A_WHILE));
    });
}

#[test]
fn what_is_pinned_of_an_interface_that_is_gone_can_be_forgotten() {
    on_a_wire(|wire, bpffs| {
        let mut data_path = loaded(wire, bpffs);
        attach(wire, &mut data_path);
        let index = wire.index("eth0");
        wire.us.ip("link del eth0").unwrap();
        let links = bpf::config(bpffs).pin_dir.join("links");
        let pins = &mut data_path;
        wire.us.enter(move || pins.forget(index).unwrap()).unwrap();
        assert_eq!(std::fs::read_dir(&links).unwrap().count(), 0);
        let pins = &mut data_path;
        wire.us.enter(move || pins.forget(index).unwrap()).unwrap();
        wire.us.link("eth0", &wire.peer, "eth0").unwrap();
        attach(wire, &mut data_path);
    });
}

#[test]
fn a_failed_start_takes_back_what_it_attached_and_nothing_else() {
    on_a_wire(|wire, bpffs| {
        let server = udp_socket(&wire.us, US, 7000);
        let client = udp_socket(&wire.peer, PEER, 31_000);
        let protect = rule(1, "192.0.2.1/32", "192.0.2.2/32", Action::Protect);
        let mut first = loaded(wire, bpffs);
        first.classify(std::slice::from_ref(&protect)).unwrap();
        attach(wire, &mut first);
        assert!(!arrives(&client, &server, A_WHILE));
        wire.us.enter(|| first.take_back()).unwrap();
        assert!(get_through(&client, &server));

        // What an earlier run attached stays.
        attach(wire, &mut first);
        let mut second = loaded(wire, bpffs);
        attach(wire, &mut second);
        wire.us.enter(|| second.attach("sink").unwrap()).unwrap();
        let links = bpf::config(bpffs).pin_dir.join("links");
        let pinned = std::fs::read_dir(&links).unwrap().count();
        wire.us.enter(|| second.take_back()).unwrap();
        assert_eq!(std::fs::read_dir(&links).unwrap().count() * 2, pinned);
        assert!(!arrives(&client, &server, A_WHILE));
    });
}

#[test]
fn the_programs_can_be_told_of_another_xfrm_interface_and_keep_everything_else() {
    on_a_wire(|wire, bpffs| {
        // No interface has this index.
        let mut data_path = bpf::load(&bpf::config(bpffs));
        let destination = PEER.parse().unwrap();
        let sa = Sa { destination, spi: SPI, direction: SaDirection::Outbound };
        data_path.insert_sa(&sa).unwrap();
        data_path.classify(&[rule(1, "192.0.2.1/32", "192.0.2.2/32", Action::Protect)]).unwrap();
        attach(wire, &mut data_path);
        let client = udp_socket(&wire.us, US, 31_000);
        let server = udp_socket(&wire.peer, PEER, 7000);
        let before = wire.sunk();
        assert!(!arrives(&client, &server, A_WHILE));
        assert_eq!(wire.sunk(), before);

        let sink = wire.index("sink");
        wire.us.enter(|| data_path.steer_into((sink, 1500), &["eth0"]).unwrap()).unwrap();
        assert!(!arrives(&client, &server, A_WHILE));
        assert!(wire.sunk() > before);
        assert_eq!(count(&data_path, Reason::Protected), 2);
        assert_eq!(data_path.sas().unwrap(), [sa]);
    });
}

/// How many entries a pinned map has room for, and which map it is.
fn pinned(pin_dir: &Path, name: &str) -> (u32, u32) {
    let info = MapData::from_pin(pin_dir.join(name)).unwrap().info().unwrap();
    (info.max_entries(), info.id())
}

fn with_ike_sas(bpffs: &Path, ike_sa_limit: usize) -> DataPathConfig {
    let limits = EndpointConfig { ike_sa_limit, ..EndpointConfig::default() };
    DataPathConfig { room: Room::of(&limits), ..bpf::config(bpffs) }
}

#[test]
fn maps_have_room_for_what_a_larger_limit_permits() {
    isolated(|bpffs| {
        let config = with_ike_sas(bpffs, 80_000);
        let mut data_path = bpf::load(&config);
        let room = [map::SAS, map::ELSEWHERE, map::MTUS].map(|n| pinned(&config.pin_dir, n).0);
        assert_eq!(room, [320_000, 320_000, 160_000]);
        let sa =
            |spi| Sa { destination: US.parse().unwrap(), spi, direction: SaDirection::Outbound };
        (0..320_000).for_each(|spi| data_path.insert_sa(&sa(spi)).unwrap());
        assert_eq!(
            data_path.insert_sa(&sa(320_000)).unwrap_err().to_string(),
            "an SA cannot be told to the programs: the BPF map SAS is full, it has room for 320000"
        );
    });
}

#[test]
fn maps_of_a_lower_limit_give_way_and_keep_what_is_in_them() {
    on_a_wire(|wire, bpffs| {
        let names = [map::SAS, map::ELSEWHERE, map::MTUS];
        let raw =
            (wire.us.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50)))))
                .unwrap()
                .unwrap();
        raw.set_read_timeout(Some(SOON)).unwrap();
        let _socket = udp_socket(&wire.us, US, 4500);
        let client = udp_socket(&wire.peer, PEER, 31_000);
        let is_stripped = || {
            client.send_to(&esp(SPI, 200), SocketAddr::new(US.parse().unwrap(), 4500)).unwrap();
            raw.recv(&mut [std::mem::MaybeUninit::uninit(); 1024]).is_ok()
        };
        let from = SocketAddr::new(PEER.parse().unwrap(), 31_000);
        let direction = SaDirection::Inbound { strip: true, from };
        let mut data_path = loaded(wire, bpffs);
        let us: IpAddr = US.parse().unwrap();
        data_path.insert_sa(&Sa { destination: us, spi: SPI, direction }).unwrap();
        data_path.reach_sa_at("192.0.2.9".parse().unwrap(), SPI, us, from).unwrap();
        data_path.set_mtu("10.2.0.0/16".parse().unwrap(), 1400).unwrap();
        data_path.set_mtu("2001:db8:2::/48".parse().unwrap(), 1380).unwrap();
        attach(wire, &mut data_path);
        assert!(is_stripped());
        let before = data_path.sas().unwrap();
        assert_eq!(before.len(), 2);
        drop(data_path);

        // Of a run that was stopped in the midst of it.
        let dir = bpf::config(bpffs).pin_dir;
        aya::maps::Array::<_, u32>::create(1, 0).unwrap().pin(dir.join("SAS_NEW")).unwrap();
        let small = names.map(|name| pinned(&dir, name));
        let xfrm_ifindex = wire.index("sink");
        let config = DataPathConfig { xfrm_ifindex, ..with_ike_sas(bpffs, 80_000) };
        let mut data_path = bpf::load(&config);
        let large = names.map(|name| pinned(&dir, name));
        assert_eq!(large.map(|(room, _)| room), [320_000, 320_000, 160_000]);
        assert!(small.iter().zip(&large).all(|(old, new)| old.1 != new.1), "other maps");
        assert!(!dir.join("SAS_NEW").exists());
        assert!(is_stripped(), "by the programs that are still attached, and their map");
        assert_eq!(data_path.sas().unwrap(), before);
        attach(wire, &mut data_path);
        assert!(is_stripped(), "by the new programs, and theirs");
        assert_eq!(count(&data_path, Reason::Stripped), 3);
        let elsewhere = map_of::<HashMap<_, SaKey, Address>>(&dir, map::ELSEWHERE, Map::HashMap);
        assert_eq!(elsewhere.keys().count(), 1);
        let mtus = map_of::<LpmTrie<_, Address, u32>>(&dir, map::MTUS, Map::LpmTrie);
        let mut sizes: Vec<_> = mtus.iter().map(|entry| entry.unwrap().1).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1380, 1400]);

        // A lower limit leaves them, and so does the guard's removal nothing.
        drop(data_path);
        drop(loaded(wire, bpffs));
        assert_eq!(names.map(|name| pinned(&dir, name)), large);
        wire.us.enter(|| data_path::remove(&dir).unwrap()).unwrap();
        assert!(!dir.exists());
    });
}

fn map_of<T>(pin_dir: &Path, name: &str, kind: impl Fn(MapData) -> Map) -> T
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(kind(MapData::from_pin(pin_dir.join(name)).unwrap())).unwrap()
}
