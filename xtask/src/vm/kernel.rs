//! Kernels in the cache: `kernels/<release>` holds one, `kernels/pins/<series>-<flavour>` names
//! the one that a series means. A pin stays until the cache is cleared, so that test results do
//! not change under our feet.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::package;
use crate::error::{Context as _, Error, Result};
use crate::progress::Step;
use crate::shell::{cache_dir, capture, find_tool, tool};

/// An unpacked kernel.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// What `uname -r` says.
    pub(crate) release: String,
    /// Holds `vmlinuz`, mostly `vmlinux`, `config` and `lib/modules/<release>`.
    pub(crate) tree: PathBuf,
}

impl Kernel {
    /// The directory of the modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.tree.join("lib/modules").join(&self.release)
    }

    /// What QEMU boots: the bare ELF file where there is one. Entered directly (PVH) it needs
    /// no decompressor, which under emulation takes longer than the rest of the boot.
    pub(super) fn image(&self) -> PathBuf {
        let elf = self.tree.join("vmlinux");
        if elf.exists() { elf } else { self.tree.join("vmlinuz") }
    }
}

/// The kernel of a series, fetched and unpacked if the cache lacks it.
pub(crate) fn get(series: &str, flavour: &str) -> Result<Kernel> {
    if series.is_empty() || !series.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(Error::new(format!("{series:?} is not a kernel series such as 6.12")));
    }
    let kernels = cache_dir()?.join("kernels");
    fs::create_dir_all(kernels.join("pins"))
        .context(|| format!("cannot create {}", kernels.display()))?;
    // Two runs at once must not fetch into each other.
    let lock = File::create(kernels.join("lock")).context(|| "cannot create the cache's lock")?;
    lock.lock().context(|| "cannot lock the cache")?;

    let pin = kernels.join("pins").join(format!("{series}-{flavour}"));
    if let Ok(release) = fs::read_to_string(&pin) {
        let tree = kernels.join(&release);
        if tree.is_dir() {
            return Ok(Kernel { release, tree });
        }
    }
    let work = tempfile::Builder::new()
        .prefix("unpacking.")
        .tempdir_in(&kernels)
        .context(|| "cannot create a directory in the cache")?;
    let debs = work.path().join("debs");
    fs::create_dir(&debs).context(|| "cannot create a directory in the cache")?;
    let release = package::fetch(series, flavour, &debs)?.release;
    let tree = kernels.join(&release);
    if !tree.is_dir() {
        let step = Step::start(format!("unpacking the kernel {release}"));
        let unpacked = unpack(&debs, work.path(), &release)?;
        fs::rename(&unpacked, &tree).context(|| format!("cannot create {}", tree.display()))?;
        step.done();
    }
    fs::write(&pin, &release).context(|| format!("cannot write {}", pin.display()))?;
    Ok(Kernel { release, tree })
}

