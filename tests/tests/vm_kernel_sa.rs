//! Security associations as the kernel has them: installed by the gateway, shown by `ip`.
#![expect(unused_crate_dependencies, reason = "they belong to other test targets")]
#![expect(clippy::unwrap_in_result, reason = "this is test code")]

#[path = "support/kernel.rs"]
mod kernel;

use core::num::NonZeroU32;

use gateway::kernel::xfrm::{Moved, SaDirection, SaEnds, SaId, SaMove, Xfrm};
use gateway_ike::algorithms::{Encryption, EspSuite, Integrity};
use gateway_ike::config::Mode;
use gateway_ike::io::{ChildSpec, Encapsulation, Selector};
use gateway_tests::error::{Context as _, Error, Result};
use gateway_tests::namespace::Namespace;
use gateway_tests::requirements::{Requirement, met};
use zeroize::Zeroizing;

use kernel::child;

const IF_ID: u32 = 7;
const OTHER_IF_ID: u32 = 8;

const fn suite(encryption: Encryption, integrity: Option<Integrity>, esn: bool) -> EspSuite {
    EspSuite { encryption, integrity, esn }
}

/// Every algorithm once, with and without extended sequence numbers, and how `ip` calls it.
const SUITES: &[(EspSuite, &str)] = &[
    (suite(Encryption::Aes128Gcm16, None, false), "aead rfc4106(gcm(aes))"),
    (suite(Encryption::Aes256Gcm16, None, true), "aead rfc4106(gcm(aes))"),
    (suite(Encryption::ChaCha20Poly1305, None, true), "aead rfc7539esp(chacha20,poly1305)"),
    (suite(Encryption::Aes128Cbc, Some(Integrity::HmacSha256), false), "auth-trunc hmac(sha256)"),
    (suite(Encryption::Aes256Cbc, Some(Integrity::HmacSha384), true), "auth-trunc hmac(sha384)"),
    (suite(Encryption::Aes256Cbc, Some(Integrity::HmacSha512), true), "auth-trunc hmac(sha512)"),
    (suite(Encryption::Aes128Cbc, Some(Integrity::HmacSha1), true), "auth-trunc hmac(sha1)"),
];

fn add_both(xfrm: &mut Xfrm, spec: &ChildSpec) -> Result {
    for direction in [SaDirection::Inbound, SaDirection::Outbound] {
        xfrm.add_sa(spec, direction).context(format_args!("{direction:?} of {spec:?}"))?;
    }
    Ok(())
}

fn ids(spec: &ChildSpec) -> [SaId; 2] {
    [&spec.inbound, &spec.outbound].map(|sa| SaId { destination: sa.destination, spi: sa.spi })
}

