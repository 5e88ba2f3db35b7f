//! The SAs that the programs know.

use std::net::{IpAddr, SocketAddr};

use aya::maps::{IterableMap as _, MapError};
use aya::sys::SyscallError;
use gateway_common::{Address, SaKey, SaValue, Source, map};

use super::error::BpfError;
use super::room::of_map;
use super::rules::address;
use super::sources::{socket_address, source};
use super::{DataPath, Sa, SaDirection, is_absent};

impl DataPath {
    /// Tells the programs of an SA, or changes what they know. Outbound SAs are to be known before
    /// the kernel sends with them: until then their packets look like clear traffic.
    ///
    /// # Errors
    /// [`BpfError::Full`], or the kernel refuses, for want of memory.
    pub fn insert_sa(&mut self, sa: &Sa) -> Result<(), BpfError> {
        const WHAT: &str = "an SA cannot be told to the programs";
        let value = match sa.direction {
            SaDirection::Inbound { strip, from } => {
                let strip = if strip { SaValue::STRIP } else { 0 };
                let cpu = self.cpus.choose(sa.destination, sa.spi);
                SaValue::new(SaValue::INBOUND | strip, source(from)).on(cpu)
            }
            SaDirection::Outbound => SaValue::new(SaValue::OUTBOUND, NOWHERE),
            SaDirection::Awaited => SaValue::new(SaValue::AWAITED, NOWHERE),
        };
        self.insert(WHAT, sa.destination, sa.spi, value)?;
        self.forget_elsewhere(sa.destination, sa.spi)
    }

    /// The inbound SA of one SPI, when it is told, takes the place of another's: it has its CPU.
    pub fn follow(&mut self, old: u32, new: u32) {
        self.cpus.follow(old, new);
    }

    /// Tells the programs that a peer may send by this SPI before there is an SA: until there is,
    /// or [`Self::await_no_more`], they let it pass. What is there already stays as it is.
    ///
    /// # Errors
    /// [`BpfError::Full`], or the kernel refuses, for want of memory.
    pub fn await_sa(&mut self, destination: IpAddr, spi: u32) -> Result<(), BpfError> {
        let value = SaValue::new(SaValue::AWAITED, NOWHERE);
        match self.sas.insert(sa_key(destination, spi), value, UNLESS_THERE) {
            Err(error) if !is_there(&error) => {
                let what = "an SPI cannot be told to the programs";
                Err(BpfError::insertion(what, map::SAS, of_map(self.sas.map()), &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// There will be no such SA. One that is there stays.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn await_no_more(&mut self, destination: IpAddr, spi: u32) -> Result<(), BpfError> {
        match self.sas.get(&sa_key(destination, spi), 0) {
            Ok(value) if value.has(SaValue::AWAITED) => {
                self.remove_sa(destination, spi).map(drop::<bool>)
            }
            Err(error) if !is_absent(&error) => {
                Err(BpfError::kernel("an SA cannot be read from the BPF map", &error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Tells the programs that an inbound SA of ours, of which the UDP header is taken off, is
    /// reached at another address too: what comes there, at first expected `from` there, goes on as
    /// if it had been sent to `to`, where the kernel has the SA.
    ///
    /// # Errors
    /// The addresses are of two families, [`BpfError::Full`], or the kernel refuses, for want of
    /// memory.
    pub fn reach_sa_at(
        &mut self,
        at: IpAddr,
        spi: u32,
        to: IpAddr,
        from: SocketAddr,
    ) -> Result<(), BpfError> {
        const WHAT: &str = "an SA's other address cannot be told to the programs";
        if at.is_ipv4() != to.is_ipv4() {
            return Err(BpfError::OtherFamily { at, to });
        }
        let key = sa_key(at, spi);
        let flags = SaValue::INBOUND | SaValue::STRIP | SaValue::ELSEWHERE;
        // What says where it is first: without that a packet would go on as it is.
        self.elsewhere.insert(key, address(to), 0).map_err(|error| {
            BpfError::insertion(WHAT, map::ELSEWHERE, of_map(self.elsewhere.map()), &error)
        })?;
        let value = SaValue::new(flags, source(from)).on(self.cpus.choose(at, spi));
        self.insert(WHAT, at, spi, value)
    }

    fn insert(
        &mut self,
        what: &'static str,
        destination: IpAddr,
        spi: u32,
        value: SaValue,
    ) -> Result<(), BpfError> {
        let key = sa_key(destination, spi);
        self.sas.insert(key, value, 0).map_err(|error| {
            // What was there before still is, and its packets go to the CPU that it has.
            if self.sas.get(&key, 0).is_err() {
                self.cpus.release(destination, spi);
            }
            BpfError::insertion(what, map::SAS, of_map(self.sas.map()), &error)
        })
    }

    fn forget_elsewhere(&mut self, destination: IpAddr, spi: u32) -> Result<(), BpfError> {
        match self.elsewhere.remove(&sa_key(destination, spi)) {
            Err(error) if !is_absent(&error) => {
                let what = "an SA's other address cannot be removed from a BPF map";
                Err(BpfError::kernel(what, &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Makes the programs forget an SA. Whether they knew it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_sa(&mut self, destination: IpAddr, spi: u32) -> Result<bool, BpfError> {
        let known = match self.sas.remove(&sa_key(destination, spi)) {
            Ok(()) => true,
            Err(error) if is_absent(&error) => false,
            Err(error) => {
                return Err(BpfError::kernel("an SA cannot be removed from the BPF map", &error));
            }
        };
        self.cpus.release(destination, spi);
        self.forget_elsewhere(destination, spi)?;
        Ok(known)
    }

    /// The SAs that the programs know, in order.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn sas(&self) -> Result<Vec<Sa>, BpfError> {
        let mut sas = self
            .sas
            .iter()
            .map(|found| found.map(|(key, value)| known_sa(key, value)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| BpfError::kernel("the SAs cannot be read", &error))?;
        sas.sort_unstable();
        Ok(sas)
    }
}

/// Of an SA of which it means nothing from where it comes.
const NOWHERE: Source = Source::new(Address::ZERO, 0);

/// `BPF_NOEXIST` of bpf(2).
const UNLESS_THERE: u64 = 1;

fn is_there(error: &MapError) -> bool {
    let exists = |error: &SyscallError| error.io_error.kind() == std::io::ErrorKind::AlreadyExists;
    matches!(error, MapError::SyscallError(error) if exists(error))
}

fn sa_key(destination: IpAddr, spi: u32) -> SaKey {
    SaKey::new(address(destination), spi.to_be_bytes())
}

fn known_sa(key: SaKey, value: SaValue) -> Sa {
    let destination = IpAddr::from(key.destination.octets()).to_canonical();
    let direction = if value.has(SaValue::OUTBOUND) {
        SaDirection::Outbound
    } else if value.has(SaValue::AWAITED) {
        SaDirection::Awaited
    } else {
        SaDirection::Inbound { strip: value.has(SaValue::STRIP), from: socket_address(value.seen) }
    };
    Sa { destination, spi: u32::from_be(key.spi), direction }
}
