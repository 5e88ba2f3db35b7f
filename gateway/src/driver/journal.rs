//! What the IKE core reports: how much of it goes to the log, and what is kept for status.
//!
//! Whoever causes them, lines and records have a bound: strangers share one, each peer has its own, and
//! so has each user where many come as one peer.

use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use gateway_ike::config::{PeerName, PolicySet, UserName};
use gateway_ike::event::Event;
use gateway_ike::reason::{Candidate, Refusal};

use crate::control::{CandidateReport, FieldReport, RefusalReport};
use crate::log::{self, BURST};
use crate::net::TokenBucket;
use crate::policy::JournalLimits;

/// Who caused something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// A peer, or with EAP one of its users.
    Peer(PeerName, Option<UserName>),
    /// Somebody who has not been authenticated, by address.
    Stranger(IpAddr),
    Ourselves,
}

impl Source {
    fn of(event: &Event) -> Self {
        match (&event.peer, event.path) {
            (_, Some(path)) if event.is_of_a_stranger() => Self::Stranger(path.remote.ip()),
            (Some(peer), _) => Self::Peer(PeerName::clone(peer), event.user.clone()),
            (None, _) => Self::Ourselves,
        }
    }
}

/// The log's limits, and the refusals of late.
#[derive(Debug)]
pub(super) struct Journal {
    limits: JournalLimits,
    /// Shared by all who have not been authenticated.
    strangers: TokenBucket,
    peers: BTreeMap<(PeerName, Option<UserName>), TokenBucket>,
    /// Lines that were not written.
    unlogged: u64,
    /// Lines of which not all was written.
    cut: u64,
    /// Lines of users that had to do with what is left of their peer's.
    shared: u64,
    /// Records that had to go for newer ones.
    forgotten: u64,
    of_peers: Kept,
    of_strangers: Kept,
}

impl Journal {
    pub(super) fn new(limits: JournalLimits) -> Self {
        let rate = limits.stranger_log_rate;
        Self {
            limits,
            strangers: TokenBucket::new(rate, rate.saturating_mul(BURST)),
            peers: BTreeMap::new(),
            unlogged: 0,
            cut: 0,
            shared: 0,
            forgotten: 0,
            of_peers: Kept::default(),
            of_strangers: Kept::default(),
        }
    }

    /// Logs a milestone, unless whoever caused it has caused too many, and keeps the record of a
    /// refusal. `seconds`: since 1970.
    pub(super) fn note(&mut self, now: Instant, seconds: u64, event: &Event) {
        let source = Source::of(event);
        if let Some(refusal) = &event.refusal {
            let kept = match source {
                Source::Stranger(_) => &mut self.of_strangers,
                Source::Peer(..) | Source::Ourselves => &mut self.of_peers,
            };
            let gone = kept.add(&self.limits, seconds, source.clone(), event, refusal);
            self.forgotten = self.forgotten.saturating_add(gone);
        }
        let may = match source {
            Source::Stranger(_) => self.strangers.take(now),
            Source::Peer(peer, user) => self.take_of_peer(now, (peer, user)),
            Source::Ourselves => true,
        };
        if may {
            let cut = log::milestone(event, self.limits.log_line_limit);
            self.cut = self.cut.saturating_add(u64::from(cut));
        } else {
            self.unlogged = self.unlogged.saturating_add(1);
        }
    }

    /// Whether a peer, or one of its users, may cause one more line. Of users there may be any number,
    /// but few are loud at once: of more than have room all share what is the peer's own.
    fn take_of_peer(&mut self, now: Instant, mut source: (PeerName, Option<UserName>)) -> bool {
        if source.1.is_some() && !self.peers.contains_key(&source) {
            let limit = self.limits.user_log_limit;
            if self.peers.len() >= limit {
                self.peers.retain(|_, bucket| !bucket.is_full(now));
            }
            if self.peers.len() >= limit {
                source.1 = None;
                self.shared = self.shared.saturating_add(1);
            }
        }
        let rate = self.limits.peer_log_rate;
        let new = || TokenBucket::new(rate, rate.saturating_mul(BURST));
        self.peers.entry(source).or_insert_with(new).take(now)
    }

    /// Forgets peers that are not configured any more.
    pub(super) fn retain(&mut self, policies: &PolicySet) {
        self.peers.retain(|(peer, _), _| policies.peers.contains_key(peer));
    }

    /// Every counter with its name in status.
    pub(super) fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("log_lines_suppressed", self.unlogged),
            ("log_lines_cut", self.cut),
            ("log_lines_of_users_shared", self.shared),
            ("refusals_forgotten", self.forgotten),
        ]
        .into_iter()
    }

    /// The refusals of late, the latest first.
    pub(super) fn refusals(&self) -> Vec<RefusalReport> {
        let all = self.of_peers.records.iter().chain(&self.of_strangers.records);
        let mut reports: Vec<_> = all.map(Record::report).collect();
        reports.sort_by_key(|report| core::cmp::Reverse(report.last_at));
        reports
    }
}

/// Records in the order of their last time.
#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Record>,
}

