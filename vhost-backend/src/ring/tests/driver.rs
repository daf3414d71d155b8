//! A driver for the tests, in safe code over `vm-memory`: it can do everything a driver may, and what it must not.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::ring::{Layout, RegionMap, Split};

pub(crate) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub(crate) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
pub(crate) const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// Guest memory of the tests: two adjacent regions, a hole, and a third; the rings lie in the first.
pub(crate) const REGIONS: [(u64, usize); 3] = [(0, 0x10_0000), (0x10_0000, 0x8_0000), (0x40_0000, 0x8_0000)];
/// The border between the two adjacent regions.
pub(crate) const BORDER: u64 = 0x10_0000;
/// An address in the hole.
pub(crate) const HOLE: u64 = 0x20_0000;
/// Where payload starts; the rings lie below.
pub(crate) const PAYLOAD: u64 = 0x4_0000;

/// One descriptor as the driver writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Desc {
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Desc {
    pub(crate) fn new(addr: u64, len: u32, flags: u16, next: u16) -> Desc {
        Desc { addr, len, flags, next }
    }

    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

pub(crate) fn memory() -> Arc<GuestMemoryMmap> {
    Arc::new(GuestMemoryMmap::from_ranges(&REGIONS.map(|(base, len)| (GuestAddress(base), len))).unwrap())
}

pub(crate) struct Driver {
    pub(crate) mem: Arc<GuestMemoryMmap>,
    pub(crate) layout: Layout,
    /// What the driver writes to `avail.idx` next.
    pub(crate) avail: u16,
    /// The used index up to which the driver has reaped.
    pub(crate) reaped: u16,
}

impl Driver {
    /// A ring of `size` entries at the start of `mem` whose indices both start at `start`.
    pub(crate) fn new(mem: &Arc<GuestMemoryMmap>, size: u16, start: u16) -> Driver {
        Driver::at(mem, size, start, 0)
    }

    /// As `new`, with the ring's memory at `base`, which takes less than 0x1_0000 bytes.
    pub(crate) fn at(mem: &Arc<GuestMemoryMmap>, size: u16, start: u16, base: u64) -> Driver {
        let layout = Layout { size, desc: base, avail: base + 0x8000, used: base + 0xa000 };
        let driver = Driver { mem: mem.clone(), layout, avail: start, reaped: start };
        driver.store(layout.avail + 2, start);
        driver.store(layout.used + 2, start);
        driver
    }

    /// The device's side, from where the driver has reaped.
    pub(crate) fn split(&self, event_idx: bool) -> Split {
        Split::new(RegionMap::new(self.mem.clone()), self.layout, self.reaped, self.reaped, event_idx)
            .unwrap()
    }

    pub(crate) fn store(&self, addr: u64, value: u16) {
        self.mem.store(value.to_le(), GuestAddress(addr), Ordering::Release).unwrap();
    }

    pub(crate) fn load(&self, addr: u64) -> u16 {
        u16::from_le(self.mem.load(GuestAddress(addr), Ordering::Acquire).unwrap())
    }

    pub(crate) fn fill(&self, addr: u64, bytes: &[u8]) {
        self.mem.write_slice(bytes, GuestAddress(addr)).unwrap();
    }

    /// Puts a pattern wherever buffers may lie.
    pub(crate) fn fill_payload(&self) {
        static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(0, 0x14_0000));
        self.fill(PAYLOAD, &BYTES[..(BORDER - PAYLOAD) as usize + REGIONS[1].1]);
        self.fill(REGIONS[2].0, &BYTES[7..7 + REGIONS[2].1]);
    }

    /// All of guest memory.
    pub(crate) fn image(&self) -> Vec<u8> {
        REGIONS.map(|(base, len)| self.bytes(base, len)).concat()
    }

    pub(crate) fn bytes(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read_slice(&mut bytes, GuestAddress(addr)).unwrap();
        bytes
    }

    pub(crate) fn desc(&self, index: u16, desc: Desc) {
        self.desc_at(self.layout.desc, index, desc);
    }

    /// Writes entry `index` of a descriptor table at `table`.
    pub(crate) fn desc_at(&self, table: u64, index: u16, desc: Desc) {
        self.fill(table + 16 * u64::from(index), &desc.bytes());
    }

    /// Puts `head` into the available ring without telling the device.
    pub(crate) fn put(&mut self, head: u16) {
        let slot = u64::from(self.avail % self.layout.size);
        self.store(self.layout.avail + 4 + 2 * slot, head);
        self.avail = self.avail.wrapping_add(1);
    }

    /// Tells the device what was put.
    pub(crate) fn expose(&self) {
        self.store(self.layout.avail + 2, self.avail);
    }

    pub(crate) fn offer(&mut self, head: u16) {
        self.put(head);
        self.expose();
    }

    /// A chain of one descriptor.
    pub(crate) fn offer_one(&mut self, index: u16, addr: u64, len: u32, flags: u16) {
        self.desc(index, Desc::new(addr, len, flags, 0));
        self.offer(index);
    }

    /// What the device has used since the last call: (head, length).
    pub(crate) fn reap(&mut self) -> Vec<(u32, u32)> {
        let mut used = Vec::new();
        while self.reaped != self.used_idx() {
            let slot = self.layout.used + 4 + 8 * u64::from(self.reaped % self.layout.size);
            let entry = self.bytes(slot, 8);
            let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
            used.push((word(0), word(4)));
            self.reaped = self.reaped.wrapping_add(1);
        }
        used
    }

    pub(crate) fn used_idx(&self) -> u16 {
        self.load(self.layout.used + 2)
    }

    pub(crate) fn set_used_event(&self, event: u16) {
        self.store(self.layout.avail + 4 + 2 * u64::from(self.layout.size), event);
    }

    pub(crate) fn avail_event(&self) -> u16 {
        self.load(self.layout.used + 4 + 8 * u64::from(self.layout.size))
    }

    pub(crate) fn set_avail_flags(&self, flags: u16) {
        self.store(self.layout.avail, flags);
    }

    pub(crate) fn used_flags(&self) -> u16 {
        self.load(self.layout.used)
    }
}

/// `len` bytes that differ from each other and between `seed`s.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((seed + i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}
