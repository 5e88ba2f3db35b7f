//! libreswan in a namespace, with the kernel's ESP. Debian has it beside strongSwan only in a root
//! directory of its own.

use core::fmt;
use core::time::Duration;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::certificates::{Authority, Issued, ROOT_NAME};
use crate::chroot;
use crate::crash::Peer;
use crate::daemon::{Daemon, tail, wait_for};
use crate::error::{Context as _, Error, Result};
use crate::namespace::{Namespace, output};
use crate::strongswan::{CHILD, PPK, PSK};
use crate::topology::{Family, Site, Topology};

/// How long pluto may take for anything on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What opens the file with which the key comes into the database; nothing depends on it.
const BUNDLE_PASSWORD: &str = "bundle";

/// One connection, in the words of `ipsec.conf`.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Addresses, identities and prefixes of both ends.
    pub ends: String,
    /// How both prove who they are, and keys that say more.
    pub keys: String,
    /// Algorithms of IKE.
    pub ike: &'static str,
    /// Algorithms of ESP.
    pub esp: String,
    /// The name under which the peer and it know [`PPK`].
    pub ppk_id: Option<&'static str>,
    /// Its certificate with all above it.
    pub bundle: Option<PathBuf>,
}

impl Connection {
    /// The client's side of a tunnel between the sites.
    #[must_use]
    pub fn of_client(topology: &Topology, family: Family) -> Self {
        let (client, server) = (&topology.client, &topology.server);
        let right = server.outer(family).to_string();
        let subnets = Some((client.prefix(family), server.prefix(family)));
        Self::between((client, "client.test"), ("server.test", &right), subnets, family)
    }

    /// The server's side of it; it answers to any address.
    #[must_use]
    pub fn of_server(topology: &Topology, family: Family) -> Self {
        let (client, server) = (&topology.client, &topology.server);
        let subnets = Some((server.prefix(family), client.prefix(family)));
        Self::between((server, "server.test"), ("client.test", "%any"), subnets, family)
    }

    /// With the client's address in the place of any, so that it can begin as well.
    #[must_use]
    pub fn known(self, topology: &Topology, family: Family) -> Self {
        let client = topology.client.outer(family).to_string();
        Self { ends: self.ends.replace("%any", &client), ..self }
    }

    /// The server's side of transport mode between the gateways, which can begin as well.
    #[must_use]
    pub fn of_transport(topology: &Topology, family: Family) -> Self {
        let (client, server) = (&topology.client, &topology.server);
        let right = client.outer(family).to_string();
        let mut it = Self::between((server, "server.test"), ("client.test", &right), None, family);
        it.keys.push_str("\ttype=transport\n");
        it
    }

    fn between(
        left: (&Site, &str),
        right: (&str, &str),
        subnets: Option<(String, String)>,
        family: Family,
    ) -> Self {
        let subnets = subnets.map_or_else(String::new, |(left, right)| {
            format!("\tleftsubnet={left}\n\trightsubnet={right}\n")
        });
        Self {
            ends: format!(
                "\tleft={}\n\tleftid=@{}\n\tright={}\n\trightid=@{}\n{subnets}",
                left.0.outer(family),
                left.1,
                right.1,
                right.0,
            ),
            keys: "\tauthby=secret\n".to_owned(),
            ike: "aes_gcm256-sha2_256-dh31",
            esp: "aes_gcm256".to_owned(),
            ppk_id: None,
            bundle: None,
        }
    }

    /// With a certificate; `authby` is libreswan's word for its kind of key.
    ///
    /// # Errors
    /// As [`Authority::bundle`].
    pub fn certified(self, authority: &Authority, ours: &Issued, authby: &str) -> Result<Self> {
        Ok(Self {
            keys: format!(
                "\tauthby={authby}\n\tleftcert={CHILD}\n\tleftsendcert=always\n\tsendca=all\n"
            ),
            bundle: Some(authority.bundle(CHILD, ours, BUNDLE_PASSWORD)?),
            ..self
        })
    }
}

impl Connection {
    /// With MOBIKE.
    #[must_use]
    pub fn mobile(mut self) -> Self {
        self.keys.push_str("\tmobike=yes\n");
        self
    }

    /// As server: the peer gets an address of this range, and that is its end of the tunnel.
    #[must_use]
    pub fn with_pool(self, range: &str) -> Self {
        Self {
            ends: without(&self.ends, "rightsubnet"),
            keys: format!(
                "{}\tleftmodecfgserver=yes\n\trightmodecfgclient=yes\n\trightaddresspool={range}\n",
                self.keys
            ),
            ..self
        }
    }

