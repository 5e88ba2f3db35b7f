//! The peer's ESP comes from another address or port than before. The programs that tell so have not
//! authenticated it: who can see one packet can send a copy from anywhere. So it moves nothing, and
//! is only a hint where to ask.
//!
//! What asks is a request that is sent by the path in use as well, so that a peer which is where it
//! was answers all the same. Its answer is authentic, and the path by which it comes is followed as
//! that of any other (RFC 7296 2.23). With MOBIKE the initiator decides: whoever it asks in this way
//! sees by NAT_DETECTION that its NAT maps it to elsewhere, and says so (RFC 4555 3.8).
//!
//! Who sends such copies gains little: what goes to an address of their choice is one small datagram
//! a second for an IKE SA, and a request that would not be there but for a hint is not what a peer
//! is given up for.

use core::net::SocketAddr;
use core::time::Duration;
use std::time::Instant;

use gateway_wire::ExchangeType;

use super::mobike::payloads;
use crate::counters::Counter;
use crate::error::Error;
use crate::event::EventKind;
use crate::ike_sa::jobs::Current;
use crate::ike_sa::{IkeSa, Job, State};
use crate::io::Path;
use crate::natt;
use crate::shared::Shared;
use crate::time::after;

/// The least time between two datagrams to addresses that only ESP has come from.
const PACE: Duration = Duration::from_secs(1);
/// How often the peer is asked at one of them.
const TRIES: u32 = 5;
/// Octets of the longest request under way that is sent there, too: what asks for a Child SA or new
/// keys by a group of today fits, and one of a large group is not worth that anybody can cause it.
const SMALL: usize = 512;

/// Where the peer may be, by its ESP.
#[derive(Debug)]
pub(in crate::ike_sa) struct Hints {
    /// The latest; those before it have had their datagram, and an answer from there counts still.
    current: Option<Hint>,
    /// When the next datagram may go to such an address.
    next: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Hint {
    remote: SocketAddr,
    /// How often the peer is still to be asked there.
    left: u32,
    /// Whether the request under way has been sent there, too.
    asked: bool,
    /// Whether it was begun to ask there, though it may have become one like any other since.
    meant: bool,
}

impl Hints {
    pub(in crate::ike_sa) const NONE: Self = Self { current: None, next: None };

    /// When there is something to do.
    pub(in crate::ike_sa) fn due(&self) -> Option<Instant> {
        self.current.and(self.next)
    }

    /// The peer is known to be there, or to be elsewhere.
    fn settle(&mut self, remote: SocketAddr) {
        self.current = self.current.filter(|hint| hint.remote != remote);
    }
}

impl IkeSa {
    /// ESP for this inbound SPI of ours has come from elsewhere; port 0: not in UDP.
    pub(crate) fn source_seen(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        (spi, from): (u32, SocketAddr),
    ) {
        shared.count(Counter::EspSourceChanged);
        let mut path = self.path;
        path.remote.set_ip(from.ip());
        if from.port() != 0 {
            path.remote.set_port(from.port());
        }
        if path == self.path || path.remote.is_ipv4() != path.local.is_ipv4() {
            return;
        }
        let State::Established(established) = &mut self.state else { return };
        // Only whoever is not behind NAT follows a peer that is (RFC 7296 2.23), and who decides
        // where the two are hears of it by MOBIKE.
        let follows = established.nat.remote && !established.nat.local;
        if !follows || established.mobike.as_ref().is_some_and(|mobike| mobike.decides) {
            return;
        }
        // What it would say from there is refused.
        if established.mobike.is_some()
            && self.peer.as_ref().is_some_and(|peer| !peer.may_be_at(path.remote.ip()))
        {
            return;
        }
        let hints = &mut established.hints;
        if hints.current.is_some_and(|hint| hint.remote == path.remote) {
            return;
        }
        hints.current = Some(Hint { remote: path.remote, left: TRIES, asked: false, meant: false });
        self.event(shared, EventKind::PeerMoved { spi, from });
        self.follow_hint(now, shared);
    }

