//! Why a peer was refused, or refused us: ours beside theirs, field by field, with what would
//! nearly have matched.
//!
//! Records are made here and nowhere else. They hold nothing that a policy file calls a secret,
//! and have a bound whatever a peer sends.

mod authentication;
mod cause;
mod proposals;
mod selectors;

use core::convert::identity;
use core::fmt;

use gateway_wire::{NotifyType, TransformType};

pub(crate) use self::authentication::Claimed;
pub use self::cause::{Cause, Kind};
pub(crate) use self::proposals::{Offer, bad_choice, no_common_ike_proposal, no_common_proposal};
pub(crate) use self::selectors::{RuleSelectors, no_common_selectors};
use crate::config::{Action, PeerConfig, PeerName, RuleName};
use crate::error::Error;
use crate::event::EventKind;
use crate::ike_sa::IkeSa;
use crate::policies::Policies;
use crate::proposal;
use crate::shared::Shared;

/// Candidates of one refusal that are shown.
const MOST_CANDIDATES: usize = 4;
/// Candidates of one refusal that are compared.
const MOST_COMPARED: usize = 64;
/// Values of one field that are shown.
const MOST_VALUES: usize = 8;
/// Characters of one value.
const MOST_CHARACTERS: usize = 128;

/// Why a peer was refused, or refused us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was missing, or wrong.
    pub cause: Cause,
    /// What the peer said, if it was the peer that refused.
    pub said: Option<NotifyType>,
    /// What it was compared with, the nearest first: 4 at most.
    pub candidates: Vec<Candidate>,
    /// Further ones, which are not shown.
    pub left_out: usize,
}

/// Something of ours that what the peer wants was compared with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidate {
    /// The peer in the policy files.
    pub peer: Option<PeerName>,
    /// The rule; or, where none was looked for yet, the nearest of the peer's to the selectors that
    /// are known by then, of equals (as all are while none are known) the first by name.
    pub rule: Option<RuleName>,
    /// Which of our proposals, from 1.
    pub proposal: Option<usize>,
    /// Which of the peer's proposals, from 1.
    pub their_proposal: Option<usize>,
    /// Field by field.
    pub fields: Vec<Field>,
}

/// One thing that both ends have to agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub name: FieldName,
    /// What we have: 9 values at most, of 128 characters.
    pub ours: Vec<String>,
    /// What the peer has.
    pub theirs: Vec<String>,
    /// Whether they go together, if that is known.
    pub fits: Option<bool>,
}

/// What both ends have to agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldName {
    /// The protocol of a proposal: IKE or ESP.
    Protocol,
    /// The SPI of a proposal.
    Spi,
    /// A type of transform.
    Transform(TransformType),
    /// Whether the peer can do additional key exchanges at all.
    Intermediate,
    /// All algorithms of the IKE SA.
    Suite,
    /// Whether IKE_AUTH leaves the first Child SA out.
    Childless,
    /// Addresses on our side.
    LocalAddresses,
    /// Addresses on the peer's side.
    RemoteAddresses,
    /// The IP protocol.
    IpProtocol,
    /// Ports on our side.
    LocalPorts,
    /// Ports on the peer's side.
    RemotePorts,
    /// Tunnel or transport mode.
    Mode,
    /// Who we are.
    LocalIdentity,
    /// Who the peer is.
    RemoteIdentity,
    /// How an identity is proven.
    Method,
    /// How is signed.
    Scheme,
    /// The hashes of RFC 7427.
    Hashes,
    /// Identities that a certificate holds.
    CertificateIdentities,
    /// Whose certificate it is, or who has issued it.
    Issuer,
    /// When a certificate is valid.
    Validity,
    /// What a certificate may be used for.
    Usage,
    /// How many certificates there are.
    ChainLength,
    /// How large a certificate is.
    CertificateSize,
    /// By what a certificate is signed.
    CertificateAlgorithm,
    /// The user of EAP.
    User,
    /// How many Child SAs there may be, and are.
    ChildSas,
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protocol => "protocol",
            Self::Spi => "spi",
            Self::Transform(TransformType::ENCR) => "encryption",
            Self::Transform(TransformType::PRF) => "prf",
            Self::Transform(TransformType::INTEG) => "integrity",
            Self::Transform(TransformType::KE) => "key_exchange",
            Self::Transform(TransformType::ESN) => "esn",
            Self::Transform(kind) if proposal::is_additional(*kind) => {
                let number = kind.0.saturating_sub(TransformType::ADDKE1.0).saturating_add(1);
                return write!(f, "additional_key_exchange_{number}");
            }
            Self::Transform(kind) => return write!(f, "transform_type_{}", kind.0),
            Self::Intermediate => "ike_intermediate",
            Self::Suite => "suite",
            Self::Childless => "childless",
            Self::LocalAddresses => "local_addresses",
            Self::RemoteAddresses => "remote_addresses",
            Self::IpProtocol => "ip_protocol",
            Self::LocalPorts => "local_ports",
            Self::RemotePorts => "remote_ports",
            Self::Mode => "mode",
            Self::LocalIdentity => "local_identity",
            Self::RemoteIdentity => "remote_identity",
            Self::Method => "method",
            Self::Scheme => "signature_scheme",
            Self::Hashes => "hashes",
            Self::CertificateIdentities => "certificate_identities",
            Self::Issuer => "issuer",
            Self::Validity => "validity",
            Self::Usage => "usage",
            Self::ChainLength => "chain_length",
            Self::CertificateSize => "certificate_size",
            Self::CertificateAlgorithm => "certificate_algorithm",
            Self::User => "user",
            Self::ChildSas => "child_sas",
        })
    }
}

