//! What the operator wants, validated and immutable: peers, rules and limits.
//!
//! The file form of this (TOML, with positions for error messages) is in the daemon's `policy`
//! module; a value of these types has already been checked there.

mod limits;
mod peer;
mod rule;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::limits::{EndpointConfig, InitLimits, SMALLEST_FRAGMENT};
pub use self::peer::{
    Childless, Families, Identity, LocalAuth, PeerConfig, Pool, Ppk, RemoteAuth, Renewal, Secret,
};
pub(crate) use self::rule::breadth;
pub use self::rule::{
    ALL_PORTS, Action, BREADTH_BITS, ChildLifetime, Mode, PortRange, Protect, Rule, Start,
    hard_limit,
};
pub use crate::eap::{
    EapAuthenticatorConfig, EapMethod, EapPeerConfig, EapTls, User, UserName, Users,
};

/// The name of a peer in the policy files.
pub type PeerName = Arc<str>;
/// The name of a rule in the policy files.
pub type RuleName = Arc<str>;

/// Everything that one load of the policy files yields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicySet {
    /// The peers, by name.
    pub peers: BTreeMap<PeerName, Arc<PeerConfig>>,
    /// The users who may authenticate by EAP, by name.
    pub users: Users,
    /// The rules, by name. Which of two overlapping rules applies: [`Rule::precedence`].
    pub rules: BTreeMap<RuleName, Arc<Rule>>,
}
