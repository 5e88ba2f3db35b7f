//! Finding and fetching a Debian kernel.

use std::cmp::Ordering;
use std::path::Path;
use std::process::Command;

use crate::apt::{Lists, field};
use crate::error::{Error, Result};
use crate::progress::{Step, say};
use crate::shell::{capture, succeeds};

/// Suites that hold a series when the machine's own do not; each on the machine's mirror.
const OTHER_SUITES: &[&str] = &["trixie-backports", "bookworm", "trixie", "sid"];

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
    if let Some(found) = find(&lists, series, flavour)? {
        match download(&lists, &found, to) {
            Ok(()) => return Ok(found),
            // The usual reason: the mirror has replaced the version that the lists name.
            Err(error) => say(format!("{error}\nthe package lists may be old: reading them again")),
        }
    }
    lists = Lists::refreshed()?;
    if let Some(found) = find(&lists, series, flavour)? {
        download(&lists, &found, to)?;
        return Ok(found);
    }
    let mirror = lists.debian_mirror()?;
    for suite in OTHER_SUITES {
        lists = Lists::of_suite(&mirror, suite)?;
        if let Some(found) = find(&lists, series, flavour)? {
            download(&lists, &found, to)?;
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

/// The newest kernel of a series whose packages are all there.
fn find(lists: &Lists, series: &str, flavour: &str) -> Result<Option<Found>> {
    let prefix = format!("linux-image-{series}.");
    let names = capture(&mut lists.command("apt-cache", &["pkgnames", &prefix])?)?;
    let names: Vec<&str> =
        names.lines().filter(|name| release_of(name, series, flavour).is_some()).collect();
    let mut images = lists.show(&names)?;
    images.sort_by(|a, b| compare_versions(field(b, "Version"), field(a, "Version")));
    for image in &images {
        let Some(release) = release_of(field(image, "Package"), series, flavour) else {
            continue;
        };
        let parts = parts_of(field(image, "Depends"));
        // Old images stay listed after the packages that they are made of have gone.
        if lists.show(&parts)?.len() < parts.len() {
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

fn download(lists: &Lists, found: &Found, to: &Path) -> Result {
    let step = Step::start(format!("fetching the kernel {} {}", found.release, found.version));
    lists.download(&found.packages, to)?;
    step.done();
    Ok(())
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
}
