//! vhost-user messages as bytes.
//!
//! ```text
//! request: u32 | flags: u32 | size: u32 | body: size bytes
//! flags: version:2 (1) | REPLY | NEED_REPLY | 0...
//! ```
//!
//! Little-endian on x86-64 (the protocol says native order). A body is read by checked accessors; nothing is cast.

use vhost::vhost_user::message::{FrontendReq, MAX_MSG_SIZE};

/// Bytes before the body.
pub(crate) const HEADER_LEN: usize = 12;
/// Longest body the vhost crate reads.
pub(crate) const MAX_BODY: usize = MAX_MSG_SIZE;

const VERSION_MASK: u32 = 0x3;
const VERSION: u32 = 0x1;
const REPLY: u32 = 0x4;
const NEED_REPLY: u32 = 0x8;

/// A message's first 12 bytes, not yet judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Request code.
    pub(crate) request: u32,
    /// Version, REPLY, NEED_REPLY.
    pub(crate) flags: u32,
    /// Bytes of body.
    pub(crate) size: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Header {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        Header {
            request: u32::from_le_bytes([a, b, c, d]),
            flags: u32::from_le_bytes([e, f, g, h]),
            size: u32::from_le_bytes([i, j, k, l]),
        }
    }

    /// Length of the body, if the header is one a front-end may send.
    pub(crate) fn request_body_len(&self) -> Option<usize> {
        let flags_known =
            self.flags & !(VERSION_MASK | NEED_REPLY) == 0 && self.flags & VERSION_MASK == VERSION;
        self.body_len().filter(|_| flags_known)
    }

    /// Length of the body, if it is within bounds.
    pub(crate) fn body_len(&self) -> Option<usize> {
        usize::try_from(self.size).ok().filter(|len| *len <= MAX_BODY)
    }
}

/// A whole message without its descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) request: u32,
    pub(crate) flags: u32,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// A request that wants no answer.
    pub(crate) fn request(code: FrontendReq, body: Vec<u8>) -> Message {
        Message { request: code.into(), flags: VERSION, body }
    }

    /// The request code, if the protocol knows it.
    pub(crate) fn code(&self) -> Option<FrontendReq> {
        FrontendReq::try_from(self.request).ok()
    }

    pub(crate) fn needs_reply(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// The same request asking for an answer; for tests and for a front-end's side.
    #[cfg(test)]
    pub(crate) fn with_need_reply(mut self) -> Message {
        self.flags |= NEED_REPLY;
        self
    }

    /// The answer to this request: a u64, zero for success.
    pub(crate) fn answer(&self, value: u64) -> Message {
        Message { request: self.request, flags: VERSION | REPLY, body: value.to_le_bytes().to_vec() }
    }

    /// Bytes on the socket.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let size = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.body.len());
        for word in [self.request, self.flags, size] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// A body that is exactly one u64.
    pub(crate) fn u64(&self) -> Option<u64> {
        Some(u64::from_le_bytes(self.body.as_slice().try_into().ok()?))
    }

    /// A body that is exactly a ring index and a number (`struct vhost_vring_state`).
    pub(crate) fn ring_state(&self) -> Option<(u32, u32)> {
        let value = self.u64()?;
        Some((value as u32, (value >> 32) as u32))
    }

    /// A body that is exactly a `struct vhost_vring_addr`.
    pub(crate) fn ring_address(&self) -> Option<RingAddress> {
        let mut fields = Fields(&self.body);
        let address = RingAddress {
            index: fields.u32()?,
            flags: fields.u32()?,
            desc: fields.u64()?,
            used: fields.u64()?,
            avail: fields.u64()?,
        };
        fields.u64()?;
        fields.end().then_some(address)
    }

    /// A body that is exactly a memory table.
    pub(crate) fn memory_table(&self) -> Option<Vec<Region>> {
        let mut fields = Fields(&self.body);
        let count = fields.u32()?;
        let padding = fields.u32()?;
        let mut regions = Vec::new();
        for _ in 0..count {
            regions.push(fields.region()?);
        }
        (fields.end() && padding == 0).then_some(regions)
    }

    /// A body that is exactly one memory region, after 8 bytes of padding.
    pub(crate) fn single_region(&self) -> Option<Region> {
        let mut fields = Fields(&self.body);
        fields.u64()?;
        let region = fields.region()?;
        fields.end().then_some(region)
    }
}

/// Where a ring lies, in the front-end's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RingAddress {
    pub(crate) index: u32,
    pub(crate) flags: u32,
    pub(crate) desc: u64,
    pub(crate) used: u64,
    pub(crate) avail: u64,
}

/// A piece of guest memory as the front-end describes it. Bytes throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// Guest physical address.
    pub(crate) guest: u64,
    /// Length.
    pub(crate) size: u64,
    /// Address in the front-end, which ring addresses refer to.
    pub(crate) user: u64,
    /// Where the region begins in its file.
    pub(crate) offset: u64,
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }

    fn u64(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }

    fn region(&mut self) -> Option<Region> {
        Some(Region { guest: self.u64()?, size: self.u64()?, user: self.u64()?, offset: self.u64()? })
    }

    fn end(&self) -> bool {
        self.0.is_empty()
    }
}
