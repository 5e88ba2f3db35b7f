//! A policy file in memory, and the reading of its tables key by key.
//!
//! Deserialising with serde would stop at the first error of a file. A [`Section`] reports every
//! error of its table with its place and lets the reading go on.

use core::fmt;
use core::ops::Range;
use core::time::Duration;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Fault, Place, PolicyError, Position, nearest};
use super::keys::{Key, Kind};
use super::value;

/// A table of a TOML file, its values with their places.
pub(super) type Table<'a> = DeTable<'a>;
/// Where something stands in the text of a file, in octets.
pub(super) type Span = Range<usize>;

/// The most elements in a list: as many traffic selectors as fit in one payload, whose number is
/// one octet (RFC 7296 3.13).
const LIST_LIMIT: usize = 255;

/// The most syntax errors of one file that are told: a file of another kind has one a line.
const SYNTAX_LIMIT: usize = 50;

/// The text of one file.
#[derive(Debug)]
pub(super) struct Source {
    path: Arc<Path>,
    text: String,
    /// The offset at which each line starts.
    lines: Vec<usize>,
}

impl Source {
    /// Takes the octets of the file at `path`.
    ///
    /// # Errors
    /// The octets are not UTF-8.
    pub(super) fn new(path: &Path, octets: Vec<u8>) -> Result<Self, PolicyError> {
        let (text, invalid) = match String::from_utf8(octets) {
            Ok(text) => (text, None),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(valid))
            }
        };
        let ends = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        let starts = ends.map(|(end, _)| end.saturating_add(1));
        let lines = core::iter::once(0).chain(starts).collect();
        let source = Self { path: path.into(), text, lines };
        match invalid {
            None => Ok(source),
            Some(offset) => {
                let fault = Fault::expected("not UTF-8", "text in UTF-8");
                Err(PolicyError::at(&source.place(&(offset..offset)), None, fault))
            }
        }
    }

    /// The file, as it was named.
    pub(super) const fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Where a span starts.
    pub(super) fn place(&self, span: &Span) -> Place {
        let line = self.lines.partition_point(|start| *start <= span.start);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..span.start).map_or(0, |text| text.chars().count());
        let position = Position { line, column: before.saturating_add(1) };
        Place { file: Arc::clone(&self.path), position }
    }

    /// Parses the file; with syntax errors there are no tables.
    pub(super) fn parse(&self) -> Result<Table<'_>, Vec<PolicyError>> {
        let (document, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return Ok(document.into_inner());
        }
        // A table that is defined twice makes an error of each of its keys too.
        let mut twice = BTreeSet::new();
        let mut problems = Vec::new();
        for error in errors.iter().take(SYNTAX_LIMIT) {
            let span = error.span().unwrap_or(self.text.len()..self.text.len());
            let fault = if error.message() == DUPLICATE {
                let header = self.header_above(&span);
                if header.contains(&span.start) {
                    let _new = twice.insert(header.start);
                } else if twice.contains(&header.start) {
                    continue;
                }
                self.duplicate(&header, &span)
            } else {
                syntax_fault(error.message())
            };
            problems.push(PolicyError::at(&self.place(&span), None, fault));
        }
        if let Some(more) = errors.len().checked_sub(SYNTAX_LIMIT).filter(|more| *more > 0) {
            let fault = Fault::new(format!("there are {more} more errors of syntax"));
            problems.push(PolicyError::of_file(&self.path, fault));
        }
        Err(problems)
    }

    /// The nearest line, from the place upward, that begins with a bracket: a table's header.
    fn header_above(&self, span: &Span) -> Span {
        let count = self.lines.partition_point(|start| *start <= span.start);
        let starts = self.lines.iter().take(count).rev();
        let lines = starts.map(|start| {
            let rest = self.text.get(*start..).unwrap_or("");
            (*start, rest.lines().next().unwrap_or(""))
        });
        let mut headers = lines.filter(|(_, line)| line.starts_with('['));
        headers.next().map_or(0..0, |(start, line)| start..start.saturating_add(line.len()))
    }

    /// A key or table that is there twice; of a table the first place is named.
    fn duplicate(&self, header: &Span, span: &Span) -> Fault {
        let line = |start: usize| self.text.get(start..)?.lines().next();
        let same = |start: &&usize| line(**start) == line(header.start);
        match self.lines.iter().find(same) {
            Some(first) if header.contains(&span.start) && *first < header.start => {
                let start = span.start.saturating_sub(header.start).saturating_add(*first);
                already_defined(&self.place(&(start..start)))
            }
            Some(_) | None => Fault::new(format!(
                "`{}` is there twice",
                self.text.get(span.clone()).unwrap_or("")
            )),
        }
    }
}

