//! What one IKE SA causes elsewhere in the endpoint.

use std::time::Instant;

use gateway_wire::IkeSpi;

use crate::config::{PeerName, RuleName};
use crate::ike_sa::{Heard, IkeSa, Saying, Wish};
use crate::io::{ChildId, IkeSaId, KernelCommand, Path};
use crate::leases::Holder;
use crate::senders::OfIkeSa;
use crate::shared::{Digest, Owner};

/// Done after the IKE SA has been put back.
pub(crate) enum Effect {
    /// INITIAL_CONTACT: older IKE SAs with this peer are dead (RFC 7296 2.4).
    InitialContact {
        /// The peer, or if EAP has authenticated one its user: others may come by the same
        /// configuration.
        holder: Holder,
        /// The IKE SA that said so.
        except: IkeSaId,
        /// When that one was begun: what was established later stays.
        before: Instant,
    },
    /// A rule has no SA any more, or could not get one.
    RuleLost {
        /// The rule.
        rule: RuleName,
        /// Why, if it was a failure.
        error: Option<String>,
    },
    /// Nothing comes of a Child SA that was asked for a rule, which is another one by now.
    RuleChanged {
        /// What was asked for.
        wish: Wish,
    },
    /// A rule has got its SA.
    RuleServed {
        /// The rule.
        rule: RuleName,
    },
    /// An IKE SA has lived its time: what it protects is to get another one.
    Reauthenticate {
        /// The old one.
        ike_sa: IkeSaId,
        /// The peer.
        peer: PeerName,
        /// The Child SAs that are to take the place of those that it has.
        wishes: Vec<Wish>,
    },
    /// An IKE SA goes on with new keys and SPIs.
    Rekeyed {
        /// Which.
        ike_sa: IkeSaId,
        /// Our new SPI.
        spi: IkeSpi,
        /// What is left to be closed: the old keys, and those that a collision made redundant,
        /// each with our SPI.
        remnants: Vec<(IkeSpi, IkeSa)>,
    },
    /// Something of addresses is to be said under the keys that an IKE SA has replaced.
    SayUnderOldKeys {
        /// What goes on by the new keys.
        ike_sa: IkeSaId,
        /// What is to be said.
        saying: Saying,
    },
    /// The peer has said something of addresses under keys that an IKE SA has replaced.
    Heard {
        /// What goes on by the new keys.
        ike_sa: IkeSaId,
        /// What the peer has said.
        heard: Heard,
    },
    /// The successor of an IKE SA has taken over what it can.
    Superseded {
        /// The old one.
        ike_sa: IkeSaId,
        /// The successor.
        heir: IkeSaId,
    },
    /// The successor of an IKE SA has ended before that.
    NotSuperseded {
        /// The old one.
        ike_sa: IkeSaId,
    },
    /// A Child SA is not to send any more, and another one does what it did.
    Inherit {
        /// The other one, which must send first.
        heir: OfIkeSa,
        /// What ends the sending of the first.
        then: (Owner, KernelCommand),
    },
    /// A Child SA is to do what one of another IKE SA did that a packet has asked for: it is judged when
    /// that would have been.
    JudgeLike {
        /// The other one.
        old: ChildId,
        /// What takes its place.
        successor: OfIkeSa,
    },
    /// An initiator that nobody knows has been refused; what is left only repeats the answer.
    Refused {
        /// The remnant.
        ike_sa: IkeSaId,
    },
    /// More IKE SAs stand with a peer, or with one of its users, than may.
    TooManyContacts {
        /// With whom.
        holder: Holder,
        /// The one that is one too many, and stays.
        newest: IkeSaId,
    },
    /// A half-open IKE SA of a responder is no longer half-open.
    NoLongerHalfOpen {
        /// Its request and its path, by which repeated requests find it.
        key: (Digest, Path),
    },
}
