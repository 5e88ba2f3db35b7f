//! What somebody sends who is none of the two, or is one of them and means ill.

use core::net::SocketAddr;

use gateway_ike::Input;
use gateway_ike::counters::Counter;
use gateway_ike::io::Path;
use gateway_ike::testing::{Forge, NodeId};
use gateway_wire::{ExchangeType, Header, MessageId, PayloadType, encode_skf_prefix};

use super::Run;
use crate::chain::{self, Raw};
use crate::octets::Octets;
use crate::{EVE, NAT};

/// Datagrams that a message is cut into at most, with the smallest fragments: one of certificates.
const FRAGMENTS: usize = 32;
/// Offset of the exchange type in the IKE header, and the one that is open to everybody.
const EXCHANGE: usize = 18;
const IKE_SA_INIT: u8 = 34;
/// Offset of the length in the IKE header.
const LENGTH: core::ops::Range<usize> = 24..28;

impl Run {
    /// Octets of our own.
    pub(super) fn send_own(&mut self, node: NodeId, octets: &mut Octets<'_>) {
        let (place, count) = (octets.one(), octets.two());
        let datagram = octets.take(count);
        self.inject(node, place, &datagram);
    }

    /// One of theirs: as it was, changed, or cut.
    pub(super) fn send_captured(&mut self, node: NodeId, how: u8, octets: &mut Octets<'_>) {
        let (place, which) = (octets.one(), octets.one());
        let Some(mut datagram) = self.captured(which) else { return };
        match how {
            2 => {}
            3 => {
                for _ in 0..=octets.one() % 4 {
                    let (at, change) = (octets.two() % datagram.len(), octets.one());
                    datagram[at] ^= change;
                }
            }
            _ => datagram.truncate(octets.two() % datagram.len()),
        }
        self.inject(node, place, &datagram);
    }

    /// One of theirs with octets of ours in the middle, and the length put right.
    pub(super) fn send_spliced(&mut self, node: NodeId, octets: &mut Octets<'_>) {
        let (place, which) = (octets.one(), octets.one());
        let Some(mut datagram) = self.captured(which) else { return };
        chain::splice(&mut datagram, octets);
        put_length(&mut datagram);
        self.inject(node, place, &datagram);
    }

    /// One of theirs with other payloads in the clear.
    pub(super) fn send_reshaped(&mut self, node: NodeId, octets: &mut Octets<'_>) {
        let (place, which) = (octets.one(), octets.one());
        let Some((header, mut payloads)) = self.captured(which).and_then(clear) else { return };
        chain::change(&mut payloads, octets, |which| {
            self.captured(which).and_then(clear).map_or(Vec::new(), |(_, payloads)| payloads)
        });
        let (first, written) = chain::join(&payloads);
        let mut datagram = [header.encode(PayloadType(first), 0).as_slice(), &written].concat();
        put_length(&mut datagram);
        self.inject(node, place, &datagram);
    }

    /// The same request from many initiators.
    pub(super) fn flood(&mut self, node: NodeId, octets: &mut Octets<'_>) {
        let (place, which, count) = (octets.one(), octets.one(), octets.one());
        let Some(mut datagram) = self.captured(which) else { return };
        for _ in 0..count {
            if let Some(spi) = datagram.get_mut(..8) {
                spi.copy_from_slice(&self.next.to_be_bytes());
            }
            self.next += 1;
            self.inject(node, place, &datagram);
        }
    }

    /// A host that has keys and bad intentions: one of the messages that it can open goes to the
    /// other, authentic, with other payloads inside. So the payloads of whoever is not yet
    /// authenticated are reached, EAP above all.
    pub(super) fn forge(&mut self, node: NodeId, octets: &mut Octets<'_>) {
        let (which, how, place) = (octets.one(), octets.one(), octets.one());
        let Some(forge) = Forge::of(&self.simulation.nodes[node].endpoint) else { return };
        let open = |which| {
            let opened = self.captured(which).and_then(|datagram| forge.open(&datagram));
            opened.map(|o| (o.header, o.first.0, o.plaintext))
        };
        let Some((mut header, mut first, mut plaintext)) = open(which) else { return };
        if how & 1 == 0 {
            chain::splice(&mut plaintext, octets);
        } else {
            let mut payloads = chain::split(first, &plaintext);
            chain::change(&mut payloads, octets, |which| {
                open(which).map_or(Vec::new(), |(_, first, inside)| chain::split(first, &inside))
            });
            (first, plaintext) = chain::join(&payloads);
        }
        let later = u32::from(how >> 1 & 3);
        header.message_id = MessageId(header.message_id.0.saturating_add(later % 3));
        if how & 8 != 0 {
            header.exchange = ExchangeType(octets.one());
        }
        header.flags.response ^= how & 16 != 0;
        let sealed = if how & 32 == 0 {
            forge.seal_octets(&header, PayloadType(first), &plaintext)
        } else {
            let (number, total) = (octets.one().into(), octets.one().into());
            fragment(&forge, &header, first, (number, total), &plaintext)
        };
        let Some(sealed) = sealed else { return };
        let path = self.path(1 - node, place | 4);
        self.simulation.input(1 - node, Input::Datagram { path, octets: &sealed });
    }

