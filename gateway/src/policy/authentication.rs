//! How a peer and we prove who we are: the keys `auth`, `remote-auth` and those that they need.

use std::path::Path;
use std::sync::Arc;

use gateway_ike::algorithms::SignatureScheme;
use gateway_ike::config::{EapMethod, EapTls, Identity, LocalAuth, RemoteAuth, Secret};
use gateway_ike::crypto::signature::{PublicKey, SigningKey};
use gateway_ike::crypto::x509::{
    Certificate, Credential, OcspResponse, Revocation, RevocationList, Trust, TrustAnchors,
    certificates_from_pem,
};

use super::document::Section;
use super::error::{Fault, PolicyError, nearest};
use super::{eap, secret, value};
use crate::clock;

/// The most octets in a file with certificates or keys.
const FILE_LIMIT: usize = 1 << 20;
/// The most octets in a file with revocation lists.
const LIST_LIMIT: usize = 16 << 20;
/// Our certificate is complained of this many seconds before it expires.
const EXPIRES_SOON: u64 = 14 * 86_400;

/// A method, as the words of [`super::keys::METHODS`] name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Psk,
    Certificate,
    PublicKey,
    Eap,
}

const METHODS: &[(&str, Method)] = &[
    ("psk", Method::Psk),
    ("certificate", Method::Certificate),
    ("public-key", Method::PublicKey),
    ("eap", Method::Eap),
];

/// What the keys of a peer say.
#[derive(Debug)]
pub(super) struct Authentication {
    pub(super) local: LocalAuth,
    pub(super) remote: RemoteAuth,
    pub(super) schemes: Vec<SignatureScheme>,
}

/// Reads the keys; `None` if anything was wrong. The identities are there to be compared with the
/// certificates.
pub(super) fn read(
    section: &mut Section<'_>,
    local_id: Option<&Identity>,
    remote_id: Option<&Identity>,
    warnings: &mut Vec<PolicyError>,
) -> Option<Authentication> {
    let method = |section: &mut Section<'_>, key, otherwise| {
        if !section.has(key) {
            return Some(otherwise);
        }
        section.optional(key, |text| value::word(text, METHODS))
    };
    let local = method(section, "auth", Method::Psk)?;
    let remote = method(section, "remote-auth", local)?;
    let either = |method| local == method || remote == method;
    check_gateway_of_users(section, local, remote);
    let methods = eap::methods(section, local == Method::Eap, remote == Method::Eap, warnings);
    let by_tls = methods.contains(&EapMethod::Tls);
    unneeded(section, local, remote, by_tls);
    let psk = either(Method::Psk).then(|| read_psk(section, warnings));
    let tls = if by_tls { eap_tls(section) } else { None };
    let own = match local {
        Method::Psk => psk.clone().flatten().map(LocalAuth::Psk),
        Method::Certificate => {
            let credential = match &tls {
                Some(tls) => Some(Arc::clone(&tls.credential)),
                None => credential(section).map(Arc::new),
            };
            if let Some(credential) = &credential {
                warnings.extend(judge(section, credential.certificate(), local_id));
            }
            credential.map(LocalAuth::Certificate)
        }
        Method::PublicKey => private_key(section).map(Arc::new).map(LocalAuth::PublicKey),
        Method::Eap => {
            let ids = (local_id, remote_id);
            let ours = eap::ours(section, methods.clone(), tls.clone(), ids, warnings);
            ours.map(Arc::new).map(LocalAuth::Eap)
        }
    };
    let theirs = match remote {
        Method::Psk => psk.flatten().map(RemoteAuth::Psk),
        Method::Certificate => {
            if matches!(remote_id, Some(Identity::KeyId(_))) {
                let message = "a certificate holds no key ID, so none could be the peer's";
                let expected = "an address, a domain name, user@host or a distinguished name";
                section.fault("remote-id", Fault::expected(message, expected));
            }
            match &tls {
                Some(tls) => Some(RemoteAuth::Certificate(Arc::clone(&tls.trust))),
                None => trust(section).map(Arc::new).map(RemoteAuth::Certificate),
            }
        }
        Method::PublicKey => {
            section.missing("remote-public-key", ": `remote-auth` is \"public-key\"");
            let key = file(section, "remote-public-key", FILE_LIMIT, |content, name| {
                PublicKey::from_pem(content).map_err(|error| fault(name, &error))
            });
            key.map(Arc::new).map(RemoteAuth::PublicKey)
        }
        Method::Eap => Some(RemoteAuth::Eap(Arc::new(eap::theirs(section, methods, tls)))),
    };
    let schemes = section.list("signature-schemes", scheme);
    Some(Authentication {
        local: own?,
        remote: theirs?,
        schemes: schemes.unwrap_or_else(|| SignatureScheme::ALL.to_vec()),
    })
}

