//! Our daemon in a namespace, with policy files made from what a test wants.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::daemon::{Daemon, tail, wait_for};
use crate::error::{Context as _, Error, Result};
use crate::namespace::{Namespace, output};
use crate::requirements::gateway_binary;
use crate::strongswan::{PPK, PSK};
use crate::topology::{Family, Topology};

/// How long the daemon may take for anything on an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The name of the first rule.
pub const RULE: &str = "site";
/// Where the daemon keeps its control socket; each namespace has a `/run` of its own.
const SOCKET: &str = "/run/gateway/control.sock";
/// And its state.
const STATE: &str = "/run/gateway-state";

/// The policy of a gateway with one peer. `Display` gives the file.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Our address; `None`: what the routing table chooses.
    pub local_address: Option<IpAddr>,
    /// The peer's addresses, the preferred one first; none: any.
    pub addresses: Vec<IpAddr>,
    /// Our identity; empty: the one that follows from the other keys.
    pub local_id: String,
    /// The peer's identity.
    pub remote_id: String,
    /// How both prove who they are: keys of the peer's table.
    pub authentication: String,
    /// IKE proposals; empty: the daemon's own.
    pub ike_proposals: Vec<&'static str>,
    /// The name of the post-quantum pre-shared key that is required.
    pub ppk: Option<&'static str>,
    /// More tables.
    pub tables: String,
    /// The rules.
    pub rules: Vec<Rule>,
    /// More keys of the `[gateway]` table.
    pub settings: String,
    /// More keys of the `[peer.other]` table.
    pub peer_keys: String,
}

/// One rule that protects.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Prefixes on our side.
    pub local: Vec<String>,
    /// Prefixes on the other side.
    pub remote: Vec<String>,
    /// `tunnel` or `transport`.
    pub mode: &'static str,
    /// `on-demand`, `always` or `respond`.
    pub start: &'static str,
    /// ESP proposals; empty: the daemon's own.
    pub esp_proposals: Vec<&'static str>,
    /// When Child SAs are replaced; `None`: as the daemon has it.
    pub lifetime: Option<String>,
    /// After how many packets they are replaced, too; `None`: after no number.
    pub lifetime_packets: Option<u32>,
    /// After how many octets; `None`: after no number.
    pub lifetime_bytes: Option<u32>,
}

impl Policy {
    /// The client's side of a tunnel between the sites: made when traffic wants it.
    #[must_use]
    pub fn of_client(topology: &Topology, outer: Family, inner: Family) -> Self {
        Self {
            local_address: None,
            addresses: vec![topology.server.outer(outer)],
            local_id: "client.test".to_owned(),
            remote_id: "server.test".to_owned(),
            authentication: "psk-file = \"psk\"".to_owned(),
            ike_proposals: Vec::new(),
            ppk: None,
            tables: String::new(),
            rules: vec![Rule {
                name: RULE.to_owned(),
                local: vec![topology.client.prefix(inner)],
                remote: vec![topology.server.prefix(inner)],
                mode: "tunnel",
                start: "on-demand",
                esp_proposals: Vec::new(),
                lifetime: None,
                lifetime_packets: None,
                lifetime_bytes: None,
            }],
            settings: String::new(),
            peer_keys: String::new(),
        }
    }

    /// The server's side of it; it answers to any address.
    #[must_use]
    pub fn of_server(topology: &Topology, outer: Family, inner: Family) -> Self {
        let mut policy = Self::of_client(topology, outer, inner).mirrored();
        policy.local_address = Some(topology.server.outer(outer));
        policy.addresses.clear();
        for rule in &mut policy.rules {
            rule.start = "respond";
        }
        policy
    }

    /// With both sides exchanged, but for the addresses.
    #[must_use]
    pub fn mirrored(mut self) -> Self {
        core::mem::swap(&mut self.local_id, &mut self.remote_id);
        for rule in &mut self.rules {
            core::mem::swap(&mut rule.local, &mut rule.remote);
        }
        self
    }

