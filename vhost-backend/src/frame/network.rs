//! IPv4, IPv6 and the transport headers behind them, read as far as steering needs.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Content, FlowKey, Layer4, Malformed, Prefix, Protocol, Short, VlanId};

/// Extension headers walked before giving up. RFC 8200 section 4.1 names six, each at most once but for one.
const MAX_EXTENSIONS: usize = 8;
const IPV4_MIN_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// An IPv4 packet (RFC 791) at `offset`.
pub(super) fn ipv4(frame: Prefix<'_>, offset: usize, vlan: Option<VlanId>) -> Result<Content, Malformed> {
    let header: [u8; IPV4_MIN_LEN] = frame.array(offset).map_err(|_| Malformed::Ip)?;
    let [version_ihl, _, len0, len1, id0, id1, frag0, frag1, _, protocol, _, _, rest @ ..] = header;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = rest;
    let header_len = usize::from(version_ihl & 0x0F).saturating_mul(4);
    let total_len = usize::from(u16::from_be_bytes([len0, len1]));
    if version_ihl >> 4 != 4
        || header_len < IPV4_MIN_LEN
        || total_len < header_len
        || !frame.holds(offset, total_len)
    {
        return Err(Malformed::Ip);
    }
    let (src, dst) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    let (protocol, id) = (Protocol(protocol), u32::from(u16::from_be_bytes([id0, id1])));
    let fragment = u16::from_be_bytes([frag0, frag1]);
    let (more, position) = (fragment & 0x2000 != 0, fragment & 0x1FFF);

    let layer4 = if position == 0 {
        let packet = Prefix { end: offset.saturating_add(total_len), ..frame };
        transport(packet, offset.saturating_add(header_len), protocol)?
    } else {
        Layer4::Datagram { protocol: Some(protocol), id }
    };
    let datagram = (position == 0 && more).then_some(id);
    Ok(Content::Flow { key: FlowKey::v4(src, dst, layer4, vlan), datagram })
}

/// An IPv6 packet (RFC 8200) at `offset`, with a bounded walk over its extension headers.
pub(super) fn ipv6(frame: Prefix<'_>, offset: usize, vlan: Option<VlanId>) -> Result<Content, Malformed> {
    let header: [u8; IPV6_LEN] = frame.array(offset).map_err(|_| Malformed::Ip)?;
    let [version, _, _, _, len0, len1, next, hop_limit, addresses @ ..] = header;
    let payload_len = usize::from(u16::from_be_bytes([len0, len1]));
    let start = offset.saturating_add(IPV6_LEN);
    if version >> 4 != 6 || !frame.holds(start, payload_len) {
        return Err(Malformed::Ip);
    }
    let (src, dst) = split_addresses(addresses);
    // A length of 0 with a hop-by-hop header announces a jumbogram (RFC 2675), whose length is in that header.
    let jumbo = payload_len == 0 && next == 0;
    let end = if jumbo { frame.end } else { start.saturating_add(payload_len) };
    let upper = walk(Prefix { end, ..frame }, start, next)?;
    if hop_limit == 255 && upper.neighbour {
        return Ok(Content::Link);
    }
    Ok(Content::Flow { key: FlowKey::v6(src, dst, upper.layer4, vlan), datagram: upper.datagram })
}

fn split_addresses(bytes: [u8; 32]) -> (Ipv6Addr, Ipv6Addr) {
    let mut both = [[0u8; 16]; 2];
    for (address, half) in both.iter_mut().zip(bytes.chunks_exact(16)) {
        address.copy_from_slice(half);
    }
    let [src, dst] = both;
    (Ipv6Addr::from(src), Ipv6Addr::from(dst))
}

/// What the walk over the extension headers found.
struct Upper {
    layer4: Layer4,
    datagram: Option<u32>,
    /// Neighbour discovery (RFC 4861 section 4): valid only with a hop limit of 255.
    neighbour: bool,
}

impl Upper {
    const fn of(layer4: Layer4, datagram: Option<u32>) -> Upper {
        Upper { layer4, datagram, neighbour: false }
    }
}

