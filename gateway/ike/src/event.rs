//! Milestones for the log: one line each, with the SA, the peer and the reason.

use core::fmt;
use core::net::IpAddr;

use gateway_wire::{IkeSpi, NotifyType};

use crate::algorithms::{ChildKeyExchange, EspSuite, IkeSuite};
use crate::config::{EapMethod, PeerName, RuleName, UserName};
use crate::error::{AuthenticationFault, Error};
use crate::io::{IkeSaId, Path};
use crate::reason::Refusal;

/// How loud a milestone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something an operator should look at.
    Warn,
    /// The normal course of things.
    Info,
    /// For debugging; an attacker can cause any number of these.
    Debug,
}

/// A milestone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The IKE SA that it concerns.
    pub ike_sa: Option<IkeSaId>,
    /// The SPIs of the IKE SA: the initiator's and the responder's.
    pub spis: Option<(IkeSpi, IkeSpi)>,
    /// The peer, once known.
    pub peer: Option<PeerName>,
    /// Its user, if EAP has authenticated one: many may come as one peer.
    pub user: Option<UserName>,
    /// From where to where.
    pub path: Option<Path>,
    /// What happened.
    pub kind: EventKind,
    /// The record of it, if something was refused.
    pub refusal: Option<Box<Refusal>>,
}

