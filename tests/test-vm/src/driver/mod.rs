//! The driver side of virtio-net over split virtqueues (virtio 1.2 sections 2.7 and 5.1), polled in batches.
//!
//! ```text
//! send ─▶ slot ─▶ descriptor ─▶ avail ring ─▶ (flush) avail.idx, kick ─▶ device
//!          ▲                                                              │
//!          └──────────── reap ◀── used ring ◀── used.idx ◀────────────────┘
//! ```
//!
//! A ring is divided into *slots*: a slot owns its descriptors (or its indirect table) and a buffer,
//! so sending a frame writes one buffer, one descriptor and one avail entry. Free slots wait in a
//! first-in-first-out line, which gives the order VIRTIO_F_IN_ORDER asks for by itself. A buffer stays with its slot,
//! unless [`Pair::echo`](crate::Pair::echo) exchanges it for one of the other ring.

mod echo;
mod merged;
mod receive;
mod ring;
mod slots;
mod transmit;

pub use receive::Receive;
pub(crate) use ring::Ring;
pub use ring::{Layout, RingCounters};
pub(crate) use slots::Slots;
pub use transmit::Transmit;

use crate::Options;
use crate::sys::{Area, DESCRIPTOR_LEN, Descriptor, GuestRam};
use std::sync::Arc;

/// Length of the virtio-net header before each frame (VIRTIO_F_VERSION_1: always with `num_buffers`).
pub const VNET_HEADER_LEN: usize = 12;

/// Frames that one call of [`Receive::receive`] hands out at most.
pub const BATCH: usize = 64;

pub(crate) const DESC_F_NEXT: u16 = 1;
pub(crate) const DESC_F_WRITE: u16 = 2;
pub(crate) const DESC_F_INDIRECT: u16 = 4;

/// What the slots of a ring look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) shape: crate::ChainShape,
    pub(crate) indirect: bool,
    pub(crate) buffer_len: u32,
    /// Bytes from one buffer to the next: an odd number of cache lines, so that buffers spread over cache sets.
    stride: usize,
    scattered: bool,
    pub(crate) slots: u16,
}

impl Geometry {
    pub(crate) fn receive(options: &Options) -> Geometry {
        Geometry::new(options, options.rx_shape, options.rx_buffer_len)
    }

    pub(crate) fn transmit(options: &Options) -> Geometry {
        Geometry::new(options, options.tx_shape, options.tx_buffer_len)
    }

    fn new(options: &Options, shape: crate::ChainShape, buffer_len: u32) -> Geometry {
        let Options { indirect, scattered, ring_size, .. } = *options;
        let pieces = if indirect { 1 } else { shape.max_pieces() };
        Geometry {
            shape,
            indirect,
            buffer_len,
            stride: Geometry::stride(buffer_len as usize),
            scattered,
            slots: ring_size / pieces,
        }
    }

    /// Bytes from one buffer of that length to the next.
    pub(crate) fn stride(len: usize) -> usize {
        (len.div_ceil(64) | 1) * 64
    }

    /// Bytes of guest memory that buffers and tables take.
    pub(crate) fn memory(&self) -> usize {
        usize::from(self.slots) * (self.stride + self.table_len())
    }

    fn table_len(&self) -> usize {
        if self.indirect { usize::from(self.shape.max_pieces()) * DESCRIPTOR_LEN } else { 0 }
    }

    /// Ring descriptors per slot.
    fn descriptors(&self) -> u16 {
        if self.indirect { 1 } else { self.shape.max_pieces() }
    }
}

/// Puts them in no order, the same every time.
pub(crate) fn scatter<T>(places: &mut [T]) {
    // The multiplier and increment of Knuth's MMIX, whose upper bits are the better ones.
    let mut state = 1_u64;
    for last in (1..places.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        places.swap(last, (state >> 33) as usize % (last + 1));
    }
}

/// Buffers, tables and descriptors of a ring's slots.
#[derive(Debug)]
pub(crate) struct Buffers {
    geometry: Geometry,
    /// One per slot.
    buffers: Vec<Area>,
    tables: Option<Area>,
}

impl Buffers {
    pub(crate) fn new(ram: &Arc<GuestRam>, geometry: Geometry) -> Result<Buffers, crate::Error> {
        let slots = usize::from(geometry.slots);
        let mut buffers = ram.reserve(slots * geometry.stride, 64)?.cut(geometry.stride);
        if geometry.scattered {
            scatter(&mut buffers);
        }
        let tables = geometry.indirect.then(|| ram.reserve(slots * geometry.table_len(), 64)).transpose()?;
        Ok(Buffers { geometry, buffers, tables })
    }

    /// Guest physical address of a slot's buffer.
    #[inline(always)]
    pub(crate) fn address(&self, slot: u16) -> u64 {
        self.buffers[usize::from(slot)].gpa()
    }

