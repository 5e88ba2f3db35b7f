//! The log: one line per milestone on standard error.

use std::env;
use std::io::{self, IsTerminal as _};

use gateway_ike::event::{Event, Level};
use gateway_ike::reason::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How many seconds' worth of lines may come at once, by any of the rates of lines.
pub const BURST: u32 = 10;

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
    #[error(
        "`{filter}` is no log level: expected error, warn, info, debug, trace or a list such as info,gateway::net=debug: {source}"
    )]
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

/// The text of a milestone: one line of at most so many characters, whatever a peer has sent; what is
/// cut ends in `…`.
#[must_use]
pub fn line(event: &Event, most: usize) -> String {
    Cut { most, times: 0 }.cut(event.to_string())
}

/// Cuts what is too long.
struct Cut {
    most: usize,
    /// How many texts were.
    times: u64,
}

impl Cut {
    fn cut(&mut self, mut text: String) -> String {
        if let Some((end, _)) = text.char_indices().nth(self.most) {
            text.truncate(end);
            text.push('…');
            self.times = self.times.saturating_add(1);
        }
        text
    }
}

/// Writes a milestone of the IKE core, at its level and with its fields. The text of the event
/// gives the reason; of a refusal the fields give its cause, what nearly matched, and both sides.
/// None of them has more than `most` characters; whether anything was cut.
pub fn milestone(event: &Event, most: usize) -> bool {
    let mut cut = Cut { most, times: 0 };
    let ike_sa = event.ike_sa.map(|id| id.0);
    let peer = event.peer.as_deref();
    let path = event.path.map(tracing::field::display);
    let spi_i = event.spis.map(|(i, _)| tracing::field::display(i));
    let spi_r = event.spis.map(|(_, r)| tracing::field::display(r));
    let refusal = event.refusal.as_deref();
    let cause = refusal.map(|r| r.cause.name());
    let nearest = refusal.and_then(|r| r.nearest_candidate());
    let mut side = |values: fn(&Field) -> &[String]| {
        let words = |f: &Field| format!("{}={}", f.name, values(f).join(","));
        let shown = |f: &&Field| f.fits != Some(true);
        let words = nearest.map(|c| c.fields.iter().filter(shown).map(words).collect::<Vec<_>>());
        words.map(|words| cut.cut(words.join(" ")))
    };
    let (ours, theirs) = (side(|f| &f.ours), side(|f| &f.theirs));
    let (ours, theirs) = (ours.as_deref(), theirs.as_deref());
    let nearest = nearest.map(|c| cut.cut(c.to_string())).filter(|words| !words.is_empty());
    let nearest = nearest.as_deref();
    let text = cut.cut(event.to_string());
    macro_rules! write {
        ($level:ident) => {
            tracing::$level!(
                ike_sa, peer, spi_i, spi_r, path, cause, nearest, ours, theirs, "{text}"
            )
        };
    }
    match event.level() {
        Level::Warn => write!(warn),
        Level::Info => write!(info),
        Level::Debug => write!(debug),
    }
    cut.times > 0
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use gateway_ike::error::AuthenticationFault;
    use gateway_ike::event::EventKind;
    use gateway_ike::io::{IkeSaId, Path};
    use gateway_ike::reason::{Candidate, Cause, FieldName, Refusal};
    use gateway_wire::IkeSpi;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|e| io::Error::other(e.to_string()))?.extend(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_milestone_is_one_line_with_the_sa_the_peer_and_both_spis() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let note = |event: &Event| milestone(event, 100);
            let whole = note(&Event {
                ike_sa: Some(IkeSaId(7)),
                spis: Some((
                    IkeSpi([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]),
                    IkeSpi::ZERO,
                )),
                peer: Some("berlin".into()),
                user: None,
                path: Some(Path {
                    local: "192.0.2.1:500".parse().unwrap(),
                    remote: "[2001:db8::2]:4500".parse().unwrap(),
                }),
                kind: EventKind::Closed("the peer deleted it"),
                refusal: None,
            });
            assert!(!whole);
            note(&Event {
                ike_sa: None,
                spis: None,
                peer: None,
                user: None,
                path: None,
                kind: EventKind::CookieMode(true),
                refusal: None,
            });
            assert!(note(&refused()), "and that is told");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(lines[0]["message"], "IKE SA closed: the peer deleted it");
        assert_eq!(lines[0]["ike_sa"], 7);
        assert_eq!(lines[0]["peer"], "berlin");
        assert_eq!(lines[0]["spi_i"], "0123456789abcdef");
        assert_eq!(lines[0]["spi_r"], "0000000000000000");
        assert_eq!(lines[0]["path"], "192.0.2.1:500 -> [2001:db8::2]:4500");
        assert_eq!(lines[1]["level"], "WARN");
        assert_eq!(lines[1].get("peer"), None);
        assert_eq!(lines[1].get("cause"), None);
        assert_eq!(lines[2]["cause"], "identity_unknown");
        assert_eq!(lines[2]["nearest"], "peer berlin");
        assert_eq!(lines[2]["ours"], "remote_identity=FQDN a.example");
        assert_eq!(lines[2]["theirs"], "remote_identity=FQDN b.example");
        let message = lines[2]["message"].as_str().unwrap();
        assert_eq!(message.chars().count(), 100 + 1, "{message}");
    }

    /// A refusal with more text than a line has room for.
    fn refused() -> Event {
        let words = |word: &str| vec![word.to_owned()];
        let field = |name, fits| Field {
            name,
            ours: words("FQDN a.example"),
            theirs: words("FQDN b.example"),
            fits: Some(fits),
        };
        let candidate = Candidate {
            peer: Some("berlin".into()),
            fields: vec![
                field(FieldName::RemoteIdentity, false),
                field(FieldName::LocalIdentity, true),
            ],
            ..Candidate::default()
        };
        let fault = AuthenticationFault::UnknownIdentity("b".repeat(5000));
        Event {
            ike_sa: None,
            spis: None,
            peer: None,
            user: None,
            path: None,
            kind: EventKind::Failed(fault.into()),
            refusal: Some(Box::new(Refusal {
                cause: Cause::UnknownIdentity,
                said: None,
                candidates: vec![candidate],
                left_out: 0,
            })),
        }
    }

    #[test]
    fn a_filter_that_is_none_is_refused_with_what_would_be_one() {
        let error = init("nonsense=foo=bar", Format::Text).unwrap_err();
        assert!(error.to_string().contains("expected error, warn, info"), "{error}");
    }
}