impl Field {
    /// A field whose values are cut to their bounds.
    fn new<O, T>(name: FieldName, ours: O, theirs: T, fits: Option<bool>) -> Self
    where
        O: IntoIterator<Item = String>,
        T: IntoIterator<Item = String>,
    {
        Self { name, ours: bounded(ours, identity), theirs: bounded(theirs, identity), fits }
    }

    /// The octets of its text.
    fn size(&self) -> usize {
        self.ours.iter().chain(&self.theirs).map(String::len).sum::<usize>().saturating_add(32)
    }
}

/// The first values in words, each cut; the last says how many more there are, which are only
/// counted: a stranger chooses their number.
fn bounded<T>(
    values: impl IntoIterator<Item = T>,
    mut words: impl FnMut(T) -> String,
) -> Vec<String> {
    let mut values = values.into_iter();
    let first = values.by_ref().take(MOST_VALUES);
    let mut kept: Vec<String> = first.map(|value| cut(words(value))).collect();
    let more = values.count();
    if more > 0 {
        kept.push(format!("and {more} more"));
    }
    kept
}

/// A value of no more than [`MOST_CHARACTERS`].
fn cut(value: String) -> String {
    match value.char_indices().nth(MOST_CHARACTERS) {
        None => value,
        Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
    }
}

impl Candidate {
    /// The fields that do not fit.
    pub fn unfit(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|f| f.fits == Some(false))
    }

    fn size(&self) -> usize {
        self.fields.iter().map(Field::size).sum()
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.peer.iter().map(|peer| format!("peer {peer}")));
        words.extend(self.rule.iter().map(|rule| format!("rule {rule}")));
        words.extend(self.proposal.iter().map(|number| format!("proposal {number}")));
        words.extend(self.their_proposal.iter().map(|number| format!("their proposal {number}")));
        f.write_str(&words.join(", "))
    }
}

impl Refusal {
    /// A refusal with its candidates in the order in which they are near: the fewer fields do not
    /// fit, the nearer. `cause` says what the nearest came to.
    fn nearest(
        mut candidates: Vec<Candidate>,
        more: usize,
        cause: impl Fn(&Candidate) -> Cause,
    ) -> Self {
        candidates.sort_by_key(|c| c.unfit().count()); // Stable: the first of equals stays first.
        let found = candidates.len();
        candidates.truncate(MOST_CANDIDATES);
        let nearest = candidates.first();
        Self {
            cause: nearest.map_or(Cause::Combination, cause),
            said: None,
            left_out: found.saturating_sub(candidates.len()).saturating_add(more),
            candidates,
        }
    }

    /// Leaves out what is least near, until its text has no more than so many octets or there is but
    /// the nearest; whether anything was.
    pub(crate) fn shorten(&mut self, most: usize) -> bool {
        let before = self.candidates.len();
        let mut size: usize = self.candidates.iter().map(Candidate::size).sum();
        while size > most && self.candidates.len() > 1 {
            size = size.saturating_sub(self.candidates.pop().map_or(0, |c| c.size()));
            self.left_out = self.left_out.saturating_add(1);
        }
        self.candidates.len() < before
    }

