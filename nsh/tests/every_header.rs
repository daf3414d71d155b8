//! Headers tried one by one: every first two bytes, every MD type, every truncation.

use nsh::{FIXED_LEN, Layer, MAX_NESTING, MD1_LEN, NshError, NshMut, NshView, Reason};

/// Bytes of an NSH with the given first two bytes and MD type, and `len` bytes in all.
fn bytes(first: u16, md_type: u8, buffer: &mut [u8; 300], len: usize) -> &mut [u8] {
    let [b0, b1] = first.to_be_bytes();
    buffer[..8].copy_from_slice(&[b0, b1, md_type, 3, 0x12, 0x34, 0x56, 0x78]);
    &mut buffer[..len]
}

/// What RFC 8300 section 2.2 says of these bytes, written down independently of the crate's bit fields.
fn expected(first: u16, md_type: u8, len: usize) -> Result<usize, (Reason, Layer)> {
    let length = usize::from(first & 0x3F) * 4;
    if len < 4 {
        Err((Reason::Truncated, Layer::Base))
    } else if first >> 14 != 0 {
        Err((Reason::Version, Layer::Base))
    } else if length < FIXED_LEN {
        Err((Reason::HeaderLength, Layer::Base))
    } else if md_type & 0xF == 1 && length != MD1_LEN {
        Err((Reason::Md1Length, Layer::Base))
    } else if len < FIXED_LEN {
        Err((Reason::Truncated, Layer::ServicePath))
    } else if len < length {
        Err((Reason::Truncated, Layer::Metadata))
    } else {
        Ok(length)
    }
}

fn check(first: u16, md_type: u8, buffer: &mut [u8; 300], len: usize) {
    let bytes = bytes(first, md_type, buffer, len);
    let case = || format!("first {first:04x}, MD type {md_type}, {len} bytes");
    let parsed = NshView::parse(bytes);
    match (parsed, expected(first, md_type, len)) {
        (Ok(view), Ok(length)) => {
            assert_eq!(view.length(), length, "{}", case());
            assert_eq!(view.payload().len(), len - length, "{}", case());
            assert_eq!(view.oam(), first & 0x2000 != 0, "{}", case());
            assert_eq!(u16::from(view.ttl().get()), (first >> 6) & 0x3F, "{}", case());
            assert_eq!(view.md_type().get(), md_type, "{}", case());
            assert_eq!((view.spi().get(), view.si().get()), (0x12_3456, 0x78), "{}", case());
            assert_eq!(view.context().is_some(), md_type == 1, "{}", case());
            assert!(view.metadata().count() <= 61, "{}", case());
            assert!(NshMut::parse(bytes).is_ok(), "{}", case());
        }
        (Err(error), Err((reason, layer))) => {
            assert_eq!((error.reason, error.layer), (reason, layer), "{}", case());
            if reason == Reason::Truncated {
                assert!(error.needed > error.got, "{}", case());
                assert_eq!(error.offset + error.got, len, "{}", case());
            } else {
                assert_ne!(error.needed, error.got, "{}", case());
            }
            assert_eq!(NshMut::parse(bytes).err(), Some(error), "{}", case());
        }
        (parsed, expected) => panic!("{}: {parsed:?}, expected {expected:?}", case()),
    }
}

#[test]
fn every_first_two_bytes_with_every_md_type() {
    let mut buffer = [0x5A; 300];
    for first in 0..=u16::MAX {
        for md_type in 0..16 {
            for len in [3, 7, 8, 23, 24, 299] {
                check(first, md_type, &mut buffer, len);
            }
        }
    }
}

#[test]
fn every_length_field_with_every_truncation() {
    let mut buffer = [0xA5; 300];
    for words in 0..64 {
        for md_type in 0..16 {
            for len in 0..=300 {
                check(0x0FC0 | words, md_type, &mut buffer, len);
            }
        }
    }
}

