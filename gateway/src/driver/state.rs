//! What outlives the process: files in the state directory.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gateway_ike::config::Secret;
use gateway_ike::random::{Random, RandomFailed};
use zeroize::Zeroizing;

use super::whole_file::{self, Lasting};

/// Octets of the crash secret: as many as the hash has that is keyed with it.
const SECRET_LEN: usize = 32;
/// Its file.
const SECRET_FILE: &str = "crash-secret";

/// Why there is no crash secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    /// A file or the directory cannot be read or written.
    #[error("cannot {what} {}: {source}", .path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No fresh secret.
    #[error(transparent)]
    Random(#[from] RandomFailed),
}

/// The secret by which peers learn at once when we have lost an IKE SA (RFC 6290): that of the
/// last start, or a fresh one where there is none, or none that only we can have read.
pub(super) fn crash_secret(
    directory: &Path,
    random: &mut dyn Random,
) -> Result<Secret, StateError> {
    let path = directory.join(SECRET_FILE);
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| StateError::System { what, path, source }
    };
    if let Some(secret) = read(&path).map_err(failed("read", &path))? {
        return Ok(secret);
    }
    let mut octets = Zeroizing::new([0; SECRET_LEN]);
    random.fill(octets.as_mut())?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed("create", directory))?;
    whole_file::put(&path, octets.as_ref(), 0o600, Lasting::Machine)
        .map_err(failed("write", &path))?;
    Ok(Secret::new(octets.to_vec()))
}

/// `None`: there is none, or it may have been read by others, or is not ours.
fn read(path: &Path) -> io::Result<Option<Secret>> {
    let mut options = OpenOptions::new();
    let mut file = match options.read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let private = metadata.is_file()
        && metadata.mode() & 0o077 == 0
        && metadata.uid() == nix::unistd::geteuid().as_raw();
    let mut octets = Zeroizing::new([0; SECRET_LEN]);
    if !private || metadata.size() != u64::try_from(SECRET_LEN).unwrap_or(0) {
        tracing::warn!(
            path = %path.display(),
            "The crash secret is replaced: it is not a file of ours alone, or damaged"
        );
        return Ok(None);
    }
    file.read_exact(octets.as_mut())?;
    Ok(Some(Secret::new(octets.to_vec())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use gateway_ike::random::SystemSource;

    use super::*;

    fn secret(directory: &Path) -> Vec<u8> {
        crash_secret(directory, &mut SystemSource::default()).unwrap().expose().to_vec()
    }

    #[test]
    fn the_secret_is_made_once_and_is_for_nobody_else() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("lib").join("gateway");
        let first = secret(&directory);
        assert_eq!(first.len(), SECRET_LEN);
        assert_ne!(first, [0; SECRET_LEN]);
        assert_eq!(secret(&directory), first);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join(SECRET_FILE))), (0o700, 0o600));
    }

    #[test]
    fn a_secret_that_others_could_read_or_that_is_damaged_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(SECRET_FILE);
        let first = secret(root.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let second = secret(root.path());
        assert_ne!(second, first);
        assert_eq!(secret(root.path()), second);
        fs::write(&path, b"short").unwrap();
        assert_ne!(secret(root.path()), second);
        // A start that was cut off leaves nothing in the way.
        fs::write(root.path().join("crash-secret.new"), b"half").unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(secret(root.path()).len(), SECRET_LEN);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let error = crash_secret(&file, &mut SystemSource::default()).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    }
}
