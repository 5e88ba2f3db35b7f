//! Policy files: TOML to [`gateway_ike::config::PolicySet`], with all errors and their places.
//!
//! [`load()`] reads a directory and touches nothing else: `gateway check` is this call and the
//! printing of its result, a reload is this call and a swap. The grammar is one table in
//! `keys`, from which the reader, the JSON [`schema()`] and `policies/README.md` come.
//!
//! INVARIANT: a value that leaves this module is complete and consistent; nobody checks it again.
#![forbid(unsafe_code)]

mod authentication;
mod document;
mod eap;
mod error;
mod keys;
#[cfg(test)]
mod limits;
mod load;
mod overlap;
mod peer;
mod pool;
mod proposal;
mod rule;
mod schema;
mod secret;
mod settings;
mod value;

#[cfg(test)]
mod tests;

pub use error::{PolicyError, Position};
pub use load::{Loaded, load};
pub use schema::schema;
pub use settings::{DEFAULT_PIN_DIR, DEFAULT_STATE_DIR, EarlyLimits, JournalLimits, Settings};
