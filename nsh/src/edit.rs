//! Editing an NSH in place. Every edit writes its own field and preserves every other bit, unassigned ones
//! included (RFC 8300 section 2.2).

use crate::base::Base;
use crate::context::{answer_in_place, clear_query_in_place};
use crate::path::Path;
use crate::view::Fixed;
use crate::{CONTEXT_LEN, FIXED_LEN, Layer, MdType, NextProtocol, NshError, Reason, Si, Spi, Ttl};

/// A checked, writable view over bytes that begin with an NSH base header; invariants as [`NshView`](crate::NshView).
///
/// Version, length and MD type cannot be changed, so the invariants hold after any edit.
#[derive(Debug)]
pub struct NshMut<'a> {
    head: &'a mut [u8; FIXED_LEN],
    metadata: &'a mut [u8],
    payload: &'a mut [u8],
}

impl<'a> NshMut<'a> {
    /// Checks a whole frame's bytes from the base header on.
    ///
    /// # Errors
    /// As [`NshView::parse`](crate::NshView::parse).
    pub fn parse(bytes: &'a mut [u8]) -> Result<NshMut<'a>, NshError> {
        let frame_len = bytes.len();
        NshMut::parse_prefix(bytes, frame_len)
    }

    /// As [`NshView::parse_prefix`](crate::NshView::parse_prefix).
    ///
    /// # Errors
    /// As [`NshView::parse_prefix`](crate::NshView::parse_prefix).
    pub fn parse_prefix(prefix: &'a mut [u8], frame_len: usize) -> Result<NshMut<'a>, NshError> {
        let at_hand = prefix.len().min(frame_len);
        let (prefix, _) = prefix.split_at_mut_checked(at_hand).unwrap_or_default();
        let fixed = Fixed::check(prefix, frame_len)?;
        let short = fixed.short(prefix, frame_len);
        let (header, payload) = prefix.split_at_mut_checked(fixed.length).ok_or(short)?;
        let (head, metadata) = header.split_first_chunk_mut().ok_or(short)?;
        Ok(NshMut { head, metadata, payload })
    }

    /// Time to live.
    pub fn ttl(&self) -> Ttl {
        self.base().ttl()
    }

    /// Service index.
    pub fn si(&self) -> Si {
        self.path().si()
    }

    /// Service path identifier.
    pub fn spi(&self) -> Spi {
        self.path().spi()
    }

    /// Length of the NSH in bytes.
    pub fn length(&self) -> usize {
        self.base().length()
    }

    /// What the payload is.
    pub fn next_protocol(&self) -> NextProtocol {
        self.base().next_protocol()
    }

    /// The fixed-length context, writable; `None` unless MD type 1.
    pub fn context_mut(&mut self) -> Option<&mut [u8; CONTEXT_LEN]> {
        if self.base().md_type() == MdType::FIXED { self.metadata.first_chunk_mut() } else { None }
    }

    /// The payload, as far as it is in the bytes at hand.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.payload
    }

    /// Sets the time to live.
    pub fn set_ttl(&mut self, ttl: Ttl) {
        self.set_base(self.base().with_ttl(ttl));
    }

    /// Sets or clears the O bit.
    pub fn set_oam(&mut self, oam: bool) {
        self.set_base(self.base().with_oam(oam));
    }

    /// Sets the next protocol.
    pub fn set_next_protocol(&mut self, next: NextProtocol) {
        self.set_base(self.base().with_next_protocol(next));
    }

    /// Sets the service index.
    pub fn set_si(&mut self, si: Si) {
        self.set_path(Path::new(self.spi(), si));
    }

    /// Sets service path identifier and service index: the packet is steered to another path.
    pub fn set_service_path(&mut self, spi: Spi, si: Si) {
        self.set_path(Path::new(spi, si));
    }

    /// Writes the fixed-length context.
    ///
    /// # Errors
    /// [`Reason::NotMd1`], and nothing is written, if there is none.
    pub fn set_context(&mut self, context: &[u8; CONTEXT_LEN]) -> Result<(), NshError> {
        let md_type = self.base().md_type();
        let to = self.context_mut().ok_or(NshError::new(
            Reason::NotMd1,
            Layer::Metadata,
            FIXED_LEN,
            MdType::FIXED.get().into(),
            md_type.get().into(),
        ))?;
        *to = *context;
        Ok(())
    }

    /// Answers the query in the context: PING becomes RESP, one bit for one bit (¶44). False, and nothing is
    /// touched, if the packet carries no query.
    pub fn answer(&mut self) -> bool {
        self.context_mut().is_some_and(|context| answer_in_place(context, false))
    }

    /// Turns the packet that carries a query into its bare response (¶45): O bit, next protocol 7, RESP, and
    /// DROPPED if the service dropped the packet. TTL and service path stay as they came. The frame is to be cut
    /// after the NSH. False, and nothing is touched, if the packet carries no query.
    pub fn answer_bare(&mut self, dropped: bool) -> bool {
        let answered = self.context_mut().is_some_and(|context| answer_in_place(context, dropped));
        if answered {
            self.set_base(self.base().with_oam(true).with_next_protocol(NextProtocol::ACTIVE_OAM));
        }
        answered
    }

    /// Removes query and response from a livepath context: PING, RESP and DROPPED are cleared.
    pub fn clear_query(&mut self) {
        if let Some(context) = self.context_mut() {
            clear_query_in_place(context);
        }
    }

    fn base(&self) -> Base {
        let [b0, b1, b2, b3, ..] = *self.head;
        Base(u32::from_be_bytes([b0, b1, b2, b3]))
    }

    fn path(&self) -> Path {
        let [.., p0, p1, p2, p3] = *self.head;
        Path(u32::from_be_bytes([p0, p1, p2, p3]))
    }

    fn set_base(&mut self, base: Base) {
        self.head[..4].copy_from_slice(&base.0.to_be_bytes());
    }

    fn set_path(&mut self, path: Path) {
        self.head[4..].copy_from_slice(&path.0.to_be_bytes());
    }
}
