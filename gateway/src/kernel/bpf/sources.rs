//! What the programs tell of where ESP comes from.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use aya::maps::{Map, MapData, MapError, RingBuf};
use gateway_common::{EspSeen, Source, map};

use super::DataPath;
use super::error::BpfError;
use super::rules::address;

/// ESP that has come in. Nobody has authenticated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspSource {
    /// The outer destination.
    pub destination: IpAddr,
    /// The SPI, in host order.
    pub spi: u32,
    /// From where; port 0: as bare ESP, without UDP.
    pub source: SocketAddr,
}

/// What the programs tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EspEvent {
    /// It is of an inbound SA, and from elsewhere than before.
    Moved(EspSource),
    /// It is of no SA of ours, and was dropped.
    Unknown(EspSource),
}

/// The ring of such events, of whatever programs have this pin directory. Readable when there is
/// one. There must be one reader.
pub struct EspEvents(RingBuf<MapData>);

impl AsRawFd for EspEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl EspEvents {
    fn open(path: &Path) -> Result<Self, MapError> {
        Ok(Self(RingBuf::try_from(Map::RingBuf(MapData::from_pin(path)?))?))
    }

    /// The next event, if there is one.
    pub fn take(&mut self) -> Option<EspEvent> {
        loop {
            let item = self.0.next()?;
            let Some(EspSeen { sa, source, kind, .. }) = EspSeen::from_octets(&item) else {
                continue;
            };
            let seen = EspSource {
                destination: IpAddr::from(sa.destination.octets()).to_canonical(),
                spi: u32::from_be(sa.spi),
                source: socket_address(source),
            };
            match kind {
                EspSeen::MOVED => return Some(EspEvent::Moved(seen)),
                EspSeen::UNKNOWN => return Some(EspEvent::Unknown(seen)),
                _ => {}
            }
        }
    }
}

impl DataPath {
    /// What the programs tell of ESP. It stays valid when the programs are loaded anew.
    ///
    /// # Errors
    /// The ring cannot be opened or mapped.
    pub fn esp_events(&self) -> Result<EspEvents, BpfError> {
        EspEvents::open(&self.config.pin_dir.join(map::SOURCE_CHANGES))
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