/// RFC 7296 2.16: beside EAP the responder proves itself by a public key. A key that it shared with
/// its users would let each of them take its place, and gather what the others answer.
fn check_gateway_of_users(section: &mut Section<'_>, local: Method, remote: Method) {
    let (ours, key, who) = match (local, remote) {
        (Method::Psk, Method::Eap) if section.has("auth") => ("auth", "auth", "we are"),
        (Method::Psk, Method::Eap) => ("auth", "remote-auth", "we are"),
        (Method::Eap, Method::Psk) => ("remote-auth", "remote-auth", "the peer is"),
        _ => return,
    };
    let message = format!("beside EAP a shared key does not prove who {who}: every user has it");
    let expected = format!(
        "`{ours} = \"certificate\"` or `\"public-key\"`, or with `eap-methods = [\"tls\"]` `\"eap\"` at both ends"
    );
    section.fault(key, Fault::expected(message, expected));
}

/// Reports the keys that mean nothing with these methods.
fn unneeded(section: &mut Section<'_>, local: Method, remote: Method, by_tls: bool) {
    let both = [local, remote];
    if !both.contains(&Method::Psk) {
        section.forbid(&["psk-file"], "neither `auth` nor `remote-auth` is \"psk\"");
    }
    if local != Method::Certificate && !by_tls {
        section.forbid(&["certificate"], "`auth` is not \"certificate\"");
    }
    if !matches!(local, Method::Certificate | Method::PublicKey) && !by_tls {
        section.forbid(&["private-key"], "`auth` signs with no key");
    }
    if remote != Method::Certificate && !by_tls {
        let keys = &["ca", "crl", "ocsp", "revocation"];
        section.forbid(keys, "`remote-auth` is not \"certificate\"");
    }
    if remote != Method::PublicKey {
        section.forbid(&["remote-public-key"], "`remote-auth` is not \"public-key\"");
    }
    if !both.iter().any(|method| matches!(method, Method::Certificate | Method::PublicKey)) {
        section.forbid(&["signature-schemes"], "neither end signs");
    }
}

fn read_psk(section: &mut Section<'_>, warnings: &mut Vec<PolicyError>) -> Option<Secret> {
    section.missing("psk-file", ": `auth` or `remote-auth` is \"psk\", as without them");
    read_key(section, "psk-file", warnings)
}

/// The key that is shared with the peer, in the file that `key` names.
pub(super) fn read_key(
    section: &mut Section<'_>,
    key: &str,
    warnings: &mut Vec<PolicyError>,
) -> Option<Secret> {
    let directory = section.directory();
    let (secret, warning) =
        section.optional(key, |name| secret::read_psk(&directory.join(path(name)?), name))?;
    if let Some(fault) = warning {
        warnings.push(section.error(key, fault));
    }
    Some(secret)
}

fn private_key(section: &mut Section<'_>) -> Option<SigningKey> {
    section.missing("private-key", ": `auth` signs with it");
    let directory = section.directory();
    section.optional("private-key", |name| {
        let text = secret::read_private(&directory.join(path(name)?), name)?;
        SigningKey::from_pem(&text).map_err(|error| fault(name, &error))
    })
}

fn credential(section: &mut Section<'_>) -> Option<Credential> {
    section.missing("certificate", ": `auth`, or EAP, shows it");
    let chain = file(section, "certificate", FILE_LIMIT, |content, name| {
        certificates_from_pem(content).map_err(|error| fault(name, &error))
    });
    let key = private_key(section);
    let credential = Credential::new(chain?, key?);
    credential.map_err(|error| section.fault("certificate", Fault::new(error.to_string()))).ok()
}

