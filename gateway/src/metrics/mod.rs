//! Metrics for Prometheus and its like: `GET /metrics` over HTTP, as OpenMetrics text.
//!
//! They are what `gateway status` reports, without what changes with each SA: one series for each
//! counter, and for each name in the policy files. [`Exporter`] hands each request to the event loop
//! as a [`Scrape`], and makes text of the report that comes back.

mod encode;
mod server;
#[cfg(test)]
mod tests;

pub use self::server::{Exporter, Scrape};
