//! The machine's own apt, and what it can get from other suites of its mirror.
//!
//! Nothing here changes the machine: what its package lists do not have is looked up with
//! lists of our own in a directory that goes away, under the machine's mirror and keyring.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::error::{Context as _, Error, Result};
use crate::progress::{Step, say};
use crate::shell::{capture, tool};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The fields of one package in apt's lists.
pub(crate) type Stanza = BTreeMap<String, String>;

/// One set of package lists, as options for apt.
pub(crate) struct Lists {
    options: Vec<String>,
    /// Private lists live here.
    dir: Option<TempDir>,
}

impl Lists {
    pub(crate) fn of_the_machine() -> Self {
        Self { options: sandbox_options(), dir: None }
    }

    /// The machine's own sources, read again into private lists.
    pub(crate) fn refreshed() -> Result<Self> {
        let lists = Self::private(&[])?;
        let step = Step::start("reading the package lists of this machine's apt sources");
        // A third-party source that fails must not hide the others.
        if let Err(error) = capture(&mut lists.command("apt-get", &["-qq", "update"])?) {
            say(error.to_string());
        }
        step.done();
        Ok(lists)
    }

    pub(crate) fn of_suite(mirror: &str, suite: &str) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            return Err(Error::new(format!(
                "{KEYRING} is missing: install debian-archive-keyring to look in Debian {suite}"
            )));
        }
        let lists = Self::private(&["-o", "Dir::Etc::sourcelist=/dev/null"])?;
        let dir = lists.path();
        fs::create_dir(dir.join("sources"))
            .and_then(|()| {
                let source = format!(
                    "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n\
                     Signed-By: {KEYRING}\n"
                );
                fs::write(dir.join("sources/debian.sources"), source)
            })
            .context(|| "cannot write an apt source")?;
        let parts = format!("Dir::Etc::sourceparts={}/sources", dir.display());
        let lists = lists.with(&["-o", &parts]);
        let step = Step::start(format!("reading the package lists of Debian {suite}"));
        capture(&mut lists.command("apt-get", &["-qq", "update"])?)?;
        step.done();
        Ok(lists)
    }

    fn private(more: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("gateway-apt.")
            .tempdir()
            .context(|| "cannot create a temporary directory")?;
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.path().join(part))
                .context(|| "cannot create a temporary directory")?;
        }
        let lists = format!("Dir::State::lists={}/lists", dir.path().display());
        let cache = format!("Dir::Cache={}/cache", dir.path().display());
        let mut options = sandbox_options();
        options.extend(["-o".to_owned(), lists, "-o".to_owned(), cache]);
        Ok(Self { options, dir: Some(dir) }.with(more))
    }

    fn with(mut self, more: &[&str]) -> Self {
        self.options.extend(more.iter().copied().map(str::to_owned));
        self
    }

    fn path(&self) -> &Path {
        self.dir.as_ref().map_or_else(|| Path::new("/"), TempDir::path)
    }

    pub(crate) fn command(&self, name: &str, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(tool(name)?);
        command.args(&self.options).args(args).env("LC_ALL", "C");
        Ok(command)
    }

    /// The mirror that the machine uses for Debian itself.
    pub(crate) fn debian_mirror(&self) -> Result<String> {
        let format = ["indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Identifier: Packages"];
        let targets = capture(&mut self.command("apt-get", &format)?)?;
        targets
            .lines()
            .filter_map(|line| line.strip_prefix("Debian "))
            .find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
            .map(str::to_owned)
            .ok_or_else(|| {
                Error::new(
                    "this machine's apt sources name no Debian mirror to look in other suites: add one \
                     (see `man sources.list`)",
                )
            })
    }

    /// What the lists say of the newest version of each package that they have.
    pub(crate) fn show(&self, packages: &[&str]) -> Result<Vec<Stanza>> {
        if packages.is_empty() {
            return Ok(Vec::new());
        }
        // One call for all: where apt keeps no binary cache, as in container images, each call
        // reads all lists again. It fails if one package is unknown, and still shows the rest.
        let output = self
            .command("apt-cache", &["show", "--no-all-versions"])?
            .args(packages)
            .output()
            .context(|| "apt-cache show")?;
        Ok(stanzas(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The packages that make `names` run on an empty machine: they and all that they depend on.
    pub(crate) fn closure(&self, names: &[&str]) -> Result<Vec<String>> {
        let mut command = self.command("apt-get", &["--simulate", "--no-install-recommends"])?;
        let plan =
            capture(command.args(["-o", "Dir::State::status=/dev/null", "install"]).args(names))?;
        let installed = |line: &str| {
            let name = line.strip_prefix("Inst ")?.split_whitespace().next()?;
            Some(name.to_owned())
        };
        Ok(plan.lines().filter_map(installed).collect())
    }

    /// Downloads packages to a directory.
    pub(crate) fn download(&self, packages: &[String], to: &Path) -> Result {
        let mut command = self.command("apt-get", &["-qq", "download"])?;
        capture(command.args(packages).current_dir(to)).map(drop)
    }
}

/// apt run by root fetches as the user `_apt`, who may not write to our directories.
fn sandbox_options() -> Vec<String> {
    vec!["-o".to_owned(), "APT::Sandbox::User=root".to_owned()]
}

fn stanzas(text: &str) -> Vec<Stanza> {
    text.split("\n\n")
        .map(|stanza| {
            stanza
                .lines()
                .filter(|line| !line.starts_with(' '))
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        })
        .filter(|stanza: &Stanza| !stanza.is_empty())
        .collect()
}

pub(crate) fn field<'a>(stanza: &'a Stanza, name: &str) -> &'a str {
    stanza.get(name).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_keep_the_first_line_of_each_field() {
        let text = "Package: a\nVersion: 1\nDescription: x\n more\n\nPackage: b\n\n";
        let stanzas = stanzas(text);
        assert_eq!(stanzas.len(), 2);
        assert_eq!(field(&stanzas[0], "Version"), "1");
        assert_eq!(field(&stanzas[1], "Package"), "b");
        assert_eq!(field(&stanzas[1], "Version"), "");
    }
}
