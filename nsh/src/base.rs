//! The base header of RFC 8300 section 2.2.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |Ver|O|U|    TTL    |   Length  |U|U|U|U|MD Type| Next Protocol |
//! ```
//!
//! U bits are unassigned: sent as 0, ignored when received, preserved when forwarded.

use core::fmt;

/// Time to live (RFC 8300 section 2.2), 0 to 63: the number of forwarders a packet may still pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u8);

impl Ttl {
    /// The value a classifier sets: "the default initial value is 63".
    pub const ORIGIN: Ttl = Ttl(63);

    /// `None` if the value does not fit in 6 bits.
    pub const fn new(value: u8) -> Option<Ttl> {
        if value <= Ttl::ORIGIN.0 { Some(Ttl(value)) } else { None }
    }

    /// The value, 0 to 63.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The TTL after one forwarder, which decrements it before the look-up; `None` means the packet is to be
    /// dropped.
    ///
    /// RFC 8300 section 2.2: decrementing an incoming 0 gives 63, and a packet whose TTL is 0 after the
    /// decrement is not forwarded.
    pub const fn forwarded(self) -> Option<Ttl> {
        match self.0 {
            0 => Some(Ttl::ORIGIN),
            1 => None,
            n => Some(Ttl(n - 1)),
        }
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Metadata type (RFC 8300 section 2.2), 0 to 15.
///
/// It says how to read the bytes after the service path header, never where the payload begins: that is the
/// length field's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MdType(u8);

impl MdType {
    /// 16 bytes of fixed-length context.
    pub const FIXED: MdType = MdType(1);
    /// Zero or more variable-length context headers (TLVs).
    pub const VARIABLE: MdType = MdType(2);
    /// Reserved for experiments.
    pub const EXPERIMENT: MdType = MdType(0xF);

    /// `None` if the value does not fit in 4 bits.
    pub const fn new(value: u8) -> Option<MdType> {
        if value <= 0xF { Some(MdType(value)) } else { None }
    }

    /// The value, 0 to 15.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether RFC 8300 lets this implementation forward the packet: MD types 1 and 2. A packet of a reserved
    /// (0), experimental (15) or unassigned type is silently dropped.
    pub const fn is_supported(self) -> bool {
        matches!(self, MdType::FIXED | MdType::VARIABLE)
    }
}

impl fmt::Display for MdType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What follows the NSH (IANA registry "NSH Next Protocol").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextProtocol(pub u8);

impl NextProtocol {
    /// IPv4 packet.
    pub const IPV4: NextProtocol = NextProtocol(1);
    /// IPv6 packet.
    pub const IPV6: NextProtocol = NextProtocol(2);
    /// Ethernet frame: what livepath chains.
    pub const ETHERNET: NextProtocol = NextProtocol(3);
    /// Another NSH.
    pub const NSH: NextProtocol = NextProtocol(4);
    /// MPLS label stack.
    pub const MPLS: NextProtocol = NextProtocol(5);
    /// Active OAM: nothing a tenant sent (RFC 9516). Livepath probes and bare responses have no payload.
    pub const ACTIVE_OAM: NextProtocol = NextProtocol(7);
}

impl fmt::Display for NextProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bits of the base header, as a big-endian word.
pub(crate) mod bits {
    pub(crate) const VERSION_SHIFT: u32 = 30;
    pub(crate) const OAM: u32 = 1 << 29;
    pub(crate) const TTL_SHIFT: u32 = 22;
    pub(crate) const TTL_MASK: u32 = 0x3F << TTL_SHIFT;
    pub(crate) const LENGTH_SHIFT: u32 = 16;
    pub(crate) const LENGTH_MASK: u32 = 0x3F << LENGTH_SHIFT;
    pub(crate) const MD_SHIFT: u32 = 8;
    pub(crate) const MD_MASK: u32 = 0xF << MD_SHIFT;
    pub(crate) const NEXT_MASK: u32 = 0xFF;
}

/// The base header as one word; unassigned bits included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base(pub(crate) u32);

impl Base {
    pub(crate) const fn version(self) -> u8 {
        (self.0 >> bits::VERSION_SHIFT) as u8
    }

    pub(crate) const fn oam(self) -> bool {
        self.0 & bits::OAM != 0
    }

    pub(crate) const fn ttl(self) -> Ttl {
        Ttl(((self.0 & bits::TTL_MASK) >> bits::TTL_SHIFT) as u8)
    }

    /// Bytes: the field counts words of four.
    pub(crate) const fn length(self) -> usize {
        ((self.0 & bits::LENGTH_MASK) >> bits::LENGTH_SHIFT) as usize * 4
    }

    pub(crate) const fn md_type(self) -> MdType {
        MdType(((self.0 & bits::MD_MASK) >> bits::MD_SHIFT) as u8)
    }

    pub(crate) const fn next_protocol(self) -> NextProtocol {
        NextProtocol((self.0 & bits::NEXT_MASK) as u8)
    }

    pub(crate) const fn with_oam(self, oam: bool) -> Base {
        Base(if oam { self.0 | bits::OAM } else { self.0 & !bits::OAM })
    }

    pub(crate) const fn with_ttl(self, ttl: Ttl) -> Base {
        Base(self.0 & !bits::TTL_MASK | (ttl.0 as u32) << bits::TTL_SHIFT)
    }

    pub(crate) const fn with_next_protocol(self, next: NextProtocol) -> Base {
        Base(self.0 & !bits::NEXT_MASK | next.0 as u32)
    }

    /// A base header with MD type 1, version 0 and unassigned bits 0.
    pub(crate) const fn md1(oam: bool, ttl: Ttl, next: NextProtocol) -> Base {
        let words = (crate::MD1_LEN as u32 / 4) << bits::LENGTH_SHIFT;
        let md = (MdType::FIXED.0 as u32) << bits::MD_SHIFT;
        Base(words | md).with_oam(oam).with_ttl(ttl).with_next_protocol(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_follows_rfc_8300() {
        let after = |value| Ttl::new(value).unwrap().forwarded().map(Ttl::get);
        assert_eq!(after(0), Some(63), "an incoming 0 becomes 63");
        assert_eq!(after(1), None, "a result of 0 is dropped");
        for value in 2..=63 {
            assert_eq!(after(value), Some(value - 1));
        }
        assert_eq!(Ttl::new(64), None);
    }

    #[test]
    fn only_md_types_1_and_2_are_forwarded() {
        for value in 0..16 {
            assert_eq!(MdType::new(value).unwrap().is_supported(), value == 1 || value == 2);
        }
        assert_eq!(MdType::new(16), None);
    }

    #[test]
    fn edits_touch_their_own_bits_only() {
        for seed in [0u32, u32::MAX, 0xA5A5_A5A5, 0x5A5A_5A5A] {
            let base = Base(seed);
            assert_eq!(base.with_ttl(Ttl(17)).0 & !bits::TTL_MASK, seed & !bits::TTL_MASK);
            assert_eq!(base.with_ttl(Ttl(17)).ttl(), Ttl(17));
            assert_eq!(base.with_oam(true).0 & !bits::OAM, seed & !bits::OAM);
            assert!(base.with_oam(true).oam() && !base.with_oam(false).oam());
            let next = base.with_next_protocol(NextProtocol::ACTIVE_OAM);
            assert_eq!(next.0 & !bits::NEXT_MASK, seed & !bits::NEXT_MASK);
            assert_eq!(next.next_protocol(), NextProtocol::ACTIVE_OAM);
        }
    }
}
