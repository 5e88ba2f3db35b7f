//! Requests to the kernel's XFRM subsystem over one netlink socket.
//!
//! A request is answered before the system call that sends it returns, so that waiting for the
//! answer costs microseconds and needs no task of its own. What is sent and received may hold
//! keys: buffers are wiped, and no message is ever logged.

use std::io;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};
use zeroize::Zeroizing;

/// Octets of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// Octets that one receive call can take: more than the kernel puts into one datagram.
const RECEIVE_LEN: usize = 64 * 1024;

/// `NLMSG_ERROR`: an error, or with code 0 the acknowledgement.
pub(super) const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const NLMSG_DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: the table changed during the dump.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_ACK_TLVS`: attributes follow an error.
const NLM_F_ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A request that the kernel refused, or that did not reach it.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel's answer is an error.
    #[error("{source}{}", .words.as_ref().map(|w| format!(" ({w})")).unwrap_or_default())]
    Refused {
        /// The error number.
        source: io::Error,
        /// The kernel's own words (extended acknowledgement), if it gave some.
        words: Option<String>,
    },
    /// The socket failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel's answer makes no sense.
    #[error("the kernel's answer is {0}")]
    Malformed(&'static str),
    /// An SA cannot go on elsewhere, since no number may be used twice.
    #[error("the SA has too few sequence numbers left")]
    Exhausted,
    /// An SA cannot be made anew, since the kernel does not show its keys.
    #[error("the kernel does not show the keys of SAs (lockdown=confidentiality)")]
    KeysHidden,
}

impl NetlinkError {
    /// The error number, if the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Socket(_) | Self::Malformed(_) | Self::Exhausted | Self::KeysHidden => None,
        }
    }

    /// Whether the thing that was asked for is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(libc::ESRCH | libc::ENOENT))
    }
}

/// One message of the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    /// The message type.
    pub(super) kind: u16,
    /// The header's flags.
    pub(super) flags: u16,
    /// What follows the header.
    pub(super) body: &'a [u8],
    sequence: u32,
}

/// Splits a datagram into messages. Ends at the first that does not fit.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    core::iter::from_fn(move || {
        let (header, _) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let message = datagram.get(..length)?;
        let body = message.get(HEADER_LEN..)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            body,
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
        })
    })
}

/// The value of the first attribute of this kind.
pub(super) fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    NlasIterator::new(attributes).map_while(Result::ok).find(|nla| nla.kind() == kind).and_then(
        |nla| {
            // The iterator checked the length; the value is borrowed from `attributes`, not from it.
            let length = nla.value_length();
            nla.into_inner().get(4..)?.get(..length)
        },
    )
}

/// The first attribute of this kind as an unsigned number in host order.
pub(super) fn attribute_u32(attributes: &[u8], kind: u16) -> Option<u32> {
    attribute(attributes, kind)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A socket for requests. One request is under way at a time.
pub(super) struct Connection {
    socket: Socket,
    sequence: u32,
}

impl Connection {
    /// Opens the socket in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_XFRM)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel's reason in words, and no copy of the request (which may hold keys).
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Has the kernel execute something.
    pub(super) fn execute(
        &mut self,
        kind: u16,
        flags: u16,
        body: &impl Emitable,
    ) -> Result<(), NetlinkError> {
        self.exchange(kind, flags | NLM_F_ACK, body, |_| ())
    }

    /// Asks for one object; `take` sees the answer.
    pub(super) fn get<T>(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        take: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<T, NetlinkError> {
        let mut found = None;
        self.exchange(kind, NLM_F_ACK, body, |message| {
            if let Some(value) = take(message) {
                found = Some(value);
            }
        })?;
        found.ok_or(NetlinkError::Malformed("too short"))
    }

    /// Asks for all objects of a kind; `take` sees each and keeps what it wants.
    pub(super) fn dump<T>(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        take: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        // A table that changes meanwhile is dumped again: an entry may have been left out.
        for _ in 0..5 {
            let mut found = Vec::new();
            let mut interrupted = false;
            self.exchange(kind, NLM_F_DUMP, body, |message| {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                found.extend(take(message));
            })?;
            if !interrupted {
                return Ok(found);
            }
        }
        Err(NetlinkError::Malformed("never whole: the table keeps changing"))
    }

    /// Sends a request and reads until its acknowledgement, error or end of dump.
    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        body: &impl Emitable,
        mut seen: impl FnMut(Message<'_>),
    ) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(kind, flags | NLM_F_REQUEST, self.sequence, body)?;
        self.socket.send(&request, 0)?;
        drop(request);
        let mut buffer = Zeroizing::new(Vec::with_capacity(RECEIVE_LEN));
        loop {
            buffer.clear();
            self.socket.recv(&mut *buffer, 0)?;
            // An answer to an earlier request, which was given up, has another number.
            for message in messages(&buffer).filter(|m| m.sequence == self.sequence) {
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => return outcome(message),
                    _ => seen(message),
                }
            }
        }
    }
}

/// Header and body in one buffer, which is wiped when dropped.
fn request(
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &impl Emitable,
) -> Result<Zeroizing<Vec<u8>>, NetlinkError> {
    const TOO_LONG: NetlinkError = NetlinkError::Malformed("impossible: the request is too long");
    let length = HEADER_LEN.saturating_add(body.buffer_len());
    let mut buffer = Zeroizing::new(vec![0; length]);
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(length).map_err(|_too_long| TOO_LONG)?;
    header.message_type = kind;
    header.flags = flags;
    header.sequence_number = sequence;
    let (head, tail) = buffer.split_at_mut_checked(HEADER_LEN).ok_or(TOO_LONG)?;
    header.emit(head);
    body.emit(tail);
    Ok(buffer)
}

/// What an `NLMSG_ERROR` or `NLMSG_DONE` says.
pub(super) fn outcome(message: Message<'_>) -> Result<(), NetlinkError> {
    let (code, rest) =
        message.body.split_first_chunk::<4>().ok_or(NetlinkError::Malformed("too short"))?;
    let code = i32::from_ne_bytes(*code);
    if code == 0 {
        return Ok(());
    }
    // After an error the header of the request stands between the code and the attributes.
    let skip = if message.kind == NLMSG_ERROR { HEADER_LEN } else { 0 };
    let words = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| rest.get(skip..).and_then(|tlvs| attribute(tlvs, NLMSGERR_ATTR_MSG)))
        .flatten()
        .map(|text| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    let source = io::Error::from_raw_os_error(code.checked_neg().unwrap_or(libc::EIO));
    Err(NetlinkError::Refused { source, words })
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "This is test code.")]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_LEN + body.len()).unwrap();
        let mut octets = length.to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.extend(flags.to_ne_bytes());
        octets.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        octets.extend(body);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    #[test]
    fn a_datagram_is_split_into_its_messages() {
        let mut datagram = message(16, 2, &[1, 2, 3]);
        datagram.extend(message(17, 0, &[4]));
        let seen: Vec<_> = messages(&datagram).map(|m| (m.kind, m.flags, m.body)).collect();
        assert_eq!(seen, [(16, 2, &[1, 2, 3][..]), (17, 0, &[4][..])]);
    }

    #[test]
    fn a_datagram_cut_anywhere_yields_only_whole_messages() {
        let datagram = message(16, 2, &[1, 2, 3, 4]);
        for end in 0..datagram.len() {
            assert_eq!(messages(&datagram[..end]).count(), 0, "cut at {end}");
        }
    }

    #[test]
    fn a_length_below_the_header_ends_the_datagram() {
        for length in 0..16_u8 {
            let mut datagram = message(16, 0, &[]);
            datagram[0] = length;
            assert_eq!(messages(&datagram).count(), 0);
        }
    }

    #[test]
    fn an_acknowledgement_is_no_error() {
        let octets = message(NLMSG_ERROR, 0, &[0; 20]);
        outcome(messages(&octets).next().unwrap()).unwrap();
    }

    #[test]
    fn an_error_carries_number_and_words() {
        let mut body = (-libc::ENOSYS).to_ne_bytes().to_vec();
        body.extend([0; HEADER_LEN]);
        body.extend([8, 0, 1, 0, b'n', b'o', b'!', 0]);
        let octets = message(NLMSG_ERROR, NLM_F_ACK_TLVS, &body);
        let error = outcome(messages(&octets).next().unwrap()).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOSYS));
        assert!(error.to_string().ends_with("(no!)"), "{error}");
    }

    #[test]
    fn an_error_cut_anywhere_is_still_an_error() {
        let mut body = (-libc::EEXIST).to_ne_bytes().to_vec();
        body.extend([0; HEADER_LEN]);
        body.extend([8, 0, 1, 0, b'n', b'o', b'!', 0]);
        for end in 0..body.len() {
            let octets = message(NLMSG_ERROR, NLM_F_ACK_TLVS, &body[..end]);
            outcome(messages(&octets).next().unwrap()).unwrap_err();
        }
    }

    #[test]
    fn an_attribute_that_lies_about_its_length_is_not_found() {
        assert_eq!(attribute(&[9, 0, 5, 0, 1, 2, 3, 4], 5), None);
        assert_eq!(attribute(&[3, 0, 5, 0], 5), None);
        assert_eq!(attribute(&[8, 0, 5, 0, 1, 2, 3, 4], 5), Some(&[1, 2, 3, 4][..]));
    }
}
