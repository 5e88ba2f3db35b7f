//! Reading files of bounded size, and keys from files that nobody else may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use gateway_ike::config::Secret;
use nix::unistd::Uid;
use zeroize::Zeroizing;

use super::error::Fault;
use super::value::hex;

/// The most octets in the file of a secret.
const SECRET_LIMIT: usize = 4096;
/// The most octets in the file of a private key: RSA with 8192 bits takes less than 7000.
const KEY_LIMIT: usize = 16_384;
/// Secrets of fewer octets get a warning: who answers as the peer once can then try every
/// password at leisure (RFC 7296 2.15).
const GUESSABLE: usize = 16;

/// The most characters of a password (RFC 2759 4).
const PASSWORD_LIMIT: usize = 256;
/// Passwords of fewer octets get a warning.
const GUESSABLE_PASSWORD: usize = 8;

/// Reads the pre-shared key in the file at `path`; `name` is how the policy file calls it.
/// Also says what is wrong with the key though it can be used.
///
/// One line end at the end of the file does not belong to the key. What begins with `0x` is
/// hexadecimal and with `0s` Base64, as in strongSwan; everything else is the key itself.
pub(super) fn read_psk(path: &Path, name: &str) -> Result<(Secret, Option<Fault>), Fault> {
    let octets = read_checked(path, name, SECRET_LIMIT, check_mode)?;
    let text = without_line_end(&octets);
    let key = if let Some(digits) = text.strip_prefix(b"0x") {
        let digits = core::str::from_utf8(digits).ok();
        digits
            .and_then(hex)
            .ok_or_else(|| badly_encoded(name, "0x", "an even number of hexadecimal digits"))?
    } else if let Some(digits) = text.strip_prefix(b"0s") {
        base64(digits).ok_or_else(|| badly_encoded(name, "0s", "Base64 (RFC 4648 4)"))?
    } else {
        text.to_vec()
    };
    let secret = Secret::new(key);
    let warning = match secret.expose().len() {
        0 => {
            return Err(Fault::new(format!("{name:?} is empty"))
                .hint("make a key with `openssl rand -hex 32`"));
        }
        length if length < GUESSABLE => Some(
            Fault::new(format!("the key in {name:?} has {length} octets and can be guessed"))
                .hint("make one with `openssl rand -hex 32`"),
        ),
        _ => None,
    };
    Ok((secret, warning))
}

/// Reads the file of a private key.
pub(super) fn read_private(path: &Path, name: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    read_checked(path, name, KEY_LIMIT, check_mode)
}

/// Reads a file that everybody may see, such as a certificate.
pub(super) fn read_public(path: &Path, name: &str, limit: usize) -> Result<Vec<u8>, Fault> {
    let mut octets = read_checked(path, name, limit, |_file, _name| Ok(()))?;
    Ok(core::mem::take(&mut *octets))
}

fn read_checked(
    path: &Path,
    name: &str,
    limit: usize,
    check: impl FnOnce(&File, &str) -> Result<(), Fault>,
) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let file = open(path).map_err(|error| unreadable(name, &error))?;
    check(&file, name)?;
    let octets = read(file, limit).map_err(|error| unreadable(name, &error))?;
    octets.map(Zeroizing::new).ok_or_else(|| {
        Fault::expected(format!("{name:?} is too long"), format_args!("at most {limit} octets"))
    })
}

/// Reads the password in the file at `path`: text, of which one line end does not belong to it.
/// Also says what is wrong with it though it can be used.
pub(super) fn read_password(path: &Path, name: &str) -> Result<(Secret, Option<Fault>), Fault> {
    let octets = read_checked(path, name, SECRET_LIMIT, check_mode)?;
    let text = without_line_end(&octets);
    if core::str::from_utf8(text).map_or(true, |text| text.chars().count() > PASSWORD_LIMIT) {
        return Err(Fault::expected(
            format!("the password in {name:?} cannot be used"),
            format_args!("text in UTF-8 of at most {PASSWORD_LIMIT} characters"),
        ));
    }
    let warning = match text.len() {
        0 => return Err(Fault::new(format!("{name:?} is empty"))),
        length if length < GUESSABLE_PASSWORD => Some(Fault::new(format!(
            "the password in {name:?} has {length} octets and can be guessed"
        ))),
        _ => None,
    };
    Ok((Secret::new(text.to_vec()), warning))
}

