//! Limits and intervals: what a file may say, and that it is taken.

use core::fmt::Debug;
use core::time::Duration;
use std::collections::BTreeSet;

use super::super::keys::{GATEWAY, Kind, PEER as PEER_KEYS, RULE};
use super::*;

#[test]
fn what_has_a_range_is_taken_within_it_only() {
    // What one key says must fit what another says.
    let beside = |name: &str| match name {
        "cookie-threshold" => "half-open-limit = 1_000_000\n",
        "half-open-limit" => "cookie-threshold = 0\n",
        _ => "",
    };
    // A step below, or above; nothing is below 0.
    let step = |value: &str, up: bool| -> Option<String> {
        let Ok(number) = value.parse::<u64>() else {
            let (time, step) = (value::duration(value.trim_matches('"')), Duration::from_millis(1));
            let time = if up { time.unwrap() + step } else { time.unwrap() - step };
            return Some(format!("\"{}ms\"", time.as_millis()));
        };
        let stepped = if up { number.checked_add(1) } else { number.checked_sub(1) };
        stepped.map(|number| number.to_string())
    };
    let mut checked = 0;
    for key in GATEWAY {
        let Some((least, most)) = key.kind.range() else { continue };
        let text = |value: &str| format!("[gateway]\n{}{} = {value}\n", beside(key.name), key.name);
        for value in [&least, &most] {
            loaded(&text(value));
        }
        let wrong_type = if least.starts_with('"') { "30" } else { "\"30s\"" };
        let bad = [step(&least, false), step(&most, true), Some(wrong_type.to_owned())];
        for value in bad.into_iter().flatten() {
            let found = errors(&text(&value));
            assert!(found.contains(&format!("gateway.{}: ", key.name)), "{value}: {found}");
        }
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn an_interval_is_a_second_or_more_or_never() {
    let keys = [("gateway", GATEWAY), ("peer.p", PEER_KEYS), ("rule.r", RULE)];
    let intervals: Vec<_> = keys
        .iter()
        .flat_map(|(table, keys)| keys.iter().map(move |key| (*table, key)))
        .filter(|(_, key)| matches!(key.kind, Kind::Interval))
        .map(|(table, key)| (table, key.name))
        .collect();
    let expected = [
        ("gateway", "keepalive-interval"),
        ("peer.p", "liveness"),
        ("peer.p", "lifetime"),
        ("rule.r", "lifetime"),
    ];
    assert_eq!(intervals, expected);
    let rule = "[rule.r]\naction = \"protect\"\npeer = \"p\"\nremote = [\"10.2.0.0/24\"]\n";
    for (table, name) in intervals {
        let text = |value: &str| {
            let line = format!("{name} = {value}\n");
            let of = |this: &str| if table == this { line.as_str() } else { "" };
            let (gateway, peer, rule_line) = (of("gateway"), of("peer.p"), of("rule.r"));
            format!("[gateway]\n{gateway}{PEER}{peer}{rule}local = [\"10.1.0.0/24\"]\n{rule_line}")
        };
        for value in ["\"0s\"", "\"1s\"", "\"365d\""] {
            loaded(&text(value));
        }
        for value in ["\"1ms\"", "\"999ms\"", "\"366d\"", "\"8761h\"", "\"soon\"", "30"] {
            let found = errors(&text(value));
            let line = text(value).lines().position(|l| l.starts_with(name)).unwrap() + 1;
            let place = format!("x.toml:{line}:{}: {table}.{name}: ", name.len() + 4);
            assert!(found.starts_with(&place), "{value}: {found}");
        }
    }
}

/// More could not be followed to a root (webpki), whatever the file says.
#[test]
fn a_chain_limit_that_could_never_be_reached_is_refused() {
    loaded("[gateway]\ncertificate-chain-limit = 7\n");
    let found = errors("[gateway]\ncertificate-chain-limit = 8\n");
    let expected = "x.toml:2:27: gateway.certificate-chain-limit: 8 is out of range: expected ";
    assert!(found.starts_with(expected) && found.contains("1 to 7"), "{found}");
}

/// A key that is a limit, a value that no other one has and that is no default, and where that must
/// come out.
type Taken = (&'static str, &'static str, fn(&Settings) -> &dyn Debug);

/// Every one of them.
const TAKEN: &[Taken] = &[
    ("retransmit-tries", "2", |s| &s.endpoint.retransmit_tries),
    ("cookie-threshold", "3", |s| &s.endpoint.cookie_threshold),
    ("init-size-limit", "2050", |s| &s.endpoint.init_size_limit),
    ("init-rate", "23", |s| &s.ike.init_rate),
    ("init-prefix-rate", "24", |s| &s.ike.prefix_rate),
    ("half-open-limit", "4", |s| &s.endpoint.half_open_limit),
    ("half-open-address-limit", "5", |s| &s.endpoint.half_open_address_limit),
    ("half-open-timeout", "20s", |s| &s.endpoint.half_open_timeout),
    ("ike-sa-limit", "15", |s| &s.endpoint.ike_sa_limit),
    ("peer-ike-sa-limit", "6", |s| &s.endpoint.peer_ike_sa_limit),
    ("unprotected-answer-rate", "0", |s| &s.endpoint.unprotected_answers_per_second),
    ("child-sa-limit", "16", |s| &s.endpoint.child_sa_limit),
    ("peer-child-sa-limit", "17", |s| &s.endpoint.peer_child_sa_limit),
    ("job-limit", "70", |s| &s.endpoint.job_limit),
    ("certificate-chain-limit", "1", |s| &s.endpoint.certificate_chain_limit),
    ("certificate-size-limit", "1025", |s| &s.endpoint.certificate_size_limit),
    ("eap-timeout", "21s", |s| &s.endpoint.eap_timeout),
    ("eap-round-limit", "18", |s| &s.endpoint.eap_round_limit),
    ("eap-message-limit", "8193", |s| &s.endpoint.eap_message_limit),
    ("reassembly-limit", "8194", |s| &s.endpoint.reassembly_limit),
    ("reassembly-timeout", "120s", |s| &s.endpoint.reassembly_timeout),
    ("peer-log-rate", "19", |s| &s.journal.peer_log_rate),
    ("stranger-log-rate", "20", |s| &s.journal.stranger_log_rate),
    ("complaint-log-rate", "22", |s| &s.journal.complaint_log_rate),
    ("refusals-kept", "21", |s| &s.journal.refusals_kept),
    ("refusal-size-limit", "2048", |s| &s.endpoint.refusal_size_limit),
    ("refused-initiator-limit", "7", |s| &s.endpoint.refused_initiator_limit),
    ("log-line-limit", "300", |s| &s.journal.log_line_limit),
    ("user-log-limit", "13", |s| &s.journal.user_log_limit),
    ("init-transform-limit", "71", |s| &s.endpoint.init_transform_limit),
    ("old-keys-limit", "8", |s| &s.endpoint.old_keys_limit),
    ("followup-ke-limit", "9", |s| &s.endpoint.followup_ke_limit),
    ("selector-pair-limit", "72", |s| &s.endpoint.selector_pair_limit),
    ("peer-address-limit", "10", |s| &s.endpoint.peer_address_limit),
    ("cfg-attribute-limit", "73", |s| &s.endpoint.cfg_attribute_limit),
    ("name-server-limit", "11", |s| &s.endpoint.name_server_limit),
    ("deleted-spi-limit", "12", |s| &s.endpoint.deleted_spi_limit),
    ("early-esp-sa-limit", "14", |s| &s.early.sa_limit),
    ("early-esp-size-limit", "8192", |s| &s.early.size_limit),
];

#[test]
fn limits_are_what_the_file_says() {
    let mut text = String::from("[gateway]\n");
    for (key, value, _) in TAKEN {
        let quote = if value.ends_with('s') { "\"" } else { "" };
        writeln!(text, "{key} = {quote}{value}{quote}").unwrap();
    }
    let Loaded { settings, .. } = loaded(&text);
    let default = Settings::default();
    for (key, value, read) in TAKEN {
        assert_eq!(format!("{:?}", read(&settings)), *value, "{key}");
        assert_ne!(format!("{:?}", read(&default)), *value, "{key}: the default shows nothing");
    }
    let values: BTreeSet<_> = TAKEN.iter().map(|(_, value, _)| value).collect();
    assert_eq!(values.len(), TAKEN.len(), "each has a value of its own");
    let named: BTreeSet<_> = TAKEN.iter().map(|(key, ..)| *key).collect();
    assert_eq!(named, limits::keys().collect(), "each limit is here");
}
