//! Protects the daemon's IKE ports, 500 and 4500, at addresses of ours (RFC 7296).
//!
//! - What no MUST wants an answer to, and what no IKE SA can come of, ends here: messages that are
//!   too short, whose length lies, without SPIs or payloads, or with flags that contradict each
//!   other (3.1). Messages of other versions are answered by the daemon (2.5), but not more often
//!   than it would; and those of IKEv1 may be for a host behind us whose address is translated.
//! - IKE_SA_INIT requests cost the daemon most, and anybody can send them in any name. While there
//!   are few they pass. Once there are more, of all or of one prefix, or when the daemon says so,
//!   each must return a cookie (2.6), which [`answer`] makes out of the request in its place. What
//!   returns one has shown where it is, and passes while there are few of its address; what forgers
//!   send in the name of a prefix counts apart, so that they cannot take its place.
//!
//! Requests in frames that [`natt`](crate::natt) leaves alone reach the daemon, which does the same
//! by itself, at its own price.

mod answer;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use gateway_common::{
    Address, CookieSecret, IkeProtection, Initiator, Rate, Reason, Requester, load,
};

use self::answer::CookiePayload;
pub(crate) use self::answer::Internet;
use crate::header::{IkeHeader, Ipv4InPlace, Ipv6InPlace, Udp};
use crate::number::{Number, now};
use crate::{maps, natt, packet};

/// The major version in the upper half of its octet.
const VERSION_2: u8 = 2;
/// The exchange type of IKE_SA_INIT.
const IKE_SA_INIT: u8 = 34;
/// The type of a payload that is not there.
const NO_PAYLOAD: u8 = 0;
/// The payload type of a notification.
const NOTIFY: u8 = 41;

/// A UDP datagram.
#[derive(Clone, Copy)]
pub(crate) struct Datagram {
    /// Where its header begins; the IP header ends there.
    pub(crate) start: usize,
    /// Octets that follow the IP header.
    pub(crate) payload: u32,
    /// Whether it is the first fragment of several.
    pub(crate) is_fragment: bool,
}

/// What is decided of IKE: what [`protect`] may give.
const REASONS: [Reason; 14] = [
    Reason::IkeOn500,
    Reason::IkeOn4500,
    Reason::IkeInit,
    Reason::IkeInitWithCookie,
    Reason::IkeCookieAnswered,
    Reason::IkeCookieNotAnswered,
    Reason::IkePrefixLimited,
    Reason::IkeTooShort,
    Reason::IkeBadLength,
    Reason::IkeBadVersion,
    Reason::IkeVersionLimited,
    Reason::IkeZeroSpi,
    Reason::IkeEmpty,
    Reason::IkeBadInit,
];

/// What becomes of an IKE message to us that begins `before` octets after its datagram does.
#[inline(always)]
pub(crate) fn judge<Ip: Internet>(
    context: &XdpContext,
    datagram: Datagram,
    before: usize,
) -> Reason {
    // How much there is in all fragments is not known from the first.
    let payload = if datagram.is_fragment { u32::MAX } else { datagram.payload };
    let index = Ip::protect(context.ctx, datagram.start as u32, before as u32, payload);
    // A number that the verifier knows nothing of becomes one of a few.
    for reason in REASONS {
        if reason.index() == index {
            return reason;
        }
    }
    Reason::IkeTooShort
}

/// [`protect`] over IPv4. A function with a symbol is verified by itself, once, and not again for
/// every way in which the headers before can have been read; it returns the index of a reason.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn protect_ike_v4(context: *mut xdp_md, start: u32, before: u32, payload: u32) -> u32 {
    protect::<Ipv4InPlace>(&XdpContext::new(context), start, before, payload).index()
}

/// As [`protect_ike_v4`], over IPv6.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn protect_ike_v6(context: *mut xdp_md, start: u32, before: u32, payload: u32) -> u32 {
    protect::<Ipv6InPlace>(&XdpContext::new(context), start, before, payload).index()
}

