//! What the kernel is asked, as netlink messages.

use core::net::IpAddr;

use gateway_ike::algorithms::{Encryption, Integrity};
use gateway_ike::config::{Mode, hard_limit};
use gateway_ike::io::{ChildSpec, Encapsulation, SaSpec, kernel_decapsulates};
use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, Emitable};
use netlink_packet_xfrm::policy::{
    DelGetMessage as PolicyIdMessage, ModifyMessage as PolicyMessage,
};
use netlink_packet_xfrm::state::{
    AllocSpiMessage, DelGetMessage as SaIdMessage, ModifyMessage as StateMessage,
};
use netlink_packet_xfrm::{
    AF_INET, AF_INET6, Address, Alg, AlgAead, AlgAuth, EncapTmpl, IPPROTO_ESP, LifetimeConfig,
    ReplayEsn, Selector as XfrmSelector, UDP_ENCAP_ESPINUDP, UserPolicyId, UserPolicyInfo,
    UserSaId, UserSaInfo, UserSpiInfo, UserTemplate, XFRM_ALG_NAME_LEN, XFRM_INF,
    XFRM_MODE_TRANSPORT, XFRM_MODE_TUNNEL, XFRM_POLICY_FWD, XFRM_POLICY_IN, XFRM_POLICY_OUT,
    XFRM_STATE_AF_UNSPEC, XFRM_STATE_ESN, XFRMA_REPLAY_ESN_MAX, XfrmAttrs,
};
use zeroize::Zeroize as _;

use super::{Ours, PolicyDirection, PolicyKey, PolicyValue, SaDirection, SaId, policy_keys};

/// `XFRMA_SA_DIR` (kernel 6.10), which the crate does not have.
pub(super) const XFRMA_SA_DIR: u16 = 33;
/// `XFRMA_NAT_KEEPALIVE_INTERVAL` (kernel 6.11), which it does not have either: seconds, of an SA
/// in UDP that the kernel knows to be outbound.
pub(super) const XFRMA_NAT_KEEPALIVE_INTERVAL: u16 = 34;
/// The largest window of `XFRMA_REPLAY_VAL`; a larger one needs `XFRMA_REPLAY_ESN_VAL`.
const LEGACY_WINDOW: u32 = 32;

/// An SA with its keys, which are wiped when it is dropped.
pub(super) struct SaMessage(pub(super) StateMessage);

impl Drop for SaMessage {
    fn drop(&mut self) {
        for attribute in &mut self.0.nlas {
            if let XfrmAttrs::EncryptionAlgAead(AlgAead { alg_key, .. })
            | XfrmAttrs::EncryptionAlg(Alg { alg_key, .. })
            | XfrmAttrs::AuthenticationAlgTrunc(AlgAuth { alg_key, .. }) = attribute
            {
                alg_key.zeroize();
            }
        }
    }
}

impl Emitable for SaMessage {
    fn buffer_len(&self) -> usize {
        self.0.buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.emit(buffer);
    }
}

/// No filter, for dumps.
pub(super) fn everything() -> impl Emitable {
    DefaultNlas
}

/// An empty body.
struct DefaultNlas;

impl Emitable for DefaultNlas {
    fn buffer_len(&self) -> usize {
        0
    }

    fn emit(&self, _buffer: &mut [u8]) {}
}

