//! `gateway guard`: blocks what the policies protect before, or without, a gateway that runs.

use std::io;

use super::start::kernel_config;
use super::{RunError, load, underlay};
use crate::cli::GuardArgs;
use crate::control::{QueryError, Request, query};
use crate::kernel::bpf::BpfError;
use crate::kernel::{Guarded, put_up};
use crate::log;
use crate::policy::{Loaded, Settings};

/// Puts the guard up; `None` if a gateway runs, which guards already.
///
/// # Errors
/// The policy files have errors, or the programs cannot be loaded.
pub fn guard(args: &GuardArgs) -> Result<Option<Guarded>, RunError> {
    log::init("warn", log::Format::default())?;
    let Loaded { settings, policies, warnings, .. } =
        load(&args.policies).map_err(RunError::Policies)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    if is_running(&settings)? {
        return Ok(None);
    }
    let mut config = kernel_config(&settings);
    if settings.interfaces.is_empty() {
        // At boot there need be no route yet that would tell which of them lead to peers.
        let hardware = underlay::hardware_interfaces();
        let more = hardware.into_iter().filter(|name| !config.interfaces.contains(name));
        config.interfaces.extend(more.collect::<Vec<_>>());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    match runtime.block_on(put_up(&config, &policies)) {
        Ok(guarded) => Ok(Some(guarded)),
        // One that has started meanwhile is no failure.
        Err(BpfError::Claimed(_)) if is_running(&settings)? => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a gateway answers.
fn is_running(settings: &Settings) -> Result<bool, QueryError> {
    match query(&settings.control_socket, &Request::Status {}) {
        Ok(_) => Ok(true),
        Err(QueryError::NoDaemon { source, .. })
            if source.kind() != io::ErrorKind::PermissionDenied =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
