//! The service path identifier.

use super::BadValue;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Service Path Identifier, 24 bits (RFC 8300 section 2.3): names one embedding of a chain in service VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Spi(u32);

impl Spi {
    /// The largest SPI.
    pub const MAX: Spi = Spi(0x00ff_ffff);

    /// The SPI of this number.
    ///
    /// # Errors
    /// The number needs more than 24 bits.
    pub fn new(number: u32) -> Result<Spi, BadValue> {
        if number <= Spi::MAX.0 {
            Ok(Spi(number))
        } else {
            Err(BadValue::new("SPI", number.to_string(), "use 0 to 16777215, the 24 bits of RFC 8300"))
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Spi {
    type Error = BadValue;
    fn try_from(number: u32) -> Result<Spi, BadValue> {
        Spi::new(number)
    }
}

impl From<Spi> for u32 {
    fn from(spi: Spi) -> u32 {
        spi.0
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Spi;

    #[test]
    fn holds_24_bits() {
        assert_eq!(Spi::new(0x00ff_ffff), Ok(Spi::MAX));
        assert!(Spi::new(0x0100_0000).is_err());
        assert!(serde_json::from_str::<Spi>("16777216").is_err());
        assert!(serde_json::from_str::<Spi>("-1").is_err());
    }
}
