//! Finding and fetching a Debian kernel with the machine's own apt.
//!
//! Nothing here changes the machine: what its package lists do not have is looked up with
//! lists of our own in a directory that goes away, under the machine's mirror and keyring.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::error::{Context as _, Error, Result};
use crate::progress::{Step, say};
use crate::shell::{capture, succeeds, tool};

/// Suites that hold a series when the machine's own do not; each on the machine's mirror.
const OTHER_SUITES: &[&str] = &["trixie-backports", "bookworm", "trixie", "sid"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The fields of one package in apt's lists.
type Stanza = BTreeMap<String, String>;

/// A kernel that apt can fetch.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// What `uname -r` will say, such as `6.1.0-56-cloud-amd64`.
    pub(super) release: String,
    /// The Debian version of the package.
    pub(super) version: String,
    /// The packages that together hold image, modules and configuration.
    packages: Vec<String>,
}

/// Downloads the newest kernel of `series` and `flavour` to the directory `to`.
pub(super) fn fetch(series: &str, flavour: &str, to: &Path) -> Result<Found> {
    let mut lists = Lists::of_the_machine();
    if let Some(found) = lists.find(series, flavour)? {
        match lists.download(&found, to) {
            Ok(()) => return Ok(found),
            // The usual reason: the mirror has replaced the version that the lists name.
            Err(error) => say(format!("{error}\nthe package lists may be old: reading them again")),
        }
    }
    lists = Lists::refreshed()?;
    if let Some(found) = lists.find(series, flavour)? {
        lists.download(&found, to)?;
        return Ok(found);
    }
    let mirror = lists.debian_mirror()?;
    for suite in OTHER_SUITES {
        lists = Lists::of_suite(&mirror, suite)?;
        if let Some(found) = lists.find(series, flavour)? {
            lists.download(&found, to)?;
            return Ok(found);
        }
    }
    Err(Error::new(format!(
        "no Debian kernel linux-image-{series}.*-{flavour} in this machine's apt suites nor in {} \
         of {mirror}: is the series still in Debian (see `apt-cache search linux-image`), and is \
         the mirror reachable?",
        OTHER_SUITES.join(", ")
    )))
}

/// One set of package lists, as options for apt.
struct Lists {
    options: Vec<String>,
    /// Private lists live here.
    dir: Option<TempDir>,
}

impl Lists {
    fn of_the_machine() -> Self {
        Self { options: sandbox_options(), dir: None }
    }

    /// The machine's own sources, read again into private lists.
    fn refreshed() -> Result<Self> {
        let lists = Self::private(&[])?;
        let step = Step::start("reading the package lists of this machine's apt sources");
        // A third-party source that fails must not hide the others.
        if let Err(error) = capture(&mut lists.command("apt-get", &["-qq", "update"])?) {
            say(error.to_string());
        }
        step.done();
        Ok(lists)
    }

