//! What others can make the gateway keep or do, and where that ends: the table of the manual, held
//! against the keys, the counters and the sources, so that it says what is so.

use core::fmt::Write as _;
use std::fs;
use std::path::Path;

use gateway_common::Reason;

use super::keys::{GATEWAY, Key, Otherwise};

/// Where it ends.
enum Bound {
    /// At what this key of `[gateway]` says.
    Key(&'static str),
    /// At what follows from keys of `[gateway]`; at this number by their defaults, which stands in a
    /// source file, in this line.
    Follows {
        from: &'static str,
        value: &'static str,
        file: &'static str,
        line: &'static str,
        /// How it follows.
        how: &'static str,
    },
    /// At a number that stands in a source file, in this line.
    Fixed {
        value: &'static str,
        file: &'static str,
        line: &'static str,
        /// Why no key says it.
        why: &'static str,
    },
}

use Bound::{Fixed, Follows, Key as By};

/// A bound on what somebody else can make us keep or do.
struct Limit {
    what: &'static str,
    /// Who could make it grow.
    by: &'static str,
    bound: Bound,
    /// What happens beyond.
    beyond: &'static str,
    /// The counter that moves then.
    counter: Option<&'static str>,
}

const ANYBODY: &str = "anybody";
const PEER: &str = "a peer";

const fn limit(
    what: &'static str,
    by: &'static str,
    bound: Bound,
    beyond: &'static str,
    counter: Option<&'static str>,
) -> Limit {
    Limit { what, by, bound, beyond, counter }
}

/// All of them.
const LIMITS: &[Limit] = &[
    limit(
        "IKE_SA_INIT requests a second, where XDP is attached",
        ANYBODY,
        By("init-rate"),
        "an initiator must return a cookie, for 10 s after the last one too many",
        Some("ike_cookie_answered"),
    ),
    limit(
        "IKE_SA_INIT requests a second of one prefix, where XDP is attached; with a cookie returned, as many of one address (IPv6: of one /64)",
        ANYBODY,
        By("init-prefix-rate"),
        "its initiators must return a cookie; with one, requests are dropped",
        Some("ike_init_prefix_limited"),
    ),
    limit(
        "half-open IKE SAs",
        ANYBODY,
        By("cookie-threshold"),
        "an initiator must return a cookie",
        Some("ike_cookie_demanded"),
    ),
    limit(
        "the same",
        ANYBODY,
        By("half-open-limit"),
        "the oldest of the address (IPv6: of the /48) that has most gives its place to an initiator that has returned a cookie",
        Some("ike_half_open_limit"),
    ),
    limit(
        "half-open IKE SAs of one address (IPv6: of one /64); with a cookie returned, as many again",
        ANYBODY,
        By("half-open-address-limit"),
        "its initiators must return a cookie; with one, requests are dropped",
        Some("ike_half_open_address_limit"),
    ),
    limit(
        "time without the next message of IKE_INTERMEDIATE, or the first of IKE_AUTH",
        ANYBODY,
        By("half-open-timeout"),
        "the IKE SA is dropped",
        Some("ike_half_open_timeout"),
    ),
    limit(
        "IKE SAs, with those that are closing",
        ANYBODY,
        By("ike-sa-limit"),
        "a half-open one ends for the next; requests are dropped if there is none",
        Some("ike_sa_limit"),
    ),
    limit(
        "nanoseconds in which the daemon is told once of an SA whose ESP comes from elsewhere",
        ANYBODY,
        Fixed {
            value: "1000000000",
            file: "../gateway-ebpf/src/endpoint.rs",
            line: "const QUIET: u64 = 1_000_000_000;",
            why: "work, nothing is kept",
        },
        "it is told by a later packet",
        Some("esp_source_change_held_back"),
    ),
    limit(
        "octets of what it has been told of that and has not read",
        ANYBODY,
        Fixed {
            value: "65536",
            file: "../gateway-ebpf/src/maps.rs",
            line: "const SOURCE_RING: usize = 65_536;",
            why: "a ring of the kernel, made once for all",
        },
        "it is told by a later packet",
        Some("esp_source_change_lost"),
    ),
    limit(
        "packets of ESP a second that came in outer fragments and are handed back to the stack",
        ANYBODY,
        Fixed {
            value: "20000",
            file: "src/net/reinject.rs",
            line: "const RATE: u32 = 20_000;",
            why: "work, nothing is kept",
        },
        "they are dropped",
        Some("esp_reinjection_limited"),
    ),
    limit(
        "questions whether the peer is where only its ESP has come from, one a second for an IKE SA",
        ANYBODY,
        Fixed {
            value: "5",
            file: "ike/src/ike_sa/mobility/hint.rs",
            line: "const TRIES: u32 = 5;",
            why: "work, nothing is kept",
        },
        "it is not asked there any more",
        Some("esp_source_unanswered"),
    ),
    limit(
        "refused initiators whose request may come again",
        ANYBODY,
        By("refused-initiator-limit"),
        "the oldest is forgotten",
        Some("ike_refused_forgotten"),
    ),
    limit("time for EAP", ANYBODY, By("eap-timeout"), "the IKE SA is dropped", Some("eap_timeout")),
    limit(
        "messages of EAP",
        ANYBODY,
        By("eap-round-limit"),
        "EAP fails",
        Some("refused_authentication_eap_limit"),
    ),
    limit(
        "octets of one message of EAP-TLS",
        ANYBODY,
        By("eap-message-limit"),
        "EAP fails",
        Some("refused_authentication_eap_limit"),
    ),
    limit(
        "certificates",
        ANYBODY,
        By("certificate-chain-limit"),
        "the peer is refused",
        Some("refused_certificate_limit"),
    ),
    limit(
        "octets of a certificate",
        ANYBODY,
        By("certificate-size-limit"),
        "the peer is refused",
        Some("refused_certificate_limit"),
    ),
    limit(
        "octets of an IKE_SA_INIT message",
        ANYBODY,
        By("init-size-limit"),
        "it is dropped",
        Some("ike_init_size_limit"),
    ),
    limit(
        "octets of fragments of one message, with 64 for each fragment; one message for each IKE SA and direction; without fragments, of a message of an initiator that is not authenticated, which EAP keeps until it ends",
        ANYBODY,
        By("reassembly-limit"),
        "the message is dropped",
        Some("ike_fragment_limit"),
    ),
    limit(
        "time from the first fragment of a message to the last",
        ANYBODY,
        By("reassembly-timeout"),
        "the message is dropped",
        Some("ike_fragment_timeout"),
    ),
    limit(
        "errors a second in answer to what nothing protects",
        ANYBODY,
        By("unprotected-answer-rate"),
        "no answer, and no record; after IKE_SA_INIT initiators must return a cookie for 30 s, unless it is 0",
        Some("ike_unprotected_answer_limited"),
    ),
    limit(
        "proposals and transforms of an IKE_SA_INIT request, together",
        ANYBODY,
        By("init-transform-limit"),
        "NO_PROPOSAL_CHOSEN",
        Some("ike_init_transform_limit"),
    ),
    limit(
        "log lines a second",
        ANYBODY,
        By("stranger-log-rate"),
        "they are not written",
        Some("log_lines_suppressed"),
    ),
    limit(
        "log lines a second",
        PEER,
        By("peer-log-rate"),
        "they are not written",
        Some("log_lines_suppressed"),
    ),
    limit(
        "log lines a second about what could not be done",
        ANYBODY,
        By("complaint-log-rate"),
        "they are not written",
        Some("complaints_suppressed"),
    ),
    limit(
        "peers and users with a rate of log lines of their own",
        PEER,
        By("user-log-limit"),
        "more users share that of their peer",
        Some("log_lines_of_users_shared"),
    ),
    limit(
        "characters of a log line",
        ANYBODY,
        By("log-line-limit"),
        "it is cut, and ends in …",
        Some("log_lines_cut"),
    ),
    limit(
        "refusals kept",
        ANYBODY,
        By("refusals-kept"),
        "the oldest goes",
        Some("refusals_forgotten"),
    ),
    limit(
        "octets of a refusal",
        ANYBODY,
        By("refusal-size-limit"),
        "what is least near is left out, and the refusal says of how much (`left_out`)",
        Some("refusals_shortened"),
    ),
    limit(
        "requests repeated to one that does not answer",
        PEER,
        By("retransmit-tries"),
        "the IKE SA is closed; that of a MOBIKE peer of any address after five minutes at the earliest",
        Some("ike_peer_dead"),
    ),
    limit(
        "IKE SAs of one identity, and as many that are closing",
        PEER,
        By("peer-ike-sa-limit"),
        "the oldest is deleted",
        Some("ike_peer_sa_limit"),
    ),
    limit(
        "old keys of one IKE SA that the peer does not delete",
        PEER,
        By("old-keys-limit"),
        "the oldest go",
        Some("ike_old_keys_forgotten"),
    ),
    limit(
        "Child SAs on one IKE SA, with those that wait to be deleted; to replace them, as many again",
        "a peer, traffic",
        By("child-sa-limit"),
        "NO_ADDITIONAL_SAS; for a packet none is asked for",
        Some("ike_no_additional_sas"),
    ),
    limit(
        "percent of that for Child SAs that packets have asked for beside the first of their rules, where a peer narrows each to its packet",
        "traffic",
        Fixed {
            value: "50",
            file: "ike/src/ike_sa/room.rs",
            line: "const SHARE_PERCENT: usize = 50;",
            why: "a share of a key",
        },
        "for a packet none is asked for",
        Some("ike_rule_child_sa_limit"),
    ),
    limit(
        "Child SAs on all IKE SAs of one identity; to replace them, there or on a new IKE SA, as many again",
        "a peer, traffic",
        By("peer-child-sa-limit"),
        "NO_ADDITIONAL_SAS; for a packet none is asked for",
        Some("ike_peer_child_sa_limit"),
    ),
    limit(
        "Child SAs that wait on one IKE SA to be made or deleted",
        "a peer, traffic",
        By("job-limit"),
        "they are not made; if it is a deletion, the IKE SA is deleted",
        Some("ike_job_limit"),
    ),
    limit(
        "pairs of prefixes of one Child SA",
        PEER,
        By("selector-pair-limit"),
        "it is refused",
        Some("refused_selectors_combination"),
    ),
    limit(
        "key exchanges of IKE_FOLLOWUP_KE that a peer has begun",
        PEER,
        By("followup-ke-limit"),
        "the oldest is forgotten",
        Some("ike_followup_ke_forgotten"),
    ),
    limit(
        "other addresses of a peer (MOBIKE)",
        PEER,
        By("peer-address-limit"),
        "more are not kept",
        Some("mobike_addresses_left_out"),
    ),
    limit(
        "attributes that a peer assigns to us (CFG_REPLY)",
        PEER,
        By("cfg-attribute-limit"),
        "the IKE SA is deleted",
        Some("ike_cfg_attribute_limit"),
    ),
    limit(
        "name servers among them",
        PEER,
        By("name-server-limit"),
        "more are not kept",
        Some("ike_name_servers_left_out"),
    ),
    limit(
        "SAs that a peer deletes while we ask for one, and that may be that one",
        PEER,
        By("deleted-spi-limit"),
        "the oldest is forgotten",
        Some("ike_deleted_spi_forgotten"),
    ),
    limit(
        "SAs for which ESP is kept that comes before the peer's answer",
        PEER,
        By("early-esp-sa-limit"),
        "it is lost for more",
        Some("esp_early_refused"),
    ),
    limit(
        "octets of that for one SA, for 10 s",
        ANYBODY,
        By("early-esp-size-limit"),
        "more are lost",
        Some("esp_early_dropped"),
    ),
    limit(
        "peers, proposals and rules that a refusal is compared with",
        ANYBODY,
        Fixed {
            value: "64",
            file: "ike/src/reason/mod.rs",
            line: "const MOST_COMPARED: usize = 64;",
            why: "work, nothing is kept",
        },
        "the refusal counts them (`left_out`)",
        None,
    ),
    limit(
        "crash tokens in one message",
        ANYBODY,
        Fixed {
            value: "4",
            file: "ike/src/crash.rs",
            line: "const MOST_TOKENS: usize = 4;",
            why: "work, nothing is kept",
        },
        "more are not looked at",
        None,
    ),
    limit(
        "authorities that we name to a peer (CERTREQ)",
        "policies",
        Fixed {
            value: "36",
            file: "ike/src/ike_sa/auth/certificate.rs",
            line: "pub(crate) const MOST_AUTHORITIES: usize = 36;",
            why: "no peer makes them more, and a message has room for so many",
        },
        "those of peers at the address come first; a warning names the peers of which one is left out",
        None,
    ),
    limit(
        "addresses with SPIs that the BPF programs know, two of each Child SA and four while it is rekeyed",
        PEER,
        Follows {
            from: "`ike-sa-limit` or `peer-child-sa-limit`, what is more",
            value: "262144",
            file: "../gateway-ebpf/common/src/lib.rs",
            line: "pub const SAS: usize = 262_144;",
            how: "four for each, and no less",
        },
        "no further Child SA is installed, with the map's name as the reason",
        Some("child_sa_failed"),
    ),
    limit(
        "remote prefixes that TCP's segment sizes are lowered for",
        PEER,
        Follows {
            from: "the same",
            value: "131072",
            file: "../gateway-ebpf/common/src/lib.rs",
            line: "pub const MTUS: usize = 131_072;",
            how: "two for each, and no less",
        },
        "no further Child SA is installed, with the map's name as the reason",
        Some("child_sa_failed"),
    ),
    limit(
        "connections to the control socket",
        "who may open it",
        Fixed {
            value: "16",
            file: "src/control/server.rs",
            line: "const CLIENT_LIMIT: usize = 16;",
            why: "no peer can open it",
        },
        "they are told so and sent away",
        Some("control_clients_refused"),
    ),
];

fn key(name: &str) -> &'static Key {
    GATEWAY.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("no key {name}"))
}