/// What the parser says of a key that is there already.
const DUPLICATE: &str = "duplicate key";

/// The fault of a table that is defined at another place too.
pub(super) fn already_defined(place: &Place) -> Fault {
    Fault::new(format!("defined already at {place}")).hint("rename or remove one of them")
}

/// What the parser says, on one line.
fn syntax_fault(message: &str) -> Fault {
    let message = message.trim_end().replace('\n', ", ");
    let message = message.strip_suffix(", expected nothing").unwrap_or(&message);
    let fault = Fault::new(message);
    // An address without quotes is taken for a number, a date or the like.
    if message.starts_with("invalid") { fault.hint("text stands in quotes") } else { fault }
}

/// A table that is being read: knows its name and its keys, and reports what is wrong.
#[derive(Debug)]
pub(super) struct Section<'a> {
    source: &'a Source,
    name: String,
    header: Span,
    table: &'a Table<'a>,
    keys: &'static [Key],
    problems: &'a mut Vec<PolicyError>,
    /// How many problems there were before this section's.
    before: usize,
}

impl<'a> Section<'a> {
    /// Begins to read the table `name`, whose name stands at `header`; keys that are not in
    /// `keys` are reported.
    pub(super) fn new(
        source: &'a Source,
        name: String,
        header: Span,
        table: &'a Table<'a>,
        keys: &'static [Key],
        problems: &'a mut Vec<PolicyError>,
    ) -> Self {
        let before = problems.len();
        let mut section = Self { source, name, header, table, keys, problems, before };
        for (key, value) in table {
            if !keys.iter().any(|known| known.name == key.get_ref()) {
                let fault = section.unknown_key(key.get_ref(), value.get_ref());
                section.report(&key.span(), None, fault);
            }
        }
        section
    }

    fn unknown_key(&self, word: &str, value: &DeValue<'_>) -> Fault {
        let known = || self.keys.iter().map(|key| key.name);
        let fault = Fault::new(format!("unknown key `{word}`"));
        // Whoever writes a key itself here (`psk`) is nearer to the file that it belongs into.
        let of_file = known().find(|key| key.strip_suffix("-file") == Some(word));
        if let Some(key) = of_file {
            return fault.hint(format!("expected `{key}`, the name of a file that has it"));
        }
        match nearest(word, known()) {
            Some(key) => fault.hint(format!("did you mean `{key}`?")),
            None if value.is_table() && !self.name.is_empty() => {
                let (kind, name) = self.name.split_once('.').unwrap_or((&self.name, ""));
                let name = format!("{name}.{word}{}", dotted(value));
                fault.hint(format!("a name with a dot is quoted: [{kind}.\"{name}\"]"))
            }
            None => fault.hint(format!("known are {}", known().collect::<Vec<_>>().join(", "))),
        }
    }

    /// Whether something was wrong in this section.
    pub(super) fn failed(&self) -> bool {
        self.problems.len() > self.before
    }

