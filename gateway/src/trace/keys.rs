//! Keys of SAs in a file, as Wireshark takes them for ESP ("ESP SAs" in its preferences, the file
//! `esp_sa` of its profile).

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use crate::kernel::xfrm::{AlgorithmKey, SaId, SaKeys, Xfrm};

/// The file's name, by which Wireshark finds it.
const FILE: &str = "esp_sa";

/// A file of keys, to which those of new SAs are added.
pub(super) struct KeyFile {
    file: File,
    xfrm: Xfrm,
    written: BTreeSet<SaId>,
}

impl KeyFile {
    /// Makes the file in a directory, which is made too; only the owner may read them. One that is
    /// there is added to.
    pub(super) fn create(directory: &Path, if_id: u32) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(FILE);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file, xfrm: Xfrm::open(if_id)?, written: BTreeSet::new() })
    }

    /// Writes the keys of SAs that have come since.
    pub(super) fn add_new(&mut self) -> io::Result<()> {
        for sa in self.xfrm.keys().map_err(io::Error::other)? {
            let id = sa.id;
            if !self.written.contains(&id) {
                // An algorithm that Wireshark does not know would make it refuse the whole file.
                if let Some(line) = line(&sa) {
                    self.file.write_all(line.as_bytes())?;
                }
                self.written.insert(id);
            }
        }
        Ok(())
    }
}

/// An SA as a line of the file (`uat_esp_sa_records` in Wireshark's packet-ipsec.c): family,
/// source, destination, SPI, both algorithms with their keys, the kind of sequence numbers.
fn line(sa: &SaKeys) -> Option<Zeroizing<String>> {
    let family = if sa.source.is_ipv4() { "IPv4" } else { "IPv6" };
    let encryption = encryption(&sa.encryption)?;
    let (integrity, integrity_key) = match &sa.integrity {
        None => ("NULL", Zeroizing::new(String::new())),
        Some(algorithm) => (integrity(algorithm)?, hex(&algorithm.key)),
    };
    let key = hex(&sa.encryption.key);
    let SaId { destination, spi } = sa.id;
    let (source, key, integrity_key) = (sa.source, key.as_str(), integrity_key.as_str());
    Some(Zeroizing::new(format!(
        "\"{family}\",\"{source}\",\"{destination}\",\"0x{spi:08x}\",\"{encryption}\",\"{key}\",\
         \"{integrity}\",\"{integrity_key}\"\n"
    )))
}

fn encryption(algorithm: &AlgorithmKey) -> Option<&'static str> {
    match (algorithm.name.as_str(), algorithm.icv_bits) {
        ("rfc4106(gcm(aes))", 128) => Some("AES-GCM with 16 octet ICV [RFC4106]"),
        ("rfc7539esp(chacha20,poly1305)", 128) => Some("ChaCha20 with Poly1305 [RFC7634]"),
        ("cbc(aes)", 0) => Some("AES-CBC [RFC3602]"),
        _ => None,
    }
}

fn integrity(algorithm: &AlgorithmKey) -> Option<&'static str> {
    match (algorithm.name.as_str(), algorithm.icv_bits) {
        ("hmac(sha256)", 128) => Some("HMAC-SHA-256-128 [RFC4868]"),
        ("hmac(sha384)", 192) => Some("HMAC-SHA-384-192 [RFC4868]"),
        ("hmac(sha512)", 256) => Some("HMAC-SHA-512-256 [RFC4868]"),
        ("hmac(sha1)", 96) => Some("HMAC-SHA-1-96 [RFC2404]"),
        _ => None,
    }
}

fn hex(key: &[u8]) -> Zeroizing<String> {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    // With room for all of it, so that no copy of a part is left behind.
    let mut text =
        Zeroizing::new(String::with_capacity(key.len().saturating_mul(2).saturating_add(2)));
    text.push_str("0x");
    for octet in key {
        for digit in [octet >> 4, octet & 0x0f] {
            text.extend(DIGITS.get(usize::from(digit)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn algorithm(name: &str, octets: usize, icv_bits: u32) -> AlgorithmKey {
        AlgorithmKey { name: name.to_owned(), key: Zeroizing::new(vec![0xa5; octets]), icv_bits }
    }

    fn sa(encryption: AlgorithmKey, integrity: Option<AlgorithmKey>) -> SaKeys {
        let id = SaId { destination: "192.0.2.2".parse().unwrap(), spi: 0xc0_ffee };
        SaKeys { source: "192.0.2.1".parse().unwrap(), id, encryption, integrity }
    }

    #[test]
    fn a_line_is_as_wireshark_reads_it() {
        let gcm = sa(algorithm("rfc4106(gcm(aes))", 4, 128), None);
        assert_eq!(
            line(&gcm).unwrap().as_str(),
            "\"IPv4\",\"192.0.2.1\",\"192.0.2.2\",\"0x00c0ffee\",\
             \"AES-GCM with 16 octet ICV [RFC4106]\",\"0xa5a5a5a5\",\"NULL\",\"\"\n"
        );
        let integrity = algorithm("hmac(sha256)", 2, 128);
        let mut cbc = sa(algorithm("cbc(aes)", 3, 0), Some(integrity));
        cbc.source = "2001:db8::1".parse().unwrap();
        cbc.id.destination = "2001:db8::2".parse().unwrap();
        assert_eq!(
            line(&cbc).unwrap().as_str(),
            "\"IPv6\",\"2001:db8::1\",\"2001:db8::2\",\"0x00c0ffee\",\"AES-CBC [RFC3602]\",\
             \"0xa5a5a5\",\"HMAC-SHA-256-128 [RFC4868]\",\"0xa5a5\"\n"
        );
        cbc.integrity = Some(algorithm("hmac(sha1)", 2, 96));
        let ends = "\"HMAC-SHA-1-96 [RFC2404]\",\"0xa5a5\"\n";
        assert!(line(&cbc).unwrap().ends_with(ends));
        assert!(line(&sa(algorithm("cbc(camellia)", 3, 0), None)).is_none());
    }
}
