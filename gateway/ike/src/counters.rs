//! What happened how often: every message that is dropped without a trace leaves one here.

use std::collections::BTreeMap;

use crate::reason::Cause;

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Something that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Counter { $($(#[$doc])* $variant,)* }

        /// How often each thing has happened since the start.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[expect(non_snake_case, reason = "the fields are the variants of Counter")]
        pub struct Counters {
            $($variant: u64,)*
            refusals: BTreeMap<Cause, u64>,
        }

        impl Counters {
            /// Counts one.
            pub fn count(&mut self, counter: Counter) {
                let value = match counter { $(Counter::$variant => &mut self.$variant,)* };
                *value = value.saturating_add(1);
            }

            /// How often this has happened.
            #[must_use]
            pub const fn value(&self, counter: Counter) -> u64 {
                match counter { $(Counter::$variant => self.$variant,)* }
            }

            /// Every counter with its name in status and metrics.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                let refusals = Cause::ALL.iter().map(|c| (c.counter(), self.refusals(*c)));
                [$(($name, self.$variant),)*].into_iter().chain(refusals)
            }

            /// Counts a refusal by its cause.
            pub(crate) fn count_refusal(&mut self, cause: Cause) {
                let value = self.refusals.entry(cause).or_default();
                *value = value.saturating_add(1);
            }

            /// How often something was refused for this cause.
            #[must_use]
            pub fn refusals(&self, cause: Cause) -> u64 {
                self.refusals.get(&cause).copied().unwrap_or(0)
            }
        }
    };
}

