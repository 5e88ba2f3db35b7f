//! A node that is a cluster, one member of which takes over from another (RFC 6311).

use gateway_wire::{ExchangeType, IkeSpi, Notify, NotifyType, Payload, ProtocolId};

use super::{Forge, NodeId, SeededRandom, Simulation};
use crate::Endpoint;
use crate::channel::Ids;
use crate::ike_sa::{IkeSa, State};
use crate::io::{IkeSaId, Input, Path};

impl Simulation {
    /// Another member takes over at a node. It has all that the one before had, but that one may have used
    /// so many more message IDs at either end: it agrees on others with each peer that can. What is on its
    /// way by the old ones is lost.
    pub fn fail_over(&mut self, node: NodeId, room: u32) {
        let Some(member) = self.nodes.get(node) else { return };
        let standing = member.endpoint.sas().filter(|sa| matches!(sa.state, State::Established(_)));
        let all: Vec<IkeSaId> = standing.map(|sa| sa.id).collect();
        for sa in all {
            self.agree_on_ids(node, sa, room);
        }
    }

    fn agree_on_ids(&mut self, node: NodeId, sa: IkeSaId, room: u32) -> Option<()> {
        let found = self.nodes.get(node)?.endpoint.sas().find(|found| found.id == sa)?;
        let channel = found.state.channel().filter(|channel| channel.peer_sets_ids())?;
        let (spis, ids) = (channel.spis(), channel.ids_after(room)?);
        let forge = Forge::of_sa(found)?;
        let data = ids.encode();
        let words = Payload::Notify(Notify {
            protocol: ProtocolId::NONE,
            spi: &[],
            kind: NotifyType::IKEV2_MESSAGE_ID_SYNC,
            data: &data,
        });
        let request = forge.seal(&forge.header(ExchangeType::INFORMATIONAL, false, 0), &[words])?;
        let (peer, path) = self.peer_of(node, spis)?;
        let before = self.nodes.get(peer)?.sent.len();
        self.input(peer, Input::Datagram { path, octets: &request });
        let sent = self.nodes.get(peer)?.sent.get(before..)?;
        let answer = sent.iter().find_map(|(_, octets)| forge.open(octets))?;
        let agreed = match answer.payloads().ok()?.as_slice() {
            [Payload::Notify(notify)] if notify.kind == NotifyType::IKEV2_MESSAGE_ID_SYNC => {
                Ids::decode(notify.data)?
            }
            _ => return None,
        };
        let member = self.nodes.get_mut(node)?;
        let (now, config) = (self.now, &self.config);
        let (path, again) = member.endpoint.alter(sa, |found| {
            let State::Established(established) = &mut found.state else { return None };
            let mut random = SeededRandom::new(u64::from(room));
            // Nor does it know which of its answers have arrived.
            established.doubt_answer();
            let again = established.channel.adopt_ids(now, config, &mut random, agreed).ok()??;
            Some((found.path, again))
        })??;
        for octets in again.into_iter() {
            member.sent.push((path, octets.clone()));
            self.network.send(self.now, path, octets);
        }
        Some(())
    }

    /// The other end of an IKE SA, and by which path it hears of us.
    fn peer_of(&self, node: NodeId, spis: (IkeSpi, IkeSpi)) -> Option<(NodeId, Path)> {
        let of = |endpoint: &Endpoint| {
            let is_it = |sa: &&IkeSa| sa.state.channel().is_some_and(|c| c.spis() == spis);
            endpoint.sas().find(is_it).map(|sa| sa.path)
        };
        let others = (0..).zip(&self.nodes).filter(|(id, _)| *id != node);
        others.filter_map(|(id, other)| of(&other.endpoint).map(|path| (id, path))).next()
    }
}