/// A refusal, and how often there was the very same.
#[derive(Debug)]
struct Record {
    source: Source,
    refusal: Box<Refusal>,
    text: String,
    peer: Option<PeerName>,
    remote: Option<String>,
    ike_sa: Option<u64>,
    first_at: u64,
    last_at: u64,
    times: u64,
}

impl Kept {
    /// Keeps a record; gives how many others go for it.
    fn add(
        &mut self,
        limits: &JournalLimits,
        seconds: u64,
        source: Source,
        event: &Event,
        refusal: &Refusal,
    ) -> u64 {
        let limit = limits.refusals_kept;
        let same = |r: &Record| r.source == source && *r.refusal == *refusal;
        let mut record = match self.records.iter().position(same) {
            Some(at) => self.records.remove(at),
            None => None,
        }
        .unwrap_or_else(|| Record {
            source: source.clone(),
            refusal: Box::new(refusal.clone()),
            text: log::line(event, limits.log_line_limit),
            peer: event.peer.clone(),
            remote: None,
            ike_sa: None,
            first_at: seconds,
            last_at: seconds,
            times: 0,
        });
        record.times = record.times.saturating_add(1);
        record.last_at = seconds;
        record.ike_sa = event.ike_sa.map(|id| id.0);
        record.remote = event.path.map(|path| path.remote.to_string());
        // Nobody pushes out more than a quarter of what others have caused.
        let own = self.records.iter().filter(|r| r.source == source).count();
        let mut gone = 0_u64;
        if own >= limit.div_ceil(4)
            && let Some(oldest) = self.records.iter().position(|r| r.source == source)
        {
            drop(self.records.remove(oldest));
            gone = gone.saturating_add(1);
        }
        self.records.push_back(record);
        while self.records.len() > limit {
            self.records.pop_front();
            gone = gone.saturating_add(1);
        }
        gone
    }
}

impl Record {
    fn report(&self) -> RefusalReport {
        let cause = self.refusal.cause;
        RefusalReport {
            kind: cause.kind().name().to_owned(),
            cause: cause.name().to_owned(),
            text: self.text.clone(),
            said_by_peer: self.refusal.said.map(|what| what.to_string()),
            peer: self.peer.as_deref().map(str::to_owned),
            remote: self.remote.clone(),
            ike_sa: self.ike_sa,
            first_at: self.first_at,
            last_at: self.last_at,
            times: self.times,
            candidates: self.refusal.candidates.iter().map(candidate).collect(),
            left_out: self.refusal.left_out,
        }
    }
}