/// What becomes of a message that begins `before` octets after its UDP header, which is at `start`,
/// and of whose datagram there are `payload` octets.
#[inline(always)]
fn protect<Ip: Internet>(context: &XdpContext, start: u32, before: u32, payload: u32) -> Reason {
    let at = start.wrapping_add(before);
    let (udp, header) = (packet::within::<Udp>(context, start), packet::within(context, at));
    let (Some(udp), Some(header)) = (udp, header) else { return Reason::IkeTooShort };
    let header: &IkeHeader = header;
    let length = u32::from(u16::from_be_bytes(udp.length));
    if length < before.wrapping_add(size_of::<IkeHeader>() as u32) {
        return Reason::IkeTooShort;
    }
    let passed =
        if before == size_of::<Udp>() as u32 { Reason::IkeOn500 } else { Reason::IkeOn4500 };
    if header.version >> 4 != VERSION_2 {
        return other_version(header).unwrap_or(passed);
    }
    if length > payload || header.length() != length.wrapping_sub(before) {
        return Reason::IkeBadLength;
    }
    if header.next == NO_PAYLOAD {
        return Reason::IkeEmpty;
    }
    if header.initiator_spi == [0; 4] {
        return Reason::IkeZeroSpi;
    }
    let is_new = header.responder_spi == [0; 4];
    if header.exchange != IKE_SA_INIT {
        return if is_new { Reason::IkeZeroSpi } else { passed };
    }
    // The first message of all, or the answer to it: each end says which one it is.
    let is_request = !header.is_response();
    let fits = header.is_initiator() == is_request && (is_new || !is_request);
    if header.message_id != [0; 2] || !fits {
        return Reason::IkeBadInit;
    }
    if !is_request {
        return passed;
    }
    let ip = packet::within::<Ip>(context, start.wrapping_sub(size_of::<Ip>() as u32));
    let Some(ip) = ip else { return Reason::IkeTooShort };
    let spi = natt::word(header.initiator_spi).to_ne_bytes();
    let request = Request {
        from: Initiator::new(ip.source(), u16::from_be_bytes(udp.source), spi),
        to: ip.destination(),
        returned: returned(context, header, at),
    };
    match request.decide::<Ip>(context.ingress_ifindex() as u32) {
        Ok(cookie) if answer::send::<Ip>(context, start, at, cookie) => Reason::IkeCookieAnswered,
        Ok(_) => Reason::IkeCookieNotAnswered,
        Err(reason) => reason,
    }
}

/// RFC 7296 2.5: why a message of another version does not pass.
#[inline(always)]
fn other_version(header: &IkeHeader) -> Option<Reason> {
    // IKEv1 has no response flag; its first message has no responder cookie (RFC 2408 3.1).
    let place = match header.version >> 4 {
        1 if header.responder_spi != [0; 4] => load::IKEV1,
        0 => return Some(Reason::IkeBadVersion),
        2.. if header.is_response() => return Some(Reason::IkeBadVersion),
        _ => load::OTHER_VERSION,
    };
    let (protection, state) = (maps::ike()?, of_all(place)?);
    if state.take(protection.other_version, now()) { None } else { Some(Reason::IkeVersionLimited) }
}

/// What is known of an IKE_SA_INIT request.
struct Request {
    from: Initiator,
    /// Our address.
    to: Address,
    /// The version and the MAC of the cookie that it begins with, if it does.
    returned: Option<(u32, u64)>,
}

