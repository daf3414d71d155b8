use nsh::{
    ActiveOam, ETHERNET_LEN, Ethernet, FIXED_LEN, MAX_LEN, MAX_NESTING, MD1_LEN, MdType, NshMut, NshView,
    QueryKind, Si, Ttl,
};

/// NSH: a frame from its base header on. The first byte says how much of it is at hand.
///
/// # Panics
/// If reading gives what is not in the bytes, or an edit touches more than its field.
pub fn nsh(data: &[u8]) {
    let Some((&missing, frame)) = data.split_first() else { return };
    if let Ok((outer, packet)) = Ethernet::parse(frame) {
        assert_eq!(outer.to_bytes(), frame[..ETHERNET_LEN]);
        assert_eq!(packet.len(), frame.len() - ETHERNET_LEN);
    }
    let prefix = &frame[..frame.len() - usize::from(missing).min(frame.len())];
    let (whole, part) = (NshView::parse(frame), NshView::parse_prefix(prefix, frame.len()));
    let Ok(view) = whole else {
        assert!(part.is_err(), "a prefix is accepted, the whole is not");
        assert!(NshMut::parse(&mut frame.to_vec()).is_err());
        return;
    };
    read(&view, frame);
    if let Ok(part) = part {
        assert_eq!((part.length(), part.spi(), part.si()), (view.length(), view.spi(), view.si()));
        assert_eq!(part.payload_len(), view.payload_len());
        assert!(view.payload().starts_with(part.payload()));
    } else {
        assert!(prefix.len() < view.length(), "the header is at hand and refused");
    }
    edit(&view, frame);
}

fn read(view: &NshView<'_>, frame: &[u8]) {
    assert!((FIXED_LEN..=MAX_LEN).contains(&view.length()));
    assert_eq!(view.payload(), &frame[view.length()..]);
    assert_eq!(view.payload_len(), view.payload().len());
    assert_eq!(view.context().is_some(), view.md_type() == MdType::FIXED);
    assert!(view.context().is_none() || view.length() == MD1_LEN);
    let tlvs = view.metadata().take_while(Result::is_ok).flatten();
    let taken: usize = tlvs.map(|tlv| 4 + tlv.value.len()).sum();
    assert!(taken <= view.length() - FIXED_LEN, "TLVs reach beyond the header");
    assert!(view.nested().count() <= MAX_NESTING + 1);
    if let Ok(Some(context)) = view.livepath() {
        let again = nsh::Context::parse(&context.to_bytes());
        assert_eq!(again, Ok(Some(context)), "a context is not what it was written as");
    }
    let asked = match ActiveOam::recognise(view) {
        None => return,
        Some(ActiveOam::Probe(context)) => (context, QueryKind::Ping),
        Some(ActiveOam::BareResponse(context)) => (context, QueryKind::Resp),
    };
    assert!(view.oam() && asked.0.query == asked.1);
}

/// One edit of a fresh copy; `mask` are the bits of the first 8 bytes it may change.
fn edited(frame: &[u8], mask: [u8; FIXED_LEN], edit: impl FnOnce(&mut NshMut<'_>)) -> Vec<u8> {
    let mut copy = frame.to_vec();
    edit(&mut NshMut::parse(&mut copy).expect("the view was accepted"));
    for ((new, old), may) in copy.iter().zip(frame).zip(mask) {
        assert_eq!(new & !may, old & !may, "an edit touched more than its field");
    }
    assert!(NshView::parse(&copy).is_ok(), "an edit broke the header");
    copy
}

fn edit(view: &NshView<'_>, frame: &[u8]) {
    const OAM: [u8; FIXED_LEN] = [0x20, 0, 0, 0xFF, 0, 0, 0, 0];
    let ttl = Ttl::new(21).expect("below 64");
    let copy = edited(frame, [0x0F, 0xC0, 0, 0, 0, 0, 0, 0], |nsh| nsh.set_ttl(ttl));
    assert_eq!(NshView::parse(&copy).map(|view| view.ttl()), Ok(ttl));
    assert_eq!(copy[FIXED_LEN..], frame[FIXED_LEN..]);
    let copy = edited(frame, [0, 0, 0, 0, 0, 0, 0, 0xFF], |nsh| nsh.set_si(Si::new(7)));
    assert_eq!(NshView::parse(&copy).map(|view| (view.spi(), view.si().get())), Ok((view.spi(), 7)));

    let mut answered = false;
    let copy = edited(frame, [0; FIXED_LEN], |nsh| answered = nsh.answer());
    let asks = view.context().is_some_and(|context| context[0] >> 4 == 1 && context[0] & 0x0C == 0x08);
    assert_eq!(answered, asks, "an answer to what is not a query, or none to a query");
    let changed: Vec<_> = (0..frame.len()).filter(|&i| copy[i] != frame[i]).collect();
    assert!(changed == if asks { vec![FIXED_LEN] } else { vec![] }, "an answer differs in one byte");
    for dropped in [false, true] {
        let copy = edited(frame, OAM, |nsh| assert_eq!(nsh.answer_bare(dropped), asks));
        assert!(asks || copy == frame);
        let view = NshView::parse(&copy).expect("checked");
        assert!(!asks || matches!(ActiveOam::recognise(&view), Some(ActiveOam::BareResponse(_))));
    }
    let copy = edited(frame, [0; FIXED_LEN], |nsh| {
        nsh.clear_query();
    });
    let cleared = NshView::parse(&copy).expect("checked").livepath();
    assert!(!matches!(cleared, Ok(Some(context)) if context.query != QueryKind::None));
}
