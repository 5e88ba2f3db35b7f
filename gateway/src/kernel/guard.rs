//! The guard alone: the TC programs, and nobody who negotiates.

use gateway_ike::config::PolicySet;
use tracing::warn;

use super::bpf::{BpfError, Claim, DataPath, DataPathConfig, TcMode};
use super::network::Network;
use super::rules::{RuleIds, class_rules};
use super::setup::{self, KernelConfig};

/// What became of each interface.
pub type Guarded = Vec<(String, Result<TcMode, BpfError>)>;

/// Blocks what the policies protect on the interfaces of `config`, until a gateway takes over. An
/// interface that fails does not keep the others from being guarded.
///
/// Must be called in a tokio runtime, by a thread in the right network namespace.
///
/// # Errors
/// A gateway has the pin directory, the programs cannot be loaded, or the rules not be put in force: nothing is attached then.
pub async fn put_up(config: &KernelConfig, policies: &PolicySet) -> Result<Guarded, BpfError> {
    let _claim = Claim::take(&config.pin_dir, setup::CLAIM_PATIENCE).await?;
    let (xfrm_ifindex, xfrm_mtu) = xfrm_interface(config).await;
    let mut data_path = DataPath::load(&DataPathConfig {
        pin_dir: config.pin_dir.clone(),
        xfrm_ifindex,
        xfrm_mtu,
        own_mark: config.own_mark,
        // It has no SA to steer.
        steer_cpus: false,
        room: config.room,
        log: config.bpf_log,
    })?;
    data_path.classify(&class_rules(policies, &mut RuleIds::default()))?;
    setup::exempt_from_nat(config, &mut data_path);
    let attach = |name: &String| (name.clone(), data_path.guard(name));
    Ok(config.interfaces.iter().map(attach).collect())
}

/// The index and MTU of the XFRM interface that a gateway has left, whose SAs may go on; 0 if there
/// is none, which has the programs drop what would go there.
async fn xfrm_interface(config: &KernelConfig) -> (u32, u32) {
    let found = match Network::open() {
        Ok(network) => network.interface(&config.xfrm_interface).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(Some(found)) if setup::is_ours(&found, config).is_ok() => (found.index, found.mtu),
        Ok(_none_of_ours) => (0, 0),
        Err(error) => {
            warn!(interface = %config.xfrm_interface, %error, "Cannot look up the XFRM interface");
            (0, 0)
        }
    }
}
