//! Directories of policy files: the examples, the invalid ones, and what neither shows.
//!
//! With `GATEWAY_BLESS=1` in the environment the texts that are compared with the code (the
//! expected messages, the tables of the manual, the schema) are written instead.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::string_slice,
    reason = "a panic is how a test fails"
)]

mod contradictions;
mod eap;
mod examples;
mod manual;
mod ranges;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use gateway_ike::config::{
    Action, Childless, Identity, LocalAuth, Mode, RemoteAuth, Secret, Start,
};
use tempfile::TempDir;

use gateway_ike::config::PeerConfig;

use super::*;

/// The directory `policies` of the repository.
fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn blessing() -> bool {
    std::env::var_os("GATEWAY_BLESS").is_some()
}

/// Asserts that the file has this text.
fn assert_file(path: &Path, text: &str) {
    if blessing() {
        fs::write(path, text).unwrap();
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, text, "{} differs; GATEWAY_BLESS=1 writes it", path.display());
}

fn secret(path: &Path, content: &str, mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The certificate of Berlin, its key and its authority.
fn certificates(dir: &Path) {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("ike/tests/keys");
    for name in ["berlin.pem", "example-ca.pem", "example-ca.crl", "p256.pub.pem"] {
        fs::copy(keys.join(name), dir.join(name)).unwrap();
    }
    let key = fs::read_to_string(keys.join("p256.pem")).unwrap();
    secret(&dir.join("berlin.key"), &key, 0o600);
    secret(&dir.join("open.key"), &key, 0o644);
}

/// A directory with these files and with secrets of every kind.
fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    secret(&dir.path().join("good.psk"), "correct horse battery staple\n", 0o600);
    secret(&dir.path().join("open.psk"), "correct horse battery staple\n", 0o644);
    secret(&dir.path().join("empty.psk"), "\n", 0o600);
    certificates(dir.path());
    secret(&dir.path().join("binary.psk"), "\u{7f}\n".repeat(300).as_str(), 0o600);
    dir
}

/// The errors of a directory, one a line, without the path of the directory.
fn errors_of(dir: &Path) -> String {
    let prefix = format!("{}/", dir.display());
    let errors = load(dir).expect_err("it is wrong");
    errors.iter().map(|error| format!("{error}\n").replace(&prefix, "")).collect()
}

fn errors(text: &str) -> String {
    errors_of(directory(&[("x.toml", text.as_bytes())]).path())
}

fn loaded(text: &str) -> Loaded {
    load(directory(&[("x.toml", text.as_bytes())]).path()).unwrap()
}

/// The files of a directory that end so, by name.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.to_str().unwrap().ends_with(end)).collect();
    paths.sort();
    paths
}

const PEER: &str = r#"
[peer.p]
address = "192.0.2.2"
local-address = "192.0.2.1"
psk-file = "good.psk"
"#;

#[test]
fn the_keys_about_fragments_and_keepalives_say_what_they_set() {
    let endpoint = |keys: &str| loaded(&format!("[gateway]\n{keys}\n")).settings.endpoint;
    let set = endpoint("fragment-size = 576\nreassembly-limit = 9999");
    assert_eq!((set.fragment_size, set.reassembly_limit), (576, 9999));
    assert_eq!(endpoint("fragment-size = 0").fragment_size, 0);
    assert_eq!(endpoint("").fragment_size, 1280);
    assert_eq!(endpoint("keepalive-interval = \"7s\"").keepalive_interval.as_secs(), 7);
    assert_eq!(endpoint("").keepalive_interval.as_secs(), 20);
}

#[test]
fn ocsp_responses_are_read_and_are_enough_for_the_strict_policy() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("ike/tests/ocsp");
    let file = |name: &str| fs::read(keys.join(name)).unwrap();
    let text = "[peer.p]\naddress = \"192.0.2.2\"\nlocal-id = \"a.test\"\nremote-id = \"leaf.test\"\n\
                auth = \"psk\"\npsk-file = \"good.psk\"\nremote-auth = \"certificate\"\n\
                ca = [\"ca.pem\"]\nocsp = [\"leaf.der\", \"sub.der\"]\nrevocation = \"strict\"\n";
    let (ca, leaf, sub) = (file("ca.pem"), file("good.der"), file("sub-good.der"));
    let all: &[(&str, &[u8])] =
        &[("x.toml", text.as_bytes()), ("ca.pem", &ca), ("leaf.der", &leaf), ("sub.der", &sub)];
    let loaded = load(directory(all).path()).unwrap();
    let RemoteAuth::Certificate(trust) = &loaded.policies.peers["p"].remote_auth else {
        panic!("by certificate")
    };
    assert_eq!((trust.lists.len(), trust.responses.len()), (0, 2));
}

