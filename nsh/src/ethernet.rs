//! The outer Ethernet header that carries an NSH from port to port.

use crate::{Layer, NshError};

/// Ethertype of NSH (RFC 8300 section 12.1).
pub const ETHERTYPE: u16 = 0x894F;
/// Length in bytes of an untagged Ethernet header.
pub const ETHERNET_LEN: usize = 14;

/// An untagged Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ethernet {
    /// Destination address.
    pub dst: [u8; 6],
    /// Source address.
    pub src: [u8; 6],
    /// Ethertype; [`ETHERTYPE`] in front of an NSH.
    pub ethertype: u16,
}

impl Ethernet {
    /// Reads the header at the start of `frame`; gives it and what follows.
    ///
    /// # Errors
    /// [`Reason::Truncated`](crate::Reason::Truncated).
    pub fn parse(frame: &[u8]) -> Result<(Ethernet, &[u8]), NshError> {
        let Some((&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1], rest)) =
            frame.split_first_chunk::<ETHERNET_LEN>()
        else {
            return Err(NshError::short(Layer::Ethernet, 0, ETHERNET_LEN, frame.len(), frame.len()));
        };
        let header = Ethernet {
            dst: [d0, d1, d2, d3, d4, d5],
            src: [s0, s1, s2, s3, s4, s5],
            ethertype: u16::from_be_bytes([t0, t1]),
        };
        Ok((header, rest))
    }

    /// The wire form.
    pub fn to_bytes(&self) -> [u8; ETHERNET_LEN] {
        let mut bytes = [0; ETHERNET_LEN];
        bytes[..6].copy_from_slice(&self.dst);
        bytes[6..12].copy_from_slice(&self.src);
        bytes[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn parse_and_emit_agree_and_short_frames_are_refused() {
        let frame = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x89, 0x4F, 0xAA];
        let (header, rest) = Ethernet::parse(&frame).unwrap();
        assert_eq!(
            (header.dst, header.src, header.ethertype),
            ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], 0x894F)
        );
        assert_eq!((header.to_bytes().as_slice(), rest), (&frame[..14], &frame[14..]));
        let error = Ethernet::parse(&frame[..13]).unwrap_err();
        assert_eq!(error, NshError::new(Reason::Truncated, Layer::Ethernet, 0, 14, 13));
    }
}