/// What happened. The text is one line without a full stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventKind {
    /// We sent the first IKE_SA_INIT request.
    #[error("Initiating IKE SA")]
    Initiating,
    /// We answered an IKE_SA_INIT request.
    #[error("Answered IKE_SA_INIT with {suite}{}", nat(*.nat_local, *.nat_remote))]
    Answered {
        /// What was chosen.
        suite: IkeSuite,
        /// We are behind NAT.
        nat_local: bool,
        /// The peer is behind NAT.
        nat_remote: bool,
    },
    /// The IKE SA stands and the peer is authenticated.
    #[error("IKE SA established with {suite}, peer identity {remote_id} by {proof}{}", nat(*.nat_local, *.nat_remote))]
    Established {
        /// What was negotiated.
        suite: IkeSuite,
        /// Who the peer proved to be.
        remote_id: String,
        /// How it proved that.
        proof: String,
        /// We are behind NAT.
        nat_local: bool,
        /// The peer is behind NAT.
        nat_remote: bool,
    },
    /// EAP ended well; AUTH, which shows that nobody stands in between, is still to come.
    #[error("EAP method {method} ended well for {user}")]
    EapSucceeded {
        /// Who was authenticated: the peer, or we.
        user: String,
        /// By which method.
        method: EapMethod,
    },
    /// The IKE SA has new keys.
    #[error("IKE SA rekeyed with {suite}")]
    Rekeyed {
        /// What was negotiated.
        suite: IkeSuite,
    },
    /// The two ends were out of step for a moment, or one puts off what the other wants.
    #[error("Put off: {0}")]
    PutOff(Error),
    /// The IKE SA could not be rekeyed; it stands until its hard limit.
    #[error("IKE SA not rekeyed: {0}")]
    RekeyFailed(Error),
    /// The kernel has both SAs, or what receives of a successor.
    #[error(
        "Child SA of rule {rule} installed: {suite}{}, inbound {inbound_spi:08x}, outbound {outbound_spi:08x}, {selectors}",
        .key_exchange.map(|k| format!("-{k}")).unwrap_or_default()
    )]
    ChildInstalled {
        /// The rule it serves.
        rule: RuleName,
        /// What was negotiated.
        suite: EspSuite,
        /// Its own key exchange, if it had one.
        key_exchange: Option<ChildKeyExchange>,
        /// Ours.
        inbound_spi: u32,
        /// The peer's.
        outbound_spi: u32,
        /// What it protects, in words.
        selectors: String,
    },
    /// A Child SA is gone.
    #[error(
        "Child SA of rule {rule} removed: inbound {inbound_spi:08x}, outbound {outbound_spi:08x}: {reason}"
    )]
    ChildRemoved {
        /// The rule it served.
        rule: RuleName,
        /// Ours.
        inbound_spi: u32,
        /// The peer's.
        outbound_spi: u32,
        /// Why.
        reason: &'static str,
    },
    /// A Child SA could not be made; the IKE SA stands.
    #[error("No Child SA{}: {error}", .rule.as_ref().map(|r| format!(" for rule {r}")).unwrap_or_default())]
    ChildFailed {
        /// The rule, where one was found.
        rule: Option<RuleName>,
        /// Why.
        error: Error,
    },
    /// An IKE SA could not be made.
    #[error("IKE SA failed: {0}")]
    Failed(Error),
    /// By new policies a peer whose IKE SA stands would not be authenticated: it ends.
    #[error("Peer is not believed any more: {0}")]
    NoLongerBelieved(AuthenticationFault),
    /// The peer answered IKE_SA_INIT with an error that anybody could have sent: we go on trying.
    #[error("Unauthenticated answer {0}: still trying")]
    UnauthenticatedError(NotifyType),
    /// The peer wants proof that it can reach us.
    #[error("Peer demands a cookie")]
    CookieReceived,
    /// The peer wants another key exchange method.
    #[error("Peer wants key exchange method {0}")]
    OtherGroup(String),
    /// The peer takes Child SAs of a single pair of addresses only, and is asked for that of the packet that
    /// waits.
    #[error(
        "Peer takes Child SAs of a single pair of addresses only for rule {rule}: asking for that of the packet"
    )]
    SinglePair {
        /// Which rule.
        rule: RuleName,
    },
    /// The IKE SA is gone.
    #[error("IKE SA closed: {0}")]
    Closed(&'static str),
    /// The peer does not answer.
    #[error("Peer does not answer after {tries} retransmissions of {exchange}")]
    PeerDead {
        /// How often the request was sent again.
        tries: u32,
        /// What was asked.
        exchange: String,
    },
    /// The peer does not answer at one of its addresses, or there is no way to it.
    #[error("No IKE_SA_INIT with {tried}: trying {next}")]
    NextAddress {
        /// The address that was tried.
        tried: IpAddr,
        /// The one that is tried now.
        next: IpAddr,
    },
    /// The peer has been given addresses.
    #[error("Peer is given {addresses} of pool {pool}")]
    AddressesAssigned {
        /// The addresses.
        addresses: String,
        /// From where.
        pool: String,
    },
    /// The peer has assigned us addresses.
    #[error("Peer assigns us {addresses}{}", if .dns.is_empty() { String::new() } else { format!(", name servers {dns}") })]
    AddressesReceived {
        /// The addresses.
        addresses: String,
        /// The name servers; empty: none.
        dns: String,
    },
    /// The peer has shown the token that proves that it has lost the IKE SA (RFC 6290).
    #[error("Peer has lost the IKE SA: it has started anew")]
    PeerCrashed,
    /// Another member of the peer's cluster has taken the IKE SA over (RFC 6311).
    #[error(
        "Peer has synchronized message IDs after a failover: our next request is {next_request}, its next {next_expected}"
    )]
    MessageIdsSet {
        /// The message ID of our next request, or of the one under way.
        next_request: u32,
        /// That of the peer's.
        next_expected: u32,
    },
    /// An IKE SA and its Child SAs go on between other addresses or ports.
    #[error("Now {to}, before {from}: {why}")]
    PathChanged {
        /// From and to where its messages went.
        from: Path,
        /// And go.
        to: Path,
        /// Why.
        why: &'static str,
    },
    /// Our address is gone, and no other leads to the peer so far.
    #[error("Our address {left} is gone, and no other leads to {remote}: looking for one")]
    AddressLost {
        /// The address that is gone.
        left: IpAddr,
        /// Where the peer is.
        remote: IpAddr,
    },
    /// One of the ends is not to go on between these addresses (RFC 4555 3.5, 3.9).
    #[error("Addresses refused, {path}: {why}")]
    AddressesRefused {
        /// Between which.
        path: Path,
        /// Why.
        why: &'static str,
    },
    /// A message of another version of the protocol.
    #[error("{}", version(*.0))]
    OtherVersion(u8),
    /// An authenticated message breaks the protocol.
    #[error("Invalid message: {0}")]
    Invalid(Error),
    /// An IKE_SA_INIT request was refused.
    #[error("Refused IKE_SA_INIT: {0}")]
    InitRefused(Error),
    /// Cookies are demanded from now on, or no longer.
    #[error("{}", if *.0 { "Too many half-open IKE SAs, or refusals: demanding cookies" } else { "Cookies are no longer demanded" })]
    CookieMode(bool),
    /// New policies are in force.
    #[error(
        "Policies applied: {added} added, {removed} removed, {changed} changed, {unchanged} unchanged"
    )]
    PoliciesApplied {
        /// Rules that were not there before.
        added: usize,
        /// Rules that are gone.
        removed: usize,
        /// Rules with new content.
        changed: usize,
        /// Rules that were not touched.
        unchanged: usize,
    },
    /// The kernel refused a trap or the classification of rules.
    #[error("{what} failed: {error}")]
    KernelFailed {
        /// What was to be done.
        what: String,
        /// The kernel's words.
        error: String,
    },
    /// ESP comes from a new address or port: the peer is asked there, and nothing moves before it has
    /// answered.
    #[error("ESP with inbound SPI {spi:08x} comes from {from}: asking the peer there")]
    PeerMoved {
        /// The inbound SPI.
        spi: u32,
        /// The new source.
        from: core::net::SocketAddr,
    },
}