/// A header that lies within the frame but not within the copied prefix is told apart from a truncated frame.
#[test]
fn every_prefix_of_every_frame() {
    let mut buffer = [0; 300];
    for words in 0..64u16 {
        for frame_len in (0..300).step_by(7) {
            let whole = bytes(0x0FC0 | words, 2, &mut buffer, 300);
            for at_hand in 0..=frame_len {
                let header = usize::from(words) * 4;
                let got = NshView::parse_prefix(&whole[..at_hand], frame_len);
                let edit = NshMut::parse_prefix(&mut whole[..at_hand].to_vec(), frame_len).err();
                assert_eq!(got.err(), edit);
                match (got, expected(0x0FC0 | words, 2, frame_len)) {
                    (Ok(view), expected) => {
                        assert_eq!(expected, Ok(header));
                        assert_eq!(view.payload().len(), at_hand - header);
                        assert_eq!(view.payload_len(), frame_len - header);
                    }
                    (Err(NshError { reason: Reason::OutsidePrefix, offset, needed, got, .. }), _) => {
                        assert!(offset + needed <= frame_len && offset + got == at_hand && got < needed);
                    }
                    (Err(error), expected) => {
                        assert_eq!((error.reason, error.layer), expected.unwrap_err());
                    }
                }
            }
        }
    }
}

#[test]
fn bytes_of_the_prefix_beyond_the_frame_are_ignored() {
    let mut buffer = [0; 300];
    let whole = bytes(0x0FC2, 2, &mut buffer, 60);
    let view = NshView::parse_prefix(whole, 20).unwrap();
    assert_eq!((view.payload().len(), view.payload_len()), (12, 12));
    assert_eq!(NshMut::parse_prefix(whole, 20).unwrap().payload_mut().len(), 12);
    assert_eq!(NshView::parse_prefix(whole, 7).unwrap_err().reason, Reason::Truncated);
}

#[test]
fn every_tlv_length_at_every_place_ends() {
    // Headers of 16 words; one TLV length byte is wrong, the others are empty TLVs.
    for words in 3..64u16 {
        for place in 0..usize::from(words) - 2 {
            for length in 0..=127u8 {
                let mut buffer = [0; 300];
                let whole = bytes(0x0FC0 | words, 2, &mut buffer, 300);
                whole[FIXED_LEN + place * 4 + 3] = length;
                let view = NshView::parse(whole).unwrap();
                let left = (usize::from(words) - 2 - place - 1) * 4;
                let errors: Vec<_> = view.metadata().filter_map(Result::err).collect();
                if usize::from(length) <= left {
                    assert_eq!(errors, []);
                } else {
                    let [error] = errors[..] else { panic!("{errors:?}") };
                    assert_eq!((error.reason, error.layer), (Reason::TlvLength, Layer::Tlv));
                    assert_eq!((error.offset, error.needed), (FIXED_LEN + place * 4, usize::from(length)));
                    assert_eq!(error.got, left);
                }
                assert_eq!(view.payload().len(), 300 - usize::from(words) * 4, "the payload is found anyway");
            }
        }
    }
}

#[test]
fn nesting_is_bounded() {
    for depth in 1..=MAX_NESTING + 3 {
        let mut frame = [0x0F, 0xC2, 2, 4, 0, 0, 1, 3].repeat(depth);
        let last = frame.len() - 5;
        frame[last] = 3;
        let walked: Vec<_> = NshView::parse(&frame).unwrap().nested().collect();
        if depth <= MAX_NESTING {
            assert_eq!(walked.len(), depth);
            assert!(walked.iter().all(Result::is_ok));
        } else {
            assert_eq!(walked.len(), MAX_NESTING + 1);
            let error = *walked.last().unwrap().as_ref().unwrap_err();
            assert_eq!((error.reason, error.offset), (Reason::Nesting, MAX_NESTING * FIXED_LEN));
        }
    }
    // An inner header that is not there: the offset counts from the outermost.
    let walked: Vec<_> = NshView::parse(&[0x0F, 0xC2, 2, 4, 0, 0, 1, 3, 0x0F]).unwrap().nested().collect();
    let error = walked[1].as_ref().unwrap_err();
    assert_eq!((walked.len(), error.reason, error.offset, error.got), (2, Reason::Truncated, 8, 1));
}
