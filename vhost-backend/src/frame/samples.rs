//! Frames for tests, built field by field.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{ETHERTYPE_IPV4, Mac};

/// An Ethernet frame with VLAN tags, outermost first, as (TPID, tag control).
pub(crate) fn ethernet(dst: Mac, src: Mac, tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [dst.0, src.0].concat();
    for (tpid, control) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(control.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet; `fragment` is the field with flags and offset.
#[derive(Clone, Debug)]
pub(crate) struct Ipv4 {
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) option_words: u8,
    pub(crate) id: u16,
    pub(crate) fragment: u16,
}

impl Ipv4 {
    pub(crate) const ETHERTYPE: u16 = ETHERTYPE_IPV4;

    pub(crate) fn between(src: [u8; 4], dst: [u8; 4], protocol: u8) -> Ipv4 {
        Ipv4 { src: src.into(), dst: dst.into(), protocol, option_words: 0, id: 7, fragment: 0 }
    }

    pub(crate) fn bytes(&self, payload: &[u8]) -> Vec<u8> {
        let header_len = 20 + 4 * usize::from(self.option_words);
        let total = u16::try_from(header_len + payload.len()).unwrap();
        let mut packet = vec![0x45 + self.option_words, 0];
        packet.extend(total.to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(self.src.octets());
        packet.extend(self.dst.octets());
        packet.resize(header_len, 1);
        packet.extend(payload);
        packet
    }
}

/// An IPv6 packet.
pub(crate) fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    packet
}

/// An IPv6 extension header of `8 * (1 + more)` bytes.
pub(crate) fn extension(next: u8, more: u8) -> Vec<u8> {
    let mut header = vec![next, more];
    header.resize(8 * (1 + usize::from(more)), 0);
    header
}

/// An IPv6 fragment header; `position` in units of 8 bytes.
pub(crate) fn fragment_header(next: u8, position: u16, more: bool, id: u32) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend((position << 3 | u16::from(more)).to_be_bytes());
    header.extend(id.to_be_bytes());
    header
}

/// A UDP datagram with a payload of `len` bytes.
pub(crate) fn udp(src: u16, dst: u16, len: u16) -> Vec<u8> {
    let mut datagram = [src.to_be_bytes(), dst.to_be_bytes(), (8 + len).to_be_bytes(), [0; 2]].concat();
    datagram.resize(usize::from(8 + len), 0xA5);
    datagram
}

/// A TCP segment without options or payload.
pub(crate) fn tcp(src: u16, dst: u16) -> Vec<u8> {
    let mut segment = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xFF, 0xFF, 0, 0, 0, 0]);
    segment
}

/// An ICMP or ICMPv6 message with an identifier.
pub(crate) fn icmp(kind: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![kind, 0, 0, 0, high, low, 0, 1]
}
