//! `[peer.NAME]`: where a peer is, who it is and how it proves that.

use core::net::IpAddr;
use core::time::Duration;

use gateway_ike::config::{Identity, PeerConfig, PeerName, Secret};

use super::document::Section;
use super::error::{Fault, PolicyError};
use super::{proposal, secret, value};

/// The lifetime of an IKE SA whose peer names none.
const LIFETIME: Duration = Duration::from_secs(4 * 3600);
/// The liveness interval of a peer that names none.
const LIVENESS: Duration = Duration::from_secs(30);

/// Reads `[peer.NAME]`; `None` if anything was wrong.
pub(super) fn read(
    section: &mut Section<'_>,
    name: &PeerName,
    warnings: &mut Vec<PolicyError>,
) -> Option<PeerConfig> {
    let remote_address = section.required("address", value::peer_address);
    let local_address = section.optional("local-address", value::address);
    check_addresses(section, local_address, remote_address.flatten());
    let local_id = section
        .optional("local-id", value::identity)
        .or_else(|| local_address.map(Identity::Address));
    if !section.has("local-address") {
        section.missing("local-id", ": it has no `local-address` to take its place");
    }
    let remote_id = section
        .optional("remote-id", value::identity)
        .or_else(|| remote_address.flatten().map(Identity::Address));
    if remote_address == Some(None) {
        section.missing("remote-id", ": a peer with any address is known by its identity alone");
    }
    let psk = read_psk(section, warnings);
    let proposals = section.list("ike-proposals", proposal::ike);
    let liveness = section.optional("liveness", value::interval);
    let lifetime = section.optional("lifetime", value::interval);
    if section.failed() {
        return None;
    }
    Some(PeerConfig {
        name: PeerName::clone(name),
        local_address,
        remote_address: remote_address?,
        local_id: local_id?,
        remote_id: remote_id?,
        psk: psk?,
        proposals: proposals.unwrap_or_else(proposal::default_ike),
        liveness_interval: liveness.unwrap_or(LIVENESS),
        lifetime: lifetime.unwrap_or(LIFETIME),
    })
}

fn check_addresses(section: &mut Section<'_>, local: Option<IpAddr>, remote: Option<IpAddr>) {
    let (Some(local), Some(remote)) = (local, remote) else { return };
    if local == remote {
        section.fault("local-address", Fault::new(format!("{local} is the peer's address too")));
    } else if local.is_ipv4() != remote.is_ipv4() {
        let family = if remote.is_ipv4() { "IPv4" } else { "IPv6" };
        section.fault(
            "local-address",
            Fault::expected(
                format!("{local} and the peer's {remote} are of two families"),
                format_args!("an {family} address"),
            ),
        );
    }
}

fn read_psk(section: &mut Section<'_>, warnings: &mut Vec<PolicyError>) -> Option<Secret> {
    let directory = section.directory();
    let (psk, warning) = section.required("psk-file", |name| {
        if name.is_empty() || name.contains('\0') {
            return Err(Fault::expected(format!("{name:?} is not a path"), "the path of a file"));
        }
        secret::read_psk(&directory.join(name), name)
    })?;
    if let Some(fault) = warning {
        warnings.push(section.error("psk-file", fault));
    }
    Some(psk)
}
