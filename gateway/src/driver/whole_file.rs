//! Files that are there whole or not at all, for whoever reads them meanwhile.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// What the new content outlives from the moment in which it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    /// This process. After the machine has stopped there may be half of it.
    Process,
    /// The machine: waits for the disk.
    Machine,
}

/// Puts a file of this content and mode in the place of what is there, a symbolic link included.
///
/// It is written beside its place, under its name with `.new` behind it; what stands there is of
/// an attempt that was cut off.
///
/// # Errors
/// The system's; what was there still is.
pub(super) fn put(path: &Path, octets: &[u8], mode: u32, lasting: Lasting) -> io::Result<()> {
    let mut new = OsString::from(path);
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(octets)?;
    if lasting == Lasting::Machine {
        file.sync_all()?;
    }
    fs::rename(&new, path)
}
