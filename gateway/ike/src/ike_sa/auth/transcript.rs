//! What AUTH covers.

use gateway_wire::HashAlgorithm;

use crate::channel::Channel;
use crate::keys::signed_octets;

/// What IKE_SA_INIT leaves for AUTH and for the first Child SA's keys.
pub(crate) struct Transcript {
    /// The request as it was sent last: with the cookie, if there was one.
    pub(in crate::ike_sa) request: Vec<u8>,
    pub(in crate::ike_sa) response: Vec<u8>,
    pub(in crate::ike_sa) initiator_nonce: Vec<u8>,
    pub(in crate::ike_sa) responder_nonce: Vec<u8>,
    /// What authenticates the IKE_INTERMEDIATE messages (RFC 9242 3.3.2); empty without any.
    pub(in crate::ike_sa) int_auth: Vec<u8>,
    /// Whether both ends have said that they use PPKs (RFC 8784 3).
    pub(in crate::ike_sa) use_ppk: bool,
    /// The hashes that the peer can verify signatures with, if it knows RFC 7427.
    pub(in crate::ike_sa) peer_hashes: Option<Vec<HashAlgorithm>>,
}

impl Transcript {
    /// The octets that the AUTH of the initiator (`initiator`) or of the responder covers,
    /// whatever its method.
    pub(super) fn signed_octets(
        &self,
        channel: &Channel,
        initiator: bool,
        id_body: &[u8],
    ) -> Vec<u8> {
        let (sk_p, message, nonce) = if initiator {
            (channel.keys.sk_pi(), &self.request, &self.responder_nonce)
        } else {
            (channel.keys.sk_pr(), &self.response, &self.initiator_nonce)
        };
        signed_octets(channel.suite.prf, sk_p, message, nonce, id_body, &self.int_auth)
    }
}