counters! {
    /// A datagram is no IKE message.
    MalformedHeader => "ike_malformed_header",
    /// A message of IKEv1.
    IkeV1 => "ike_version_1",
    /// A message of a major version above 2.
    LaterVersion => "ike_later_version",
    /// A message for an IKE SA that we do not have.
    UnknownIkeSpi => "ike_unknown_spi",
    /// An error was not answered, since strangers got too many of such answers already.
    UnprotectedAnswerLimited => "ike_unprotected_answer_limited",
    /// A message that does not authenticate.
    NotAuthentic => "ike_not_authentic",
    /// A message outside the window, or a response to nothing.
    OutsideWindow => "ike_outside_window",
    /// A request that was answered before and got the same answer again.
    Retransmission => "ike_retransmission_answered",
    /// A request that was sent again.
    Retransmitted => "ike_request_retransmitted",
    /// A peer has gone on from other message IDs, after a failover in its cluster.
    MessageIdsSet => "ike_message_ids_set",
    /// An authentic request to go on from other message IDs was malformed or not new.
    MessageIdsNotSet => "ike_message_ids_not_set",
    /// A fragment of a message that is not whole yet.
    FragmentReceived => "ike_fragment_received",
    /// A fragment that was there already, or belongs to a request that has been answered.
    FragmentDuplicate => "ike_fragment_duplicate",
    /// A fragment that does not belong to the others.
    FragmentMismatch => "ike_fragment_mismatch",
    /// A message dropped because it has too many fragments, or too many octets, in fragments or
    /// before its sender is authenticated.
    FragmentLimit => "ike_fragment_limit",
    /// A message dropped because the rest of its fragments did not come in time.
    FragmentTimeout => "ike_fragment_timeout",
    /// A fragment on an IKE SA on which nobody fragments.
    FragmentNotNegotiated => "ike_fragment_not_negotiated",
    /// A message that was sent in fragments.
    MessageFragmented => "ike_message_fragmented",
    /// A keepalive was sent, because we are behind NAT.
    KeepaliveSent => "ike_keepalive_sent",
    /// An IKE SA goes on between other addresses or ports, and its Child SAs with it.
    PathChanged => "ike_path_changed",
    /// A Child SA could not go where its IKE SA went.
    ChildSaNotMoved => "child_sa_not_moved",
    /// ESP of a Child SA came from elsewhere than before.
    EspSourceChanged => "esp_source_change_seen",
    /// A peer was asked where its ESP came from.
    EspSourceProbed => "esp_source_probed",
    /// ESP came from where its peer was not found.
    EspSourceUnanswered => "esp_source_unanswered",
    /// Addresses were refused, by us or by the peer.
    AddressRefused => "mobike_addresses_refused",
    /// An IKE SA was begun anew with another address of the peer.
    OtherAddressTried => "ike_other_address_tried",
    /// Our address was gone, and no other led to the peer.
    AddressLost => "mobike_address_lost",
    /// A peer has told more addresses than are kept.
    AddressesLeftOut => "mobike_addresses_left_out",
    /// A peer that allows no NAT has come through one.
    NatUnexpected => "mobike_nat_unexpected",
    /// A peer did not show that it is where it says.
    PathCheckFailed => "mobike_path_check_failed",
    /// A peer was shown that we have lost an IKE SA.
    CrashTokenShown => "ike_crash_token_shown",
    /// Somebody claims that a peer has lost an IKE SA, and cannot prove it.
    CrashTokenForged => "ike_crash_token_forged",
    /// A peer has proved that it has lost an IKE SA.
    PeerCrashed => "ike_peer_crashed",
    /// An authenticated message that breaks the protocol.
    InvalidMessage => "ike_invalid_message",
    /// An IKE_SA_INIT message that breaks the protocol.
    InvalidInit => "ike_invalid_init",
    /// An IKE_SA_INIT message dropped because of its size.
    InitSizeLimit => "ike_init_size_limit",
    /// An IKE_SA_INIT request refused because it proposes more than is looked at.
    TransformLimit => "ike_init_transform_limit",
    /// A half-open SA gave its place to another initiator, because there are too many.
    HalfOpenLimit => "ike_half_open_limit",
    /// An IKE_SA_INIT request dropped because its address has too many half-open SAs.
    HalfOpenAddressLimit => "ike_half_open_address_limit",
    /// An IKE_SA_INIT request dropped because there are too many IKE SAs.
    IkeSaLimit => "ike_sa_limit",
    /// An IKE SA was deleted because its peer, or user, has too many.
    PeerIkeSaLimit => "ike_peer_sa_limit",
    /// Somebody was refused, and so many after it that a repeated request will get no answer.
    RefusedForgotten => "ike_refused_forgotten",
    /// Old keys of an IKE SA were forgotten, since the peer deletes none of them.
    OldKeysForgotten => "ike_old_keys_forgotten",
    /// A cookie was demanded.
    CookieDemanded => "ike_cookie_demanded",
    /// A cookie was wrong or too old.
    CookieInvalid => "ike_cookie_invalid",
    /// A half-open SA got no IKE_AUTH in time.
    HalfOpenTimeout => "ike_half_open_timeout",
    /// EAP began, in either role.
    EapStarted => "eap_started",
    /// EAP ended well.
    EapSucceeded => "eap_succeeded",
    /// EAP failed.
    EapFailed => "eap_failed",
    /// EAP did not end in time.
    EapTimeout => "eap_timeout",
    /// A peer was not authenticated.
    AuthenticationFailed => "ike_authentication_failed",
    /// A CERT payload in an encoding that we make nothing of, such as hash and URL.
    CertificateIgnored => "ike_certificate_ignored",
    /// No common proposal.
    NoProposalChosen => "ike_no_proposal_chosen",
    /// No rule covers the selectors.
    TsUnacceptable => "ike_ts_unacceptable",
    /// The record of a refusal was too large, and what is least near was left out.
    RefusalShortened => "refusals_shortened",
    /// A peer has told more name servers than are kept.
    NameServersLeftOut => "ike_name_servers_left_out",
    /// A CFG_REPLY was refused because it has too many attributes.
    CfgAttributeLimit => "ike_cfg_attribute_limit",
    /// A peer has deleted so many SAs while it owed us an answer that one of them was forgotten.
    DeletedSpiForgotten => "ike_deleted_spi_forgotten",
    /// A peer gave us no address, or none that we could use.
    NoAddressReceived => "ike_no_address_received",
    /// An IKE SA was established.
    IkeSaEstablished => "ike_sa_established",
    /// An IKE SA was given up because the peer did not answer.
    PeerDead => "ike_peer_dead",
    /// A Child SA was installed.
    ChildSaInstalled => "child_sa_installed",
    /// A Child SA was replaced by a successor.
    ChildSaRekeyed => "child_sa_rekeyed",
    /// A Child SA reached a hard limit before it had a successor.
    ChildSaExpired => "child_sa_expired",
    /// An IKE SA got new keys.
    IkeSaRekeyed => "ike_sa_rekeyed",
    /// Both ends replaced the same SA at once, and one of the two successors was given up.
    RekeyCollision => "ike_rekey_collision",
    /// A request was put off because of what is under way here.
    TemporaryFailure => "ike_temporary_failure",
    /// IKE_FOLLOWUP_KE that belongs to nothing here, or to nothing any more.
    StateNotFound => "ike_state_not_found",
    /// A peer has begun so much with additional key exchanges that the oldest was forgotten.
    FollowUpForgotten => "ike_followup_ke_forgotten",
    /// A peer has begun additional key exchanges and did not go on with them in time.
    FollowUpTimeout => "ike_followup_ke_timeout",
    /// Something was not done on an IKE SA, since too much waits there already.
    JobLimit => "ike_job_limit",
    /// A Child SA was refused, or not asked for, because the peer has as many as it may have.
    NoAdditionalSas => "ike_no_additional_sas",
    /// The same because the peer has as many on all its IKE SAs as it may have.
    PeerChildSaLimit => "ike_peer_child_sa_limit",
    /// A Child SA was not asked for, since those that packets have asked for beside the first of their
    /// rules are as many as they may be.
    RuleChildSaLimit => "ike_rule_child_sa_limit",
    /// The kernel has an SA of somebody else with the SPI that we chose: another was taken.
    SpiTaken => "child_sa_spi_taken",
    /// A Child SA could not be made, or is nothing new.
    ChildSaFailed => "child_sa_failed",
    /// A Child SA was removed.
    ChildSaRemoved => "child_sa_removed",
    /// The kernel asked for an SA.
    Acquire => "acquire",
    /// The kernel asked for an SA that is already being made, or that we cannot make.
    AcquireIgnored => "acquire_ignored",
}
