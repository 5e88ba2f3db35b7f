//! The responder's side of IKE_SA_INIT: for whom the request may be, and what is chosen of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use gateway_wire::{Header, IkeSpi, KeMethod, KeyExchange, NotifyType, SecurityAssociation};

use super::{
    Extensions, NONCE_LEN, fragmentation, init_header, init_message, notifies, peer_hashes,
};
use crate::algorithms::IkeSuite;
use crate::assignment::Assignment;
use crate::channel::Channel;
use crate::config::PeerConfig;
use crate::crypto::prf::sha1;
use crate::error::Error;
use crate::event::EventKind;
use crate::ike_sa::auth::Transcript;
use crate::ike_sa::{HalfOpen, IkeSa, State};
use crate::io::{IkeSaId, Path};
use crate::keys::IkeKeys;
use crate::leases::Lease;
use crate::natt;
use crate::payloads::Payloads;
use crate::policies::Policies;
use crate::proposal::{self, Rounds};
use crate::shared::Shared;
use crate::time::after;

/// The responder's half: chooses, exchanges keys, answers, and keeps a half-open IKE SA.
///
/// `None`: no proposal in common. Why that is costs more to say than all that comes before, and
/// whoever wants to know asks [`crate::reason::no_common_ike_proposal`].
///
/// # Errors
/// Whatever is wrong with the request; nothing has been kept.
pub(crate) fn answer_init(
    now: Instant,
    shared: &mut Shared,
    id: IkeSaId,
    header: &Header,
    path: Path,
    datagram: &[u8],
    payloads: &Payloads<'_>,
) -> Result<Option<IkeSa>, Error> {
    let (offered, ke, nonce) =
        (payloads.require_sa()?, payloads.require_ke()?, payloads.require_nonce()?);
    let policies = Arc::clone(&shared.policies);
    let rounds = Rounds::of(payloads);
    let Some((chosen, suite)) = choose(&policies, path, offered, ke.method, rounds) else {
        return Ok(None);
    };
    if suite.group.id() != ke.method {
        return Err(Error::InvalidKePayload { wanted: suite.group });
    }
    let agreed = shared.key_exchange.respond(suite.group, ke.data)?;
    let our_nonce: [u8; NONCE_LEN] = shared.octets()?;
    let spis = (header.initiator_spi, shared.ike_spi()?);
    let nat = natt::detect(spis.0, IkeSpi::ZERO, path, &payloads.notifies);
    let keys = IkeKeys::derive(suite, &agreed.secret, nonce, &our_nonce, spis.0, spis.1);
    let mut channel = Channel::new(spis, false, suite, keys)?;
    channel.set_fragmentation(fragmentation(shared, path, payloads));
    let needs = policies.needs(path);
    // RFC 8784 3: whether we have a PPK with *this* peer is seen when we know who it is.
    let use_ppk = payloads.notify(NotifyType::USE_PPK).is_some() && needs.ppk;
    // RFC 7383 2.3, RFC 9242 3.1: we say so only to an initiator that has.
    let fragments = channel.fragmentation().is_some();
    let mut notifies = notifies(fragments, !suite.additional.is_empty(), use_ppk);
    // RFC 6023 3: the initiator may leave the first Child SA out.
    notifies.push(NotifyType::CHILDLESS_IKEV2_SUPPORTED);
    let answer_header = init_header(spis.0, spis.1, true);
    let ke = KeyExchange { method: suite.group.id(), data: &agreed.value };
    let peer_hashes = peer_hashes(payloads);
    let mut extensions = Extensions::new(notifies, needs, true);
    if peer_hashes.is_none() {
        extensions.hashes.clear();
    }
    let response = init_message(&answer_header, None, &chosen, ke, &our_nonce, path, &extensions)?;
    shared.transmit(path, response.clone());
    let transcript = Transcript {
        request: datagram.to_vec(),
        response,
        initiator_nonce: nonce.to_vec(),
        responder_nonce: our_nonce.to_vec(),
        int_auth: Vec::new(),
        use_ppk,
        peer_hashes,
    };
    let digest = sha1(&[datagram]);
    let half_open = HalfOpen {
        channel,
        transcript,
        nat,
        rounds: suite.additional.iter().map(|(_, group)| group).collect(),
        deadline: after(now, shared.config.half_open_timeout),
        key: (digest, path),
        eap: None,
    };
    let sa = IkeSa {
        id,
        peer: None,
        path,
        initiator_spi: spis.0,
        responder_spi: spis.1,
        proof: None,
        reauthenticate_at: None,
        begun: now,
        init_request: Some(digest),
        jobs: VecDeque::new(),
        user: None,
        assignment: Assignment::default(),
        keep: Lease::default(),
        claimed: None,
        supersedes: None,
        remnant_of: None,
        state: State::HalfOpen(Box::new(half_open)),
    };
    sa.event(shared, EventKind::Answered { suite, nat_local: nat.local, nat_remote: nat.remote });
    Ok(Some(sa))
}

/// Who the peer really is, and whether it accepts the suite, is checked in IKE_AUTH. So of those that
/// may be at the likeliest place at which one has a proposal in common, the strongest suite is chosen,
/// and of equals that of the first peer: otherwise what is allowed to one would weaken the IKE SA of
/// another.
fn choose(
    policies: &Policies,
    path: Path,
    offered: &SecurityAssociation,
    sent: KeMethod,
    rounds: Rounds,
) -> Option<(SecurityAssociation, IkeSuite)> {
    let select =
        |peer: &Arc<PeerConfig>| proposal::select_ike(&peer.proposals, offered, sent, rounds);
    let weakness = |(_, suite): &(_, IkeSuite)| (!suite.is_quantum_safe(), suite.has_sha1());
    policies.proposing(path).find_map(|peers| peers.iter().filter_map(select).min_by_key(weakness))
}
