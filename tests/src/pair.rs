//! strongSwan and we on a switch, where either can begin: one start of both shows one feature
//! after the other.

use serde_json::Value;

use crate::capture::{Capture, Mark, Selected};
use crate::error::{Error, Result};
use crate::gateway::{Gateway, PATIENCE, Policy, RULE};
use crate::namespace::Namespace;
use crate::requirements::Requirement;
use crate::scenario::{End, both_ways, capture, encrypted, hosts};
use crate::strongswan::{Connection, StrongSwan};
use crate::topology::{Family, Topology};
use crate::traffic::ping_until_answered;

/// Which strongSwan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The one that this Debian installs.
    Installed,
    /// The one of a later Debian, unpacked.
    Newer,
}

impl Version {
    /// That it is there.
    #[must_use]
    pub const fn requirement(self) -> Requirement {
        match self {
            Self::Installed => Requirement::StrongSwan,
            Self::Newer => Requirement::NewerStrongSwan,
        }
    }

    /// Starts it and loads the connection.
    ///
    /// # Errors
    /// It is not there, does not start, or refuses the configuration.
    pub fn start<'a>(
        self,
        namespace: &'a Namespace,
        connection: &Connection,
    ) -> Result<StrongSwan<'a>> {
        match self {
            Self::Installed => StrongSwan::start(namespace, connection),
            Self::Newer => StrongSwan::start_newer(namespace, connection),
        }
    }
}

/// strongSwan at the server's side, we at the client's.
#[derive(Debug)]
pub struct Pair<'a> {
    topology: &'a Topology,
    capture: Capture,
    /// What is at the server's side.
    pub strongswan: StrongSwan<'a>,
    /// What is at the client's.
    pub gateway: Gateway<'a>,
}

impl<'a> Pair<'a> {
    /// What it needs.
    #[must_use]
    pub const fn needed(version: Version) -> [Requirement; 3] {
        [Requirement::Esp, version.requirement(), Requirement::Gateway]
    }

    /// strongSwan's connection, by which it can begin too: that of a server who knows where its
    /// client is. The counterpart is [`Policy::of_client`].
    #[must_use]
    pub fn connection(topology: &Topology) -> Connection {
        let remote = Some(topology.client.outer(Family::V4));
        Connection { remote, ..Connection::of_server(topology, Family::V4, Family::V4) }
    }

    /// Starts both.
    ///
    /// # Errors
    /// One of them does not start, or refuses what it is given.
    pub fn start(
        topology: &'a Topology,
        version: Version,
        theirs: &Connection,
        ours: &Policy,
    ) -> Result<Self> {
        let capture = capture(topology)?;
        let strongswan = version.start(&topology.server.gateway, theirs)?;
        let gateway = Gateway::start(&topology.client.gateway, ours)?;
        Ok(Self { topology, capture, strongswan, gateway })
    }

    /// Starts both, or gives them something else to do where they run already.
    ///
    /// # Errors
    /// As [`Pair::start`] and [`Pair::change`].
    pub fn go_on<'b>(
        started: &'b mut Option<Self>,
        topology: &'a Topology,
        version: Version,
        theirs: &Connection,
        ours: &Policy,
    ) -> Result<&'b mut Self> {
        match started {
            Some(pair) => pair.change(theirs, ours).map(|()| pair),
            none => Ok(none.insert(Self::start(topology, version, theirs, ours)?)),
        }
    }

    /// Gives both something else to do, while there is no SA.
    ///
    /// # Errors
    /// One of them refuses it.
    pub fn change(&mut self, theirs: &Connection, ours: &Policy) -> Result {
        self.strongswan.load(theirs)?;
        let report = self.gateway.reload(ours)?;
        if report.get("ok").is_some_and(|ok| *ok == true) {
            return Ok(());
        }
        Err(Error::new(report.to_string()))
    }

    /// The hosts behind both, ours first.
    #[must_use]
    pub fn hosts(&self) -> [End<'a>; 2] {
        hosts(self.topology, Family::V4)
    }

    /// A packet makes us begin. Gives our Child SA.
    ///
    /// # Errors
    /// There is none within a minute.
    pub fn we_begin(&self, [(from, _), (_, to)]: [End<'_>; 2]) -> Result<Value> {
        ping_until_answered(from, to, PATIENCE)?;
        self.gateway.wait_child(RULE)
    }

    /// strongSwan begins. Gives our Child SA.
    ///
    /// # Errors
    /// There is none within a minute.
    pub fn strongswan_begins(&self) -> Result<Value> {
        self.strongswan.initiate()?;
        self.gateway.wait_child(RULE)
    }

    /// strongSwan ends it.
    ///
    /// # Errors
    /// There was nothing, or one of them has an IKE SA still after a minute.
    pub fn end(&self) -> Result {
        self.strongswan.terminate()?;
        self.gateway.wait_gone()
    }

    /// We begin or strongSwan does, pings pass between the ends, `check` looks, and strongSwan ends
    /// it.
    ///
    /// # Errors
    /// There is no Child SA, something does not arrive, or what `check` gives.
    pub fn one_begins(
        &self,
        ours: bool,
        ends: [End<'_>; 2],
        check: impl FnOnce() -> Result,
    ) -> Result {
        if ours { self.we_begin(ends) } else { self.strongswan_begins() }?;
        both_ways(ends)?;
        check()?;
        self.end()
    }

    /// First we begin, then strongSwan does; `check` is told whether it was us.
    ///
    /// # Errors
    /// As [`Pair::one_begins`].
    pub fn either_begins(&self, ends: [End<'_>; 2], check: impl Fn(bool) -> Result) -> Result {
        [true, false].into_iter().try_for_each(|ours| self.one_begins(ours, ends, || check(ours)))
    }

    /// All that was between the sites or gateways was ESP.
    ///
    /// # Errors
    /// It was not.
    pub fn finish(self, selected: &[Selected]) -> Result {
        encrypted(self.topology, &self.capture.summary(Mark::START)?)?;
        self.capture.finish(selected)
    }
}
