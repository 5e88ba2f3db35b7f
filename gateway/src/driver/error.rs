//! Why the gateway does not run: one line each, with what to do.

use std::io;

use caps::Capability;

use crate::control::{BindError, QueryError};
use crate::kernel::KernelSetupError;
use crate::kernel::bpf::BpfError;
use crate::log::LogError;
use crate::net::OpenError;
use crate::policy::PolicyError;

/// Why `gateway run` ended, or `gateway guard` did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The policy files have errors. One line each.
    #[error("{}", lines(.0))]
    Policies(Vec<PolicyError>),
    /// The log cannot be started.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The process may not do what it must.
    #[error(
        "missing capability {}: run as root, or grant it (AmbientCapabilities= in a systemd unit, \
         --cap-add for a container)", names(.0)
    )]
    MissingCapability(Vec<Capability>),
    /// The process's capabilities cannot be read.
    #[error("cannot read the capabilities of this process: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The control socket cannot be opened.
    #[error(transparent)]
    Control(#[from] BindError),
    /// The UDP sockets cannot be opened.
    #[error(transparent)]
    Sockets(#[from] OpenError),
    /// The kernel cannot be set up.
    #[error(transparent)]
    Kernel(#[from] KernelSetupError),
    /// It is not known whether a gateway runs.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The guard cannot be put up.
    #[error(transparent)]
    Guard(#[from] BpfError),
    /// The runtime or the signal handlers cannot be started.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// The kernel's events can no longer be read.
    #[error("cannot read the kernel's events any more: {0}; SAs and policies stay in the kernel")]
    Monitor(io::Error),
    /// A second signal came.
    #[error("interrupted while ending: SAs and policies stay in the kernel")]
    Interrupted,
}

fn lines(errors: &[PolicyError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn names(capabilities: &[Capability]) -> String {
    capabilities.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named_with_the_cure() {
        let missing = vec![Capability::CAP_NET_ADMIN, Capability::CAP_BPF];
        let text = RunError::MissingCapability(missing).to_string();
        assert!(
            text.starts_with("missing capability CAP_NET_ADMIN, CAP_BPF: run as root"),
            "{text}"
        );
        assert!(!text.contains('\n'));
    }
}
