//! What tells the most common frames apart, read from fixed places.

use super::flow_key::{K, fold};
use super::{ETHERTYPE_IPV4, FlowKey, Protocol, is_tag};

/// Two frames with one imprint, on one port, are decided alike: it holds every field that a decision looks at.
///
/// ```text
/// plain    untagged IPv4 without options, whole, TCP or UDP, with lengths that fit:
///          both MAC addresses, both IP addresses, protocol, both ports
/// in NSH   type 1 with 16 bytes of context, an untagged Ethernet frame inside:
///          base header, service path header, the inner Ethernet header
/// ```
#[derive(Clone, Copy, Debug, Default, Eq)]
pub struct Imprint([u64; 4]);

impl PartialEq for Imprint {
    /// Without a branch for each word: most comparisons find them equal.
    #[inline]
    fn eq(&self, other: &Imprint) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }
}

/// Marks the words of a frame in NSH; those of a plain one have no such bit.
const IN_NSH: u64 = 1 << 63;
/// Ethernet, NSH with its context.
const OUTER: usize = nsh::ENCAP_LEN;
/// Ethernet, IPv4 without options, and the ports.
const PLAIN: usize = 38;
/// Version, O bit, length, MD type and next protocol of the base header (RFC 8300 section 2.2).
const SHAPE: u32 = 0xE03F_0FFF;
/// Version 0, no O bit, six words, type 1, Ethernet.
const MD1_ETHERNET: u32 = 0x0006_0103;

impl Imprint {
    /// Of a plain frame of `len` bytes that begins with `prefix`; `None` for the less common.
    #[inline]
    pub fn plain(prefix: &[u8], len: usize) -> Option<Imprint> {
        let head = usual(prefix, len)?;
        let (source, ports, protocol) = (u32_at(head, 8), u32_at(head, 34), head[23]);
        let rest = u64::from(source) << 32 | u64::from(ports);
        Some(Imprint([u64_at(head, 0), rest, u64_at(head, 26), u64::from(protocol)]))
    }

    /// Of a frame that a service VM sent; `None` for the less common.
    #[inline]
    pub fn in_nsh(prefix: &[u8]) -> Option<Imprint> {
        let head: &[u8; OUTER + super::ETHERNET_LEN] = prefix.first_chunk()?;
        let (ethertype, base, inner) = (u16_at(head, 12), u32_at(head, 14), u16_at(head, OUTER + 12));
        if ethertype != nsh::ETHERTYPE || base & SHAPE != MD1_ETHERNET || is_tag(inner) {
            return None;
        }
        let header = u64_at(head, 14);
        let (macs, rest) = (u64_at(head, OUTER), u64_at(head, OUTER + 6));
        Some(Imprint([header, macs, rest, IN_NSH]))
    }

    /// A number to find it by. `seed` is secret from guests.
    #[inline]
    pub fn hash(&self, seed: u64) -> u64 {
        let [a, b, c, d] = self.0;
        fold(a ^ seed ^ K[0], b ^ K[1]) ^ fold(c ^ seed ^ K[2], d ^ K[3])
    }
}

/// The beginning of a frame of `len` bytes with every field at its most common place: untagged IPv4 without options, whole,
/// TCP or UDP, with lengths that fit.
#[inline]
fn usual(prefix: &[u8], len: usize) -> Option<&[u8; PLAIN]> {
    let head: &[u8; PLAIN] = prefix.first_chunk()?;
    let (ethertype, version_ihl) = (u16_at(head, 12), head[14]);
    let (total, fragment, protocol) = (u16_at(head, 16), u16_at(head, 20), head[23]);
    let transport = match Protocol(protocol) {
        Protocol::TCP => 20,
        Protocol::UDP => 8,
        _ => return None,
    };
    let total = usize::from(total);
    // DF is the one bit of that field which may be set.
    let whole = fragment & 0xBFFF == 0 && total >= 20 + transport && total + super::ETHERNET_LEN <= len;
    (ethertype == ETHERTYPE_IPV4 && version_ihl == 0x45 && whole).then_some(head)
}

/// The flow of such a frame.
#[inline(always)]
pub(super) fn usual_flow(prefix: &[u8], len: usize) -> Option<FlowKey> {
    let head = usual(prefix, len)?;
    Some(FlowKey::v4_usual(u32_at(head, 26), u32_at(head, 30), u32_at(head, 34), Protocol(head[23])))
}

// The offsets below are constants within the array; the compiler sees that and checks nothing at run time.

