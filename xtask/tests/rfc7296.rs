//! The table `tests/rfc7296.md` is held against the sources: a rule whose test is gone, or that
//! has neither tests nor reasons in both columns, is a failure, and so is a rule that is gone.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic; clippy knows tests by their attribute and not their helpers"
)]

#[path = "tables/rules.rs"]
mod rules;
mod tables;

use rules::{check, faults, is_left_out, miscounts, rows};

/// The sections that demand something, and how many rows each has.
const SECTIONS: [(&str, usize); 77] = [
    ("1", 2),
    ("1.2", 7),
    ("1.3", 2),
    ("1.3.1", 5),
    ("1.3.2", 3),
    ("1.3.3", 1),
    ("1.4", 4),
    ("1.4.1", 8),
    ("1.5", 2),
    ("1.7", 2),
    ("2", 2),
    ("2.1", 8),
    ("2.2", 3),
    ("2.3", 8),
    ("2.4", 8),
    ("2.5", 12),
    ("2.6", 7),
    ("2.6.1", 2),
    ("2.7", 4),
    ("2.8", 7),
    ("2.8.1", 4),
    ("2.8.2", 3),
    ("2.9", 5),
    ("2.9.2", 4),
    ("2.10", 1),
    ("2.11", 2),
    ("2.12", 2),
    ("2.13", 4),
    ("2.14", 2),
    ("2.15", 4),
    ("2.16", 8),
    ("2.17", 1),
    ("2.18", 3),
    ("2.19", 5),
    ("2.20", 1),
    ("2.21", 1),
    ("2.21.1", 1),
    ("2.21.2", 5),
    ("2.21.3", 3),
    ("2.21.4", 7),
    ("2.22", 3),
    ("2.23", 12),
    ("2.23.1", 2),
    ("2.24", 1),
    ("2.25", 4),
    ("2.25.1", 3),
    ("2.25.2", 3),
    ("3", 1),
    ("3.1", 13),
    ("3.2", 3),
    ("3.3", 6),
    ("3.3.1", 3),
    ("3.3.2", 1),
    ("3.3.3", 1),
    ("3.3.4", 4),
    ("3.3.5", 6),
    ("3.3.6", 8),
    ("3.4", 6),
    ("3.5", 6),
    ("3.6", 5),
    ("3.7", 2),
    ("3.8", 5),
    ("3.9", 2),
    ("3.10", 2),
    ("3.10.1", 4),
    ("3.11", 3),
    ("3.12", 3),
    ("3.13", 2),
    ("3.13.1", 2),
    ("3.14", 6),
    ("3.15", 1),
    ("3.15.1", 5),
    ("3.15.4", 1),
    ("3.16", 5),
    ("4", 8),
    ("5", 5),
    ("5.1", 1),
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
        | 2.2 | MUST | untested | n/a: why | own: fails if so |\n\
        | 2.3 | MUST | told | not kept: why | `here` |\n\
        | 2.30 | MUST | untold | not kept: why | `here` |\n";
    let tests = ["here", "there"].map(str::to_owned).into();
    let rows = rows(page);
    let told =
        "# Keys\n\n## Left out, and why\n\n| that (RFC 1 2.3) | why |\n\n## More\n\nRFC 1 2.30\n";
    let faults = faults(&rows, &tests, |section| is_left_out(told, 1, section));
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
        "2.30 «untold»: it is not kept, and \"Left out\" does not say so",
    ];
    assert_eq!(faults, expected);
    let rows = rows.get(..4).unwrap_or_default();
    let demanded = [("1.2", 1), ("1.4", 3), ("1.5", 1)];
    let expected = [
        "section 1.4 has 2 rows, not 3",
        "section 1.5 has 0 rows, not 1",
        "section 1.3 is not in the list",
    ];
    assert_eq!(miscounts(rows, &demanded), expected);
}

#[test]
fn what_is_left_out_is_named_by_its_whole_section() {
    let page =
        "RFC 7296 4\n## Left out\n\nRFC 7296 2.23.1, RFC 7296 3.6 and RFC 7296 5. RFC 4555 3.12\n";
    for (number, section) in [(7296, "2.23.1"), (7296, "3.6"), (7296, "5"), (4555, "3.12")] {
        assert!(is_left_out(page, number, section), "{number} {section}");
    }
    for (number, section) in [(7296, "2.23"), (7296, "2"), (7296, "4"), (4555, "3.1"), (4555, "5")]
    {
        assert!(!is_left_out(page, number, section), "{number} {section}");
    }
}
