//! Capabilities: which the gateway needs, and giving up all others.

use caps::{CapSet, Capability, CapsHashSet};

/// Capabilities that the gateway needs while it runs: netlink, sockets with marks, raw sockets,
/// BPF maps. CAP_PERFMON lets the kernel accept programs with pointer arithmetic.
const RUNNING: [Capability; 4] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
];

/// Lets root read policy files in a directory that is another user's alone, such as one below a
/// home of mode 0700. Where the start had it, a reload needs it as well.
const READING: Capability = Capability::CAP_DAC_READ_SEARCH;

/// Which capabilities the start needs and this process lacks: those of [`RUNNING`], and the right
/// to bind port 500. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON (capabilities(7)).
///
/// # Errors
/// The system does not tell.
pub(super) fn missing() -> Result<Vec<Capability>, caps::errors::CapsError> {
    Ok(missing_of(&caps::read(None, CapSet::Effective)?))
}

fn missing_of(effective: &CapsHashSet) -> Vec<Capability> {
    let all = effective.contains(&Capability::CAP_SYS_ADMIN);
    let has = |capability: &Capability| {
        let implied = matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
        effective.contains(capability) || (all && implied)
    };
    let needed = RUNNING.into_iter().chain([Capability::CAP_NET_BIND_SERVICE]);
    needed.filter(|capability| !has(capability)).collect()
}

/// Gives up every capability but [`RUNNING`] and [`READING`], for this thread and those it starts,
/// and the way to get any back by executing a program. CAP_SYS_ADMIN stays where it stands for CAP_BPF.
///
/// # Errors
/// What could not be given up, in words.
pub(super) fn drop_the_rest() -> Result<(), String> {
    let failed = |what: &'static str| move |e: caps::errors::CapsError| format!("{what}: {e}");
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed("read"))?;
    let keep = kept_of(&permitted);
    // The bounding set can be lowered with CAP_SETPCAP only, so before the others.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        let bounding = caps::read(None, CapSet::Bounding).map_err(failed("read"))?;
        bounding
            .difference(&keep)
            .try_for_each(|capability| caps::drop(None, CapSet::Bounding, *capability))
            .map_err(failed("bounding set"))?;
    }
    caps::clear(None, CapSet::Ambient).map_err(failed("ambient set"))?;
    caps::set(None, CapSet::Effective, &keep).map_err(failed("effective set"))?;
    caps::set(None, CapSet::Permitted, &keep).map_err(failed("permitted set"))?;
    caps::clear(None, CapSet::Inheritable).map_err(failed("inheritable set"))?;
    nix::sys::prctl::set_no_new_privs().map_err(|e| format!("no_new_privs: {e}"))
}

fn kept_of(permitted: &CapsHashSet) -> CapsHashSet {
    let kept = RUNNING.into_iter().chain([READING]);
    let mut keep: CapsHashSet = kept.filter(|capability| permitted.contains(capability)).collect();
    if !keep.contains(&Capability::CAP_BPF) && permitted.contains(&Capability::CAP_SYS_ADMIN) {
        keep.insert(Capability::CAP_SYS_ADMIN);
    }
    keep
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let some = CapsHashSet::from([Capability::CAP_NET_ADMIN, Capability::CAP_SYS_ADMIN]);
        let missing = missing_of(&some);
        assert_eq!(missing, [Capability::CAP_NET_RAW, Capability::CAP_NET_BIND_SERVICE]);
        assert_eq!(missing_of(&CapsHashSet::new()).len(), 5);
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let kept = CapsHashSet::from_iter(RUNNING.into_iter().chain([READING]));
        assert_eq!(kept_of(&caps::all()), kept);
        let old = CapsHashSet::from([Capability::CAP_SYS_ADMIN, Capability::CAP_CHOWN]);
        assert_eq!(kept_of(&old), CapsHashSet::from([Capability::CAP_SYS_ADMIN]));
    }

    #[test]
    fn what_was_given_up_is_gone() {
        if !crate::testing::is_root("what_was_given_up_is_gone") {
            return;
        }
        // Capabilities belong to a thread.
        std::thread::spawn(|| {
            drop_the_rest().unwrap();
            let left = caps::read(None, CapSet::Permitted).unwrap();
            assert!(left.is_subset(&kept_of(&caps::all())), "{left:?}");
            assert!(std::fs::read("/proc/1/environ").is_err(), "CAP_SYS_PTRACE is gone");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_directory_of_another_user_alone_can_still_be_read() {
        if !crate::testing::is_root("a_directory_of_another_user_alone_can_still_be_read") {
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("a.toml");
        std::fs::write(&file, "").unwrap();
        for path in [file.as_path(), home.path()] {
            std::os::unix::fs::chown(path, Some(1000), Some(1000)).unwrap();
        }
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        // Capabilities belong to a thread.
        std::thread::spawn(move || {
            drop_the_rest().unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
            assert!(std::fs::write(&file, "x").is_err(), "CAP_DAC_OVERRIDE is gone");
        })
        .join()
        .unwrap();
    }
}