    /// What the key says, if it is there and a text; nothing is reported.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.table.get(key)?.get_ref().as_str()
    }

    /// Whether the key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the key's value stands; without one, the section's name.
    fn span(&self, key: &str) -> Span {
        self.table.get(key).map_or_else(|| self.header.clone(), Spanned::span)
    }

    /// The directory that relative paths in the file start from.
    pub(super) fn directory(&self) -> &'a Path {
        self.source.path().parent().unwrap_or_else(|| Path::new(""))
    }

    /// Reports that something is wrong with a key.
    pub(super) fn fault(&mut self, key: &str, fault: Fault) {
        self.report(&self.span(key), Some(key), fault);
    }

    /// The error or warning that there is something about a key, not yet reported.
    pub(super) fn error(&self, key: &str, fault: Fault) -> PolicyError {
        let place = self.source.place(&self.span(key));
        PolicyError::at(&place, self.field(Some(key)), fault)
    }

    /// Where the key's value stands, if it is there.
    pub(super) fn place(&self, key: &str) -> Option<Place> {
        Some(self.source.place(&self.table.get(key)?.span()))
    }

    /// Reports that something is wrong with the section as a whole.
    pub(super) fn whole_fault(&mut self, fault: Fault) {
        self.report(&self.header.clone(), None, fault);
    }

    /// Reports a key that is absent and must not be.
    pub(super) fn missing(&mut self, key: &str, why: impl fmt::Display) {
        if !self.has(key) {
            self.whole_fault(Fault::new(format!("`{key}` is missing{why}")));
        }
    }

    /// Reports each of the keys that is there, though it has no meaning.
    pub(super) fn forbid(&mut self, keys: &[&str], why: &str) {
        for key in keys.iter().filter(|key| self.has(key)).collect::<Vec<_>>() {
            self.fault(key, Fault::new(why));
        }
    }

    fn report(&mut self, span: &Span, key: Option<&str>, fault: Fault) {
        self.problems.push(PolicyError::at(&self.source.place(span), self.field(key), fault));
    }

    /// How errors call the section or a key in it; the file as a whole has no name.
    fn field(&self, key: Option<&str>) -> Option<String> {
        match (self.name.as_str(), key) {
            ("", key) => key.map(str::to_owned),
            (name, None) => Some(name.to_owned()),
            (name, Some(key)) => Some(format!("{name}.{key}")),
        }
    }

    /// The value of a key, or `None` if it is absent or wrong (then it was reported).
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = self.table.get(key)?.get_ref();
        let parsed = scalar(value, self.kind(key)).and_then(|text| parse(&text));
        parsed.map_err(|fault| self.fault(key, fault)).ok()
    }

    /// As [`Self::optional`]; the absence of the key is reported too.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        self.missing(key, "");
        self.optional(key, parse)
    }

    /// A number, within the bounds that the key has.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, key: &str) -> Option<T> {
        let (min, max) = match self.kind(key) {
            Kind::Number(min, max) => (min, max),
            Kind::Text
            | Kind::Time(..)
            | Kind::Interval
            | Kind::NumberOrText
            | Kind::Flag
            | Kind::Choice(_)
            | Kind::List
            | Kind::TextOrList => (0, u64::MAX),
        };
        self.optional(key, |text| {
            let number = text.parse().ok().filter(|number| (min..=max).contains(number));
            number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
                Fault::expected(format!("{text} is out of range"), format_args!("{min} to {max}"))
            })
        })
    }

    /// A duration, within the bounds that the key has.
    pub(super) fn time(&mut self, key: &str) -> Option<Duration> {
        let (least, most) = match self.kind(key) {
            Kind::Time(least, most) => (least, most),
            Kind::Text
            | Kind::Interval
            | Kind::Number(..)
            | Kind::NumberOrText
            | Kind::Flag
            | Kind::Choice(_)
            | Kind::List
            | Kind::TextOrList => ("0s", "365d"),
        };
        self.optional(key, |text| value::duration_within(text, least, most))
    }

    /// `true` or `false`; `default` if it is absent or wrong.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        self.optional(key, |text| Ok(text == "true")).unwrap_or(default)
    }

    /// The elements of a list; not one is given if one is wrong. A list that is there has at
    /// least one element, and none twice.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let value = self.table.get(key)?.get_ref();
        let Some(elements) = value.as_array() else {
            let fault = wrong_type(value, "a list, such as [\"…\"]");
            self.fault(key, fault);
            return None;
        };
        if elements.is_empty() {
            self.fault(key, Fault::expected("the list is empty", "one element or more"));
        } else if elements.len() > LIST_LIMIT {
            let message = format!("the list has {} elements", elements.len());
            self.fault(key, Fault::expected(message, format_args!("at most {LIST_LIMIT}")));
            return None;
        }
        let mut list = Vec::with_capacity(elements.len());
        let before = self.problems.len();
        for element in elements.iter() {
            let parsed = scalar(element.get_ref(), Kind::Text).and_then(|text| {
                let parsed = parse(&text)?;
                if list.contains(&parsed) {
                    return Err(Fault::new(format!("{text:?} occurs twice")));
                }
                Ok(parsed)
            });
            match parsed {
                Ok(parsed) => list.push(parsed),
                Err(fault) => self.report(&element.span(), Some(key), fault),
            }
        }
        (self.problems.len() == before && !list.is_empty()).then_some(list)
    }

    /// Whether the key is there and a list.
    pub(super) fn is_list(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().as_array().is_some())
    }

    /// As [`Self::list`]; the absence of the key is reported too.
    pub(super) fn required_list<T: PartialEq>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        self.missing(key, "");
        self.list(key, parse)
    }

    fn kind(&self, key: &str) -> Kind {
        self.keys.iter().find(|known| known.name == key).map_or(Kind::Text, |known| known.kind)
    }
}

