//! strongSwan (charon-systemd and swanctl, as Debian packages them) in a namespace, with the
//! kernel's ESP.

mod connection;

use core::time::Duration;
use std::env;
use std::fs;
use std::path::PathBuf;

pub use self::connection::Connection;
use crate::chroot;
use crate::crash::Peer;
use crate::daemon::{Daemon, tail, wait_for};
use crate::error::{Context as _, Error, Result};
use crate::namespace::{Namespace, output};

/// The key that all peers of the tests share.
pub const PSK: &str = "correct horse battery staple";
/// The post-quantum key that they share.
pub const PPK: &str = "a second secret of 32 octets, or more";
/// The name of the connection and of its child.
pub const CHILD: &str = "site";

/// How long charon may take for anything on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running strongSwan.
#[derive(Debug)]
pub struct StrongSwan<'a> {
    namespace: &'a Namespace,
    /// Whose programs: this machine's, or those of another root directory.
    root: Option<PathBuf>,
    daemon: Daemon,
    directory: PathBuf,
}

impl<'a> StrongSwan<'a> {
    /// Whether it is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        ["charon-systemd", "swanctl"]
            .iter()
            .all(|program| fs::exists(format!("/usr/sbin/{program}")).unwrap_or(false))
    }

    /// Whether its plugins for EAP are installed.
    #[must_use]
    pub fn has_eap() -> bool {
        ["identity", "mschapv2", "tls"].iter().all(|method| {
            let plugin = format!("/usr/lib/ipsec/plugins/libstrongswan-eap-{method}.so");
            fs::exists(plugin).unwrap_or(false)
        })
    }

    /// The root directory of a newer one, if it was fetched.
    #[must_use]
    pub fn newer() -> Option<PathBuf> {
        let root = PathBuf::from(env::var_os("GATEWAY_PEERS")?).join("strongswan");
        root.is_dir().then_some(root)
    }

    /// Starts it and loads the connection.
    ///
    /// # Errors
    /// It does not start, or refuses the configuration.
    pub fn start(namespace: &'a Namespace, connection: &Connection) -> Result<Self> {
        Self::start_from(namespace, None, connection)
    }

    /// The same with the newer one.
    ///
    /// # Errors
    /// It is not there, does not start, or refuses the configuration.
    pub fn start_newer(namespace: &'a Namespace, connection: &Connection) -> Result<Self> {
        let root = Self::newer().context("a newer strongSwan")?;
        Self::start_from(namespace, Some(root), connection)
    }

    fn start_from(
        namespace: &'a Namespace,
        root: Option<PathBuf>,
        connection: &Connection,
    ) -> Result<Self> {
        let directory = namespace.directory().to_owned();
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).context(path.display()).map(|()| path)
        };
        let socket = directory.join("vici");
        // One that was killed has left it behind.
        if socket.exists() {
            fs::remove_file(&socket).context(socket.display())?;
        }
        let vici = format!("unix://{}", socket.display());
        // Traffic control, the XFRM interface and routes are the kernel's own business here:
        // policies without interface, routes by table 220, as strongSwan does it everywhere.
        // Who is asked whether it lives has four seconds.
        let impatience = match connection.liveness {
            Some(_) => "retransmit_timeout = 1.0\n  retransmit_base = 1.0\n  retransmit_tries = 3",
            None => "",
        };
        let conf = write(
            "strongswan.conf",
            &format!(
                "charon-systemd {{
  fragment_size = {}
  {impatience}
  make_before_break = yes
  {}
  load = random nonce openssl aes sha2 hmac gcm chapoly curve25519 gmp ml kdf pem pkcs1 pkcs8 x509 revocation \
                 kernel-netlink socket-default vici eap-identity eap-mschapv2 eap-tls resolve
  journal {{
    default = -1
  }}
  filelog {{
    stderr {{
      default = 1
      cfg = 2
      ike = 2
      chd = 2
      knl = 1
      {}
      flush_line = yes
      time_format = %H:%M:%S
    }}
  }}
  plugins {{
    vici {{
      socket = {vici}
    }}
    resolve {{
      file = {}
    }}
  }}
}}
swanctl {{
  load = random openssl aes sha2 hmac pem pkcs1 pkcs8 x509
}}
",
                connection.fragment_size,
                connection.settings,
                connection.log,
                directory.join("resolv.conf").display(),
            ),
        )?;
        let mut command = chroot::command(namespace, root.as_deref(), "/usr/sbin/charon-systemd");
        command.env("STRONGSWAN_CONF", &conf);
        let daemon = Daemon::start(namespace, "strongswan", &mut command)?;
        let mut strongswan = Self { namespace, root, daemon, directory };
        wait_for("strongSwan's control socket", PATIENCE, || {
            if strongswan.daemon.is_running() {
                return Ok(socket.exists().then_some(()));
            }
            Err(Error::new(format!("strongSwan ended:\n{}", strongswan.daemon.log())))
        })?;
        strongswan.load(connection)?;
        Ok(strongswan)
    }

    /// Replaces the connection by another, and all keys and certificates; existing SAs stay.
    ///
    /// # Errors
    /// It refuses the configuration.
    pub fn load(&self, connection: &Connection) -> Result {
        let path = self.directory.join("swanctl.conf");
        fs::write(&path, connection.render()?).context(path.display())?;
        // Where swanctl looks for keys and authorities: beside the file that it is given.
        self.copy("private", connection.private_key.as_slice())?;
        self.copy("x509ca", &connection.intermediates)?;
        self.swanctl(&["--load-all", "--clear"]).map(drop)
    }

    /// Files, and nothing else, for a directory of its own.
    fn copy(&self, name: &str, files: &[PathBuf]) -> Result {
        let directory = self.directory.join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory).context(directory.display())?;
        }
        fs::create_dir(&directory).context(directory.display())?;
        for (n, file) in files.iter().enumerate() {
            fs::copy(file, directory.join(format!("{n}.pem"))).context(file.display())?;
        }
        Ok(())
    }

    /// Brings up the child, and with it the IKE SA.
    ///
    /// # Errors
    /// The peer does not answer or refuses; with the end of strongSwan's log.
    pub fn initiate(&self) -> Result {
        self.swanctl(&["--initiate", "--child", CHILD, "--timeout", "60"]).map(drop)
    }

    /// Gives the child a successor.
    ///
    /// # Errors
    /// There is none.
    pub fn rekey_child(&self) -> Result {
        self.swanctl(&["--rekey", "--child", CHILD]).map(drop)
    }

    /// Gives the IKE SA new keys.
    ///
    /// # Errors
    /// There is none.
    pub fn rekey_ike(&self) -> Result {
        self.swanctl(&["--rekey", "--ike", CHILD]).map(drop)
    }

    /// Takes down the IKE SA with its children.
    ///
    /// # Errors
    /// There is none, or the peer does not answer.
    pub fn terminate(&self) -> Result {
        self.swanctl(&["--terminate", "--ike", CHILD, "--timeout", "60"]).map(drop)
    }

    /// Takes down the child alone.
    ///
    /// # Errors
    /// There is none, or the peer does not answer.
    pub fn terminate_child(&self) -> Result {
        self.swanctl(&["--terminate", "--child", CHILD, "--timeout", "60"]).map(drop)
    }

    /// Its SAs, as `swanctl --list-sas` shows them; empty when there is none.
    ///
    /// # Errors
    /// It does not answer.
    pub fn sas(&self) -> Result<String> {
        self.swanctl(&["--list-sas"])
    }

    /// Waits until the child is installed and gives the SAs.
    ///
    /// # Errors
    /// It is not within a minute.
    pub fn wait_installed(&self) -> Result<String> {
        let installed = || self.sas().map(|sas| sas.contains("INSTALLED").then_some(sas));
        wait_for("strongSwan's Child SA", PATIENCE, installed)
            .map_err(|error| Error::new(format!("{error}\n{}", tail(&self.daemon.log()))))
    }

    /// Waits until it has no IKE SA left.
    ///
    /// # Errors
    /// It has one still after a minute.
    pub fn wait_gone(&self) -> Result {
        let gone = || self.sas().map(|sas| sas.trim().is_empty().then_some(()));
        wait_for("the end of strongSwan's IKE SA", PATIENCE, gone)
            .map_err(|error| Error::new(format!("{error}\n{}", tail(&self.daemon.log()))))
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// The process and its log.
    pub const fn daemon(&mut self) -> &mut Daemon {
        &mut self.daemon
    }

    fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command =
            chroot::command(self.namespace, self.root.as_deref(), "/usr/sbin/swanctl");
        command.env("STRONGSWAN_CONF", self.directory.join("strongswan.conf"));
        command.args(arguments);
        command.arg("--uri").arg(format!("unix://{}", self.directory.join("vici").display()));
        if arguments.first() == Some(&"--load-all") {
            command.arg("--file").arg(self.directory.join("swanctl.conf"));
        }
        output(&mut command, "")
            .map_err(|error| Error::new(format!("{error}\n{}", tail(&self.daemon.log()))))
    }
}

impl Peer for StrongSwan<'_> {
    fn daemon(&mut self) -> &mut Daemon {
        self.daemon()
    }

    fn initiate(&self) -> Result {
        self.initiate()
    }

    fn has_one(&self) -> Result<bool> {
        Ok(self.sas()?.matches("ESTABLISHED").count() == 1)
    }
}
