//! What the programs tell of where ESP of inbound SAs comes from.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use aya::maps::{Map, MapData, MapError, RingBuf};
use gateway_common::{Source, SourceChange, map};

use super::DataPath;
use super::error::BpfError;
use super::rules::address;

/// ESP of an inbound SA has come from elsewhere than before. Nobody has authenticated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceSeen {
    /// The outer destination.
    pub destination: IpAddr,
    /// The SPI, in host order.
    pub spi: u32,
    /// From where; port 0: as bare ESP, without UDP.
    pub source: SocketAddr,
}

/// The ring of such events, of whatever programs have this pin directory. Readable when there is
/// one. There must be one reader.
pub struct SourceEvents(RingBuf<MapData>);

impl AsRawFd for SourceEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl SourceEvents {
    fn open(path: &Path) -> Result<Self, MapError> {
        Ok(Self(RingBuf::try_from(Map::RingBuf(MapData::from_pin(path)?))?))
    }

    /// The next event, if there is one.
    pub fn take(&mut self) -> Option<SourceSeen> {
        loop {
            let item = self.0.next()?;
            if let Some(SourceChange { sa, source }) = SourceChange::from_octets(&item) {
                return Some(SourceSeen {
                    destination: IpAddr::from(sa.destination.octets()).to_canonical(),
                    spi: u32::from_be(sa.spi),
                    source: socket_address(source),
                });
            }
        }
    }
}

impl DataPath {
    /// What the programs tell of sources. It stays valid when the programs are loaded anew.
    ///
    /// # Errors
    /// The ring cannot be opened or mapped.
    pub fn source_events(&self) -> Result<SourceEvents, BpfError> {
        SourceEvents::open(&self.config.pin_dir.join(map::SOURCE_CHANGES))
            .map_err(|error| BpfError::kernel("the ring of ESP's sources cannot be read", &error))
    }
}

/// A source as the programs know it.
pub(super) fn source(from: SocketAddr) -> Source {
    Source::new(address(from.ip()), from.port())
}

/// The same for everybody else.
pub(super) fn socket_address(source: Source) -> SocketAddr {
    let ip = IpAddr::from(source.address.octets()).to_canonical();
    SocketAddr::new(ip, u16::try_from(source.port).unwrap_or(0))
}
