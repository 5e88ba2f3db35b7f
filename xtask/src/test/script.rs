//! The shell script that runs test programs one after another, on this machine or in a guest.
//!
//! Each program gets namespaces of its own, so that nothing it makes or leaves behind, even when
//! killed, reaches the machine or the next program: mounts (with an empty `/run/netns` and
//! bpffs), network and processes.

use std::path::{Path, PathBuf};

use super::reader::MARK;
use crate::shell::{join, quote};

/// Seconds that one program may take.
const LIMIT: u32 = 900;

/// Prepares the namespaces and runs the program given as arguments. The shell stays: as process
/// 1 it reaps orphans, and the program keeps the signals that process 1 would not get.
const INSIDE: &str = "\
mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
\"$@\"
exit $?";

/// A test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Name of its target, such as `host_reload`.
    pub(super) name: String,
    /// The executable.
    pub(super) path: PathBuf,
}

/// A shell command that runs `command` as root in namespaces of its own.
pub(crate) fn isolated<S: AsRef<str>>(command: impl IntoIterator<Item = S>) -> String {
    format!(
        "unshare --mount --net --pid --fork --kill-child --mount-proc sh -c {} isolated {}",
        quote(INSIDE),
        join(command)
    )
}

/// The script that runs `programs` in the directory `cwd` with these variables, giving each the
/// arguments `args` (a filter for libtest), and marks what it does.
pub(super) fn script(
    programs: &[Program],
    cwd: &Path,
    env: &[(String, String)],
    args: &[String],
) -> String {
    let mut script = String::from("export PATH=\"$PATH:/usr/sbin:/sbin\"\n");
    for (name, value) in env {
        script.push_str(&format!("export {name}={}\n", quote(value)));
    }
    script.push_str(&format!(
        "cd {} || exit 1\nGATEWAY_SKIP_LOG=$(mktemp) || exit 1\nexport GATEWAY_SKIP_LOG\n",
        quote(&cwd.to_string_lossy())
    ));
    for program in programs {
        let path = program.path.to_string_lossy();
        let base = [path.as_ref(), "--test-threads=1"];
        let command = isolated(base.into_iter().chain(args.iter().map(String::as_str)));
        let name = quote(&program.name);
        script.push_str(&format!(
            "echo '--- '{name}\necho '{MARK}begin '{name}\n: >\"$GATEWAY_SKIP_LOG\"\n\
             timeout --foreground --kill-after=10 {LIMIT} {command} 2>&1 </dev/null\n\
             code=$?\necho\nsed 's/^/{MARK}skip /' \"$GATEWAY_SKIP_LOG\"\n\
             echo \"{MARK}end $code\"\n"
        ));
    }
    script.push_str(&format!("rm -f \"$GATEWAY_SKIP_LOG\"\necho '{MARK}done'\n"));
    script
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::reader::Reader;
    use super::super::tally::Tally;
    use super::*;
    use crate::shell::{capture, is_root};

    /// A stand-in for a test program.
    fn program(dir: &Path, name: &str, body: &str) -> Program {
        use std::os::unix::fs::PermissionsExt as _;
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Program { name: name.to_owned(), path }
    }

    fn run(programs: &[Program], dir: &Path, args: &[String]) -> (String, Reader, Tally) {
        let env = [("X".to_owned(), "a b".to_owned())];
        let script = script(programs, dir, &env, args);
        let out = capture(Command::new("sh").args(["-c", &script])).unwrap();
        let mut reader = Reader::default();
        for line in out.lines() {
            reader.line(line);
        }
        let tally = reader.script_ended("");
        (out, reader, tally)
    }

    #[test]
    fn programs_run_isolated_and_their_results_come_back() {
        if !is_root() {
            println!("skipped: namespaces need root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let result = "echo 'test result: ok. 1 passed; 0 failed; 0 ignored'";
        let good = program(
            dir.path(),
            "good",
            &format!("ip netns add t && ip -br link; echo \"$X|$$|$*\"; sleep 1000 & {result}"),
        );
        let next = program(
            dir.path(),
            "next",
            &format!("ls /run/netns; echo 'it: no ESP' >>\"$GATEWAY_SKIP_LOG\"; {result}"),
        );
        let bad = program(dir.path(), "bad", "kill -ABRT $$");
        let (out, reader, tally) = run(&[good, next, bad], dir.path(), &["filter".to_owned()]);
        assert_eq!(tally, Tally { passed: 1, failed: 1, skipped: 1 }, "{out}");
        assert!(out.contains("|--test-threads=1 filter"), "{out}");
        assert!(out.contains("a b|"), "{out}");
        assert_eq!(reader.failures, ["bad failed (exit status 134)"]);
        assert_eq!(reader.skips, ["next: it: no ESP"]);
        assert!(!out.lines().any(|line| line == "t"), "a namespace leaked: {out}");
    }

    #[test]
    fn no_programs_are_no_tests() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(run(&[], dir.path(), &[]).2, Tally::default());
    }
}
