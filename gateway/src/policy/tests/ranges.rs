//! Limits and intervals: what a file may say, and that it is taken.

use core::time::Duration;

use super::super::keys::GATEWAY;
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

/// More could not be followed to a root (webpki), whatever the file says.
#[test]
fn a_chain_limit_that_could_never_be_reached_is_refused() {
    loaded("[gateway]\ncertificate-chain-limit = 7\n");
    let found = errors("[gateway]\ncertificate-chain-limit = 8\n");
    let expected = "x.toml:2:27: gateway.certificate-chain-limit: 8 is out of range: expected ";
    assert!(found.starts_with(expected) && found.contains("1 to 7"), "{found}");
}

#[test]
fn limits_are_what_the_file_says() {
    let loaded = loaded(
        r#"
[gateway]
half-open-address-limit = 5
half-open-timeout = "20s"
peer-ike-sa-limit = 6
job-limit = 70
unprotected-answer-rate = 0
eap-message-limit = 8_192
reassembly-timeout = "2m"
init-transform-limit = 70
refused-initiator-limit = 7
refusal-size-limit = 2_048
old-keys-limit = 8
selector-pair-limit = 71
followup-ke-limit = 9
peer-address-limit = 10
cfg-attribute-limit = 72
name-server-limit = 11
deleted-spi-limit = 12
log-line-limit = 300
user-log-limit = 13
complaint-log-rate = 15
early-esp-sa-limit = 14
early-esp-size-limit = 8_192
"#,
    );
    let endpoint = loaded.settings.endpoint;
    let numbers =
        [endpoint.half_open_address_limit, endpoint.peer_ike_sa_limit, endpoint.job_limit];
    assert_eq!(numbers, [5, 6, 70]);
    assert_eq!((endpoint.unprotected_answers_per_second, endpoint.eap_message_limit), (0, 8192));
    let times = [endpoint.half_open_timeout, endpoint.reassembly_timeout];
    assert_eq!(times.map(|time| time.as_secs()), [20, 120]);
    let numbers = [
        endpoint.init_transform_limit,
        endpoint.refused_initiator_limit,
        endpoint.refusal_size_limit,
        endpoint.old_keys_limit,
        endpoint.selector_pair_limit,
        endpoint.followup_ke_limit,
        endpoint.peer_address_limit,
        endpoint.cfg_attribute_limit,
        endpoint.name_server_limit,
        endpoint.deleted_spi_limit,
    ];
    assert_eq!(numbers, [70, 7, 2048, 8, 71, 9, 10, 72, 11, 12]);
    let Settings { journal, early, .. } = loaded.settings;
    assert_eq!((journal.log_line_limit, journal.user_log_limit), (300, 13));
    assert_eq!(journal.complaint_log_rate, 15);
    assert_eq!((early.sa_limit, early.size_limit), (14, 8192));
}
