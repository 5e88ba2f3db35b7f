//! `[peer.NAME]`: where a peer is, who it is and how it proves that.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use gateway_ike::algorithms::IkeProposal;
use gateway_ike::config::{
    Childless, Families, Identity, LocalAuth, PeerConfig, PeerName, Pool, Ppk, RemoteAuth, Renewal,
};

use super::authentication::{self, Authentication};
use super::document::Section;
use super::error::{Fault, PolicyError};
use super::{eap, keys, proposal, value};

/// The lifetime of an IKE SA whose peer names none.
const LIFETIME: Duration = Duration::from_secs(4 * 3600);
/// Addresses that a peer has at the most; each is tried in turn.
const MOST_ADDRESSES: usize = 8;
/// Octets of a PPK below which it gets a warning.
const PPK_OCTETS: usize = 32;
/// The liveness interval of a peer that names none.
const LIVENESS: Duration = Duration::from_secs(30);

/// What a peer finds under the name of its pool.
#[derive(Debug, Clone, Copy)]
pub(super) enum FoundPool<'p> {
    /// This pool.
    Pool(&'p Arc<Pool>),
    /// Nothing that can be judged by: the pool, or the file that may have it, is itself wrong.
    Unclear,
    /// No such pool; with the nearest name there is.
    Nothing(Option<&'p str>),
}

/// Reads `[peer.NAME]`; `None` if anything was wrong.
pub(super) fn read<'p>(
    section: &mut Section<'_>,
    name: &PeerName,
    find_pool: impl Fn(&str) -> FoundPool<'p>,
    warnings: &mut Vec<PolicyError>,
) -> Option<PeerConfig> {
    let addresses = read_addresses(section);
    let remote_address = addresses.as_ref().map(|list| list.first().copied());
    let other_addresses = addresses.iter().flatten().skip(1).copied().collect::<Vec<_>>();
    let local_address = section.optional("local-address", value::address);
    for remote in addresses.iter().flatten() {
        check_addresses(section, local_address, *remote);
    }
    let local_id = section
        .optional("local-id", value::identity)
        .or_else(|| eap::own_identity(section))
        .or_else(|| local_address.map(Identity::Address));
    if !section.has("local-address") && eap::own_identity(section).is_none() {
        section.missing("local-id", ": it has no `local-address` to take its place");
    }
    let remote_id = section
        .optional("remote-id", value::identity)
        .or_else(|| remote_address.flatten().map(Identity::Address))
        .filter(|_| other_addresses.is_empty() || section.has("remote-id"));
    let authentication =
        authentication::read(section, local_id.as_ref(), remote_id.as_ref(), warnings);
    // By the word, since the authentication is not known if one of its files cannot be read.
    let is_by_eap = section.text("remote-auth").or_else(|| section.text("auth")) == Some("eap");
    let remote_id = if is_by_eap {
        // Many may come, each with an IKE identity of its own, or one that means nothing.
        remote_id.or_else(|| Some(Identity::KeyId(Vec::new())))
    } else {
        if remote_address == Some(None) {
            let why = ": a peer with any address is known by its identity alone";
            section.missing("remote-id", why);
        } else if !other_addresses.is_empty() {
            section.missing("remote-id", ": no one of the addresses is who the peer is");
        }
        remote_id
    };
    if remote_address == Some(None)
        && let Some(Authentication { local: LocalAuth::Eap(_), remote, .. }) = &authentication
        && !matches!(remote, RemoteAuth::Eap(_))
    {
        let message = "by EAP we can only initiate, and the peer has any address";
        section.fault("auth", Fault::expected(message, "another method, or an `address`"));
    }
    let ppk = read_ppk(section, warnings);
    let quantum_safe = section.flag("quantum-safe", false);
    let ppk_required = ppk.as_ref().is_some_and(|ppk| ppk.required);
    let proposals = read_proposals(section, quantum_safe, ppk_required);
    if proposals.iter().flatten().any(IkeProposal::has_sha1) {
        warnings.push(section.error("ike-proposals", proposal::sha1_warning()));
    }
    let liveness = section.optional("liveness", value::interval);
    let lifetime = section.optional("lifetime", value::interval);
    let renewal = section.optional("renewal", |text| {
        let values = [Renewal::Rekey, Renewal::Reauthenticate];
        let words: Vec<_> = keys::RENEWALS.iter().copied().zip(values).collect();
        value::word(text, &words)
    });
    let childless = section.optional("childless", |text| {
        let values = [Childless::Never, Childless::Prefer, Childless::Require];
        let words: Vec<_> = keys::CHILDLESS.iter().copied().zip(values).collect();
        value::word(text, &words)
    });
    let request_address = read_request(section, remote_address.flatten());
    let mobike = section.flag("mobike", true);
    let pool = read_pool(section, remote_address.flatten(), find_pool);
    if section.failed() {
        return None;
    }
    let authentication = authentication?;
    Some(PeerConfig {
        name: PeerName::clone(name),
        local_address,
        remote_address: remote_address?,
        other_addresses,
        local_id: local_id?,
        remote_id: remote_id?,
        local_auth: authentication.local,
        remote_auth: authentication.remote,
        signature_schemes: authentication.schemes,
        ppk,
        proposals: proposals?,
        liveness_interval: liveness.unwrap_or(LIVENESS),
        lifetime: lifetime.unwrap_or(LIFETIME),
        renewal: renewal.unwrap_or(Renewal::Rekey),
        childless: childless.unwrap_or_default(),
        mobike,
        pool,
        request_address,
    })
}

