//! What the XDP program is told of IKE while the gateway runs.

use gateway_ike::config::InitLimits;
use gateway_ike::io::SharedCookies;
use tracing::warn;

use super::linux::LinuxKernel;
use crate::clock;

impl LinuxKernel {
    /// Has the XDP program keep to other limits.
    pub fn limit_init(&mut self, limits: InitLimits) {
        self.config.ike = limits;
        if let Some(cookies) = self.cookies.take() {
            self.share_cookies(&cookies);
        }
    }

    /// Has the XDP program demand and accept these cookies. Until it can, it goes on with those
    /// that it knows.
    pub fn share_cookies(&mut self, cookies: &SharedCookies) {
        self.cookies = Some(*cookies);
        let told = self.tables.data_path.protect_ike(&self.config.ike, cookies);
        if let Err(error) = told
            && self.tables.complaints.take(clock::now())
        {
            warn!(%error, "The XDP program does not learn which cookies are good");
        }
    }

    /// Tells the programs which addresses are ours.
    pub(super) async fn tell_local(&mut self) {
        let told = match self.tables.network.own_addresses().await {
            Ok(local) => self.tables.data_path.set_local(&local).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = told
            && self.tables.complaints.take(clock::now())
        {
            warn!(
                error,
                "The eBPF programs do not know an address that is new, and do not protect IKE there"
            );
        }
    }
}