/// The part of `ip -s xfrm state` about one SPI.
fn shown(namespace: &Namespace, spi: u32) -> Result<String> {
    let all = namespace.run("ip", &["-s", "xfrm", "state"])?;
    let mut parts: Vec<String> = Vec::new();
    for line in all.lines() {
        if line.starts_with("src ") {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    Ok(parts
        .into_iter()
        .find(|part| part.contains(&format!("spi 0x{spi:08x}")))
        .unwrap_or_default())
}

#[test]
fn every_suite_mode_and_family_is_installed_as_asked_and_removed() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let namespace = Namespace::new("sa")?;
    for &(suite, algorithm) in SUITES {
        for mode in [Mode::Tunnel, Mode::Transport] {
            for v6 in [false, true] {
                let spec = child(suite, mode, v6);
                let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
                add_both(&mut xfrm, &spec)?;
                for (sa, replay) in [(&spec.inbound, true), (&spec.outbound, false)] {
                    let text = shown(&namespace, sa.spi)?;
                    // Only tunnel mode goes through the XFRM interface.
                    let words = if mode == Mode::Tunnel { "mode tunnel" } else { "mode transport" };
                    assert_eq!(text.contains("if_id 0x7"), mode == Mode::Tunnel, "{text}");
                    let reqid = format!("reqid {}", sa.reqid);
                    for expected in [algorithm, words, &reqid, "limit: soft (INF)"] {
                        assert!(text.contains(expected), "{suite}: no `{expected}` in\n{text}");
                    }
                    assert!(text.contains("3600(sec), hard 3960(sec)"), "{text}");
                    assert_eq!(text.contains("flag esn"), suite.esn, "{text}");
                    assert_eq!(text.contains("replay_window 128"), replay, "{text}");
                    assert!(!text.contains("encap"), "{text}");
                }
                let mut found = xfrm.sas().context("dump")?;
                found.sort_by_key(|id| id.spi);
                assert_eq!(found, ids(&spec));
                for id in ids(&spec) {
                    let usage = xfrm.usage(id).context("usage")?;
                    assert_eq!((usage.bytes, usage.packets), (0, 0));
                    xfrm.delete_sa(id).context("delete")?;
                    assert!(xfrm.delete_sa(id).unwrap_err().is_absent());
                }
                assert_eq!(xfrm.sas().context("dump")?, []);
            }
        }
    }
    Ok(())
}

#[test]
fn every_suite_is_installed_with_its_direction_where_the_kernel_keeps_one() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let namespace = Namespace::new("sa")?;
    let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    xfrm.set_state_direction(true);
    let simple = child(SUITES[0].0, Mode::Tunnel, false);
    add_both(&mut xfrm, &simple)?;
    let [inbound, outbound] = ids(&simple);
    let keeps = xfrm.usage(outbound).context("usage")?.has_direction;
    xfrm.delete_sa(inbound).context("delete")?;
    xfrm.delete_sa(outbound).context("delete")?;
    xfrm.set_state_direction(keeps);
    for &(suite, _) in SUITES {
        let spec = child(suite, Mode::Tunnel, false);
        add_both(&mut xfrm, &spec)?;
        for id in ids(&spec) {
            assert_eq!(xfrm.usage(id).context("usage")?.has_direction, keeps);
            xfrm.delete_sa(id).context("delete")?;
        }
    }
    Ok(())
}

#[test]
fn behind_nat_only_the_outbound_sa_is_encapsulated() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let namespace = Namespace::new("sa")?;
    for v6 in [false, true] {
        let mut spec = child(suite(Encryption::Aes128Gcm16, None, false), Mode::Tunnel, v6);
        spec.encapsulation =
            Some(Encapsulation { local_port: 4500, remote_port: 61234, keepalive: None });
        let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
        add_both(&mut xfrm, &spec)?;
        let outbound = shown(&namespace, 0x2002)?;
        assert!(outbound.contains("encap type espinudp sport 4500 dport 61234"), "{outbound}");
        let inbound = shown(&namespace, 0x1001)?;
        assert!(inbound.contains("spi 0x00001001") && !inbound.contains("encap"), "{inbound}");
        for id in ids(&spec) {
            xfrm.delete_sa(id).context("delete")?;
        }
    }
    Ok(())
}

#[test]
fn a_selector_stands_in_the_sa_if_one_says_it_all() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let namespace = Namespace::new("sa")?;
    let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    // IPv4 within IPv6, narrowed to a protocol and a port.
    let mut spec = child(suite(Encryption::Aes128Gcm16, None, false), Mode::Tunnel, true);
    spec.selectors[0].0.protocol = Some(6);
    spec.selectors[0].0.remote_ports = 443..=443;
    add_both(&mut xfrm, &spec)?;
    let text = shown(&namespace, 0x2002)?;
    assert!(text.contains("sel src 10.1.0.0/16 dst 10.2.0.0/16 proto tcp"), "{text}");
    assert!(text.contains("dport 443"), "{text}");
    for id in ids(&spec) {
        xfrm.delete_sa(id).context("delete")?;
    }
    // Two families at once: any.
    let other = Selector {
        local: "fd00:1::/64".parse().unwrap(),
        remote: "fd00:2::/64".parse().unwrap(),
        ..spec.selectors[0].0.clone()
    };
    spec.selectors.push((other, 101));
    add_both(&mut xfrm, &spec)?;
    let text = shown(&namespace, 0x2002)?;
    assert!(text.contains("af-unspec"), "{text}");
    Ok(())
}

