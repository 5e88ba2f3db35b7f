//! What is taken, and what is said of what is not.

use super::*;

fn message<T: core::fmt::Debug>(result: Result<T, Fault>) -> String {
    let Fault { message, hint } = result.unwrap_err();
    format!("{message}: {}", hint.unwrap_or_default())
}

#[test]
fn prefixes_are_strict_and_the_right_form_is_named() {
    assert_eq!(prefix("10.2.0.0/24").unwrap().to_string(), "10.2.0.0/24");
    assert_eq!(prefix("::/0").unwrap().to_string(), "::/0");
    for (text, expected) in [
        (
            "10.2.0.0/33",
            "\"10.2.0.0/33\" is not a prefix: expected ADDRESS/LENGTH, such as 10.2.0.0/24",
        ),
        ("", "\"\" is not a prefix: expected ADDRESS/LENGTH, such as 10.2.0.0/24"),
        (
            "10.2.0.0/-1",
            "\"10.2.0.0/-1\" is not a prefix: expected ADDRESS/LENGTH, such as 10.2.0.0/24",
        ),
        ("10.2.0.7", "\"10.2.0.7\" has no prefix length: for this one host write \"10.2.0.7/32\""),
        ("fd00::1", "\"fd00::1\" has no prefix length: for this one host write \"fd00::1/128\""),
        ("10.2.0.7/24", "\"10.2.0.7/24\" has host bits set: expected \"10.2.0.0/24\""),
        ("fd00::1/64", "\"fd00::1/64\" has host bits set: expected \"fd00::/64\""),
        (
            "::ffff:10.0.0.0/104",
            "\"::ffff:10.0.0.0/104\" is an IPv4 prefix in the form of IPv6: expected \"10.0.0.0/8\"",
        ),
    ] {
        assert_eq!(message(prefix(text)), expected);
    }
}

#[test]
fn only_unicast_addresses_are_addresses() {
    assert!(address("192.0.2.1").is_ok() && address("2001:db8::1").is_ok());
    for text in [
        "",
        "192.0.2",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:192.0.2.1",
        "192.0.2.1/32",
    ] {
        assert!(address(text).is_err(), "{text}");
    }
    assert_eq!(peer_address("any"), Ok(None));
    assert!(message(peer_address("0.0.0.0")).ends_with("write \"any\""));
    assert!(message(peer_address("berlin")).ends_with("or \"any\""));
}

#[test]
fn identities_have_five_forms() {
    assert_eq!(identity("192.0.2.1"), Ok(Identity::Address("192.0.2.1".parse().unwrap())));
    assert_eq!(identity("gw-a.example.org"), Ok(Identity::Fqdn("gw-a.example.org".to_owned())));
    assert_eq!(identity("ops@example.org"), Ok(Identity::Email("ops@example.org".to_owned())));
    assert!(matches!(identity("C=DE, O=Example, CN=gw-a"), Ok(Identity::Dn(_))));
    assert_eq!(
        message(identity("CN=x, y")),
        "\"CN=x, y\" is not a distinguished name: expected TYPE=VALUE, TYPE=VALUE with types such as C, O, OU and CN"
    );
    assert_eq!(identity("keyid:00fF"), Ok(Identity::KeyId(vec![0, 0xff])));
    for text in [
        "",
        "keyid:",
        "keyid:0",
        "keyid:0g",
        "keyid:ää",
        "192.0.2.300",
        "a b",
        "a@b@c",
        "@",
        "x@",
        "a..b",
        "ü.org",
        "gw.example.org\0",
        "gw.example.org\r",
        "ops@example.org\n",
        "%any",
        "0.0.0.0",
    ] {
        assert!(identity(text).is_err(), "{text}");
    }
    assert!(
        message(identity("@gw.example.org"))
            .ends_with("a domain name stands alone: \"gw.example.org\"")
    );
}

#[test]
fn ports_are_one_port_or_an_ordered_range() {
    assert_eq!(ports("443"), Ok(443..=443));
    assert_eq!(ports("8000-8999"), Ok(8000..=8999));
    assert_eq!(ports("1 - 65535"), Ok(1..=65535));
    assert_eq!(message(ports("9-8")), "the range \"9-8\" is reversed: expected \"8-9\"");
    for text in ["", "0", "65536", "-1", "1-", "1-2-3", "http", "0-65535"] {
        assert!(ports(text).is_err(), "{text}");
    }
}

#[test]
fn protocols_are_numbers_or_names() {
    assert_eq!(protocol("tcp"), Ok(6));
    assert_eq!(protocol("132"), Ok(132));
    assert_eq!(
        message(protocol("http")),
        "\"http\" is not a protocol: expected 1 to 254 or one of icmp, igmp, ipip, tcp, udp, ipv6, gre, esp, ah, icmpv6, ospf, vrrp, l2tp, sctp"
    );
    assert_eq!(
        message(protocol("icpmv6")),
        "\"icpmv6\" is not a protocol: did you mean \"icmpv6\"?"
    );
    for text in ["", "0", "255", "256", "-6"] {
        assert!(protocol(text).is_err(), "{text}");
    }
}

#[test]
fn durations_have_a_unit_and_an_upper_bound() {
    for (text, seconds) in
        [("0s", 0), ("30s", 30), ("5 m", 300), ("4h", 14_400), ("365d", 31_536_000)]
    {
        assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
    }
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    for text in [
        "",
        "30",
        "s",
        "-1s",
        "1.5h",
        "366d",
        "99999999999999999999s",
        "18446744073709551615d",
        "1 week",
        "1  s",
    ] {
        assert!(duration(text).is_err(), "{text}");
    }
    assert!(interval("999ms").is_err() && interval("0s").is_ok());
}

#[test]
fn octets_take_decimal_and_binary_units() {
    assert_eq!(octets("0"), Ok(0));
    assert_eq!(octets("500GB"), Ok(500_000_000_000));
    assert_eq!(octets("2 KiB"), Ok(2048));
    for text in ["", "GB", "1gb", "1.5GB", "-1", "18446744073709551615KiB"] {
        assert!(octets(text).is_err(), "{text}");
    }
}

#[test]
fn names_of_interfaces_are_those_the_kernel_takes() {
    assert!(interface("eth0.100").is_ok());
    for text in ["", ".", "..", "a/b", "a:1", "a b", "sixteen-octets-x"] {
        assert!(interface(text).is_err(), "{text}");
    }
}

#[test]
fn names_and_paths_are_checked() {
    assert!(name("to-berlin.v6_2").is_ok());
    for text in ["", "-a", ".a", "a b", "ü", &"a".repeat(64)] {
        assert!(name(text).is_err(), "{text}");
    }
    assert!(absolute_path("run").is_err() && absolute_path("/run\0").is_err());
    assert!(socket_path(&format!("/{}", "a".repeat(107))).is_err());
}
