//! Tables of what is shown by which test: their cells, and the names of all tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What a row says in one of its cells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    Tests(Vec<&'a str>),
    Nothing,
    Open(&'a str),
    NotApplicable(&'a str),
    /// It was decided not to comply.
    NotKept(&'a str),
    /// Nothing that a peer sends can break the rule: what would make the test that shows it kept fail.
    Own(&'a str),
    Unreadable(&'a str),
}

impl<'a> Cell<'a> {
    pub(crate) fn read(text: &'a str) -> Self {
        let reason = |prefix| text.strip_prefix(prefix).map(str::trim).filter(|r| !r.is_empty());
        if text == "–" {
            return Self::Nothing;
        }
        if let Some(reason) = reason("open:") {
            return Self::Open(reason);
        }
        if let Some(reason) = reason("n/a:") {
            return Self::NotApplicable(reason);
        }
        if let Some(reason) = reason("not kept:") {
            return Self::NotKept(reason);
        }
        if let Some(reason) = reason("own: fails if") {
            return Self::Own(reason);
        }
        let name = |part: &'a str| part.trim().strip_prefix('`')?.strip_suffix('`');
        text.split(',').map(name).collect::<Option<_>>().map_or(Self::Unreadable(text), Self::Tests)
    }

    /// The names of tests, also those in the words of a reason.
    fn names(&self) -> Vec<&'a str> {
        match self {
            Self::Tests(names) => names.clone(),
            Self::Open(words)
            | Self::NotApplicable(words)
            | Self::NotKept(words)
            | Self::Own(words) => words.split('`').skip(1).step_by(2).collect(),
            Self::Nothing | Self::Unreadable(_) => Vec::new(),
        }
    }

    /// What is wrong with it, given the names of all tests.
    pub(crate) fn faults(&self, tests: &BTreeSet<String>, fault: &mut impl FnMut(&str)) {
        if let Self::Unreadable(text) = self {
            fault(&format!("{text:?} is neither names of tests nor a reason"));
        }
        for name in self.names().iter().filter(|name| !tests.contains(**name)) {
            fault(&format!("there is no test {name}"));
        }
    }
}

/// The names of all tests below a directory.
pub(crate) fn tests_below(directory: &Path) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    collect(directory, &mut tests);
    tests
}

/// The names of the functions that are marked as tests in a source, and run: an ignored one shows
/// nothing.
fn tests_of(source: &str) -> impl Iterator<Item = String> {
    let (mut marked, mut ignored) = (false, false);
    source.lines().filter_map(move |line| {
        let line = line.trim();
        marked |= line == "#[test]" || line.starts_with("#[tokio::test");
        ignored |= line.starts_with("#[ignore");
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
        let (name, _) = name.split_once(['(', '<'])?;
        let runs = std::mem::take(&mut marked) & !std::mem::take(&mut ignored);
        runs.then(|| name.to_owned())
    })
}

fn collect(directory: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            collect(&path, tests);
        } else if path.extension().is_some_and(|end| end == "rs") {
            tests.extend(tests_of(&fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn only_functions_marked_as_tests_that_run_are_tests() {
    let source = "fn helper() {}\n#[test]\nfn one() {}\nfn other() {}\n\
        #[test]\n#[ignore]\nfn later() {}\n#[ignore = \"slow\"]\n#[test]\nfn never() {}\n\
        proptest! {\n    #[test]\n    fn two(\n        x in 0..1) {} }\n\
        #[tokio::test(flavor = \"x\")]\nasync fn three() {}\n";
    assert_eq!(tests_of(source).collect::<Vec<_>>(), ["one", "two", "three"]);
}
