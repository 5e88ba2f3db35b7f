//! The table `tests/rfc7296.md` is held against the sources: a rule whose test is gone, or that
//! has neither tests nor reasons in both columns, is a failure.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

#[path = "tables/rules.rs"]
mod rules;
mod tables;

use rules::{check, faults, rows};

/// Where the sections that demand something are: each must have a row.
const SECTIONS: [&str; 68] = [
    "1.2", "1.3", "1.3.1", "1.3.2", "1.3.3", "1.4", "1.4.1", "1.5", "1.7", "2", "2.1", "2.2",
    "2.3", "2.4", "2.5", "2.6", "2.6.1", "2.7", "2.8", "2.8.1", "2.8.2", "2.9", "2.9.2", "2.10",
    "2.11", "2.12", "2.13", "2.14", "2.15", "2.16", "2.17", "2.18", "2.19", "2.20", "2.21.2",
    "2.21.3", "2.21.4", "2.22", "2.23", "2.23.1", "2.24", "2.25", "3.1", "3.2", "3.3", "3.3.1",
    "3.3.2", "3.3.3", "3.3.4", "3.3.5", "3.3.6", "3.4", "3.5", "3.6", "3.8", "3.9", "3.10",
    "3.10.1", "3.11", "3.12", "3.13", "3.13.1", "3.14", "3.15", "3.15.1", "3.16", "4", "5",
];

#[test]
fn every_rule_of_the_table_has_its_tests_or_a_reason() {
    check(7296, &SECTIONS);
}

#[test]
fn a_table_that_lies_is_caught() {
    let page = "| section | level | rule | holds | refuses |\n\
        | --- | --- | --- | --- | --- |\n\
        | 1.2 | MUST | good | `here`, `there` | own: fails if it is gone |\n\
        | 1.3 | MUST | gone | `gone` | n/a: why |\n\
        | 1.4 | MUST | nothing | – | `here` |\n\
        | 1.4 | MUST | no reason | `here` | – |\n\
        | 1.5 | MAY | level | `here` | n/a: why |\n\
        | 1.6 | MUST | words | somehow | open: |\n\
        | 1.7 | MUST NOT | reason | open: see `gone` | n/a: see left |\n\
        | 2 | MUST | form | `here` | own: because |\n\
        | 2.1 | MUST | own | own: fails if so | n/a: why |\n\
        | 2.2 | MUST | untested | n/a: why | own: fails if so |\n";
    let tests = ["here", "there"].map(str::to_owned).into();
    let rows = rows(page);
    let faults = faults(&rows, &SECTIONS, &tests);
    let expected = [
        "1.3 «gone»: there is no test gone",
        "1.4 «nothing»: under holds it has neither a test nor a reason",
        "1.4 «no reason»: under refuses it has neither a test nor a reason",
        "1.5 «level»: the level MAY is none",
        "1.6 «words»: \"somehow\" is neither names of tests nor a reason",
        "1.6 «words»: \"open:\" is neither names of tests nor a reason",
        "1.7 «reason»: there is no test gone",
        "2 «form»: \"own: because\" is neither names of tests nor a reason",
        "2.1 «own»: `own:` under holds: that nobody can break it does not show that it is kept",
        "2.2 «untested»: `own:` without a test that could fail",
    ];
    assert_eq!(faults.get(..expected.len()).unwrap_or_default(), expected);
    assert!(faults.iter().skip(expected.len()).all(|fault| fault.ends_with("has no row")));
}
