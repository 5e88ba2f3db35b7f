//! The table `tests/rfc6311.md` is held against the sources: a rule whose test is gone, or that
//! has neither tests nor reasons in both columns, is a failure, and so is a rule that is gone.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

#[path = "tables/rules.rs"]
mod rules;
mod tables;

/// The sections that demand something, and how many rows each has.
const SECTIONS: [(&str, usize); 2] = [("5.1", 8), ("6.1", 1)];

#[test]
fn every_rule_of_the_table_has_its_tests_or_a_reason() {
    rules::check(6311, &SECTIONS);
}
