//! Signals as values.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: load the policy files again.
    Reload,
    /// SIGTERM or SIGINT: end.
    End,
}

/// Begins to listen; to be called within a runtime.
///
/// # Errors
/// The system's.
pub(super) fn listen() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(8);
    for (kind, meaning) in [
        (SignalKind::hangup(), Signal::Reload),
        (SignalKind::terminate(), Signal::End),
        (SignalKind::interrupt(), Signal::End),
    ] {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        drop(tokio::spawn(async move {
            while stream.recv().await.is_some() && sender.send(meaning).await.is_ok() {}
        }));
    }
    Ok(receiver)
}
