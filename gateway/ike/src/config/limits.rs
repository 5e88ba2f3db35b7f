//! Limits of the endpoint that do not belong to a peer.

use core::time::Duration;

/// Limits of the endpoint that do not belong to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// First retransmission after this long; each further one after `backoff` times as long.
    pub retransmit_initial: Duration,
    /// Factor between two retransmissions in percent (180: 1.8 times).
    pub retransmit_factor_percent: u32,
    /// Retransmissions before a peer is given up.
    pub retransmit_tries: u32,
    /// A half-open IKE SA that we answered is dropped after this long.
    pub half_open_timeout: Duration,
    /// Octets of an IKE_SA_INIT message above which it is dropped: what is half-open keeps it whole.
    pub init_size_limit: usize,
    /// Half-open IKE SAs above which an initiator must return a cookie (RFC 7296 2.6).
    pub cookie_threshold: usize,
    /// Whether somebody in front of us demands cookies in our stead, and is to be told the secrets.
    pub shares_cookies: bool,
    /// Half-open IKE SAs above which who has returned a cookie takes the place of another: of the
    /// oldest of the address, or /48 of IPv6, that has most.
    pub half_open_limit: usize,
    /// Half-open IKE SAs of one address, or of one /64 of IPv6, above which each of its requests
    /// must return a cookie; and those that did, above which more are dropped.
    pub half_open_address_limit: usize,
    /// EAP must end after this long.
    pub eap_timeout: Duration,
    /// Messages of the other end above which EAP is given up.
    pub eap_round_limit: u32,
    /// Octets of one TLS message of EAP-TLS.
    pub eap_message_limit: usize,
    /// IKE SAs above which requests for new ones are dropped.
    pub ike_sa_limit: usize,
    /// IKE SAs with one peer, or with one of its users, above which the oldest is deleted; at least
    /// 2, since one that is made anew stands beside the old one for a while.
    pub peer_ike_sa_limit: usize,
    /// What waits to be done on one IKE SA (Child SAs to be made and deleted), above which no more
    /// is taken on.
    pub job_limit: usize,
    /// Errors a second that are answered to messages that nothing protects (RFC 7296 2.21.4).
    pub unprotected_answers_per_second: u32,
    /// Child SAs on one IKE SA above which the peer is refused more (NO_ADDITIONAL_SAS); it may
    /// replace those that it has.
    pub child_sa_limit: usize,
    /// Child SAs with one peer, or with one of its users, over all its IKE SAs, above which it is
    /// refused more likewise, the one that an IKE SA begins with too.
    pub peer_child_sa_limit: usize,
    /// How long a positive answer may wait for the kernel.
    pub install_timeout: Duration,
    /// The replay window that we ask the kernel for, in packets.
    pub replay_window: u32,
    /// Behind NAT, after this long without an IKE message of ours, a keepalive is sent
    /// (RFC 3948 4); zero: never.
    pub keepalive_interval: Duration,
    /// Whether the kernel can send keepalives for an SA ([`crate::io::Encapsulation::keepalive`]):
    /// then it does while an IKE SA has a Child SA, after as long without a packet of that.
    pub kernel_keepalives: bool,
    /// An IKE message that would make a longer IP packet is sent in fragments, if the peer can
    /// (RFC 7383), each in a packet of at most so many octets; at least [`SMALLEST_FRAGMENT`].
    /// Zero: nothing is fragmented, in neither direction.
    pub fragment_size: usize,
    /// Octets that we keep, for each IKE SA and direction, of a message whose fragments have not
    /// all come; and those that a message which is not fragmented may have until the IKE SA that
    /// somebody has begun with us is established.
    pub reassembly_limit: usize,
    /// How long it may take, from the first fragment of a message that comes, until all have come.
    pub reassembly_timeout: Duration,
    /// Certificates that a peer may send, its own included; 7 at most make a chain, since webpki
    /// takes no more than six of authorities.
    pub certificate_chain_limit: usize,
    /// Octets that each of them may have.
    pub certificate_size_limit: usize,
    /// Proposals and transforms of an IKE_SA_INIT request, together, above which it is refused
    /// unseen: what is refused costs the more the more there are, since all of ours are compared
    /// with them.
    pub init_transform_limit: usize,
    /// Initiators that were refused whose requests may come again; of more the oldest are forgotten.
    pub refused_initiator_limit: usize,
    /// Octets of the text of one [`crate::reason::Refusal`]; candidates above that are left out, but
    /// for the nearest.
    pub refusal_size_limit: usize,
    /// Old keys of one IKE SA that the peer does not delete; of more the oldest are forgotten.
    pub old_keys_limit: usize,
    /// Pairs of prefixes of one Child SA above which it is refused, since each becomes three kernel
    /// policies; at least [`super::Rule::MAX_PAIRS`], so that every rule can be agreed on whole.
    pub selector_pair_limit: usize,
    /// What a peer has begun with additional key exchanges and is to go on with (IKE_FOLLOWUP_KE);
    /// of more the oldest is forgotten. A peer with a window of one message has use for one.
    pub followup_ke_limit: usize,
    /// Other addresses of a MOBIKE peer that are kept; of ours as many are told.
    pub peer_address_limit: usize,
    /// Attributes of a CFG_REPLY above which it is refused.
    pub cfg_attribute_limit: usize,
    /// Name servers that are kept of a CFG_REPLY.
    pub name_server_limit: usize,
    /// SPIs that a peer deletes while it owes us the answer that may make one of them; of more the
    /// oldest are forgotten.
    pub deleted_spi_limit: usize,
}

