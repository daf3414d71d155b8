use std::net::Ipv6Addr;

use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::samples::{Ipv4, ethernet, extension, fragment_header, icmp, ipv6, tcp, udp};
use super::*;

const DST: Mac = Mac([0x52, 0x54, 0, 0, 0, 6]);
const SRC: Mac = Mac([0x52, 0x54, 0, 0, 0, 5]);
const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);
const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 6);

fn parse(bytes: &[u8]) -> Result<Frame, Malformed> {
    Frame::parse(&bytes[..bytes.len().min(PREFIX_LEN)], bytes.len())
}

fn flow(bytes: &[u8]) -> FlowKey {
    *parse(bytes).unwrap().flow().unwrap()
}

fn plain(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    ethernet(DST, SRC, &[], ethertype, payload)
}

fn v4(protocol: u8) -> Ipv4 {
    Ipv4::between([10, 0, 0, 5], [10, 0, 0, 6], protocol)
}

fn layer4(layer4: Layer4) -> FlowKey {
    FlowKey::v4([10, 0, 0, 5].into(), [10, 0, 0, 6].into(), layer4, None)
}

#[test]
fn udp_over_ipv4() {
    let bytes = plain(Ipv4::ETHERTYPE, &v4(17).bytes(&udp(1234, 53, 10)));
    let frame = parse(&bytes).unwrap();
    assert_eq!((frame.dst, frame.src, frame.vlan, frame.ethertype), (DST, SRC, None, 0x0800));
    assert_eq!((frame.network_offset, frame.len), (14, bytes.len()));
    let key = layer4(Layer4::Ports { protocol: Protocol::UDP, src: 1234, dst: 53 });
    assert_eq!(frame.content, Content::Flow { key, datagram: None });
    assert_eq!(key.ports(), Ports::Known { src: 1234, dst: 53 });
    assert_eq!(key.reversed().ports(), Ports::Known { src: 53, dst: 1234 });
    assert_eq!((key.reversed().src(), key.reversed().dst()), (key.dst(), key.src()));
}

#[test]
fn ipv4_options_are_stepped_over() {
    for option_words in 0..=10 {
        let packet = Ipv4 { option_words, ..v4(6) }.bytes(&tcp(4000, 443));
        let ports = flow(&plain(Ipv4::ETHERTYPE, &packet)).ports();
        assert_eq!(ports, Ports::Known { src: 4000, dst: 443 }, "{option_words} words");
    }
}

#[test]
fn the_outermost_vlan_tag_counts() {
    let packet = v4(17).bytes(&udp(1, 2, 0));
    for tags in [&[(0x8100, 0x6123)][..], &[(0x88A8, 0x0123), (0x8100, 0x0456)]] {
        let frame = parse(&ethernet(DST, SRC, tags, Ipv4::ETHERTYPE, &packet)).unwrap();
        assert_eq!(frame.vlan, VlanId::new(0x123));
        assert_eq!(frame.ethertype, 0x0800);
        assert_eq!(frame.flow().unwrap().vlan(), VlanId::new(0x123));
        assert_eq!(frame.network_offset, 14 + 4 * tags.len());
    }
}

#[test]
fn a_forged_ethertype_is_seen_behind_tags() {
    let tags = [(0x88A8, 1), (0x8100, 2), (0x8100, 3), (0x8100, 4)];
    for depth in 0..=tags.len() {
        let frame = parse(&ethernet(DST, SRC, &tags[..depth], nsh::ETHERTYPE, &[0; 24])).unwrap();
        assert_eq!(frame.ethertype, nsh::ETHERTYPE, "{depth} tags");
    }
}

#[test]
fn echo_and_its_reply_are_one_flow() {
    for (request, reply, protocol) in [(8, 0, 1), (13, 14, 1), (17, 18, 1)] {
        let there = plain(0x0800, &v4(protocol).bytes(&icmp(request, 77)));
        let back = Ipv4::between([10, 0, 0, 6], [10, 0, 0, 5], protocol);
        let back = plain(0x0800, &back.bytes(&icmp(reply, 77)));
        assert_eq!(flow(&there).reversed(), flow(&back));
        assert_eq!(flow(&there).ports(), Ports::Absent);
    }
    let there = plain(0x86DD, &ipv6(A, B, 58, 64, &icmp(128, 9)));
    let back = plain(0x86DD, &ipv6(B, A, 58, 64, &icmp(129, 9)));
    assert_eq!(flow(&there).reversed(), flow(&back));
}

