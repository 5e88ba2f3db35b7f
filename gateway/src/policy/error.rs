//! What is wrong with the policy files, and where.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

/// A line and a column in a file; both start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, counted in characters.
    pub column: usize,
}

/// One error or warning about the policy files.
///
/// Its `Display` is one line: `FILE:LINE:COLUMN: FIELD: MESSAGE: HINT`. Serialised it is a flat
/// object; `line` and `column` are left out when it concerns the whole file, `field` and `hint`
/// when there is none. Sorted, errors are in the order of the files and of the lines in them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
pub struct PolicyError {
    /// The file (or the directory), as it was named.
    pub file: PathBuf,
    /// Where in the file; `None`: the whole of it.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// The table or key that it is about, such as `rule.to-berlin.remote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What was found.
    pub message: String,
    /// What was expected, or how to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, ": {hint}"))
    }
}

impl PolicyError {
    /// An error about a whole file or directory.
    pub(super) fn of_file(file: &Path, fault: Fault) -> Self {
        Self {
            file: file.to_owned(),
            position: None,
            field: None,
            message: fault.message,
            hint: fault.hint,
        }
    }

    /// An error about a place in a file.
    pub(super) fn at(place: &Place, field: Option<String>, fault: Fault) -> Self {
        Self {
            file: place.file.to_path_buf(),
            position: Some(place.position),
            field,
            message: fault.message,
            hint: fault.hint,
        }
    }
}

/// A place in a file, for errors that name two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The file, as it was named.
    pub(super) file: Arc<Path>,
    /// Where in it.
    pub(super) position: Position,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position;
        write!(f, "{}:{line}:{column}", self.file.display())
    }
}

/// What is wrong with a value, before anyone says where the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// What was found.
    pub(super) message: String,
    /// What was expected, or how to mend it.
    pub(super) hint: Option<String>,
}

impl Fault {
    /// A fault that speaks for itself.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// A fault and what should have been there.
    pub(super) fn expected(message: impl Into<String>, expected: impl fmt::Display) -> Self {
        Self::new(message).hint(format!("expected {expected}"))
    }

    /// Adds how to mend it.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// The word of `known` that someone who wrote `word` most likely meant, if any is close.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count().saturating_add(1) / 3;
    known
        .into_iter()
        .map(|candidate| (mistakes(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many mistakes make `a` of `b`: as the distance, but letters that changed places are one.
fn mistakes(a: &str, b: &str) -> usize {
    let sorted = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    match distance(a, b) {
        2 if sorted(a) == sorted(b) => 1,
        distance => distance,
    }
}

/// How many characters must be inserted, removed or replaced to make `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    // `row` holds the distances from what was read of `a` to every beginning of `b`.
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i.saturating_add(1);
        for (to, cell) in b.chars().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal.saturating_add(usize::from(from != to));
            diagonal = *cell;
            left = replaced.min(diagonal.saturating_add(1)).min(left.saturating_add(1));
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i.saturating_add(1);
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_insertions_removals_and_replacements() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("adress", "address", 1),
            ("kitten", "sitting", 3),
            ("remote", "remote", 0),
            ("remoet", "remote", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_far_word_suggests_nothing() {
        assert_eq!(nearest("adress", ["local-address", "address"]), Some("address"));
        assert_eq!(nearest("mtu", ["address", "lifetime"]), None);
        assert_eq!(nearest("tpc", ["udp", "tcp"]), Some("tcp"), "changed places");
    }

    #[test]
    fn an_error_is_one_line_and_one_flat_object() {
        let place =
            Place { file: Path::new("a.toml").into(), position: Position { line: 2, column: 3 } };
        let error = PolicyError::at(
            &place,
            Some("rule.x.local".to_owned()),
            Fault::expected("\"y\" is not a prefix", "ADDRESS/LENGTH"),
        );
        assert_eq!(
            error.to_string(),
            "a.toml:2:3: rule.x.local: \"y\" is not a prefix: expected ADDRESS/LENGTH"
        );
        assert_eq!(
            serde_json::to_value(&error).unwrap(),
            serde_json::json!({
                "file": "a.toml", "line": 2, "column": 3, "field": "rule.x.local",
                "message": "\"y\" is not a prefix", "hint": "expected ADDRESS/LENGTH",
            })
        );
        let whole = PolicyError::of_file(Path::new("a.toml"), Fault::new("no"));
        assert_eq!(
            serde_json::to_value(&whole).unwrap(),
            serde_json::json!({ "file": "a.toml", "message": "no" })
        );
    }
}
