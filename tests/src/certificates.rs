//! A certification authority by `openssl`, and what it issues.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::error::{Context as _, Result};
use crate::namespace::output;

/// A kind of key, as arguments of `openssl req -newkey`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// RSA with 2048 bits.
    Rsa,
    /// ECDSA on P-256.
    P256,
    /// Ed25519.
    Ed25519,
}

impl Key {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Rsa => &["-newkey", "rsa:2048"],
            Self::P256 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::Ed25519 => &["-newkey", "ed25519"],
        }
    }
}

/// A root that issues certificates into its directory, which goes with it.
#[derive(Debug)]
pub struct Authority {
    directory: TempDir,
    key: Key,
}

/// The files of a certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// A root with a key of a kind, with which it issues certificates for keys of that kind.
    ///
    /// # Errors
    /// `openssl` is not there or refuses.
    pub fn new(key: Key) -> Result<Self> {
        let directory = TempDir::with_prefix("authority").context("a directory")?;
        let authority = Self { directory, key };
        let arguments = [
            &["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=Test CA"],
            key.arguments(),
            &["-keyout", "ca.key", "-out", "ca.pem"],
        ];
        authority.openssl(&arguments.concat()).map(|()| authority)
    }

    /// The root's own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Issues a certificate for `O=Test, CN=name` that holds the domain name.
    ///
    /// # Errors
    /// `openssl` refuses.
    pub fn issue(&self, name: &str) -> Result<Issued> {
        let [key, request, certificate, extensions] =
            ["key", "csr", "pem", "ext"].map(|ending| format!("{name}.{ending}"));
        let path = self.path(&extensions);
        fs::write(&path, format!("subjectAltName=DNS:{name}\n")).context(path.display())?;
        let subject = format!("/O=Test/CN={name}");
        let arguments = [
            &["req", "-new", "-nodes", "-subj", &subject],
            self.key.arguments(),
            &["-keyout", &key, "-out", &request],
        ];
        self.openssl(&arguments.concat())?;
        self.openssl(&[
            "x509",
            "-req",
            "-days",
            "30",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            &extensions,
            "-in",
            &request,
            "-out",
            &certificate,
        ])?;
        let issued = Issued { certificate: self.path(&certificate), key: self.path(&key) };
        fs::set_permissions(&issued.key, fs::Permissions::from_mode(0o600))
            .context(issued.key.display())?;
        Ok(issued)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) -> Result {
        let mut command = Command::new("openssl");
        command.current_dir(self.directory.path()).args(arguments);
        output(&mut command, "").map(drop)
    }
}

/// The keys of a peer's table in our policy for these files.
#[must_use]
pub fn policy(authority: &Authority, ours: &Issued) -> String {
    let line = |key: &str, path: &Path| format!("{key} = {:?}\n", path.display().to_string());
    format!(
        "auth = \"certificate\"\n{}{}ca = [{:?}]",
        line("certificate", &ours.certificate),
        line("private-key", &ours.key),
        authority.certificate().display().to_string(),
    )
}
