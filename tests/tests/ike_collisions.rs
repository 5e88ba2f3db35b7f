//! The peer and we want something of the same SA at once (RFC 7296 2.8.1, 2.8.2, 2.25), with
//! traffic all the time.
//!
//! That the requests cross is forced by a slow wire: both ends have asked before either hears.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::print_stdout, reason = "what was decided and lost is worth knowing")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use gateway_tests::daemon::{tail, wait_for};
use gateway_tests::gateway::{Gateway, PATIENCE, Policy, RULE};
use gateway_tests::nonces;
use gateway_tests::requirements::{Requirement, met};
use gateway_tests::scenario::all_answered;
use gateway_tests::strongswan::{self, StrongSwan};
use gateway_tests::topology::{Between, Family, Site, Topology};
use gateway_tests::traffic::{Flow, PingOptions, flow_while, shout};
use gateway_tests::{Context as _, Error, Result};
use serde_json::Value;

use Family::V4;

const IKE: &str = "aes128gcm16-prfsha256-x25519";
const ESP: &str = "aes128gcm16-x25519";
/// After how many packets we replace the Child SA, at the latest; with a tenth more it ends: that
/// tenth is more than a flow sends while a slow wire holds everything back, and the whole is less
/// than the wire holds.
const PACKETS: u32 = 8000;
/// When we replace the IKE SA, at the latest; it ends a minute later.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long everything is on its way while both ask: longer than it takes a slow machine to see that
/// we have asked and to tell the peer to.
const SLOW: Duration = Duration::from_secs(6);
/// Between two packets of a flow.
const INTERVAL: Duration = Duration::from_millis(100);

/// What both ends are left with, by the numbers that the peer gives its SAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    ike: u64,
    child: u64,
}

/// What strongSwan's log says when it has asked for something, and when it has the answer.
const ASKED_AND_ANSWERED: [&str; 2] =
    ["generating CREATE_CHILD_SA request", "parsed CREATE_CHILD_SA response"];

/// The numbers of strongSwan's SAs, when there is one of each and nothing is under way.
fn left(sas: &str) -> Option<Left> {
    let of = |state: &str| {
        let mut lines = sas.lines().filter(|line| line.contains(state));
        let line = lines.next()?;
        let number = line.split_once('#')?.1.split_once(',')?.0.parse().ok()?;
        lines.next().is_none().then_some(number)
    };
    if sas.contains("REKEY") || sas.contains("DELET") {
        return None;
    }
    Some(Left { ike: of("ESTABLISHED")?, child: of("INSTALLED")? })
}

/// The two ends of what collides.
struct Ends<'a> {
    topology: &'a Topology,
    gateway: Gateway<'a>,
    peer: StrongSwan<'a>,
}

/// Tells the flows to end when it goes.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Our side; it begins.
fn policy(topology: &Topology) -> Policy {
    Policy {
        settings: "retransmit-initial = \"200ms\"\nretransmit-tries = 6".to_owned(),
        ike_proposals: vec![IKE],
        peer_keys: format!("lifetime = \"{}s\"", LIFETIME.as_secs()),
        ..Policy::of_client(topology, V4, V4)
    }
    .with_rules(|rule| {
        rule.esp_proposals = vec![ESP];
        rule.lifetime_packets = Some(PACKETS);
        rule.start = "always";
    })
}

