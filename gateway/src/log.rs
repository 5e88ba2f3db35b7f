//! The log: one line per milestone on standard error.

use std::env;
use std::io::{self, IsTerminal as _};

use gateway_ike::event::{Event, Level};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people, and for the journal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is no level and no list of directives.
    #[error("`{filter}` is no log level: expected error, warn, info, debug, trace or a list such as info,gateway::net=debug: {source}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is a log already.
    #[error("cannot start logging: {0}")]
    Init(#[from] TryInitError),
}

/// Starts logging. `filter` is a level, or directives in the form of tracing's `EnvFilter`.
/// Under the journal, which has its own, lines carry no time.
///
/// # Errors
/// [`LogError`]: the filter cannot be read, or logging has been started before.
pub fn init(filter: &str, format: Format) -> Result<(), LogError> {
    let directives = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogError::Filter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(directives)
        .with_writer(io::stderr)
        .with_target(false);
    match format {
        Format::Json => builder.json().flatten_event(true).finish().try_init()?,
        Format::Text => {
            let builder = builder.with_ansi(io::stderr().is_terminal());
            if env::var_os("JOURNAL_STREAM").is_some() {
                builder.without_time().finish().try_init()?;
            } else {
                builder.finish().try_init()?;
            }
        }
    }
    Ok(())
}

/// Writes a milestone of the IKE core, at its level and with its fields. The text of the event
/// gives the reason.
pub fn milestone(event: &Event) {
    let ike_sa = event.ike_sa.map(|id| id.0);
    let peer = event.peer.as_deref();
    let path = event.path.map(tracing::field::display);
    let spi_i = event.spis.map(|(i, _)| tracing::field::display(i));
    let spi_r = event.spis.map(|(_, r)| tracing::field::display(r));
    macro_rules! write {
        ($level:ident) => {
            tracing::$level!(ike_sa, peer, spi_i, spi_r, path, "{event}")
        };
    }
    match event.level() {
        Level::Warn => write!(warn),
        Level::Info => write!(info),
        Level::Debug => write!(debug),
    }
}