#[test]
fn ipv4_fragments_name_their_datagram() {
    let first = Ipv4 { fragment: 0x2000, id: 99, ..v4(17) }.bytes(&udp(5, 6, 16));
    let Content::Flow { key, datagram } = parse(&plain(0x0800, &first)).unwrap().content else { panic!() };
    assert_eq!((key.ports(), datagram), (Ports::Known { src: 5, dst: 6 }, Some(99)));

    let later = Ipv4 { fragment: 0x2003, id: 99, ..v4(17) }.bytes(&[0xFF; 24]);
    let later = parse(&plain(0x0800, &later)).unwrap();
    assert_eq!(later.content, Content::Flow { key: key.datagram(99), datagram: None });
    assert!(key.datagram(99).is_datagram());
    assert_eq!(key.datagram(99).ports(), Ports::Unknown);
    assert_eq!(key.datagram(99).protocol(), Some(Protocol::UDP));
}

#[test]
fn ipv6_fragments_name_their_datagram() {
    let first = [fragment_header(17, 0, true, 0xDEAD_BEEF), udp(5, 6, 8)].concat();
    let Content::Flow { key, datagram } = parse(&plain(0x86DD, &ipv6(A, B, 44, 64, &first))).unwrap().content
    else {
        panic!()
    };
    assert_eq!((key.ports(), datagram), (Ports::Known { src: 5, dst: 6 }, Some(0xDEAD_BEEF)));
    let later = [fragment_header(17, 4, false, 0xDEAD_BEEF), vec![0; 9]].concat();
    assert_eq!(flow(&plain(0x86DD, &ipv6(A, B, 44, 64, &later))), key.datagram(0xDEAD_BEEF));
    // An atomic fragment is a whole packet.
    let atomic = [fragment_header(17, 0, false, 1), udp(5, 6, 8)].concat();
    let content = parse(&plain(0x86DD, &ipv6(A, B, 44, 64, &atomic))).unwrap().content;
    assert_eq!(content, Content::Flow { key, datagram: None });
}

#[test]
fn ipv6_extension_headers_are_walked_up_to_a_bound() {
    let chain = |count: usize, more: u8| {
        let mut payload = Vec::new();
        for i in 0..count {
            payload.extend(extension(if i + 1 == count { 6 } else { 60 }, more));
        }
        payload.extend(tcp(1, 2));
        plain(0x86DD, &ipv6(A, B, if count == 0 { 6 } else { 60 }, 64, &payload))
    };
    for count in 0..=6 {
        assert_eq!(flow(&chain(count, 0)).ports(), Ports::Known { src: 1, dst: 2 }, "{count} headers");
    }
    let endless = flow(&chain(40, 0));
    assert_eq!((endless.ports(), endless.protocol()), (Ports::Unknown, None));
    // The walk leaves the prefix: the protocol is known if the last header read names it.
    let far = flow(&chain(1, 12));
    assert_eq!((far.ports(), far.protocol()), (Ports::Unknown, Some(Protocol::TCP)));
}

#[test]
fn the_walk_gives_up_after_its_bound_within_the_prefix() {
    // Authentication headers of 8 bytes, so that more of them than the bound fit.
    let mut payload = Vec::new();
    for _ in 0..64 {
        payload.extend([51, 0, 0, 0, 0, 0, 0, 0]);
    }
    payload.extend(tcp(1, 2));
    let bytes = plain(0x86DD, &ipv6(A, B, 51, 64, &payload));
    let key = *Frame::parse(&bytes, bytes.len()).unwrap().flow().unwrap();
    assert_eq!((key.ports(), key.protocol()), (Ports::Unknown, None));
}

