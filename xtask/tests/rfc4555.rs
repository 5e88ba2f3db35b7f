//! The table `tests/rfc4555.md` is held against the sources: a rule whose test is gone, or that
//! has neither tests nor reasons in both columns, is a failure, and so is a rule that is gone.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

#[path = "tables/rules.rs"]
mod rules;
mod tables;

/// The sections that demand something, and how many rows each has.
const SECTIONS: [(&str, usize); 14] = [
    ("3.1", 1),
    ("3.2", 1),
    ("3.3", 1),
    ("3.4", 1),
    ("3.5", 1),
    ("3.6", 1),
    ("3.7", 5),
    ("3.8", 4),
    ("3.9", 6),
    ("3.11", 1),
    ("3.12", 2),
    ("4.2.1", 2),
    ("4.2.5", 2),
    ("A.1", 1),
];

#[test]
fn every_rule_of_the_table_has_its_tests_or_a_reason() {
    rules::check(4555, &SECTIONS);
}