#[test]
fn an_spi_in_use_is_reported_and_the_sa_of_another_is_left_alone() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let namespace = Namespace::new("sa")?;
    let spec = child(suite(Encryption::Aes128Gcm16, None, false), Mode::Tunnel, false);
    let (mut ours, mut others) = namespace
        .enter(|| Ok::<_, std::io::Error>((Xfrm::open(IF_ID)?, Xfrm::open(OTHER_IF_ID)?)))?
        .context("open")?;
    add_both(&mut others, &spec)?;
    let error = ours.add_sa(&spec, SaDirection::Inbound).unwrap_err();
    assert_eq!(error.errno(), Some(nix::libc::EEXIST), "{error}");
    let [inbound, outbound] = ids(&spec);
    assert_eq!(ours.sas().context("dump")?, []);
    assert!(ours.delete_sa(inbound).unwrap_err().is_absent());
    others.usage(inbound).context("the SA of the other")?;
    others.usage(outbound).context("the SA of the other")?;
    Ok(())
}

#[test]
fn a_key_of_the_wrong_length_is_refused_with_the_reason() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let namespace = Namespace::new("sa")?;
    let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    let mut spec = child(suite(Encryption::Aes128Gcm16, None, false), Mode::Tunnel, false);
    spec.inbound.encryption_key = Zeroizing::new(vec![1; 7]);
    let error = xfrm.add_sa(&spec, SaDirection::Inbound).unwrap_err();
    assert_eq!(error.errno(), Some(nix::libc::EINVAL), "{error}");
    Ok(())
}

/// A number of the line that shows what has been sent and received.
fn replay(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.contains("oseq"))?;
    let value = line.split(&format!(" {name} 0x")).nth(1)?;
    u32::from_str_radix(value.split([',', ' ']).next()?, 16).ok()
}

