//! From the command line to the running loop. Whatever fails here fails before the gateway has
//! said that it is ready, with one line that says what to do.

use std::io;
use std::path::Path;
use std::sync::Arc;

use gateway_ike::Endpoint;
use gateway_ike::config::EndpointConfig;
use gateway_ike::crypto::key_exchange::SystemKeyExchange;
use gateway_ike::random::SystemSource;
use tracing::level_filters::LevelFilter;

use super::{Driver, Parts, Reloader, RunError, load, privileges, signals, state, underlay};
use crate::cli::RunArgs;
use crate::complaints::Complaints;
use crate::control::Server;
use crate::kernel::bpf::{LogLevel, Room};
use crate::kernel::{KernelConfig, LinuxKernel};
use crate::log;
use crate::metrics::Exporter;
use crate::net::{OpenError, Ports, Reinjector, Sockets};
use crate::policy::{Loaded, PolicyError, Settings};

/// Runs the gateway until a signal ends it.
///
/// # Errors
/// Everything that keeps it from starting or going on.
pub fn run(args: &RunArgs) -> Result<(), RunError> {
    log::init(&args.log, args.log_format)?;
    let loaded = load(&args.policies).map_err(RunError::Policies)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let missing = privileges::missing()?;
    if !missing.is_empty() {
        return Err(RunError::MissingCapability(missing));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(serve(&args.policies, loaded))
}

async fn serve(directory: &Path, loaded: Loaded) -> Result<(), RunError> {
    let signals = signals::listen().map_err(RunError::Runtime)?;
    let complaints = Complaints::new(loaded.settings.journal.complaint_log_rate);
    let mut exporter = Exporter::new(complaints.clone());
    begin_metrics(&mut exporter, &loaded).await;
    let Loaded { settings, policies, .. } = loaded;
    let control = Server::bind(&settings.control_socket, complaints.clone())?;
    let config = kernel_config(&settings);
    let sockets = Sockets::open(Ports::default(), Some(config.own_mark))?;
    let reinjector = Reinjector::open().map_err(OpenError::Raw)?;
    let (kernel, monitor) = LinuxKernel::open(config, &policies, complaints.clone()).await?;
    tracing::info!(control = %control.path().display(), "Kernel and sockets are set up");

    let mut random = Box::new(SystemSource::default());
    let secret = state::crash_secret(&settings.state_dir, random.as_mut());
    let kernel_keepalives = kernel.capabilities().nat_keepalive;
    let config = EndpointConfig {
        kernel_keepalives,
        // The XDP program, which makes and accepts them too.
        shares_cookies: true,
        ..settings.endpoint.clone()
    };
    let endpoint = Endpoint::new(config, random, Box::new(SystemKeyExchange));
    let endpoint = match secret {
        Ok(secret) => endpoint.with_crash_secret(secret),
        Err(error) => {
            tracing::warn!(%error, "Peers will not learn at once when this gateway has crashed");
            endpoint
        }
    };
    let reload = Reloader::new(directory, settings);
    let parts = Parts {
        kernel,
        monitor,
        sockets,
        reinjector,
        control,
        exporter,
        signals,
        reload,
        complaints,
    };
    let mut driver = Driver::new(endpoint, parts);
    driver.apply(Arc::new(policies)).await;
    // Nothing of the network has been read so far: from the first datagram on, only what is
    // needed can be done.
    if let Err(error) = privileges::drop_the_rest() {
        tracing::warn!(error, "Cannot give up capabilities that are not needed");
    }
    // With the rights that it has from here on: what they do not suffice for is seen at once.
    driver.begin();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "Ready");
    driver.run().await
}

/// Serves the metrics where the policy files say, or as soon as somebody can.
pub(super) async fn begin_metrics(exporter: &mut Exporter, loaded: &Loaded) {
    if let Err(error) = exporter.listen_at_last(loaded.settings.metrics_listen).await {
        let error = cannot_listen(loaded, &error);
        tracing::error!(
            "{error}; there are no metrics until it succeeds, which is tried on and on"
        );
    }
}

/// Serves the metrics where a reload says.
///
/// # Errors
/// The system refuses.
pub(super) async fn move_metrics(
    exporter: &mut Exporter,
    loaded: &Loaded,
) -> Result<(), PolicyError> {
    let listening = exporter.listen(loaded.settings.metrics_listen).await;
    listening.map_err(|error| cannot_listen(loaded, &error))
}

fn cannot_listen(loaded: &Loaded, error: &io::Error) -> PolicyError {
    let wanted = loaded.settings.metrics_listen;
    let address = wanted.map_or_else(String::new, |address| address.to_string());
    let hint = if error.kind() == io::ErrorKind::AddrInUse {
        "`ss -ltnp` names who listens there: choose another port"
    } else {
        "expected an address of this host and a port that is free"
    };
    loaded.metrics_error(format!("cannot listen on {address}: {error}"), hint)
}

/// How the settings want the kernel.
pub(super) fn kernel_config(settings: &Settings) -> KernelConfig {
    let interfaces = if settings.interfaces.is_empty() {
        underlay::default_interfaces()
    } else {
        settings.interfaces.clone()
    };
    KernelConfig {
        interfaces,
        xfrm_interface: settings.xfrm_interface.clone(),
        if_id: settings.if_id,
        nat_exemption: settings.nat_exemption,
        drop_unknown_esp: settings.drop_unknown_esp,
        steer_cpus: settings.steer_cpus,
        pin_dir: settings.pin_dir.clone(),
        ike: settings.ike,
        room: Room::of(&settings.endpoint),
        bpf_log: if LevelFilter::current() == LevelFilter::TRACE {
            LogLevel::Trace
        } else {
            LogLevel::Off
        },
        ..KernelConfig::default()
    }
}
