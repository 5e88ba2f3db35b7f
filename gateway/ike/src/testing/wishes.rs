//! What an operator may want, for tests to begin with.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use ipnet::IpNet;

use crate::algorithms::{
    AdditionalOffer, Encryption, EspProposal, Group, IkeProposal, Prf, SignatureScheme,
};
use crate::config::{
    ALL_PORTS, Action, ChildLifetime, Childless, Families, Identity, LocalAuth, Mode, PeerConfig,
    PolicySet, Protect, RemoteAuth, Renewal, Rule, Secret, Start, Users,
};

/// A good default: AES-256-GCM, X25519.
#[must_use]
pub fn proposals() -> (Vec<IkeProposal>, Vec<EspProposal>) {
    let ike = IkeProposal {
        encryption: vec![Encryption::Aes256Gcm16, Encryption::Aes128Gcm16],
        integrity: Vec::new(),
        prf: vec![Prf::HmacSha256],
        groups: vec![Group::X25519, Group::EcpP256],
        additional: AdditionalOffer::new(),
    };
    (
        vec![ike],
        vec![EspProposal {
            encryption: vec![Encryption::Aes256Gcm16],
            integrity: Vec::new(),
            groups: Vec::new(),
            additional: AdditionalOffer::new(),
            pfs_optional: false,
        }],
    )
}

/// A peer: its name, our identity, its identity, its address.
#[must_use]
pub fn peer(name: &str, local_id: &str, remote_id: &str, remote: Option<IpAddr>) -> PeerConfig {
    PeerConfig {
        name: name.into(),
        local_address: None,
        remote_address: remote,
        other_addresses: Vec::new(),
        local_id: Identity::Fqdn(local_id.to_owned()),
        remote_id: Identity::Fqdn(remote_id.to_owned()),
        local_auth: LocalAuth::Psk(Secret::new(b"a pre-shared key for tests".to_vec())),
        remote_auth: RemoteAuth::Psk(Secret::new(b"a pre-shared key for tests".to_vec())),
        signature_schemes: SignatureScheme::ALL.to_vec(),
        ppk: None,
        proposals: proposals().0,
        liveness_interval: Duration::ZERO,
        lifetime: Duration::ZERO,
        renewal: Renewal::Rekey,
        childless: Childless::Never,
        mobike: false,
        pool: None,
        request_address: Families::default(),
    }
}

/// A rule in tunnel mode between two prefixes.
#[must_use]
pub fn protect(name: &str, peer: &str, local: IpNet, remote: IpNet, start: Start) -> Rule {
    Rule {
        name: name.into(),
        priority: Rule::DEFAULT_PRIORITY,
        local: vec![local],
        assigned: false,
        remote: vec![remote],
        protocol: None,
        local_ports: ALL_PORTS,
        remote_ports: ALL_PORTS,
        action: Action::Protect(Protect {
            peer: peer.into(),
            mode: Mode::Tunnel,
            start,
            quantum_safe: false,
            proposals: proposals().1,
            lifetime: ChildLifetime { time: Duration::ZERO, bytes: 0, packets: 0 },
        }),
    }
}

/// Policies of some peers and rules.
#[must_use]
pub fn policies(peers: Vec<PeerConfig>, rules: Vec<Rule>) -> PolicySet {
    PolicySet {
        users: Users::new(),
        peers: peers.into_iter().map(|p| (Arc::clone(&p.name), Arc::new(p))).collect(),
        rules: rules.into_iter().map(|r| (Arc::clone(&r.name), Arc::new(r))).collect(),
    }
}
