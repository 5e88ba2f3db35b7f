//! The other end of the control socket, for `gateway status`.

use core::time::Duration;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Request, Response};

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of the longest answer: some hundred thousand Child SAs.
const ANSWER_LIMIT: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Nobody listens there.
    #[error("no gateway answers on {}: {source}{}", .path.display(), hint(.source))]
    NoDaemon {
        /// The control socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The daemon does not answer, or not in time.
    #[error("the gateway on {} does not answer: {source}", .path.display())]
    NoAnswer {
        /// The control socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The answer cannot be understood.
    #[error("the gateway's answer cannot be understood, is it of another version? {0}")]
    BadAnswer(#[from] serde_json::Error),
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        " (the control socket belongs to root)"
    } else {
        " (start it with `gateway run`, or name its socket with --socket)"
    }
}

/// Asks the daemon.
///
/// # Errors
/// [`QueryError`]; an error that the daemon reports is a [`Response::Error`].
pub fn query(path: &Path, request: &Request) -> Result<Response, QueryError> {
    let stream = UnixStream::connect(path)
        .map_err(|source| QueryError::NoDaemon { path: path.to_owned(), source })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let answer = exchange(&stream, &line)
        .map_err(|source| QueryError::NoAnswer { path: path.to_owned(), source })?;
    Ok(serde_json::from_slice(&answer)?)
}

fn exchange(mut stream: &UnixStream, line: &[u8]) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(ANSWER_LIMIT)).read_until(b'\n', &mut answer)?;
    if answer.last() == Some(&b'\n') {
        Ok(answer)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
