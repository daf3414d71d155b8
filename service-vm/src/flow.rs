//! What a firewall rule can match: addresses, protocol and ports of a packet.

use core::net::IpAddr;

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, ip_number};
use nsh::NextProtocol;

/// Addresses, protocol and ports of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number, behind IPv6 extension headers.
    pub protocol: u8,
    /// Source and destination port of TCP, UDP or SCTP. `None` also in a fragment other than the first: dropping
    /// the first is enough, for without it the packet is never whole.
    pub ports: Option<(u16, u16)>,
}

impl Flow {
    /// Reads a packet that is what `next_protocol` says; Ethernet may be VLAN-tagged. `None`: not IP, or too short.
    pub fn of(next_protocol: NextProtocol, bytes: &[u8]) -> Option<Flow> {
        let packet = match next_protocol {
            NextProtocol::ETHERNET => LaxSlicedPacket::from_ethernet(bytes).ok()?,
            NextProtocol::IPV4 | NextProtocol::IPV6 => LaxSlicedPacket::from_ip(bytes).ok()?,
            _ => return None,
        };
        let (src, dst, first, payload): (IpAddr, IpAddr, _, _) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let first = header.fragments_offset().value() == 0;
                (header.source_addr().into(), header.destination_addr().into(), first, ip.payload())
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let extensions = ip.extensions();
                let first = extensions.first_header().is_none_or(|kind| is_first(kind, extensions.slice()));
                (header.source_addr().into(), header.destination_addr().into(), first, ip.payload())
            }
            _ => return None,
        };
        let has_ports = matches!(payload.ip_number, ip_number::TCP | ip_number::UDP | ip_number::SCTP);
        let ports = match payload.payload.first_chunk() {
            Some(&[s0, s1, d0, d1]) if first && has_ports => {
                Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
            }
            _ => None,
        };
        Some(Flow { src, dst, protocol: payload.ip_number.0, ports })
    }
}

