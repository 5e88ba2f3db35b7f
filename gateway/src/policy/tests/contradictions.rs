//! Rules that contradict each other, found by a model that looks at every pair.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Case {
    local: (u32, u8),
    remote: (u32, u8),
    ports: (u16, u16),
    discard: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let net = || (any::<u32>(), 6_u8..9);
    (net(), net(), (1_u16..6, 0_u16..4), any::<bool>()).prop_map(
        |(local, remote, ports, discard)| {
            // Few different bits, so that overlaps are common.
            let net = |(bits, length): (u32, u8)| {
                (bits & 0x0f00_0000 & (u32::MAX << (32 - length)), length)
            };
            Case {
                local: net(local),
                remote: net(remote),
                ports: (ports.0, ports.0 + ports.1),
                discard,
            }
        },
    )
}

fn text(cases: &[Case]) -> String {
    cases.iter().enumerate().fold(String::new(), |mut text, (i, case)| {
        let net = |(bits, length): (u32, u8)| format!("{}/{length}", std::net::Ipv4Addr::from(bits));
        let action = if case.discard { "discard" } else { "bypass" };
        let (first, last) = case.ports;
        writeln!(
            text,
            "[rule.r{i}]\naction = \"{action}\"\nlocal = [\"{}\"]\nremote = [\"{}\"]\nprotocol = 6\nremote-ports = \"{first}-{last}\"",
            net(case.local), net(case.remote)
        )
        .unwrap();
        text
    })
}

/// By the definition, every pair.
fn expected(cases: &[Case]) -> Vec<usize> {
    let overlap = |a: (u32, u8), b: (u32, u8)| (a.0 ^ b.0) >> (32 - a.1.min(b.1)) == 0;
    let contradict = |a: &Case, b: &Case| {
        a.discard != b.discard
            && a.local.1 + a.remote.1 == b.local.1 + b.remote.1
            && overlap(a.local, b.local)
            && overlap(a.remote, b.remote)
            && a.ports.0 <= b.ports.1
            && b.ports.0 <= a.ports.1
    };
    let later = |(i, b): (usize, &Case)| cases[..i].iter().any(|a| contradict(a, b)).then_some(i);
    cases.iter().enumerate().filter_map(later).collect()
}

proptest! {
    #[test]
    fn are_found_exactly_where_comparing_every_pair_finds_them(
        cases in prop::collection::vec(case(), 1..24)
    ) {
        let dir = directory(&[("x.toml", text(&cases).as_bytes())]);
        let found: Vec<_> = match load(dir.path()) {
            Ok(_) => vec![],
            Err(errors) => errors.iter().map(|error| error.field.clone().unwrap()).collect(),
        };
        let expected: Vec<_> = expected(&cases).iter().map(|i| format!("rule.r{i}")).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in "([\\[\\]=\"#a-z0-9.,\\n -]|\\[rule\\.r\\]\n|local = \\[|\"10\\.0\\.0\\.0/8\"\\]\n){0,60}") {
        let _result = load(directory(&[("x.toml", text.as_bytes())]).path());
    }
}
