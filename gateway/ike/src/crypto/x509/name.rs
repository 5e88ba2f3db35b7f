//! Distinguished names (RFC 5280 4.1.2.4): as text in policy files, as DER in certificates and in
//! ID payloads.

use core::fmt;
use core::str::FromStr;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{
    Any, Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef,
};
use x509_cert::der::{Decode as _, Encode as _, Tag, Tagged as _};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// A distinguished name.
///
/// Its text has the order of the certificate, as `openssl x509 -noout -subject` prints it:
/// `C=DE, O=Example, CN=gw-a`. Special characters are escaped as in RFC 4514 2.4.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DistinguishedName {
    der: Vec<u8>,
    text: String,
}

/// The text is no distinguished name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It does not have the form `TYPE=VALUE, TYPE=VALUE`.
    #[error("expected TYPE=VALUE, TYPE=VALUE with types such as C, O, OU and CN")]
    Form,
    /// The octets are no distinguished name.
    #[error("the octets are no distinguished name")]
    Der,
}

impl DistinguishedName {
    /// Reads the DER of a name.
    ///
    /// # Errors
    /// It does not decode.
    pub fn from_der(der: &[u8]) -> Result<Self, NameError> {
        let name = RdnSequence::from_der(der).map_err(|_der| NameError::Der)?;
        Ok(Self { der: der.to_vec(), text: text(&name) })
    }

    /// Its DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether it has no parts.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether the DER is that of the same name. Text is compared without regard to case and to
    /// the kind of string that holds it, since who writes a name into a policy file cannot know
    /// which kind the certification authority has chosen (RFC 5280 7.1).
    #[must_use]
    pub fn is(&self, der: &[u8]) -> bool {
        let ours = NormalName::from_der(&self.der);
        self.der == der || ours.is_some() && ours == NormalName::from_der(der)
    }
}

/// A name with everything taken away that makes no difference to [`DistinguishedName::is`].
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NormalName(Vec<Vec<(ObjectIdentifier, Value)>>);

impl NormalName {
    /// That of the DER of a name, if it is one.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        RdnSequence::from_der(der).ok().map(|name| Self(normal(&name)))
    }
}

impl FromStr for DistinguishedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut name = RdnSequence::default();
        for part in split(text, ',') {
            // One part may have several attributes.
            let attributes: Result<Vec<_>, _> =
                split(&part, '+').iter().map(|one| attribute(one)).collect();
            let part: RelativeDistinguishedName =
                attributes?.join("+").parse().map_err(|_form| NameError::Form)?;
            name.push(part);
        }
        let der = name.to_der().map_err(|_form| NameError::Form)?;
        // What was written may not fit the kind of string that its type demands.
        if normal(&name).iter().flatten().any(|(_, value)| matches!(value, Value::Der(_))) {
            return Err(NameError::Form);
        }
        Self::from_der(&der)
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An attribute without the spaces that may stand around its type and its value.
fn attribute(text: &str) -> Result<String, NameError> {
    let (kind, value) = text.split_once('=').ok_or(NameError::Form)?;
    let (kind, value) = (kind.trim(), trim(value));
    if kind.is_empty() || value.is_empty() {
        return Err(NameError::Form);
    }
    Ok(format!("{kind}={value}"))
}

