//! Sets of algorithms: what a proposal offers, and what was chosen of it.

use core::fmt;
use core::iter;
use std::collections::BTreeMap;

use super::{Encryption, Group, Integrity, Prf, Round};

/// The additional key exchanges that a proposal offers: for each place the methods that we
/// accept there, best first. `None` among them: it may also be left out.
pub type AdditionalOffer = BTreeMap<Round, Vec<Option<Group>>>;

/// The additional key exchanges that were negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Additional([Option<Group>; Round::ALL.len()]);

impl Additional {
    /// None.
    pub const NONE: Self = Self([None; Round::ALL.len()]);

    /// With one more; another in the same place is replaced.
    #[must_use]
    pub fn with(mut self, round: Round, group: Group) -> Self {
        for (place, at) in self.0.iter_mut().zip(Round::ALL) {
            if *at == round {
                *place = Some(group);
            }
        }
        self
    }

    /// The method in a place.
    #[must_use]
    pub fn at(self, round: Round) -> Option<Group> {
        self.iter().find(|(at, _)| *at == round).map(|(_, group)| group)
    }

    /// They, in the order in which they are done.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = (Round, Group)> {
        let all = Round::ALL.iter().copied().zip(self.0);
        all.filter_map(|(round, group)| Some((round, group?)))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }
}

/// One proposal for an IKE SA: for each kind the algorithms we accept, best first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IkeProposal {
    /// Encryption; either all AEAD or none (RFC 7296 3.3: two proposals otherwise).
    pub encryption: Vec<Encryption>,
    /// Integrity; empty exactly when encryption is AEAD.
    pub integrity: Vec<Integrity>,
    /// Pseudo-random functions.
    pub prf: Vec<Prf>,
    /// Key exchange methods; the first is the one we send a KE payload for.
    pub groups: Vec<Group>,
    /// Additional key exchanges (RFC 9370).
    pub additional: AdditionalOffer,
}

impl IkeProposal {
    /// Whether SHA-1 may be chosen from it, in any place.
    #[must_use]
    pub fn has_sha1(&self) -> bool {
        let integrity = self.integrity.iter().any(|integrity| integrity.is_sha1());
        integrity || self.prf.iter().any(|prf| prf.is_sha1())
    }

    /// Whether whatever is chosen from it is quantum-safe.
    #[must_use]
    pub fn is_quantum_safe(&self) -> bool {
        let safe = |group: &Group| group.is_quantum_safe();
        let always = |methods: &Vec<Option<Group>>| {
            methods.iter().all(|method| method.as_ref().is_some_and(safe))
        };
        let exchanges = self.groups.iter().all(safe) || self.additional.values().any(always);
        exchanges && !self.has_sha1()
    }
}

/// One proposal for a Child SA: for each kind the algorithms we accept, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspProposal {
    /// Encryption; either all AEAD or none.
    pub encryption: Vec<Encryption>,
    /// Integrity; empty exactly when encryption is AEAD.
    pub integrity: Vec<Integrity>,
    /// Methods of a key exchange of the Child SA's own, in CREATE_CHILD_SA (RFC 7296 1.3.1): its
    /// keys then do not follow from those of the IKE SA (perfect forward secrecy). Empty: none.
    pub groups: Vec<Group>,
    /// Additional key exchanges beside one of these (RFC 9370 2.2.4).
    pub additional: AdditionalOffer,
    /// Whether a Child SA without a key exchange of its own will do all the same.
    pub pfs_optional: bool,
}

impl EspProposal {
    /// Whether SHA-1 may be chosen from it.
    #[must_use]
    pub fn has_sha1(&self) -> bool {
        self.integrity.iter().any(|integrity| integrity.is_sha1())
    }

    /// Whether it allows keys that follow from those of the IKE SA.
    #[must_use]
    pub const fn allows_no_group(&self) -> bool {
        self.groups.is_empty() || self.pfs_optional
    }
}

/// The key exchanges of a Child SA's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildKeyExchange {
    /// The method of CREATE_CHILD_SA.
    pub group: Group,
    /// Those of IKE_FOLLOWUP_KE.
    pub additional: Additional,
}

impl ChildKeyExchange {
    /// Whether one of them is safe, as it takes for [`IkeSuite::is_quantum_safe`].
    #[must_use]
    pub fn is_quantum_safe(&self) -> bool {
        let mut additional = self.additional.iter().map(|(_, group)| group);
        self.group.is_quantum_safe() || additional.any(Group::is_quantum_safe)
    }
}

/// What was negotiated for an IKE SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IkeSuite {
    /// Encryption of the SK payload.
    pub encryption: Encryption,
    /// Integrity of the SK payload; `None` exactly when encryption is AEAD.
    pub integrity: Option<Integrity>,
    /// Pseudo-random function for all key derivation and for AUTH.
    pub prf: Prf,
    /// Key exchange method of IKE_SA_INIT.
    pub group: Group,
    /// Additional key exchanges.
    pub additional: Additional,
}

impl IkeSuite {
    /// Every key exchange, in the order in which they are done.
    pub fn groups(&self) -> impl Iterator<Item = Group> {
        iter::once(self.group).chain(self.additional.iter().map(|(_, group)| group))
    }

    /// Whether SHA-1 is in it, in any place.
    #[must_use]
    pub fn has_sha1(&self) -> bool {
        self.prf.is_sha1() || self.integrity.is_some_and(Integrity::is_sha1)
    }

    /// Whether what is recorded today stays secret when there are quantum computers: one safe
    /// key exchange is enough (RFC 9370 2), if what makes keys of it is no weaker.
    #[must_use]
    pub fn is_quantum_safe(&self) -> bool {
        !self.has_sha1() && self.groups().any(Group::is_quantum_safe)
    }
}

/// What was negotiated for a Child SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EspSuite {
    /// Encryption of ESP.
    pub encryption: Encryption,
    /// Integrity of ESP; `None` exactly when encryption is AEAD.
    pub integrity: Option<Integrity>,
    /// Whether sequence numbers have 64 bits (RFC 4304).
    pub esn: bool,
}

impl EspSuite {
    /// Whether SHA-1 is in it.
    #[must_use]
    pub fn has_sha1(&self) -> bool {
        self.integrity.is_some_and(Integrity::is_sha1)
    }
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encryption)?;
        if let Some(integrity) = self.integrity {
            write!(f, "-{integrity}")?;
        }
        write!(f, "-{}-{}{}", self.prf, self.group, self.additional)
    }
}

/// As the end of a proposal, such as `-ke1_mlkem768`.
impl fmt::Display for Additional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(round, group)| write!(f, "-{round}_{group}"))
    }
}

impl fmt::Display for ChildKeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.group, self.additional)
    }
}

impl fmt::Display for EspSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encryption)?;
        if let Some(integrity) = self.integrity {
            write!(f, "-{integrity}")?;
        }
        if self.esn { f.write_str("-esn") } else { Ok(()) }
    }
}
