//! Nodes, a network and a clock.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::{FakeKernel, FastKeyExchange, Faults, Network, SeededRandom};
use ipnet::IpNet;

use crate::Endpoint;
use crate::config::{EndpointConfig, Mode, PolicySet, RuleName, Secret};
use crate::event::Event;
use crate::io::{
    ChildSpec, CommandId, Done, Encapsulation, Ends, Input, KernelCommand, KernelError,
    KernelEvent, Output, Path, SharedCookies,
};
use crate::selector;
use crate::time::earlier;

/// The port of ESP in UDP.
const NATT_PORT: u16 = 4500;

/// Which node.
pub type NodeId = usize;

/// One host.
pub struct Node {
    /// Its address.
    pub address: IpAddr,
    /// Others that it has.
    pub others: Vec<IpAddr>,
    /// The first that it ever had, from which its crash secret follows.
    home: IpAddr,
    /// Suspended: what arrives is lost, and what is due waits until it wakes.
    pub asleep: bool,
    /// Its IKE.
    pub endpoint: Endpoint,
    /// Its kernel.
    pub kernel: FakeKernel,
    /// What it had to say.
    pub events: Vec<Event>,
    /// Every datagram that it sent.
    pub sent: Vec<(Path, Vec<u8>)>,
    /// The path of every keepalive that it sent.
    pub keepalives: Vec<Path>,
    /// Commands of which its kernel has said nothing.
    unanswered: Vec<CommandId>,
    /// The SPIs for which ESP may come before their SA is there.
    pub expected: BTreeSet<u32>,
    /// How often it was said of one of them.
    pub times_expected: usize,
    /// The cookies that who is in front of it was told of.
    pub cookies: Vec<SharedCookies>,
}

/// Some hosts and the network between them.
pub struct Simulation {
    /// The time.
    pub now: Instant,
    /// The hosts.
    pub nodes: Vec<Node>,
    /// What is between them.
    pub network: Network,
    pub(super) config: EndpointConfig,
}

impl Node {
    /// A host that has just been started. Its crash secret is that of its first address, and so that
    /// of whoever was there before.
    fn new(home: IpAddr, config: &EndpointConfig, seed: u64) -> Self {
        let endpoint = Endpoint::new(
            config.clone(),
            Box::new(SeededRandom::new(seed)),
            Box::new(FastKeyExchange::new(seed.wrapping_shl(20))),
        );
        Self {
            address: home,
            others: Vec::new(),
            home,
            asleep: false,
            endpoint: endpoint.with_crash_secret(Secret::new(home.to_string().into_bytes())),
            kernel: FakeKernel::new(vec![home]),
            events: Vec::new(),
            sent: Vec::new(),
            keepalives: Vec::new(),
            unanswered: Vec::new(),
            expected: BTreeSet::new(),
            times_expected: 0,
            cookies: Vec::new(),
        }
    }
}

impl Node {
    /// Has its kernel do something; what is received then is expected no more.
    fn execute(&mut self, command: KernelCommand) -> Option<Result<Done, KernelError>> {
        let installs = if let KernelCommand::InstallChild(spec)
        | KernelCommand::InstallInbound(spec) = &command
        {
            Some(spec.inbound.spi)
        } else {
            None
        };
        let result = self.kernel.execute(command);
        if let (Some(spi), Some(Ok(_))) = (installs, &result) {
            self.expected.remove(&spi);
        }
        result
    }

    /// Whether it has this address.
    fn has(&self, address: IpAddr) -> bool {
        self.address == address || self.others.contains(&address)
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.endpoint.next_timeout().filter(|_| !self.asleep)
    }
}

impl Simulation {
    /// Hosts with addresses, and nothing configured.
    #[must_use]
    pub fn new(addresses: &[IpAddr], faults: Faults, seed: u64) -> Self {
        Self::with_config(addresses, &EndpointConfig::default(), faults, seed)
    }

