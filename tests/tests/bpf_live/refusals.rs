//! What keeps the programs from being loaded or attached has words that say what to do.

use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::*;

#[test]
fn another_xdp_program_is_left_alone_and_named() {
    on_a_wire(|wire, bpffs| {
        let mut other = loaded(wire, bpffs);
        attach(wire, &mut other);
        let config = DataPathConfig { pin_dir: bpffs.join("second"), ..bpf::config(bpffs) };
        let mut second = bpf::load(&config);
        let error = wire.us.enter(|| second.attach("eth0")).unwrap().unwrap_err();
        assert!(matches!(error, BpfError::OtherXdp(_)), "{error}");
        assert!(error.to_string().contains("ip link set dev eth0 xdp off"), "{error}");
    });
}

#[test]
fn without_bpffs_the_error_says_how_to_mount_it() {
    let directory = tempfile::tempdir().unwrap();
    let error = DataPath::load(&bpf::config(directory.path())).err().expect("no bpffs");
    let path = directory.path().display();
    assert_eq!(
        error.to_string(),
        format!("bpffs is not mounted at {path}: mount -t bpf bpf {path}")
    );
}

#[test]
fn without_capabilities_the_error_names_them() {
    isolated(|bpffs| {
        for dropped in [Capability::CAP_SYS_ADMIN, Capability::CAP_BPF, Capability::CAP_NET_ADMIN] {
            caps::drop(None, CapSet::Effective, dropped).unwrap();
        }
        let error = DataPath::load(&bpf::config(bpffs)).err().expect("no capabilities");
        let text = error.to_string();
        assert!(text.contains("CAP_BPF and CAP_NET_ADMIN"), "{text}");
        caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
    });
}

#[test]
fn without_sys_admin_the_three_capabilities_are_enough() {
    on_a_wire(|wire, bpffs| {
        let result = wire.us.enter(|| {
            caps::drop(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
            let mut data_path = bpf::load(&bpf::config(bpffs));
            let protect = rule(1, "192.0.2.1/32", "192.0.2.2/32", Action::Protect);
            data_path.classify(&[protect]).unwrap();
            data_path.attach("eth0").map(|_attached| ())
        });
        result.unwrap().unwrap_or_else(|error| panic!("{error}"));
    });
}

#[test]
fn counters_of_a_build_with_fewer_reasons_give_way() {
    use aya::maps::{Array, MapData};
    isolated(|bpffs| {
        let config = bpf::config(bpffs);
        std::fs::create_dir_all(&config.pin_dir).unwrap();
        let path = config.pin_dir.join(gateway_common::map::COUNTERS);
        let old: Array<MapData, u64> = Array::create(3, 0).unwrap();
        old.pin(&path).unwrap();
        let data_path = bpf::load(&config);
        let counters = data_path.counters().unwrap();
        assert_eq!(counters.len(), Reason::COUNT);
        drop(data_path);
        // Those of this build stay.
        let number = || MapData::from_pin(&path).unwrap().info().unwrap().id();
        let before = number();
        drop(bpf::load(&config));
        assert_eq!(number(), before);
    });
}

#[test]
fn sas_of_a_build_that_knows_less_of_them_give_way() {
    use aya::maps::{HashMap, MapData};
    isolated(|bpffs| {
        let config = bpf::config(bpffs);
        std::fs::create_dir_all(&config.pin_dir).unwrap();
        let path = config.pin_dir.join(gateway_common::map::SAS);
        let old: HashMap<MapData, gateway_common::SaKey, u32> = HashMap::create(1, 0).unwrap();
        old.pin(&path).unwrap();
        assert_eq!(bpf::load(&config).sas().unwrap(), []);
        // Those of this build stay.
        let number = || MapData::from_pin(&path).unwrap().info().unwrap().id();
        let before = number();
        drop(bpf::load(&config));
        assert_eq!(number(), before);
    });
}

#[test]
fn what_the_programs_have_no_room_for_is_named() {
    isolated(|bpffs| {
        let mut data_path = bpf::load(&bpf::config(bpffs));
        let sa = |number: usize| Sa {
            destination: Ipv4Addr::new(10, 0, 0, 1).into(),
            spi: u32::try_from(number).unwrap(),
            direction: SaDirection::Outbound,
        };
        let prefix = |number: usize| IpNet::from(IpAddr::from(Ipv4Addr::from_bits(sa(number).spi)));
        (0..room::SAS).for_each(|number| data_path.insert_sa(&sa(number)).unwrap());
        (0..room::MTUS).for_each(|number| data_path.set_mtu(prefix(number), 1400).unwrap());
        let refused = data_path.insert_sa(&sa(room::SAS)).unwrap_err().to_string();
        assert_eq!(
            refused,
            "an SA cannot be told to the programs: the BPF map SAS is full, it has room for 262144"
        );
        let refused = data_path.set_mtu(prefix(room::MTUS), 1400).unwrap_err().to_string();
        assert_eq!(
            refused,
            "an MTU cannot be told to the programs: the BPF map MTUS is full, it has room for 131072"
        );
        // What one gives back another may have.
        assert!(data_path.remove_sa(sa(0).destination, 0).unwrap());
        data_path.insert_sa(&sa(room::SAS)).unwrap();
        data_path.forget_mtu(prefix(0)).unwrap();
        data_path.set_mtu(prefix(room::MTUS), 1400).unwrap();
    });
}

#[test]
fn a_map_of_another_version_is_not_touched() {
    isolated(|bpffs| {
        let config = bpf::config(bpffs);
        std::fs::create_dir_all(&config.pin_dir).unwrap();
        let path = config.pin_dir.join(gateway_common::map::SAS);
        let map = aya::maps::HashMap::<_, u64, u64>::create(1, 0).unwrap();
        let map: aya::maps::HashMap<aya::maps::MapData, u64, u64> = map;
        map.pin(&path).unwrap();
        let error = DataPath::load(&config).err().expect("another layout");
        assert!(matches!(error, BpfError::OtherLayout { .. }), "{error}");
        assert!(error.to_string().contains("another version of gateway"), "{error}");
    });
}
