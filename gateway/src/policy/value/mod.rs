//! The values in policy files: text to types, or what is wrong with the text.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::path::PathBuf;

use gateway_ike::config::{Identity, PortRange};
use gateway_ike::crypto::x509::NameError;
use ipnet::{IpNet, Ipv4Net};

use super::error::{Fault, nearest};

/// The longest duration: sums of two never reach the limits of the clock.
const LONGEST: Duration = Duration::from_secs(365 * DAY);
const DAY: u64 = 86_400;

/// The protocols that have names here, with their numbers (IANA protocol numbers).
const PROTOCOLS: [(&str, u8); 14] = [
    ("icmp", ICMP),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", TCP),
    ("udp", UDP),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", ICMPV6),
    ("ospf", 89),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", SCTP),
];
/// ICMP, of IPv4 only.
pub(super) const ICMP: u8 = 1;
/// ICMPv6, of IPv6 only.
pub(super) const ICMPV6: u8 = 58;
/// TCP, which has ports.
pub(super) const TCP: u8 = 6;
/// UDP, which has ports.
pub(super) const UDP: u8 = 17;
/// SCTP, which has ports.
pub(super) const SCTP: u8 = 132;

/// One of a few words, with what it stands for.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Fault> {
    let names = || words.iter().map(|(name, _)| *name);
    let found = words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let known: Vec<_> = names().map(|name| format!("\"{name}\"")).collect();
        let fault = Fault::expected(format!("unknown word {text:?}"), known.join(", "));
        match nearest(text, names()) {
            Some(name) => fault.hint(format!("did you mean \"{name}\"?")),
            None => fault,
        }
    })
}

/// The name of a peer or rule: 1 to 63 letters, digits, `.`, `_` and `-`, a letter or digit first.
pub(super) fn name(text: &str) -> Result<(), Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && text.len() <= 63 && text.chars().all(good) {
        return Ok(());
    }
    Err(Fault::expected(
        format!("{text:?} is not a name"),
        "1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first",
    ))
}

/// A unicast address.
pub(super) fn address(text: &str) -> Result<IpAddr, Fault> {
    let fault = |what: &str| {
        Fault::expected(format!("{text:?} {what}"), "an address, such as 192.0.2.1 or 2001:db8::1")
    };
    let address: IpAddr = text.parse().map_err(|_not| fault("is not an address"))?;
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Err(fault("is the broadcast address")),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(Fault::new(format!("{text:?} is an IPv4 address in the form of IPv6"))
                .hint(format!("expected \"{v4}\""))),
            None if is_link_local(v6) => Err(fault("is a link-local address")),
            None => unicast(address, fault),
        },
        IpAddr::V4(_) => unicast(address, fault),
    }
}

fn unicast(address: IpAddr, fault: impl Fn(&str) -> Fault) -> Result<IpAddr, Fault> {
    if address.is_unspecified() {
        Err(fault("is the unspecified address"))
    } else if address.is_multicast() {
        Err(fault("is a multicast address"))
    } else {
        Ok(address)
    }
}

/// fe80::/10, which means nothing without an interface.
const fn is_link_local(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
}

/// The address of a peer: `None` for "any".
pub(super) fn peer_address(text: &str) -> Result<Option<IpAddr>, Fault> {
    if text == "any" {
        return Ok(None);
    }
    address(text).map(Some).map_err(|fault| match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => fault.hint("for a peer with any address write \"any\""),
        Ok(_) => fault,
        Err(_) => fault.hint("expected an address, such as 192.0.2.1 or 2001:db8::1, or \"any\""),
    })
}

/// A prefix without host bits.
pub(super) fn prefix(text: &str) -> Result<IpNet, Fault> {
    let net: IpNet = text.parse().map_err(|_not| match text.parse::<IpAddr>() {
        Ok(ip) => {
            let host = IpNet::from(ip);
            Fault::new(format!("{text:?} has no prefix length"))
                .hint(format!("for this one host write \"{host}\""))
        }
        Err(_) => Fault::expected(
            format!("{text:?} is not a prefix"),
            "ADDRESS/LENGTH, such as 10.2.0.0/24",
        ),
    })?;
    if net.trunc() != net {
        return Err(Fault::expected(
            format!("{text:?} has host bits set"),
            format_args!("\"{}\"", net.trunc()),
        ));
    }
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.network().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(v4) = Ipv4Net::new(v4, length)
    {
        return Err(Fault::expected(
            format!("{text:?} is an IPv4 prefix in the form of IPv6"),
            format_args!("\"{v4}\""),
        ));
    }
    Ok(net)
}