#[test]
fn neighbour_discovery_is_of_the_link() {
    let solicit = |hop_limit, kind| {
        let mut message = icmp(kind, 0);
        message.resize(24, 0);
        parse(&plain(0x86DD, &ipv6(A, B, 58, hop_limit, &message))).unwrap().content
    };
    assert_eq!(solicit(255, 135), Content::Link);
    assert_eq!(solicit(255, 136), Content::Link);
    assert_ne!(solicit(64, 135), Content::Link, "a router would not forward it, and no host believes it");
    assert_ne!(solicit(255, 128), Content::Link);
    assert_eq!(parse(&plain(0x0806, &[0; 28])).unwrap().content, Content::Link);
}

#[test]
fn what_no_receiver_takes_is_malformed() {
    let good = v4(6).bytes(&tcp(1, 2));
    let with = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        parse(&plain(0x0800, &packet))
    };
    assert!(parse(&plain(0x0800, &good)).is_ok());
    assert_eq!(with(0, 0x65), Err(Malformed::Ip), "version");
    assert_eq!(with(0, 0x44), Err(Malformed::Ip), "header length under 20");
    assert_eq!(with(3, 19), Err(Malformed::Ip), "total length under the header's");
    assert_eq!(with(3, 200), Err(Malformed::Ip), "total length beyond the frame");
    assert_eq!(with(3, 39), Err(Malformed::Ip), "TCP header cut by the total length");
    assert_eq!(with(6, 0x20).map(|_| ()), Ok(()), "a first fragment with a whole TCP header");
    let tiny = Ipv4 { fragment: 0x2000, ..v4(6) }.bytes(&tcp(1, 2)[..8]);
    assert_eq!(parse(&plain(0x0800, &tiny)), Err(Malformed::Ip), "a tiny first fragment");
    let no_header = ipv6(A, B, 60, 64, &[6, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(parse(&plain(0x86DD, &no_header)), Err(Malformed::Ip), "extension beyond the packet");
    for len in 0..14 {
        assert_eq!(parse(&plain(0x0800, &good)[..len]), Err(Malformed::Runt));
    }
    assert_eq!(parse(&ethernet(DST, SRC, &[(0x8100, 1)], 0, &[])[..17]), Err(Malformed::Runt));
    assert_eq!(parse(&ethernet(DST, SRC, &[(0x8100, 1); 5], 0x0800, &good)), Err(Malformed::Tags));
}

#[test]
fn padding_is_not_read_as_a_header() {
    // Total length 20: what follows is Ethernet padding, not a UDP header.
    let mut packet = v4(17).bytes(&[]);
    packet.extend(udp(1, 2, 20));
    assert_eq!(parse(&plain(0x0800, &packet)), Err(Malformed::Ip));
}

#[test]
fn bytes_behind_the_frames_end_are_not_read() {
    let bytes = plain(0x0800, &v4(17).bytes(&udp(1, 2, 10)));
    assert_eq!(Frame::parse(&bytes, 30), Err(Malformed::Ip));
    assert_eq!(Frame::parse(&bytes, 13), Err(Malformed::Runt));
}

#[test]
fn a_short_prefix_makes_ports_unknown_not_malformed() {
    let bytes = plain(0x0800, &v4(17).bytes(&udp(1, 2, 10)));
    let frame = Frame::parse(&bytes[..36], bytes.len()).unwrap();
    let key = layer4(Layer4::Unreadable { protocol: Some(Protocol::UDP) });
    assert_eq!(frame.content, Content::Flow { key, datagram: None });
}

#[test]
fn the_hash_spreads_neighbouring_flows() {
    // 4096 flows that differ in few bits, into 256 buckets by low and by high bits: no bucket gets four times its share.
    for shift in [0, 24, 32, 56] {
        let mut buckets = [0_u32; 256];
        for i in 0..4096_u16 {
            let (client, port) = (10 + (i >> 8), 1000 + (i & 0xFF));
            let ports = Layer4::Ports { protocol: Protocol::TCP, src: port, dst: 80 };
            let key = FlowKey::v4([10, 0, 0, client as u8].into(), [10, 0, 1, 1].into(), ports, None);
            buckets[(key.hash(42).get() >> shift & 0xFF) as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (1..=64).contains(count)), "shift {shift}: {buckets:?}");
    }
}

fn key_strategy() -> impl Strategy<Value = FlowKey> {
    let layer4 = prop_oneof![
        (any::<u8>(), any::<u16>(), any::<u16>()).prop_map(|(p, src, dst)| Layer4::Ports {
            protocol: Protocol(p),
            src,
            dst
        }),
        (any::<u8>(), any::<u16>()).prop_map(|(p, id)| Layer4::Query { protocol: Protocol(p), id }),
        any::<u8>().prop_map(|p| Layer4::Plain { protocol: Protocol(p) }),
        any::<Option<u8>>().prop_map(|p| Layer4::Unreadable { protocol: p.map(Protocol) }),
    ];
    let vlan = proptest::option::of((0..4096_u16).prop_map(|id| VlanId::new(id).unwrap()));
    (any::<bool>(), any::<u128>(), any::<u128>(), layer4, vlan).prop_map(|(six, src, dst, layer4, vlan)| {
        if six {
            FlowKey::v6(src.into(), dst.into(), layer4, vlan)
        } else {
            FlowKey::v4((src as u32).into(), (dst as u32).into(), layer4, vlan)
        }
    })
}

/// A frame of mostly valid layers, then perhaps one byte changed and the end cut off.
fn frame_strategy() -> impl Strategy<Value = Vec<u8>> {
    let transport = prop_oneof![
        (any::<u16>(), any::<u16>()).prop_map(|(s, d)| (6_u8, tcp(s, d))),
        (any::<u16>(), any::<u16>(), 0..40_u16).prop_map(|(s, d, len)| (17, udp(s, d, len))),
        (any::<u8>(), any::<u16>()).prop_map(|(kind, id)| (1, icmp(kind, id))),
        (any::<u8>(), any::<u16>()).prop_map(|(kind, id)| (58, icmp(kind, id))),
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)),
    ];
    let fragment = prop_oneof![3 => Just(0_u16), 1 => any::<u16>()];
    let headers =
        proptest::collection::vec((prop_oneof![Just(0_u8), Just(43), Just(60), Just(44)], 0..3_u8), 0..4);
    let tags = proptest::collection::vec((prop_oneof![Just(0x8100_u16), Just(0x88A8)], any::<u16>()), 0..3);
    let change = proptest::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
    let cut = proptest::option::weighted(0.2, any::<prop::sample::Index>());
    (transport, any::<(bool, u32, u32, u16)>(), fragment, 0..=10_u8, headers, tags, change, cut).prop_map(
        |((protocol, payload), (six, src, dst, id), fragment, option_words, headers, tags, change, cut)| {
            let (ethertype, packet) = if six {
                let mut chain = Vec::new();
                for (i, (kind, more)) in headers.iter().enumerate() {
                    let next = headers.get(i + 1).map_or(protocol, |(next, _)| *next);
                    chain.extend(match kind {
                        44 => fragment_header(next, fragment >> 3, fragment & 1 == 1, u32::from(id)),
                        _ => extension(next, *more),
                    });
                }
                chain.extend(payload);
                let first = headers.first().map_or(protocol, |(kind, _)| *kind);
                let (src, dst) = (u128::from(src) << 96 | 1, u128::from(dst) << 96 | 2);
                (0x86DD, ipv6(src.into(), dst.into(), first, 64, &chain))
            } else {
                let ip = Ipv4 { src: src.into(), dst: dst.into(), protocol, option_words, id, fragment };
                (0x0800, ip.bytes(&payload))
            };
            let mut bytes = ethernet(DST, SRC, &tags, ethertype, &packet);
            if let Some((at, value)) = change {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        },
    )
}

