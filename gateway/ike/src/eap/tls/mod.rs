//! EAP-TLS (RFC 5216, with TLS 1.3 RFC 9190): both ends show certificates, and get a key. TLS
//! itself is [`Session`]'s; here is what EAP adds: pieces, the first word, and the last.
//!
//! The last word: with TLS 1.2 the authenticator speaks last, and its Finished says that it has
//! accepted the peer's certificate. With TLS 1.3 the peer does; so that it knows, the
//! authenticator adds one octet of data, 0 (RFC 9190 2.1.1), and the peer believes no success
//! before that.

mod piece;

use core::time::Duration;
use std::sync::{Arc, OnceLock};

use gateway_wire::EapType;

pub(super) use self::piece::Piece;
use self::piece::{Incoming, Outgoing};
use super::{EapTls, Fault, Limits, Method, Outcome, Round, Shown};
use crate::config::Identity;
use crate::crypto::tls::{Judge, Session};
use crate::crypto::x509::{CertificateFault, Trust};

/// The peer's end. `named`: the identities of which the authenticator's certificate must hold one.
pub(super) fn peer(
    config: Option<&EapTls>,
    named: Vec<Identity>,
    now: Option<Duration>,
    limits: Limits,
) -> Result<Tls, Fault> {
    let (config, now) = (config.ok_or(NO_CERTIFICATE)?, now.ok_or(NO_TIME)?);
    let judge = Arc::new(Names::new(config, named, now, limits));
    let session = Session::client(now, &config.credential, Arc::<Names>::clone(&judge))?;
    Ok(Tls::new(session, judge, false, limits.message))
}

/// The authenticator's end, and its first request.
pub(super) fn authenticator(
    config: Option<&EapTls>,
    named: Vec<Identity>,
    now: Option<Duration>,
    limits: Limits,
) -> Result<(Tls, Vec<u8>), Fault> {
    let (config, now) = (config.ok_or(NO_CERTIFICATE)?, now.ok_or(NO_TIME)?);
    let judge = Arc::new(Names::new(config, named, now, limits));
    let session = Session::server(now, &config.credential, Arc::<Names>::clone(&judge))?;
    Ok((Tls::new(session, judge, true, limits.message), Piece::START.encode()))
}

const NO_CERTIFICATE: Fault = Fault::NotConfigured("a certificate of our own");
const NO_TIME: Fault = Fault::NotConfigured("the time of day");

/// What a certificate may hold for an EAP identity, which is just a text (RFC 5216 5.2).
pub(super) fn named(identity: &str) -> Vec<Identity> {
    let name = identity.parse().ok().map(Identity::Dn);
    let address = identity.parse().ok().map(Identity::Address);
    let text = if identity.contains('@') {
        Identity::Email(identity.to_owned())
    } else {
        Identity::Fqdn(identity.to_owned())
    };
    name.into_iter().chain(address).chain([text]).collect()
}

/// One spelling of all that [`named`] takes for the same: names are compared without regard to case.
pub(super) fn canonical(identity: &str) -> String {
    let first = named(identity).into_iter().next();
    first.map_or_else(String::new, |name| name.to_string().to_lowercase())
}

/// Believes a certificate to which a chain of trust leads, and which holds one of these names.
struct Names {
    trust: Arc<Trust>,
    named: Vec<Identity>,
    now: Duration,
    limits: Limits,
    /// What has been believed.
    shown: OnceLock<Shown>,
}

impl Names {
    fn new(config: &EapTls, named: Vec<Identity>, now: Duration, limits: Limits) -> Self {
        Self { trust: Arc::clone(&config.trust), named, now, limits, shown: OnceLock::new() }
    }
}

impl Judge for Names {
    fn judge(&self, chain: &[&[u8]]) -> Result<(), CertificateFault> {
        let bounds = self.limits.certificates;
        let verified = self.trust.identify(chain, bounds, Some(self.now), &self.named)?;
        let chain = chain.iter().map(|der| der.to_vec()).collect();
        // TLS asks once in a conversation: there is no renegotiation.
        let _first = self.shown.set(Shown { verified, chain, named: self.named.clone() });
        Ok(())
    }
}