/// Whether the extension headers `bytes`, of which the first is of `kind`, make the packet no later fragment.
///
/// etherparse 0.21 can iterate them too, but reads beyond their end where the packet is cut off within one.
fn is_first(mut kind: IpNumber, mut bytes: &[u8]) -> bool {
    while let Some((&[next, len, o0, o1], _)) = bytes.split_first_chunk() {
        let len = match kind {
            ip_number::IPV6_FRAG if u16::from_be_bytes([o0, o1]) >> 3 != 0 => return false,
            ip_number::IPV6_FRAG => 8,
            ip_number::AUTH => 4 * (usize::from(len) + 2),
            ip_number::IPV6_HOP_BY_HOP | ip_number::IPV6_ROUTE | ip_number::IPV6_DEST_OPTIONS => {
                8 * (usize::from(len) + 1)
            }
            _ => return true,
        };
        kind = IpNumber(next);
        bytes = bytes.get(len..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const ADDRESSES: [u8; 12] = [0x52, 0x54, 0, 0, 0, 6, 0x52, 0x54, 0, 0, 0, 5];

    /// An Ethernet frame with IPv4, `fragment` as the flags and offset field, and ports 1234 → `dport`.
    pub(crate) fn ipv4(tags: &[u16], protocol: u8, fragment: u16, dst: [u8; 4], dport: u16) -> Vec<u8> {
        let mut frame = ADDRESSES.to_vec();
        for tag in tags {
            frame.extend([0x81, 0x00]);
            frame.extend(tag.to_be_bytes());
        }
        let [f0, f1] = fragment.to_be_bytes();
        frame.extend([0x08, 0x00, 0x45, 0, 0, 28, 0, 1, f0, f1, 64, protocol, 0, 0, 10, 0, 0, 5]);
        frame.extend(dst);
        frame.extend([0x04, 0xD2]);
        frame.extend(dport.to_be_bytes());
        frame.extend([0, 8, 0, 0]);
        frame
    }

    /// As [`ipv4`], fd00::5 → fd00::6, with the extension headers given.
    pub(crate) fn ipv6(next: u8, extensions: &[u8], dport: u16) -> Vec<u8> {
        let mut frame = ADDRESSES.to_vec();
        let payload = u16::try_from(extensions.len() + 8).unwrap().to_be_bytes();
        frame.extend([0x86, 0xDD, 0x60, 0, 0, 0, payload[0], payload[1], next, 64]);
        for last in [5, 6] {
            frame.extend([0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        frame.extend(extensions);
        frame.extend([0x04, 0xD2]);
        frame.extend(dport.to_be_bytes());
        frame.extend([0, 8, 0, 0]);
        frame
    }

    fn flow(frame: &[u8]) -> Option<Flow> {
        Flow::of(NextProtocol::ETHERNET, frame)
    }

    #[test]
    fn ipv4_with_and_without_tags() {
        let expected = Flow {
            src: "10.0.0.5".parse().unwrap(),
            dst: "10.0.0.6".parse().unwrap(),
            protocol: 17,
            ports: Some((1234, 53)),
        };
        for tags in [&[][..], &[42], &[0x6001, 42]] {
            assert_eq!(flow(&ipv4(tags, 17, 0, [10, 0, 0, 6], 53)), Some(expected), "{tags:?}");
        }
        let packet = &ipv4(&[], 17, 0, [10, 0, 0, 6], 53)[14..];
        assert_eq!(Flow::of(NextProtocol::IPV4, packet), Some(expected));
        assert_eq!(Flow::of(NextProtocol::NSH, packet), None);
    }

    #[test]
    fn ipv6_behind_extension_headers() {
        let hop_by_hop = [44, 0, 1, 4, 0, 0, 0, 0];
        let first_fragment = [17, 0, 0x00, 0x01, 0, 0, 0, 9];
        let later_fragment = [17, 0, 0x00, 0x09, 0, 0, 0, 9];
        let plain = flow(&ipv6(17, &[], 53)).unwrap();
        assert_eq!((plain.protocol, plain.ports), (17, Some((1234, 53))));
        assert_eq!(plain.dst, "fd00::6".parse::<IpAddr>().unwrap());
        let first = flow(&ipv6(0, &[hop_by_hop, first_fragment].concat(), 53)).unwrap();
        assert_eq!(first, plain);
        let later = flow(&ipv6(0, &[hop_by_hop, later_fragment].concat(), 53)).unwrap();
        assert_eq!((later.protocol, later.ports), (17, None));
    }

    /// A header that is all there names a next one that is not.
    #[test]
    fn extension_headers_that_are_cut_off_end_the_walk() {
        let whole = ipv6(0, &[60, 0, 1, 4, 0, 0, 0, 0, 44, 3, 1, 4], 53);
        for len in 54..whole.len() {
            assert_eq!(flow(&whole[..len]).unwrap().ports, None, "{len}");
        }
    }

    #[test]
    fn only_the_first_fragment_has_ports() {
        assert_eq!(flow(&ipv4(&[], 17, 0x2000, [10, 0, 0, 6], 53)).unwrap().ports, Some((1234, 53)));
        assert_eq!(flow(&ipv4(&[], 17, 0x2001, [10, 0, 0, 6], 53)).unwrap().ports, None);
        assert_eq!(flow(&ipv4(&[], 1, 0, [10, 0, 0, 6], 53)).unwrap().ports, None, "ICMP has none");
    }

    #[test]
    fn truncated_frames_are_read_as_far_as_they_go() {
        let frame = ipv4(&[42], 6, 0, [10, 0, 0, 6], 80);
        for len in 0..frame.len() {
            let flow = flow(&frame[..len]);
            assert_eq!(flow.is_some(), len >= 38, "{len}");
            assert_eq!(flow.is_some_and(|flow| flow.ports.is_some()), len >= 42, "{len}");
        }
        let mut arp = frame;
        arp[16..18].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(flow(&arp), None);
    }
}
