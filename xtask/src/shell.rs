//! Starting other programs, and where this project keeps things.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context as _, Error, Result};

/// Programs that a machine may lack, and the Debian package that has each.
const PACKAGES: &[(&str, &str)] = &[
    ("apt-cache", "apt (a Debian machine)"),
    ("apt-get", "apt (a Debian machine)"),
    ("bash", "bash"),
    ("busybox", "busybox-static"),
    ("depmod", "kmod"),
    ("dpkg", "dpkg (a Debian machine)"),
    ("dpkg-deb", "dpkg (a Debian machine)"),
    ("ip", "iproute2"),
    ("lz4", "lz4"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// The top of the checkout.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where fetched kernels and built tools stay between runs: `$GATEWAY_CACHE`, or `gateway` in
/// the user's cache directory. Deleting it is always safe.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = set("GATEWAY_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("gateway")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/gateway")))
        .ok_or_else(|| Error::new("none of GATEWAY_CACHE, XDG_CACHE_HOME and HOME is set"))?;
    fs::create_dir_all(&dir).context(|| format!("cannot create {}", dir.display()))?;
    // The guest sees the directory by its absolute path.
    dir.canonicalize().context(|| format!("cannot resolve {}", dir.display()))
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whether `name` is installed.
pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Without root the sbin directories are often not in PATH.
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// The path of a program, or an error that names the package to install.
pub(crate) fn tool(name: &str) -> Result<PathBuf> {
    find_tool(name).ok_or_else(|| {
        let package = PACKAGES.iter().find(|(tool, _)| *tool == name).map_or(name, |(_, p)| *p);
        Error::new(format!(
            "{name} is not installed: run `cargo xtask setup`, or install the package {package}"
        ))
    })
}

/// A cargo invocation at the top of the checkout, with the toolchain that runs us, and without what
/// cargo has told us of ourselves: a build script that reads such variables (ring's does) would run
/// again, and all that depends on it be built again, whenever cargo is called now by us, now by hand.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    for (name, _) in env::vars_os() {
        if is_of_package(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether cargo sets a variable for the package that it runs.
fn is_of_package(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
        .iter()
        .any(|start| name.starts_with(start))
        || name == "OUT_DIR"
}

/// A command line as one would type it, for messages.
pub(crate) fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&quote(&arg.to_string_lossy()));
    }
    line
}

/// Runs a command with our own output; an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result {
    let status = command.status().context(|| describe(command))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::new(format!("{}: {status}", describe(command))))
    }
}

/// Runs a command and returns its standard output; an error, with its standard error, if it
/// fails.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context(|| describe(command))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{}: {}\n{}", describe(command), output.status, said.trim_end())))
}

/// Whether a command succeeds, silently.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Quotes a word for a POSIX shell, if it needs it.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+=./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Quotes words for a POSIX shell and joins them.
pub(crate) fn join<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    words.into_iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_not_told_what_it_told_us_of_ourselves() {
        let command = cargo(["build"]);
        let removed: Vec<_> =
            command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        for name in ["CARGO_PKG_NAME", "CARGO_PKG_VERSION_MAJOR", "CARGO_MANIFEST_DIR"] {
            assert!(removed.iter().any(|other| *other == name), "{name}");
        }
        assert!(!is_of_package("CARGO_HOME") && !is_of_package("CARGO_INCREMENTAL"));
    }

    #[test]
    fn a_plain_word_is_not_quoted() {
        assert_eq!(quote("a-b/c=1"), "a-b/c=1");
    }

    #[test]
    fn a_word_with_a_quote_survives_the_shell() {
        for word in ["", "it's", "$HOME `id` \\", "a\nb", "é"] {
            let script = format!("printf %s {}", quote(word));
            assert_eq!(capture(Command::new("sh").args(["-c", &script])).unwrap(), word);
        }
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let text = tool("no-such-tool").unwrap_err().to_string();
        assert!(text.contains("no-such-tool is not installed: run `cargo xtask setup`"), "{text}");
    }

    #[test]
    fn a_failed_command_says_what_it_said() {
        let text = capture(Command::new("sh").args(["-c", "echo out; echo why >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(text.contains("exit status: 3") && text.contains("why"), "{text}");
    }
}
