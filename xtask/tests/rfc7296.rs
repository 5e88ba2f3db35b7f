//! The table `tests/rfc7296.md` is held against the sources: a rule whose test is gone, or that
//! has neither a test nor a reason, is a failure.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

#[path = "tables/rules.rs"]
mod rules;
mod tables;

use rules::{check, faults, rows};

/// Where the sections that demand something are: each must have a row.
const SECTIONS: [&str; 61] = [
    "1.2", "1.3", "1.3.1", "1.3.2", "1.3.3", "1.4", "1.4.1", "1.5", "1.7", "2", "2.1", "2.2",
    "2.3", "2.4", "2.5", "2.6", "2.6.1", "2.7", "2.8", "2.8.1", "2.8.2", "2.9", "2.9.2", "2.10",
    "2.11", "2.12", "2.13", "2.14", "2.15", "2.16", "2.17", "2.18", "2.19", "2.20", "2.21.2",
    "2.21.3", "2.21.4", "2.22", "2.23", "2.23.1", "2.24", "2.25", "3.1", "3.2", "3.3", "3.3.1",
    "3.3.2", "3.3.3", "3.3.4", "3.3.5", "3.3.6", "3.4", "3.5", "3.6", "3.9", "3.10", "3.10.1",
    "3.11", "3.12", "3.13", "3.13.1",
];

#[test]
fn every_rule_of_the_table_has_its_tests_or_a_reason() {
    check(7296, &SECTIONS);
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
    let faults = faults(&rows, &SECTIONS, &tests);
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
