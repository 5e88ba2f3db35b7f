//! Keys from what a CREATE_CHILD_SA exchange, and those of IKE_FOLLOWUP_KE after it, have agreed on:
//! the one place where those of Child SAs and of successors of an IKE SA come from (RFC 7296 2.17,
//! 2.18, RFC 9370 2.2.4).

use gateway_wire::IkeSpi;

use crate::algorithms::{EspSuite, IkeSuite};
use crate::channel::Channel;
use crate::error::Error;
use crate::keys::ChildKeys;

/// What an exchange has agreed on.
#[derive(Clone, Copy)]
pub(super) struct Agreed<'a> {
    /// The secret of its own key exchange, if it had one.
    secret: Option<&'a [u8]>,
    /// Those of the additional key exchanges, one after the other.
    additional: &'a [u8],
    initiator_nonce: &'a [u8],
    responder_nonce: &'a [u8],
}

impl<'a> Agreed<'a> {
    /// The nonces are those of the initiator and of the responder of the exchange.
    pub(super) const fn new(secret: Option<&'a [u8]>, nonces: (&'a [u8], &'a [u8])) -> Self {
        Self { secret, additional: &[], initiator_nonce: nonces.0, responder_nonce: nonces.1 }
    }

    /// With the secrets of additional key exchanges, one after the other.
    pub(super) const fn with_additional(self, additional: &'a [u8]) -> Self {
        Self { additional, ..self }
    }

    /// The keys of a Child SA that the exchange makes on an IKE SA.
    pub(super) fn child_keys(&self, ike_sa: &Channel, suite: EspSuite) -> ChildKeys {
        ChildKeys::derive(
            ike_sa.suite.prf,
            ike_sa.keys.sk_d(),
            self.secret,
            self.initiator_nonce,
            self.responder_nonce,
            self.additional,
            suite,
        )
    }

    /// The IKE SA that takes the place of `old`. `initiator`: whether we began the exchange, which
    /// makes us the original initiator of the new IKE SA (RFC 7296 2.18).
    pub(super) fn successor(
        &self,
        old: &Channel,
        spis: (IkeSpi, IkeSpi),
        initiator: bool,
        suite: IkeSuite,
    ) -> Result<Channel, Error> {
        let secret = self.secret.ok_or(Error::Internal("no secret for the new IKE SA"))?;
        let keys = old.keys.derive_rekeyed(
            old.suite.prf,
            suite,
            secret,
            self.initiator_nonce,
            self.responder_nonce,
            self.additional,
            spis.0,
            spis.1,
        );
        let mut successor = Channel::rekeyed(spis, initiator, suite, keys)?;
        successor.set_fragmentation(old.fragmentation());
        successor.inherit_ids_agreement(old);
        Ok(successor)
    }

    /// The nonce by which two exchanges that replaced the same SA are compared: the SA made with
    /// the lowest of all four is the redundant one (RFC 7296 2.8.1).
    pub(super) fn lowest_nonce(&self) -> &'a [u8] {
        self.initiator_nonce.min(self.responder_nonce)
    }
}