    /// With all rules changed so.
    #[must_use]
    pub fn with_rules(mut self, change: impl Fn(&mut Rule)) -> Self {
        self.rules.iter_mut().for_each(change);
        self
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[gateway]\ninterfaces = [\"eth0\"]\nstate-dir = \"{STATE}\"")?;
        writeln!(f, "{}\n", self.settings)?;
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        match addresses.as_slice() {
            [] => writeln!(f, "[peer.other]\naddress = \"any\"")?,
            [address] => writeln!(f, "[peer.other]\naddress = \"{address}\"")?,
            several => writeln!(f, "[peer.other]\naddress = {several:?}")?,
        }
        if let Some(local) = self.local_address {
            writeln!(f, "local-address = \"{local}\"")?;
        }
        let Self { local_id, remote_id, authentication, .. } = self;
        if !local_id.is_empty() {
            writeln!(f, "local-id = \"{local_id}\"")?;
        }
        writeln!(f, "remote-id = \"{remote_id}\"\n{authentication}")?;
        if !self.ike_proposals.is_empty() {
            writeln!(f, "ike-proposals = {:?}", self.ike_proposals)?;
        }
        writeln!(f, "{}", self.peer_keys)?;
        if let Some(id) = self.ppk {
            writeln!(f, "ppk-file = \"ppk\"\nppk-id = \"{id}\"")?;
        }
        writeln!(f, "\n{}", self.tables)?;
        self.rules.iter().try_for_each(|rule| write!(f, "\n{rule}"))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, local, remote, mode, start, esp_proposals, .. } = self;
        writeln!(f, "[rule.{name}]\naction = \"protect\"\npeer = \"other\"")?;
        writeln!(f, "local = {local:?}\nremote = {remote:?}")?;
        writeln!(f, "mode = \"{mode}\"\nstart = \"{start}\"")?;
        if !esp_proposals.is_empty() {
            writeln!(f, "esp-proposals = {esp_proposals:?}")?;
        }
        if let Some(lifetime) = &self.lifetime {
            writeln!(f, "lifetime = \"{lifetime}\"")?;
        }
        if let Some(packets) = self.lifetime_packets {
            writeln!(f, "lifetime-packets = {packets}")?;
        }
        if let Some(octets) = self.lifetime_bytes {
            writeln!(f, "lifetime-bytes = {octets}")?;
        }
        Ok(())
    }
}

/// Our daemon.
#[derive(Debug)]
pub struct Gateway<'a> {
    namespace: &'a Namespace,
    daemon: Daemon,
    directory: PathBuf,
}

impl<'a> Gateway<'a> {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready; with the end of its log.
    pub fn start(namespace: &'a Namespace, policy: &impl fmt::Display) -> Result<Self> {
        let mut gateway = Self::spawn(namespace, policy)?;
        gateway.daemon.wait_for_log("Ready", 0, PATIENCE)?;
        Ok(gateway)
    }

    /// Starts it, and does not wait.
    ///
    /// # Errors
    /// There is no such program, or the policy cannot be written.
    pub fn spawn(namespace: &'a Namespace, policy: &impl fmt::Display) -> Result<Self> {
        Self::spawn_with(namespace, policy, |_command| {})
    }

    /// Starts it after a change to its command, and does not wait.
    ///
    /// # Errors
    /// As [`Gateway::spawn`].
    pub fn spawn_with(
        namespace: &'a Namespace,
        policy: &impl fmt::Display,
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let directory = write_policies(namespace, policy)?;
        let mut command = namespace.command(gateway_binary());
        command.arg("run").arg("--policies").arg(&directory).args(["--log", "info"]);
        change(&mut command);
        let daemon = Daemon::start(namespace, "gateway", &mut command)?;
        Ok(Self { namespace, daemon, directory })
    }

    /// Runs `gateway guard` with this policy, and gives what it says.
    ///
    /// # Errors
    /// It fails; with what it says of that.
    pub fn guard(namespace: &Namespace, policy: &impl fmt::Display) -> Result<String> {
        let directory = write_policies(namespace, policy)?;
        let mut command = namespace.command(gateway_binary());
        output(command.arg("guard").arg("--policies").arg(&directory), "")
    }

    /// The directory of its policy files.
    #[must_use]
    pub fn policies(&self) -> &Path {
        &self.directory
    }

    /// The process and its log.
    pub const fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Replaces the policy, sends SIGHUP, and waits until the daemon has loaded it or refused to.
    /// Gives the report of the reload.
    ///
    /// # Errors
    /// It does neither.
    pub fn reload(&mut self, policy: &impl fmt::Display) -> Result<Value> {
        write_policy(&self.directory, policy)?;
        let reloads = |status: &Value| {
            let policies = status.get("policies")?;
            policies
                .get("generation")?
                .as_u64()?
                .checked_add(policies.get("reload_failed")?.as_u64()?)
        };
        let before = reloads(&self.status()?);
        self.daemon.signal(Signal::SIGHUP)?;
        wait_for("the reload", PATIENCE, || {
            let status = self.status()?;
            let done = reloads(&status) > before;
            Ok(done.then(|| status.pointer("/policies/last_reload").cloned()).flatten())
        })
    }

    /// What `gateway status --json` says.
    ///
    /// # Errors
    /// It cannot be asked; with the end of the daemon's log.
    pub fn status(&self) -> Result<Value> {
        let text = self.status_text(&["--json"])?;
        serde_json::from_str(&text).context("gateway status --json")
    }

    /// What `gateway status` says with these arguments.
    ///
    /// # Errors
    /// It cannot be asked; with the end of the daemon's log.
    pub fn status_text(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.namespace.command(gateway_binary());
        command.arg("status").args(arguments).args(["--socket", SOCKET]);
        output(&mut command, "").map_err(|error| self.with_log(&error))
    }

    /// What `gateway mtu --json` says of its only Child SA.
    ///
    /// # Errors
    /// It cannot be asked, or there is none, or more; with the end of the daemon's log.
    pub fn mtu(&self) -> Result<Value> {
        let mut command = self.namespace.command(gateway_binary());
        command.args(["mtu", "--json", "--socket", SOCKET]);
        let text = output(&mut command, "").map_err(|error| self.with_log(&error))?;
        let [report] = serde_json::from_str::<[Value; 1]>(&text).context(text)?;
        Ok(report)
    }

