//! EAP in `[peer.NAME]`, and `[user.NAME]`: who may authenticate by EAP.

use gateway_ike::config::{
    EapAuthenticatorConfig, EapMethod, EapPeerConfig, EapTls, Identity, Secret, User, UserName,
};

use super::document::Section;
use super::error::{Fault, PolicyError};
use super::{keys, secret, value};

/// The most users: more belong into a database.
pub(super) const USERS_LIMIT: usize = 10_000;
/// The longest name of a user (RFC 7542 2.2).
const NAME_LIMIT: usize = 253;
/// The keys that have a meaning only with EAP on one side.
const EAP_ONLY: &[&str] = &["eap-methods"];
/// The keys that have a meaning only where EAP authenticates us.
const OURS_ONLY: &[&str] = &["eap-identity", "eap-password-file"];
/// The keys that have a meaning only where EAP authenticates the peer.
const THEIRS_ONLY: &[&str] = &["eap-remote-identity"];

/// The EAP methods, where we or the peer authenticate by EAP. Keys that mean nothing then, and
/// methods that are too weak, are reported.
pub(super) fn methods(
    section: &mut Section<'_>,
    ours: bool,
    theirs: bool,
    warnings: &mut Vec<PolicyError>,
) -> Vec<EapMethod> {
    if !ours {
        section.forbid(OURS_ONLY, "has no meaning unless `auth` is \"eap\"");
    }
    if !theirs {
        section.forbid(THEIRS_ONLY, "has no meaning unless `remote-auth` is \"eap\"");
    }
    if !ours && !theirs {
        section.forbid(EAP_ONLY, "has no meaning unless `auth` or `remote-auth` is \"eap\"");
        return Vec::new();
    }
    section.missing("eap-methods", ": EAP needs at least one");
    let methods = section.list("eap-methods", method).unwrap_or_default();
    if ours && theirs {
        check_alone(section, &methods);
    }
    if methods.contains(&EapMethod::Md5) {
        // RFC 7296 2.16: such a method SHOULD NOT be used.
        let fault = Fault::new("md5 makes no key, so nothing ties the user to this IKE SA");
        let hint = "name mschapv2 or tls instead, unless the other end has neither";
        warnings.push(section.error("eap-methods", fault.hint(hint)));
    }
    methods
}

/// Who we are in IKE if only our name for EAP is known: a NAI with a realm is an ID_RFC822_ADDR, one
/// without an ID_KEY_ID (RFC 7296 3.5).
pub(super) fn own_identity(section: &Section<'_>) -> Option<Identity> {
    if section.text("auth") != Some("eap") {
        return None;
    }
    let name = section.text("eap-identity").and_then(|name| user_name(name).ok())?;
    let has_realm = name.rsplit_once('@').is_some_and(|(_, realm)| !realm.is_empty());
    Some(if has_realm { Identity::Email(name) } else { Identity::KeyId(name.into_bytes()) })
}

/// How we authenticate by EAP.
pub(super) fn ours(
    section: &mut Section<'_>,
    methods: Vec<EapMethod>,
    tls: Option<EapTls>,
    (local_id, remote_id): (Option<&Identity>, Option<&Identity>),
    warnings: &mut Vec<PolicyError>,
) -> Option<EapPeerConfig> {
    let identity = section.optional("eap-identity", user_name);
    let password = read_password(section, "eap-password-file", warnings);
    if needs_password(&methods) {
        section.missing("eap-password-file", ": a method in `eap-methods` needs a password");
    }
    let identity = identity.or_else(|| local_id.map(Identity::to_string))?;
    Some(EapPeerConfig { identity, methods, password, tls, authenticator: remote_id?.clone() })
}

/// How the peer does.
pub(super) fn theirs(
    section: &mut Section<'_>,
    methods: Vec<EapMethod>,
    tls: Option<EapTls>,
) -> EapAuthenticatorConfig {
    let ask = section.optional("eap-remote-identity", |text| {
        value::word(text, &[("ike", false), ("ask", true)])
    });
    EapAuthenticatorConfig {
        methods,
        tls,
        ask_identity: ask.unwrap_or(false),
        any_ike_identity: !section.has("remote-id"),
    }
}

/// RFC 5998 4: not every method is strong enough to be all the authentication there is.
fn check_alone(section: &mut Section<'_>, methods: &[EapMethod]) {
    if let Some(weak) = methods.iter().find(|method| !method.may_stand_alone()) {
        let message = format!("with EAP on both sides {weak} would be the only authentication");
        section.fault(
            "eap-methods",
            Fault::new(message).hint("give the gateway that answers another method"),
        );
    }
}

pub(super) fn needs_password(methods: &[EapMethod]) -> bool {
    methods.iter().any(|method| match method {
        EapMethod::MsChapV2 | EapMethod::Md5 => true,
        EapMethod::Tls => false,
    })
}

fn method(text: &str) -> Result<EapMethod, Fault> {
    let words: Vec<_> =
        keys::EAP_METHODS.iter().copied().zip(EapMethod::ALL.iter().copied()).collect();
    value::word(text, &words)
}

/// The name of a user: text that fits into one message.
pub(super) fn user_name(text: &str) -> Result<String, Fault> {
    let good = (1..=NAME_LIMIT).contains(&text.len()) && !text.chars().any(char::is_control);
    if good {
        return Ok(text.to_owned());
    }
    Err(Fault::expected(
        format!("{text:?} is not the name of a user"),
        format_args!("1 to {NAME_LIMIT} octets without control characters"),
    ))
}

/// Reads `[user.NAME]`; `None` if anything was wrong.
pub(super) fn read_user(
    section: &mut Section<'_>,
    name: &str,
    warnings: &mut Vec<PolicyError>,
) -> Option<User> {
    if let Err(fault) = user_name(name) {
        section.whole_fault(fault);
    }
    section.missing("password-file", "");
    let password = read_password(section, "password-file", warnings);
    (!section.failed()).then_some(User { name: UserName::from(name), password: password? })
}

fn read_password(
    section: &mut Section<'_>,
    key: &str,
    warnings: &mut Vec<PolicyError>,
) -> Option<Secret> {
    let directory = section.directory();
    let (password, warning) = section.optional(key, |name| {
        if name.is_empty() || name.contains('\0') {
            return Err(Fault::expected(format!("{name:?} is not a path"), "the path of a file"));
        }
        secret::read_password(&directory.join(name), name)
    })?;
    if let Some(fault) = warning {
        warnings.push(section.error(key, fault));
    }
    Some(password)
}
