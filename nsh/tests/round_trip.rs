//! Properties: parse after emit is the identity, and edits touch nothing but their field.

use nsh::{
    Action, Context, ENCAP_LEN, ETHERNET_LEN, ETHERTYPE, Epoch, Ethernet, Header, MdType, NextProtocol,
    NshMut, NshView, Offload, Origin, QueryKind, Reason, Seq, Si, Spi, Ttl, encap,
};
use proptest::prelude::*;

fn contexts() -> impl Strategy<Value = Context> {
    let query = prop_oneof![Just(QueryKind::None), Just(QueryKind::Ping), Just(QueryKind::Resp)];
    let offload = any::<(u16, u8, u8, u16)>().prop_map(|(csum_start, csum_offset, gso_type, gso_size)| {
        Offload { csum_start, csum_offset, gso_type, gso_size }
    });
    let numbers = (any::<u8>(), 0..Seq::COUNT, any::<u8>(), any::<(u16, u16)>(), any::<u16>());
    (query, any::<bool>(), proptest::option::of(offload), numbers).prop_map(
        |(query, dropped, offload, (epoch, seq, action, (host, port), serial))| Context {
            query,
            dropped,
            offload,
            epoch: Epoch::new(epoch),
            seq: Seq::new(seq).unwrap(),
            action: Action::from(action),
            origin: Origin { host, port },
            serial,
        },
    )
}

fn headers() -> impl Strategy<Value = Header> {
    (any::<bool>(), 0..64u8, any::<u8>(), 0..=Spi::MAX.get(), any::<u8>(), any::<[u8; 16]>()).prop_map(
        |(oam, ttl, next, spi, si, context)| Header {
            oam,
            ttl: Ttl::new(ttl).unwrap(),
            next_protocol: NextProtocol(next),
            spi: Spi::new(spi).unwrap(),
            si: Si::new(si),
            context,
        },
    )
}

/// Well-formed NSH of any MD type, every unassigned bit random, with a payload.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    (0..16u8, 2..64u8, any::<u16>(), proptest::collection::vec(any::<u8>(), 256 + 64), 0..64usize).prop_map(
        |(md_type, words, bits, mut bytes, payload)| {
            let words = if md_type == 1 { 6 } else { words };
            let first = bits & 0x3FC0 | u16::from(words);
            bytes[..2].copy_from_slice(&first.to_be_bytes());
            bytes[2] = bytes[2] & 0xF0 | md_type;
            bytes.truncate(usize::from(words) * 4 + payload);
            bytes
        },
    )
}

proptest! {
    #[test]
    fn context_parse_after_emit(context in contexts()) {
        prop_assert_eq!(Context::parse(&context.to_bytes()), Ok(Some(context)));
    }

    #[test]
    fn context_emit_after_parse(mut bytes in any::<[u8; 16]>()) {
        bytes[0] = bytes[0] & 0x0F | 0x10;
        bytes[2] &= 0x3F;
        match Context::parse(&bytes) {
            Ok(context) => {
                let context = context.unwrap();
                if context.offload.is_none() {
                    bytes[8..14].fill(0);
                }
                prop_assert_eq!(context.to_bytes(), bytes);
            }
            Err(error) => prop_assert_eq!((error.reason, bytes[0] & 0x0C), (Reason::PingAndResp, 0x0C)),
        }
    }

    #[test]
    fn header_parse_after_emit(header in headers(), dst in any::<[u8; 6]>(), src in any::<[u8; 6]>()) {
        let frame = encap(dst, src, &header);
        let (outer, packet) = Ethernet::parse(&frame).unwrap();
        prop_assert_eq!(outer, Ethernet { dst, src, ethertype: ETHERTYPE });
        let view = NshView::parse(packet).unwrap();
        let read = Header {
            oam: view.oam(),
            ttl: view.ttl(),
            next_protocol: view.next_protocol(),
            spi: view.spi(),
            si: view.si(),
            context: *view.context().unwrap(),
        };
        prop_assert_eq!(read, header);
        prop_assert_eq!((view.md_type(), ETHERNET_LEN + view.length()), (MdType::FIXED, ENCAP_LEN));
    }

    /// Each edit is checked against the bits of RFC 8300 it may touch.
    #[test]
    fn edits_touch_nothing_else(packet in packets(), header in headers()) {
        let md1 = NshView::parse(&packet).unwrap().context().is_some();
        let mut masked = vec![0u8; packet.len()];
        let mut edited = packet.clone();
        let mut nsh = NshMut::parse(&mut edited).unwrap();
        nsh.set_oam(header.oam);
        nsh.set_ttl(header.ttl);
        nsh.set_next_protocol(header.next_protocol);
        nsh.set_service_path(header.spi, header.si);
        masked[..8].copy_from_slice(&[0x2F, 0xC0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        prop_assert_eq!(nsh.set_context(&header.context).is_ok(), md1);
        if md1 {
            masked[8..24].fill(0xFF);
        }
        for (i, mask) in masked.iter().enumerate() {
            prop_assert_eq!(edited[i] & !mask, packet[i] & !mask, "byte {}", i);
        }
        let view = NshView::parse(&edited).unwrap();
        prop_assert_eq!((view.oam(), view.ttl(), view.next_protocol()), (header.oam, header.ttl, header.next_protocol));
        prop_assert_eq!((view.spi(), view.si()), (header.spi, header.si));
        prop_assert_eq!(view.context(), md1.then_some(&header.context));
    }

    /// An answer is the query with one bit for another; a bare answer changes the O bit and next protocol too.
    #[test]
    fn answers_differ_where_they_must(packet in packets(), context in contexts(), dropped in any::<bool>()) {
        let mut packet = packet;
        let asked = {
            let mut nsh = NshMut::parse(&mut packet).unwrap();
            nsh.set_context(&context.to_bytes()).is_ok() && context.query == QueryKind::Ping
        };
        let mut answer = packet.clone();
        prop_assert_eq!(NshMut::parse(&mut answer).unwrap().answer(), asked);
        let mut bare = packet.clone();
        prop_assert_eq!(NshMut::parse(&mut bare).unwrap().answer_bare(dropped), asked);
        if !asked {
            prop_assert_eq!(&answer, &packet);
            prop_assert_eq!(&bare, &packet);
            return Ok(());
        }
        prop_assert_eq!(answer[8], packet[8] & !0x0A | 0x04);
        prop_assert_eq!(bare[8], packet[8] & !0x0A | 0x04 | u8::from(dropped) << 1);
        prop_assert_eq!((bare[0], bare[3]), (packet[0] | 0x20, 7));
        (answer[8], bare[8], bare[0], bare[3]) = (packet[8], packet[8], packet[0], packet[3]);
        prop_assert_eq!(&answer, &packet);
        prop_assert_eq!(&bare, &packet);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), frame_len in 0..500usize) {
        let frame_len = frame_len.max(bytes.len());
        if let Ok(view) = NshView::parse_prefix(&bytes, frame_len) {
            prop_assert!(view.length() <= bytes.len());
            prop_assert!(view.nested().count() <= nsh::MAX_NESTING + 1);
            prop_assert!(view.metadata().count() <= 61);
            let _ = view.livepath();
        }
    }
}
