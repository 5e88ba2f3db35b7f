//! The HTTP server. Whoever reaches its port may ask, so that everything is bounded: clients at
//! once, octets of a request, the time from the first octet of a connection to its last.

use core::convert::Infallible;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep_until, timeout};

use super::encode::encode;
use crate::clock;
use crate::complaints::Complaints;
use crate::control::StatusReport;

/// Where the metrics are.
const PATH: &str = "/metrics";
/// OpenMetrics 1.0.0, which Prometheus takes from anybody.
const TEXT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Clients served at once: each may hold a report and its text in memory.
const CLIENT_LIMIT: usize = 4;
/// Octets of the longest request with its headers: hyper's least.
const REQUEST_LIMIT: usize = 8192;
/// A connection is over after this long, whatever has become of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two reports: the event loop makes them, and has other things to do. The last of
/// [`CLIENT_LIMIT`] waits for a fraction of what a client of Prometheus has patience for.
const PACE: Duration = Duration::from_millis(250);
/// Between two attempts to listen where it could not at the start.
const RETRY: Duration = Duration::from_secs(10);

/// A client that waits for the metrics.
#[derive(Debug)]
pub struct Scrape(oneshot::Sender<StatusReport>);

impl Scrape {
    /// Gives the report. A client that has gone away misses nothing.
    pub fn answer(self, report: StatusReport) {
        if self.0.send(report).is_err() {
            tracing::debug!("A client of the metrics left before its answer");
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// Clients that were one too many.
    refused: AtomicU64,
    /// Connections on which nothing was asked that has an answer, or not in time.
    failed: AtomicU64,
    /// Attempts to listen that failed.
    deaf: AtomicU64,
}

impl Counts {
    fn could_not_listen(&self) {
        let _before = self.deaf.fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves the metrics where the policy files want it.
#[derive(Debug)]
pub struct Exporter {
    scrapes: mpsc::Receiver<Scrape>,
    /// For clients of listeners to come.
    sender: mpsc::Sender<Scrape>,
    clients: Arc<Semaphore>,
    counts: Arc<Counts>,
    complaints: Complaints,
    pub(super) patience: Duration,
    pub(super) retry: Duration,
    listening: Option<Listening>,
    /// Where it is to listen but cannot, and when it tries again.
    missing: Option<(SocketAddr, Instant)>,
    /// No report is asked for before.
    next_report: Instant,
}

/// A listener, in a task of its own.
#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Listening {
    /// Closes the listener before it returns. Clients that are being served have the rest of their
    /// time.
    async fn close(self) {
        self.accepting.abort();
        // It ends by that, which is the only thing it can say.
        drop(self.accepting.await);
    }
}

impl Exporter {
    /// One that listens nowhere. `complaints`: the rate of log lines about clients that cannot be
    /// accepted.
    #[must_use]
    pub fn new(complaints: Complaints) -> Self {
        let (sender, scrapes) = mpsc::channel(CLIENT_LIMIT);
        let clients = Arc::new(Semaphore::new(CLIENT_LIMIT));
        let counts = Arc::default();
        Self {
            scrapes,
            sender,
            clients,
            counts,
            complaints,
            patience: PATIENCE,
            retry: RETRY,
            listening: None,
            missing: None,
            next_report: clock::now(),
        }
    }

    /// Listens at an address from now on, or as soon as it can be done: a gateway whose port somebody
    /// else has does without its metrics rather than without its peers.
    ///
    /// # Errors
    /// The system refuses for the moment; [`Self::next`] tries again.
    pub async fn listen_at_last(&mut self, wanted: Option<SocketAddr>) -> io::Result<()> {
        let listening = self.listen(wanted).await;
        if let (Err(_), Some(address)) = (&listening, wanted) {
            self.missing = Some((address, clock::after(self.retry)));
        }
        listening
    }

    /// Listens at an address, or nowhere, from now on; to be called within a runtime. Where it cannot,
    /// it goes on as before.
    ///
    /// # Errors
    /// The system refuses; not for an address at which it is trying to listen already.
    pub async fn listen(&mut self, wanted: Option<SocketAddr>) -> io::Result<()> {
        if self.missing.is_some_and(|(address, _)| wanted == Some(address)) {
            return Ok(());
        }
        let before = self.address();
        if wanted == before {
            self.missing = None;
            return Ok(());
        }
        let Some(address) = wanted else {
            self.close().await;
            self.missing = None;
            tracing::info!("The metrics are served no more");
            return Ok(());
        };
        let listening = match self.open(address).await {
            Err(error)
                if before.is_some_and(|old| stands_in_the_way(error.kind(), old, address)) =>
            {
                self.close().await;
                let opened = self.open(address).await;
                if opened.is_err() {
                    self.open_again(before).await;
                }
                opened
            }
            opened => opened,
        };
        let listening = listening.inspect_err(|_| self.counts.could_not_listen())?;
        self.close().await;
        self.serve(listening);
        Ok(())
    }

    fn serve(&mut self, listening: Listening) {
        tracing::info!(address = %listening.address, "Metrics are served at /metrics");
        self.listening = Some(listening);
        self.missing = None;
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listening.as_ref().map(|listening| listening.address)
    }

    /// The next client that wants a report; none comes while it listens nowhere. Cancelling it loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Scrape> {
        loop {
            let again = self.missing.map(|(_, again)| again);
            let scrape = async {
                sleep_until(self.next_report.into()).await;
                self.scrapes.recv().await
            };
            tokio::select! {
                // A client that has gone meanwhile costs nothing.
                scrape = scrape => if scrape.as_ref().is_none_or(|scrape| !scrape.0.is_closed()) {
                    self.next_report = clock::after(PACE);
                    return scrape;
                },
                () = sleep_until(again.unwrap_or(self.next_report).into()), if again.is_some() => {
                    self.try_again().await;
                }
            }
        }
    }

    async fn try_again(&mut self) {
        let Some((address, _)) = self.missing else { return };
        match self.open(address).await {
            Ok(listening) => self.serve(listening),
            Err(error) => {
                tracing::debug!(%address, %error, "Cannot serve metrics yet");
                self.counts.could_not_listen();
                self.missing = Some((address, clock::after(self.retry)));
            }
        }
    }

    /// What went wrong with clients.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let Counts { refused, failed, deaf } = &*self.counts;
        [
            ("metrics_listen_failed", deaf.load(Ordering::Relaxed)),
            ("metrics_clients_refused", refused.load(Ordering::Relaxed)),
            ("metrics_requests_failed", failed.load(Ordering::Relaxed)),
        ]
        .into_iter()
    }

    async fn open(&self, address: SocketAddr) -> io::Result<Listening> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let door = Door {
            scrapes: self.sender.clone(),
            clients: Arc::clone(&self.clients),
            counts: Arc::clone(&self.counts),
            patience: self.patience,
        };
        let accepting = tokio::spawn(accept(listener, door, self.complaints.clone()));
        Ok(Listening { address, accepting })
    }