fn without_line_end(octets: &[u8]) -> &[u8] {
    let text = octets.strip_suffix(b"\n").unwrap_or(octets);
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// Opens a regular file for reading. A pipe or device is not waited for.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// Reads a file to its end; `None` if it has more than `limit` octets.
pub(super) fn read(file: File, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let length = file.metadata()?.len();
    // The whole room at once, and some to spare for the read that finds the end: growing would
    // leave copies of a secret behind.
    let room = usize::try_from(length.min(most)).unwrap_or(limit).saturating_add(64);
    let mut octets = Zeroizing::new(Vec::with_capacity(room));
    let read = file.take(most).read_to_end(&mut octets)?;
    Ok((read <= limit).then(|| core::mem::take(&mut *octets)))
}

/// Nobody but its owner may touch the file, and that is root or we ourselves. The question is
/// put to the open file, so that another cannot take its place after the answer.
fn check_mode(file: &File, name: &str) -> Result<(), Fault> {
    let metadata = file.metadata().map_err(|error| unreadable(name, &error))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Fault::new(format!(
            "{name:?} has mode {mode:04o}: others can read or write it"
        ))
        .hint("chmod 600, and make a new key if others could read this one"));
    }
    let (owner, us) = (metadata.uid(), Uid::effective().as_raw());
    if owner != 0 && owner != us {
        return Err(Fault::expected(
            format!("{name:?} belongs to the user {owner}"),
            format_args!("root or the user of the gateway, {us}"),
        ));
    }
    Ok(())
}

fn unreadable(name: &str, error: &io::Error) -> Fault {
    Fault::new(format!("cannot read {name:?}: {error}"))
}

fn badly_encoded(name: &str, prefix: &str, expected: &str) -> Fault {
    Fault::expected(
        format!("the key in {name:?} begins with {prefix}"),
        format_args!("{expected} after it"),
    )
}

/// Octets from Base64 with the standard alphabet; padding may be left out, stray bits may not
/// be set.
fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    let end =
        digits.iter().rposition(|digit| *digit != b'=').map_or(0, |last| last.saturating_add(1));
    let (digits, padding) = digits.split_at_checked(end)?;
    let left_over = digits.len() % 4;
    let whole = (4_usize.saturating_sub(left_over)) % 4;
    if left_over == 1 || !(padding.is_empty() || padding.len() == whole) {
        return None;
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(digits.len()));
    for group in digits.chunks(4) {
        let mut bits = Zeroizing::new(0_u32);
        for position in 0..4 {
            let value = group.get(position).map_or(Some(0), |digit| base64_digit(*digit))?;
            *bits = (*bits << 6) | value;
        }
        let three = Zeroizing::new(bits.to_be_bytes());
        let (used, stray) = three.get(1..)?.split_at_checked(group.len().saturating_sub(1))?;
        if stray.iter().any(|octet| *octet != 0) {
            return None;
        }
        octets.extend_from_slice(used);
    }
    Some(core::mem::take(&mut *octets))
}

