//! The control socket: a Unix stream socket on which each line is a request in JSON and each
//! answer is a line of JSON.
//!
//! ```text
//! {"command":"status"}
//! {"status":{"version":"0.1.0",...}}
//! {"command":"dance"}
//! {"error":"unknown variant `dance`, expected one of `status`, `mtu`, `names`"}
//! ```
//!
//! [`Server`] takes requests on the daemon's side and hands them to the event loop as [`Call`]s;
//! [`query`] is the other end.

mod client;
mod mtu;
mod names;
mod report;
mod server;
mod table;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::client::{QueryError, query};
pub use self::mtu::{MtuReport, render_mtu};
pub use self::names::{NamedRule, NamedSa, NamesReport};
pub use self::report::{
    CandidateReport, CapabilityReport, CertificateReport, ChildReport, FieldReport, IkeSaReport,
    InterfaceReport, KernelReport, PoliciesReport, RefusalReport, ReloadReport, RuleReport,
    StatusReport,
};
pub use self::server::{BindError, Call, Server};
pub use self::table::render;

/// Where the socket is when neither the settings nor the command line say otherwise.
pub const DEFAULT_SOCKET: &str = "/run/gateway/control.sock";

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Everything about the running gateway.
    Status {},
    /// How large a packet may be that each Child SA takes.
    Mtu {},
    /// What the eBPF programs have numbers for.
    Names {},
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Mtu`].
    Mtu(Vec<MtuReport>),
    /// To [`Request::Names`].
    Names(NamesReport),
    /// To a request that cannot be answered: why, in one line.
    Error(String),
}
