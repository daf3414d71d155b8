//! The 5-tuple and VLAN of a flow as five words, and its hash.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::VlanId;

/// An IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Protocol = Protocol(1);
    /// TCP.
    pub const TCP: Protocol = Protocol(6);
    /// UDP.
    pub const UDP: Protocol = Protocol(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Protocol = Protocol(58);
    /// SCTP.
    pub const SCTP: Protocol = Protocol(132);
    /// DCCP.
    pub const DCCP: Protocol = Protocol(33);
    /// UDP-Lite.
    pub const UDP_LITE: Protocol = Protocol(136);

    /// Its header begins with a source and a destination port.
    pub const fn has_ports(self) -> bool {
        matches!(self, Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::DCCP | Protocol::UDP_LITE)
    }
}

/// The transport ports of a flow, as a policy sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Both were read.
    Known {
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// The protocol has none.
    Absent,
    /// The packet does not show them: a later fragment, or headers that reach beyond the copied prefix. A policy must
    /// assume that they might be any.
    Unknown,
}

/// What distinguishes flows between the same two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer4 {
    /// TCP, UDP and their kin.
    Ports {
        /// The protocol.
        protocol: Protocol,
        /// Source port.
        src: u16,
        /// Destination port.
        dst: u16,
    },
    /// A query and its answer that share an identifier, like ICMP echo.
    Query {
        /// The protocol.
        protocol: Protocol,
        /// The identifier, the same in both directions.
        id: u16,
    },
    /// The protocol alone.
    Plain {
        /// The protocol.
        protocol: Protocol,
    },
    /// A later fragment: the datagram it belongs to.
    Datagram {
        /// `None` behind IPv6 extension headers that only the first fragment shows whole.
        protocol: Option<Protocol>,
        /// Identification field; 16 bits in IPv4, 32 in IPv6.
        id: u32,
    },
    /// The headers reach beyond the copied prefix.
    Unreadable {
        /// `None` if even the protocol was not reached.
        protocol: Option<Protocol>,
    },
}

/// A flow: addresses, ports, protocol and VLAN in a fixed form that is compared and hashed as five words.
///
/// ```text
/// word 0, 1   source address, 128 bits; IPv4 in the low 32
/// word 2, 3   destination address
/// word 4      source port:16 | destination port:16 | VLAN tagged:1 0:3 id:12 | protocol:8 | kind:8
/// ```
///
/// The ports of an ICMP query are its identifier twice, so that request and reply are each other's reverse.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey([u64; 5]);

/// Fields of word 4, and of its kind byte.
mod word4 {
    pub(super) const SRC_PORT: u64 = 0xFFFF << 48;
    pub(super) const DST_PORT: u64 = 0xFFFF << 32;
    pub(super) const VLAN: u64 = 0xFFFF << 16;
    pub(super) const PROTOCOL: u64 = 0xFF << 8;
    pub(super) const VLAN_TAGGED: u64 = 0x8000 << 16;
    /// IPv6; clear means IPv4.
    pub(super) const V6: u64 = 1;
    /// The port fields hold ports.
    pub(super) const HAS_PORTS: u64 = 1 << 1;
    /// The port fields hold a datagram's identification.
    pub(super) const DATAGRAM: u64 = 1 << 2;
    /// The headers with the ports were not seen.
    pub(super) const PORTS_UNKNOWN: u64 = 1 << 3;
    /// The protocol was not seen either.
    pub(super) const PROTOCOL_UNKNOWN: u64 = 1 << 4;
}

impl FlowKey {
    /// The unspecified IPv4 address to itself, protocol 0: no real flow.
    pub(crate) const NONE: FlowKey = FlowKey([0; 5]);

    /// A flow between two IPv4 hosts.
    pub fn v4(src: Ipv4Addr, dst: Ipv4Addr, layer4: Layer4, vlan: Option<VlanId>) -> FlowKey {
        FlowKey([
            0,
            u64::from(src.to_bits()),
            0,
            u64::from(dst.to_bits()),
            layer4_word(layer4) | vlan_word(vlan),
        ])
    }

