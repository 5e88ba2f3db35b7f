//! The causes of refusals: each has a name in status, in the log and among the counters.

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A proposal: the algorithms.
    Proposal,
    /// Traffic selectors, or the mode.
    Selectors,
    /// An identity.
    Identity,
    /// The proof of an identity.
    Authentication,
    /// One Child SA too many.
    Limit,
}

impl Kind {
    /// In status and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proposal => "proposal",
            Self::Selectors => "selectors",
            Self::Identity => "identity",
            Self::Authentication => "authentication",
            Self::Limit => "limit",
        }
    }
}

macro_rules! causes {
    ($($variant:ident($kind:ident, $name:literal, $words:literal),)*) => {
        /// What was missing, or wrong: the first thing that would have to change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Cause { $(#[doc = $words] $variant,)* }

        impl Cause {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// In status and in the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The name of its counter.
            #[must_use]
            pub const fn counter(self) -> &'static str {
                match self { $(Self::$variant => concat!("refused_", $name),)* }
            }

            /// What was refused.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// In words.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }
        }
    };
}

causes! {
    NoPeer(Proposal, "proposal_no_peer", "no peer is configured for these addresses"),
    Protocol(Proposal, "proposal_protocol", "the peer proposes another protocol"),
    Spi(Proposal, "proposal_spi", "the peer proposes an SPI that is none"),
    Encryption(Proposal, "proposal_encryption", "no common encryption algorithm"),
    Integrity(Proposal, "proposal_integrity", "no common integrity algorithm"),
    Prf(Proposal, "proposal_prf", "no common pseudo-random function"),
    KeyExchange(Proposal, "proposal_key_exchange", "no common key exchange method"),
    AdditionalKeyExchange(
        Proposal,
        "proposal_additional_key_exchange",
        "no common additional key exchange"
    ),
    Esn(Proposal, "proposal_esn", "the peer does not say which sequence numbers it wants"),
    UnknownTransform(
        Proposal,
        "proposal_unknown_transform",
        "the peer proposes a transform of a type that is not known here"
    ),
    Combination(
        Proposal,
        "proposal_combination",
        "each algorithm has a match, and no proposal has them all"
    ),
    NotQuantumSafe(Proposal, "proposal_not_quantum_safe", "the IKE SA is not quantum-safe"),
    Childless(
        Proposal,
        "proposal_childless",
        "the peer wants the first Child SA in IKE_AUTH"
    ),
    ProposalByPeer(Proposal, "proposal_by_peer", "the peer accepts none of our proposals"),
    NoRule(Selectors, "selectors_no_rule", "no rule protects traffic with this peer"),
    LocalAddresses(Selectors, "selectors_local_addresses", "no common addresses on our side"),
    RemoteAddresses(
        Selectors,
        "selectors_remote_addresses",
        "no common addresses on the peer's side"
    ),
    SelectorProtocol(Selectors, "selectors_protocol", "no common IP protocol"),
    Ports(Selectors, "selectors_ports", "no common ports"),
    SelectorCombination(
        Selectors,
        "selectors_combination",
        "addresses, protocols and ports have something in common, but no selector as a whole, or too many"
    ),
    Mode(Selectors, "selectors_mode", "the mode does not fit"),
    SinglePairByPeer(
        Selectors,
        "selectors_single_pair_by_peer",
        "the peer takes a single pair of addresses only"
    ),
    SelectorsByPeer(Selectors, "selectors_by_peer", "the peer accepts none of our selectors"),
    UnknownIdentity(Identity, "identity_unknown", "no peer has the identity"),
    OtherIdentity(Identity, "identity_other", "the peer says that it is somebody else"),
    IdentityNotInCertificate(
        Identity,
        "identity_not_in_certificate",
        "the certificate does not hold the identity"
    ),
    Method(Authentication, "authentication_method", "the method of authentication does not fit"),
    SharedKey(Authentication, "authentication_shared_key", "the pre-shared key is another"),
    Scheme(Authentication, "authentication_scheme", "the way of signing does not fit"),
    Signature(Authentication, "authentication_signature", "the signature is wrong"),
    PublicKey(Authentication, "authentication_public_key", "the public key is another"),
    Ppk(Authentication, "authentication_ppk", "the post-quantum pre-shared key is not used"),
    Eap(Authentication, "authentication_eap", "EAP failed"),
    EapLimit(Authentication, "authentication_eap_limit", "EAP takes too many messages, or too long ones"),
    Absent(Authentication, "certificate_absent", "there is no certificate"),
    Malformed(Authentication, "certificate_malformed", "a certificate does not decode"),
    Key(Authentication, "certificate_key", "the key of a certificate is of no use"),
    Limit(Authentication, "certificate_limit", "there are too many certificates, or too large ones"),
    Validity(Authentication, "certificate_validity", "a certificate is not valid now"),
    Chain(Authentication, "certificate_chain", "no chain leads to a trusted authority"),
    Revocation(
        Authentication,
        "certificate_revocation",
        "a certificate is revoked, or it is not known whether it is"
    ),
    Usage(Authentication, "certificate_usage", "a certificate is for other purposes"),
    NameConstraints(
        Authentication,
        "certificate_name_constraints",
        "the name constraints of an authority exclude the certificate"
    ),
    CertifiedBy(
        Authentication,
        "certificate_signature",
        "the signature on a certificate is wrong, or of an algorithm that is not accepted"
    ),
    OtherCertificate(Authentication, "certificate_other", "a certificate is not believed"),
    AuthenticationByPeer(
        Authentication,
        "authentication_by_peer",
        "the peer does not believe who we are"
    ),
    ChildSas(Limit, "limit_child_sas", "the peer has too many Child SAs on the IKE SA"),
    ChildSasOfPeer(
        Limit,
        "limit_child_sas_of_peer",
        "the peer has too many Child SAs on all its IKE SAs"
    ),
    LimitByPeer(Limit, "limit_by_peer", "the peer takes no more Child SAs"),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cause_has_a_name_and_a_counter_of_its_own() {
        let names: BTreeSet<_> = Cause::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
        for cause in Cause::ALL {
            assert_eq!(cause.counter(), format!("refused_{}", cause.name()));
            assert!(!cause.words().is_empty());
        }
    }
}