/// The rest of a dotted name that was taken for tables in tables.
fn dotted(value: &DeValue<'_>) -> String {
    let mut rest = String::new();
    let mut table = value.as_table();
    while let Some((key, inner)) =
        table.filter(|table| table.len() == 1).and_then(|table| table.iter().next())
    {
        table = inner.get_ref().as_table();
        if table.is_some() {
            rest.push('.');
            rest.push_str(key.get_ref());
        }
    }
    rest
}

/// The text of a string or number, if the key takes one.
fn scalar<'a>(value: &'a DeValue<'_>, kind: Kind) -> Result<Cow<'a, str>, Fault> {
    let text = || value.as_str().map(Cow::Borrowed);
    let number = || {
        let integer = value.as_integer()?;
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
        Some(Cow::Owned(number.to_string()))
    };
    let flag = || value.as_bool().map(|flag| Cow::Owned(flag.to_string()));
    let (found, expected) = match kind {
        Kind::Flag => (flag(), "true or false"),
        Kind::Text | Kind::Time(..) | Kind::Interval | Kind::Choice(_) | Kind::List => {
            (text(), "a string")
        }
        Kind::Number(..) => (number(), "a whole number"),
        Kind::NumberOrText => (number().or_else(text), "a string or a whole number"),
        Kind::TextOrList => (text(), "a string or a list of strings"),
    };
    found.ok_or_else(|| wrong_type(value, expected))
}

/// The fault of a value that has another type than it should.
pub(super) fn wrong_type(value: &DeValue<'_>, expected: &str) -> Fault {
    let found = value.type_str();
    let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
    Fault::expected(format!("found {article} {found}"), expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(Path::new("x.toml"), text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn columns_count_characters_and_lines_start_at_one() {
        let source = source("a\nä = 1\n");
        let position = |offset| {
            let Position { line, column } = source.place(&(offset..offset)).position;
            (line, column)
        };
        assert_eq!(position(0), (1, 1));
        assert_eq!(position(1), (1, 2));
        assert_eq!(position(2), (2, 1));
        assert_eq!(position(4), (2, 2), "after the two octets of ä");
        assert_eq!(position(9), (3, 1), "the end of the text");
    }

    #[test]
    fn octets_that_are_not_utf_8_are_named_with_their_place() {
        let error =
            Source::new(Path::new("x.toml"), b"a = 1\nb = \"\xff\"\n".to_vec()).unwrap_err();
        assert_eq!(error.to_string(), "x.toml:2:6: not UTF-8: expected text in UTF-8");
    }

    #[test]
    fn every_syntax_error_of_a_file_is_reported() {
        let source = source("[peer.a]\naddress = x\nlocal = 1.2.3\n[peer.b\n");
        let mut errors: Vec<_> =
            source.parse().unwrap_err().iter().map(ToString::to_string).collect();
        errors.sort();
        assert_eq!(
            errors,
            [
                "x.toml:2:11: string values must be quoted, expected literal string",
                "x.toml:3:12: invalid float: text stands in quotes",
                "x.toml:4:8: unclosed table, expected `]`",
            ]
        );
    }

    #[test]
    fn a_file_of_another_kind_does_not_flood_the_reader() {
        let errors = source(&"x y\n".repeat(1000)).parse().unwrap_err();
        assert_eq!(errors.len(), SYNTAX_LIMIT + 1);
        assert!(errors.iter().any(|error| error.message.ends_with("more errors of syntax")));
    }

    #[test]
    fn what_is_there_twice_is_named_once_and_with_the_first_place() {
        let source =
            source("[a.x]\nk = 1\nk = 2\n[a.x]\nk = 3\n[a.\"y.z\"]\n[a.\"y.z\"]\nl = 1\nl = 2\n");
        let errors: Vec<_> = source.parse().unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "x.toml:3:1: `k` is there twice",
                "x.toml:4:4: defined already at x.toml:1:4: rename or remove one of them",
                "x.toml:7:4: defined already at x.toml:6:4: rename or remove one of them",
            ]
        );
    }
}