    fn of_suite(mirror: &str, suite: &str) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            return Err(Error::new(format!(
                "this machine's apt suites have no such kernel, and {KEYRING} is missing: \
                 install debian-archive-keyring to look in {suite}"
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

    fn command(&self, name: &str, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(tool(name)?);
        command.args(&self.options).args(args).env("LC_ALL", "C");
        Ok(command)
    }

    /// The mirror that the machine uses for Debian itself.
    fn debian_mirror(&self) -> Result<String> {
        let format = ["indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Identifier: Packages"];
        let targets = capture(&mut self.command("apt-get", &format)?)?;
        targets
            .lines()
            .filter_map(|line| line.strip_prefix("Debian "))
            .find(|uri| uri.trim_end_matches('/').ends_with("/debian"))
            .map(str::to_owned)
            .ok_or_else(|| {
                Error::new(
                    "this machine's apt suites have no such kernel, and its sources name no \
                     Debian mirror to look in other suites: add one (see `man sources.list`)",
                )
            })
    }

    /// The newest kernel of a series whose packages are all there.
    fn find(&self, series: &str, flavour: &str) -> Result<Option<Found>> {
        let prefix = format!("linux-image-{series}.");
        let names = capture(&mut self.command("apt-cache", &["pkgnames", &prefix])?)?;
        let names: Vec<&str> =
            names.lines().filter(|name| release_of(name, series, flavour).is_some()).collect();
        let mut images = self.show(&names)?;
        images.sort_by(|a, b| compare_versions(field(b, "Version"), field(a, "Version")));
        for image in &images {
            let Some(release) = release_of(field(image, "Package"), series, flavour) else {
                continue;
            };
            let parts = parts_of(field(image, "Depends"));
            // Old images stay listed after the packages that they are made of have gone.
            if self.show(&parts)?.len() < parts.len() {
                continue;
            }
            let packages = if parts.is_empty() { vec![field(image, "Package")] } else { parts };
            return Ok(Some(Found {
                release: release.to_owned(),
                version: field(image, "Version").to_owned(),
                packages: packages.into_iter().map(str::to_owned).collect(),
            }));
        }
        Ok(None)
    }

    /// What the lists say of the newest version of each package that they have.
    fn show(&self, packages: &[&str]) -> Result<Vec<Stanza>> {
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

    fn download(&self, found: &Found, to: &Path) -> Result {
        let step = Step::start(format!("fetching the kernel {} {}", found.release, found.version));
        let packages: Vec<&str> = found.packages.iter().map(String::as_str).collect();
        let mut command = self.command("apt-get", &["-qq", "download"])?;
        capture(command.args(packages).current_dir(to))?;
        step.done();
        Ok(())
    }
}

/// apt run by root fetches as the user `_apt`, who may not write to our directories.
fn sandbox_options() -> Vec<String> {
    vec!["-o".to_owned(), "APT::Sandbox::User=root".to_owned()]
}

/// The release in the name of a kernel package of this series and flavour.
fn release_of<'a>(package: &'a str, series: &str, flavour: &str) -> Option<&'a str> {
    let release = package.strip_prefix("linux-image-")?;
    let version = release.strip_suffix(flavour)?.strip_suffix('-')?;
    let patch = version.strip_prefix(series)?.strip_prefix('.')?;
    // `amd64` is also the end of `cloud-amd64` and `rt-amd64`.
    let variant = ["-cloud", "-rt"].iter().any(|end| version.ends_with(end));
    (patch.starts_with(|c: char| c.is_ascii_digit()) && !variant).then_some(release)
}

/// Since 6.19 a `linux-image` package is empty and depends on those with the files: image,
/// modules, configuration. Nothing for one that has the files itself.
fn parts_of(depends: &str) -> Vec<&str> {
    let names = |prefixes: &'static [&str]| {
        depends.split(',').filter_map(|dependency| dependency.split_whitespace().next()).filter(
            move |name| {
                prefixes.iter().any(|prefix| {
                    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(char::is_numeric))
                })
            },
        )
    };
    if names(&["linux-binary-"]).next().is_none() {
        return Vec::new();
    }
    names(&["linux-base-", "linux-binary-", "linux-modules-"]).collect()
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

fn field<'a>(stanza: &'a Stanza, name: &str) -> &'a str {
    stanza.get(name).map_or("", String::as_str)
}

fn compare_versions(a: &str, b: &str) -> Ordering {
    let is = |relation| succeeds(Command::new("dpkg").args(["--compare-versions", a, relation, b]));
    if a == b {
        Ordering::Equal
    } else if is("lt") {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signed_images_of_the_flavour_are_kernels() {
        let release = |package| release_of(package, "6.1", "cloud-amd64");
        assert_eq!(release("linux-image-6.1.0-56-cloud-amd64"), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(release("linux-image-6.1.0-56-cloud-amd64-unsigned"), None);
        assert_eq!(release("linux-image-6.1.0-56-cloud-amd64-dbg"), None);
        assert_eq!(release("linux-image-6.1.0-56-amd64"), None);
        assert_eq!(release("linux-image-6.12.117+deb12-cloud-amd64"), None);
        assert_eq!(release("linux-image-6.1-cloud-amd64"), None);
        assert_eq!(release("linux-image-cloud-amd64"), None);
    }

    #[test]
    fn the_plain_flavour_is_not_its_variants() {
        let release = |package| release_of(package, "6.12", "amd64");
        assert_eq!(release("linux-image-6.12.117+deb12-amd64"), Some("6.12.117+deb12-amd64"));
        assert_eq!(release("linux-image-6.12.117+deb12-cloud-amd64"), None);
        assert_eq!(release("linux-image-6.12.117+deb12-rt-amd64"), None);
    }

    #[test]
    fn an_empty_image_names_its_parts() {
        let depends = "kmod, linux-base (>= 4.3~), linux-base-6.19.1-amd64 (= 6.19.1-1), \
                       linux-binary-6.19.1-amd64 (= 6.19.1-1), linux-modules-6.19.1-amd64";
        assert_eq!(
            parts_of(depends),
            ["linux-base-6.19.1-amd64", "linux-binary-6.19.1-amd64", "linux-modules-6.19.1-amd64"]
        );
        assert!(parts_of("kmod, linux-base (>= 4.3~), initramfs-tools | dracut").is_empty());
        assert!(parts_of("kmod, linux-base-6.18.15-amd64 (= 6.18.15-1)").is_empty());
    }

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