impl Event {
    /// Whether somebody caused it who has not been authenticated, and could cause any number.
    #[must_use]
    pub const fn is_of_a_stranger(&self) -> bool {
        let unauthenticated =
            matches!(self.kind, EventKind::UnauthenticatedError(_) | EventKind::PeerMoved { .. });
        self.path.is_some() && (self.peer.is_none() || unauthenticated)
    }

    /// How loud it is.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self.kind {
            EventKind::Failed(_)
            | EventKind::NoLongerBelieved(_)
            | EventKind::AddressesRefused { .. }
            | EventKind::AddressLost { .. }
            | EventKind::ChildFailed { .. }
            | EventKind::RekeyFailed(_)
            | EventKind::PeerDead { .. }
            | EventKind::PeerCrashed
            | EventKind::KernelFailed { .. }
            | EventKind::UnauthenticatedError(_)
            | EventKind::CookieMode(_) => Level::Warn,
            EventKind::Initiating
            | EventKind::NextAddress { .. }
            | EventKind::AddressesAssigned { .. }
            | EventKind::AddressesReceived { .. }
            | EventKind::Answered { .. }
            | EventKind::Established { .. }
            | EventKind::Rekeyed { .. }
            | EventKind::PathChanged { .. }
            | EventKind::MessageIdsSet { .. }
            | EventKind::PeerMoved { .. }
            | EventKind::EapSucceeded { .. }
            | EventKind::ChildInstalled { .. }
            | EventKind::ChildRemoved { .. }
            | EventKind::SinglePair { .. }
            | EventKind::PoliciesApplied { .. }
            | EventKind::OtherVersion(_)
            | EventKind::InitRefused(_)
            | EventKind::Closed(_) => Level::Info,
            EventKind::CookieReceived
            | EventKind::OtherGroup(_)
            | EventKind::PutOff(_)
            | EventKind::Invalid(_) => Level::Debug,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

fn version(major: u8) -> String {
    if major == 1 {
        "Peer speaks IKEv1: refused, only IKEv2 is spoken here".to_owned()
    } else {
        format!("Peer speaks IKE version {major}: refused, only IKEv2 is spoken here")
    }
}

const fn nat(local: bool, remote: bool) -> &'static str {
    match (local, remote) {
        (false, false) => ", no NAT",
        (true, false) => ", we are behind NAT",
        (false, true) => ", the peer is behind NAT",
        (true, true) => ", both are behind NAT",
    }
}
