//! libreswan in a namespace, with the kernel's ESP. Debian has it beside strongSwan only in a root
//! directory of its own.

use core::time::Duration;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::chroot;
use crate::daemon::{Daemon, tail, wait_for};
use crate::error::{Context as _, Error, Result};
use crate::namespace::{Namespace, output};
use crate::strongswan::{CHILD, PSK};
use crate::topology::{Family, Site, Topology};

/// How long pluto may take for anything on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection, in the words of `ipsec.conf`.
#[derive(Debug, Clone)]
pub struct Connection(String);

impl Connection {
    /// The client's side of a tunnel between the sites.
    #[must_use]
    pub fn of_client(topology: &Topology, family: Family) -> Self {
        let (client, server) = (&topology.client, &topology.server);
        let right = server.outer(family).to_string();
        Self::between((client, "client.test"), (server, "server.test"), &right, family)
    }

    /// The server's side of it; it answers to any address.
    #[must_use]
    pub fn of_server(topology: &Topology, family: Family) -> Self {
        let (client, server) = (&topology.client, &topology.server);
        Self::between((server, "server.test"), (client, "client.test"), "%any", family)
    }

    fn between(left: (&Site, &str), right: (&Site, &str), address: &str, family: Family) -> Self {
        Self(format!(
            "conn {CHILD}
\tkeyexchange=ikev2
\tauthby=secret
\tleft={}
\tleftid=@{}
\tleftsubnet={}
\tleftupdown=%disabled
\tright={address}
\trightid=@{}
\trightsubnet={}
\tike=aes_gcm256-sha2_256-dh31
\tesp=aes_gcm256
\tauto=add
",
            left.0.outer(family),
            left.1,
            left.0.prefix(family),
            right.1,
            right.0.prefix(family),
        ))
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
        let root = Self::root().context("libreswan")?;
        let directory = namespace.directory().to_owned();
        for name in ["nss", "run"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).context(path.display())?;
        }
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).context(path.display()).map(|()| path)
        };
        let conf = write("ipsec.conf", &connection.0)?;
        let secrets =
            write("ipsec.secrets", &format!("@client.test @server.test : PSK \"{PSK}\"\n"))?;
        let nss = format!("sql:{}", directory.join("nss").display());
        let mut certutil = chroot::command(namespace, Some(&root), "/usr/bin/certutil");
        output(certutil.args(["-N", "--empty-password", "-d", &nss]), "")?;
        let mut pluto = chroot::command(namespace, Some(&root), "/usr/libexec/ipsec/pluto");
        pluto.args(["--nofork", "--stderrlog", "--no-dnssec", "--config"]).arg(&conf);
        pluto.arg("--secretsfile").arg(&secrets).arg("--nssdir").arg(directory.join("nss"));
        pluto.arg("--rundir").arg(directory.join("run"));
        let daemon = Daemon::start(namespace, "libreswan", &mut pluto)?;
        let mut libreswan = Self { namespace, root, daemon, directory };
        let socket = libreswan.directory.join("run/pluto.ctl");
        wait_for("libreswan's control socket", PATIENCE, || {
            if libreswan.daemon.is_running() {
                return Ok(socket.exists().then_some(()));
            }
            Err(Error::new(format!("libreswan ended:\n{}", libreswan.daemon.log())))
        })?;
        let mut add = libreswan.control("/usr/libexec/ipsec/addconn");
        add.arg("--config").arg(&conf).arg(CHILD);
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