#[test]
fn a_rule_for_what_is_assigned_selects_everything_of_ours_and_is_always_up() {
    let policies = loaded(
        "[peer.p]\naddress = \"192.0.2.9\"\nlocal-id = \"a.test\"\npsk-file = \"good.psk\"\n\
         request-address = [\"ipv6\", \"ipv4\"]\n\
         [rule.r]\naction = \"protect\"\npeer = \"p\"\nlocal = [\"assigned\"]\n\
         remote = [\"10.2.0.0/16\", \"fd00:2::/64\", \"10.3.0.0/16\"]\n\
         [rule.s]\naction = \"protect\"\npeer = \"p\"\nlocal = [\"assigned\"]\n\
         remote = [\"fd00:3::/64\"]\nstart = \"on-demand\"\n",
    )
    .policies;
    let asked = policies.peers["p"].request_address;
    assert!(asked.v4 && asked.v6);
    let local = |name: &str| {
        let rule = &policies.rules[name];
        assert!(rule.assigned);
        rule.local.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(local("r"), ["0.0.0.0/0", "::/0"]);
    assert_eq!(local("s"), ["::/0"]);
    let start = |name: &str| match &policies.rules[name].action {
        Action::Protect(protect) => protect.start,
        Action::Bypass | Action::Discard => panic!("{name} does not protect"),
    };
    assert_eq!((start("r"), start("s")), (Start::Always, Start::OnDemand));
}

#[test]
fn a_peer_gets_its_pool_from_any_file() {
    let peer = "[peer.p]\naddress = \"any\"\nlocal-id = \"a.test\"\nremote-id = \"p.test\"\npsk-file = \"good.psk\"\npool = \"staff\"\n";
    let pool = "[pool.staff]\naddresses = [\"10.9.0.0/24\", \"2001:db8:9::/64\"]\ndns = [\"192.0.2.53\"]\n";
    let loaded = loaded(&format!("{peer}{pool}"));
    let pool = loaded.policies.peers["p"].pool.clone().unwrap();
    assert_eq!((&*pool.name, pool.addresses.len(), pool.dns.len()), ("staff", 2, 1));
    let text = errors(&peer.replace("staff", "stuff"));
    assert!(text.contains("there is no pool \"stuff\""), "{text}");
    let fixed = peer.replace("\"any\"", "\"192.0.2.9\"");
    let text = errors(&format!("{fixed}[pool.staff]\naddresses = [\"10.9.0.0/24\"]\n"));
    assert!(text.contains("cannot have a pool"), "{text}");
}

#[test]
fn the_state_directory_is_as_said() {
    let settings = loaded("[gateway]\nstate-dir = \"/srv/state\"\n").settings;
    assert_eq!(settings.state_dir, Path::new("/srv/state"));
}

#[test]
fn metrics_are_served_at_an_address_with_a_port_that_a_reload_can_bind() {
    let with = |text: &str| format!("[gateway]\nmetrics-listen = \"{text}\"\n");
    assert_eq!(loaded("").settings.metrics_listen, None);
    for text in ["127.0.0.1:9500", "[::1]:1024", "0.0.0.0:65535"] {
        assert_eq!(loaded(&with(text)).settings.metrics_listen, text.parse().ok());
    }
    for (text, fault) in [
        ("9500", "\"9500\" is not an address with a port"),
        ("localhost:9500", "\"localhost:9500\" is not an address with a port"),
        ("::1:9500", "\"::1:9500\" is not an address with a port"),
        ("224.0.0.1:9500", "nobody can listen on 224.0.0.1"),
        ("255.255.255.255:9500", "nobody can listen on 255.255.255.255"),
        ("127.0.0.1:1023", "port 1023 is out of range"),
        ("127.0.0.1:0", "port 0 is out of range"),
    ] {
        let text = errors(&with(text));
        let start = format!("x.toml:2:18: gateway.metrics-listen: {fault}: expected ");
        assert!(text.starts_with(&start) && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn the_file_of_name_servers_replaces_nothing_else_and_has_a_directory() {
    let with = |path: &str| format!("[gateway]\nresolv-conf = \"{path}\"\n");
    assert_eq!(loaded("").settings.resolv_conf, None);
    for path in ["/run/gateway/resolv.conf", "/tmp/resolv.conf"] {
        let Loaded { settings, warnings, .. } = loaded(&with(path));
        assert_eq!(settings.resolv_conf.as_deref(), Some(Path::new(path)));
        assert!(warnings.is_empty(), "{warnings:?}");
    }
    let nowhere = loaded(&with("/nowhere/resolv.conf")).warnings;
    let [warning] = nowhere.as_slice() else { panic!("{nowhere:?}") };
    let words = "x.toml:2:15: gateway.resolv-conf: there is no directory /nowhere: ";
    assert!(warning.to_string().contains(words), "{warning}");
    for (path, fault) in [
        ("resolv.conf", "\"resolv.conf\" is not an absolute path"),
        ("/tmp", "\"/tmp\" is a directory"),
        ("/nowhere/", "\"/nowhere/\" is a directory"),
        ("/nowhere/..", "\"/nowhere/..\" is a directory"),
        ("/run/gateway/control.sock", "that is the control socket"),
        ("/etc/resolv.conf", "the system's own name servers would be lost"),
    ] {
        let text = errors(&with(path));
        let start = format!("x.toml:2:15: gateway.resolv-conf: {fault}: expected ");
        assert!(text.starts_with(&start) && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn every_key_says_what_it_sets() {
    let Loaded { settings, policies, warnings, files, .. } = loaded(
        r#"
[gateway]
interfaces = ["eth0", "eth1"]
xfrm-interface = "ipsec7"
if-id = 0x07
nat-exemption = false
drop-unknown-esp = false
steer-cpus = true
pin-dir = "/sys/fs/bpf/x"
control-socket = "/run/x.sock"
retransmit-initial = "500ms"
retransmit-tries = 3
cookie-threshold = 0
half-open-limit = 10
ike-sa-limit = 20
certificate-chain-limit = 2
certificate-size-limit = 2048
replay-window = 2_048
[peer.p]
address = "2001:db8::2"
local-address = "2001:db8::1"
local-id = "keyid:c0ffee"
remote-id = "p@example.org"
psk-file = "good.psk"
ike-proposals = ["aes128-sha512-x25519"]
liveness = "0s"
lifetime = "90m"
childless = "require"
[rule.r]
action = "protect"
peer = "p"
local = ["2001:db8::1/128"]
remote = ["2001:db8::2/128"]
protocol = 17
local-ports = "1000-2000"
remote-ports = 53
mode = "transport"
start = "always"
esp-proposals = ["chacha20poly1305-x25519"]
lifetime = "2h"
lifetime-bytes = 5000
lifetime-packets = 9_000_000_000
priority = 7
"#,
    );
    assert_eq!((warnings, files), (vec![], 1));
    assert_eq!(settings.interfaces, ["eth0", "eth1"]);
    let flags = [settings.nat_exemption, settings.drop_unknown_esp, settings.steer_cpus];
    let interface = (settings.xfrm_interface.as_str(), settings.if_id);
    assert_eq!((interface, flags), (("ipsec7", 7), [false, false, true]));
    assert_eq!(settings.pin_dir, Path::new("/sys/fs/bpf/x"));
    assert_eq!(settings.control_socket, Path::new("/run/x.sock"));
    let endpoint = &settings.endpoint;
    assert_eq!(endpoint.retransmit_initial.as_millis(), 500);
    assert_eq!((endpoint.retransmit_tries, endpoint.replay_window), (3, 2048));
    assert_eq!(
        [
            endpoint.cookie_threshold,
            endpoint.half_open_limit,
            endpoint.ike_sa_limit,
            endpoint.certificate_chain_limit,
            endpoint.certificate_size_limit,
        ],
        [0, 10, 20, 2, 2048]
    );
    let peer = &policies.peers["p"];
    assert_eq!(peer.name.as_ref(), "p");
    assert_eq!(peer.remote_address, Some("2001:db8::2".parse().unwrap()));
    assert_eq!(peer.local_address, Some("2001:db8::1".parse().unwrap()));
    assert_eq!(peer.local_id, Identity::KeyId(vec![0xc0, 0xff, 0xee]));
    assert_eq!(peer.remote_id, Identity::Email("p@example.org".to_owned()));
    let key = Secret::new(b"correct horse battery staple".to_vec());
    let auth = (LocalAuth::Psk(key.clone()), RemoteAuth::Psk(key));
    assert_eq!((&peer.local_auth, &peer.remote_auth), (&auth.0, &auth.1));
    assert_eq!(peer.proposals, [proposal::ike("aes128-sha512-x25519").unwrap()]);
    let times = (peer.liveness_interval.as_secs(), peer.lifetime.as_secs());
    assert_eq!((times, peer.childless), ((0, 5400), Childless::Require));
    let rule = &policies.rules["r"];
    assert_eq!((rule.name.as_ref(), rule.priority, rule.protocol), ("r", 7, Some(17)));
    assert_eq!((&rule.local_ports, &rule.remote_ports), (&(1000..=2000), &(53..=53)));
    assert_eq!(rule.local, ["2001:db8::1/128".parse().unwrap()]);
    assert_eq!(rule.remote, ["2001:db8::2/128".parse().unwrap()]);
    let Action::Protect(protect) = &rule.action else { panic!("{rule:?}") };
    assert_eq!((protect.mode, protect.start), (Mode::Transport, Start::Always));
    assert_eq!(protect.proposals, [proposal::esp("chacha20poly1305-x25519").unwrap()]);
    assert_eq!(protect.lifetime.time.as_secs(), 7200);
    assert_eq!((protect.lifetime.bytes, protect.lifetime.packets), (5000, 9_000_000_000));
}

#[test]
fn a_peer_may_have_several_addresses_the_preferred_one_first() {
    let peer = |address: &str| {
        let text = PEER.replace("\"192.0.2.2\"", address);
        let loaded = loaded(&format!("{text}remote-id = \"p.test\"\nlocal-id = \"us.test\"\n"));
        let peer = &loaded.policies.peers["p"];
        (peer.remote_address, peer.addresses().map(|at| at.to_string()).collect::<Vec<_>>())
    };
    let first = Some("192.0.2.2".parse().unwrap());
    let two = ["192.0.2.2", "198.51.100.2"].map(str::to_owned);
    assert_eq!(peer("[\"192.0.2.2\", \"198.51.100.2\"]"), (first, two.to_vec()));
    assert_eq!(peer("[\"192.0.2.2\"]"), (first, two[..1].to_vec()));
    assert_eq!(peer("\"192.0.2.2\""), (first, two[..1].to_vec()));
    assert_eq!(peer("\"any\""), (None, Vec::new()));
}

#[test]
fn an_empty_directory_loads_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "not a policy").unwrap();
    fs::write(dir.path().join(".hidden.toml"), "not a policy").unwrap();
    let loaded = load(dir.path()).unwrap();
    assert_eq!((loaded.files, loaded.policies.rules.len()), (0, 0));
    assert_eq!(loaded.settings, Settings::default());
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
    assert_eq!(
        warning.to_string(),
        format!("{}: there is no policy file: expected files named *.toml", dir.path().display())
    );
}

#[test]
fn a_directory_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let [error] = &load(&missing).unwrap_err()[..] else { panic!() };
    assert_eq!(
        error.to_string(),
        format!("{}: cannot read: No such file or directory (os error 2)", missing.display())
    );
    fs::create_dir(dir.path().join("x.toml")).unwrap();
    assert_eq!(errors_of(dir.path()), "x.toml: cannot read: it is a directory\n");
}

#[test]
fn peers_without_rules_and_short_keys_are_warned_of() {
    let dir = directory(&[("x.toml", PEER.replace("good", "short").as_bytes())]);
    secret(&dir.path().join("short.psk"), "abc\n", 0o600);
    let warnings: Vec<_> =
        load(dir.path()).unwrap().warnings.iter().map(ToString::to_string).collect();
    let path = dir.path().join("x.toml");
    let path = path.display();
    assert_eq!(
        warnings,
        [
            format!("{path}:2:7: peer.p: no rule names this peer, so nothing is protected with it"),
            format!(
                "{path}:5:12: peer.p.psk-file: the key in \"short.psk\" has 3 octets and can be guessed: make one with `openssl rand -hex 32`"
            ),
        ]
    );
}

#[test]
fn a_rule_without_a_key_exchange_is_warned_of_where_the_first_child_sa_is_to_have_one() {
    let warnings = |childless: &str, proposals: &str| {
        let text = format!(
            "{PEER}childless = \"{childless}\"\n[rule.r]\naction = \"protect\"\npeer = \"p\"\n\
             local = [\"10.1.0.0/24\"]\nremote = [\"10.2.0.0/24\"]\n{proposals}"
        );
        let loaded = loaded(&text);
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let with = |list: &str| format!("esp-proposals = [{list}]\n");
    for childless in ["prefer", "require"] {
        let found = warnings(childless, &with("\"aes256gcm16\", \"aes128gcm16\""));
        let [warning] = &found[..] else { panic!("{found:?}") };
        assert!(
            warning.contains("rule.r.esp-proposals: no proposal has a key exchange"),
            "{warning}"
        );
        assert!(warning.contains("peer p is `childless`"), "{warning}");
        for good in ["\"aes256gcm16-x25519\"", "\"aes256gcm16\", \"aes256gcm16-x25519-none\""] {
            assert_eq!(warnings(childless, &with(good)), Vec::<String>::new());
        }
        assert_eq!(warnings(childless, ""), Vec::<String>::new(), "the default has some");
    }
    assert_eq!(warnings("never", &with("\"aes256gcm16\"")), Vec::<String>::new());
}

#[test]
fn authorities_that_there_is_no_room_to_ask_for_are_warned_of() {
    let authority = |_| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).unwrap().pem()
    };
    let all: Vec<String> = (0..38).map(authority).collect();
    let text = "[peer.p]\naddress = \"192.0.2.2\"\nlocal-id = \"a.test\"\nremote-id = \"b.test\"\n\
                auth = \"psk\"\npsk-file = \"good.psk\"\nremote-auth = \"certificate\"\nca = [\"all.pem\"]\n";
    let warnings = |count: usize| {
        let pem = all[..count].concat();
        let dir = directory(&[("x.toml", text.as_bytes()), ("all.pem", pem.as_bytes())]);
        load(dir.path()).unwrap().warnings
    };
    let said = |warnings: Vec<PolicyError>| {
        let said = warnings.iter().map(ToString::to_string).filter(|w| w.contains("CERTREQ"));
        said.collect::<Vec<_>>().concat()
    };
    assert_eq!(said(warnings(36)), "");
    let words = "x.toml:1:7: peer.p: 2 of the authorities of this peer are not asked for";
    assert!(said(warnings(38)).contains(words), "{}", said(warnings(38)));
}

#[test]
fn symbolic_links_are_followed_and_secrets_are_beside_the_link() {
    let real = directory(&[("real", PEER.as_bytes())]);
    let dir = tempfile::tempdir().unwrap();
    symlink(real.path().join("real"), dir.path().join("x.toml")).unwrap();
    symlink(real.path().join("good.psk"), dir.path().join("good.psk")).unwrap();
    assert_eq!(load(dir.path()).unwrap().policies.peers.len(), 1);
}

#[test]
fn a_roaming_peer_makes_its_rules_respond() {
    let roaming = r#"
[peer.p]
address = "any"
local-id = "a.example.org"
remote-id = "b.example.org"
psk-file = "good.psk"
[rule.r]
action = "protect"
peer = "p"
local = ["10.1.0.0/24"]
remote = ["10.2.0.0/24"]
"#;
    let Action::Protect(protect) = &loaded(roaming).policies.rules["r"].action else { panic!() };
    assert_eq!(protect.start, Start::Respond);
}

#[test]
fn rules_that_overlap_without_contradiction_load() {
    let rule = |name: &str, action: &str, local: &str, remote: &str, more: &str| {
        format!(
            "[rule.{name}]\naction = \"{action}\"\nlocal = [\"{local}\"]\nremote = [\"{remote}\"]\n{more}\n"
        )
    };
    let text = [
        rule("wide", "discard", "10.0.0.0/8", "10.0.0.0/8", ""),
        rule("longer", "bypass", "10.0.0.0/8", "10.2.0.0/16", ""),
        rule("first", "bypass", "10.0.0.0/8", "10.0.0.0/8", "priority = 999"),
        rule("tcp", "bypass", "10.0.0.0/8", "10.0.0.0/8", "protocol = \"tcp\""),
        rule("udp", "discard", "10.0.0.0/8", "10.0.0.0/8", "protocol = \"udp\""),
        rule("port", "discard", "10.0.0.0/8", "10.0.0.0/8", "protocol = \"tcp\"\nremote-ports = 1"),
        rule(
            "next-port",
            "bypass",
            "10.0.0.0/8",
            "10.0.0.0/8",
            "protocol = \"tcp\"\nremote-ports = 2",
        ),
        rule("crossed", "discard", "10.9.0.0/16", "10.0.0.0/8", "priority = 5"),
        rule("crossed-too", "discard", "10.0.0.0/8", "10.9.0.0/16", "priority = 5"),
        rule("beside", "bypass", "11.0.0.0/8", "10.9.0.0/16", "priority = 5"),
        rule("six", "bypass", "::/0", "::/0", "priority = 5"),
    ];
    assert_eq!(loaded(&text.concat()).policies.rules.len(), text.len());
}

#[test]
fn a_quantum_safe_peer_has_only_such_proposals_unless_a_ppk_is_required() {
    let peer = |keys: &str| {
        let text = format!(
            "[peer.b]\naddress = \"192.0.2.2\"\nlocal-id = \"a\"\npsk-file = \"good.psk\"\n{keys}"
        );
        let loaded = loaded(&text);
        loaded.policies.peers.values().next().unwrap().as_ref().clone()
    };
    let all = peer("");
    assert!(all.ppk.is_none());
    let classic = |p: &PeerConfig| p.proposals.iter().filter(|p| !p.is_quantum_safe()).count();
    assert!(classic(&all) > 0);
    let safe = peer("quantum-safe = true");
    assert!(!safe.proposals.is_empty());
    assert_eq!(classic(&safe), 0);
    let ppk = "quantum-safe = true\nppk-file = \"good.psk\"\nppk-id = \"k\"";
    let with_ppk = peer(ppk);
    assert_eq!(with_ppk.proposals, all.proposals);
    assert!(with_ppk.ppk.is_some_and(|ppk| ppk.required && ppk.id == b"k"));
    let optional = peer(&format!("{ppk}\nppk = \"optional\""));
    assert_eq!(classic(&optional), 0, "it may end without the PPK");
    assert!(optional.ppk.is_some_and(|ppk| !ppk.required));
}

/// RFC 8247 2.2 and 2.3, RFC 8221 6: MUST-.
#[test]
fn sha1_is_taken_where_it_is_named_and_warned_of() {
    let text = |ike: &str, esp: &str, quantum_safe: bool| {
        format!(
            "[peer.b]\naddress = \"192.0.2.2\"\nlocal-id = \"a\"\npsk-file = \"good.psk\"\n\
             quantum-safe = {quantum_safe}\nike-proposals = [\"{ike}\"]\n\
             ppk-file = \"good.psk\"\nppk-id = \"k\"\n\
             [rule.r]\naction = \"protect\"\npeer = \"b\"\nlocal = [\"10.1.0.0/16\"]\n\
             remote = [\"10.2.0.0/16\"]\nquantum-safe = {quantum_safe}\n\
             esp-proposals = [\"{esp}\"]\n"
        )
    };
    let warnings = |ike: &str, esp: &str| {
        let warnings = loaded(&text(ike, esp, false)).warnings;
        let all = warnings.iter().map(ToString::to_string).filter(|w| w.contains("sha1"));
        all.map(|w| w.rsplit('/').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let said = "sha1 is for peers that have nothing else, and never quantum-safe: name sha256 \
                instead, or before it, unless the other end has neither";
    assert_eq!(warnings("aes128-sha256-modp2048", "aes128-sha256"), [""; 0]);
    let [ike, esp] = [
        format!("x.toml:6:17: peer.b.ike-proposals: {said}"),
        format!("x.toml:15:17: rule.r.esp-proposals: {said}"),
    ];
    assert_eq!(warnings("aes128-sha1-modp2048", "aes128-sha1"), [&*ike, &*esp]);
    assert_eq!(warnings("aes128gcm16-prfsha1-x25519", "aes128-sha256-sha1"), [ike, esp]);
    // A PPK is as good as ML-KEM, but no better.
    let found = errors(&text("aes128gcm16-prfsha1-x25519", "aes128-sha1", true));
    let lines: Vec<_> = found.lines().collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("name no sha1")), "{found}");
    let _fine = loaded(&text("aes128gcm16-prfsha256-x25519", "aes128-sha256", true));
}
