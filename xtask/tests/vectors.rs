//! The table `tests/vectors.md` is held against the sources: each of its tests exists, and what must
//! be held against published vectors is.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

mod tables;

use std::fs;
use std::path::Path;

use tables::{Cell, tests_below};

/// What must have a row: a word of its first cell, and one of its second.
const DEMANDED: [(&str, &str); 10] = [
    ("P-256", "RFC 5903"),
    ("X25519", "RFC 7748"),
    ("X25519", "RFC 8031"),
    ("ML-KEM", "NIST"),
    ("Integrity", "RFC 4868"),
    ("All-zero X25519 share", "Wycheproof"),
    ("Points off the curve", "SP 800-56A"),
    ("Signatures that are not canonical", "X.690"),
    ("MSCHAPv2", "RFC 2759"),
    ("implicit rejection", "FIPS 203"),
];

#[test]
fn every_vector_of_the_table_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("tests/vectors.md")).unwrap();
    let lines = page.lines().filter(|line| line.starts_with("| ")).skip(2);
    let rows: Vec<[&str; 3]> = lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            cells.try_into().unwrap()
        })
        .collect();
    let tests = tests_below(root);
    let mut faults = Vec::new();
    for [what, source, cell] in &rows {
        let mut fault = |words: &str| faults.push(format!("{what}, {source}: {words}"));
        let cell = Cell::read(cell);
        if !matches!(cell, Cell::Tests(_)) {
            fault("no test is named");
        }
        cell.faults(&tests, &mut fault);
    }
    for (what, source) in DEMANDED {
        if !rows.iter().any(|[w, s, _]| w.contains(what) && s.contains(source)) {
            faults.push(format!("there is no row for {what} of {source}"));
        }
    }
    assert!(faults.is_empty(), "tests/vectors.md:\n{}", faults.join("\n"));
}
