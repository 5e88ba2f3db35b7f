//! What the XDP program knows of IKE: at which addresses we speak it, how much may come, and which
//! cookies are good.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use gateway_common::{Address, IkeProtection, Rate};
use gateway_ike::config::InitLimits;
use gateway_ike::io::SharedCookies;

use super::rules::address;
use super::{BpfError, DataPath, is_absent};

/// For so long after too many requests have come everybody must return a cookie.
const HOLD: Duration = Duration::from_secs(10);

impl DataPath {
    /// Tells the program which addresses are ours, all of them, and by their indices of which
    /// interfaces: IKE to others is none of its business, and it answers only on that interface.
    ///
    /// # Errors
    /// The kernel refuses, for want of memory or because the map is full.
    pub fn set_local(&mut self, local: &BTreeMap<IpAddr, u32>) -> Result<(), BpfError> {
        let failed =
            |error| BpfError::kernel("our addresses cannot be told to the programs", &error);
        let wanted: BTreeMap<Address, u32> =
            local.iter().map(|(ip, interface)| (address(*ip), *interface)).collect();
        let known: BTreeMap<Address, u32> =
            self.local.iter().collect::<Result<_, _>>().map_err(failed)?;
        // What is gone makes room.
        for address in known.keys().filter(|address| !wanted.contains_key(address)) {
            match self.local.remove(address) {
                Err(error) if !is_absent(&error) => return Err(failed(error)),
                Ok(()) | Err(_) => {}
            }
        }
        for (address, interface) in &wanted {
            if known.get(address) != Some(interface) {
                self.local.insert(address, interface, 0).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Tells the program how much IKE may come, and which cookies are good, in one step.
    ///
    /// # Errors
    /// The kernel refuses, for want of memory.
    pub fn protect_ike(
        &mut self,
        limits: &InitLimits,
        cookies: &SharedCookies,
    ) -> Result<(), BpfError> {
        let protection = IkeProtection {
            secrets: cookies.secrets,
            all: Rate::per_second(limits.init_rate, limits.init_rate),
            prefix: Rate::per_second(limits.prefix_rate, limits.prefix_burst),
            other_version: Rate::per_second(limits.other_version_rate, limits.other_version_rate),
            hold: u64::try_from(HOLD.as_nanos()).unwrap_or(u64::MAX),
            demand: u32::from(cookies.demand),
            prefix_v4: Address::MAPPED_BITS.saturating_add(limits.prefix_v4).min(128),
            prefix_v6: limits.prefix_v6.min(128),
            zero: [0; 2],
        };
        self.ike.insert(0, protection, 0).map_err(|error| {
            BpfError::kernel("the protection of IKE cannot be told to the programs", &error)
        })
    }

    /// Tells the program whether what it sends back on an interface goes out.
    pub(super) fn set_answering(&mut self, index: u32, can: bool) -> Result<(), BpfError> {
        let outcome =
            if can { self.no_answer.remove(&index) } else { self.no_answer.insert(index, 1, 0) };
        match outcome {
            Err(error) if !is_absent(&error) => {
                let what = "an interface cannot be told to the programs";
                Err(BpfError::kernel(what, &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
