use std::sync::Arc;

use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;

use super::BATCH;
use super::batch::Batch;
use super::chain::{Chain, Chains};
use super::error::{Broken, RingError};
use super::handed::Handed;
use super::layout::{Layout, Rings};
use super::region::{Region, RegionMap};

/// So many buffers ahead of the one being written are asked for: enough to have come by then, and few enough to be under
/// way at a time.
const EXPECTED: usize = 8;
/// The same where buffers lie one behind the other. The driver's core fetches those behind the one it reads by itself; asked for
/// before it comes near, they are had for long enough to be written.
const EXPECTED_IN_ORDER: usize = 24;

/// The device side of one split virtqueue.
///
/// A ring is used in one direction: either [`read_batch`](Split::read_batch) … [`complete_batch`](Split::complete_batch)
/// for a transmit ring, or [`write_frame`](Split::write_frame) … [`publish`](Split::publish) for a receive ring.
pub struct Split {
    pub(super) rings: Rings,
    /// The region the last address was found in.
    pub(super) window: Region,
    /// Chains of the ring; all of its segments were translated with `rings.map()`.
    pub(super) batch: Batch,
    pub(super) side: Side,
    /// The next available entry to consume.
    pub(super) next_avail: u16,
    /// `avail.idx` as read last; never behind `next_avail`, at most a ring ahead of it.
    pub(super) seen_avail: u16,
    /// The next used element to write.
    pub(super) next_used: u16,
    /// `used.idx` as the driver sees it.
    pub(super) published: u16,
    /// How many buffers ahead are asked for.
    pub(super) expected: usize,
    /// `used.idx` when the driver was last asked whether to notify it.
    pub(super) asked: u16,
    pub(super) event_idx: bool,
    pub(super) broken: Option<Broken>,
    /// Of a receive ring whose frames shall not be lost with its driver.
    pub(super) handed: Option<Handed>,
}

/// A ring can be handed to another worker.
const _: fn(Split) -> Box<dyn Send> = |ring| Box::new(ring);

/// What the device does with the chains of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The driver's transmit ring.
    Read,
    /// The driver's receive ring.
    Write,
}

impl Side {
    /// The direction bit every descriptor of this side has.
    #[inline(always)]
    pub(super) const fn flags(self) -> u16 {
        match self {
            Side::Read => 0,
            Side::Write => VRING_DESC_F_WRITE as u16,
        }
    }
}

impl Split {
    /// Takes the ring at `layout` into use. `next_avail` and `next_used` are where an earlier owner stopped (0 for a
    /// new ring); `event_idx` is whether VIRTIO_F_RING_EVENT_IDX was negotiated.
    ///
    /// # Errors
    /// If the layout is not one of virtio 1.2 section 2.7 or not wholly in `mem`.
    pub fn new(
        mem: Arc<RegionMap>,
        layout: Layout,
        next_avail: u16,
        next_used: u16,
        event_idx: bool,
    ) -> Result<Split, RingError> {
        Ok(Split {
            rings: Rings::new(mem, layout)?,
            window: Region::NONE,
            batch: Batch::new(layout.size),
            side: Side::Read,
            next_avail,
            seen_avail: next_avail,
            next_used,
            published: next_used,
            expected: EXPECTED,
            asked: next_used,
            event_idx,
            broken: None,
            handed: None,
        })
    }

    /// Moves the ring to a new memory map; indices stay. Chains read but not completed can still be completed, but
    /// not be read any more.
    ///
    /// # Errors
    /// If the ring is not wholly in `mem`; it then stays as it was, in the old map.
    pub fn remap(&mut self, mem: Arc<RegionMap>) -> Result<(), RingError> {
        let rings = Rings::new(mem, self.rings.layout())?;
        // Both go before the old map can, so no segment outlives its mapping.
        self.window = Region::NONE;
        match self.side {
            Side::Read => self.batch.untranslate(),
            Side::Write => self.batch.clear(),
        }
        self.rings = rings;
        Ok(())
    }

    /// The next available entry that will be consumed; where a later owner of the ring goes on.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// The next used element that will be written.
    pub fn next_used(&self) -> u16 {
        self.next_used
    }

    /// Why the ring is broken, if it is.
    pub fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// Takes up to `max` (at most [`BATCH`]) available chains; gives how many, to be looked at with
    /// [`chain`](Split::chain). Chains of an earlier batch that were not completed are completed first.
    ///
    /// A malformed chain has its place in the batch, with [`Chain::malformed`] saying why, so it is completed in order.
    /// A batch may be shorter than what is available.
    ///
    /// # Errors
    /// If the ring is broken; nothing is taken then, now or later.
    #[inline]
    pub fn read_batch(&mut self, max: usize) -> Result<usize, Broken> {
        self.turn(Side::Read);
        self.retire();
        self.read_up_to(max.min(BATCH))?;
        let taken = self.batch.open().len();
        if taken == 0 {
            return Ok(0);
        }
        self.batch.take(taken);
        self.next_avail = self.next_avail.wrapping_add(taken as u16);
        self.rings.prefetch_used(self.next_used, taken as u16);
        Ok(taken)
    }

