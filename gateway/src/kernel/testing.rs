//! Values for the tests of this module.

use core::time::Duration;

use gateway_ike::algorithms::{Encryption, EspSuite, Integrity};
use gateway_ike::config::{ALL_PORTS, ChildLifetime, Mode};
use gateway_ike::io::{ChildId, ChildSpec, REQIDS, SaSpec, Selector};
use zeroize::Zeroizing;

/// AES-128-GCM without ESN.
pub(super) const GCM: EspSuite =
    EspSuite { encryption: Encryption::Aes128Gcm16, integrity: None, esn: false };
/// AES-256-CBC with HMAC-SHA2-384 and ESN.
pub(super) const CBC: EspSuite = EspSuite {
    encryption: Encryption::Aes256Cbc,
    integrity: Some(Integrity::HmacSha384),
    esn: true,
};

/// A selector for every protocol and port.
pub(super) fn selector(local: &str, remote: &str) -> Selector {
    Selector {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        protocol: None,
        local_ports: ALL_PORTS,
        remote_ports: ALL_PORTS,
    }
}

/// A Child SA from 192.0.2.1 to 192.0.2.2 in tunnel mode.
pub(super) fn child(suite: EspSuite) -> ChildSpec {
    let keys = |fill: u8| {
        let salt = if suite.integrity.is_none() { 4 } else { 0 };
        let encryption = vec![fill; suite.encryption.key_len() + salt];
        let integrity = vec![fill; suite.integrity.map_or(0, Integrity::key_len)];
        (Zeroizing::new(encryption), Zeroizing::new(integrity))
    };
    let (us, peer) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let sa = |spi, reqid, source, destination, (encryption_key, integrity_key)| SaSpec {
        spi,
        reqid,
        source,
        destination,
        encryption_key,
        integrity_key,
    };
    let reqid = *REQIDS.start();
    let inbound = sa(0x1001, reqid, peer, us, keys(0xa5));
    let outbound = sa(0x2002, reqid + 1, us, peer, keys(0x5a));
    ChildSpec {
        child: ChildId(1),
        replaces: None,
        rule: "rule".into(),
        mode: Mode::Tunnel,
        inbound,
        outbound,
        suite,
        selectors: vec![(selector("10.1.0.0/16", "10.2.0.0/16"), 100)],
        addresses: Vec::new(),
        reached_at: None,
        peer: "peer".into(),
        name_servers: Vec::new(),
        encapsulation: None,
        replay_window: 128,
        lifetime: ChildLifetime { time: Duration::from_secs(3600), bytes: 0, packets: 1000 },
    }
}
