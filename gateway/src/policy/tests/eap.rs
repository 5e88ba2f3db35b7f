//! Who proves what beside EAP, and under which name.

use super::*;

#[test]
fn beside_eap_a_shared_key_proves_nobody() {
    let ours = "[peer.p]\naddress = \"192.0.2.2\"\nlocal-address = \"192.0.2.1\"\n\
                psk-file = \"good.psk\"\neap-methods = [\"mschapv2\"]\n";
    let expected = |place: &str, field: &str, who: &str, ours: &str| {
        format!(
            "x.toml:{place}: peer.p.{field}: beside EAP a shared key does not prove who {who}: \
             every user has it: expected `{ours} = \"certificate\"` or `\"public-key\"`, or with \
             `eap-methods = [\"tls\"]` `\"eap\"` at both ends\n"
        )
    };
    assert_eq!(
        errors(&format!("{ours}remote-auth = \"eap\"\n")),
        expected("6:15", "remote-auth", "we are", "auth")
    );
    assert_eq!(
        errors(&format!("{ours}remote-auth = \"eap\"\nauth = \"psk\"\n")),
        expected("7:8", "auth", "we are", "auth")
    );
    let client = "auth = \"eap\"\nremote-auth = \"psk\"\neap-password-file = \"good.psk\"\n";
    assert_eq!(
        errors(&format!("{ours}{client}")),
        expected("7:15", "remote-auth", "the peer is", "remote-auth")
    );
    // By a key of its own, with a certificate or without.
    for auth in [
        "auth = \"public-key\"\nprivate-key = \"berlin.key\"\n",
        "auth = \"certificate\"\ncertificate = \"berlin.pem\"\nprivate-key = \"berlin.key\"\n",
    ] {
        let ours = ours.replace("psk-file = \"good.psk\"\n", auth);
        let _loaded = loaded(&format!("{ours}remote-auth = \"eap\"\n"));
    }
}

/// A client by EAP with these keys.
fn client(keys: &str) -> String {
    format!(
        "[peer.p]\naddress = \"192.0.2.2\"\nauth = \"eap\"\neap-password-file = \"good.psk\"\n\
         remote-auth = \"public-key\"\nremote-public-key = \"p256.pub.pem\"\n{keys}\n"
    )
}

#[test]
fn a_method_of_eap_without_a_key_is_warned_of() {
    let warnings = |methods: &str| {
        let text = client(&format!("eap-identity = \"alice\"\neap-methods = [{methods}]"));
        let all = loaded(&text).warnings;
        all.iter()
            .map(ToString::to_string)
            .filter(|w| w.contains("eap-methods"))
            .collect::<Vec<_>>()
    };
    assert_eq!(warnings("\"mschapv2\""), [""; 0]);
    let found = warnings("\"mschapv2\", \"md5\"");
    let [warning] = found.as_slice() else { panic!("{found:?}") };
    assert!(
        warning.ends_with(
            "x.toml:8:15: peer.p.eap-methods: md5 makes no key, so nothing ties the user to this \
             IKE SA: name mschapv2 or tls instead, unless the other end has neither"
        ),
        "{warning}"
    );
}

#[test]
fn a_client_by_eap_is_by_default_who_its_name_says() {
    let identity = |keys: &str| {
        let loaded = loaded(&client(&format!("eap-methods = [\"mschapv2\"]\n{keys}")));
        let peer = loaded.policies.peers.values().next().unwrap();
        let LocalAuth::Eap(eap) = &peer.local_auth else { panic!("{:?}", peer.local_auth) };
        (peer.local_id.clone(), eap.identity.clone())
    };
    let alice = "alice".to_owned();
    let key_id = Identity::KeyId(b"alice".to_vec());
    assert_eq!(identity("eap-identity = \"alice\""), (key_id.clone(), alice.clone()));
    let with_address = "eap-identity = \"alice\"\nlocal-address = \"192.0.2.1\"";
    assert_eq!(identity(with_address), (key_id, alice.clone()));
    let address = "alice@example.org".to_owned();
    assert_eq!(
        identity("eap-identity = \"alice@example.org\""),
        (Identity::Email(address.clone()), address.clone())
    );
    // What is said counts, and nothing said is nobody.
    let said = "eap-identity = \"alice\"\nlocal-id = \"alice@example.org\"";
    assert_eq!(identity(said), (Identity::Email(address), alice));
    let nobody = errors(&client("eap-methods = [\"mschapv2\"]"));
    assert!(nobody.contains("`local-id` is missing"), "{nobody}");
}

#[test]
fn a_ppk_may_stand_beside_eap_at_either_end() {
    let ppk = "ppk-file = \"good.psk\"\nppk-id = \"k\"\nppk = \"optional\"\n";
    let loaded =
        loaded(&client(&format!("eap-methods = [\"mschapv2\"]\neap-identity = \"alice\"\n{ppk}")));
    let peer = loaded.policies.peers.values().next().unwrap();
    assert!(peer.ppk.as_ref().is_some_and(|ppk| ppk.id == b"k" && !ppk.required));
}
