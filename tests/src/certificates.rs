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
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Ed25519.
    Ed25519,
}

impl Key {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Rsa => &["-newkey", "rsa:2048"],
            Self::P256 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::P384 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
            Self::P521 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
            Self::Ed25519 => &["-newkey", "ed25519"],
        }
    }
}

/// Octets of comment in each certificate of a long chain: what makes real ones large, such as
/// policies, addresses of lists and names, is as little use to IKE.
const COMMENT: usize = 1100;

/// The root's common name, which NSS calls it by.
pub const ROOT_NAME: &str = "Test CA";

/// A root that issues certificates into its directory, which goes with it.
#[derive(Debug)]
pub struct Authority {
    directory: TempDir,
    key: Key,
    /// What stands between the root and what it issues, the root's own neighbour first.
    intermediates: Vec<&'static str>,
}

/// The files of a certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// The certificate, and after it those that lead to the root.
    pub chain: PathBuf,
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
        let authority = Self { directory, key, intermediates: Vec::new() };
        let arguments = [
            &["req", "-x509", "-nodes", "-days", "30", "-subj", &format!("/CN={ROOT_NAME}")],
            key.arguments(),
            &["-keyout", "ca.key", "-out", "ca.pem"],
        ];
        authority.openssl(&arguments.concat()).map(|()| authority)
    }

    /// One that issues by way of two others: a chain has more than 4 kB, the root not counted.
    /// Those two have keys on P-256, which are quickly made.
    ///
    /// # Errors
    /// As [`Authority::new`].
    pub fn with_long_chains(key: Key) -> Result<Self> {
        let mut authority = Self::new(key)?;
        for name in ["intermediate", "issuing"] {
            let extensions = "basicConstraints=critical,CA:true\n\
                              keyUsage=critical,keyCertSign,cRLSign\n";
            authority.sign(name, Key::P256, extensions)?;
            authority.intermediates.push(name);
        }
        Ok(authority)
    }

    /// The root's own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The certificates between the root and what it issues.
    #[must_use]
    pub fn intermediates(&self) -> Vec<PathBuf> {
        self.intermediates.iter().map(|name| self.path(&format!("{name}.pem"))).collect()
    }

    /// Issues a certificate for `O=Test, CN=name` that holds the domain name.
    ///
    /// # Errors
    /// `openssl` refuses.
    pub fn issue(&self, name: &str) -> Result<Issued> {
        self.issue_for(name, self.key)
    }

    /// The same for a key of another kind; one for the same name takes the place of the other.
    ///
    /// # Errors
    /// `openssl` refuses.
    pub fn issue_for(&self, name: &str, key: Key) -> Result<Issued> {
        let issued = self.sign(name, key, &format!("subjectAltName=DNS:{name}\n"))?;
        let mut chain = String::new();
        for link in core::iter::once(issued.certificate.clone()).chain(self.nearest_first()) {
            chain.push_str(&fs::read_to_string(&link).context(link.display())?);
        }
        fs::write(&issued.chain, chain).context(issued.chain.display())?;
        Ok(issued)
    }

    /// The certificate and its key as PKCS #12 with all above it, under the name `name`.
    ///
    /// # Errors
    /// `openssl` refuses.
    pub fn bundle(&self, name: &str, issued: &Issued, password: &str) -> Result<PathBuf> {
        let all = self.path("above.pem");
        let mut above = String::new();
        for link in self.nearest_first().chain([self.certificate()]) {
            above.push_str(&fs::read_to_string(&link).context(link.display())?);
        }
        fs::write(&all, above).context(all.display())?;
        let bundle = self.path(&format!("{name}.p12"));
        let path = |path: &Path| path.display().to_string();
        self.openssl(&[
            "pkcs12",
            "-export",
            "-name",
            name,
            "-passout",
            &format!("pass:{password}"),
            "-in",
            &path(&issued.certificate),
            "-inkey",
            &path(&issued.key),
            "-certfile",
            &path(&all),
            "-out",
            &path(&bundle),
        ])?;
        Ok(bundle)
    }

    fn nearest_first(&self) -> impl Iterator<Item = PathBuf> {
        self.intermediates().into_iter().rev()
    }

    /// Makes a key and has the last of the chain sign a certificate for it.
    fn sign(&self, name: &str, key: Key, extensions: &str) -> Result<Issued> {
        let [key_file, request, certificate, extensions_file, chain] =
            ["key", "csr", "pem", "ext", "chain"].map(|ending| format!("{name}.{ending}"));
        let path = self.path(&extensions_file);
        let long = name == "intermediate" || !self.intermediates.is_empty();
        let comment =
            if long { format!("nsComment={}\n", "x".repeat(COMMENT)) } else { String::new() };
        fs::write(&path, format!("{extensions}{comment}")).context(path.display())?;
        let subject = format!("/O=Test/CN={name}");
        let arguments = [
            &["req", "-new", "-nodes", "-subj", &subject],
            key.arguments(),
            &["-keyout", &key_file, "-out", &request],
        ];
        self.openssl(&arguments.concat())?;
        let issuer = self.intermediates.last().unwrap_or(&"ca");
        self.openssl(&[
            "x509",
            "-req",
            "-days",
            "30",
            "-CA",
            &format!("{issuer}.pem"),
            "-CAkey",
            &format!("{issuer}.key"),
            "-CAcreateserial",
            "-extfile",
            &extensions_file,
            "-in",
            &request,
            "-out",
            &certificate,
        ])?;
        let [certificate, chain, key] = [certificate, chain, key_file].map(|name| self.path(&name));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).context(key.display())?;
        Ok(Issued { certificate, chain, key })
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
    format!("auth = \"certificate\"\n{}", files(authority, ours))
}

/// Those that name the files.
#[must_use]
pub fn files(authority: &Authority, ours: &Issued) -> String {
    format!("{}{}", own(ours), trusted(authority))
}

/// Those that name our own.
#[must_use]
pub fn own(ours: &Issued) -> String {
    let line = |key: &str, path: &Path| format!("{key} = {:?}\n", path.display().to_string());
    format!("{}{}", line("certificate", &ours.chain), line("private-key", &ours.key))
}

/// The one that names the root.
#[must_use]
pub fn trusted(authority: &Authority) -> String {
    format!("ca = [{:?}]", authority.certificate().display().to_string())
}