/// Unpacks packages to a tree in the form of [`Kernel::tree`].
fn unpack(debs: &Path, work: &Path, release: &str) -> Result<PathBuf> {
    let (files, tree) = (work.join("files"), work.join("tree"));
    let list = fs::read_dir(debs).context(|| format!("cannot read {}", debs.display()))?;
    for deb in list {
        let deb = deb.context(|| "cannot read the downloaded packages")?.path();
        capture(Command::new(tool("dpkg-deb")?).arg("-x").arg(deb).arg(&files))?;
    }
    let first = |candidates: &[String]| {
        candidates.iter().map(|path| files.join(path)).find(|path| path.exists()).ok_or_else(|| {
            Error::new(format!("the package of {release} has none of {}", candidates.join(", ")))
        })
    };
    let modules = first(&[format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")])?;
    let inside = |name: &str| {
        [
            format!("boot/{name}-{release}"),
            format!("usr/lib/modules/{release}/{name}"),
            format!("lib/modules/{release}/{name}"),
        ]
    };
    let (image, config) = (first(&inside("vmlinuz"))?, first(&inside("config"))?);
    let moved = |from: &Path, to: &Path| {
        fs::rename(from, to).context(|| format!("cannot move {}", from.display()))
    };
    fs::create_dir_all(tree.join("lib/modules")).context(|| "cannot create a directory")?;
    moved(&image, &tree.join("vmlinuz"))?;
    moved(&config, &tree.join("config"))?;
    moved(&modules, &tree.join("lib/modules").join(release))?;
    capture(Command::new(tool("depmod")?).arg("-b").arg(&tree).arg(release))?;
    let image =
        fs::read(tree.join("vmlinuz")).context(|| format!("cannot read the image of {release}"))?;
    if let Some(elf) = extract_elf(&image) {
        fs::write(tree.join("vmlinux"), elf).context(|| "cannot write vmlinux")?;
    }
    Ok(tree)
}

/// Takes the ELF file out of a bzImage (Documentation/arch/x86/boot.rst: `setup_sects`,
/// `payload_offset`, `payload_length`); nothing if it is packed in a way that no tool here
/// undoes.
fn extract_elf(image: &[u8]) -> Option<Vec<u8>> {
    let payload = payload(image)?;
    let packers: [(&[u8], &str); 4] = [
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\xfd7zXZ", "xz"),
        (b"\x1f\x8b", "gzip"),
    ];
    let (_, packer) = packers.iter().find(|(magic, _)| payload.starts_with(magic))?;
    // The size that the kernel's build appends makes every one of them complain after it has
    // written all: its exit status says nothing, the result does.
    let elf = filter(Command::new(find_tool(packer)?).arg("-dc"), payload).ok()?;
    elf.starts_with(b"\x7fELF").then_some(elf)
}

/// The packed kernel inside a bzImage.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| -> Option<usize> {
        let octets = image.get(at..)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*octets)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match *image.get(0x1f1)? {
        0 => 4, // as the boot protocol says
        n => usize::from(n),
    };
    let start = sectors.checked_add(1)?.checked_mul(512)?.checked_add(word(0x248)?)?;
    image.get(start..start.checked_add(word(0x24c)?)?)
}

/// A module's contents, decompressed: busybox's insmod takes no other.
pub(super) fn read_module(file: &Path) -> Result<Vec<u8>> {
    let data = fs::read(file).context(|| format!("cannot read {}", file.display()))?;
    match file.extension().and_then(|end| end.to_str()) {
        Some("xz") => filter(Command::new(tool("busybox")?).args(["xz", "-dc"]), &data),
        Some("zst") => filter(Command::new(tool("zstd")?).arg("-dc"), &data),
        _ => Ok(data),
    }
}

/// What a program makes of its input.
fn filter(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let what = crate::shell::describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context(|| what.as_str())?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut out = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It may stop reading before the end: what it wrote decides.
            stdin.map(|mut stdin| stdin.write_all(input).is_ok())
        });
        stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut out))
    })
    .context(|| what.as_str())?;
    child.wait().context(|| what.as_str())?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bzimage(sectors: u8, offset: u32, length: u32, body: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = sectors;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&offset.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(body);
        image
    }

    #[test]
    fn the_payload_is_behind_the_setup_sectors() {
        assert_eq!(payload(&bzimage(1, 2, 3, b"..abc..")), Some(&b"abc"[..]));
    }

    #[test]
    fn a_payload_outside_the_image_is_refused() {
        assert_eq!(payload(&bzimage(1, 2, 9, b"..abc..")), None);
        assert_eq!(payload(&bzimage(1, u32::MAX, 3, b"..abc..")), None);
        assert_eq!(payload(&bzimage(0, 0, 1, b"x")), None);
    }

    #[test]
    fn what_is_no_bzimage_has_no_elf() {
        assert_eq!(extract_elf(b""), None);
        assert_eq!(extract_elf(&[0; 4096]), None);
        assert_eq!(extract_elf(&bzimage(1, 0, 5, b"plain")), None);
    }

    #[test]
    fn the_elf_comes_out_of_a_gzip_payload() {
        let packed = filter(Command::new("gzip").arg("-c"), b"\x7fELF and more").unwrap();
        let image = bzimage(1, 0, u32::try_from(packed.len()).unwrap(), &packed);
        assert_eq!(extract_elf(&image).unwrap(), b"\x7fELF and more");
    }

    #[test]
    fn a_series_is_digits_and_dots() {
        for bad in ["", "../../etc", "6.1; rm", "latest"] {
            assert!(get(bad, "amd64").unwrap_err().to_string().contains("not a kernel series"));
        }
    }
}
