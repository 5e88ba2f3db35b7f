//! The table `tests/rfc4555.md` is held against the sources: a rule whose test is gone, or that
//! has neither tests nor reasons in both columns, is a failure.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

#[path = "tables/rules.rs"]
mod rules;
mod tables;

/// Where the sections that demand something are: each must have a row.
const SECTIONS: [&str; 14] = [
    "3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7", "3.8", "3.9", "3.11", "3.12", "4.2.1",
    "4.2.5", "A.1",
];

#[test]
fn every_rule_of_the_table_has_its_tests_or_a_reason() {
    rules::check(4555, &SECTIONS);
}