    /// One of the datagrams that the two have sent: counted from the first, or from the last.
    fn captured(&self, which: u8) -> Option<Vec<u8>> {
        let sent = || self.simulation.nodes.iter().flat_map(|n| &n.sent);
        let count = sent().count();
        let from_end = usize::from(u8::MAX - which).checked_rem(count)?;
        let nth =
            if which < 128 { usize::from(which) % count } else { (count - 1).abs_diff(from_end) };
        sent().map(|(_, octets)| octets.clone()).nth(nth).filter(|o| !o.is_empty())
    }

    /// How a datagram reaches a host, and from where it seems to come.
    fn path(&self, node: NodeId, place: u8) -> Path {
        let other = match place & 3 {
            0 | 1 => self.simulation.nodes[1 - node].address,
            2 => NAT,
            _ => EVE,
        };
        let port = if place & 4 == 0 { 500 } else { 4500 };
        let far = if place & 8 == 0 { port } else { 1024 + u16::from(place) };
        let local = SocketAddr::new(self.simulation.nodes[node].address, port);
        Path { local, remote: SocketAddr::new(other, far) }
    }

    /// Hands a datagram to a host, and sees to it that nothing comes of what is not authentic.
    fn inject(&mut self, node: NodeId, place: u8, datagram: &[u8]) {
        let now = self.simulation.now;
        let path = self.path(node, place);
        let genuine =
            self.simulation.nodes.iter().flat_map(|n| &n.sent).any(|(_, o)| o == datagram);
        let open = datagram.get(EXCHANGE) == Some(&IKE_SA_INIT);
        let before = (!genuine && !open).then(|| self.state(node));
        let sent = self.simulation.nodes[node].sent.len();
        let crashes = self.crashes(node);

        self.simulation.input(node, Input::Datagram { path, octets: datagram });

        let answers = self.simulation.nodes[node].sent.len() - sent;
        assert!(answers <= 2 * FRAGMENTS, "{answers} datagrams for one");
        // A token that one end has shown is a proof in whatever message it stands (RFC 6290).
        let proved = self.crashes(node) > crashes;
        if let Some(before) = before.filter(|_| !proved) {
            for (before, now) in before.into_iter().zip(self.state(node)) {
                assert_eq!(before, now, "what is not authentic has changed something");
            }
            assert!(answers <= 1);
        }
        assert_eq!(now, self.simulation.now);
    }

    fn crashes(&self, node: NodeId) -> u64 {
        self.simulation.nodes[node].endpoint.counters().value(Counter::PeerCrashed)
    }

    /// All that can be seen of a host but its counters.
    fn state(&self, node: NodeId) -> [String; 5] {
        let node = &self.simulation.nodes[node];
        let status = node.endpoint.status(self.simulation.now);
        [
            format!("{:?}", status.ike_sas),
            format!("{:?}", status.rules),
            format!("{} half-open", status.half_open),
            format!("next timeout {:?}", node.endpoint.next_timeout()),
            format!("{:?}", node.kernel.children.keys()),
        ]
    }
}

/// The header of a datagram, and the payloads behind it.
fn clear(datagram: Vec<u8>) -> Option<(Header, Vec<Raw>)> {
    let (header, first, payloads) = Header::decode(&datagram).ok()?;
    Some((header, chain::split(first.0, payloads)))
}

/// Writes how long a datagram is where it says so itself.
fn put_length(datagram: &mut [u8]) {
    if let Ok(length) = u32::try_from(datagram.len())
        && let Some(field) = datagram.get_mut(LENGTH)
    {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// A part of a message as a fragment of some number out of some.
fn fragment(
    forge: &Forge,
    header: &Header,
    first: u8,
    (number, total): (u16, u16),
    part: &[u8],
) -> Option<Vec<u8>> {
    let first = PayloadType(if number == 1 { first } else { 0 });
    let len = forge.body_len(part.len())?;
    let prefix = encode_skf_prefix(header, first, number, total, len).ok()?;
    forge.seal_behind(header, prefix, part)
}
