//! The table `tests/rfc6023.md` is held against the sources: a rule whose test is gone, or that
//! has neither tests nor reasons in both columns, is a failure.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

#[path = "tables/rules.rs"]
mod rules;
mod tables;

/// Where the sections that demand something are: each must have a row.
const SECTIONS: [&str; 2] = ["3", "4"];

#[test]
fn every_rule_of_the_table_has_its_tests_or_a_reason() {
    rules::check(6023, &SECTIONS);
}
