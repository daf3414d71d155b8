//! The filter fed with bytes: for `tests/fuzz`.
//!
//! ```text
//! program: message…
//! message: how:8 | request:8 | length:16 (little-endian) | body
//! how:     NEED_REPLY:1 descriptors:2 kind:2, from the lowest bit
//! ```

use super::filter::{Consequence, Descriptor, Filter, Offer, Verdict};
use super::memory::Backing;
use super::message::{HEADER_LEN, Header, Message};
use crate::device::features;

const FILE: Descriptor = Descriptor::File(Backing { len: 0x10_0000, writable: true, identity: (1, 2) });
const SHORT: Descriptor = Descriptor::File(Backing { len: 0x1000, writable: false, identity: (1, 3) });

/// Judges the messages of a program. A refused one must leave no trace, and nothing but the device's own business may be
/// forwarded.
///
/// # Panics
/// If one of this does not hold.
pub fn messages(mut program: &[u8]) {
    let offer = Offer {
        features: features::virtio(2),
        protocol: features::protocol(),
        rings: 4,
        max_ring_size: 1024,
        mtu: 9000,
    };
    let mut filter = Filter::new(offer);
    while let Some((&[how, request, l0, l1], rest)) = program.split_first_chunk::<4>() {
        let len = usize::from(u16::from_le_bytes([l0, l1])).min(rest.len());
        let Some((body, rest)) = rest.split_at_checked(len) else { return };
        program = rest;
        let message =
            Message { request: request.into(), flags: 1 | u32::from(how & 1) << 3, body: body.to_vec() };
        check_encoding(&message);
        let kind = [Descriptor::Event, FILE, SHORT, Descriptor::Stream];
        let kind = kind.get(usize::from(how >> 3) % 4).copied().unwrap_or(Descriptor::Other);
        let descriptors = vec![kind; usize::from(how >> 1) % 4];
        let before = format!("{filter:?}");
        match filter.judge(&message, &descriptors) {
            Verdict::Refuse(why, consequence) => {
                assert_eq!(format!("{filter:?}"), before, "{message:?}, refused as {why}, left a trace");
                assert!(!matches!(consequence, Consequence::Answer(answer) if answer.body.is_empty()));
            }
            Verdict::Answer(answer) => {
                assert!(
                    answer.is_none_or(|answer| answer.request == message.request && !answer.body.is_empty())
                );
            }
            Verdict::Forward { after, .. } => {
                assert!(after.len() <= 4 && after.iter().all(|message| !message.needs_reply()));
            }
        }
    }
}

fn check_encoding(message: &Message) {
    let bytes = message.encode();
    let header = bytes.first_chunk::<HEADER_LEN>().map(Header::parse);
    let size = bytes.len().saturating_sub(HEADER_LEN);
    let fields = header.map(|header| (header.request, header.flags, header.size as usize));
    assert_eq!(fields, Some((message.request, message.flags, size)));
}
