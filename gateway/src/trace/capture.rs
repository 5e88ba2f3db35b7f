//! Packets in a file for Wireshark, each with the decision as its comment (pcapng,
//! draft-ietf-opsawg-pcapng).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use gateway_common::Hook;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use super::line::{Line, interface};
use crate::kernel::bpf::Decided;

/// `if_tsresol`: the time is in units of ten to the minus ninth of a second.
const NANOSECONDS: u8 = 9;
/// `epb_flags`: the packet came in.
const INBOUND: u32 = 1;
/// `epb_flags`: the packet goes out.
const OUTBOUND: u32 = 2;

/// A file of packets.
pub(super) struct Capture {
    writer: PcapNgWriter<BufWriter<File>>,
    /// The file's numbers of interfaces, by index and whether packets have an Ethernet header.
    interfaces: BTreeMap<(u32, bool), u32>,
}

impl Capture {
    /// Makes the file, which only its owner may read: packets are others' affair. One that is
    /// there is overwritten.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let writer = PcapNgWriter::new(BufWriter::new(file)).map_err(plain)?;
        Ok(Self { writer, interfaces: BTreeMap::new() })
    }

    /// Writes the packet of a decision.
    pub(super) fn add(&mut self, decided: &Decided, line: &Line) -> io::Result<()> {
        let interface_id = self.interface(decided)?;
        let direction = match decided.hook {
            Hook::Xdp | Hook::Ingress | Hook::Prerouting => INBOUND,
            Hook::Egress | Hook::Postrouting => OUTBOUND,
        };
        let packet = EnhancedPacketBlock {
            interface_id,
            timestamp: decided.at,
            original_len: decided.length,
            data: Cow::Borrowed(&decided.packet),
            options: vec![
                EnhancedPacketOption::Comment(line.comment().into()),
                EnhancedPacketOption::Flags(direction),
            ],
        };
        self.writer.write_pcapng_block(packet).map_err(plain)?;
        Ok(())
    }

    /// The number of a packet's interface in the file, which is described there at first.
    fn interface(&mut self, decided: &Decided) -> io::Result<u32> {
        let key = (decided.interface, decided.ethernet);
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let description = InterfaceDescriptionBlock {
            linktype: if decided.ethernet { DataLink::ETHERNET } else { DataLink::RAW },
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(interface(decided.interface).into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_pcapng_block(description).map_err(plain)?;
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        self.interfaces.insert(key, number);
        Ok(number)
    }

    /// Writes what is still in memory.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }
}

fn plain(error: PcapError) -> io::Error {
    if let PcapError::IoError(error) = error { error } else { io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::os::unix::fs::PermissionsExt as _;

    use gateway_common::Reason;
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::trace::names::Names;

    #[test]
    fn a_reader_finds_packets_with_their_reason_time_and_interface() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.pcapng");
        let mut capture = Capture::create(&path).unwrap();
        let packet = |interface, ethernet, hook| Decided {
            at: Duration::new(1_700_000_000, 123_456_789),
            reason: Some(Reason::ClearInbound),
            cpu: 3,
            hook,
            interface,
            rule: None,
            spi: None,
            length: 1500,
            ethernet,
            packet: vec![7; 61],
        };
        let packets = [
            packet(900_001, true, Hook::Xdp),
            packet(900_002, false, Hook::Egress),
            packet(900_001, true, Hook::Ingress),
        ];
        for decided in &packets {
            capture.add(decided, &Line::new(decided, &Names::default())).unwrap();
        }
        capture.finish().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let mut reader = PcapNgReader::new(File::open(&path).unwrap()).unwrap();
        let (mut interfaces, mut found) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            let block = block.unwrap().into_owned();
            if let Block::InterfaceDescription(block) = &block {
                interfaces.push(block.linktype);
            }
            let Block::EnhancedPacket(block) = block else { continue };
            assert_eq!(block.timestamp, packets[0].at);
            assert_eq!((block.original_len, block.data.len()), (1500, 61));
            let comment = "drop ingress_clear (CPU 3)".into();
            assert_eq!(block.options[0], EnhancedPacketOption::Comment(comment));
            found.push((block.interface_id, block.options[1].clone()));
        }
        assert_eq!(interfaces, [DataLink::ETHERNET, DataLink::RAW]);
        let flags = |flags| EnhancedPacketOption::Flags(flags);
        assert_eq!(found, [(0, flags(INBOUND)), (1, flags(OUTBOUND)), (0, flags(INBOUND))]);
    }
}