    /// Names the rule that each candidate would have come to, where what was refused comes before the
    /// rules: the one that is wanted, if it is the peer's, else the nearest to what the peer asks for.
    pub(crate) fn name_rules(
        &mut self,
        policies: &Policies,
        wanted: Option<&RuleName>,
        claimed: Option<&Claimed>,
    ) {
        if self.cause.kind() == Kind::Limit {
            return; // It is met whatever the rule.
        }
        for candidate in self.candidates.iter_mut().filter(|c| c.rule.is_none()) {
            let Some(peer) = &candidate.peer else { continue };
            let rules = || policies.rules_of(peer).map(|(rule, _)| rule.as_ref());
            let is_with = |name: &&RuleName| {
                let rule = policies.rules.get(*name).map(|rule| &rule.action);
                matches!(rule, Some(Action::Protect(protect)) if protect.peer == *peer)
            };
            let wanted = wanted.filter(is_with);
            let nearest = || selectors::nearest(rules(), claimed.map(Claimed::asked));
            candidate.rule = wanted.or_else(nearest).cloned();
        }
    }

    /// Without anything to compare.
    const fn plain(cause: Cause) -> Self {
        Self { cause, said: None, candidates: Vec::new(), left_out: 0 }
    }

    /// The same, said by the peer.
    fn said(mut self, cause: Cause, what: NotifyType) -> Self {
        self.cause = cause;
        self.said = Some(what);
        self
    }

    /// What nearly matched.
    #[must_use]
    pub fn nearest_candidate(&self) -> Option<&Candidate> {
        self.candidates.first()
    }
}

/// One line: what does not fit of what is nearest.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause.words())?;
        let Some(nearest) = self.nearest_candidate() else { return Ok(()) };
        let list = |values: &[String]| match values {
            [] => "none".to_owned(),
            values => values.join(" "),
        };
        for (n, field) in nearest.unfit().enumerate() {
            f.write_str(if n == 0 { ": " } else { "; " })?;
            let (ours, theirs) = (list(&field.ours), list(&field.theirs));
            write!(f, "{}: ours {ours}, theirs {theirs}", field.name)?;
        }
        let name = nearest.to_string();
        if !name.is_empty() {
            write!(f, " (nearest: {name})")?;
        }
        Ok(())
    }
}

