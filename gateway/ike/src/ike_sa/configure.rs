//! Addresses for a peer that asks for some in IKE_AUTH, and those that we ask for ourselves
//! (RFC 7296 2.19, 3.15).

use gateway_wire::Configuration;

use std::time::Instant;

use super::IkeSa;
use super::offer::ChildOffer;
use crate::assignment::{Assignment, Bounds, ConfigurationFault};
use crate::config::{EndpointConfig, PeerConfig, PeerName};
use crate::counters::Counter;
use crate::error::Error;
use crate::event::EventKind;
use crate::leases::{self, Holder, Lease, Reply};
use crate::payloads::Payloads;
use crate::shared::Shared;

impl IkeSa {
    /// Responder: the addresses of the peer's pool, if it has one. A peer without one is not
    /// answered about addresses.
    ///
    /// # Errors
    /// There is to be no Child SA; the IKE SA stands (RFC 7296 3.15.4).
    pub(super) fn configure(
        &self,
        shared: &mut Shared,
        peer: &PeerConfig,
        request: Option<&Configuration<'_>>,
    ) -> Result<Option<Reply>, Error> {
        let Some(pool) = &peer.pool else { return Ok(None) };
        let wants = leases::wanted(request).ok_or(Error::AddressNotRequested)?;
        let holder = Holder { peer: PeerName::clone(&peer.name), user: self.user.clone() };
        let lease = shared.assign(pool, &holder, wants);
        if lease == Lease::default() {
            return Err(Error::NoAddress(pool.name.to_string()));
        }
        let addresses = lease.addresses().map(|a| a.to_string()).collect::<Vec<_>>().join(", ");
        let pool_name = pool.name.to_string();
        self.event(shared, EventKind::AddressesAssigned { addresses, pool: pool_name });
        Ok(Some(Reply::new(lease, pool)))
    }

    /// Initiator: what the responder answers to our request for addresses, if there was one.
    pub(super) fn read_assignment(
        &self,
        shared: &mut Shared,
        payloads: &Payloads<'_>,
    ) -> Result<Assignment, Error> {
        let families = self.peer.as_ref().map(|p| p.request_address).unwrap_or_default();
        if families.is_empty() {
            return Ok(Assignment::default());
        }
        let EndpointConfig { cfg_attribute_limit, name_server_limit, .. } = shared.config;
        let bounds = Bounds { attributes: cfg_attribute_limit, name_servers: name_server_limit };
        let read = Assignment::read(families, payloads.cp, bounds);
        if matches!(read, Err(ConfigurationFault::TooManyAttributes { .. })) {
            shared.count(Counter::CfgAttributeLimit);
        }
        let (found, left_out) = read?;
        if left_out > 0 {
            shared.count(Counter::NameServersLeftOut);
        }
        Ok(found)
    }

    /// Initiator: these are our addresses as long as the IKE SA, and its successors by rekeying.
    pub(super) fn accept_assignment(&mut self, shared: &mut Shared, given: Assignment) {
        if given != Assignment::default() {
            let words = |list: Vec<String>| list.join(", ");
            let addresses = words(given.lease.addresses().map(|a| a.to_string()).collect());
            let dns = words(given.dns.iter().map(ToString::to_string).collect());
            self.event(shared, EventKind::AddressesReceived { addresses, dns });
        }
        self.assignment = given;
    }

    /// Initiator: there is no first Child SA. An IKE SA without the addresses that the policy
    /// demands can never have one, since they are asked for once: it ends, and its rules begin
    /// anew when their time has come (RFC 7296 3.15.4).
    pub(super) fn end_without_address(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        offer: Option<ChildOffer>,
        error: Error,
    ) {
        shared.count(Counter::NoAddressReceived);
        let rule = offer.map(|offer| {
            shared.release_spi(offer.spi);
            offer.wish.rule
        });
        self.child_failed(shared, rule, false, error);
        self.delete_ike(now, shared, "the peer assigns us no address");
    }
}
