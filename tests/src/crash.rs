//! An end is killed and comes back without its SAs, with whatever implementation at the other.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::daemon::{Daemon, wait_for};
use crate::error::Result;
use crate::gateway::{Gateway, PATIENCE, Policy, RULE};
use crate::scenario::all_answered;
use crate::topology::{Family, Topology};
use crate::traffic::PingOptions;

/// Another implementation, which has one connection with us.
pub trait Peer {
    /// Its process.
    fn daemon(&mut self) -> &mut Daemon;

    /// Makes it begin.
    ///
    /// # Errors
    /// It does not get its SAs.
    fn initiate(&self) -> Result;

    /// Whether it has one of what it is to have one of, once it has heard of us anew.
    ///
    /// # Errors
    /// It cannot be asked.
    fn has_one(&self) -> Result<bool>;
}

/// Ends a daemon as by `kill -9`.
///
/// # Errors
/// It does not end.
pub fn kill(daemon: &mut Daemon) -> Result {
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait(PATIENCE).map(drop)
}

/// Pings from behind the client to behind the server, all answered.
///
/// # Errors
/// One is not.
pub fn from_client(topology: &Topology) -> Result {
    let target = topology.server.host_address(Family::V4);
    all_answered(&topology.client.host, target, &PingOptions::default())
}

/// The policy, which finds out soon that nobody answers.
#[must_use]
pub fn impatient(policy: Policy) -> Policy {
    Policy {
        settings: "retransmit-tries = 2".to_owned(),
        peer_keys: "liveness = \"2s\"".to_owned(),
        ..policy
    }
}

/// What tells our server that its client was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The client's INITIAL_CONTACT, and nothing else.
    InitialContact,
    /// That the client does not answer: it says nothing when it begins anew.
    Silence,
}

/// The peer is the client: it is killed and begins anew, and then we are. `end` has the last word.
///
/// # Errors
/// Either does not come back, or what `end` gives.
pub fn of_client_and_ours<P: Peer>(
    topology: &Topology,
    told: Told,
    start: impl Fn() -> Result<P>,
    end: impl FnOnce(&P) -> Result,
) -> Result {
    let of_server = Policy::of_server(topology, Family::V4, Family::V4);
    let of_server = match told {
        Told::InitialContact => Policy { peer_keys: "liveness = \"10m\"".to_owned(), ..of_server },
        Told::Silence => impatient(of_server),
    };
    let mut server = Gateway::start(&topology.server.gateway, &of_server)?;
    let mut client = start()?;
    client.initiate()?;
    let before = server.wait_child(RULE)?;
    kill(client.daemon())?;
    drop(client);
    let client = start()?;
    client.initiate()?;
    only_the_second(&server, &before)?;
    let dead = server.counter("ike_peer_dead")?;
    assert_eq!(dead, u64::from(told == Told::Silence), "{told:?}");
    from_client(topology)?;

    // And now we are killed: it asks, gets no answer that it may believe, and begins anew.
    kill(server.daemon())?;
    drop(server);
    let server = Gateway::start(&topology.server.gateway, &of_server)?;
    server.wait_child(RULE)?;
    from_client(topology)?;
    end(&client)
}

/// The peer is the server: it is killed and reached anew, and then we are killed.
///
/// # Errors
/// Either does not come back.
pub fn of_server_and_ours<P: Peer>(topology: &Topology, start: impl Fn() -> Result<P>) -> Result {
    let mut server = start()?;
    let of_client = impatient(Policy::of_client(topology, Family::V4, Family::V4));
    let of_client = of_client.with_rules(|rule| rule.start = "always");
    let mut client = Gateway::start(&topology.client.gateway, &of_client)?;
    let before = client.wait_child(RULE)?;
    kill(server.daemon())?;
    drop(server);
    let server = start()?;
    client.wait_counter("ike_peer_dead", 1)?;
    only_the_second(&client, &before)?;
    from_client(topology)?;

    // And now we are killed: our INITIAL_CONTACT ends what it still has of us.
    kill(client.daemon())?;
    drop(client);
    let client = Gateway::start(&topology.client.gateway, &of_client)?;
    client.wait_child(RULE)?;
    wait_for("one SA of the peer", PATIENCE, || Ok(server.has_one()?.then_some(())))?;
    from_client(topology)
}

/// Waits until there is one Child SA, and another than before.
fn only_the_second(gateway: &Gateway<'_>, before: &Value) -> Result {
    wait_for("another Child SA", PATIENCE, || {
        let children = gateway.children(RULE)?;
        let [child] = children.as_slice() else { return Ok(None) };
        Ok((child.get("inbound_spi") != before.get("inbound_spi")).then_some(()))
    })
}
