//! IKE_AUTH (RFC 7296 1.2, 2.15, 2.21.2): the exchange, and the proof that it yields. Each role has a
//! module. What AUTH covers is in `transcript`; how it is made and checked, in a module for each method.

mod belief;
mod certificate;
mod eap;
mod initiator;
mod ppk;
mod proof;
mod psk;
mod responder;
mod signature;
mod transcript;

use std::sync::Arc;
use std::time::Instant;

use gateway_wire::Authentication;

pub(crate) use self::certificate::Wanted;
pub(crate) use self::initiator::AwaitAuth;
use self::initiator::{Proof, check_identity};
use self::proof::{Claim, PeerAuthenticated, prove, verify};
pub use self::proof::{PeerCertificate, PeerProof};
use self::responder::Accepted;
pub(in crate::ike_sa) use self::responder::AuthAnswer;
pub(crate) use self::responder::HalfOpen;
pub(in crate::ike_sa) use self::signature::{hash_list, parse_hash_list};
pub(crate) use self::transcript::Transcript;
use super::{Established, IkeSa, State};
use crate::channel::Channel;
use crate::config::{PeerConfig, PeerName};
use crate::counters::Counter;
use crate::event::EventKind;
use crate::leases::Holder;
use crate::natt::NatDetected;
use crate::payloads::Payloads;
use crate::shared::Shared;

impl IkeSa {
    /// Both ends are authenticated: the IKE SA stands.
    fn establish(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        channel: Channel,
        nat: NatDetected,
        peer: &PeerAuthenticated,
    ) {
        let suite = channel.suite;
        let PeerConfig { name, remote_id, .. } = &**peer.peer();
        self.peer = Some(Arc::clone(peer.peer()));
        self.proof = Some(peer.proof().clone());
        if channel.initiator {
            self.plan_reauthentication(now, shared);
        }
        let mut established = Established::new(now, channel, nat);
        established.begin_life(now, shared, peer.peer());
        self.state = State::Established(Box::new(established));
        shared.count(Counter::IkeSaEstablished);
        let holder = Holder { peer: PeerName::clone(name), user: self.user.clone() };
        shared.contacted(holder, self.id);
        self.event(
            shared,
            EventKind::Established {
                suite,
                remote_id: self
                    .user
                    .as_ref()
                    .map_or_else(|| remote_id.to_string(), ToString::to_string),
                proof: peer.proof().to_string(),
                nat_local: nat.local,
                nat_remote: nat.remote,
            },
        );
    }
}

/// What the peer claims by AUTH, over these octets.
fn claim<'a>(
    now: Instant,
    shared: &'a Shared,
    channel: &Channel,
    transcript: &'a Transcript,
    payloads: &'a Payloads<'a>,
    auth: &'a Authentication<'a>,
    octets: &'a [u8],
) -> Claim<'a> {
    Claim {
        limits: &shared.config,
        now: shared.time_of_day(now),
        prf: channel.suite.prf,
        transcript,
        auth,
        certificates: &payloads.certificates,
        octets,
    }
}