    /// Reads the chains that come next, until `most` are not taken. Of a transmit ring's the payload is asked for.
    #[inline(always)]
    fn read_up_to(&mut self, most: usize) -> Result<(), Broken> {
        let ahead = self.batch.open().len();
        // No underflow: what was looked ahead is available, or `available` breaks the ring.
        let fresh = usize::from(self.available()?).saturating_sub(ahead);
        if fresh > 0 {
            self.append(self.next_avail.wrapping_add(ahead as u16), fresh.min(most.saturating_sub(ahead)))?;
        }
        Ok(())
    }

    /// Reads ahead the buffers that the next frames will be written to: when they come, descriptors have been read and the
    /// first buffers are in the cache. What it finds wrong, [`broken`](Self::broken) tells.
    #[inline]
    pub fn prepare(&mut self) {
        self.turn(Side::Write);
        if self.broken.is_none() {
            self.rings.prefetch_used(self.next_used, BATCH as u16);
            // What was written is done with; there has to be room for a batch behind the rest.
            self.batch.complete();
            let _ = self.read_up_to(BATCH);
            self.expected = if self.batch.is_in_order() { EXPECTED_IN_ORDER } else { EXPECTED };
            (0..self.expected).for_each(|ahead| self.batch.expect(ahead));
        }
    }

    /// The chains of the batch.
    #[inline]
    #[must_use]
    pub fn chains(&self) -> Chains<'_> {
        match self.side {
            Side::Read => self.batch.chains(),
            Side::Write => Chains::new(&[], &[]),
        }
    }

    /// Chain `i` of the batch.
    #[inline]
    pub fn chain(&self, i: usize) -> Option<Chain<'_>> {
        self.chains().get(i)
    }

    /// Gives the chains of the batch back to the driver, in order and with length 0, since nothing was written into
    /// them. True if the driver wants to be notified.
    #[inline]
    pub fn complete_batch(&mut self) -> bool {
        self.turn(Side::Read);
        self.retire();
        self.publish()
    }

    /// Makes the ring one of `side`. Nobody uses a ring both ways; if it happens, no chain is lost or used twice.
    #[inline(always)]
    pub(super) fn turn(&mut self, side: Side) {
        if self.side != side {
            self.turn_over(side);
        }
    }

    #[cold]
    fn turn_over(&mut self, side: Side) {
        match side {
            // What the write side has looked at ahead it has not consumed.
            Side::Read => self.batch.clear(),
            Side::Write => {
                self.retire();
                self.batch.clear();
            }
        }
        self.side = side;
    }

    /// Writes the used elements of the chains read; they become visible with the next publish.
    #[inline(always)]
    fn retire(&mut self) {
        let mut at = self.next_used;
        for slot in self.batch.given() {
            self.rings.put_used(at, slot.head, 0);
            at = at.wrapping_add(1);
        }
        self.next_used = at;
        self.batch.complete();
    }

    /// Reads `avail.idx`: how many chains the driver has made available and nobody has consumed.
    #[inline(always)]
    pub(super) fn available(&mut self) -> Result<u16, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let avail = self.rings.avail_idx();
        // After the access that may have lost it, before its value means anything.
        if self.rings.map().lost() {
            return Err(self.break_ring(Broken::MemoryLost));
        }
        let fresh = avail.wrapping_sub(self.next_avail);
        let known = self.seen_avail.wrapping_sub(self.next_avail);
        if fresh > self.rings.size() || fresh < known {
            return Err(self.break_ring(Broken::AvailIndex {
                avail,
                next: self.next_avail,
                size: self.rings.size(),
            }));
        }
        self.seen_avail = avail;
        Ok(fresh)
    }

    /// Takes up to `want` chains from available position `at` on into the batch; gives how many. The caller has seen
    /// that the driver made them available.
    #[inline(always)]
    pub(super) fn append(&mut self, at: u16, want: usize) -> Result<usize, Broken> {
        let appended = self.batch.append(&self.rings, &mut self.window, self.side, at, want);
        appended.map_err(|broken| self.break_ring(broken))
    }

    #[cold]
    fn break_ring(&mut self, broken: Broken) -> Broken {
        self.broken = Some(broken);
        broken
    }
}
