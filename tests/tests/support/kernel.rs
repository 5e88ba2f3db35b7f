//! Child SAs without IKE: both ends are told the same keys.
#![expect(clippy::arithmetic_side_effects, clippy::unwrap_used, reason = "this is test code")]
#![allow(dead_code, reason = "each test target uses a part of it")]

use core::net::IpAddr;
use core::time::Duration;

use gateway_ike::algorithms::{Encryption, EspSuite, Integrity};
use gateway_ike::config::{ALL_PORTS, ChildLifetime, Mode};
use gateway_ike::io::{ChildId, ChildSpec, REQIDS, SaSpec, Selector};
use zeroize::Zeroizing;

/// AES-128-GCM.
pub(crate) const GCM: EspSuite =
    EspSuite { encryption: Encryption::Aes128Gcm16, integrity: None, esn: false };

/// The outer addresses of a family, first the side `a`.
pub(crate) const fn outer(v6: bool) -> [&'static str; 2] {
    if v6 { ["2001:db8::1", "2001:db8::2"] } else { ["192.0.2.1", "192.0.2.2"] }
}

/// A selector for every protocol and port.
pub(crate) fn selector(local: &str, remote: &str) -> Selector {
    Selector {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        protocol: None,
        local_ports: ALL_PORTS,
        remote_ports: ALL_PORTS,
    }
}

/// A Child SA as side `a` sees it, between 10.1.0.0/16 and 10.2.0.0/16 (tunnel) or the outer
/// addresses (transport).
pub(crate) fn child(suite: EspSuite, mode: Mode, v6: bool) -> ChildSpec {
    let [us, peer] = outer(v6);
    let salt = if suite.integrity.is_none() { 4 } else { 0 };
    let sa = |spi, reqid, source: &str, destination: &str, fill| SaSpec {
        spi,
        reqid,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        encryption_key: Zeroizing::new(vec![fill; suite.encryption.key_len() + salt]),
        integrity_key: Zeroizing::new(vec![fill; suite.integrity.map_or(0, Integrity::key_len)]),
    };
    let host = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        format!("{address}/{}", if v6 { 128 } else { 32 })
    };
    let selector = match mode {
        Mode::Tunnel => selector("10.1.0.0/16", "10.2.0.0/16"),
        Mode::Transport => selector(&host(us), &host(peer)),
    };
    ChildSpec {
        child: ChildId(1),
        replaces: None,
        rule: "rule".into(),
        mode,
        inbound: sa(0x1001, *REQIDS.start(), peer, us, 0x11),
        outbound: sa(0x2002, *REQIDS.start() + 1, us, peer, 0x22),
        suite,
        selectors: vec![(selector, 100)],
        addresses: Vec::new(),
        reached_at: None,
        peer: "peer".into(),
        name_servers: Vec::new(),
        encapsulation: None,
        replay_window: 128,
        lifetime: ChildLifetime { time: Duration::from_secs(3600), bytes: 0, packets: 0 },
    }
}

/// The same Child SA as the peer sees it.
pub(crate) fn mirrored(spec: &ChildSpec) -> ChildSpec {
    let turned = |selector: &Selector| Selector {
        local: selector.remote,
        remote: selector.local,
        protocol: selector.protocol,
        local_ports: selector.remote_ports.clone(),
        remote_ports: selector.local_ports.clone(),
    };
    let mut other = spec.clone();
    core::mem::swap(&mut other.inbound, &mut other.outbound);
    core::mem::swap(&mut other.inbound.reqid, &mut other.outbound.reqid);
    for (selector, _) in &mut other.selectors {
        *selector = turned(selector);
    }
    if let Some(ports) = &mut other.encapsulation {
        core::mem::swap(&mut ports.local_port, &mut ports.remote_port);
    }
    other
}