fn walk(packet: Prefix<'_>, start: usize, first: u8) -> Result<Upper, Malformed> {
    let (mut next, mut offset, mut datagram) = (first, start, None);
    for _ in 0..MAX_EXTENSIONS {
        let [following, len] = match next {
            // hop-by-hop, routing, fragment, authentication, destination options, mobility, HIP, shim6
            0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => match packet.array(offset) {
                Ok(start) => start,
                Err(Short::Prefix) => {
                    return Ok(Upper::of(Layer4::Unreadable { protocol: None }, datagram));
                }
                Err(Short::End) => return Err(Malformed::Ip),
            },
            _ => return upper(packet, offset, Protocol(next), datagram),
        };
        let header_len = match next {
            44 => {
                let Fragment { position, more, id } = match fragment(packet, offset) {
                    Ok(fragment) => fragment,
                    Err(Short::Prefix) => {
                        return Ok(Upper::of(Layer4::Unreadable { protocol: None }, datagram));
                    }
                    Err(Short::End) => return Err(Malformed::Ip),
                };
                if position != 0 {
                    let protocol = (!is_extension(following)).then_some(Protocol(following));
                    return Ok(Upper::of(Layer4::Datagram { protocol, id }, None));
                }
                // Offset 0 and no more to come is an atomic fragment: a whole packet (RFC 6946).
                if more {
                    datagram = Some(id);
                }
                8
            }
            51 => usize::from(len).saturating_add(2).saturating_mul(4),
            _ => usize::from(len).saturating_add(1).saturating_mul(8),
        };
        if !packet.holds(offset, header_len) {
            return Err(Malformed::Ip);
        }
        offset = offset.saturating_add(header_len);
        next = following;
    }
    Ok(Upper::of(Layer4::Unreadable { protocol: None }, datagram))
}

const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
}

struct Fragment {
    position: u16,
    more: bool,
    id: u32,
}

fn fragment(packet: Prefix<'_>, offset: usize) -> Result<Fragment, Short> {
    let flags = packet.u16(offset.saturating_add(2))?;
    let id = packet.u32(offset.saturating_add(4))?;
    Ok(Fragment { position: flags >> 3, more: flags & 1 == 1, id })
}

fn upper(
    packet: Prefix<'_>,
    offset: usize,
    protocol: Protocol,
    datagram: Option<u32>,
) -> Result<Upper, Malformed> {
    let layer4 = transport(packet, offset, protocol)?;
    let neighbour =
        protocol == Protocol::ICMPV6 && datagram.is_none() && matches!(packet.u8(offset), Ok(133..=137));
    Ok(Upper { layer4, datagram, neighbour })
}

/// The shortest header of a protocol whose fields we read.
const fn shortest(protocol: Protocol) -> usize {
    match protocol {
        Protocol::TCP => 20,
        Protocol::UDP | Protocol::UDP_LITE => 8,
        Protocol::SCTP | Protocol::DCCP => 12,
        Protocol::ICMP | Protocol::ICMPV6 => 4,
        _ => 0,
    }
}

/// The transport header of a whole packet or of a first fragment. One cut short is refused, also in a fragment: tiny
/// fragments exist to slip past filters (RFC 1858, RFC 7112).
fn transport(packet: Prefix<'_>, offset: usize, protocol: Protocol) -> Result<Layer4, Malformed> {
    if !packet.holds(offset, shortest(protocol)) {
        return Err(Malformed::Ip);
    }
    let unreadable = Layer4::Unreadable { protocol: Some(protocol) };
    if protocol.has_ports() {
        let ports = (packet.u16(offset), packet.u16(offset.saturating_add(2)));
        return Ok(match ports {
            (Ok(src), Ok(dst)) => Layer4::Ports { protocol, src, dst },
            _ => unreadable,
        });
    }
    let query = match (protocol, packet.u8(offset)) {
        // echo, timestamp, information and address mask, request and reply (RFC 792, RFC 950); echo (RFC 4443)
        (Protocol::ICMP, Ok(0 | 8 | 13..=18)) | (Protocol::ICMPV6, Ok(128 | 129)) => true,
        (Protocol::ICMP | Protocol::ICMPV6, Err(_)) => return Ok(unreadable),
        _ => false,
    };
    if !query {
        return Ok(Layer4::Plain { protocol });
    }
    match packet.u16(offset.saturating_add(4)) {
        Ok(id) => Ok(Layer4::Query { protocol, id }),
        Err(Short::Prefix) => Ok(unreadable),
        Err(Short::End) => Err(Malformed::Ip),
    }
}