impl Ends<'_> {
    fn logged(&self, error: &Error) -> Error {
        Error::new(format!("{error}\n{:?}\n{}", self.peer.sas(), tail(&self.peer.log())))
    }

    fn wait_counter(&self, name: &str, count: u64) -> Result {
        self.gateway.wait_counter(name, count).map_err(|error| self.logged(&error))
    }

    fn wait_log(&self, text: &str, before: usize) -> Result {
        wait_for(text, PATIENCE, || {
            Ok((self.peer.log().matches(text).count() > before).then_some(()))
        })
        .map_err(|error| self.logged(&error))
    }

    /// Brings us to the limit of the Child SA.
    fn use_up(&self, noticed: impl Fn() -> Result<bool>) -> Result {
        let to = (self.topology.server.host_address(V4), 9).into();
        let host = &self.topology.client.host;
        let few = PACKETS / 100;
        for _ in 0..85 {
            shout(host, to, usize::try_from(few).context("a number")?, 16)?;
            thread::sleep(Duration::from_millis(10));
        }
        for _ in 0..20 {
            if noticed()? {
                return Ok(());
            }
            shout(host, to, usize::try_from(few).context("a number")?, 16)?;
            thread::sleep(Duration::from_millis(100));
        }
        Err(Error::new("the limit is reached and we ask for nothing"))
    }

    /// Has both ends ask at once, and waits until both have their answers. `ours` has us ask: it
    /// is told whether we have. Gives what the peer has logged since, and how often we had
    /// replaced by ourselves, by `counter`, what collides.
    fn cross(
        &self,
        counter: &str,
        ours: impl Fn(&dyn Fn() -> Result<bool>) -> Result,
        theirs: impl Fn() -> Result,
    ) -> Result<(String, u64)> {
        let count = |name: &str| self.gateway.counter(name);
        let [replaced, repeated, collided] =
            [counter, "ike_request_retransmitted", "ike_rekey_collision"].map(count);
        let (replaced, repeated, collided) = (replaced?, repeated?, collided?);
        self.topology.delay(SLOW)?;
        ours(&|| Ok(count("ike_request_retransmitted")? > repeated))?;
        let alone = count(counter)?.saturating_sub(replaced);
        let logged = self.peer.log();
        theirs()?;
        for said in ASKED_AND_ANSWERED {
            self.wait_log(said, logged.matches(said).count())?;
        }
        self.wait_counter("ike_rekey_collision", collided.saturating_add(1))?;
        self.topology.delay(Duration::ZERO)?;
        let since = self.peer.log().split_off(logged.len());
        Ok((since, alone))
    }

    /// Both have deleted what is superfluous, agree on what stays, and it works.
    fn settled(&self) -> Result<Left> {
        let left = wait_for("one SA at both ends", PATIENCE, || {
            let sas = self.peer.sas()?;
            let Some(left) = left(&sas) else { return Ok(None) };
            let status = self.gateway.status()?;
            // One that is only there to repeat its last answer does not count.
            let stays = |sa: &&Value| sa.get("state").is_none_or(|state| state != "closing");
            let ike_sas = status.get("ike_sas").and_then(Value::as_array);
            let ike_sas = ike_sas.into_iter().flatten().filter(stays).count();
            Ok((ike_sas == 1 && self.gateway.children(RULE)?.len() == 1).then_some(left))
        })
        .map_err(|error| self.logged(&error))?;
        let [us, them] = [&self.topology.client, &self.topology.server];
        for (from, to) in [(us, them), (them, us)] {
            all_answered(&from.host, to.host_address(V4), &PingOptions::default())?;
        }
        Ok(left)
    }

    /// A flow each way, to us and to the peer, while something is done.
    fn with_flows<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, [Flow; 2])> {
        let ended = AtomicBool::new(false);
        let run = |from: &Site, to: &Site| {
            let end = |site: &Site| site.host_address(V4);
            flow_while((&from.host, end(from)), (&to.host, end(to)), INTERVAL, |_| {
                !ended.load(Ordering::Relaxed)
            })
        };
        let (us, them) = (&self.topology.client, &self.topology.server);
        thread::scope(|scope| {
            let there = scope.spawn(|| run(us, them));
            let here = scope.spawn(|| run(them, us));
            // A panic ends the flows too.
            let end = End(&ended);
            let done = work();
            drop(end);
            let [there, here] = [there, here]
                .map(|flow| flow.join().map_err(|_panic| Error::new("a flow panicked")).flatten());
            Ok((done?, [here?, there?]))
        })
    }

    /// Both replace the Child SA at once, then the IKE SA; each time the right one is kept.
    fn collide(&self) -> Result {
        let ((), [to_us, to_peer]) = self.with_flows(|| {
            let start = self.settled()?;
            let use_up = |noticed: &dyn Fn() -> Result<bool>| self.use_up(noticed);
            let (log, alone) =
                self.cross("child_sa_rekeyed", use_up, || self.peer.rekey_child())?;
            let after = self.settled()?;
            lowest_nonce_gives_way(&log, start.child.saturating_add(alone), after.child)?;

            let start = after;
            let time = |noticed: &dyn Fn() -> Result<bool>| {
                wait_for("our request for new keys", PATIENCE, || Ok(noticed()?.then_some(())))
            };
            let (log, alone) = self.cross("ike_sa_rekeyed", time, || self.peer.rekey_ike())?;
            let after = self.settled()?;
            lowest_nonce_gives_way(&log, start.ike.saturating_add(alone), after.ike)?;
            assert_eq!(after.child, start.child, "the Child SA has not moved");
            Ok(())
        })?;
        println!("to us {to_us:?}; to the peer {to_peer:?}");
        for (name, count) in [("ike_sa_established", 1), ("child_sa_expired", 0)] {
            assert_eq!(self.gateway.counter(name)?, count, "{name}");
        }
        to_us.whole()
    }
}

/// The exchange with the lowest of the four nonces gives way (RFC 7296 2.8.1, 2.8.2). strongSwan
/// has asked before it has heard that we do, so its own successor has the lower number.
fn lowest_nonce_gives_way(log: &str, before: u64, after: u64) -> Result {
    let [sent, received] = nonces::of_log(log);
    let ([their_request, to_ours, ..], [our_request, to_theirs, ..]) = (&sent[..], &received[..])
    else {
        return Err(Error::new(format!("the nonces are {sent:?} and {received:?}")));
    };
    let ours_gives_way = our_request.min(to_ours) < their_request.min(to_theirs);
    let expected = before.saturating_add(if ours_gives_way { 1 } else { 2 });
    println!("ours gives way: {ours_gives_way}; of SA {before}, SA {after} is left");
    assert_eq!(after, expected, "{sent:?}, {received:?}");
    Ok(())
}

fn with_strongswan(newer: bool) -> Result {
    let needed = if newer { Requirement::NewerStrongSwan } else { Requirement::StrongSwan };
    if !met(&[Requirement::Esp, needed, Requirement::Gateway])? {
        return Ok(());
    }
    let topology = Topology::new(Between::Switch)?;
    let theirs = strongswan::Connection {
        proposals: IKE,
        esp_proposals: ESP,
        settings: "retransmit_timeout = 1.0\n  retransmit_base = 1.0\n  retransmit_tries = 30",
        log: "enc = 3",
        ..strongswan::Connection::of_server(&topology, V4, V4)
    };
    let start = if newer { StrongSwan::start_newer } else { StrongSwan::start };
    let peer = start(&topology.server.gateway, &theirs)?;
    let gateway = Gateway::start(&topology.client.gateway, &policy(&topology))?;
    gateway.wait_child(RULE)?;
    let ends = Ends { topology: &topology, gateway, peer };
    ends.collide()?;
    ends.peer.terminate()
}

#[test]
fn strongswan_and_we_rekey_at_once() -> Result {
    with_strongswan(false)
}

#[test]
fn a_newer_strongswan_and_we_rekey_at_once() -> Result {
    with_strongswan(true)
}