/// A protocol by number or name.
pub(super) fn protocol(text: &str) -> Result<u8, Fault> {
    let names = || PROTOCOLS.iter().map(|(name, _)| *name);
    let named = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    // 0 is "any" in a traffic selector (RFC 7296 3.13.1), 255 is reserved.
    let numbered = || text.parse().ok().filter(|number| (1..=254).contains(number));
    named.or_else(numbered).ok_or_else(|| {
        let fault = Fault::new(format!("{text:?} is not a protocol"));
        match nearest(text, names()).filter(|_| text.parse::<u64>().is_err()) {
            Some(name) => fault.hint(format!("did you mean \"{name}\"?")),
            None => fault.hint(format!(
                "expected 1 to 254 or one of {}",
                names().collect::<Vec<_>>().join(", ")
            )),
        }
    })
}

/// A port or a range of ports.
pub(super) fn ports(text: &str) -> Result<PortRange, Fault> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        text.trim().parse().ok().filter(|port: &u16| *port > 0).ok_or_else(|| {
            let message = format!("{text:?} is not a port");
            Fault::expected(message, "PORT or \"FIRST-LAST\" with ports from 1 to 65535")
        })
    };
    let (first, last): (u16, u16) = (port(first)?, port(last)?);
    if first > last {
        return Err(Fault::expected(
            format!("the range {text:?} is reversed"),
            format_args!("\"{last}-{first}\""),
        ));
    }
    Ok(first..=last)
}

/// An identity (RFC 7296 3.5).
pub(super) fn identity(text: &str) -> Result<Identity, Fault> {
    let fault = || {
        Fault::expected(
            format!("{text:?} is not an identity"),
            "an address, a domain name, user@host, keyid:HEX or a distinguished name",
        )
    };
    if let Some(digits) = text.strip_prefix("keyid:") {
        let octets = hex(digits).filter(|octets| !octets.is_empty());
        return octets.map(Identity::KeyId).ok_or_else(fault);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return address(text).map(|_| Identity::Address(ip));
    }
    if text.contains('=') {
        return text.parse().map(Identity::Dn).map_err(|error: NameError| {
            Fault::new(format!("{text:?} is not a distinguished name")).hint(error.to_string())
        });
    }
    match text.split_once('@') {
        None if is_domain(text) => Ok(Identity::Fqdn(text.to_owned())),
        Some(("", domain)) if is_domain(domain) => {
            Err(fault().hint(format!("a domain name stands alone: \"{domain}\"")))
        }
        Some((user, domain)) if is_user(user) && is_domain(domain) => {
            Ok(Identity::Email(text.to_owned()))
        }
        None | Some(_) => Err(fault()),
    }
}

/// Whether it is a domain name: labels of letters, digits, `-` and `_`, the last not all digits
/// (that would be an address gone wrong).
fn is_domain(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(good);
    let last = text.rsplit('.').next().unwrap_or("");
    text.len() <= 253 && text.split('.').all(label) && !last.chars().all(|c| c.is_ascii_digit())
}

/// Whether it can stand before the @: printable ASCII without spaces.
fn is_user(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic())
}

/// Octets from hexadecimal digits of either case.
pub(super) fn hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |octet: &u8| char::from(*octet).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, _) = digits.as_bytes().as_chunks::<2>();
    // The room at once: growing would leave copies of a secret behind.
    let mut octets = Vec::with_capacity(pairs.len());
    for [high, low] in pairs {
        octets.push((digit(high)? << 4) | digit(low)?);
    }
    Some(octets)
}