fn base64_digit(digit: u8) -> Option<u32> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    ALPHABET.iter().position(|known| *known == digit).and_then(|value| u32::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// The key of a file with this content and mode.
    #[expect(clippy::unwrap_in_result, reason = "the result is what is tested")]
    fn key(content: &[u8], mode: u32) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.psk");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        read_psk(&path, "x.psk")
            .map(|(secret, _)| secret.expose().to_vec())
            .map_err(|fault| fault.message)
    }

    #[test]
    fn one_line_end_does_not_belong_to_the_key() {
        for content in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            assert_eq!(key(content.as_bytes(), 0o600).unwrap(), b"correct horse");
        }
        assert_eq!(key(b" a \n\n", 0o400).unwrap(), b" a \n");
    }

    /// RFC 7296 2.15 wants 64 octets at least, and no terminator.
    #[test]
    fn a_long_key_is_taken_whole() {
        let printable: Vec<u8> = (b' '..=b'~').collect();
        for length in [64, 95, 1000] {
            let long: Vec<u8> = printable.iter().copied().cycle().take(length).collect();
            assert_eq!(key(&long, 0o600).unwrap(), long);
        }
    }

    #[test]
    fn a_key_may_be_hexadecimal_or_base64() {
        assert_eq!(key(b"0x00fFa0\n", 0o600).unwrap(), [0, 0xff, 0xa0]);
        assert_eq!(key(b"0sAP+g\n", 0o600).unwrap(), [0, 0xff, 0xa0]);
        for (text, octets) in
            [("Zg==", "f"), ("Zg", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")]
        {
            assert_eq!(base64(text.as_bytes()).unwrap(), octets.as_bytes(), "{text}");
        }
        for text in [
            "Z", "Zg=", "Zg===", "Zm8==", "Zm9v=", "Zm9vY", "Zh==", "Zm9=", "Z m9", "Zm-_", "=",
            "====",
        ] {
            assert_eq!(base64(text.as_bytes()), None, "{text}");
        }
        assert!(key(b"0sZ", 0o600).unwrap_err().contains("begins with 0s"));
    }

    #[test]
    fn what_is_said_to_be_hexadecimal_and_is_not_is_refused() {
        for content in ["0x123", "0x0g", "0x 00", "0x00 ", "0x0x00", "0x+1", "0x00\n00", "0xé0"] {
            let refused = key(content.as_bytes(), 0o600).unwrap_err();
            assert!(refused.contains("begins with 0x"), "{content}: {refused}");
        }
        // What does not begin so is taken as it stands, digits or not.
        for content in ["00fFa0", "x00", "0X00", " 0x00"] {
            assert_eq!(key(content.as_bytes(), 0o600).unwrap(), content.as_bytes());
        }
    }

    #[test]
    fn a_key_of_nothing_is_refused() {
        for content in ["", "\n", "\r\n", "0x", "0s\n"] {
            assert_eq!(key(content.as_bytes(), 0o600).unwrap_err(), "\"x.psk\" is empty");
        }
    }

    #[test]
    fn a_file_that_others_can_touch_is_refused_and_its_mode_named() {
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601, 0o660] {
            let message = key(b"secret", mode).unwrap_err();
            assert_eq!(
                message,
                format!("\"x.psk\" has mode {mode:04o}: others can read or write it")
            );
        }
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        assert!(key(&[b'x'; SECRET_LIMIT], 0o600).is_ok());
        assert_eq!(key(&[b'x'; SECRET_LIMIT + 1], 0o600).unwrap_err(), "\"x.psk\" is too long");
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| read_psk(path, "p").unwrap_err().message;
        assert_eq!(message(dir.path()), "cannot read \"p\": it is a directory");
        assert_eq!(message(Path::new("/dev/zero")), "cannot read \"p\": it is not a regular file");
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(message(&pipe), "cannot read \"p\": it is not a regular file");
    }

    #[test]
    fn a_symbolic_link_counts_as_the_file_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("x"), dir.path().join("link"));
        fs::write(&path, "0123456789abcdef").unwrap();
        symlink(&path, &link).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_psk(&link, "link").is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (secret, warning) = read_psk(&link, "link").unwrap();
        assert_eq!((secret.expose(), warning), (b"0123456789abcdef".as_slice(), None));
    }

    #[test]
    fn a_short_key_is_read_with_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "12345").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (_, warning) = read_psk(&path, "x").unwrap();
        assert_eq!(warning.unwrap().message, "the key in \"x\" has 5 octets and can be guessed");
    }
}