/// Either end.
pub(super) struct Tls {
    session: Session,
    judge: Arc<Names>,
    authenticator: bool,
    /// Octets that one TLS message of several pieces may have.
    limit: usize,
    begun: bool,
    incoming: Incoming,
    outgoing: Outgoing,
    /// What ends the conversation when all is sent.
    ending: Option<Fault>,
    outcome: Outcome,
}

impl Tls {
    fn new(session: Session, judge: Arc<Names>, authenticator: bool, limit: usize) -> Self {
        Self {
            session,
            judge,
            authenticator,
            limit,
            begun: authenticator,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            ending: None,
            outcome: Outcome::Open,
        }
    }

    /// What TLS makes of a whole message; an alert of ours still goes out.
    fn advance(&mut self, message: &[u8]) {
        let taken = self.session.feed(message);
        if let Err(fault) = taken {
            self.ending = Some(fault);
        } else if self.authenticator && self.session.is_established() {
            self.session.confirm();
        }
        self.outgoing = Outgoing::new(self.session.output());
    }

    /// Everything is said and acknowledged.
    fn conclude(&mut self) -> Result<(), Fault> {
        self.outcome = match self.ending.take() {
            Some(fault) => Outcome::Failed(fault),
            None if self.session.is_confirmed() => Outcome::Proven(Some(self.session.msk()?)),
            None => return Err(Fault::Unexpected("an empty EAP-TLS message")),
        };
        Ok(())
    }
}

impl Method for Tls {
    fn kind(&self) -> EapType {
        EapType::TLS
    }

    fn handle(&mut self, _round: &mut Round<'_>, data: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let piece = Piece::decode(data)?;
        if !self.begun {
            // RFC 5216 2.1.1: the authenticator's first message holds nothing else.
            if !piece.start {
                return Err(Fault::Unexpected("EAP-TLS without a start"));
            }
            self.begun = true;
            self.outgoing = Outgoing::new(self.session.output());
            return Ok(Some(self.outgoing.next()));
        }
        if piece.start {
            return Err(Fault::Unexpected("EAP-TLS started twice"));
        }
        if self.outgoing.is_under_way() {
            if !piece.is_empty() {
                return Err(Fault::Unexpected("EAP-TLS data where an acknowledgement is due"));
            }
            return Ok(Some(self.outgoing.next()));
        }
        if self.authenticator && (piece.is_empty() || self.ending.is_some()) {
            self.conclude()?;
            return Ok(None);
        }
        let Some(message) = self.incoming.push(&piece, self.limit)? else {
            return Ok(Some(Piece::EMPTY.encode()));
        };
        self.advance(&message);
        if self.authenticator && !self.outgoing.is_under_way() {
            // The peer has sent an alert, or said its last: there is nothing to add.
            self.conclude()?;
            return Ok(None);
        }
        if !self.authenticator && (self.ending.is_some() || self.session.is_confirmed()) {
            self.conclude()?;
        }
        Ok(Some(self.outgoing.next()))
    }

    fn outcome(&self) -> Outcome {
        match (&self.outcome, &self.ending) {
            (Outcome::Open, Some(fault)) => Outcome::Failing(fault.clone()),
            (outcome, _) => outcome.clone(),
        }
    }

    fn shown(&self) -> Option<Box<Shown>> {
        self.judge.shown.get().cloned().map(Box::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_certificate_has_one_spelling() {
        for (one, other) in [
            ("Alice@Example.Org", "alice@example.org"),
            ("GATE.example", "gate.example"),
            ("CN=Alice, O=Example", "cn=Alice,o=Example"),
            ("2001:DB8::1", "2001:db8:0::1"),
        ] {
            assert_eq!(canonical(one), canonical(other));
        }
        assert_ne!(canonical("alice@example.org"), canonical("alice.example.org"));
    }
}
