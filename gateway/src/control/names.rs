//! What is behind the numbers that the eBPF programs have for things, for `gateway trace`.

use serde::{Deserialize, Serialize};

/// The rules and the Child SAs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesReport {
    /// The `if_id` of the kernel's SAs.
    pub if_id: u32,
    /// Rules in force.
    pub rules: Vec<NamedRule>,
    /// Both SAs of every Child SA.
    pub sas: Vec<NamedSa>,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRule {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The peer, for a protecting rule.
    pub peer: Option<String>,
}

/// An SA of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedSa {
    /// Its SPI.
    pub spi: u32,
    /// The rule that its Child SA serves.
    pub rule: String,
    /// The peer.
    pub peer: Option<String>,
}