#[inline]
fn u16_at<const N: usize>(head: &[u8; N], at: usize) -> u16 {
    head.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

#[inline]
fn u32_at<const N: usize>(head: &[u8; N], at: usize) -> u32 {
    head.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[inline]
fn u64_at<const N: usize>(head: &[u8; N], at: usize) -> u64 {
    head.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{Ipv4, ethernet, tcp, udp};
    use super::super::{Content, Frame, Mac};
    use super::*;

    const DST: Mac = Mac([0x52, 0x54, 0, 0, 0, 6]);
    const SRC: Mac = Mac([0x52, 0x54, 0, 0, 0, 5]);

    fn frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let packet = Ipv4::between([10, 0, 0, 5], [10, 0, 0, 6], protocol).bytes(payload);
        ethernet(DST, SRC, &[], Ipv4::ETHERTYPE, &packet)
    }

    fn plain(bytes: &[u8]) -> Option<Imprint> {
        Imprint::plain(bytes, bytes.len())
    }

    fn in_nsh(inner: &[u8]) -> Vec<u8> {
        let header = nsh::Header {
            oam: false,
            ttl: nsh::Ttl::ORIGIN,
            next_protocol: nsh::NextProtocol::ETHERNET,
            spi: nsh::Spi::MAX,
            si: nsh::Si::new(3),
            context: nsh::Context::default().to_bytes(),
        };
        [&nsh::encap([1; 6], [2; 6], &header)[..], inner].concat()
    }

    #[test]
    fn whole_tcp_and_udp_have_one_and_all_else_has_none() {
        assert!(plain(&frame(17, &udp(1, 2, 10))).is_some());
        assert!(plain(&frame(6, &tcp(1, 2))).is_some());
        assert_eq!(plain(&frame(1, &[8, 0, 0, 0, 0, 1, 0, 1])), None, "ICMP");
        assert_eq!(plain(&frame(6, &tcp(1, 2)[..12])), None, "a TCP header cut short");
        let packet = |ip: Ipv4| ethernet(DST, SRC, &[], Ipv4::ETHERTYPE, &ip.bytes(&udp(1, 2, 10)));
        let ip = || Ipv4::between([10, 0, 0, 5], [10, 0, 0, 6], 17);
        assert_eq!(plain(&packet(Ipv4 { option_words: 1, ..ip() })), None, "options");
        assert_eq!(plain(&packet(Ipv4 { fragment: 0x2000, ..ip() })), None, "a first fragment");
        assert_eq!(plain(&packet(Ipv4 { fragment: 7, ..ip() })), None, "a later one");
        assert!(plain(&packet(Ipv4 { fragment: 0x4000, ..ip() })).is_some(), "do not fragment");
        let tagged = ethernet(DST, SRC, &[(0x8100, 5)], Ipv4::ETHERTYPE, &ip().bytes(&udp(1, 2, 10)));
        assert_eq!(plain(&tagged), None);
        let whole = packet(ip());
        assert_eq!(Imprint::plain(&whole, whole.len() - 1), None, "shorter than it says");
    }

    #[test]
    fn of_a_frame_in_nsh_headers_and_inner_addresses_count() {
        let inner = frame(17, &udp(1, 2, 10));
        let bytes = in_nsh(&inner);
        let imprint = Imprint::in_nsh(&bytes).unwrap();
        let with = |at: usize| {
            let mut other = bytes.clone();
            other[at] ^= 1;
            Imprint::in_nsh(&other)
        };
        for at in [15, 16, 18, 19, 20, 21].into_iter().chain(38..52) {
            assert_ne!(with(at), Some(imprint), "byte {at}");
        }
        for at in (0..12).chain(22..38).chain([52, 60]) {
            assert_eq!(with(at), Some(imprint), "byte {at} tells nothing");
        }
        assert_eq!(Imprint::in_nsh(&inner), None);
        assert_eq!(Imprint::in_nsh(&in_nsh(&ethernet(DST, SRC, &[(0x8100, 5)], 0x0800, &[0; 40]))), None);
        assert_ne!(Some(imprint), plain(&inner));
    }

    proptest! {
        #[test]
        fn a_frame_is_read_alike_from_fixed_places_and_step_by_step(
            changes in proptest::collection::vec((0..42_usize, any::<u8>()), 0..4),
            shorter in 0..20_usize,
            protocol in prop_oneof![Just(6_u8), Just(17)],
        ) {
            let mut bytes = frame(protocol, &if protocol == 6 { tcp(1000, 80) } else { udp(1000, 80, 12) });
            for (at, value) in changes {
                bytes[at] = value;
            }
            for len in [bytes.len(), bytes.len() - shorter, bytes.len() + shorter] {
                prop_assert_eq!(Frame::parse(&bytes, len), Frame::parse_any(&bytes, len));
            }
        }

        /// Whatever else differs: frames with one imprint have the same flow and addresses.
        #[test]
        fn one_imprint_is_one_flow(change in any::<prop::sample::Index>(), value in any::<u8>(), protocol in prop_oneof![Just(6_u8), Just(17)]) {
            let payload = if protocol == 6 { tcp(1000, 80) } else { udp(1000, 80, 12) };
            let bytes = frame(protocol, &payload);
            let mut other = bytes.clone();
            other[change.index(bytes.len())] = value;
            let (a, b) = (plain(&bytes), plain(&other));
            if let Some(imprint) = b {
                let parsed = [&bytes, &other].map(|bytes| Frame::parse(bytes, bytes.len()).unwrap());
                let told = parsed.map(|frame| (frame.dst, frame.src, frame.vlan, frame.content));
                prop_assert_eq!(a == Some(imprint), told[0] == told[1]);
                prop_assert!(matches!(told[1].3, Content::Flow { datagram: None, .. }), "an imprint is of a whole packet");
            }
        }
    }
}
