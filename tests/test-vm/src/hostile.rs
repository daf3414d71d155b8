//! A guest that writes what it likes into its rings.
//!
//! Nothing is checked here, except that writes stay inside this VM's own memory. [`Malformed`] chains go through a slot of
//! the driver, so that the driver can take the chain back when the device has dropped it and then goes on.

use std::sync::Arc;

use crate::driver::{
    Buffers, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Layout, Receive, Ring, Slots, Transmit,
};
use crate::sys::{DESCRIPTOR_LEN, Descriptor, GuestRam, RAM_BASE};

/// A chain that no honest driver makes. A device returns it with length 0 and goes on with the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// A descriptor whose next is itself.
    Loop,
    /// An indirect table whose second entry leads back to the first.
    LoopInTable,
    /// An indirect table with an indirect entry.
    NestedIndirect,
    /// INDIRECT and NEXT in one descriptor.
    IndirectWithNext,
    /// An indirect table of length 0.
    EmptyTable,
    /// An indirect table of 17 bytes.
    RaggedTable,
    /// An indirect table said to be 4 GiB long.
    HugeTable,
    /// An indirect table outside of memory.
    TableOutOfRange,
    /// A table entry whose next is beyond the table.
    NextBeyondTable,
    /// A descriptor whose next is not in the ring.
    NextBeyondRing,
    /// Address 0, which is no memory.
    NullAddress,
    /// An address far beyond memory.
    OutOfRange,
    /// A buffer that begins inside memory and ends outside.
    BeyondEnd,
    /// A buffer whose end wraps around 2^64.
    Wrapping,
    /// A buffer of length 0.
    ZeroLength,
    /// A buffer said to be 4 GiB long.
    HugeLength,
    /// A device-writable buffer on a transmitq, a device-readable one on a receiveq.
    WrongDirection,
    /// The 12-byte header and no frame (on a receiveq: no room for a frame).
    HeaderOnly,
    /// Five bytes, less than a header.
    ShortHeader,
}

impl Malformed {
    /// Every kind.
    pub const ALL: [Malformed; 19] = [
        Malformed::Loop,
        Malformed::LoopInTable,
        Malformed::NestedIndirect,
        Malformed::IndirectWithNext,
        Malformed::EmptyTable,
        Malformed::RaggedTable,
        Malformed::HugeTable,
        Malformed::TableOutOfRange,
        Malformed::NextBeyondTable,
        Malformed::NextBeyondRing,
        Malformed::NullAddress,
        Malformed::OutOfRange,
        Malformed::BeyondEnd,
        Malformed::Wrapping,
        Malformed::ZeroLength,
        Malformed::HugeLength,
        Malformed::WrongDirection,
        Malformed::HeaderOnly,
        Malformed::ShortHeader,
    ];
}

/// One ring of a VM, open for any write. Obtained from [`crate::TestVm::raw`].
#[derive(Debug)]
pub struct RawRing<'a> {
    ring: &'a mut Ring,
    slots: &'a mut Slots,
    buffers: &'a Buffers,
    /// `VRING_DESC_F_WRITE` on a receiveq, 0 on a transmitq.
    direction: u16,
}