    /// As client: it asks for an address, and that is its end of the tunnel.
    #[must_use]
    pub fn with_request(self) -> Self {
        Self {
            ends: without(&self.ends, "leftsubnet"),
            keys: format!(
                "{}\tleftsubnet=0.0.0.0/0\n\tleftmodecfgclient=yes\n\trightmodecfgserver=yes\n\tnarrowing=yes\n",
                self.keys
            ),
            ..self
        }
    }

    /// It asks every two seconds whether the peer lives, and waits ten for an answer.
    #[must_use]
    pub fn impatient(mut self) -> Self {
        self.keys.push_str("\tdpddelay=2s\n\tretransmit-timeout=10s\n");
        self
    }
}

/// Without the line of this key.
fn without(lines: &str, key: &str) -> String {
    lines.lines().filter(|line| !line.contains(key)).flat_map(|line| [line, "\n"]).collect()
}

/// The name of the connection of this number; the first has that of strongSwan's.
fn name(number: usize) -> String {
    if number == 0 { CHILD.to_owned() } else { format!("{CHILD}{number}") }
}

/// A connection under its name.
struct Named<'a>(String, &'a Connection);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, Connection { ends, keys, ike, esp, ppk_id, .. }) = self;
        let ppk = match ppk_id {
            Some(id) => format!("\tppk=insist\n\tppk-ids=\"{id}\"\n"),
            None => String::new(),
        };
        write!(
            f,
            "conn {name}\n\tkeyexchange=ikev2\n{ends}\tleftupdown=%disabled\n\
             \tike={ike}\n\tesp={esp}\n\tauto=add\n{keys}{ppk}\n"
        )
    }
}

/// A running libreswan.
#[derive(Debug)]
pub struct Libreswan<'a> {
    namespace: &'a Namespace,
    root: PathBuf,
    daemon: Daemon,
    directory: PathBuf,
}

impl<'a> Libreswan<'a> {
    /// Its root directory, if it was fetched.
    #[must_use]
    pub fn root() -> Option<PathBuf> {
        let root = PathBuf::from(env::var_os("GATEWAY_PEERS")?).join("libreswan");
        root.is_dir().then_some(root)
    }

    /// Starts it and loads the connection.
    ///
    /// # Errors
    /// It does not start, or refuses the configuration.
    pub fn start(namespace: &'a Namespace, connection: &Connection) -> Result<Self> {
        Self::start_with(namespace, &[connection])
    }

