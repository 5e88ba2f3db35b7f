//! Proposals as keywords joined by dashes, such as `aes256gcm16-prfsha256-x25519`.

use core::str::FromStr as _;

use gateway_ike::algorithms::{Encryption, EspProposal, Group, IkeProposal, Integrity, Prf};

use super::error::{Fault, nearest};
use super::keys::{ESP_PROPOSALS, IKE_PROPOSALS};

/// The IKE proposals of a peer that names none.
pub(super) fn default_ike() -> Vec<IkeProposal> {
    IKE_PROPOSALS.iter().filter_map(|text| ike(text).ok()).collect()
}

/// The ESP proposals of a rule that names none.
pub(super) fn default_esp() -> Vec<EspProposal> {
    ESP_PROPOSALS.iter().filter_map(|text| esp(text).ok()).collect()
}

/// An IKE proposal. Without a PRF it gets those of its integrity algorithms, as in strongSwan.
pub(super) fn ike(text: &str) -> Result<IkeProposal, Fault> {
    let Suite { encryption, integrity, mut prf, groups } = Suite::parse(text)?;
    if prf.is_empty() {
        prf = integrity.iter().map(|integrity| prf_of(*integrity)).collect();
    }
    if prf.is_empty() {
        return Err(lacks(text, "pseudo-random function", Prf::ALL.iter().map(|prf| prf.name())));
    }
    if groups.is_empty() {
        return Err(lacks(
            text,
            "key exchange method",
            Group::ALL.iter().map(|group| group.name()),
        ));
    }
    Ok(IkeProposal { encryption, integrity, prf, groups })
}

/// An ESP proposal: encryption, and integrity unless that is AEAD.
pub(super) fn esp(text: &str) -> Result<EspProposal, Fault> {
    let Suite { encryption, integrity, prf, groups } = Suite::parse(text)?;
    if let Some(prf) = prf.first() {
        return Err(Fault::new(format!(
            "{text:?} has the pseudo-random function {prf}, which ESP does not use"
        )));
    }
    if let Some(group) = groups.first() {
        return Err(Fault::new(format!(
            "{text:?} has the key exchange method {group}: the keys of the SA come from the IKE SA"
        )));
    }
    Ok(EspProposal { encryption, integrity })
}

const fn prf_of(integrity: Integrity) -> Prf {
    match integrity {
        Integrity::HmacSha256 => Prf::HmacSha256,
        Integrity::HmacSha384 => Prf::HmacSha384,
        Integrity::HmacSha512 => Prf::HmacSha512,
    }
}

fn lacks(text: &str, what: &str, known: impl Iterator<Item = &'static str>) -> Fault {
    let known: Vec<_> = known.collect();
    Fault::new(format!("{text:?} has no {what}")).hint(format!("add one of {}", known.join(", ")))
}

/// The algorithms of a proposal by kind, in the order of the text.
#[derive(Debug, Default)]
struct Suite {
    encryption: Vec<Encryption>,
    integrity: Vec<Integrity>,
    prf: Vec<Prf>,
    groups: Vec<Group>,
}

impl Suite {
    fn parse(text: &str) -> Result<Self, Fault> {
        let mut suite = Self::default();
        for word in text.split('-') {
            let new = if let Ok(encryption) = Encryption::from_str(word) {
                add(&mut suite.encryption, encryption)
            } else if let Ok(integrity) = Integrity::from_str(word) {
                add(&mut suite.integrity, integrity)
            } else if let Ok(prf) = Prf::from_str(word) {
                add(&mut suite.prf, prf)
            } else if let Ok(group) = Group::from_str(word) {
                add(&mut suite.groups, group)
            } else {
                return Err(unknown(text, word));
            };
            if !new {
                return Err(Fault::new(format!("{text:?} has {word} twice")));
            }
        }
        suite.consistent(text)
    }

    /// Either all encryption is AEAD and there is no integrity algorithm, or none is and there
    /// is one (RFC 7296 3.3).
    fn consistent(self, text: &str) -> Result<Self, Fault> {
        let aead = self.encryption.iter().find(|encryption| encryption.is_aead());
        let plain = self.encryption.iter().find(|encryption| !encryption.is_aead());
        match (aead, plain, self.integrity.first()) {
            (None, None, _) => Err(lacks(text, "encryption algorithm", Encryption::ALL.iter().map(|encryption| encryption.name()))),
            (Some(aead), Some(plain), _) => Err(Fault::new(format!(
                "{text:?} mixes {aead}, which authenticates by itself, and {plain}, which does not"
            ))
            .hint("write two proposals")),
            (Some(aead), None, Some(integrity)) => Err(Fault::new(format!(
                "{text:?} has the integrity algorithm {integrity}, but {aead} authenticates by itself"
            ))
            .hint(format!("leave {integrity} out; prf{integrity} is the pseudo-random function of that hash"))),
            (None, Some(_), None) => Err(lacks(text, "integrity algorithm", Integrity::ALL.iter().map(|integrity| integrity.name()))),
            (Some(_), None, None) | (None, Some(_), Some(_)) => Ok(self),
        }
    }
}