#[test]
fn an_sa_moves_with_all_that_it_has_and_never_repeats_a_sequence_number() -> Result {
    if !met(&[Requirement::Esp])? {
        return Ok(());
    }
    let namespace = Namespace::new("sa")?;
    let mut xfrm = namespace.enter(|| Xfrm::open(IF_ID))?.context("open")?;
    xfrm.set_output_mark(0x1f);
    // Whether the kernel keeps a direction decides what it lets a replay state say.
    for ask in [false, true] {
        xfrm.set_state_direction(ask);
        // Which is new enough to send keepalives, too.
        let keepalive = NonZeroU32::new(20).filter(|_| ask);
        for &(suite, _) in SUITES {
            let mut spec = child(suite, Mode::Tunnel, false);
            spec.encapsulation =
                Some(Encapsulation { local_port: 4500, remote_port: 61234, keepalive });
            add_both(&mut xfrm, &spec)?;
            let before = shown(&namespace, 0x2002)?;
            let at = |destination: &str, port| SaEnds {
                source: spec.outbound.source,
                destination: destination.parse().unwrap(),
                encapsulation: Some(Encapsulation {
                    local_port: 4500,
                    remote_port: port,
                    keepalive,
                }),
            };
            let way = |from, to| SaMove { spi: 0x2002, direction: SaDirection::Outbound, from, to };
            let (old, port, new) =
                (at("192.0.2.2", 61234), at("192.0.2.2", 700), at("192.0.2.77", 701));

            let kept_alive =
                |xfrm: &mut Xfrm, id| Ok::<_, Error>(xfrm.usage(id).context(id)?.keepalive);
            assert_eq!(kept_alive(&mut xfrm, way(old, port).old())?, keepalive.map(u32::from));

            // Only the port: the same SA, which goes on with the same number.
            assert_eq!(xfrm.move_sa(&way(old, port)).context(suite)?, Moved::Replaced);
            let moved = shown(&namespace, 0x2002)?;
            assert_eq!(moved, before.replace("dport 61234", "dport 700"), "{suite}");

            // Another address: a second SA, until policies lead to it.
            assert_eq!(xfrm.move_sa(&way(port, new)).context(suite)?, Moved::Beside);
            xfrm.usage(way(port, new).old()).context("the old one")?;
            xfrm.delete_sa(way(port, new).old()).context("delete the old one")?;
            let moved = shown(&namespace, 0x2002)?;
            assert_eq!(replay(&moved, "oseq"), Some(1 << 20), "{moved}");
            for line in ["192.0.2.77", "dport 701", "if_id 0x7", "output-mark 0x1f"] {
                assert!(moved.contains(line), "no {line} in {moved}");
            }
            for line in
                before.lines().filter(|l| ["aead", "enc ", "auth"].iter().any(|w| l.contains(w)))
            {
                assert!(moved.contains(line), "no {line} in {moved}");
            }
            // Our own address: the name stays, so that one has to go first.
            let ours = SaEnds { source: [192, 0, 2, 9].into(), ..new };
            assert_eq!(xfrm.move_sa(&way(new, ours)).context(suite)?, Moved::Replaced);
            let moved = shown(&namespace, 0x2002)?;
            assert!(moved.contains("src 192.0.2.9 dst 192.0.2.77"), "{moved}");
            assert_eq!(replay(&moved, "oseq"), Some(2 << 20), "{moved}");
            assert_eq!(kept_alive(&mut xfrm, way(new, ours).target())?, keepalive.map(u32::from));
            xfrm.delete_sa(way(new, ours).target()).context("delete")?;

            // What receives has another destination, and no gap.
            let ends = |address: &str| SaEnds {
                source: spec.inbound.source,
                destination: address.parse().unwrap(),
                encapsulation: None,
            };
            let sa = SaMove {
                spi: 0x1001,
                direction: SaDirection::Inbound,
                from: ends("192.0.2.1"),
                to: ends("192.0.2.9"),
            };
            let before = shown(&namespace, 0x1001)?;
            assert_eq!(xfrm.move_sa(&sa).context(suite)?, Moved::Replaced);
            let moved = shown(&namespace, 0x1001)?;
            assert_eq!(moved, before.replace("dst 192.0.2.1\n", "dst 192.0.2.9\n"), "{suite}");
            // What cannot go to a place leaves everything as it was.
            let away = SaMove { from: sa.to, to: sa.from, spi: 0x1001, direction: sa.direction };
            let mut other = child(suite, Mode::Tunnel, false);
            other.inbound.spi = 0x1001;
            xfrm.add_sa(&other, SaDirection::Inbound).context("in the way")?;
            let error = xfrm.move_sa(&away).unwrap_err();
            assert_eq!(error.errno(), Some(nix::libc::EEXIST), "{error}");
            xfrm.delete_sa(away.old()).context("it is still there")?;
            xfrm.delete_sa(away.target()).context("and so is the other")?;
            assert!(xfrm.move_sa(&away).unwrap_err().is_absent());
        }
        if !ask {
            // The next round asks for directions only where the kernel keeps them.
            let spec = child(SUITES[0].0, Mode::Tunnel, false);
            xfrm.set_state_direction(true);
            add_both(&mut xfrm, &spec)?;
            let [inbound, outbound] = ids(&spec);
            let keeps = xfrm.usage(outbound).context("usage")?.has_direction;
            xfrm.delete_sa(inbound).context("delete")?;
            xfrm.delete_sa(outbound).context("delete")?;
            if !keeps {
                break;
            }
        }
    }
    Ok(())
}
