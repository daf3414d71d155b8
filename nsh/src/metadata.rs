//! Variable-length context headers of MD type 2 (RFC 8300 section 2.5.1).
//!
//! ```text
//! |    Metadata Class 16          |     Type 8    |U|  Length 7   |
//! |                 Value, padded to a multiple of 4              |
//! ```
//!
//! Livepath carries them through untouched. The walk advances by at least four bytes a step within a header of
//! at most 252 bytes, so it ends after at most 61 steps whatever the bytes say.

use crate::{FIXED_LEN, Layer, NshError, Reason};

const TLV_HEADER_LEN: usize = 4;

/// One variable-length context header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// Metadata class: who assigns `kind`.
    pub class: u16,
    /// Type within the class.
    pub kind: u8,
    /// The unassigned bit beside the length.
    pub unassigned: bool,
    /// Value without padding, 0 to 127 bytes.
    pub value: &'a [u8],
}

/// Walks the TLVs of one NSH in wire order. After an error it ends.
#[derive(Clone, Debug)]
pub struct TlvIter<'a> {
    rest: &'a [u8],
    /// Of `rest`, from the base header.
    offset: usize,
}

impl<'a> TlvIter<'a> {
    /// `metadata` begins after the service path header and ends with the NSH.
    pub(crate) const fn new(metadata: &'a [u8]) -> TlvIter<'a> {
        TlvIter { rest: metadata, offset: FIXED_LEN }
    }

    fn step(&mut self) -> Result<Tlv<'a>, NshError> {
        let Some((&[c0, c1, kind, length], rest)) = self.rest.split_first_chunk::<TLV_HEADER_LEN>() else {
            let got = self.rest.len();
            return Err(NshError::new(Reason::Truncated, Layer::Tlv, self.offset, TLV_HEADER_LEN, got));
        };
        let value_len = usize::from(length & 0x7F);
        let Some((value, _)) = rest.split_at_checked(value_len) else {
            return Err(NshError::new(Reason::TlvLength, Layer::Tlv, self.offset, value_len, rest.len()));
        };
        let padded = value_len.next_multiple_of(4);
        self.rest = rest.get(padded..).unwrap_or_default();
        self.offset += TLV_HEADER_LEN + padded;
        Ok(Tlv { class: u16::from_be_bytes([c0, c1]), kind, unassigned: length & 0x80 != 0, value })
    }
}

impl<'a> Iterator for TlvIter<'a> {
    type Item = Result<Tlv<'a>, NshError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.step();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

impl core::iter::FusedIterator for TlvIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn walk(bytes: &[u8]) -> Result<Vec<Tlv<'_>>, NshError> {
        TlvIter::new(bytes).collect()
    }

    #[test]
    fn values_are_padded_to_words() {
        let bytes = [0x01, 0x02, 0x03, 0x85, 1, 2, 3, 4, 5, 0, 0, 0, 0xFF, 0xF6, 0x07, 0x00];
        let tlvs = walk(&bytes).unwrap();
        assert_eq!(
            tlvs,
            [
                Tlv { class: 0x0102, kind: 3, unassigned: true, value: &[1, 2, 3, 4, 5] },
                Tlv { class: 0xFFF6, kind: 7, unassigned: false, value: &[] },
            ]
        );
        assert_eq!(walk(&[]), Ok(Vec::new()));
    }

    #[test]
    fn a_value_that_overruns_is_an_error_and_the_end() {
        let bytes = [0, 0, 0, 0, 0, 1, 2, 5, 1, 2, 3, 4];
        let mut walk = TlvIter::new(&bytes);
        assert!(walk.next().unwrap().is_ok());
        let error = walk.next().unwrap().unwrap_err();
        assert_eq!(error, NshError::new(Reason::TlvLength, Layer::Tlv, 12, 5, 4));
        assert_eq!(walk.next(), None);
    }

    #[test]
    fn the_longest_header_of_empty_tlvs_ends() {
        let bytes = [0; crate::MAX_LEN - FIXED_LEN];
        assert_eq!(walk(&bytes).unwrap().len(), 61);
    }
}
