//! What the sender of a frame that does not fit is told: ICMPv4 "fragmentation needed" (RFC 792, RFC 1191 section 4) and
//! ICMPv6 "packet too big" (RFC 4443 section 3.2).
//!
//! A bridge has no address of its own, so the answer comes from the station the packet was for, as at the ends of
//! transparent tunnels. It is written straight into the sender's receive ring, past all chains: no service sees it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use crate::frame::{Extent, IpLayers, IpVersion, Layers, Mac, Protocol};

/// The longest answer in bytes: Ethernet, four VLAN tags, and what IPv6 guarantees to deliver.
pub const MAX_ANSWER_LEN: usize = 14 + 16 + 1280;

/// RFC 1812 section 4.3.2.3: an ICMP message of at most 576 bytes.
const V4_LONGEST: usize = 576;
/// RFC 4443 section 3.2: as much as fits the minimum MTU of IPv6.
const V6_LONGEST: usize = 1280;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
const HOPS: u8 = 64;
/// RFC 1812 section 4.3.2.5: internetwork control.
const PRECEDENCE: u8 = 0xC0;
const DONT_FRAGMENT: u16 = 0x4000;

/// An answer to the sender of a packet that is too big.
#[derive(Clone)]
pub struct TooBig {
    bytes: [u8; MAX_ANSWER_LEN],
    len: usize,
}

impl Default for TooBig {
    fn default() -> Self {
        TooBig { bytes: [0; MAX_ANSWER_LEN], len: 0 }
    }
}

