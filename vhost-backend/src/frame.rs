//! The packet as the datapath sees it: addresses, ethertype behind VLAN tags, and the flow it belongs to.
//!
//! ```text
//! guest buffer --copy--> prefix (<= 128 bytes, on the stack) --parse--> Frame --> chain::classify
//! ```
//!
//! Only the private prefix is read, so what was checked cannot change afterwards. A header that lies beyond the
//! prefix is *unreadable* (the frame is fine, its flow is known less exactly); one that lies beyond the frame, or
//! contradicts itself, is *malformed* (no receiver would take it).

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

use std::fmt;

mod flow_key;
mod imprint;
mod layers;
mod network;

pub use flow_key::{FlowHash, FlowKey, Layer4, Ports, Protocol};
pub use imprint::Imprint;
pub use layers::{Extent, IpLayers, IpVersion, Layers};

/// How many bytes of a frame are worth copying: Ethernet, two VLAN tags, the longest IPv4 header and TCP's first
/// 20 bytes, or IPv6 with a few extension headers.
pub const PREFIX_LEN: usize = 128;

/// Ethernet header without tags.
pub(crate) const ETHERNET_LEN: usize = 14;
const VLAN_TAG_LEN: usize = 4;
/// 802.1Q allows one tag, 802.1ad two. A deeper stack is refused: what it hides cannot be classified.
const MAX_VLAN_TAGS: usize = 4;

const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88A8;
const ETHERTYPE_QINQ_OLD: u16 = 0x9100;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86DD;

/// An Ethernet address, in the order it is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All ones.
    pub const BROADCAST: Mac = Mac([0xFF; 6]);

    /// Group bit set: multicast or broadcast (IEEE 802 section 8.2).
    pub const fn is_group(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 1
    }

    /// Can stand for one station: not a group address and not zero.
    pub const fn is_station(self) -> bool {
        !self.is_group() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// One of 01:80:C2:00:00:00 to :0F, which a bridge never forwards (IEEE 802.1Q table 8-1: spanning tree, pause,
    /// LACP, LLDP).
    pub const fn is_link_constrained(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xC2, 0, 0, last] if last <= 0x0F)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A VLAN identifier, 0 to 4095 (0: the tag carries a priority only).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanId(u16);

impl VlanId {
    /// `None` when `id` has more than 12 bits.
    pub const fn new(id: u16) -> Option<VlanId> {
        if id > 0x0FFF { None } else { Some(VlanId(id)) }
    }

    /// The identifier.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Why a frame can be nothing that any receiver accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// Shorter than an Ethernet header, or ends inside a VLAN tag.
    Runt,
    /// More than four VLAN tags.
    Tags,
    /// IP header or a header behind it is cut off or contradicts its own lengths.
    Ip,
}

/// What a frame carries, as far as steering goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Not IP, or address resolution: delivered by MAC, never chained. ARP and IPv6 neighbour discovery are here, so
    /// that stations find each other whatever happens to a chain.
    Link,
    /// An IP packet.
    Flow {
        /// The flow it belongs to; of a later fragment, the datagram's key ([`FlowKey::datagram`]).
        key: FlowKey,
        /// First fragment of a datagram with this identification: later ones have no ports and follow it.
        datagram: Option<u32>,
    },
}

/// The parsed start of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Destination address.
    pub dst: Mac,
    /// Source address.
    pub src: Mac,
    /// Identifier of the outermost VLAN tag.
    pub vlan: Option<VlanId>,
    /// Ethertype behind all VLAN tags; below 0x0600 it is an 802.3 length.
    pub ethertype: u16,
    /// Offset of what follows the ethertype, in bytes from the start of the frame.
    pub network_offset: usize,
    /// Length of the whole frame in bytes.
    pub len: usize,
    /// The flow, if it has one.
    pub content: Content,
}

impl Frame {
    /// Parses the first bytes of a frame of `frame_len` bytes. `prefix` may hold less than the frame; it is expected
    /// to hold `min(frame_len, PREFIX_LEN)` bytes. Bytes of `prefix` beyond `frame_len` are not looked at.
    ///
    /// # Errors
    /// [`Malformed`] if no receiver would take the frame.
    #[inline]
    pub fn parse(prefix: &[u8], frame_len: usize) -> Result<Frame, Malformed> {
        match Frame::parse_usual(prefix, frame_len) {
            Some(frame) => Ok(frame),
            None => Frame::parse_any(prefix, frame_len),
        }
    }

