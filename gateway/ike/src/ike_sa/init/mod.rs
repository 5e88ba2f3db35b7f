//! IKE_SA_INIT (RFC 7296 1.2, 2.6, 2.7, 2.14, 2.23): each role has a module. Here is what the two
//! messages have in common.

mod initiator;
mod responder;

use gateway_wire::{
    ExchangeType, Flags, HashAlgorithm, Header, IkeSpi, KeyExchange, MessageId, Nonce, NotifyType,
    Payload, SecurityAssociation, encode_message,
};

pub(crate) use self::initiator::AwaitInit;
pub(crate) use self::responder::answer_init;
use super::auth::{Wanted, hash_list, parse_hash_list};
use super::{IkeSa, State, notify};
use crate::channel::Fragmentation;
use crate::counters::Counter;
use crate::error::Error;
use crate::event::EventKind;
use crate::io::Path;
use crate::natt;
use crate::payloads::Payloads;
use crate::policies::Needs;
use crate::reason;
use crate::shared::Shared;

/// The port of IKE.
pub(crate) const IKE_PORT: u16 = 500;
/// The port of IKE behind a non-ESP marker, and of ESP in UDP (RFC 3948).
pub(crate) const NATT_PORT: u16 = 4500;
/// Octets of our nonces: at least half the key of any PRF that we have (RFC 7296 2.10).
const NONCE_LEN: usize = 32;

impl IkeSa {
    /// Ends an IKE SA that never stood.
    pub(in crate::ike_sa) fn fail(&mut self, shared: &mut Shared, error: Error) {
        if matches!(
            error,
            Error::Authentication(_) | Error::Refused(NotifyType::AUTHENTICATION_FAILED)
        ) {
            shared.count(Counter::AuthenticationFailed);
        }
        let words = error.to_string();
        let kind = EventKind::Failed(error);
        // It names the rule that is wanted, which nobody knows any more once all is abandoned.
        let refusal = reason::of_event(shared, self, &kind);
        self.abandon(shared, "the IKE SA failed", Some(words));
        self.event_with(shared, kind, refusal);
        self.enter(shared, State::Closed);
    }
}

/// What IKE_SA_INIT says beyond RFC 7296.
struct Extensions {
    /// Notifications without data.
    notifies: Vec<NotifyType>,
    /// The content of SIGNATURE_HASH_ALGORITHMS (RFC 7427 4).
    hashes: Vec<u8>,
    /// What the responder wants to see (RFC 7296 1.2).
    wanted: Option<Wanted>,
}

impl Extensions {
    fn new(notifies: Vec<NotifyType>, needs: Needs, responder: bool) -> Self {
        let hashes = hash_list(&needs.hashes);
        Self { notifies, hashes, wanted: responder.then_some(needs.wanted) }
    }

    fn payloads(&self) -> impl Iterator<Item = Payload<'_>> {
        let hashes = (!self.hashes.is_empty())
            .then(|| notify(NotifyType::SIGNATURE_HASH_ALGORITHMS, &self.hashes));
        let plain = self.notifies.iter().map(|kind| notify(*kind, &[]));
        plain.chain(hashes).chain(self.wanted.iter().flat_map(Wanted::payloads))
    }
}

fn peer_hashes(payloads: &Payloads<'_>) -> Option<Vec<HashAlgorithm>> {
    payloads.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS).map(|n| parse_hash_list(n.data))
}

/// The header of either IKE_SA_INIT message.
pub(crate) const fn init_header(
    initiator_spi: IkeSpi,
    responder_spi: IkeSpi,
    response: bool,
) -> Header {
    Header {
        initiator_spi,
        responder_spi,
        exchange: ExchangeType::IKE_SA_INIT,
        flags: Flags { response, version: false, initiator: !response },
        message_id: MessageId(0),
    }
}

/// What we can beyond RFC 7296, as IKE_SA_INIT says it: only what this peer is to use, since what
/// is not said cannot confuse it.
fn notifies(fragmentation: bool, additional_key_exchanges: bool, ppk: bool) -> Vec<NotifyType> {
    let all = [
        (fragmentation, NotifyType::IKEV2_FRAGMENTATION_SUPPORTED),
        (additional_key_exchanges, NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED),
        (ppk, NotifyType::USE_PPK),
    ];
    all.into_iter().filter_map(|(wanted, kind)| wanted.then_some(kind)).collect()
}

/// How messages are fragmented, if the peer has said that it can and we want to (RFC 7383 2.3).
fn fragmentation(shared: &Shared, path: Path, payloads: &Payloads<'_>) -> Option<Fragmentation> {
    payloads.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED)?;
    Fragmentation::new(&shared.config, path)
}

fn init_message<'a>(
    header: &Header,
    first: Option<Payload<'a>>,
    sa: &SecurityAssociation,
    ke: KeyExchange<'a>,
    nonce: &'a [u8],
    path: Path,
    extensions: &'a Extensions,
) -> Result<Vec<u8>, Error> {
    let nat = natt::hashes(header.initiator_spi, header.responder_spi, path);
    let payloads: Vec<Payload<'_>> = first
        .into_iter()
        .chain([
            Payload::SecurityAssociation(sa.clone()),
            Payload::KeyExchange(ke),
            Payload::Nonce(Nonce(nonce)),
        ])
        .chain(nat.iter().map(|(kind, hash)| notify(*kind, hash)))
        .chain(extensions.payloads())
        .collect();
    encode_message(header, &payloads)
        .map_err(|_too_long| Error::Internal("the message is too long"))
}
