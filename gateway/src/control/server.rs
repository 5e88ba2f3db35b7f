//! The daemon's end of the control socket.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Request, Response};
use crate::clock;
use crate::complaints::Complaints;

/// Octets of the longest request.
const LINE_LIMIT: u64 = 4096;
/// Clients served at once.
const CLIENT_LIMIT: usize = 16;
/// A client that neither asks nor reads for this long is sent away.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers there.
    #[error("another gateway is running: it answers on {}", .0.display())]
    Alive(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{} exists and is no socket: remove it, or choose another control socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("cannot {what} {}: {source}", .path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    answer: oneshot::Sender<Response>,
}

impl Call {
    /// Answers. A client that has gone away misses nothing.
    pub fn answer(self, response: Response) {
        if self.answer.send(response).is_err() {
            tracing::debug!("A control client left before its answer");
        }
    }
}

/// The listening socket. Dropping it removes the socket's file.
#[derive(Debug)]
pub struct Server {
    calls: mpsc::Receiver<Call>,
    /// Clients that were one too many.
    refused: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
    file: SocketFile,
}

impl Server {
    /// Opens the socket, with mode 0600, and begins to accept clients; to be called within a
    /// runtime. The directory is made where there is none. The socket of a daemon that has died
    /// is replaced. `complaints`: the rate of log lines about clients that cannot be accepted.
    ///
    /// # Errors
    /// [`BindError`]: a daemon is alive there, or the system refuses.
    pub fn bind(path: &Path, complaints: Complaints) -> Result<Self, BindError> {
        let failed = |what| move |source| BindError::System { what, path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)
                .map_err(failed("make the directory of"))?;
        }
        make_way(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
            .map_err(failed("open a socket for"))?;
        let address = SockAddr::unix(path).map_err(failed("use as a socket's name"))?;
        socket.bind(&address).map_err(failed("bind"))?;
        let file = SocketFile::new(path).map_err(failed("look at"))?;
        // Nobody can connect before listen(2): there is no moment at which others may.
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(failed("set the mode of"))?;
        socket.listen(16).map_err(failed("listen on"))?;
        let listener = UnixListener::from_std(socket.into()).map_err(failed("listen on"))?;
        let (sender, calls) = mpsc::channel(CLIENT_LIMIT);
        let refused = Arc::default();
        let accepting = tokio::spawn(accept(listener, sender, Arc::clone(&refused), complaints));
        Ok(Self { calls, refused, accepting, file })
    }

    /// The next request. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Call> {
        self.calls.recv().await
    }

    /// How many clients were sent away because there were too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Where the socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The socket's file, which is removed unless another daemon has put its own there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "Cannot remove the control socket");
        }
    }
}

/// Removes the socket of a dead daemon.
fn make_way(path: &Path) -> Result<(), BindError> {
    let failed = |what| move |source| BindError::System { what, path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("look at")(e)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match StdStream::connect(path) {
        Ok(_) => Err(BindError::Alive(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the old socket"))
        }
        Err(e) => Err(failed("find out whether a daemon is alive on")(e)),
    }
}

async fn accept(
    listener: UnixListener,
    calls: mpsc::Sender<Call>,
    refused: Arc<AtomicU64>,
    complaints: Complaints,
) {
    let clients = Arc::new(Semaphore::new(CLIENT_LIMIT));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: it passes, and must not become a busy loop.
                if complaints.take(clock::now()) {
                    tracing::warn!(%error, "Cannot accept a control client");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let calls = calls.clone();
        let permit = Arc::clone(&clients).try_acquire_owned();
        if permit.is_err() {
            let _before = refused.fetch_add(1, Ordering::Relaxed);
        }
        drop(tokio::spawn(async move {
            let result = match permit {
                Ok(permit) => {
                    let result = serve(stream, calls).await;
                    drop(permit);
                    result
                }
                Err(_) => {
                    let mut stream = stream;
                    write(&mut stream, &Response::Error("too many control clients".to_owned()))
                        .await
                }
            };
            if let Err(error) = result {
                tracing::debug!(%error, "A control client was sent away");
            }
        }));
    }
}

/// Serves one client until it leaves.
async fn serve(stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LINE_LIMIT.saturating_add(1);
        let mut limited = (&mut stream).take(limit);
        if patient(limited.read_until(b'\n', &mut line)).await? == 0 {
            return Ok(());
        }
        let complete = line.last() == Some(&b'\n');
        if !complete && u64::try_from(line.len()).is_ok_and(|n| n > LINE_LIMIT) {
            // What follows cannot be told from a new request.
            let error = format!("the request is longer than {LINE_LIMIT} octets");
            return write(stream.get_mut(), &Response::Error(error)).await;
        }
        let response = answer(&line, &calls).await;
        write(stream.get_mut(), &response).await?;
    }
}

async fn answer(line: &[u8], calls: &mpsc::Sender<Call>) -> Response {
    let request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(e) => return Response::Error(e.to_string()),
    };
    let (answer, response) = oneshot::channel();
    let gone = || Response::Error("the gateway is ending".to_owned());
    if calls.send(Call { request, answer }).await.is_err() {
        return gone();
    }
    response.await.unwrap_or_else(|_| gone())
}

async fn write(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    patient(stream.write_all(&line)).await
}

async fn patient<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