    /// The same, if the frame is one of the most common kind.
    #[inline(always)]
    pub(crate) fn parse_usual(prefix: &[u8], frame_len: usize) -> Option<Frame> {
        let key = imprint::usual_flow(prefix, frame_len)?;
        let [d0, d1, d2, d3, d4, d5, src @ ..] = *prefix.first_chunk::<12>()?;
        Some(Frame {
            dst: Mac([d0, d1, d2, d3, d4, d5]),
            src: Mac(src),
            vlan: None,
            ethertype: ETHERTYPE_IPV4,
            network_offset: ETHERNET_LEN,
            len: frame_len,
            content: Content::Flow { key, datagram: None },
        })
    }

    /// The same, whatever the frame is.
    #[inline(never)]
    pub(crate) fn parse_any(prefix: &[u8], frame_len: usize) -> Result<Frame, Malformed> {
        let bytes = Prefix { bytes: prefix.get(..frame_len).unwrap_or(prefix), end: frame_len };
        let [dst, src]: [[u8; 6]; 2] = [bytes.array(0)?, bytes.array(6)?];
        let mut ethertype = bytes.u16(12)?;
        let mut network_offset = ETHERNET_LEN;
        let mut vlan = None;
        for _ in 0..MAX_VLAN_TAGS {
            if !is_tag(ethertype) {
                break;
            }
            let tag = bytes.u16(network_offset)? & 0x0FFF;
            vlan = vlan.or(VlanId::new(tag));
            ethertype = bytes.u16(network_offset.saturating_add(2))?;
            network_offset = network_offset.saturating_add(VLAN_TAG_LEN);
        }
        let content = match ethertype {
            ETHERTYPE_IPV4 => network::ipv4(bytes, network_offset, vlan)?,
            ETHERTYPE_IPV6 => network::ipv6(bytes, network_offset, vlan)?,
            tag if is_tag(tag) => return Err(Malformed::Tags),
            _ => Content::Link,
        };
        Ok(Frame { dst: Mac(dst), src: Mac(src), vlan, ethertype, network_offset, len: frame_len, content })
    }

    /// The flow's key, of an IP packet.
    pub fn flow(&self) -> Option<&FlowKey> {
        match &self.content {
            Content::Link => None,
            Content::Flow { key, .. } => Some(key),
        }
    }
}

pub(crate) const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ | ETHERTYPE_QINQ_OLD)
}

/// Why a field could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Short {
    /// It lies behind the copied prefix but within the frame.
    Prefix,
    /// It lies behind the end of the frame or of the layer around it.
    End,
}

impl From<Short> for Malformed {
    /// The link layer's fields are always within the prefix, so there both mean a runt.
    fn from(_: Short) -> Malformed {
        Malformed::Runt
    }
}

/// The copied bytes and where the layer being parsed ends, which may be behind them.
#[derive(Clone, Copy)]
struct Prefix<'a> {
    bytes: &'a [u8],
    /// Offset of the first byte that is not part of this layer.
    end: usize,
}

impl Prefix<'_> {
    #[inline]
    fn array<const N: usize>(&self, offset: usize) -> Result<[u8; N], Short> {
        let stop = offset.saturating_add(N);
        if stop > self.end {
            return Err(Short::End);
        }
        self.bytes.get(offset..stop).and_then(|field| field.try_into().ok()).ok_or(Short::Prefix)
    }

    #[inline]
    fn u8(&self, offset: usize) -> Result<u8, Short> {
        self.array(offset).map(|[byte]| byte)
    }

    #[inline]
    fn u16(&self, offset: usize) -> Result<u16, Short> {
        self.array(offset).map(u16::from_be_bytes)
    }

    #[inline]
    fn u32(&self, offset: usize) -> Result<u32, Short> {
        self.array(offset).map(u32::from_be_bytes)
    }

    /// Whether `len` bytes from `offset` lie within the layer, copied or not.
    #[inline]
    fn holds(&self, offset: usize, len: usize) -> bool {
        offset.saturating_add(len) <= self.end
    }
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