/// A duration: a whole number and a unit.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let fault = |what| {
        Fault::expected(
            format!("{text:?} {what}"),
            "a whole number and ms, s, m, h or d, such as \"30s\"",
        )
    };
    let (number, unit) = split_unit(text).ok_or_else(|| fault("is not a duration"))?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 1000 * DAY,
        _ => return Err(fault("is not a duration")),
    };
    let duration = number.checked_mul(milliseconds).map(Duration::from_millis);
    duration
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| Fault::expected(format!("{text:?} is too long"), "at most \"365d\""))
}

/// A lifetime or interval: a duration of a second or more, or zero for never.
pub(super) fn interval(text: &str) -> Result<Duration, Fault> {
    let interval = duration(text)?;
    if !interval.is_zero() && interval < Duration::from_secs(1) {
        return Err(Fault::expected(
            format!("{text:?} is too short"),
            "\"1s\" or more, or \"0s\" for never",
        ));
    }
    Ok(interval)
}

/// A duration from the second to the third, which are written in the same way.
pub(super) fn duration_within(text: &str, least: &str, most: &str) -> Result<Duration, Fault> {
    let found = duration(text)?;
    if !(duration(least)?..=duration(most)?).contains(&found) {
        let expected = format_args!("{least:?} to {most:?}");
        return Err(Fault::expected(format!("{text:?} is out of range"), expected));
    }
    Ok(found)
}

/// A number of octets, with a decimal or binary unit.
pub(super) fn octets(text: &str) -> Result<u64, Fault> {
    let fault = || {
        Fault::expected(
            format!("{text:?} is not a number of octets"),
            "a whole number and at most a unit: kB, MB, GB, TB, KiB, MiB, GiB or TiB",
        )
    };
    let (number, unit) = split_unit(text).ok_or_else(fault)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(fault()),
    };
    number.checked_mul(factor).ok_or_else(|| Fault::new(format!("{text:?} is too much")))
}

/// A whole number and what follows it; one space may stand between.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.strip_prefix(' ').unwrap_or(unit)))
}

/// The name of a network interface, as the kernel accepts it (`dev_valid_name`).
pub(super) fn interface(text: &str) -> Result<String, Fault> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if (1..=15).contains(&text.len()) && text != "." && text != ".." && !text.contains(bad) {
        return Ok(text.to_owned());
    }
    Err(Fault::expected(
        format!("{text:?} is not the name of an interface"),
        "1 to 15 octets without slash, colon or space",
    ))
}

/// An absolute path.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, Fault> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    Err(Fault::expected(format!("{text:?} is not an absolute path"), "a path that begins with /"))
}

/// The path of a file that we write.
pub(super) fn own_file(text: &str) -> Result<PathBuf, Fault> {
    let path = absolute_path(text)?;
    if text.ends_with('/') || path.file_name().is_none() || path.is_dir() {
        return Err(Fault::expected(format!("{text:?} is a directory"), "a file in one"));
    }
    Ok(path)
}

/// The path of a Unix socket, whose length the kernel limits (`sun_path`, 108 octets with the
/// final zero).
pub(super) fn socket_path(text: &str) -> Result<PathBuf, Fault> {
    let path = absolute_path(text)?;
    if text.len() > 107 {
        let message = format!("the path has {} octets", text.len());
        return Err(Fault::expected(message, "at most 107, the limit for a Unix socket"));
    }
    Ok(path)
}

/// Where a TCP socket of ours listens. The right to bind a port below 1024 is given up after the
/// start, so that a reload could not.
pub(super) fn listener(text: &str) -> Result<SocketAddr, Fault> {
    let expected = "ADDRESS:PORT, such as \"127.0.0.1:9500\" or \"[::1]:9500\"";
    let address: SocketAddr = text.parse().map_err(|_not| {
        Fault::expected(format!("{text:?} is not an address with a port"), expected)
    })?;
    let is_broadcast = matches!(address.ip(), IpAddr::V4(v4) if v4.is_broadcast());
    if address.ip().is_multicast() || is_broadcast {
        return Err(Fault::expected(format!("nobody can listen on {}", address.ip()), expected));
    }
    if address.port() < 1024 {
        let message = format!("port {} is out of range", address.port());
        return Err(Fault::expected(message, "1024 to 65535"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests;