/// The families of which we ask the peer for an address: it is who begins that asks.
fn read_request(section: &mut Section<'_>, remote: Option<IpAddr>) -> Families {
    let words: Vec<_> = keys::FAMILIES.iter().copied().zip([true, false]).collect();
    let list = section.list("request-address", |text| value::word(text, &words));
    if list.is_some() && remote.is_none() {
        let message = "a peer with any address begins, and who begins asks for addresses";
        section.fault("request-address", Fault::expected(message, "an `address` beside it"));
    }
    let list = list.unwrap_or_default();
    Families { v4: list.contains(&true), v6: list.contains(&false) }
}

/// The pool that a peer gets its addresses from. We never ask a peer to take one, so it must be
/// the peer that begins.
fn read_pool<'p>(
    section: &mut Section<'_>,
    remote: Option<IpAddr>,
    find: impl Fn(&str) -> FoundPool<'p>,
) -> Option<Arc<Pool>> {
    let found = section.optional("pool", |name| match find(name) {
        FoundPool::Pool(pool) => Ok(Some(Arc::clone(pool))),
        FoundPool::Unclear => Ok(None),
        FoundPool::Nothing(near) => {
            let fault = Fault::new(format!("there is no pool {name:?}"));
            Err(match near {
                Some(near) => fault.hint(format!("did you mean {near:?}?")),
                None => fault.hint(format!("define it as [pool.{name}]")),
            })
        }
    })?;
    if let Some(remote) = remote {
        let message = format!("a peer at {remote} cannot have a pool: we might begin");
        section.fault("pool", Fault::expected(message, "`address = \"any\"` beside it"));
    }
    found
}

/// Where the peer is, the preferred address first; none of them means anywhere.
fn read_addresses(section: &mut Section<'_>) -> Option<Vec<IpAddr>> {
    if !section.is_list("address") {
        return section
            .required("address", value::peer_address)
            .map(|one| one.into_iter().collect());
    }
    let list = section.list("address", value::address)?;
    if list.len() > MOST_ADDRESSES {
        let message = format!("the peer has {} addresses", list.len());
        section
            .fault("address", Fault::expected(message, format_args!("at most {MOST_ADDRESSES}")));
        return None;
    }
    Some(list)
}

fn check_addresses(section: &mut Section<'_>, local: Option<IpAddr>, remote: IpAddr) {
    let Some(local) = local else { return };
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

fn read_ppk(section: &mut Section<'_>, warnings: &mut Vec<PolicyError>) -> Option<Ppk> {
    if !section.has("ppk-file") {
        section.forbid(&["ppk-id", "ppk"], "has no meaning without `ppk-file`");
        return None;
    }
    section.missing("ppk-id", ": both ends call the key of `ppk-file` by it");
    let key = authentication::read_key(section, "ppk-file", warnings);
    let id = section.optional("ppk-id", |text| match text.len() {
        1..=255 => Ok(text.as_bytes().to_vec()),
        length => Err(Fault::expected(format!("it has {length} octets"), "1 to 255 octets")),
    });
    let uses: Vec<_> = keys::PPK_USES.iter().copied().zip([true, false]).collect();
    let required = section.optional("ppk", |text| value::word(text, &uses)).unwrap_or(true);
    let key = key?;
    // A quantum computer halves the strength of a key: RFC 8784 6 asks for 256 bits.
    if key.expose().len() < PPK_OCTETS {
        let message = format!("the key has {} octets", key.expose().len());
        let fault = Fault::expected(message, format_args!("{PPK_OCTETS} random octets or more"));
        warnings.push(section.error("ppk-file", fault));
    }
    Some(Ppk { id: id?, key, required })
}

/// The proposals of a peer; with `quantum_safe` only such that cannot end without a quantum-safe
/// key exchange, which a PPK does as well.
fn read_proposals(
    section: &mut Section<'_>,
    quantum_safe: bool,
    ppk_required: bool,
) -> Option<Vec<IkeProposal>> {
    let is_safe = |p: &IkeProposal| p.is_quantum_safe() || (ppk_required && !p.has_sha1());
    if !section.has("ike-proposals") {
        let mut proposals = proposal::default_ike();
        proposals.retain(|p| !quantum_safe || is_safe(p));
        return Some(proposals);
    }
    section.list("ike-proposals", |text| {
        let proposal = proposal::ike(text)?;
        if quantum_safe && !is_safe(&proposal) {
            return Err(proposal::not_quantum_safe(text).hint(if proposal.has_sha1() {
                proposal::WITHOUT_SHA1
            } else {
                "add -ke1_mlkem768, leave the proposal out, or require a PPK"
            }));
        }
        Ok(proposal)
    })
}
