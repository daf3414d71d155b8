//! Random descriptor tables, mostly sound, and what `virtio-queue` makes of them.

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use super::driver::{BORDER, Desc, Driver, HOLE, INDIRECT, NEXT, PAYLOAD, REGIONS, WRITE};
use crate::ring::VNET_LEN;

/// Entries of the rings in these tests: small, so that chains meet each other and indices wrap often.
pub(super) const SIZE: u16 = 16;
/// Where indirect tables lie: aligned, not aligned, and across the border of two regions.
pub(super) const TABLES: [u64; 3] = [0x2_0000, 0x2_1003, BORDER - 24];
/// Entries of each of them.
pub(super) const TABLE_LEN: u16 = 6;

/// The ring's descriptor table and the three indirect ones.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    ring: Vec<Desc>,
    indirect: Vec<Vec<Desc>>,
}

impl Tables {
    pub(super) fn store(&self, driver: &Driver) {
        for (index, desc) in self.ring.iter().enumerate() {
            driver.desc(index as u16, *desc);
        }
        for (table, at) in self.indirect.iter().zip(TABLES) {
            for (index, desc) in table.iter().enumerate() {
                driver.desc_at(at, index as u16, *desc);
            }
        }
    }
}

/// Tables for chains the device reads, or with `write` those it writes.
pub(super) fn tables(write: bool) -> impl Strategy<Value = Tables> {
    let direction = if write { WRITE } else { 0 };
    let ring = prop::collection::vec(descriptor(direction, SIZE, 20), usize::from(SIZE));
    let table = prop::collection::vec(descriptor(direction, TABLE_LEN, 1), usize::from(TABLE_LEN));
    (ring, prop::collection::vec(table, TABLES.len())).prop_map(|(ring, indirect)| Tables { ring, indirect })
}

/// A descriptor of a table of `entries`; about `indirect` in a hundred refer to another table.
fn descriptor(direction: u16, entries: u16, indirect: u32) -> impl Strategy<Value = Desc> {
    let plain = (buffer(), prop::bool::weighted(0.5), 0..entries + 1, prop::bool::weighted(0.03)).prop_map(
        move |((addr, len), chained, next, wrong)| {
            // Rarely outside the table: an index of `entries` is only kept for some.
            let next = if next == entries && len % 4 != 0 { 0 } else { next };
            let flags = direction ^ if wrong { WRITE } else { 0 } | if chained { NEXT } else { 0 };
            Desc::new(addr, len, flags, next)
        },
    );
    // A table that frames are written over would make the outcome depend on when it is read.
    let tables = if direction == WRITE { TABLES.len() - 1 } else { TABLES.len() };
    // WRITE means nothing on a descriptor that refers to a table.
    let table = (0..tables, table_len(), prop::bool::ANY).prop_map(|(table, len, write)| {
        Desc::new(TABLES[table], len, INDIRECT | if write { WRITE } else { 0 }, 0)
    });
    prop_oneof![100 - indirect => plain, indirect => table]
}

fn table_len() -> impl Strategy<Value = u32> {
    prop_oneof![
        20 => (1..=u32::from(TABLE_LEN)).prop_map(|entries| 16 * entries),
        1 => Just(0),
        1 => 1..16_u32,
        1 => Just(16 * 3 + 8),
    ]
}

/// Address and length of a buffer.
fn buffer() -> impl Strategy<Value = (u64, u32)> {
    let third = REGIONS[2].0;
    let end = third + REGIONS[2].1 as u64;
    let place = prop_oneof![
        60 => (0..64_u64, 0..64_u64).prop_map(|(page, offset)| PAYLOAD + 0x1000 * page + offset),
        10 => (0..0x1000_u64).prop_map(move |offset| third + offset),
        10 => (30..200_u64).prop_map(|before| BORDER - before),
        1 => (1..200_u64).prop_map(move |before| end - before),
        1 => (1..200_u64).prop_map(|before| BORDER + REGIONS[1].1 as u64 - before),
        1 => Just(HOLE),
        1 => (0..100_u64).prop_map(|before| u64::MAX - before),
    ];
    let len = prop_oneof![
        10 => 1..40_u32,
        5 => Just(VNET_LEN as u32),
        10 => 40..400_u32,
        3 => 1500..5000_u32,
        1 => Just(0),
        1 => Just(0x8_0000),
        1 => prop::sample::select(vec![u32::MAX, u32::MAX / 2, 0x20_0000]),
    ];
    (place, len)
}

/// A chain as `virtio-queue` sees it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) head: u16,
    /// The buffers, or None if the chain is not one this device accepts.
    pub(super) buffers: Option<Vec<(u64, u32)>>,
}

impl Seen {
    pub(super) fn len(&self) -> usize {
        self.buffers.iter().flatten().map(|&(_, len)| len as usize).sum()
    }
}

/// The next available chain, by `virtio-queue`, with the rules it leaves to its user: that the chain ended by itself,
/// goes one way, has no empty buffer, is all in memory, and holds a virtio-net header (and a frame, to be read).
pub(super) fn pop(queue: &mut Queue, mem: &GuestMemoryMmap, write: bool) -> Option<Seen> {
    let chain = queue.pop_descriptor_chain(mem)?;
    let head = chain.head_index();
    let descs: Vec<_> = chain.collect();
    let ended = descs.last().is_some_and(|desc| !desc.has_next());
    let sound = descs.iter().all(|desc| {
        let (addr, len) = (desc.addr(), desc.len() as usize);
        desc.is_write_only() == write
            && len > 0
            && GuestMemory::check_range(mem, addr, len, Permissions::Read)
    });
    let buffers: Vec<_> = descs.iter().map(|desc| (desc.addr().0, desc.len())).collect();
    let least = VNET_LEN as u64 + u64::from(!write);
    let enough = buffers.iter().map(|&(_, len)| u64::from(len)).sum::<u64>() >= least;
    Some(Seen { head, buffers: (ended && sound && enough).then_some(buffers) })
}

/// `virtio-queue`'s device side of the driver's ring.
pub(super) fn queue(driver: &Driver, event_idx: bool) -> Queue {
    let mut queue = Queue::new(SIZE).unwrap();
    queue.try_set_desc_table_address(GuestAddress(driver.layout.desc)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(driver.layout.avail)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(driver.layout.used)).unwrap();
    queue.set_event_idx(event_idx);
    queue.set_next_avail(driver.reaped);
    queue.set_next_used(driver.reaped);
    queue.set_ready(true);
    queue
}