/// What etherparse makes of the frame has to be what we make of it.
fn agrees(bytes: &[u8], packet: &SlicedPacket<'_>) -> Result<(), TestCaseError> {
    let parsed = Frame::parse(bytes, bytes.len());
    let frame = match (&packet.net, parsed) {
        // Headers etherparse does not look into: protocols it does not know, first fragments.
        (Some(_), Err(Malformed::Ip)) if packet.transport.is_none() => return Ok(()),
        (_, parsed) => parsed.map_err(|error| TestCaseError::fail(format!("{error:?}")))?,
    };
    let outer = packet.link_exts.iter().find_map(|ext| match ext {
        LinkExtSlice::Vlan(vlan) => Some(vlan.vlan_identifier().value()),
        _ => None,
    });
    prop_assert_eq!(frame.vlan.map(VlanId::get), outer);
    let Some(key) = frame.flow() else {
        prop_assert!(!matches!(packet.net, Some(NetSlice::Ipv4(_))), "IPv4 is a flow");
        return Ok(());
    };
    let fragmented = match packet.net.as_ref() {
        Some(NetSlice::Ipv4(v4)) => {
            let header = v4.header();
            prop_assert_eq!(key.src(), std::net::IpAddr::from(header.source_addr()));
            prop_assert_eq!(key.dst(), std::net::IpAddr::from(header.destination_addr()));
            prop_assert_eq!(key.protocol(), Some(Protocol(header.protocol().0)));
            prop_assert_eq!(key.is_datagram(), header.fragments_offset().value() != 0);
            v4.is_payload_fragmented()
        }
        Some(NetSlice::Ipv6(v6)) => {
            prop_assert_eq!(key.src(), std::net::IpAddr::from(v6.header().source_addr()));
            prop_assert_eq!(key.dst(), std::net::IpAddr::from(v6.header().destination_addr()));
            v6.is_payload_fragmented()
        }
        _ => return Err(TestCaseError::fail("a flow that is not IP")),
    };
    let ports = match packet.transport.as_ref() {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    };
    if let Some((src, dst)) = ports
        && key.protocol() != Some(Protocol(51))
    {
        prop_assert!(!fragmented);
        prop_assert_eq!(key.ports(), Ports::Known { src, dst });
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reversing_twice_is_nothing(key in key_strategy(), id: u32) {
        prop_assert_eq!(key.reversed().reversed(), key);
        prop_assert_eq!(key.datagram(id).reversed().reversed(), key.datagram(id));
        prop_assert_eq!((key.reversed().src(), key.reversed().dst()), (key.dst(), key.src()));
        prop_assert_eq!((key.reversed().vlan(), key.reversed().protocol()), (key.vlan(), key.protocol()));
    }

    #[test]
    fn both_directions_hash_alike(key in key_strategy(), seed: u64) {
        prop_assert_eq!(key.hash(seed), key.reversed().hash(seed));
        prop_assert_ne!(key.hash(seed), key.hash(!seed));
    }

    #[test]
    fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 0..70_000_usize) {
        let _ = Frame::parse(&bytes, len);
    }

    #[test]
    fn agrees_with_etherparse(bytes in frame_strategy()) {
        if let Ok(packet) = SlicedPacket::from_ethernet(&bytes) {
            agrees(&bytes, &packet)?;
        }
    }

    /// What is read from a prefix is what is read from the whole, or less of it, but nothing else.
    #[test]
    fn a_prefix_tells_less_but_nothing_else(bytes in frame_strategy(), len in 62..200_usize) {
        let whole = Frame::parse(&bytes, bytes.len());
        let part = Frame::parse(&bytes[..bytes.len().min(len)], bytes.len());
        if let (Ok(whole), Ok(part)) = (whole, part) {
            prop_assert_eq!((part.dst, part.src, part.vlan), (whole.dst, whole.src, whole.vlan));
            if let (Some(whole), Some(part)) = (whole.flow(), part.flow()) {
                prop_assert_eq!((part.src(), part.dst()), (whole.src(), whole.dst()));
                prop_assert!(part.ports() == whole.ports() || part.ports() == Ports::Unknown);
                prop_assert!(part.protocol() == whole.protocol() || part.protocol().is_none());
            }
        }
    }
}
