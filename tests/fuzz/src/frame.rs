use vhost_backend::frame::{Content, Frame, PREFIX_LEN, Ports, Protocol};

/// A frame's headers. The first byte says how much of it is not at hand.
///
/// # Panics
/// If the prefix gives another answer than the whole frame, or a flow's reverse is not its own inverse.
pub fn frame(data: &[u8]) {
    let Some((&missing, frame)) = data.split_first() else { return };
    let prefix = &frame[..frame.len().min(PREFIX_LEN)];
    let parsed = Frame::parse(prefix, frame.len());
    // Any prefix must be survived, the agreed one must give what any longer one does for the link layer.
    let _ = Frame::parse(&frame[..frame.len() - usize::from(missing).min(frame.len())], frame.len());
    let _ = Frame::parse(frame, frame.len() + usize::from(missing));
    let whole = Frame::parse(frame, frame.len());
    let Ok(parsed) = parsed else {
        assert!(whole.is_err(), "a frame is refused by its beginning only");
        return;
    };
    assert_eq!(parsed.len, frame.len());
    assert!((nsh::ETHERNET_LEN..=frame.len()).contains(&parsed.network_offset));
    if let Ok(whole) = whole {
        assert_eq!(
            (whole.dst, whole.src, whole.vlan, whole.ethertype, whole.network_offset),
            (parsed.dst, parsed.src, parsed.vlan, parsed.ethertype, parsed.network_offset)
        );
    }
    let Content::Flow { key, datagram } = parsed.content else { return };
    assert_eq!(key.reversed().reversed(), key);
    assert_eq!((key.reversed().src(), key.reversed().dst()), (key.dst(), key.src()));
    assert!(datagram.is_none() || !key.is_datagram(), "a later fragment that names itself");
    if let Ports::Known { src, dst } = key.ports() {
        assert!(key.protocol().is_some_and(Protocol::has_ports));
        assert_eq!(key.reversed().ports(), Ports::Known { src: dst, dst: src });
    }
}
