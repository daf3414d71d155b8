//! Reading an NSH: checked once, then every field is there.

use crate::base::Base;
use crate::path::Path;
use crate::{
    CONTEXT_LEN, Context, FIXED_LEN, Layer, MD1_LEN, MdType, NextProtocol, NshError, Reason, Si, Spi,
    TlvIter, Ttl,
};

/// How many NSH may follow one another in a frame before [`Nested`] refuses to go on.
pub const MAX_NESTING: usize = 4;

/// A checked view over bytes that begin with an NSH base header.
///
/// Invariants: version 0; the length field counts at least the two mandatory headers, lies within the frame,
/// and is 24 for MD type 1; the whole header is in the bytes at hand. Other MD types, the O bit, the next
/// protocol and unassigned bits may be anything: the length alone finds the payload.
#[derive(Clone, Copy, Debug)]
pub struct NshView<'a> {
    base: Base,
    path: Path,
    metadata: &'a [u8],
    payload: &'a [u8],
    payload_len: usize,
}

impl<'a> NshView<'a> {
    /// Checks a whole frame's bytes from the base header on.
    ///
    /// # Errors
    /// See [`NshView::parse_prefix`]; never [`Reason::OutsidePrefix`].
    pub fn parse(bytes: &'a [u8]) -> Result<NshView<'a>, NshError> {
        NshView::parse_prefix(bytes, bytes.len())
    }

    /// Checks bytes that may be the beginning of a longer frame: the header must be at hand, its payload need
    /// not be. `frame_len` is the length of the frame from the base header on; bytes of `prefix` beyond it are
    /// ignored.
    ///
    /// # Errors
    /// [`Reason::Truncated`], [`Reason::OutsidePrefix`], [`Reason::Version`], [`Reason::HeaderLength`] or
    /// [`Reason::Md1Length`].
    pub fn parse_prefix(prefix: &'a [u8], frame_len: usize) -> Result<NshView<'a>, NshError> {
        let prefix = prefix.get(..frame_len).unwrap_or(prefix);
        let fixed = Fixed::check(prefix, frame_len)?;
        let (header, payload) =
            prefix.split_at_checked(fixed.length).ok_or_else(|| fixed.short(prefix, frame_len))?;
        Ok(NshView {
            base: fixed.base,
            path: fixed.path,
            metadata: header.get(FIXED_LEN..).unwrap_or_default(),
            payload,
            payload_len: frame_len.saturating_sub(fixed.length),
        })
    }

    /// The O bit: an OAM packet.
    pub const fn oam(&self) -> bool {
        self.base.oam()
    }

    /// Time to live as received.
    pub const fn ttl(&self) -> Ttl {
        self.base.ttl()
    }

    /// Length of the NSH in bytes, 8 to 252: the payload begins there.
    pub const fn length(&self) -> usize {
        self.base.length()
    }

    /// Metadata type.
    pub const fn md_type(&self) -> MdType {
        self.base.md_type()
    }

    /// What the payload is.
    pub const fn next_protocol(&self) -> NextProtocol {
        self.base.next_protocol()
    }

    /// Service path identifier.
    pub const fn spi(&self) -> Spi {
        self.path.spi()
    }

    /// Service index.
    pub const fn si(&self) -> Si {
        self.path.si()
    }

    /// The fixed-length context; `None` unless MD type 1.
    pub fn context(&self) -> Option<&'a [u8; CONTEXT_LEN]> {
        if self.md_type() == MdType::FIXED { self.metadata.first_chunk() } else { None }
    }

    /// The livepath context; `Ok(None)` if there is none: another MD type, or all zero.
    ///
    /// # Errors
    /// As [`Context::parse`].
    pub fn livepath(&self) -> Result<Option<Context>, NshError> {
        self.context().map_or(Ok(None), Context::parse)
    }

    /// The TLVs; none unless MD type 2.
    pub fn metadata(&self) -> TlvIter<'a> {
        TlvIter::new(if self.md_type() == MdType::VARIABLE { self.metadata } else { &[] })
    }

    /// The payload, as far as it is in the bytes at hand.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Length in bytes of the whole frame's payload, at hand or not.
    pub const fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// The NSH within this NSH and so on, this one first.
    pub const fn nested(self) -> Nested<'a> {
        Nested { next: Some(Ok(self)), offset: 0, depth: 0 }
    }
}

/// Walks NSH within NSH (next protocol 4), outermost first. It ends after the innermost, after an error, and
/// with [`Reason::Nesting`] after [`MAX_NESTING`] headers if there are more.
#[derive(Clone, Debug)]
pub struct Nested<'a> {
    next: Option<Result<NshView<'a>, NshError>>,
    /// Of `next`, from the outermost base header.
    offset: usize,
    depth: usize,
}

impl<'a> Iterator for Nested<'a> {
    type Item = Result<NshView<'a>, NshError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.next.take()?;
        if let Ok(view) = item
            && view.next_protocol() == NextProtocol::NSH
        {
            self.depth += 1;
            self.offset += view.length();
            self.next = Some(if self.depth < MAX_NESTING {
                NshView::parse_prefix(view.payload, view.payload_len).map_err(|e| e.shifted(self.offset))
            } else {
                Err(NshError::new(Reason::Nesting, Layer::Base, self.offset, MAX_NESTING, self.depth + 1))
            });
        }
        Some(item)
    }
}

impl core::iter::FusedIterator for Nested<'_> {}

/// The two mandatory headers, checked.
#[derive(Clone, Copy)]
pub(crate) struct Fixed {
    pub(crate) base: Base,
    pub(crate) path: Path,
    /// Bytes; lies within the frame, but not necessarily within the prefix.
    pub(crate) length: usize,
}

impl Fixed {
    /// `prefix` is not longer than `frame_len`.
    pub(crate) fn check(prefix: &[u8], frame_len: usize) -> Result<Fixed, NshError> {
        let left = |offset| (frame_len.saturating_sub(offset), prefix.len().saturating_sub(offset));
        let Some((&base, rest)) = prefix.split_first_chunk::<4>() else {
            return Err(NshError::short(Layer::Base, 0, 4, left(0).0, left(0).1));
        };
        let base = Base(u32::from_be_bytes(base));
        if base.version() != 0 {
            return Err(NshError::new(Reason::Version, Layer::Base, 0, 0, base.version().into()));
        }
        let length = base.length();
        if length < FIXED_LEN {
            return Err(NshError::new(Reason::HeaderLength, Layer::Base, 1, FIXED_LEN, length));
        }
        if base.md_type() == MdType::FIXED && length != MD1_LEN {
            return Err(NshError::new(Reason::Md1Length, Layer::Base, 1, MD1_LEN, length));
        }
        let Some(&path) = rest.first_chunk::<4>() else {
            return Err(NshError::short(Layer::ServicePath, 4, 4, left(4).0, left(4).1));
        };
        let fixed = Fixed { base, path: Path(u32::from_be_bytes(path)), length };
        if length > frame_len {
            return Err(fixed.short(prefix, frame_len));
        }
        Ok(fixed)
    }

    /// The error for metadata that is not all there.
    pub(crate) fn short(&self, prefix: &[u8], frame_len: usize) -> NshError {
        NshError::short(
            Layer::Metadata,
            FIXED_LEN,
            self.length.saturating_sub(FIXED_LEN),
            frame_len.saturating_sub(FIXED_LEN),
            prefix.len().saturating_sub(FIXED_LEN),
        )
    }
}