/// The smallest [`EndpointConfig::fragment_size`] but zero: it leaves room for some octets beside
/// the headers.
pub const SMALLEST_FRAGMENT: usize = 200;

impl EndpointConfig {
    /// The time from a request to the moment when its sender gives the peer up.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let (mut total, mut interval) = (Duration::ZERO, self.retransmit_initial);
        for _ in 0..=self.retransmit_tries {
            total = total.saturating_add(interval);
            let longer = interval.saturating_mul(self.retransmit_factor_percent);
            interval = longer.checked_div(100).unwrap_or(longer);
        }
        total
    }
}

impl Default for EndpointConfig {
    /// Retransmits after 1, 1.8, 3.2 … s, and gives up after about a minute and a half.
    fn default() -> Self {
        Self {
            retransmit_initial: Duration::from_secs(1),
            retransmit_factor_percent: 180,
            retransmit_tries: 6,
            half_open_timeout: Duration::from_secs(30),
            init_size_limit: 8192,
            cookie_threshold: 64,
            shares_cookies: false,
            half_open_limit: 4096,
            half_open_address_limit: 256,
            eap_timeout: Duration::from_secs(60),
            eap_round_limit: 50,
            eap_message_limit: 65_536,
            ike_sa_limit: 65_536,
            peer_ike_sa_limit: 64,
            job_limit: 16_384,
            unprotected_answers_per_second: 100,
            child_sa_limit: 256,
            peer_child_sa_limit: 1024,
            install_timeout: Duration::from_secs(5),
            replay_window: 1024,
            keepalive_interval: Duration::from_secs(20),
            kernel_keepalives: false,
            // RFC 7383 2.5.1: the smallest MTU of IPv6, which IPv4 has nearly everywhere too.
            fragment_size: 1280,
            reassembly_limit: 32_768,
            reassembly_timeout: Duration::from_secs(60),
            certificate_chain_limit: 7,
            certificate_size_limit: 16_384,
            init_transform_limit: 512,
            refused_initiator_limit: 256,
            refusal_size_limit: 16_384,
            old_keys_limit: 4,
            selector_pair_limit: 64,
            followup_ke_limit: 4,
            peer_address_limit: 8,
            cfg_attribute_limit: 64,
            name_server_limit: 8,
            deleted_spi_limit: 16,
        }
    }
}

/// From what on somebody in front of an endpoint keeps IKE_SA_INIT requests, and what is no IKEv2,
/// from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitLimits {
    /// IKE_SA_INIT requests a second, of all, above which each must return a cookie; as many at
    /// once. 0: no limit.
    pub init_rate: u32,
    /// IKE_SA_INIT requests a second of one prefix above which each must return a cookie; and of one
    /// address (IPv6: of one /64) those that do, above which they are dropped. 0: no limit.
    pub prefix_rate: u32,
    /// How many of them may come at once.
    pub prefix_burst: u32,
    /// The bits of such a prefix of IPv4.
    pub prefix_v4: u8,
    /// The bits of such a prefix of IPv6.
    pub prefix_v6: u8,
    /// Messages of other versions a second that pass; as many at once. Not 0.
    pub other_version_rate: u32,
}

impl Default for InitLimits {
    fn default() -> Self {
        Self {
            init_rate: 200,
            prefix_rate: 100,
            prefix_burst: 200,
            prefix_v4: 24,
            prefix_v6: 56,
            other_version_rate: 100,
        }
    }
}