    async fn open_again(&mut self, address: Option<SocketAddr>) {
        let Some(address) = address else { return };
        match self.open(address).await {
            Ok(listening) => self.listening = Some(listening),
            Err(error) => {
                tracing::error!(%address, %error, "There are no metrics until it can listen again");
                self.missing = Some((address, clock::after(self.retry)));
            }
        }
    }

    async fn close(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.close().await;
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.accepting.abort();
        }
    }
}

/// Whether it may be our own listener that has the port: on all addresses, or on one of them.
fn stands_in_the_way(error: io::ErrorKind, old: SocketAddr, new: SocketAddr) -> bool {
    error == io::ErrorKind::AddrInUse && old.port() == new.port()
}

/// What it takes to serve a client.
#[derive(Debug, Clone)]
struct Door {
    scrapes: mpsc::Sender<Scrape>,
    clients: Arc<Semaphore>,
    counts: Arc<Counts>,
    patience: Duration,
}

async fn accept(listener: TcpListener, door: Door, complaints: Complaints) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: it passes, and must not become a busy loop.
                if complaints.take(clock::now()) {
                    tracing::warn!(%error, "Cannot accept a client of the metrics");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&door.clients).try_acquire_owned() else {
            let _before = door.counts.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let door = door.clone();
        drop(tokio::spawn(async move { serve(stream, &door, Arc::new(permit)).await }));
    }
}

/// Answers one request, and closes the connection.
async fn serve(stream: TcpStream, door: &Door, permit: Arc<OwnedSemaphorePermit>) {
    let mut http = http1::Builder::new();
    let http = http.timer(TokioTimer::new()).header_read_timeout(door.patience);
    let http = http.max_buf_size(REQUEST_LIMIT).keep_alive(false);
    let service = service_fn(|request| answer(request, door, Arc::clone(&permit)));
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let failure = match timeout(door.patience, connection).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => format!("not done within {:?}", door.patience),
    };
    let _before = door.counts.failed.fetch_add(1, Ordering::Relaxed);
    tracing::debug!(failure, "A client of the metrics was sent away");
}

async fn answer(
    request: Request<Incoming>,
    door: &Door,
    permit: Arc<OwnedSemaphorePermit>,
) -> Result<Response<String>, Infallible> {
    let mut response = if request.uri().path() != PATH {
        plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n")
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "ask by GET\n");
        let _none = response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    } else {
        match metrics(&door.scrapes, permit).await {
            Some(text) => Response::new(text),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending\n"),
        }
    };
    if !response.status().is_success() {
        let _before = door.counts.failed.fetch_add(1, Ordering::Relaxed);
    }
    let _none = response.headers_mut().entry(CONTENT_TYPE).or_insert(TEXT);
    Ok(response)
}

/// Asks the event loop. `None`: it answers no more. The client counts until the text is made, though it
/// may have gone away before: what has begun goes on.
async fn metrics(
    scrapes: &mpsc::Sender<Scrape>,
    permit: Arc<OwnedSemaphorePermit>,
) -> Option<String> {
    let (sender, report) = oneshot::channel();
    scrapes.send(Scrape(sender)).await.ok()?;
    let report = report.await.ok()?;
    // With a hundred thousand rules it takes longer than the event loop should stand still.
    let text = spawn_blocking(move || {
        let text = encode(report);
        drop(permit);
        text
    });
    text.await.ok()?.ok()
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = status;
    let _none = response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response
}
