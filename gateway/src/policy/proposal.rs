//! Proposals as keywords joined by dashes, such as `aes256gcm16-prfsha256-x25519`.

use core::str::FromStr as _;

use gateway_ike::algorithms::{
    AdditionalOffer, Encryption, EspProposal, Group, IkeProposal, Integrity, Prf, Round,
};

use super::error::{Fault, nearest};
use super::keys::{ESP_PROPOSALS, IKE_PROPOSALS};

/// Among the key exchange methods of an ESP proposal: none will do as well.
const NO_GROUP: &str = "none";

/// The IKE proposals of a peer that names none.
pub(super) fn default_ike() -> Vec<IkeProposal> {
    IKE_PROPOSALS.iter().filter_map(|text| ike(text).ok()).collect()
}

/// A proposal where `quantum-safe` demands another.
pub(super) fn not_quantum_safe(text: &str) -> Fault {
    Fault::new(format!("{text:?} is not quantum-safe, as `quantum-safe` demands"))
}

/// What to do about one with SHA-1.
pub(super) const WITHOUT_SHA1: &str = "name no sha1 in it, or leave it out";

/// What is said of proposals in which somebody has named SHA-1.
pub(super) fn sha1_warning() -> Fault {
    // RFC 8247 2.2 and 2.3, RFC 8221 6: MUST-, which is expected to become less.
    Fault::new("sha1 is for peers that have nothing else, and never quantum-safe")
        .hint("name sha256 instead, or before it, unless the other end has neither")
}

/// The ESP proposals of a rule that names none.
pub(super) fn default_esp() -> Vec<EspProposal> {
    ESP_PROPOSALS.iter().filter_map(|text| esp(text).ok()).collect()
}

/// An IKE proposal. Without a PRF it gets those of its integrity algorithms, as in strongSwan.
pub(super) fn ike(text: &str) -> Result<IkeProposal, Fault> {
    let Suite { encryption, integrity, mut prf, groups, additional, no_group } =
        Suite::parse(text)?;
    if no_group {
        let message = format!("{text:?} has {NO_GROUP}, but an IKE SA needs a key exchange");
        return Err(Fault::new(message).hint(format!("leave {NO_GROUP} out")));
    }
    if prf.is_empty() {
        prf = integrity.iter().map(|integrity| prf_of(*integrity)).collect();
    }
    if prf.is_empty() {
        let known = Prf::ALL.iter().filter(|prf| !prf.is_sha1()).map(|prf| prf.name());
        return Err(lacks(text, "pseudo-random function", known));
    }
    if groups.is_empty() {
        return Err(lacks(
            text,
            "key exchange method",
            Group::ALL.iter().map(|group| group.name()),
        ));
    }
    not_twice(text, &groups, &additional)?;
    Ok(IkeProposal { encryption, integrity, prf, groups, additional })
}

/// A method that stands alone in two places could never be chosen.
fn not_twice(text: &str, groups: &[Group], additional: &AdditionalOffer) -> Result<(), Fault> {
    if let [group] = groups
        && let Some(round) = additional.iter().find(|(_, methods)| ***methods == [Some(*group)])
    {
        let round = round.0;
        return Err(Fault::new(format!("{text:?} has {group} again as {round}_{group}"))
            .hint("a method that is used twice adds nothing (RFC 9370 2.2.1)"));
    }
    Ok(())
}

/// An ESP proposal: encryption, integrity unless that is AEAD, and perhaps methods of a key
/// exchange of the SA's own, with `none` among them where it is not needed, and of additional
/// ones.
pub(super) fn esp(text: &str) -> Result<EspProposal, Fault> {
    let Suite { encryption, integrity, prf, groups, additional, no_group } = Suite::parse(text)?;
    if let Some(prf) = prf.first() {
        return Err(Fault::new(format!(
            "{text:?} has the pseudo-random function {prf}, which ESP does not use"
        )));
    }
    if let (Some(round), []) = (additional.keys().next(), groups.as_slice()) {
        return Err(Fault::new(format!(
            "{text:?} has the additional key exchange {round}, but none that it is additional to"
        ))
        .hint("add one, such as x25519"));
    }
    not_twice(text, &groups, &additional)?;
    Ok(EspProposal { encryption, integrity, groups, additional, pfs_optional: no_group })
}

