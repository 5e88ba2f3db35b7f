//! Names of rules and peers for the numbers in what the programs tell, and the reverse.

use std::collections::{BTreeMap, BTreeSet};

use gateway_common::TraceKey;

use super::TraceError;
use crate::cli::TraceArgs;
use crate::control::{NamedSa, NamesReport, QueryError, Request, Response, query};

/// What the gateway has told.
#[derive(Debug, Default)]
pub(super) struct Names {
    report: NamesReport,
    rules: BTreeMap<u32, usize>,
    sas: BTreeMap<u32, usize>,
}

impl Names {
    /// Asks the gateway. Where none answers numbers have to do, unless the selection has names.
    pub(super) fn ask(args: &TraceArgs) -> Result<Self, TraceError> {
        match query(&args.pinned.control.socket, &Request::Names {}) {
            Ok(Response::Names(report)) => Ok(Self::new(report)),
            Ok(Response::Error(error)) => Err(TraceError::Refused(error)),
            Ok(Response::Status(_) | Response::Mtu(_)) => {
                Err(TraceError::Refused("it answers something else".to_owned()))
            }
            Err(QueryError::NoDaemon { .. }) if !needs_gateway(args) => Ok(Self::default()),
            Err(error) => Err(TraceError::NoNames(error)),
        }
    }

    fn new(report: NamesReport) -> Self {
        let rules = report.rules.iter().enumerate().map(|(place, rule)| (rule.id, place));
        let sas = report.sas.iter().enumerate().map(|(place, sa)| (sa.spi, place));
        Self { rules: rules.collect(), sas: sas.collect(), report }
    }

    /// Asks again: SAs are replaced, and rules loaded anew. Whether there was an answer.
    pub(super) fn renew(&mut self, args: &TraceArgs) -> bool {
        let Ok(Response::Names(report)) = query(&args.pinned.control.socket, &Request::Names {})
        else {
            return false;
        };
        *self = Self::new(report);
        true
    }

    /// The `if_id` of the gateway's SAs.
    pub(super) fn if_id(&self) -> u32 {
        self.report.if_id
    }

    /// The name of a rule.
    pub(super) fn rule(&self, id: u32) -> Option<&str> {
        let rule = self.report.rules.get(*self.rules.get(&id)?)?;
        Some(&rule.name)
    }

    /// The peer of a rule.
    pub(super) fn peer(&self, id: u32) -> Option<&str> {
        self.report.rules.get(*self.rules.get(&id)?)?.peer.as_deref()
    }

    /// The SA with an SPI.
    pub(super) fn sa(&self, spi: u32) -> Option<&NamedSa> {
        self.report.sas.get(*self.sas.get(&spi)?)
    }

    /// The rules and SAs that are to be traced; none for all.
    pub(super) fn select(
        &self,
        args: &TraceArgs,
    ) -> Result<Option<BTreeSet<TraceKey>>, TraceError> {
        if args.peer.is_empty() && args.rule.is_empty() && args.spi.is_empty() {
            return Ok(None);
        }
        let rules = &self.report.rules;
        let of_rules = rules.iter().filter_map(|rule| rule.peer.as_deref());
        let of_sas = self.report.sas.iter().filter_map(|sa| sa.peer.as_deref());
        let peers: BTreeSet<&str> = of_rules.chain(of_sas).collect();
        all_known("peer", &args.peer, &peers)?;
        all_known("rule", &args.rule, &rules.iter().map(|rule| &*rule.name).collect())?;
        let is_wanted = |rule: &str, peer: Option<&str>| {
            args.rule.iter().any(|name| name == rule)
                || args.peer.iter().any(|name| Some(&**name) == peer)
        };
        let of_rules = rules
            .iter()
            .filter(|rule| is_wanted(&rule.name, rule.peer.as_deref()))
            .map(|rule| TraceKey { kind: TraceKey::RULE, value: rule.id });
        let of_sas = self.report.sas.iter().filter(|sa| is_wanted(&sa.rule, sa.peer.as_deref()));
        let spis = of_sas.map(|sa| sa.spi).chain(args.spi.iter().map(|spi| spi.0));
        let spis = spis.map(|spi| TraceKey { kind: TraceKey::SPI, value: spi.to_be() });
        Ok(Some(of_rules.chain(spis).collect()))
    }
}

