//! The service path header of RFC 8300 section 2.3: service path identifier and service index.

use core::fmt;

/// Service path identifier, 24 bit: names one embedding of a service chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(u32);

impl Spi {
    /// The greatest identifier, 2^24 − 1.
    pub const MAX: Spi = Spi(0x00FF_FFFF);

    /// `None` if the value does not fit in 24 bits.
    pub const fn new(value: u32) -> Option<Spi> {
        if value <= Spi::MAX.0 { Some(Spi(value)) } else { None }
    }

    /// The value, below 2^24.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Service index, 8 bit: the hop within a path, counted down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Si(u8);

impl Si {
    /// The end of the path: in livepath an explicit terminal entry of the path table.
    pub const TERMINAL: Si = Si(0);

    /// Any 8-bit value.
    pub const fn new(value: u8) -> Si {
        Si(value)
    }

    /// The value.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The index after one service; `None` if the path has already ended and the packet is to be dropped.
    ///
    /// RFC 8300 section 2.3: the service function or its proxy decrements by 1 after the service; the result
    /// may be 0, an index of 0 is never decremented.
    pub const fn decrement(self) -> Option<Si> {
        match self.0 {
            0 => None,
            n => Some(Si(n - 1)),
        }
    }
}

impl fmt::Display for Si {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The service path header as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path(pub(crate) u32);

impl Path {
    pub(crate) const fn new(spi: Spi, si: Si) -> Path {
        Path(spi.0 << 8 | si.0 as u32)
    }

    pub(crate) const fn spi(self) -> Spi {
        Spi(self.0 >> 8)
    }

    pub(crate) const fn si(self) -> Si {
        Si((self.0 & 0xFF) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spi_holds_24_bits() {
        assert_eq!(Spi::new(0x00FF_FFFF), Some(Spi::MAX));
        assert_eq!(Spi::new(0x0100_0000), None);
    }

    #[test]
    fn si_counts_down_to_the_terminal_and_no_further() {
        assert_eq!(Si::new(3).decrement(), Some(Si::new(2)));
        assert_eq!(Si::new(1).decrement(), Some(Si::TERMINAL));
        assert_eq!(Si::TERMINAL.decrement(), None);
    }

    #[test]
    fn fields_do_not_overlap() {
        let path = Path::new(Spi::MAX, Si::new(0));
        assert_eq!((path.0, path.spi(), path.si()), (0xFFFF_FF00, Spi::MAX, Si::TERMINAL));
        let path = Path::new(Spi(0), Si::new(255));
        assert_eq!((path.0, path.spi().get(), path.si().get()), (0xFF, 0, 255));
    }
}