/// The keys that say where something ends.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    LIMITS.iter().filter_map(|limit| match limit.bound {
        By(key) => Some(key),
        Follows { .. } | Fixed { .. } => None,
    })
}

/// The table of the manual.
pub(super) fn manual() -> String {
    let mut text = String::from(
        "| What | Grows by | Limit | Default | Range | Beyond | Counter |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for Limit { what, by, bound, beyond, counter } in LIMITS {
        let counter = counter.map_or_else(|| "—".to_owned(), |counter| format!("`{counter}`"));
        let bound = match bound {
            Fixed { value, why, .. } => format!("fixed | {value} | {why}"),
            Follows { from, value, how, .. } => format!("{from} | {value} | {how}"),
            By(name) => {
                let key = key(name);
                let Otherwise::Default(default) = key.otherwise else { panic!("{name}") };
                let (least, most) = key.kind.range().unwrap();
                format!("`{name}` | {default} | {least} to {most}").replace('"', "")
            }
        };
        writeln!(text, "| {what} | {by} | {bound} | {beyond} | {counter} |").unwrap();
    }
    text
}

#[test]
fn every_limit_names_a_counter_that_there_is() {
    let counters = gateway_ike::counters::Counters::default();
    let of_ike: Vec<_> = counters.iter().map(|(name, _)| name).collect();
    let others = [
        include_str!("../driver/mod.rs"),
        include_str!("../driver/journal.rs"),
        include_str!("../net/early.rs"),
        include_str!("../net/reinject.rs"),
    ];
    for counter in LIMITS.iter().filter_map(|limit| limit.counter) {
        let line = format!("(\"{counter}\", ");
        let elsewhere = others.iter().any(|source| source.contains(&line));
        let of_programs = Reason::ALL.iter().any(|reason| reason.name() == counter);
        assert!(of_ike.contains(&counter) || elsewhere || of_programs, "{counter}");
    }
}

#[test]
fn every_fixed_limit_is_that_of_the_source() {
    for limit in LIMITS {
        let (Fixed { value, file, line, .. } | Follows { value, file, line, .. }) = limit.bound
        else {
            continue;
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let source = fs::read_to_string(&path).unwrap();
        assert!(source.lines().any(|l| l.trim() == line), "{file} has no line {line}");
        let (_, number) = line.trim_end_matches(';').split_once("= ").unwrap();
        assert_eq!(number.replace('_', ""), value, "{line}");
    }
}

#[test]
fn every_key_that_is_a_limit_is_in_the_table_once() {
    let endings = ["-limit", "-rate", "-kept", "-threshold", "-timeout", "-tries"];
    let mut count = 0;
    for name in GATEWAY.iter().map(|key| key.name) {
        let rows = LIMITS.iter().filter(|l| matches!(l.bound, By(key) if key == name)).count();
        assert_eq!(rows, usize::from(endings.iter().any(|end| name.ends_with(end))), "{name}");
        count += rows;
    }
    assert!(count > 15, "{count}");
}