impl Request {
    /// The version and the MAC of the cookie to answer with by an interface, or why there is no
    /// answer.
    #[inline(always)]
    fn decide<Ip: Internet>(&self, interface: u32) -> Result<(u32, u64), Reason> {
        let Some(protection) = maps::ike() else { return Err(Reason::IkeInit) };
        let now = now();
        let bits = if Ip::IS_V4 { protection.prefix_v4 } else { protection.prefix_v6 };
        let mut requester = Requester { prefix: self.from.address.masked(bits), shown: 0, zero: 0 };
        if self.is_shown(protection) {
            let bits = if Ip::IS_V4 { 128 } else { 64 };
            requester.prefix = self.from.address.masked(bits);
            requester.shown = 1;
            let may = may_request(&requester, protection.prefix, now);
            return Err(if may { Reason::IkeInitWithCookie } else { Reason::IkePrefixLimited });
        }
        let demanded = protection.demand != 0
            || is_overloaded(protection, now)
            || !may_request(&requester, protection.prefix, now);
        // Where no answer goes out the daemon demands it.
        if !demanded || !maps::can_answer(&self.to, interface) {
            return Err(Reason::IkeInit);
        }
        let [secret, _] = &protection.secrets;
        Ok((secret.version, cookie_mac(secret, &self.from)))
    }

    /// Whether it has returned a cookie of ours.
    #[inline(always)]
    fn is_shown(&self, protection: &IkeProtection) -> bool {
        let Some((version, mac)) = self.returned else { return false };
        let Some(secret) = secret_of(protection, version) else { return false };
        cookie_mac(secret, &self.from) == mac
    }
}

/// The MAC of a cookie; a function of its own as [`protect_ike_v4`], since its code is long.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn cookie_mac(secret: *const CookieSecret, initiator: *const Initiator) -> u64 {
    // SAFETY: the kernel checks that all of it can be read; none is the null pointer.
    let Some(secret) = (unsafe { secret.as_ref() }) else { return 0 };
    // SAFETY: as above.
    let Some(initiator) = (unsafe { initiator.as_ref() }) else { return 0 };
    secret.mac(initiator)
}

/// The version and the MAC of the cookie that the message at `at` begins with, if it does.
#[inline(always)]
fn returned(context: &XdpContext, header: &IkeHeader, at: u32) -> Option<(u32, u64)> {
    let payload = at.wrapping_add(size_of::<IkeHeader>() as u32);
    let least = size_of::<IkeHeader>().wrapping_add(size_of::<CookiePayload>()) as u32;
    if header.next != NOTIFY || header.length() < least {
        return None;
    }
    packet::within::<CookiePayload>(context, payload)?.cookie()
}

#[inline(always)]
fn secret_of(protection: &IkeProtection, version: u32) -> Option<&CookieSecret> {
    let [current, previous] = &protection.secrets;
    if version == 0 {
        None
    } else if current.version == version {
        Some(current)
    } else if previous.version == version {
        Some(previous)
    } else {
        None
    }
}

/// Whether so much comes, or has come a while ago, that everybody must return a cookie.
#[inline(always)]
fn is_overloaded(protection: &IkeProtection, now: u64) -> bool {
    let numbers = (of_all(load::ALL), of_all(load::DEMAND_UNTIL));
    let (Some(all), Some(until)) = numbers else { return false };
    if !all.take(protection.all, now) {
        until.write(now.wrapping_add(protection.hold));
        return true;
    }
    until.read() > now
}

/// Whether there may be one more request of a prefix.
#[inline(always)]
fn may_request(requester: &Requester, rate: Rate, now: u64) -> bool {
    match maps::REQUESTERS.get_ptr_mut(requester) {
        // An entry that is given to another meanwhile is counted wrongly once.
        Some(state) => Number::new(state).take(rate, now),
        None => {
            let first = rate.take(0, now).unwrap_or(now);
            // Full of others that are in use at this moment: this one is not counted.
            let _full = maps::REQUESTERS.insert(requester, first, 0);
            true
        }
    }
}

/// One of the numbers that say how much comes in all.
#[inline(always)]
fn of_all(place: u32) -> Option<Number> {
    maps::IKE_LOAD.get_ptr_mut(place).map(Number::new)
}
