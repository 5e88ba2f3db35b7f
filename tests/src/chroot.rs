//! Programs of another root directory, in a namespace.

use std::path::Path;
use std::process::Command;

use crate::namespace::Namespace;

/// Lets the other root see what the system is made of and the directories of the tests.
const ENTER: &str = "root=$1; shift; \
    for dir in dev proc run sys tmp; do mount --rbind /$dir $root/$dir || exit 1; done; \
    exec chroot $root \"$@\"";

/// A command that will run in a namespace: a program of this machine, or of another root.
#[must_use]
pub fn command(namespace: &Namespace, root: Option<&Path>, program: &str) -> Command {
    let Some(root) = root else { return namespace.command(program) };
    let mut command = namespace.command("unshare");
    command.args(["--mount", "sh", "-c", ENTER, "chroot"]).arg(root).arg(program);
    command
}