    /// A flow between two IPv4 hosts, without VLAN, as its headers have it: `ports` are those of source and destination,
    /// which the protocol has.
    #[inline]
    pub(super) const fn v4_usual(src: u32, dst: u32, ports: u32, protocol: Protocol) -> FlowKey {
        let word = (ports as u64) << 32 | (protocol.0 as u64) << 8 | word4::HAS_PORTS;
        FlowKey([0, src as u64, 0, dst as u64, word])
    }

    /// A flow between two IPv6 hosts.
    pub fn v6(src: Ipv6Addr, dst: Ipv6Addr, layer4: Layer4, vlan: Option<VlanId>) -> FlowKey {
        let [src_high, src_low] = halves(src.to_bits());
        let [dst_high, dst_low] = halves(dst.to_bits());
        let word = layer4_word(layer4) | vlan_word(vlan) | word4::V6;
        FlowKey([src_high, src_low, dst_high, dst_low, word])
    }

    /// Whether it is the same, without a branch for each word: most comparisons find that it is.
    #[inline]
    pub(crate) const fn is(&self, other: &FlowKey) -> bool {
        let ([a, b, c, d, e], [f, g, h, i, j]) = (self.0, other.0);
        (a ^ f) | (b ^ g) | (c ^ h) | (d ^ i) | (e ^ j) == 0
    }

    /// The key of a datagram's later fragments, made from the first one's.
    pub fn datagram(self, id: u32) -> FlowKey {
        let [a, b, c, d, word] = self.0;
        let kept = word & (word4::VLAN | word4::PROTOCOL | word4::V6 | word4::PROTOCOL_UNKNOWN);
        FlowKey([a, b, c, d, kept | (u64::from(id) << 32) | word4::DATAGRAM | word4::PORTS_UNKNOWN])
    }

    /// The opposite direction. Its own inverse.
    #[must_use]
    pub const fn reversed(self) -> FlowKey {
        let [a, b, c, d, word] = self.0;
        let ports = ((word & word4::SRC_PORT) >> 16) | ((word & word4::DST_PORT) << 16);
        FlowKey([c, d, a, b, ports | (word & 0xFFFF_FFFF)])
    }

    /// A 64-bit hash that is the same for both directions, so that both find one record in a table and come to one
    /// shard or worker.
    ///
    /// Each end (address and port) is mixed on its own by folded 64x64→128-bit multiplications, the two results are
    /// added (which makes the hash symmetric), and the sum is mixed with the protocol and VLAN. `seed` is secret from
    /// guests, so that they cannot aim at one bucket; workers that share flows share the seed. All 64 bits are usable.
    #[inline]
    pub const fn hash(&self, seed: u64) -> FlowHash {
        let [a, b, c, d, word] = self.0;
        let src = mix_end(a, b, (word & word4::SRC_PORT) >> 48, seed);
        let dst = mix_end(c, d, (word & word4::DST_PORT) >> 32, seed);
        let rest = word & 0xFFFF_FFFF;
        let sum = src.wrapping_add(dst);
        let ends = fold(sum ^ K[3], (src ^ dst) ^ K[4]);
        FlowHash(fold(ends ^ rest ^ seed, K[5]) ^ ends)
    }

    /// Source address.
    pub fn src(&self) -> IpAddr {
        let [high, low, ..] = self.0;
        self.address(high, low)
    }

    /// Destination address.
    pub fn dst(&self) -> IpAddr {
        let [_, _, high, low, _] = self.0;
        self.address(high, low)
    }

    /// Protocol behind the IP header; `None` if the packet did not show it.
    pub const fn protocol(&self) -> Option<Protocol> {
        let word = self.word();
        if word & word4::PROTOCOL_UNKNOWN != 0 { None } else { Some(Protocol(field(word, 8) as u8)) }
    }