    /// `gateway trace` with these arguments, beside it, whether it runs or not; its output is to
    /// be read.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn trace(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.namespace.command(gateway_binary());
        command.arg("trace").args(arguments).args(["--socket", SOCKET]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("gateway trace")
    }

    /// What it says of an interface of its own.
    ///
    /// # Errors
    /// As [`Gateway::status`], or it does not know it.
    pub fn interface(&self, name: &str) -> Result<Value> {
        let status = self.status()?;
        let all = status.pointer("/kernel/interfaces").and_then(Value::as_array);
        let is_it = |interface: &&Value| interface.get("name").is_some_and(|n| n == name);
        all.and_then(|all| all.iter().find(is_it)).cloned().context(format_args!("no {name}"))
    }

    /// The first IKE SA that is established.
    ///
    /// # Errors
    /// As [`Gateway::status`], or there is none.
    pub fn established(&self) -> Result<Value> {
        let status = self.status()?;
        let all = status.get("ike_sas").and_then(Value::as_array).into_iter().flatten();
        let mut established = all.filter(|sa| sa.get("state").is_some_and(|s| s == "established"));
        established.next().cloned().context("no established IKE SA")
    }

    /// The installed Child SAs of a rule.
    ///
    /// # Errors
    /// As [`Gateway::status`].
    pub fn children(&self, rule: &str) -> Result<Vec<Value>> {
        let status = self.status()?;
        let ike_sas = status.get("ike_sas").and_then(Value::as_array).context("no ike_sas")?;
        let children = ike_sas.iter().filter_map(|sa| sa.get("children")?.as_array()).flatten();
        Ok(children
            .filter(|child| child.get("rule").is_some_and(|name| name == rule))
            .filter(|child| child.get("bytes_in").is_some_and(Value::is_u64))
            .cloned()
            .collect())
    }

    /// Waits until a rule has an installed Child SA, and gives it.
    ///
    /// # Errors
    /// It has none within a minute; with the end of the log.
    pub fn wait_child(&self, rule: &str) -> Result<Value> {
        let what = format!("a Child SA of rule {rule} in {}", self.namespace.name());
        wait_for(&what, PATIENCE, || Ok(self.children(rule)?.into_iter().next()))
            .map_err(|error| self.with_log(&error))
    }

    /// Waits until it has no IKE SA but such as stay half a minute to repeat their last answer, and
    /// no Child SA.
    ///
    /// # Errors
    /// It has one still after a minute; with the end of the log.
    pub fn wait_gone(&self) -> Result {
        wait_for("the end of the gateway's IKE SAs", PATIENCE, || {
            let status = self.status()?;
            let over = |sa: &Value| {
                let children = sa.get("children").and_then(Value::as_array);
                sa.get("state").is_some_and(|state| state == "closing")
                    && children.is_some_and(Vec::is_empty)
            };
            let ike_sas = status.get("ike_sas").and_then(Value::as_array);
            Ok(ike_sas.is_some_and(|all| all.iter().all(over)).then_some(()))
        })
        .map_err(|error| self.with_log(&error))
    }

    /// A counter of the eBPF programs; 0 where there is none of that name.
    ///
    /// # Errors
    /// As [`Gateway::status`].
    pub fn bpf_counter(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        let counters = status.get("bpf_counters").context("no bpf_counters")?;
        Ok(counters.get(name).and_then(Value::as_u64).unwrap_or(0))
    }

    /// A counter of the daemon; 0 where there is none of that name.
    ///
    /// # Errors
    /// As [`Gateway::status`].
    pub fn counter(&self, name: &str) -> Result<u64> {
        let status = self.status()?;
        let counters = status.get("counters").context("no counters")?;
        Ok(counters.get(name).and_then(Value::as_u64).unwrap_or(0))
    }

    /// Waits until a counter of the daemon is this large.
    ///
    /// # Errors
    /// It is not within a minute; with the end of the log.
    pub fn wait_counter(&self, name: &str, count: u64) -> Result {
        wait_for(name, PATIENCE, || Ok((self.counter(name)? >= count).then_some(())))
            .map_err(|error| self.with_log(&error))
    }

    fn with_log(&self, error: &Error) -> Error {
        Error::new(format!("{error}\n{}", tail(&self.daemon.log())))
    }
}

/// Makes the directory of policy files as the daemon expects it, with the key, and gives its path.
///
/// # Errors
/// It cannot be written.
pub fn write_policies(namespace: &Namespace, policy: &impl fmt::Display) -> Result<PathBuf> {
    let directory = namespace.directory().join("policies");
    fs::create_dir_all(&directory).context(directory.display())?;
    for (name, key) in [("psk", PSK), ("ppk", PPK)] {
        let path = directory.join(name);
        fs::write(&path, key).context(path.display())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context(path.display())?;
    }
    write_policy(&directory, policy)?;
    Ok(directory)
}

fn write_policy(directory: &Path, policy: &impl fmt::Display) -> Result {
    let path = directory.join("gateway.toml");
    fs::write(&path, policy.to_string()).context(path.display())
}