/// The whole SA.
pub(super) fn sa(
    spec: &ChildSpec,
    direction: SaDirection,
    ours: Ours,
    output_mark: u32,
    state_direction: bool,
) -> SaMessage {
    let sa = match direction {
        SaDirection::Inbound => &spec.inbound,
        SaDirection::Outbound => &spec.outbound,
    };
    let mut info = UserSaInfo {
        reqid: sa.reqid,
        mode: mode(spec.mode),
        lifetime_cfg: lifetime(spec),
        ..UserSaInfo::default()
    };
    info.source(&sa.source);
    info.destination(&sa.destination);
    info.id.spi = sa.spi;
    info.id.proto = IPPROTO_ESP;
    match only_selector(spec, direction) {
        Some(selector) => info.selector = selector,
        // Any inner family. Transport mode has but the outer one.
        None if spec.mode == Mode::Tunnel => info.flags |= XFRM_STATE_AF_UNSPEC,
        None => {}
    }
    if spec.suite.esn {
        info.flags |= XFRM_STATE_ESN;
    }

    let mut attributes = algorithms(spec, sa);
    attributes.extend(ours.if_id(spec.mode).map(XfrmAttrs::IfId));
    // Alone it stands for the whole mark: the kernel fills the mask in (xfrm_smark_init).
    if direction == SaDirection::Outbound && output_mark != 0 {
        attributes.push(XfrmAttrs::MarkVal(output_mark));
    }
    attributes.extend(replay(spec, direction, state_direction, &mut info));
    attributes.extend(encapsulation(spec, direction).map(XfrmAttrs::EncapsulationTemplate));
    if state_direction {
        let value = match direction {
            SaDirection::Inbound => 1,
            SaDirection::Outbound => 2,
        };
        attributes.push(XfrmAttrs::Other(DefaultNla::new(XFRMA_SA_DIR, vec![value])));
        let keepalive = spec.encapsulation.filter(|_| direction == SaDirection::Outbound);
        attributes.extend(keepalive.and_then(|ports| ports.keepalive).map(|seconds| {
            let value = seconds.get().to_ne_bytes().to_vec();
            XfrmAttrs::Other(DefaultNla::new(XFRMA_NAT_KEEPALIVE_INTERVAL, value))
        }));
    }
    SaMessage(StateMessage { user_sa_info: info, nlas: attributes })
}

/// ESP in UDP, as the SA has it: XDP strips UDP from most of what comes in, and `xfrm_input` drops a
/// packet whose encapsulation differs from its SA's.
pub(super) fn encapsulation(spec: &ChildSpec, direction: SaDirection) -> Option<EncapTmpl> {
    let ports = match direction {
        SaDirection::Inbound => decapsulation(spec.mode, spec.encapsulation),
        SaDirection::Outbound => spec.encapsulation,
    };
    ports.map(udp)
}

/// The ports of an inbound SA: none unless the kernel takes UDP off, then as its packets have them.
pub fn decapsulation(mode: Mode, ports: Option<Encapsulation>) -> Option<Encapsulation> {
    let turned = |Encapsulation { local_port, remote_port, .. }| Encapsulation {
        local_port: remote_port,
        remote_port: local_port,
        keepalive: None,
    };
    ports.filter(|_| kernel_decapsulates(mode, ports)).map(turned)
}

/// ESP in UDP from the first of these ports to the second.
pub(super) fn udp(ports: Encapsulation) -> EncapTmpl {
    EncapTmpl {
        encap_type: UDP_ENCAP_ESPINUDP,
        encap_sport: ports.local_port,
        encap_dport: ports.remote_port,
        encap_oa: Address::default(),
    }
}

/// The selector of the SA itself where one can say all that was agreed: the kernel then checks it,
/// too. What keeps other traffic from the SA is its request ID, which only its policies name.
fn only_selector(spec: &ChildSpec, direction: SaDirection) -> Option<XfrmSelector> {
    let [(selector, _)] = spec.selectors.as_slice() else { return None };
    let side = match direction {
        SaDirection::Inbound => PolicyDirection::In,
        SaDirection::Outbound => PolicyDirection::Out,
    };
    let keys = policy_keys(selector, spec.mode, side).ok()?;
    let [key] = keys.as_slice() else { return None };
    Some(xfrm_selector(key))
}