    /// The first `len` bytes of a slot's buffer.
    #[inline(always)]
    fn bytes(&self, slot: u16, len: usize) -> &[u8] {
        self.buffers[usize::from(slot)].bytes(0, len)
    }

    #[inline(always)]
    fn bytes_mut(&mut self, slot: u16, len: usize) -> &mut [u8] {
        self.buffers[usize::from(slot)].bytes_mut(0, len)
    }

    /// Asks for the cache lines at the start of a slot's buffer that hold `len` bytes; of long frames only the first,
    /// since the processor goes on by itself.
    #[inline(always)]
    pub(super) fn prefetch(&self, slot: u16, len: u32) {
        let buffer = &self.buffers[usize::from(slot)];
        buffer.prefetch(0);
        if len > 64 {
            buffer.prefetch(64);
        }
    }

    /// Index of the first ring descriptor of `slot`, which names its chain in the rings.
    #[inline(always)]
    pub(crate) fn head(&self, slot: u16) -> u16 {
        slot * self.geometry.descriptors()
    }

    /// The slot whose chain begins at descriptor `id`.
    #[inline(always)]
    pub(crate) fn slot(&self, id: u32) -> Option<u16> {
        let each = u32::from(self.geometry.descriptors());
        // The usual case without a division, which costs as much as the rest.
        let slot = if each == 1 { id } else { id / each };
        (id == slot * each && slot < u32::from(self.geometry.slots)).then_some(slot as u16)
    }

    /// As [`prefetch`](Self::prefetch), for frames that are changed in place.
    #[inline(always)]
    pub(super) fn prefetch_to_change(&self, slot: u16, len: u32) {
        let buffer = &self.buffers[usize::from(slot)];
        buffer.prefetch_to_write(0);
        if len > 64 {
            buffer.prefetch_to_write(64);
        }
    }

    #[inline(always)]
    fn prefetch_to_write(&self, slot: u16) {
        self.buffers[usize::from(slot)].prefetch_to_write(0);
    }

    /// Writes the descriptors for the first `total` bytes of a slot's buffer.
    #[inline(always)]
    pub(crate) fn describe(&self, ring: &Ring, slot: u16, total: u32, flags: u16) {
        if self.geometry.shape == crate::ChainShape::Joined && self.tables.is_none() {
            let addr = self.address(slot);
            return ring.describe(slot, Descriptor { addr, len: total, flags, next: 0 });
        }
        self.describe_pieces(ring, slot, total, flags);
    }

    fn describe_pieces(&self, ring: &Ring, slot: u16, total: u32, flags: u16) {
        let gpa = self.address(slot);
        let first = self.head(slot);
        let table = usize::from(slot) * self.geometry.table_len();
        let mut pieces = self.geometry.shape.pieces(total).peekable();
        let mut count = 0u16;
        while let Some((start, end)) = pieces.next() {
            let more = pieces.peek().is_some();
            let base = if self.tables.is_some() { 0 } else { first };
            let descriptor = Descriptor {
                addr: gpa + u64::from(self.place(start, end)),
                len: end - start,
                flags: flags | if more { DESC_F_NEXT } else { 0 },
                next: if more { base + count + 1 } else { 0 },
            };
            if let Some(tables) = &self.tables {
                tables.write_descriptor(table + usize::from(count) * DESCRIPTOR_LEN, descriptor);
            } else {
                ring.describe(first + count, descriptor);
            }
            count += 1;
        }
        if let Some(tables) = &self.tables {
            let len = u32::from(count) * DESCRIPTOR_LEN as u32;
            let addr = tables.gpa() + table as u64;
            ring.describe(first, Descriptor { addr, len, flags: DESC_F_INDIRECT, next: 0 });
        }
    }

    /// Where in the slot's buffer the piece `start..end` lies: in reverse order when cut.
    fn place(&self, start: u32, end: u32) -> u32 {
        match self.geometry.shape {
            crate::ChainShape::Joined => start,
            crate::ChainShape::Cut { .. } => self.geometry.buffer_len - end,
        }
    }

    /// Spreads `bytes` over the pieces of a slot that has been cut for `total` bytes.
    fn scatter(&mut self, slot: u16, bytes: &[u8], total: u32) {
        for (start, end) in self.geometry.shape.pieces(total) {
            let at = self.place(start, end) as usize;
            self.buffers[usize::from(slot)]
                .bytes_mut(at, (end - start) as usize)
                .copy_from_slice(&bytes[start as usize..end as usize]);
        }
    }

    /// Appends the first `len` bytes of a slot that has been cut for `total` bytes.
    fn gather(&self, slot: u16, len: u32, total: u32, into: &mut Vec<u8>) {
        for (start, end) in self.geometry.shape.pieces(total) {
            let end_wanted = end.min(len);
            if start >= end_wanted {
                break;
            }
            let at = self.place(start, end) as usize;
            let piece = self.buffers[usize::from(slot)].bytes(at, (end_wanted - start) as usize);
            into.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests;
