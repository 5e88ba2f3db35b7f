//! The table `tests/rfc7296.md` is held against the sources: a rule whose test is gone, or that
//! has neither a test nor a reason, is a failure.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use tables::{Cell, tests_below};

/// Where the sections that demand something are: each must have a row.
const SECTIONS: [&str; 61] = [
    "1.2", "1.3", "1.3.1", "1.3.2", "1.3.3", "1.4", "1.4.1", "1.5", "1.7", "2", "2.1", "2.2",
    "2.3", "2.4", "2.5", "2.6", "2.6.1", "2.7", "2.8", "2.8.1", "2.8.2", "2.9", "2.9.2", "2.10",
    "2.11", "2.12", "2.13", "2.14", "2.15", "2.16", "2.17", "2.18", "2.19", "2.20", "2.21.2",
    "2.21.3", "2.21.4", "2.22", "2.23", "2.23.1", "2.24", "2.25", "3.1", "3.2", "3.3", "3.3.1",
    "3.3.2", "3.3.3", "3.3.4", "3.3.5", "3.3.6", "3.4", "3.5", "3.6", "3.9", "3.10", "3.10.1",
    "3.11", "3.12", "3.13", "3.13.1",
];

/// One row of the table.
#[derive(Debug)]
struct Row<'a> {
    section: &'a str,
    level: &'a str,
    rule: &'a str,
    cells: [Cell<'a>; 2],
}

/// The rows of the table, from the text of the page.
fn rows(page: &str) -> Vec<Row<'_>> {
    let lines = page.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim));
    let read = |cells: Vec<_>| {
        let [section, level, rule, holds, refuses] = cells[..] else { return None };
        Some(Row { section, level, rule, cells: [Cell::read(holds), Cell::read(refuses)] })
    };
    let rows = cells.map(|cells| read(cells.collect()).unwrap());
    rows.skip(2).collect() // the head and the line below it
}

/// What is wrong with a table, given the names of all tests.
fn faults(rows: &[Row<'_>], tests: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for Row { section, level, rule, cells } in rows {
        let mut fault = |what: &str| faults.push(format!("{section} «{rule}»: {what}"));
        if !["MUST", "MUST NOT", "SHOULD", "SHOULD NOT"].contains(level) {
            fault(&format!("the level {level} is none"));
        }
        cells.iter().for_each(|cell| cell.faults(tests, &mut fault));
        if cells.iter().all(|cell| *cell == Cell::Nothing) {
            fault("it has neither a test nor a reason");
        }
    }
    let sections = rows.iter().map(|row| row.section).collect::<BTreeSet<_>>();
    let missing = SECTIONS.iter().filter(|section| !sections.contains(**section));
    faults.extend(missing.map(|section| format!("section {section} has no row")));
    faults
}

#[test]
fn every_rule_of_the_table_has_its_tests_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("tests/rfc7296.md")).unwrap();
    let tests = tests_below(root);
    let rows = rows(&page);
    let faults = faults(&rows, &tests);
    assert!(faults.is_empty(), "tests/rfc7296.md:\n{}", faults.join("\n"));

    let count = |is: fn(&Cell<'_>) -> bool| rows.iter().filter(|r| r.cells.iter().any(is)).count();
    let tested = count(|cell| matches!(cell, Cell::Tests(_)));
    let open = count(|cell| matches!(cell, Cell::Open(_)));
    let not_applicable = count(|cell| matches!(cell, Cell::NotApplicable(_)));
    let mut reasons = BTreeMap::<&str, usize>::new();
    for row in &rows {
        let open = row.cells.iter().find_map(|cell| match cell {
            Cell::Open(reason) => Some(*reason),
            Cell::Tests(_) | Cell::Nothing | Cell::NotApplicable(_) | Cell::Unreadable(_) => None,
        });
        if let Some(reason) = open {
            let rules = reasons.entry(reason).or_default();
            *rules = rules.saturating_add(1);
        }
    }
    // Not by `println`, which the test harness would keep to itself.
    let mut out = io::stderr().lock();
    writeln!(
        out,
        "RFC 7296: {} rules; {tested} with tests, {open} open, {not_applicable} not applicable",
        rows.len()
    )
    .unwrap();
    for (reason, rules) in reasons {
        writeln!(out, "  open in {rules}: {reason}").unwrap();
    }
}

#[test]
fn a_table_that_lies_is_caught() {
    let page = "| section | level | rule | holds | refuses |\n\
        | --- | --- | --- | --- | --- |\n\
        | 1.2 | MUST | good | `here`, `there` | – |\n\
        | 1.3 | MUST | gone | `gone` | – |\n\
        | 1.4 | MUST | nothing | – | – |\n\
        | 1.5 | MAY | level | `here` | n/a: why |\n\
        | 1.6 | MUST | words | somehow | open: |\n\
        | 1.7 | MUST NOT | reason | open: see `gone` | – |\n";
    let tests = ["here", "there"].map(str::to_owned).into();
    let rows = rows(page);
    let faults = faults(&rows, &tests);
    let expected = [
        "1.3 «gone»: there is no test gone",
        "1.4 «nothing»: it has neither a test nor a reason",
        "1.5 «level»: the level MAY is none",
        "1.6 «words»: \"somehow\" is neither names of tests nor a reason",
        "1.6 «words»: \"open:\" is neither names of tests nor a reason",
        "1.7 «reason»: there is no test gone",
    ];
    assert_eq!(faults.get(..expected.len()).unwrap_or_default(), expected);
    assert!(faults.iter().skip(expected.len()).all(|fault| fault.ends_with("has no row")));
}