fn algorithms(spec: &ChildSpec, sa: &SaSpec) -> Vec<XfrmAttrs> {
    let key = &sa.encryption_key;
    let encryption = match spec.suite.encryption {
        Encryption::Aes128Gcm16 | Encryption::Aes256Gcm16 => aead("rfc4106(gcm(aes))", key),
        Encryption::ChaCha20Poly1305 => aead("rfc7539esp(chacha20,poly1305)", key),
        Encryption::Aes128Cbc | Encryption::Aes256Cbc => XfrmAttrs::EncryptionAlg(Alg {
            alg_name: algorithm_name("cbc(aes)"),
            alg_key_len: bits(key.len()),
            alg_key: key.to_vec(),
        }),
    };
    let integrity = spec.suite.integrity.map(|integrity| {
        let name = match integrity {
            Integrity::HmacSha256 => "hmac(sha256)",
            Integrity::HmacSha384 => "hmac(sha384)",
            Integrity::HmacSha512 => "hmac(sha512)",
            Integrity::HmacSha1 => "hmac(sha1)",
        };
        XfrmAttrs::AuthenticationAlgTrunc(AlgAuth {
            alg_name: algorithm_name(name),
            alg_key_len: bits(sa.integrity_key.len()),
            alg_trunc_len: bits(integrity.icv_len()),
            alg_key: sa.integrity_key.to_vec(),
        })
    });
    core::iter::once(encryption).chain(integrity).collect()
}

/// Key and salt are one to the kernel (RFC 4106 8.1, RFC 7634 2).
fn aead(name: &str, key: &[u8]) -> XfrmAttrs {
    XfrmAttrs::EncryptionAlgAead(AlgAead {
        alg_name: algorithm_name(name),
        alg_key_len: bits(key.len()),
        alg_icv_len: 128,
        alg_key: key.to_vec(),
    })
}

/// The name as the kernel reads it: padded with zeros, of which one at least must be there.
fn algorithm_name(name: &str) -> [u8; XFRM_ALG_NAME_LEN] {
    let mut octets = [0; XFRM_ALG_NAME_LEN];
    for (octet, letter) in octets.iter_mut().zip(name.bytes().take(XFRM_ALG_NAME_LEN - 1)) {
        *octet = letter;
    }
    octets
}

fn bits(octets: usize) -> u32 {
    u32::try_from(octets).unwrap_or(u32::MAX).saturating_mul(8)
}

/// The replay window, in the header where it fits and as an attribute where it does not.
fn replay(
    spec: &ChildSpec,
    direction: SaDirection,
    state_direction: bool,
    info: &mut UserSaInfo,
) -> Option<XfrmAttrs> {
    let esn = spec.suite.esn;
    let window = match direction {
        SaDirection::Inbound if esn => spec.replay_window.max(1),
        SaDirection::Inbound => spec.replay_window,
        // A sender checks nothing, but has its extended counter in the same structure. Without a
        // direction the kernel wants a window there (xfrm_init_replay), and in an SA that it
        // knows to be outbound neither window nor bitmap (verify_newsa_info).
        SaDirection::Outbound => u32::from(esn && !state_direction),
    };
    if !esn && window <= LEGACY_WINDOW {
        info.replay_window = u8::try_from(window).unwrap_or(0);
        return None;
    }
    let most = u32::try_from(XFRMA_REPLAY_ESN_MAX).unwrap_or(u32::MAX);
    let window = window.min(most);
    let words = window.div_ceil(32);
    Some(XfrmAttrs::ReplayStateEsn(ReplayEsn {
        bmp_len: words,
        replay_window: window,
        bmp: vec![0; usize::try_from(words).unwrap_or(0)],
        ..ReplayEsn::default()
    }))
}

/// Soft limits as given, hard ones above them, so that there is time to replace the SA.
fn lifetime(spec: &ChildSpec) -> LifetimeConfig {
    let hard = |soft: u64| soft.saturating_add((soft / 10).max(1));
    let limits = |soft: u64| if soft == 0 { (XFRM_INF, XFRM_INF) } else { (soft, hard(soft)) };
    let (soft_byte_limit, hard_byte_limit) = limits(spec.lifetime.bytes);
    let (soft_packet_limit, hard_packet_limit) = limits(spec.lifetime.packets);
    let time = spec.lifetime.time;
    LifetimeConfig {
        soft_byte_limit,
        hard_byte_limit,
        soft_packet_limit,
        hard_packet_limit,
        soft_add_expires_seconds: time.as_secs(),
        hard_add_expires_seconds: if time.is_zero() { 0 } else { hard_limit(time).as_secs() },
        ..LifetimeConfig::default()
    }
}