const fn prf_of(integrity: Integrity) -> Prf {
    match integrity {
        Integrity::HmacSha256 => Prf::HmacSha256,
        Integrity::HmacSha384 => Prf::HmacSha384,
        Integrity::HmacSha512 => Prf::HmacSha512,
        Integrity::HmacSha1 => Prf::HmacSha1,
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
    additional: AdditionalOffer,
    /// [`NO_GROUP`] stands among the methods.
    no_group: bool,
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
            } else if let Some((round, method)) = additional(text, word)? {
                add(suite.additional.entry(round).or_default(), method)
            } else if word == NO_GROUP {
                !core::mem::replace(&mut suite.no_group, true)
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
            (None, Some(_), None) => Err(lacks(text, "integrity algorithm", Integrity::ALL.iter().filter(|integrity| !integrity.is_sha1()).map(|integrity| integrity.name()))),
            (Some(_), None, None) | (None, Some(_), Some(_)) => Ok(self),
        }
    }
}

/// `ke1_mlkem768`, or `ke1_none` where the place may stay empty, as in strongSwan. `None`: the word
/// is of another kind.
fn additional(text: &str, word: &str) -> Result<Option<(Round, Option<Group>)>, Fault> {
    let Some((round, method)) = word.split_once('_') else { return Ok(None) };
    let Ok(round) = Round::from_str(round) else { return Ok(None) };
    if method == NONE {
        return Ok(Some((round, None)));
    }
    match Group::from_str(method) {
        Ok(group) => Ok(Some((round, Some(group)))),
        Err(error) => {
            let known = Group::ALL.iter().map(|group| group.name()).chain([NONE]);
            let fault = Fault::new(format!("{text:?} has the additional key exchange {word:?}"));
            Err(match nearest(method, known) {
                Some(name) => fault.hint(format!("did you mean {round}_{name}?")),
                None => fault.hint(format!("after {round}_ stands one of {}, {NONE}", error.known)),
            })
        }
    }
}

