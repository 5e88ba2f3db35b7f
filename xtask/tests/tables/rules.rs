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

/// What is wrong with a table, given the sections that must have a row and the names of all tests.
pub(crate) fn faults(rows: &[Row<'_>], sections: &[&str], tests: &BTreeSet<String>) -> Vec<String> {
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
    }
    let present = rows.iter().map(|row| row.section).collect::<BTreeSet<_>>();
    let missing = sections.iter().filter(|section| !present.contains(**section));
    faults.extend(missing.map(|section| format!("section {section} has no row")));
    faults
}

/// Holds `tests/rfcNUMBER.md` against the sources, and prints what is open.
pub(crate) fn check(number: u32, sections: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join(format!("tests/rfc{number}.md"))).unwrap();
    let tests = tests_below(root);
    let rows = rows(&page);
    let faults = faults(&rows, sections, &tests);
    assert!(faults.is_empty(), "tests/rfc{number}.md:\n{}", faults.join("\n"));

    let count = |is: fn(&Cell<'_>) -> bool| rows.iter().filter(|r| r.cells.iter().any(is)).count();
    let tested = count(|cell| matches!(cell, Cell::Tests(_)));
    let open = count(|cell| matches!(cell, Cell::Open(_)));
    let not_applicable = count(|cell| matches!(cell, Cell::NotApplicable(_)));
    let own = count(|cell| matches!(cell, Cell::Own(_)));
    let mut reasons = BTreeMap::<&str, usize>::new();
    for row in &rows {
        let open = row.cells.iter().find_map(|cell| match cell {
            Cell::Open(reason) => Some(*reason),
            Cell::Tests(_)
            | Cell::Nothing
            | Cell::NotApplicable(_)
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
        "RFC {number}: {} rules; {tested} with tests, {own} of them of our own sending alone, {open} open, \
         {not_applicable} not applicable",
        rows.len()
    )
    .unwrap();
    for (reason, rules) in reasons {
        writeln!(out, "  open in {rules}: {reason}").unwrap();
    }
}
