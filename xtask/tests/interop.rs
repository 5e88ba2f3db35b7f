//! The table `tests/interop.md` is held against the sources: each feature has, for each peer and
//! for either end that may begin it, tests that there are, or a reason.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

mod tables;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use tables::{Cell, tests_below};

/// What must be seen with each peer.
const FEATURES: [&str; 27] = [
    "PSK",
    "RSA, PSS",
    "RSA, PKCS #1 v1.5",
    "ECDSA, P-256",
    "ECDSA, P-384 and P-521",
    "Ed25519",
    "EAP-TLS",
    "EAP-MSCHAPv2",
    "Child SA rekeyed",
    "IKE SA rekeyed",
    "Child SA rekeyed by both at once",
    "IKE SA rekeyed by both at once",
    "PFS with each group",
    "HMAC-SHA1 for IKE, its keys and ESP, AES-CBC and MODP-2048",
    "Childless",
    "Fragments, chain above 4 kB",
    "MOBIKE move",
    "NAT rebinding",
    "ML-KEM hybrid",
    "ML-KEM hybrid rekeyed",
    "ML-KEM-512, -768 and -1024 beside X25519, P-256 and P-384, rekeyed",
    "PPK",
    "CP addresses",
    "Transport mode",
    "Transport mode through NAT",
    "Delete",
    "Killed and restarted",
];

/// One row of the table.
#[derive(Debug)]
struct Row<'a> {
    feature: &'a str,
    begins: &'a str,
    /// One for each peer.
    cells: Vec<Cell<'a>>,
}

/// The rows, from the text of the page.
fn rows(page: &str) -> Vec<Row<'_>> {
    let lines = page.lines().filter(|line| line.starts_with("| "));
    lines
        .skip(2)
        .map(|line| {
            let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
            let (feature, begins) = (cells.next().unwrap(), cells.next().unwrap());
            Row { feature, begins, cells: cells.map(Cell::read).collect() }
        })
        .collect()
}

/// Whether a test is, by its name, one with a peer.
type IsWith = fn(&str) -> bool;

/// The peers in the order of the columns.
const PEERS: [IsWith; 3] = [
    |test| test.contains("strongswan") && !test.contains("newer_strongswan"),
    |test| test.contains("newer_strongswan"),
    |test| test.contains("libreswan"),
];

/// What is wrong with a table of these peers, given the names of all tests.
fn faults(rows: &[Row<'_>], peers: &[IsWith], tests: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for Row { feature, begins, cells } in rows {
        let mut fault = |what: &str| faults.push(format!("{feature}, {begins}: {what}"));
        if !FEATURES.contains(feature) {
            fault("there is no such feature");
        }
        if cells.len() != peers.len() {
            fault(&format!("{} cells for {} peers", cells.len(), peers.len()));
        }
        for (cell, is_with) in cells.iter().zip(peers) {
            cell.faults(tests, &mut fault);
            if let Cell::Tests(names) = cell {
                for name in names.iter().filter(|name| !is_with(name)) {
                    fault(&format!("by its name {name} is not with the peer of its column"));
                }
            }
            if *cell == Cell::Nothing {
                fault("a peer has neither a test nor a reason");
            }
        }
    }
    for feature in FEATURES {
        let ends: Vec<_> =
            rows.iter().filter(|row| row.feature == feature).map(|row| row.begins).collect();
        if ends != ["we", "peer"] && ends != ["both"] {
            faults.push(format!("{feature}: the rows are for {ends:?}"));
        }
    }
    faults
}

#[test]
fn every_feature_is_shown_with_every_peer_or_has_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("tests/interop.md")).unwrap();
    let faults = faults(&rows(&page), &PEERS, &tests_below(root));
    assert!(faults.is_empty(), "tests/interop.md:\n{}", faults.join("\n"));
    // Not by `println`, which the test harness would keep to itself.
    let mut out = io::stderr().lock();
    let header = page.lines().find(|line| line.starts_with("| feature | ")).unwrap();
    for Row { feature, begins, cells } in rows(&page) {
        let names = header.trim_matches('|').split(" | ").skip(2).map(str::trim);
        for (peer, cell) in names.zip(cells) {
            if let Cell::NotApplicable(why) = cell {
                writeln!(out, "not with {peer}: {feature}, {begins}: {why}").unwrap();
            }
        }
    }
}

#[test]
fn a_table_that_lies_is_caught() {
    let page = "| feature | begins | one | other |\n\
        | --- | --- | --- | --- |\n\
        | PSK | we | `one_here` | n/a: why |\n\
        | PSK | peer | `one_gone` | – |\n\
        | RSA, PSS | both | `one_here` |\n\
        | RSA, PKCS #1 v1.5 | both | `one_here` | n/a: why |\n\
        | ECDSA, P-256 | we | somehow | open: later |\n\
        | Telepathy | both | `one_here` | `one_here` |\n";
    let peers: [IsWith; 2] = [|test| test.contains("one"), |test| test.contains("other")];
    let found = faults(&rows(page), &peers, &["one_here".to_owned()].into());
    let expected = [
        "PSK, peer: there is no test one_gone",
        "PSK, peer: a peer has neither a test nor a reason",
        "RSA, PSS, both: 1 cells for 2 peers",
        "ECDSA, P-256, we: \"somehow\" is neither names of tests nor a reason",
        "Telepathy, both: there is no such feature",
        "Telepathy, both: by its name one_here is not with the peer of its column",
        "ECDSA, P-256: the rows are for [\"we\"]",
    ];
    assert_eq!(found.get(..expected.len()).unwrap_or_default(), expected);
    let rest = found.get(expected.len()..).unwrap_or_default();
    assert!(rest.len() == FEATURES.len() - 4 && rest.iter().all(|f| f.ends_with("for []")));
}