impl<'a> RawRing<'a> {
    pub(crate) fn receive(rx: &'a mut Receive) -> RawRing<'a> {
        RawRing { ring: &mut rx.ring, slots: &mut rx.slots, buffers: &rx.buffers, direction: DESC_F_WRITE }
    }

    pub(crate) fn transmit(tx: &'a mut Transmit) -> RawRing<'a> {
        RawRing { ring: &mut tx.ring, slots: &mut tx.slots, buffers: &tx.buffers, direction: 0 }
    }

    /// Where the ring lies.
    pub fn layout(&self) -> Layout {
        self.ring.layout()
    }

    /// The VM's memory, for tables and buffers of the caller's.
    pub fn ram(&self) -> &Arc<GuestRam> {
        self.ring.ram()
    }

    /// Guest physical address of 4096 bytes that no driver uses.
    pub fn scratch(&self) -> u64 {
        self.ring.scratch()
    }

    /// Writes entry `index` of the descriptor table.
    ///
    /// # Panics
    /// If `index` is not in the table.
    pub fn write_descriptor(&mut self, index: u16, descriptor: Descriptor) {
        self.ring.describe(index, descriptor);
    }

    /// Writes entry `place` (modulo the ring size) of the available ring, without moving the index.
    pub fn write_avail(&mut self, place: u16, head: u16) {
        let place = place % self.layout().size;
        self.ram().write(self.layout().avail + 4 + 2 * u64::from(place), &head.to_le_bytes());
    }

    /// Writes the available ring's flags.
    pub fn write_avail_flags(&mut self, flags: u16) {
        self.ram().write(self.layout().avail, &flags.to_le_bytes());
    }

    /// Writes the available ring's `used_event`.
    pub fn write_used_event(&mut self, event: u16) {
        let layout = self.layout();
        self.ram().write(layout.avail + 4 + 2 * u64::from(layout.size), &event.to_le_bytes());
    }

    /// Writes `avail.idx`, whatever the driver has published.
    pub fn set_avail_index(&mut self, index: u16) {
        self.ram().write(self.layout().avail + 2, &index.to_le_bytes());
    }

    /// Writes `used.idx`, which is the device's.
    pub fn set_used_index(&mut self, index: u16) {
        self.ram().write(self.layout().used + 2, &index.to_le_bytes());
    }

    /// `avail.idx` as the device sees it.
    pub fn avail_index(&self) -> u16 {
        self.ring.avail_index()
    }

    /// `used.idx` as the device has written it.
    pub fn used_index(&self) -> u16 {
        self.ring.used_index()
    }

    /// `(id, len)` at `place` (modulo the ring size) of the used ring.
    pub fn used(&self, place: u16) -> (u32, u32) {
        let layout = self.layout();
        let mut bytes = [0; 8];
        self.ram().read(layout.used + 4 + 8 * u64::from(place % layout.size), &mut bytes);
        let [a, b, c, d, e, f, g, h] = bytes;
        (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
    }

    /// Signals the kick descriptor.
    pub fn kick(&mut self) {
        self.ring.kick();
    }

    /// Publishes what was offered so far and kicks.
    pub fn publish(&mut self) {
        self.ring.publish();
        self.ring.kick();
    }

    /// Offers a malformed chain through a free slot; [`RawRing::publish`] or a flush shows it to the device. False if no
    /// slot is free (a receiveq has all its buffers posted: use [`RawRing::spoil`]).
    pub fn submit(&mut self, malformed: Malformed) -> bool {
        let Some(slot) = self.slots.take() else { return false };
        self.spoil(slot, malformed);
        self.ring.offer(self.buffers.head(slot));
        true
    }

    /// Makes the chain of `slot` malformed where it is, also when the device has it. The driver writes it anew when it uses
    /// the slot again.
    pub fn spoil(&mut self, slot: u16, malformed: Malformed) {
        let head = self.buffers.head(slot);
        let buffer = self.buffers.address(slot);
        let end = RAM_BASE + self.ram().len() as u64;
        let table = self.scratch() + 256 * u64::from(slot % 16);
        let direction = self.direction;
        let indirect = |addr, len| Descriptor { addr, len, flags: DESC_F_INDIRECT, next: 0 };
        let entry = |flags, next| Descriptor { addr: buffer, len: 64, flags: direction | flags, next };
        let plain = |addr, len| Descriptor { addr, len, flags: direction, next: 0 };
        let pair = 2 * DESCRIPTOR_LEN as u32;
        let descriptor = match malformed {
            Malformed::Loop => entry(DESC_F_NEXT, head),
            Malformed::LoopInTable => {
                self.write_table(table, &[entry(DESC_F_NEXT, 1), entry(DESC_F_NEXT, 0)]);
                indirect(table, pair)
            }
            Malformed::NestedIndirect => {
                self.write_table(table, &[indirect(table, pair), entry(0, 0)]);
                indirect(table, pair)
            }
            Malformed::IndirectWithNext => {
                self.write_table(table, &[entry(DESC_F_NEXT, 1), entry(0, 0)]);
                Descriptor { flags: DESC_F_INDIRECT | DESC_F_NEXT, next: head, ..indirect(table, pair) }
            }
            Malformed::NextBeyondTable => {
                self.write_table(table, &[entry(DESC_F_NEXT, 2), entry(0, 0), entry(0, 0)]);
                indirect(table, pair)
            }
            Malformed::EmptyTable => indirect(table, 0),
            Malformed::RaggedTable => {
                self.write_table(table, &[entry(0, 0), entry(0, 0)]);
                indirect(table, DESCRIPTOR_LEN as u32 + 1)
            }
            Malformed::HugeTable => indirect(table, u32::MAX - 15),
            Malformed::TableOutOfRange => indirect(end + 4096, pair),
            Malformed::NextBeyondRing => entry(DESC_F_NEXT, self.layout().size),
            Malformed::NullAddress => plain(0, 128),
            Malformed::OutOfRange => plain(end + (1 << 40), 128),
            Malformed::BeyondEnd => plain(end - 16, 128),
            Malformed::Wrapping => plain(u64::MAX - 63, 128),
            Malformed::ZeroLength => plain(buffer, 0),
            Malformed::HugeLength => plain(buffer, u32::MAX),
            Malformed::WrongDirection => Descriptor { flags: direction ^ DESC_F_WRITE, ..plain(buffer, 128) },
            Malformed::HeaderOnly => plain(buffer, 12),
            Malformed::ShortHeader => plain(buffer, 5),
        };
        self.ring.describe(head, descriptor);
    }

    fn write_table(&self, gpa: u64, entries: &[Descriptor]) {
        for (index, entry) in entries.iter().enumerate() {
            let mut bytes = [0; DESCRIPTOR_LEN];
            bytes[..8].copy_from_slice(&entry.addr.to_le_bytes());
            bytes[8..12].copy_from_slice(&entry.len.to_le_bytes());
            bytes[12..14].copy_from_slice(&entry.flags.to_le_bytes());
            bytes[14..].copy_from_slice(&entry.next.to_le_bytes());
            self.ram().write(gpa + (index * DESCRIPTOR_LEN) as u64, &bytes);
        }
    }
}