    /// Starts it and loads several connections, of which the first has the key and the certificate
    /// for all. One that was killed in the namespace may be started there again.
    ///
    /// # Errors
    /// As [`Libreswan::start`].
    pub fn start_with(namespace: &'a Namespace, connections: &[&Connection]) -> Result<Self> {
        let root = Self::root().context("libreswan")?;
        let directory = namespace.directory().to_owned();
        let (nss, run) = (directory.join("nss"), directory.join("run"));
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).context(path.display()).map(|()| path)
        };
        // What one that was killed has left would keep this one from starting.
        if run.exists() {
            fs::remove_dir_all(&run).context(run.display())?;
        }
        fs::create_dir(&run).context(run.display())?;
        let named = connections.iter().enumerate().map(|(n, it)| Named(name(n), it).to_string());
        let conf = write("ipsec.conf", &named.collect::<String>())?;
        let first = connections.first().context("no connection")?;
        let mut keys = format!("@client.test @server.test : PSK \"{PSK}\"\n");
        if let Some(id) = first.ppk_id {
            let line = format!("@client.test @server.test : PPKS \"{id}\" \"{PPK}\"\n");
            keys.push_str(&line);
        }
        let secrets = write("ipsec.secrets", &keys)?;
        if !nss.exists() {
            make_database(namespace, &root, &nss, first.bundle.as_deref())?;
        }
        let mut pluto = chroot::command(namespace, Some(&root), "/usr/libexec/ipsec/pluto");
        pluto.args(["--nofork", "--stderrlog", "--no-dnssec", "--config"]).arg(&conf);
        pluto.arg("--secretsfile").arg(&secrets).arg("--nssdir").arg(&nss);
        pluto.arg("--rundir").arg(&run);
        let daemon = Daemon::start(namespace, "libreswan", &mut pluto)?;
        let mut libreswan = Self { namespace, root, daemon, directory };
        let socket = run.join("pluto.ctl");
        wait_for("libreswan's control socket", PATIENCE, || {
            if libreswan.daemon.is_running() {
                return Ok(socket.exists().then_some(()));
            }
            Err(Error::new(format!("libreswan ended:\n{}", libreswan.daemon.log())))
        })?;
        let mut add = libreswan.control("/usr/libexec/ipsec/addconn");
        add.arg("--config").arg(&conf).args((0..connections.len()).map(name));
        libreswan.run(&mut add)?;
        libreswan.whack(&["--listen"])?;
        Ok(libreswan)
    }

    /// Brings up the connection.
    ///
    /// # Errors
    /// The peer does not answer or refuses; with the end of libreswan's log.
    pub fn initiate(&self) -> Result {
        self.whack(&["--initiate", "--name", CHILD]).map(drop)
    }

    /// Gives the Child SA a successor.
    ///
    /// # Errors
    /// There is none, or the peer does not answer.
    pub fn rekey_child(&self) -> Result {
        self.rekey_child_of(0)
    }

    /// Gives the Child SA of the connection of this number a successor.
    ///
    /// # Errors
    /// There is none, or the peer does not answer.
    pub fn rekey_child_of(&self, number: usize) -> Result {
        self.whack(&["--rekey-child", "--name", &name(number)]).map(drop)
    }

    /// Gives the IKE SA new keys.
    ///
    /// # Errors
    /// There is none, or the peer does not answer.
    pub fn rekey_ike(&self) -> Result {
        self.whack(&["--rekey-ike", "--name", CHILD]).map(drop)
    }

    /// Asks for a successor of the Child SA, and does not wait for what comes of it.
    ///
    /// # Errors
    /// There is none.
    pub fn begin_to_rekey_child(&self) -> Result {
        self.whack(&["--asynchronous", "--rekey-child", "--name", CHILD]).map(drop)
    }

    /// The states that it has, a line for each SA, and each begins with its number.
    ///
    /// # Errors
    /// It does not answer.
    pub fn states(&self) -> Result<String> {
        self.whack(&["--showstates"])
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Waits until it has no SA left.
    ///
    /// # Errors
    /// It has one still after a minute.
    pub fn wait_gone(&self) -> Result {
        wait_for("the end of libreswan's SAs", PATIENCE, || {
            Ok((!self.states()?.contains('#')).then_some(()))
        })
        .map_err(|error| Error::new(format!("{error}\n{}", tail(&self.daemon.log()))))
    }

    /// The process and its log.
    pub const fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    /// Takes it down.
    ///
    /// # Errors
    /// There is none, or the peer does not answer.
    pub fn terminate(&self) -> Result {
        self.whack(&["--terminate", "--name", CHILD]).map(drop)
    }

    fn whack(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.control("/usr/libexec/ipsec/whack");
        self.run(command.args(arguments))
    }

    fn control(&self, program: &str) -> Command {
        let mut command = chroot::command(self.namespace, Some(&self.root), program);
        command.arg("--ctlsocket").arg(self.directory.join("run/pluto.ctl"));
        command
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        output(command, "")
            .map_err(|error| Error::new(format!("{error}\n{}", tail(&self.daemon.log()))))
    }
}

/// Makes the database of keys and certificates, with what the bundle holds.
fn make_database(
    namespace: &Namespace,
    root: &Path,
    directory: &Path,
    bundle: Option<&Path>,
) -> Result {
    fs::create_dir(directory).context(directory.display())?;
    let database = format!("sql:{}", directory.display());
    let run = |program: &str, arguments: &[&str]| {
        let mut command = chroot::command(namespace, Some(root), program);
        output(command.args(arguments).args(["-d", &database]), "").map(drop)
    };
    run("/usr/bin/certutil", &["-N", "--empty-password"])?;
    let Some(bundle) = bundle else { return Ok(()) };
    let bundle = bundle.display().to_string();
    run("/usr/bin/pk12util", &["-K", "", "-W", BUNDLE_PASSWORD, "-i", &bundle])?;
    run("/usr/bin/certutil", &["-M", "-n", ROOT_NAME, "-t", "CT,,"])
}

impl Peer for Libreswan<'_> {
    fn daemon(&mut self) -> &mut Daemon {
        self.daemon()
    }

    fn initiate(&self) -> Result {
        self.initiate()
    }

    fn has_one(&self) -> Result<bool> {
        // An IKE SA without a Child SA stays until its lifetime ends.
        Ok(self.states()?.matches("ESTABLISHED_CHILD_SA").count() == 1)
    }
}