fn candidate(candidate: &Candidate) -> CandidateReport {
    let fields = candidate.fields.iter().map(|field| FieldReport {
        name: field.name.to_string(),
        ours: field.ours.clone(),
        theirs: field.theirs.clone(),
        fits: field.fits,
    });
    CandidateReport {
        peer: candidate.peer.as_deref().map(str::to_owned),
        rule: candidate.rule.as_deref().map(str::to_owned),
        proposal: candidate.proposal,
        their_proposal: candidate.their_proposal,
        fields: fields.collect(),
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use gateway_ike::event::EventKind;
    use gateway_ike::io::{IkeSaId, Path};
    use gateway_ike::reason::{Cause, Field, FieldName};

    use super::*;
    use crate::clock;

    const LIMITS: JournalLimits = JournalLimits {
        peer_log_rate: 2,
        stranger_log_rate: 1,
        complaint_log_rate: 1,
        refusals_kept: 8,
        log_line_limit: 1024,
        user_log_limit: MOST_USERS,
    };
    const MOST_USERS: usize = 1024;

    /// A refusal of a peer or of a stranger at an address; `value` makes it another one.
    fn event(peer: Option<&str>, host: u8, value: usize) -> Event {
        let field = Field {
            name: FieldName::RemoteIdentity,
            ours: vec!["a.example".to_owned()],
            theirs: vec![value.to_string()],
            fits: Some(false),
        };
        let candidate = Candidate { fields: vec![field], ..Candidate::default() };
        Event {
            ike_sa: Some(IkeSaId(7)),
            spis: None,
            peer: peer.map(Into::into),
            user: None,
            path: Some(Path {
                local: "192.0.2.1:500".parse().unwrap(),
                remote: format!("192.0.2.{host}:500").parse().unwrap(),
            }),
            kind: EventKind::Closed("it was refused"),
            refusal: Some(Box::new(Refusal {
                cause: Cause::UnknownIdentity,
                said: None,
                candidates: vec![candidate],
                left_out: 0,
            })),
        }
    }

    #[test]
    fn the_same_refusal_again_is_counted_and_takes_no_room() {
        let mut journal = Journal::new(LIMITS);
        let now = clock::now();
        for seconds in 100..200 {
            journal.note(now, seconds, &event(Some("berlin"), 2, 1));
        }
        let reports = journal.refusals();
        let [report] = reports.as_slice() else { panic!("{reports:#?}") };
        assert_eq!((report.times, report.first_at, report.last_at), (100, 100, 199));
        assert_eq!((report.kind.as_str(), report.cause.as_str()), ("identity", "identity_unknown"));
        assert_eq!((report.peer.as_deref(), report.ike_sa), (Some("berlin"), Some(7)));
        assert_eq!(report.candidates[0].fields[0].theirs, ["1"]);
        assert_eq!(journal.forgotten, 0);
    }

    #[test]
    fn records_have_a_bound_and_nobody_pushes_out_all_the_others() {
        let mut journal = Journal::new(LIMITS);
        let now = clock::now();
        for peer in ["a", "b", "c"] {
            journal.note(now, 1, &event(Some(peer), 2, 0));
        }
        for value in 0..1000 {
            journal.note(now, 2, &event(Some("noisy"), 2, value));
            journal.note(now, 2, &event(None, 3, value));
        }
        let reports = journal.refusals();
        let of = |peer: Option<&str>| reports.iter().filter(|r| r.peer.as_deref() == peer).count();
        assert_eq!([of(Some("a")), of(Some("b")), of(Some("c"))], [1, 1, 1]);
        assert_eq!((of(Some("noisy")), of(None)), (2, 2), "a quarter of eight each");
        assert_eq!(journal.forgotten, 2 * (1000 - 2), "and that is told");
        // From ever new addresses strangers push out each other, and no peer.
        for value in 0..200 {
            journal.note(now, 3, &event(None, value, 0));
        }
        let reports = journal.refusals();
        assert_eq!(reports.len(), 5 + 8);
        assert_eq!(journal.forgotten, 2 * (1000 - 2) + 200 - (8 - 2));
        assert!(reports.iter().take(8).all(|r| r.peer.is_none() && r.last_at == 3));
        let mut none = Journal::new(JournalLimits { refusals_kept: 0, ..LIMITS });
        none.note(now, 1, &event(Some("a"), 2, 0));
        assert_eq!(none.refusals(), []);
    }

    #[test]
    fn strangers_share_one_limit_of_lines_and_each_peer_has_its_own() {
        let mut journal = Journal::new(LIMITS);
        let now = clock::now();
        for host in 0..=255 {
            journal.note(now, 1, &event(None, host, 0));
        }
        assert_eq!(journal.unlogged, 256 - 10);
        for _ in 0..100 {
            journal.note(now, 1, &event(Some("noisy"), 2, 0));
        }
        assert_eq!(journal.unlogged, 246 + 80);
        journal.note(now, 1, &event(Some("quiet"), 2, 0));
        assert_eq!(journal.unlogged, 326);
        let later = now + Duration::from_secs(1);
        for _ in 0..3 {
            journal.note(later, 1, &event(None, 2, 0));
        }
        assert_eq!(journal.unlogged, 328, "one more a second");
        journal.retain(&PolicySet::default());
        assert!(journal.peers.is_empty(), "a peer that is gone leaves nothing");
    }

    #[test]
    fn users_who_come_as_one_peer_do_not_drown_each_other() {
        let mut journal = Journal::new(LIMITS);
        let now = clock::now();
        let of = |user: &str| Event { user: Some(user.into()), ..event(Some("all"), 2, 0) };
        for _ in 0..100 {
            journal.note(now, 1, &of("loud"));
        }
        assert_eq!(journal.unlogged, 80);
        for _ in 0..20 {
            journal.note(now, 1, &of("quiet"));
        }
        assert_eq!(journal.unlogged, 80);
        assert_eq!(journal.refusals().len(), 2, "nor do they share a record");
        // Whoever has a name for each line has the limit of one for all that have no room.
        for number in 0..2 * MOST_USERS {
            journal.note(now, 1, &of(&format!("user{number}")));
        }
        assert_eq!(journal.peers.len(), MOST_USERS + 1);
        assert_eq!(journal.unlogged, 80 + u64::try_from(MOST_USERS).unwrap() + 2 - 20);
        assert_eq!(journal.shared, u64::try_from(MOST_USERS).unwrap() + 2);
        // They are forgotten when they have been quiet.
        let later = now + Duration::from_secs(60);
        journal.note(later, 1, &of("another"));
        assert_eq!(journal.peers.len(), 1);
    }

    #[test]
    fn a_line_has_a_bound_and_what_is_cut_is_counted() {
        let long = event(Some("a"), 2, 0).to_string().chars().count();
        for (limit, cut) in [(long + 1, 0), (long, 0), (long - 1, 1)] {
            let mut journal = Journal::new(JournalLimits { log_line_limit: limit, ..LIMITS });
            journal.note(clock::now(), 1, &event(Some("a"), 2, 0));
            let text = &journal.refusals()[0].text;
            assert_eq!((journal.cut, text.ends_with('…')), (cut, cut == 1), "{limit}: {text}");
        }
    }

    #[test]
    fn what_concerns_nobody_is_always_logged() {
        let mut journal = Journal::new(LIMITS);
        let own = Event { path: None, refusal: None, ..event(None, 2, 0) };
        for _ in 0..1000 {
            journal.note(clock::now(), 1, &own);
        }
        assert_eq!(journal.unlogged, 0);
    }
}
