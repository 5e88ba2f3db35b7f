//! A table of the rules of an RFC: each with the tests that show it kept and what breaks it refused,
//! or a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::tables::{Cell, tests_below};

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    section: &'a str,
    level: &'a str,
    rule: &'a str,
    cells: [Cell<'a>; 2],
}

/// The rows of the table, from the text of the page.
pub(crate) fn rows(page: &str) -> Vec<Row<'_>> {
    let lines = page.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim));
    let read = |cells: Vec<_>| {
        let [section, level, rule, holds, refuses] = cells[..] else { return None };
        Some(Row { section, level, rule, cells: [Cell::read(holds), Cell::read(refuses)] })
    };
    let rows = cells.map(|cells| read(cells.collect()).unwrap());
    rows.skip(2).collect() // the head and the line below it
}

/// What is wrong with a table, given the names of all tests and what the operator is told is left out.
pub(crate) fn faults(
    rows: &[Row<'_>],
    tests: &BTreeSet<String>,
    left_out: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut faults = Vec::new();
    for Row { section, level, rule, cells } in rows {
        let mut fault = |what: &str| faults.push(format!("{section} «{rule}»: {what}"));
        if !["MUST", "MUST NOT", "SHOULD", "SHOULD NOT"].contains(level) {
            fault(&format!("the level {level} is none"));
        }
        cells.iter().for_each(|cell| cell.faults(tests, &mut fault));
        let [holds, refuses] = cells;
        for (cell, column) in [(holds, "holds"), (refuses, "refuses")] {
            if *cell == Cell::Nothing {
                fault(&format!("under {column} it has neither a test nor a reason"));
            }
        }
        if matches!(holds, Cell::Own(_)) {
            fault("`own:` under holds: that nobody can break it does not show that it is kept");
        } else if matches!(refuses, Cell::Own(_)) && !matches!(holds, Cell::Tests(_)) {
            fault("`own:` without a test that could fail");
        }
        if cells.iter().any(|cell| matches!(cell, Cell::NotKept(_))) && !left_out(section) {
            fault("it is not kept, and \"Left out\" does not say so");
        }
    }
    faults
}

/// What is wrong with the number of rows of each section, given how many it must have.
pub(crate) fn miscounts(rows: &[Row<'_>], demanded: &[(&str, usize)]) -> Vec<String> {
    let mut found = BTreeMap::<&str, usize>::new();
    for row in rows {
        let count = found.entry(row.section).or_default();
        *count = count.saturating_add(1);
    }
    let mut faults = Vec::new();
    for (section, wanted) in demanded {
        let found = found.remove(section).unwrap_or_default();
        if found != *wanted {
            faults.push(format!("section {section} has {found} rows, not {wanted}"));
        }
    }
    faults.extend(found.keys().map(|section| format!("section {section} is not in the list")));
    faults
}

/// Whether a page, under "Left out", names a section of an RFC.
pub(crate) fn is_left_out(page: &str, number: u32, section: &str) -> bool {
    let (_, rest) = page.split_once("\n## Left out").unwrap_or_default();
    let table = rest.split("\n## ").next().unwrap_or_default();
    let name = format!("RFC {number} {section}");
    // Not the beginning of a longer number.
    let goes_on = |rest: &str| {
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        rest.starts_with(|c: char| c.is_ascii_digit())
    };
    table.split(&name).skip(1).any(|rest| !goes_on(rest))
}

/// Holds `tests/rfcNUMBER.md` against the sources and against what policies/README.md says is left out,
/// and prints what is not kept or open. `sections`: each with the number of its rows.
pub(crate) fn check(number: u32, sections: &[(&str, usize)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join(format!("tests/rfc{number}.md"))).unwrap();
    let tests = tests_below(root);
    let rows = rows(&page);
    let policies = fs::read_to_string(root.join("policies/README.md")).unwrap();
    let mut faults = faults(&rows, &tests, |section| is_left_out(&policies, number, section));
    faults.extend(miscounts(&rows, sections));
    assert!(faults.is_empty(), "tests/rfc{number}.md:\n{}", faults.join("\n"));

    let any = |is: fn(&Cell<'_>) -> bool| rows.iter().filter(|r| r.cells.iter().any(is)).count();
    let open = any(|cell| matches!(cell, Cell::Open(_)));
    let not_kept = any(|cell| matches!(cell, Cell::NotKept(_)));
    let own = any(|cell| matches!(cell, Cell::Own(_)));
    // A rule that does not apply is one of which nothing is shown under *holds*.
    let holds = |is: fn(&Cell<'_>) -> bool| {
        let of_none = |r: &&Row<'_>| !r.cells.iter().any(|c| matches!(c, Cell::NotKept(_)));
        rows.iter().filter(of_none).filter(|r| is(&r.cells[0])).count()
    };
    let kept = holds(|cell| matches!(cell, Cell::Tests(_)));
    let not_applicable = holds(|cell| matches!(cell, Cell::NotApplicable(_)));
    let mut reasons = BTreeMap::<&str, usize>::new();
    for row in &rows {
        let open = row.cells.iter().find_map(|cell| match cell {
            Cell::Open(reason) => Some(*reason),
            Cell::Tests(_)
            | Cell::Nothing
            | Cell::NotApplicable(_)
            | Cell::NotKept(_)
            | Cell::Own(_)
            | Cell::Unreadable(_) => None,
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
        "RFC {number}: {} rules; {kept} kept, {own} of them of our own sending alone, {not_kept} not kept, \
         {not_applicable} not applicable, {open} open",
        rows.len()
    )
    .unwrap();
    for (reason, rules) in reasons {
        writeln!(out, "  open in {rules}: {reason}").unwrap();
    }
}