/// Whether numbers are not enough.
fn needs_gateway(args: &TraceArgs) -> bool {
    !args.peer.is_empty() || !args.rule.is_empty() || args.keys.is_some()
}

fn all_known(
    kind: &'static str,
    wanted: &[String],
    known: &BTreeSet<&str>,
) -> Result<(), TraceError> {
    match wanted.iter().find(|name| !known.contains(&***name)) {
        None => Ok(()),
        Some(name) => Err(TraceError::Unknown {
            kind,
            name: name.clone(),
            known: known.iter().map(|&name| name.to_owned()).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::control::NamedRule;

    fn names() -> Names {
        let rule = |id, name: &str, peer: Option<&str>| NamedRule {
            id,
            name: name.to_owned(),
            peer: peer.map(str::to_owned),
        };
        let sa = |spi, rule: &str, peer: &str| NamedSa {
            spi,
            rule: rule.to_owned(),
            peer: Some(peer.to_owned()),
        };
        Names::new(NamesReport {
            if_id: 71,
            rules: vec![
                rule(1, "lan", Some("berlin")),
                rule(2, "voice", Some("berlin")),
                rule(3, "dmz", Some("rome")),
                rule(4, "dns", None),
            ],
            sas: vec![
                sa(0x10, "lan", "berlin"),
                sa(0x11, "lan", "berlin"),
                sa(0x30, "dmz", "rome"),
            ],
        })
    }

    fn args(line: &str) -> TraceArgs {
        let cli = Cli::try_parse_from(format!("gateway trace {line}").split_whitespace()).unwrap();
        let Command::Trace(args) = cli.command else { panic!("another command") };
        args
    }

    fn select(line: &str) -> Result<Option<Vec<(u32, u32)>>, String> {
        let args = args(line);
        let selected = names().select(&args).map_err(|error| error.to_string())?;
        Ok(selected.map(|keys| keys.iter().map(|key| (key.kind, key.value)).collect()))
    }

    fn spi(spi: u32) -> (u32, u32) {
        (TraceKey::SPI, spi.to_be())
    }

    #[test]
    fn a_peer_is_its_rules_and_sas() {
        assert_eq!(select("").unwrap(), None);
        let mut expected = vec![(TraceKey::RULE, 1), (TraceKey::RULE, 2), spi(0x10), spi(0x11)];
        expected.sort_unstable();
        assert_eq!(select("--peer berlin").unwrap(), Some(expected));
        assert_eq!(select("--rule dns").unwrap(), Some(vec![(TraceKey::RULE, 4)]));
        assert_eq!(select("--rule dmz").unwrap(), Some(vec![(TraceKey::RULE, 3), spi(0x30)]));
        assert_eq!(select("--spi 0xc0ffee01").unwrap(), Some(vec![spi(0xc0ff_ee01)]));
    }

    #[test]
    fn a_name_that_is_none_is_refused_with_those_that_are() {
        let error = select("--peer paris").unwrap_err();
        assert_eq!(error, "there is no peer \"paris\"; there is: berlin, rome");
        let error = select("--rule berlin").unwrap_err();
        assert_eq!(error, "there is no rule \"berlin\"; there is: dmz, dns, lan, voice");
    }

    #[test]
    fn numbers_have_names() {
        let names = names();
        assert_eq!((names.rule(3), names.peer(3)), (Some("dmz"), Some("rome")));
        assert_eq!((names.rule(9), names.peer(4)), (None, None));
        assert_eq!(names.sa(0x11).map(|sa| &*sa.rule), Some("lan"));
        assert_eq!(names.sa(0x12), None);
    }
}