impl TooBig {
    /// The frame to send back; empty before the first [`write`](Self::write) and after one that gave `None`.
    pub fn frame(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Writes the answer to a frame of `frame_len` bytes that begins with `original`: packets of `mtu` bytes would pass. The
    /// more of the frame is given, the more is quoted. `None` where none may be sent: an IPv4 packet that may be fragmented,
    /// an ICMP error, a later fragment, an address that stands for more or less than one station (RFC 1812 section 4.3.2.7,
    /// RFC 4443 section 2.4(e)), or a packet whose headers do not show which of these it is.
    pub fn write(&mut self, original: &[u8], frame_len: usize, mtu: u16) -> Option<()> {
        self.len = 0;
        let layers = Layers::parse(original, frame_len).ok()?;
        let ip = layers.ip.filter(|ip| ip.extent != Extent::Later)?;
        let link = Link::answering(original)?;
        let packet = original.get(layers.network..original.len().min(ip.end))?;
        let transport = original.get(ip.upper..).unwrap_or_default();
        let (head, quoted) = match ip.version {
            IpVersion::V4 => ipv4(packet, &ip, transport, mtu)?,
            IpVersion::V6 => ipv6(packet, &ip, transport, mtu)?,
        };
        // VLAN tags and ethertype stay as they were.
        let parts = [&link.dst.0[..], &link.src.0, original.get(12..layers.network)?, head.bytes(), quoted];
        let mut at = 0_usize;
        for part in parts {
            let end = at.checked_add(part.len())?;
            self.bytes.get_mut(at..end)?.copy_from_slice(part);
            at = end;
        }
        self.len = at;
        Some(())
    }
}

/// The addresses of the way back.
struct Link {
    dst: Mac,
    src: Mac,
}

impl Link {
    fn answering(original: &[u8]) -> Option<Link> {
        let (dst, rest) = original.split_first_chunk::<6>()?;
        let (dst, src) = (Mac(*dst), Mac(*rest.first_chunk::<6>()?));
        (dst.is_station() && src.is_station()).then_some(Link { dst: src, src: dst })
    }
}

/// IP and ICMP header of the answer.
enum Head {
    V4([u8; V4_HEADER + ICMP_HEADER]),
    V6([u8; V6_HEADER + ICMP_HEADER]),
}

impl Head {
    fn bytes(&self) -> &[u8] {
        match self {
            Head::V4(bytes) => bytes,
            Head::V6(bytes) => bytes,
        }
    }
}

fn ipv4<'a>(packet: &'a [u8], ip: &IpLayers, transport: &[u8], mtu: u16) -> Option<(Head, &'a [u8])> {
    let header = packet.first_chunk::<V4_HEADER>()?;
    let [_, _, _, _, _, _, f0, f1, _, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let (src, dst) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
    // destination unreachable, source quench, redirect, time exceeded, parameter problem
    let about_error =
        ip.protocol == Some(Protocol::ICMP) && matches!(transport.first(), None | Some(3..=5 | 11 | 12));
    let may_fragment = u16::from_be_bytes([f0, f1]) & DONT_FRAGMENT == 0;
    if may_fragment || about_error || !is_host(src.into()) || !is_host(dst.into()) {
        return None;
    }
    let quoted = packet.get(..packet.len().min(V4_LONGEST - V4_HEADER - ICMP_HEADER))?;
    let [l0, l1] = u16::try_from(quoted.len().checked_add(V4_HEADER + ICMP_HEADER)?).ok()?.to_be_bytes();
    let [df, _] = DONT_FRAGMENT.to_be_bytes();
    let [m0, m1] = mtu.to_be_bytes();
    let mut icmp = [3, 4, 0, 0, 0, 0, m0, m1];
    seal(&mut icmp, Sum::default(), quoted);
    let [t, c, k0, k1, ..] = icmp;
    let [version, protocol] = [0x45, Protocol::ICMP.0];
    let mut bytes = [
        version, PRECEDENCE, l0, l1, 0, 0, df, 0, HOPS, protocol, 0, 0, d0, d1, d2, d3, s0, s1, s2, s3, t, c,
        k0, k1, 0, 0, m0, m1,
    ];
    let [c0, c1] = Sum::default().add(bytes.first_chunk::<V4_HEADER>()?).checksum();
    let [_, _, _, _, _, _, _, _, _, _, f0, f1, ..] = &mut bytes;
    (*f0, *f1) = (c0, c1);
    Some((Head::V4(bytes), quoted))
}

fn ipv6<'a>(packet: &'a [u8], ip: &IpLayers, transport: &[u8], mtu: u16) -> Option<(Head, &'a [u8])> {
    let addresses = packet.get(8..V6_HEADER)?;
    let (src, dst) = (addresses.first_chunk::<16>()?, addresses.last_chunk::<16>()?);
    let about_error = match ip.protocol? {
        Protocol::ICMPV6 => matches!(transport.first(), None | Some(0..=127 | 137)),
        _ => false,
    };
    if about_error || !is_host6(Ipv6Addr::from(*src)) || !is_host6(Ipv6Addr::from(*dst)) {
        return None;
    }
    let quoted = packet.get(..packet.len().min(V6_LONGEST - V6_HEADER - ICMP_HEADER))?;
    let len = u16::try_from(quoted.len().checked_add(ICMP_HEADER)?).ok()?;
    let [m0, m1] = mtu.to_be_bytes();
    let mut icmp = [2, 0, 0, 0, 0, 0, m0, m1];
    // The pseudo-header of RFC 8200 section 8.1; both addresses, in either order.
    let pseudo = Sum::default().add(addresses).add_word(len).add_word(u16::from(Protocol::ICMPV6.0));
    seal(&mut icmp, pseudo, quoted);
    let [l0, l1] = len.to_be_bytes();
    let front = [0x60, 0, 0, 0, l0, l1, Protocol::ICMPV6.0, HOPS];
    let mut bytes = [0; V6_HEADER + ICMP_HEADER];
    for (to, from) in bytes.iter_mut().zip(front.iter().chain(dst).chain(src).chain(&icmp)) {
        *to = *from;
    }
    Some((Head::V6(bytes), quoted))
}

/// Writes the checksum of an ICMP message.
fn seal(icmp: &mut [u8; ICMP_HEADER], pseudo: Sum, quoted: &[u8]) {
    let [c0, c1] = pseudo.add(icmp).add(quoted).checksum();
    let [_, _, f0, f1, ..] = icmp;
    (*f0, *f1) = (c0, c1);
}

/// Stands for one station: RFC 1812 section 4.3.2.7, RFC 6890.
fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 224 && !address.is_loopback()
}

fn is_host6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

#[cfg(test)]
mod tests;