    /// As [`Self::new`], with other limits.
    #[must_use]
    pub fn with_config(
        addresses: &[IpAddr],
        config: &EndpointConfig,
        faults: Faults,
        seed: u64,
    ) -> Self {
        let node = |(n, address): (u64, &IpAddr)| {
            Node::new(*address, config, seed.wrapping_mul(31).wrapping_add(n))
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "where the virtual clock starts does not matter"
        )]
        let now = Instant::now();
        Self {
            now,
            nodes: (0..).zip(addresses).map(node).collect(),
            network: Network::new(faults, seed ^ 0xbad),
            config: config.clone(),
        }
    }

    /// A node loses all that it knows but its crash secret, and starts anew without policies.
    pub fn crash(&mut self, node: NodeId, seed: u64) {
        if let Some(node) = self.nodes.get_mut(node) {
            let mut anew = Node::new(node.home, &self.config, seed);
            (anew.address, anew.others) = (node.address, core::mem::take(&mut node.others));
            anew.kernel.addresses = core::mem::take(&mut node.kernel.addresses);
            *node = anew;
        }
    }

    /// A node has other addresses than before, the first one for what it begins to send.
    pub fn readdress(&mut self, node: NodeId, addresses: &[IpAddr]) {
        let Some((address, others)) = addresses.split_first() else { return };
        if let Some(node) = self.nodes.get_mut(node) {
            (node.address, node.others) = (*address, others.to_vec());
            node.kernel.addresses = addresses.to_vec();
        }
        self.input(node, Input::LocalAddresses(addresses.to_vec()));
    }

    /// Hands an input to a node and does what it causes.
    pub fn input(&mut self, node: NodeId, input: Input<'_>) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(node) else { return };
        node.endpoint.handle(now, input);
        while let Some(output) = node.endpoint.poll_output() {
            match output {
                Output::Transmit { path, octets } => {
                    node.sent.push((path, octets.clone()));
                    // A host cannot send from an address that it does not have.
                    if node.has(path.local.ip()) {
                        self.network.send(now, path, octets);
                    }
                }
                Output::Keepalive { path } => {
                    node.keepalives.push(path);
                    self.network.keep_alive(now, path);
                }
                Output::Expect { spi, .. } => {
                    node.expected.insert(spi);
                    node.times_expected = node.times_expected.saturating_add(1);
                }
                Output::ExpectNoMore { spi } => {
                    node.expected.remove(&spi);
                }
                Output::Kernel(id, command) => match node.execute(command) {
                    Some(result) => node.endpoint.handle(now, Input::CommandDone(id, result)),
                    None => node.unanswered.push(id),
                },
                Output::Cookies(cookies) => node.cookies.push(cookies),
                Output::Event(event) => node.events.push(event),
            }
        }
    }

    /// Gives a node its policies.
    pub fn configure(&mut self, node: NodeId, policies: PolicySet) {
        self.input(node, Input::Policies(Arc::new(policies)));
    }

    /// Traffic meets the trap of a rule: between the first addresses and ports of either side, of
    /// ICMP if the rule has no protocol.
    pub fn acquire(&mut self, node: NodeId, rule: &str) {
        let mut traps = self.nodes.get(node).into_iter().flat_map(|n| n.kernel.traps.values());
        let Some(trap) = traps.find(|trap| &*trap.rule == rule) else { return };
        let Some((selector, _)) = trap.selectors.first() else { return };
        let event = KernelEvent::Acquire {
            reqid: trap.reqid,
            seq: 1,
            source: selector.local.network(),
            destination: selector.remote.network(),
            protocol: selector.protocol.unwrap_or(1),
            source_port: *selector.local_ports.start(),
            destination_port: *selector.remote_ports.start(),
        };
        self.input(node, Input::Kernel(event));
    }

    /// A segment of TCP to port 443 goes by a Child SA that protects it, or meets the trap of a rule.
    /// Gives whether it did that.
    pub fn send(&mut self, node: NodeId, rule: &str, from: IpAddr, to: IpAddr) -> bool {
        let Some(kernel) = self.nodes.get_mut(node).map(|node| &mut node.kernel) else {
            return false;
        };
        let trap = kernel.traps.values().find(|trap| &*trap.rule == rule);
        let Some(reqid) = trap.map(|trap| trap.reqid) else { return false };
        let mut sending = kernel.outbound.iter().filter_map(|child| kernel.children.get(child));
        let protecting = sending.find(|child| {
            let mut pairs = child.selectors.iter();
            pairs.any(|(pair, _)| pair.local.contains(&from) && pair.remote.contains(&to))
        });
        if let Some(child) = protecting.map(|child| child.child) {
            let sent = kernel.sent.entry(child).or_default();
            *sent = sent.saturating_add(1);
            return false;
        }
        let event = KernelEvent::Acquire {
            reqid,
            seq: 1,
            source: from,
            destination: to,
            protocol: 6,
            source_port: 40_000,
            destination_port: 443,
        };
        self.input(node, Input::Kernel(event));
        true
    }

    /// Does the next thing that happens within `limit`; `false` when there is none.
    pub fn step(&mut self, limit: Instant) -> bool {
        let timers = self.nodes.iter().filter_map(Node::next_timeout).min();
        let Some(next) = earlier(timers, self.network.next_arrival()).filter(|at| *at <= limit)
        else {
            self.now = self.now.max(limit);
            return false;
        };
        self.now = self.now.max(next);
        if let Some(datagram) = self.network.arrived(self.now) {
            let target = self.nodes.iter().position(|n| n.has(datagram.to.ip()) && !n.asleep);
            if let Some(target) = target {
                let path = Path { local: datagram.to, remote: datagram.from };
                self.input(target, Input::Datagram { path, octets: &datagram.octets });
            }
            return true;
        }
        let now = self.now;
        let due: Vec<NodeId> = (0..)
            .zip(&self.nodes)
            .filter(|(_, n)| n.next_timeout().is_some_and(|at| at <= now))
            .map(|(id, _)| id)
            .collect();
        for node in due {
            self.input(node, Input::Timeout);
        }
        true
    }

    /// How many datagrams are under way to a node.
    #[must_use]
    pub fn under_way(&self, to: NodeId) -> usize {
        self.nodes.get(to).map_or(0, |node| self.network.under_way_to(node.address))
    }

    /// Delivers the oldest datagram under way to a node, now; or loses it.
    pub fn deliver(&mut self, to: NodeId, lost: bool) {
        let Some(address) = self.nodes.get(to).map(|node| node.address) else { return };
        if let Some(datagram) = self.network.take_first(address)
            && !lost
        {
            let path = Path { local: datagram.to, remote: datagram.from };
            self.input(to, Input::Datagram { path, octets: &datagram.octets });
        }
    }

    /// Lets time pass. Returns the number of steps: a run that never comes to rest is cut at a
    /// million.
    pub fn run(&mut self, time: Duration) -> u32 {
        let limit = self.now.checked_add(time).unwrap_or(self.now);
        let mut steps = 0_u32;
        while steps < 1_000_000 && self.step(limit) {
            steps = steps.saturating_add(1);
        }
        steps
    }

    /// A packet comes by the Child SA that `from` has begun to send by last, and the programs of its
    /// peer tell from where. Gives that; `None`: it comes nowhere.
    pub fn tell_source(&mut self, from: NodeId) -> Option<SocketAddr> {
        let node = self.nodes.get(from)?;
        let mut sending = node.kernel.outbound.iter().rev();
        let sent_by = sending.find_map(|child| node.kernel.children.get(child))?;
        let Ends { local, remote, encapsulation } = sent_by.ends();
        let port = |of: fn(&Encapsulation) -> u16| encapsulation.as_ref().map_or(0, of);
        let source = SocketAddr::new(local, port(|e| e.local_port));
        let target = SocketAddr::new(remote, port(|e| e.remote_port));
        let spi = sent_by.outbound.spi;
        let (seen, arrives) = self.network.pass(self.now, source, target);
        let to = self.nodes.iter().position(|node| node.has(arrives.ip()))?;
        self.input(to, Input::Kernel(KernelEvent::PeerMoved { spi, from: seen }));
        Some(seen)
    }

    /// Somebody sends a datagram by a path, as the node at its beginning would.
    pub fn inject(&mut self, path: Path, octets: Vec<u8>) {
        self.network.send(self.now, path, octets);
    }

    /// What a kernel was silent about it now says that it cannot do.
    pub fn answer_late(&mut self) {
        for id in 0..self.nodes.len() {
            let Some(node) = self.nodes.get_mut(id) else { continue };
            for command in core::mem::take(&mut node.unanswered) {
                let late = KernelError::Refused("too late".to_owned());
                self.input(id, Input::CommandDone(command, Err(late)));
            }
        }
    }

    /// What a node still has, in words: an SA, a timer, an entry in one of its tables, or an
    /// address that is still assigned.
    #[must_use]
    pub fn remains(&self, node: NodeId) -> Vec<&'static str> {
        let Some(node) = self.nodes.get(node) else { return Vec::new() };
        let own = [
            ("SAs in the kernel", !node.kernel.children.is_empty()),
            ("SAs in the kernel that send", !node.kernel.outbound.is_empty()),
            ("traps", !node.kernel.traps.is_empty()),
            ("ESP that is expected", !node.expected.is_empty()),
            ("a deadline", node.endpoint.next_timeout().is_some()),
            ("leases", !node.endpoint.shared().leases.is_empty()),
        ];
        let own = own.into_iter().filter_map(|(what, is_left)| is_left.then_some(what));
        node.endpoint.remains().chain(own).collect()
    }

    /// Ends all nodes in good order, when each kernel has given its answers.
    ///
    /// # Errors
    /// Something is left of a node when no policy wants anything, in words.
    pub fn wind_up(&mut self) -> Result<(), String> {
        self.answer_late();
        for node in 0..self.nodes.len() {
            self.input(node, Input::Shutdown);
        }
        self.run(Duration::from_secs(600));
        for id in 0..self.nodes.len() {
            self.configure(id, PolicySet::default());
            let Some(node) = self.nodes.get(id) else { continue };
            let mut left = self.remains(id);
            if !node.endpoint.is_closed() {
                left.push("a goodbye that is not answered");
            }
            if !left.is_empty() {
                let status = node.endpoint.status(self.now);
                return Err(format!("node {id} is left with {}: {status:#?}", left.join(", ")));
            }
        }
        Ok(())
    }

    /// What does not hold, in words: every kernel SA has an owner and the reverse, no inbound
    /// SPI stands twice, and what sends by one request ID protects the same and catches nothing that
    /// a trap has.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        for (id, node) in self.nodes.iter().enumerate() {
            let status = node.endpoint.status(self.now);
            let unlike = node.endpoint.out_of_step();
            violations.extend(unlike.map(|what| format!("node {id}: {what} are out of step")));
            if node.expected != node.endpoint.shared().expected {
                violations.push(format!("node {id}: expects {:x?}", node.expected));
            }
            let owned: Vec<_> = status.ike_sas.iter().flat_map(|sa| &sa.children).collect();
            for child in node.kernel.children.keys() {
                if !owned.iter().any(|c| c.id == *child) {
                    violations.push(format!("node {id}: kernel SA {child:?} has no owner"));
                }
            }
            for child in &node.kernel.outbound {
                if !node.kernel.children.contains_key(child) {
                    violations.push(format!("node {id}: {child:?} sends and does not receive"));
                }
            }
            let specs = || node.kernel.children.values();
            let protects = |spec: &ChildSpec| {
                let pairs = spec.selectors.iter().map(|(selector, _)| selector::key(selector));
                pairs.collect::<BTreeSet<_>>()
            };
            for child in specs() {
                let reqid = child.outbound.reqid;
                let mut same = specs().filter(|other| other.outbound.reqid == reqid);
                if node.kernel.traps.contains_key(&reqid)
                    || same.any(|other| protects(other) != protects(child))
                {
                    let sent_by = child.child;
                    violations.push(format!("node {id}: {sent_by:?} takes what is not its own"));
                }
            }
            for child in &owned {
                // What a silent kernel was told to install is owned, and not there.
                if child.state == "installed" && !node.kernel.children.contains_key(&child.id) {
                    violations.push(format!("node {id}: {child:?} is not in the kernel"));
                }
                if owned.iter().filter(|c| c.inbound_spi == child.inbound_spi).count() != 1 {
                    violations.push(format!(
                        "node {id}: inbound SPI {:08x} stands twice",
                        child.inbound_spi
                    ));
                }
            }
        }
        violations
    }

    /// A packet from each node for each rule that has a Child SA, at this very moment; gives those
    /// that are lost: they arrive nowhere, or nobody there has the inbound SA for what they are
    /// sent by.
    pub fn exchange_traffic(&mut self) -> Vec<(NodeId, RuleName)> {
        let mut lost = Vec::new();
        for from in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(from) else { continue };
            // The newest one for each kind of traffic is the one in use.
            let mut used: BTreeMap<u32, &ChildSpec> = BTreeMap::new();
            for child in node.kernel.outbound.iter().filter_map(|c| node.kernel.children.get(c)) {
                used.insert(child.outbound.reqid, child);
            }
            let used: Vec<ChildSpec> = used.into_values().cloned().collect();
            for sent_by in used {
                if let Some(node) = self.nodes.get_mut(from) {
                    let sent = node.kernel.sent.entry(sent_by.child).or_default();
                    *sent = sent.saturating_add(1);
                }
                let port =
                    |of: fn(&Encapsulation) -> u16| sent_by.encapsulation.map_or(0, |e| of(&e));
                let source = SocketAddr::new(sent_by.outbound.source, port(|e| e.local_port));
                let target = SocketAddr::new(sent_by.outbound.destination, port(|e| e.remote_port));
                let (_, arrives) = self.network.pass(self.now, source, target);
                let received = self.nodes.iter_mut().enumerate().filter(|(to, _)| *to != from);
                let received = received.filter(|(_, to)| {
                    to.has(arrives.ip())
                        && sent_by.encapsulation.is_none_or(|_| arrives.port() == NATT_PORT)
                });
                let received = received.filter_map(|(_, to)| {
                    let by = to
                        .kernel
                        .children
                        .values()
                        .find(|c| c.inbound.spi == sent_by.outbound.spi)
                        .filter(|c| c.inbound.destination == arrives.ip())?;
                    let id = by.child;
                    (by.inbound.encryption_key == sent_by.outbound.encryption_key)
                        .then(|| to.kernel.received.entry(id).or_default())
                });
                match received.into_iter().next() {
                    Some(count) => *count = count.saturating_add(1),
                    None => lost.push((from, sent_by.rule)),
                }
            }
        }
        lost
    }

    /// At rest: whether each node has one Child SA.
    ///
    /// # Errors
    /// What does not hold, as [`Self::violations`] and [`Self::mismatches`] have it.
    pub fn has_one_child_each(&self) -> Result<bool, String> {
        let wrong = [self.violations(), self.mismatches()].concat();
        if !wrong.is_empty() {
            return Err(wrong.join("\n"));
        }
        Ok(self.nodes.iter().all(|node| node.kernel.children.len() == 1))
    }

    /// At rest: each Child SA of a node has its counterpart, with the same keys the other way
    /// round and the same traffic.
    #[must_use]
    pub fn mismatches(&self) -> Vec<String> {
        let mut mismatches = Vec::new();
        for (id, node) in self.nodes.iter().enumerate() {
            for child in node.kernel.children.values() {
                if !node.kernel.outbound.contains(&child.child) {
                    mismatches.push(format!("node {id}: {child:?} does not send"));
                }
                let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != id);
                let fits = others.flat_map(|(_, n)| n.kernel.children.values()).any(|c| {
                    c.inbound.spi == child.outbound.spi
                        && c.outbound.spi == child.inbound.spi
                        && c.inbound.encryption_key == child.outbound.encryption_key
                        && c.inbound.integrity_key == child.outbound.integrity_key
                        && c.outbound.encryption_key == child.inbound.encryption_key
                        && c.suite == child.suite
                        && c.mode == child.mode
                        && c.selectors.len() == child.selectors.len()
                        && c.selectors.iter().zip(&child.selectors).all(|((a, _), (b, _))| {
                            let same_addresses = a.local == b.remote && a.remote == b.local;
                            // Through NAT each end has the addresses that it sees.
                            let own_addresses = [(a, c), (b, child)].iter().all(|(pair, spec)| {
                                pair.local == IpNet::from(spec.outbound.source)
                                    && pair.remote == IpNet::from(spec.outbound.destination)
                            });
                            let translated = c.mode == Mode::Transport && c.encapsulation.is_some();
                            (if translated { own_addresses } else { same_addresses })
                                && a.protocol == b.protocol
                                && a.local_ports == b.remote_ports
                                && a.remote_ports == b.local_ports
                        })
                });
                if !fits {
                    mismatches.push(format!("node {id}: {child:?} has no counterpart"));
                }
            }
        }
        mismatches
    }
}
