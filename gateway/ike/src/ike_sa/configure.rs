//! Addresses for a peer that asks for some in IKE_AUTH (RFC 7296 2.19, 3.15).

use gateway_wire::Configuration;

use super::IkeSa;
use crate::config::{PeerConfig, PeerName};
use crate::error::Error;
use crate::event::EventKind;
use crate::leases::{self, Holder, Lease, Reply};
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
}
