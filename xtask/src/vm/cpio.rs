//! Writing the "newc" archive that the kernel unpacks as its first file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use crate::error::{Context as _, Result};

/// Mode bits of a directory that everybody may read.
pub(super) const DIRECTORY: u32 = 0o40755;
/// Mode bits of a program.
pub(super) const PROGRAM: u32 = 0o100_755;
/// Mode bits of a plain file.
pub(super) const FILE: u32 = 0o100_644;
/// Mode bits of a symbolic link.
pub(super) const LINK: u32 = 0o120_777;

/// One file of an archive.
pub(super) struct Entry {
    /// Path without a leading slash; its directory comes earlier in the archive.
    pub(super) path: String,
    /// File type and permissions.
    pub(super) mode: u32,
    /// Contents of a file, target of a link, nothing for a directory.
    pub(super) data: Vec<u8>,
}

impl Entry {
    /// A file, directory or link with these contents.
    pub(super) fn new(path: impl Into<String>, mode: u32, data: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), mode, data: data.into() }
    }
}

/// The archive of `entries`, in their order.
pub(super) fn archive(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for (number, entry) in (1_u32..).zip(entries) {
        append(&mut out, number, entry)?;
    }
    append(&mut out, 0, &Entry::new("TRAILER!!!", 0, []))?;
    Ok(out)
}

fn append(out: &mut Vec<u8>, inode: u32, entry: &Entry) -> Result {
    let size = u32::try_from(entry.data.len())
        .context(|| format!("{} is too large for the initramfs", entry.path))?;
    let name_size = u32::try_from(entry.path.len().saturating_add(1 /* NUL */))
        .context(|| "a path is too long for the initramfs")?;
    out.extend_from_slice(b"070701");
    // ino, mode, uid, gid, nlink, mtime, filesize, major, minor, rmajor, rminor, namesize, check
    for field in [inode, entry.mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(entry.path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(&entry.data);
    pad(out);
    Ok(())
}

/// Headers and contents begin at multiples of four octets.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn an_empty_archive_is_the_trailer_alone() {
        let out = archive(&[]).unwrap();
        assert_eq!(out.len(), 124); // 110 of header + 11 of name, padded
        assert!(out.starts_with(b"070701"));
        assert!(out[110..].starts_with(b"TRAILER!!!\0"));
    }

    #[test]
    fn every_part_is_padded_to_four_octets() {
        for size in 0..9 {
            let out = archive(&[Entry::new("f", FILE, vec![7; size])]).unwrap();
            assert_eq!(out.len() % 4, 0);
            assert_eq!(&out[112..112 + size], vec![7; size]); // 110 + "f\0"
        }
    }

    #[test]
    fn the_size_fields_are_upper_case_hexadecimal() {
        let out = archive(&[Entry::new("abc", PROGRAM, vec![0; 0xab])]).unwrap();
        assert_eq!(&out[14..22], b"000081ED");
        assert_eq!(&out[54..62], b"000000AB");
        assert_eq!(&out[94..102], b"00000004");
    }

    #[test]
    fn busybox_cpio_reads_it_back() {
        let Some(busybox) = crate::shell::find_tool("busybox") else {
            println!("skipped: no busybox");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let out = archive(&[
            Entry::new("d", DIRECTORY, []),
            Entry::new("d/file", FILE, "hello"),
            Entry::new("d/link", LINK, "file"),
        ]);
        let mut child = Command::new(busybox)
            .args(["cpio", "-i"])
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&out.unwrap()).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read(dir.path().join("d/link")).unwrap(), b"hello");
    }
}