/// The parts between marks that no backslash stands before.
fn split(text: &str, mark: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == mark && !escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

/// Without the spaces around it, but with an escaped one at the end.
fn trim(value: &str) -> &str {
    let trimmed = value.trim_start().trim_end();
    if trimmed.ends_with('\\') && !trimmed.ends_with("\\\\") { value.trim_start() } else { trimmed }
}

fn text(name: &RdnSequence) -> String {
    name.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The value of an attribute for comparison.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Text(String),
    Der(Vec<u8>),
}

/// The name with everything taken away that makes no difference.
fn normal(name: &RdnSequence) -> Vec<Vec<(ObjectIdentifier, Value)>> {
    let attribute = |a: &AttributeTypeAndValue| {
        let value = plain(&a.value).map_or_else(
            || Value::Der(a.value.to_der().unwrap_or_default()),
            |text| {
                let words: Vec<_> = text.split_whitespace().collect();
                Value::Text(words.join(" ").to_lowercase())
            },
        );
        (a.oid, value)
    };
    name.iter()
        .map(|part| {
            let mut attributes: Vec<_> = part.iter().map(attribute).collect();
            attributes.sort();
            attributes
        })
        .collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the many tags only these are of strings that can hold the same text"
)]
fn plain(value: &Any) -> Option<&str> {
    match value.tag() {
        Tag::PrintableString => PrintableStringRef::try_from(value).ok().map(|s| s.as_str()),
        Tag::Utf8String => Utf8StringRef::try_from(value).ok().map(|s| s.as_str()),
        Tag::Ia5String => Ia5StringRef::try_from(value).ok().map(|s| s.as_str()),
        Tag::TeletexString => TeletexStringRef::try_from(value).ok().map(|s| s.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    fn name(text: &str) -> DistinguishedName {
        text.parse().unwrap()
    }

    #[test]
    fn the_text_has_the_order_of_the_certificate() {
        // As OpenSSL encodes C=DE, O=Example, CN=gw-a.
        let der = hex("302e310b3009060355040613024445
                       3110300e060355040a0c074578616d706c65
                       310d300b06035504030c0467772d61");
        let read = DistinguishedName::from_der(&der).unwrap();
        assert_eq!(read.to_string(), "C=DE, O=Example, CN=gw-a");
        assert_eq!(name("C=DE, O=Example, CN=gw-a").der(), der);
        assert!(name("C = de,O = example , CN=GW-A").is(&der));
        assert!(!name("CN=gw-a, O=Example, C=DE").is(&der), "another order is another name");
        assert!(!name("C=DE, O=Example").is(&der));
        assert!(!name("C=DE, O=Example, CN=gw-a, CN=gw-a").is(&der));
    }

    #[test]
    fn the_kind_of_string_makes_no_difference() {
        // CN=gw-a as PrintableString, as UTF8String, as IA5String
        for der in [
            "300f310d300b0603550403130467772d61",
            "300f310d300b06035504030c0467772d61",
            "300f310d300b0603550403160467772d61",
        ] {
            assert!(name("CN=gw-a").is(&hex(der)), "{der}");
            assert!(!name("CN=gw-b").is(&hex(der)));
            assert!(!name("OU=gw-a").is(&hex(der)));
        }
    }

    #[test]
    fn special_characters_are_escaped() {
        let written = name("O=A\\, B \\+ C, CN=x");
        assert_eq!(written.to_string(), "O=A\\, B \\+ C, CN=x");
        assert_eq!(name(&written.to_string()), written);
        assert_eq!(name("CN=a\\ ").to_string(), "CN=a\\ ");
        assert_eq!(name("emailAddress=me@example.org").to_string().split('=').count(), 2);
    }

    #[test]
    fn every_name_is_what_it_prints() {
        for text in ["CN=x", "C=DE, ST=B, L=M, O=E, OU=U + CN=x", "DC=org, DC=example, UID=1"] {
            let first = name(text);
            assert_eq!(name(&first.to_string()), first, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "CN", "CN=", "=x", "CN=x,", ",CN=x", "purple=x", "C=Ü", "CN=#zz", "CN=\\z"]
        {
            assert!(text.parse::<DistinguishedName>().is_err(), "{text}");
        }
        for der in ["", "00", "3003020101", "300f310d300b06035504030c0467772d6100"] {
            assert!(DistinguishedName::from_der(&hex(der)).is_err(), "{der}");
            assert!(!name("CN=x").is(&hex(der)), "{der}");
        }
    }
}