/// The larval state that an acquire of a policy has left.
pub(super) fn larval(of: Mode, trap: &PolicyValue, seq: u32) -> UserSaInfo {
    let mut info = UserSaInfo { reqid: trap.reqid, mode: mode(of), seq, ..UserSaInfo::default() };
    info.destination(&trap.destination);
    if let Some(source) = &trap.source {
        info.source(source);
    }
    info.id.proto = IPPROTO_ESP;
    info
}

/// A larval state is to have an SPI, whichever.
pub(super) fn any_spi(larval: UserSaInfo, ours: Ours) -> AllocSpiMessage {
    let if_id = if larval.mode == XFRM_MODE_TUNNEL { ours.if_id(Mode::Tunnel) } else { None };
    AllocSpiMessage {
        spi_info: UserSpiInfo { info: larval, ..UserSpiInfo::default() },
        nlas: if_id.map(XfrmAttrs::IfId).into_iter().collect(),
    }
}

/// The name of an SA.
pub(super) fn sa_id(id: SaId) -> SaIdMessage {
    SaIdMessage {
        user_sa_id: UserSaId {
            daddr: Address::from_ip(&id.destination),
            spi: id.spi,
            family: family(&id.destination),
            proto: IPPROTO_ESP,
        },
        nlas: Vec::new(),
    }
}

/// The whole policy.
pub(super) fn policy(key: &PolicyKey, value: &PolicyValue, ours: Ours) -> PolicyMessage {
    let mut template =
        UserTemplate { reqid: value.reqid, mode: mode(key.mode), ..UserTemplate::default() };
    if let Some(source) = &value.source {
        template.source(source);
    }
    template.destination(&value.destination);
    template.protocol(IPPROTO_ESP);
    PolicyMessage {
        user_policy_info: UserPolicyInfo {
            selector: xfrm_selector(key),
            priority: value.priority,
            direction: direction(key.direction),
            ..UserPolicyInfo::default()
        },
        nlas: [XfrmAttrs::Template(vec![template])]
            .into_iter()
            .chain(ours.if_id(key.mode).map(XfrmAttrs::IfId))
            .collect(),
    }
}

/// The name of a policy.
pub(super) fn policy_id(key: &PolicyKey, ours: Ours) -> PolicyIdMessage {
    PolicyIdMessage {
        user_policy_id: UserPolicyId {
            selector: xfrm_selector(key),
            index: 0,
            direction: direction(key.direction),
        },
        nlas: ours.if_id(key.mode).map(XfrmAttrs::IfId).into_iter().collect(),
    }
}

fn xfrm_selector(key: &PolicyKey) -> XfrmSelector {
    // Not by the crate's setters: they take a prefix of zeros such as 0.0.0.0/8 for /0.
    XfrmSelector {
        saddr: Address::from_ip(&key.source.addr()),
        daddr: Address::from_ip(&key.destination.addr()),
        prefixlen_s: key.source.prefix_len(),
        prefixlen_d: key.destination.prefix_len(),
        sport: key.source_ports.value,
        sport_mask: key.source_ports.mask,
        dport: key.destination_ports.value,
        dport_mask: key.destination_ports.mask,
        family: match key.source {
            IpNet::V4(_) => AF_INET,
            IpNet::V6(_) => AF_INET6,
        },
        proto: key.protocol.unwrap_or(0),
        ..XfrmSelector::default()
    }
}

fn family(address: &IpAddr) -> u16 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn mode(mode: Mode) -> u8 {
    match mode {
        Mode::Tunnel => XFRM_MODE_TUNNEL,
        Mode::Transport => XFRM_MODE_TRANSPORT,
    }
}

fn direction(direction: PolicyDirection) -> u8 {
    match direction {
        PolicyDirection::In => XFRM_POLICY_IN,
        PolicyDirection::Out => XFRM_POLICY_OUT,
        PolicyDirection::Forward => XFRM_POLICY_FWD,
    }
}