/// Appends an algorithm unless it is there.
fn add<T: PartialEq>(list: &mut Vec<T>, algorithm: T) -> bool {
    let new = !list.contains(&algorithm);
    if new {
        list.push(algorithm);
    }
    new
}

fn unknown(text: &str, word: &str) -> Fault {
    let known: Vec<_> = (Encryption::ALL.iter().map(|algorithm| algorithm.name()))
        .chain(Integrity::ALL.iter().map(|algorithm| algorithm.name()))
        .chain(Prf::ALL.iter().map(|algorithm| algorithm.name()))
        .chain(Group::ALL.iter().map(|algorithm| algorithm.name()))
        .collect();
    let fault = Fault::new(format!("{text:?} has the unknown algorithm {word:?}"));
    match nearest(word, known.iter().copied()) {
        Some(name) => fault.hint(format!("did you mean {name}?")),
        None => fault.hint(format!("known are {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_all_valid_and_offer_every_algorithm() {
        let (ike, esp) = (default_ike(), default_esp());
        assert_eq!((ike.len(), esp.len()), (IKE_PROPOSALS.len(), ESP_PROPOSALS.len()));
        for encryption in Encryption::ALL {
            assert!(ike.iter().any(|proposal| proposal.encryption.contains(encryption)));
            assert!(esp.iter().any(|proposal| proposal.encryption.contains(encryption)));
        }
        for group in Group::ALL {
            assert!(ike.iter().all(|proposal| proposal.groups.contains(group)));
        }
    }

    #[test]
    fn the_order_of_the_text_is_the_order_of_preference() {
        let proposal = ike("aes128-aes256-sha512-sha256-ecp384-x25519").unwrap();
        assert_eq!(proposal.encryption, [Encryption::Aes128Cbc, Encryption::Aes256Cbc]);
        assert_eq!(proposal.integrity, [Integrity::HmacSha512, Integrity::HmacSha256]);
        assert_eq!(proposal.prf, [Prf::HmacSha512, Prf::HmacSha256], "from integrity");
        assert_eq!(proposal.groups, [Group::EcpP384, Group::X25519]);
    }

    #[test]
    fn proposals_that_cannot_work_are_refused_with_a_way_out() {
        for (text, parts) in [
            (
                "aes256gcm16-sha256-prfsha256-x25519",
                ["authenticates by itself", "leave sha256 out"],
            ),
            (
                "aes256gcm16-aes128-sha256-prfsha256-x25519",
                ["mixes aes256gcm16", "write two proposals"],
            ),
            ("aes256-prfsha256-x25519", ["no integrity algorithm", "add one of sha256"]),
            ("aes256gcm16-x25519", ["no pseudo-random function", "add one of prfsha256"]),
            ("aes256gcm16-prfsha256", ["no key exchange method", "add one of x25519"]),
            ("prfsha256-x25519", ["no encryption algorithm", "add one of aes128gcm16"]),
            (
                "aes256gcm-prfsha256-x25519",
                ["unknown algorithm \"aes256gcm\"", "did you mean aes256gcm16?"],
            ),
            ("", ["unknown algorithm \"\"", "known are aes128gcm16"]),
            ("blowfish-x25519", ["unknown algorithm \"blowfish\"", "known are"]),
            ("aes256gcm16-aes256gcm16-prfsha256-x25519", ["aes256gcm16 twice", ""]),
        ] {
            let Fault { message, hint } = ike(text).unwrap_err();
            let whole = format!("{message}: {}", hint.unwrap_or_default());
            assert!(parts.iter().all(|part| whole.contains(part)), "{whole}");
        }
    }

    #[test]
    fn esp_takes_neither_prf_nor_key_exchange() {
        assert!(esp("aes256gcm16").is_ok() && esp("aes128-sha256").is_ok());
        assert!(esp("aes256gcm16-prfsha256").is_err());
        assert!(esp("aes256gcm16-x25519").is_err());
        assert!(esp("aes128").is_err());
    }
}