/// The record of a milestone that is a refusal.
pub(crate) fn of_event(shared: &Shared, sa: &IkeSa, kind: &EventKind) -> Option<Refusal> {
    let mut refusal = of_kind(shared, sa, kind)?;
    refusal.name_rules(&shared.policies, sa.rule(), sa.claimed.as_deref());
    Some(refusal)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else there may be refuses nothing")]
fn of_kind(shared: &Shared, sa: &IkeSa, kind: &EventKind) -> Option<Refusal> {
    let peer = sa.peer.as_deref();
    match kind {
        EventKind::Failed(error) | EventKind::RekeyFailed(error) => {
            of_error(shared, sa, None, error)
        }
        EventKind::ChildFailed { rule, error } => of_error(shared, sa, rule.as_ref(), error),
        EventKind::NoLongerBelieved(fault) => {
            Some(authentication::refusal(fault, &mut peer.into_iter(), None, None))
        }
        EventKind::UnauthenticatedError(NotifyType::NO_PROPOSAL_CHOSEN) => {
            Some(proposals_refused(peer))
        }
        _ => None,
    }
}

/// The record of an error of an IKE_SA_INIT request, which belongs to no IKE SA.
pub(crate) fn of_stray(kind: &EventKind) -> Option<Refusal> {
    let EventKind::InitRefused(Error::NoProposalChosen(refusal)) = kind else { return None };
    Some(Refusal::clone(refusal))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else there may be refuses nothing")]
fn of_error(
    shared: &Shared,
    sa: &IkeSa,
    rule: Option<&RuleName>,
    error: &Error,
) -> Option<Refusal> {
    let peer = sa.peer.as_deref();
    match error {
        Error::NoProposalChosen(refusal) | Error::TsUnacceptable(refusal) => {
            Some(Refusal::clone(refusal))
        }
        Error::Authentication(fault) => {
            let suite = sa.negotiated().0;
            let claimed = sa.claimed.as_deref();
            let mut here =
                shared.policies.candidates(sa.path).map(AsRef::as_ref).take(MOST_COMPARED);
            Some(match peer {
                Some(_) => authentication::refusal(fault, &mut peer.into_iter(), claimed, suite),
                None => authentication::refusal(fault, &mut here, claimed, suite),
            })
        }
        Error::NotQuantumSafe(suite) => {
            let (ours, theirs) = (["quantum-safe".to_owned()], [suite.to_string()]);
            let fields = vec![Field::new(FieldName::Suite, ours, theirs, Some(false))];
            let peer = peer.map(|p| PeerName::clone(&p.name));
            let candidate = Candidate { peer, rule: rule.cloned(), fields, ..Candidate::default() };
            Some(Refusal::nearest(vec![candidate], 0, |_| Cause::NotQuantumSafe))
        }
        Error::NotChildless(theirs) => {
            let (ours, theirs) = (["require".to_owned()], [(*theirs).to_owned()]);
            let fields = vec![Field::new(FieldName::Childless, ours, theirs, Some(false))];
            let peer = peer.map(|p| PeerName::clone(&p.name));
            let candidate = Candidate { peer, fields, ..Candidate::default() };
            Some(Refusal::nearest(vec![candidate], 0, |_| Cause::Childless))
        }
        Error::NoAdditionalSas { present, limit } => {
            Some(too_many(Cause::ChildSas, peer, *limit, *present))
        }
        Error::NoAdditionalSasOfPeer { present, limit } => {
            Some(too_many(Cause::ChildSasOfPeer, peer, *limit, *present))
        }
        Error::Mode { ours, theirs, .. } => Some(mode(peer, rule, ours, theirs)),
        Error::TransportAddresses => {
            let ours = "transport, of one address at each end";
            Some(mode(peer, rule, ours, "transport, of other addresses"))
        }
        Error::Refused(what @ NotifyType::NO_PROPOSAL_CHOSEN) => Some(match rule {
            None => proposals_refused(peer),
            Some(rule) => {
                let protect = shared.policies.rules.get(rule).map(|rule| &rule.action);
                let Some(Action::Protect(protect)) = protect else { return None };
                let sa = proposal::offer_esp(&protect.proposals, 0, true);
                let offer = Offer { peer: None, rule: Some(rule), sa };
                proposals::offered(&[offer]).said(Cause::ProposalByPeer, *what)
            }
        }),
        Error::SinglePairs => {
            selectors_refused(shared, sa, rule?, NotifyType::SINGLE_PAIR_REQUIRED)
        }
        Error::Refused(what @ (NotifyType::TS_UNACCEPTABLE | NotifyType::SINGLE_PAIR_REQUIRED)) => {
            selectors_refused(shared, sa, rule?, *what)
        }
        Error::Refused(what @ NotifyType::AUTHENTICATION_FAILED) => {
            Some(authentication::shown(peer?).said(Cause::AuthenticationByPeer, *what))
        }
        Error::Refused(what @ NotifyType::NO_ADDITIONAL_SAS) => {
            Some(Refusal::plain(Cause::LimitByPeer).said(Cause::LimitByPeer, *what))
        }
        _ => None,
    }
}

/// The peer takes none of the selectors of a rule, or not all of them at once.
fn selectors_refused(
    shared: &Shared,
    sa: &IkeSa,
    rule: &RuleName,
    what: NotifyType,
) -> Option<Refusal> {
    let rule = shared.policies.rules.get(rule)?;
    let (local, remote) = shared.selectors(rule, sa.user.as_ref(), Some(sa.assignment.lease));
    let Action::Protect(protect) = &rule.action else { return None };
    let rule = RuleSelectors { rule: &rule.name, local, remote, mode: protect.mode };
    let single = what == NotifyType::SINGLE_PAIR_REQUIRED;
    let cause = if single { Cause::SinglePairByPeer } else { Cause::SelectorsByPeer };
    Some(selectors::offered(&rule).said(cause, what))
}

/// The mode does not fit.
fn mode(peer: Option<&PeerConfig>, rule: Option<&RuleName>, ours: &str, theirs: &str) -> Refusal {
    let (ours, theirs) = ([ours.to_owned()], [theirs.to_owned()]);
    let fields = vec![Field::new(FieldName::Mode, ours, theirs, Some(false))];
    let peer = peer.map(|p| PeerName::clone(&p.name));
    let candidate = Candidate { peer, rule: rule.cloned(), fields, ..Candidate::default() };
    Refusal::nearest(vec![candidate], 0, |_| Cause::Mode)
}

/// The peer has as many Child SAs as it may have, or more.
fn too_many(cause: Cause, peer: Option<&PeerConfig>, limit: usize, present: usize) -> Refusal {
    let (ours, theirs) = ([limit.to_string()], [present.to_string()]);
    let fields = vec![Field::new(FieldName::ChildSas, ours, theirs, Some(false))];
    let peer = peer.map(|p| PeerName::clone(&p.name));
    Refusal::nearest(vec![Candidate { peer, fields, ..Candidate::default() }], 0, |_| cause)
}

fn proposals_refused(peer: Option<&PeerConfig>) -> Refusal {
    let offers: Vec<_> = peer.into_iter().map(Offer::ike).collect();
    proposals::offered(&offers).said(Cause::ProposalByPeer, NotifyType::NO_PROPOSAL_CHOSEN)
}

#[cfg(test)]
mod tests;