    /// Ports, as a policy sees them.
    pub const fn ports(&self) -> Ports {
        let word = self.word();
        if word & word4::HAS_PORTS != 0 {
            Ports::Known { src: field(word, 48), dst: field(word, 32) }
        } else if word & word4::PORTS_UNKNOWN != 0 {
            Ports::Unknown
        } else {
            Ports::Absent
        }
    }

    /// Identifier of the outermost VLAN tag.
    pub const fn vlan(&self) -> Option<VlanId> {
        let word = self.word();
        if word & word4::VLAN_TAGGED == 0 { None } else { VlanId::new(field(word, 16) & 0x0FFF) }
    }

    /// Names later fragments of one datagram, which has no reverse.
    pub const fn is_datagram(&self) -> bool {
        self.word() & word4::DATAGRAM != 0
    }

    const fn word(&self) -> u64 {
        let [.., word] = self.0;
        word
    }

    fn address(&self, high: u64, low: u64) -> IpAddr {
        if self.word() & word4::V6 == 0 {
            IpAddr::V4(Ipv4Addr::from_bits((low & 0xFFFF_FFFF) as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits((u128::from(high) << 64) | u128::from(low)))
        }
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("FlowKey");
        out.field("src", &self.src()).field("dst", &self.dst()).field("protocol", &self.protocol());
        if self.is_datagram() {
            out.field("datagram", &(self.word() >> 32));
        } else {
            out.field("ports", &self.ports());
        }
        out.field("vlan", &self.vlan()).finish()
    }
}

/// The hash of a flow, the same for both directions. See [`FlowKey::hash`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowHash(u64);

impl FlowHash {
    /// The 64 bits.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// This flow's weight for one of several candidates, for rendezvous hashing.
    #[inline]
    pub(crate) const fn weight(self, candidate: u64) -> u64 {
        fold(self.0 ^ K[1], candidate.wrapping_mul(K[0]) ^ K[2])
    }
}

/// The low 16 bits of `word` shifted right by `shift`.
const fn field(word: u64, shift: u32) -> u16 {
    ((word >> shift) & 0xFFFF) as u16
}

fn halves(bits: u128) -> [u64; 2] {
    [(bits >> 64) as u64, bits as u64]
}

fn vlan_word(vlan: Option<VlanId>) -> u64 {
    vlan.map_or(0, |id| word4::VLAN_TAGGED | (u64::from(id.get()) << 16))
}

fn layer4_word(layer4: Layer4) -> u64 {
    let protocol_bits = |protocol: Option<Protocol>| {
        protocol.map_or(word4::PROTOCOL_UNKNOWN, |number| u64::from(number.0) << 8)
    };
    let port_bits = |src: u16, dst: u16| (u64::from(src) << 48) | (u64::from(dst) << 32);
    match layer4 {
        Layer4::Ports { protocol, src, dst } => {
            protocol_bits(Some(protocol)) | port_bits(src, dst) | word4::HAS_PORTS
        }
        Layer4::Query { protocol, id } => protocol_bits(Some(protocol)) | port_bits(id, id),
        Layer4::Plain { protocol } => protocol_bits(Some(protocol)),
        Layer4::Datagram { protocol, id } => {
            protocol_bits(protocol) | (u64::from(id) << 32) | word4::DATAGRAM | word4::PORTS_UNKNOWN
        }
        Layer4::Unreadable { protocol } => protocol_bits(protocol) | word4::PORTS_UNKNOWN,
    }
}

/// Odd constants without structure: the fraction of pi.
pub(super) const K: [u64; 6] = [
    0x243F_6A88_85A3_08D3,
    0x1319_8A2E_0370_7345,
    0xA409_3822_299F_31D1,
    0x082E_FA98_EC4E_6C89,
    0x4528_21E6_38D0_1377,
    0xBE54_66CF_34E9_0C6D,
];

const fn mix_end(high: u64, low: u64, port: u64, seed: u64) -> u64 {
    let address = fold(high ^ K[0] ^ seed, low ^ K[1] ^ seed.rotate_left(32));
    fold(address ^ port, K[2] ^ seed)
}

/// The high and low half of the 128-bit product, xored.
#[inline]
pub(super) const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}