/// What is wrong with our own certificate though it can be used.
fn judge(
    section: &Section<'_>,
    certificate: &Certificate,
    local_id: Option<&Identity>,
) -> Vec<PolicyError> {
    let subject = certificate.subject();
    let mut warnings = Vec::new();
    let mut warn = |fault| warnings.push(section.error("certificate", fault));
    if let Some(id) = local_id.filter(|id| !certificate.holds(id)) {
        let held: Vec<_> = certificate.identities().map(|id| id.to_string()).collect();
        let message = format!("the certificate of {subject} does not hold our identity {id}");
        warn(Fault::new(message).hint(format!("set `local-id` to one of {}", held.join("; "))));
    }
    let (now, until) = (clock::unix_seconds(), certificate.not_after());
    if until.0 < now {
        warn(Fault::new(format!("the certificate of {subject} expired on {until}")));
    } else if until.0 < now.saturating_add(EXPIRES_SOON) {
        warn(Fault::new(format!("the certificate of {subject} expires on {until}")));
    } else if certificate.not_before().0 > now {
        let from = certificate.not_before();
        warn(Fault::new(format!("the certificate of {subject} is not valid before {from}")));
    }
    warnings
}

/// What EAP-TLS needs: it uses the keys of certificates, whoever authenticates by it.
fn eap_tls(section: &mut Section<'_>) -> Option<EapTls> {
    let (credential, trust) = (credential(section), trust(section));
    Some(EapTls { credential: Arc::new(credential?), trust: Arc::new(trust?) })
}

fn trust(section: &mut Section<'_>) -> Option<Trust> {
    section.missing("ca", ": `remote-auth`, or EAP, is by certificate");
    let anchors = files(section, "ca", FILE_LIMIT, |content, name| {
        let certificates = certificates_from_pem(content).map_err(|error| fault(name, &error))?;
        TrustAnchors::new(&certificates).map_err(|error| fault(name, &error))?;
        Ok(certificates)
    });
    let lists = files(section, "crl", LIST_LIMIT, |content, name| {
        RevocationList::from_file(content).map_err(|error| fault(name, &error))
    });
    let responses = files(section, "ocsp", LIST_LIMIT, |content, name| {
        OcspResponse::from_der(content).map_err(|error| fault(name, &error))
    });
    let revocation = section.optional("revocation", |text| {
        value::word(
            text,
            &[
                ("strict", Revocation::Strict),
                ("if-available", Revocation::IfAvailable),
                ("off", Revocation::Off),
            ],
        )
    });
    if revocation == Some(Revocation::Strict) && !section.has("ocsp") {
        section.missing(
            "crl",
            ": with `revocation = \"strict\"` nobody could be believed without it or `ocsp`",
        );
    }
    let anchors: Vec<_> = anchors?.into_iter().flatten().collect();
    Some(Trust {
        anchors: TrustAnchors::new(&anchors).ok()?,
        revocation: revocation.unwrap_or(Revocation::IfAvailable),
        lists: lists.unwrap_or_default().into_iter().flatten().collect(),
        responses: responses.unwrap_or_default(),
    })
}

fn scheme(text: &str) -> Result<SignatureScheme, Fault> {
    text.parse().map_err(|error| {
        let fault = Fault::new(format!("{error}"));
        match nearest(text, SignatureScheme::ALL.iter().map(|s| s.name())) {
            Some(name) => fault.hint(format!("did you mean \"{name}\"?")),
            None => fault,
        }
    })
}

/// What the file that a key names holds; the absence of the key is no fault here.
fn file<T>(
    section: &mut Section<'_>,
    key: &str,
    limit: usize,
    parse: impl Fn(&[u8], &str) -> Result<T, Fault>,
) -> Option<T> {
    let directory = section.directory();
    section.optional(key, |name| parse(&content(directory, name, limit)?, name))
}

/// What the files that a key names hold.
fn files<T: PartialEq>(
    section: &mut Section<'_>,
    key: &str,
    limit: usize,
    parse: impl Fn(&[u8], &str) -> Result<T, Fault>,
) -> Option<Vec<T>> {
    let directory = section.directory();
    section.list(key, |name| parse(&content(directory, name, limit)?, name))
}

fn content(directory: &Path, name: &str, limit: usize) -> Result<Vec<u8>, Fault> {
    secret::read_public(&directory.join(path(name)?), name, limit)
}

fn path(name: &str) -> Result<&str, Fault> {
    if name.is_empty() || name.contains('\0') {
        return Err(Fault::expected(format!("{name:?} is not a path"), "the path of a file"));
    }
    Ok(name)
}

fn fault(name: &str, error: &impl ToString) -> Fault {
    Fault::new(format!("{name:?}: {}", error.to_string()))
}