    /// Asks at the hinted address, if it is time to.
    pub(in crate::ike_sa) fn follow_hint(&mut self, now: Instant, shared: &mut Shared) {
        let local = self.path.local;
        let State::Established(established) = &mut self.state else { return };
        let Some(hint) = established.hints.current else { return };
        if established.hints.next.is_some_and(|next| now < next) {
            return;
        }
        established.hints.next = Some(after(now, PACE));
        let under_way = established.channel.is_busy();
        // What asks for COOKIE2 must arrive where the peer says that it is, and nowhere else: whoever
        // has it can answer from anywhere (RFC 4555 3.7).
        let proves = matches!(established.current, Some(Current::CheckPath { .. }));
        let request = established.channel.short_request(SMALL).filter(|_| !proves);
        // Behind such a request, or a long one, nothing can be asked, but it ends.
        if under_way && request.is_none() {
            return;
        }
        let Some(left) = hint.left.checked_sub(1) else {
            established.hints.current = None;
            return shared.count(Counter::EspSourceUnanswered);
        };
        let mut hint = Hint { left, ..hint };
        hint.asked |= request.is_some();
        established.hints.current = Some(hint);
        if let Some(request) = request {
            shared.count(Counter::EspSourceProbed);
            shared.transmit(Path { local, remote: hint.remote }, request);
        } else if !under_way {
            self.want(Job::Probe);
            self.next_job(now, shared);
        }
    }

    /// Asks whether the peer lives, by the path in use and at the hinted address. `None`: there is
    /// nothing to ask any more.
    pub(in crate::ike_sa) fn send_probe(
        &mut self,
        now: Instant,
        shared: &mut Shared,
    ) -> Option<Result<(), Error>> {
        let State::Established(established) = &mut self.state else { return None };
        let hint = established.hints.current.as_mut()?;
        let path = Path { local: self.path.local, remote: hint.remote };
        (hint.asked, hint.meant) = (true, true);
        established.hints.next = Some(after(now, PACE));
        // So that an initiator sees where its NAT maps it to.
        let tells = established.mobike.is_some() && established.nat.possible;
        let hashes = natt::hashes(self.initiator_spi, self.responder_spi, path);
        let words = hashes.map(|(kind, hash)| (kind, hash.to_vec()));
        let words = if tells { &words[..] } else { &[] };
        self.set_current(Current::Probe);
        let payloads: Vec<_> = payloads(words).collect();
        let sent = self.send_request(now, shared, ExchangeType::INFORMATIONAL, &payloads);
        if sent.is_ok()
            && let Some(request) = self.state.channel().and_then(|c| c.short_request(SMALL))
        {
            shared.count(Counter::EspSourceProbed);
            shared.transmit(path, request);
        }
        Some(sent)
    }

    /// The answer to a request of ours has come by a path. Only a request that was begun after the
    /// hint shows that the peer is elsewhere: the answer to another may have been on its way before.
    pub(in crate::ike_sa) fn hint_answered(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        path: Path,
    ) {
        let State::Established(established) = &mut self.state else { return };
        let tells = established.mobike.is_some();
        let hints = &mut established.hints;
        let Some(hint) = hints.current.as_mut() else { return };
        let asked = core::mem::take(&mut hint.asked);
        let probe = core::mem::take(&mut hint.meant);
        if path.remote != hint.remote {
            if probe && asked {
                hints.current = None;
                shared.count(Counter::EspSourceUnanswered);
            }
        } else if tells && !probe {
            // It is there, but has not been told so: the request was for something else.
            hints.next = Some(now);
            self.want(Job::Probe);
        } else {
            hints.current = None;
        }
    }

    /// From now on the peer is here.
    pub(super) fn hint_followed(&mut self) {
        let remote = self.path.remote;
        if let State::Established(established) = &mut self.state {
            established.hints.settle(remote);
        }
    }

    /// A request that was sent because of a hint has not been answered: the peer is not given up
    /// for that. It stays under way, since the peer must have it before the next one (RFC 7296
    /// 2.3), and is sent again when there is something else to say. Whether it is such a request.
    pub(in crate::ike_sa) fn let_rest(&mut self) -> bool {
        let State::Established(established) = &mut self.state else { return false };
        let is_probe = matches!(established.current, Some(Current::Probe));
        if is_probe {
            established.channel.rest();
        }
        is_probe
    }

    /// There is something to say, and a request that was sent because of a hint is under way: from
    /// now on it is one like any other, and a peer that does not answer is given up.
    pub(in crate::ike_sa) fn mean_probe(&mut self, now: Instant, shared: &mut Shared) {
        let path = self.path;
        let State::Established(established) = &mut self.state else { return };
        if !matches!(established.current, Some(Current::Probe)) || !established.channel.is_busy() {
            return;
        }
        established.current = Some(Current::Liveness);
        let rested = established.channel.rests();
        let request = established.channel.send_anew(now, &shared.config);
        if let Some(request) = request.filter(|_| rested) {
            shared.transmit(path, request);
        }
        // It asks that already.
        self.jobs.retain(|job| !matches!(job, Job::Liveness | Job::Probe));
    }
}