/// The word for no additional key exchange.
const NONE: &str = "none";

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
    fn the_defaults_are_all_valid_and_offer_every_algorithm_but_sha1() {
        let (ike, esp) = (default_ike(), default_esp());
        assert_eq!((ike.len(), esp.len()), (IKE_PROPOSALS.len(), ESP_PROPOSALS.len()));
        for encryption in Encryption::ALL {
            assert!(ike.iter().any(|proposal| proposal.encryption.contains(encryption)));
            assert!(esp.iter().any(|proposal| proposal.encryption.contains(encryption)));
        }
        for group in Group::ALL {
            let classic = |proposal: &IkeProposal| proposal.groups.contains(group);
            let hybrid = |proposal: &IkeProposal| {
                proposal.additional.values().any(|methods| methods.contains(&Some(*group)))
            };
            assert!(ike.iter().any(|p| classic(p) || hybrid(p)), "{group}");
        }
        for integrity in Integrity::ALL {
            let in_ike = ike.iter().any(|proposal| proposal.integrity.contains(integrity));
            let in_esp = esp.iter().any(|proposal| proposal.integrity.contains(integrity));
            assert_eq!([in_ike, in_esp], [!integrity.is_sha1(); 2], "{integrity}");
        }
        for prf in Prf::ALL {
            assert_eq!(ike.iter().any(|p| p.prf.contains(prf)), !prf.is_sha1(), "{prf}");
        }
    }

    #[test]
    fn sha1_is_written_as_in_strongswan_and_never_quantum_safe() {
        let proposal = ike("aes128-sha256-sha1-modp2048-ke1_mlkem768").unwrap();
        assert_eq!(proposal.integrity, [Integrity::HmacSha256, Integrity::HmacSha1]);
        assert_eq!(proposal.prf, [Prf::HmacSha256, Prf::HmacSha1], "from integrity");
        assert!(!proposal.is_quantum_safe());
        assert!(ike("aes128-sha256-modp2048-ke1_mlkem768").unwrap().is_quantum_safe());
        let beside_aead = ike("aes256gcm16-prfsha1-x25519-ke1_mlkem768").unwrap();
        assert!(beside_aead.has_sha1() && !beside_aead.is_quantum_safe());
        assert!(esp("aes128-sha1").unwrap().has_sha1());
        // Who lacks something is not led to it.
        for text in ["aes256-prfsha256-x25519", "aes256gcm16-x25519"] {
            let hint = ike(text).unwrap_err().hint.unwrap();
            assert!(hint.contains("sha512") && !hint.contains("sha1"), "{hint}");
        }
    }

    #[test]
    fn the_first_default_is_quantum_safe_and_the_others_are_for_peers_that_cannot_do_that() {
        let ike = default_ike();
        let [first, others @ ..] = ike.as_slice() else { panic!("no default") };
        assert_eq!(first.encryption.first(), Some(&Encryption::Aes256Gcm16));
        assert_eq!(first.groups.first(), Some(&Group::X25519));
        let methods = &first.additional[&Round::Ke1];
        assert_eq!(methods.first(), Some(&Some(Group::MlKem768)));
        assert!(methods.iter().flatten().all(|group| group.is_quantum_safe()));
        assert!(!methods.contains(&None), "or it would not have to be quantum-safe");
        assert!(!others.is_empty() && others.iter().all(|proposal| proposal.additional.is_empty()));
    }

    #[test]
    fn additional_key_exchanges_are_written_as_in_strongswan() {
        let proposal =
            ike("aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke1_none-ke3_ecp521").unwrap();
        assert_eq!(
            proposal.additional,
            AdditionalOffer::from([
                (Round::Ke1, vec![Some(Group::MlKem768), None]),
                (Round::Ke3, vec![Some(Group::EcpP521)]),
            ])
        );
        for (text, part) in [
            ("aes256gcm16-prfsha256-x25519-ke1_mlkem786", "did you mean ke1_mlkem768?"),
            ("aes256gcm16-prfsha256-x25519-ke1_kyber", "after ke1_ stands one of x25519, "),
            ("aes256gcm16-prfsha256-x25519-ke8_mlkem768", "unknown algorithm \"ke8_mlkem768\""),
            ("aes256gcm16-prfsha256-x25519-ke1_x25519", "has x25519 again as ke1_x25519"),
            ("aes256gcm16-prfsha256-x25519-ke1_none-ke1_none", "ke1_none twice"),
            ("aes256gcm16-prfsha256-ke1_mlkem768", "no key exchange method"),
        ] {
            let Fault { message, hint } = ike(text).unwrap_err();
            let whole = format!("{message}: {}", hint.unwrap_or_default());
            assert!(whole.contains(part), "{whole}");
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
    fn esp_takes_no_prf_but_a_key_exchange_of_its_own_if_it_is_to_have_one() {
        let groups = |text| esp(text).map(|proposal| (proposal.groups, proposal.pfs_optional));
        assert_eq!(groups("aes256gcm16").unwrap(), (vec![], false));
        assert_eq!(groups("aes128-sha256").unwrap(), (vec![], false));
        let both = vec![Group::X25519, Group::EcpP256];
        assert_eq!(groups("aes256gcm16-x25519-ecp256").unwrap(), (both.clone(), false));
        assert_eq!(groups("aes256gcm16-x25519-ecp256-none").unwrap(), (both, true));
        assert!(esp("aes256gcm16-prfsha256").is_err());
        assert!(esp("aes256gcm16-none-none").is_err());
        let hybrid = esp("aes256gcm16-x25519-ke1_mlkem768-ke1_none").unwrap();
        assert_eq!(
            hybrid.additional,
            AdditionalOffer::from([(Round::Ke1, vec![Some(Group::MlKem768), None])])
        );
        assert!(esp("aes256gcm16-ke1_mlkem768").is_err());
        assert!(esp("aes256gcm16-none-ke1_mlkem768").is_err());
        assert!(esp("aes256gcm16-x25519-ke1_x25519").is_err());
        assert!(esp("aes128").is_err());
        assert!(ike("aes256gcm16-prfsha256-x25519-none").is_err());
    }
}
