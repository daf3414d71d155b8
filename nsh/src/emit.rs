//! Emitting an NSH with MD type 1: what a classifier pushes in front of a tenant's frame.

use crate::base::Base;
use crate::path::Path;
use crate::{
    CONTEXT_LEN, ENCAP_LEN, ETHERNET_LEN, ETHERTYPE, Ethernet, FIXED_LEN, MD1_LEN, NextProtocol, Si, Spi, Ttl,
};

/// The fields of an NSH with MD type 1. Version and unassigned bits are sent as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The O bit. A data packet that carries a query is not an OAM packet.
    pub oam: bool,
    /// Time to live.
    pub ttl: Ttl,
    /// What follows the header.
    pub next_protocol: NextProtocol,
    /// Service path identifier.
    pub spi: Spi,
    /// Service index.
    pub si: Si,
    /// The fixed-length context, usually [`Context::to_bytes`](crate::Context::to_bytes).
    pub context: [u8; CONTEXT_LEN],
}

impl Header {
    /// The wire form.
    pub fn to_bytes(&self) -> [u8; MD1_LEN] {
        let mut bytes = [0; MD1_LEN];
        bytes[..4].copy_from_slice(&Base::md1(self.oam, self.ttl, self.next_protocol).0.to_be_bytes());
        bytes[4..FIXED_LEN].copy_from_slice(&Path::new(self.spi, self.si).0.to_be_bytes());
        bytes[FIXED_LEN..].copy_from_slice(&self.context);
        bytes
    }
}

/// What is pushed in front of the inner frame: Ethernet from `src` to `dst`, then the NSH.
pub fn encap(dst: [u8; 6], src: [u8; 6], header: &Header) -> [u8; ENCAP_LEN] {
    let mut bytes = [0; ENCAP_LEN];
    bytes[..ETHERNET_LEN].copy_from_slice(&Ethernet { dst, src, ethertype: ETHERTYPE }.to_bytes());
    bytes[ETHERNET_LEN..].copy_from_slice(&header.to_bytes());
    bytes
}
