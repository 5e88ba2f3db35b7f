//! The one error of this program: a sentence for the person at the terminal.

use std::fmt;

/// What went wrong and, where it is known, the command that mends it.
#[derive(Debug)]
pub(crate) struct Error(String);

/// A result whose error is a sentence.
pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    /// An error with this text: lower case, no full stop.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was being done when something failed.
pub(crate) trait Context<T> {
    /// Puts `doing()` and a colon before the cause.
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|cause| Error(format!("{}: {cause}", doing().into())))
    }
}
