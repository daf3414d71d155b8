use std::ptr;

use super::chain::{Chain, Chains};
use super::copy::{self, LINE};
use super::desc::{self, Descriptor, WalkError};
use super::error::{Broken, Malformed};
use super::layout::{MAX_SIZE, Rings};
use super::region::Region;
use super::split::Side;
use super::{BATCH, VNET_LEN};

/// Buffers further apart than this no core foresees.
const FAR: usize = 1 << 16;

/// A mapped piece of memory that a chain consists of.
///
/// Invariant (kept by [`Arena::push`]'s callers in this module and `desc`): `len` bytes at `host` are one mapping of
/// the region map the ring was translated with. Or they are memory that a [`Frames`](super::Frames) owns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) host: *mut u8,
    pub(super) len: u32,
}

// SAFETY: an address range, as a Region is: the mapping behind it is not tied to a thread.
unsafe impl Send for Segment {}

/// The segments of all chains of a batch, one chain after another, in memory allocated once.
pub(super) struct Arena {
    segments: Box<[Segment]>,
    used: usize,
}

/// The arena is full.
pub(super) struct NoRoom;

impl Arena {
    /// Room for any one chain (a walk takes at most ring size + [`MAX_SIZE`] descriptors), some region crossings, and
    /// a batch of chains of ordinary length.
    fn new(size: u16) -> Arena {
        let room = usize::from(size) + usize::from(MAX_SIZE) + 64 + 8 * BATCH;
        Arena { segments: vec![Segment { host: ptr::null_mut(), len: 0 }; room].into_boxed_slice(), used: 0 }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, host: *mut u8, len: u32) -> Result<(), NoRoom> {
        *self.segments.get_mut(self.used).ok_or(NoRoom)? = Segment { host, len };
        self.used += 1;
        Ok(())
    }
}

/// One chain of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    first: u32,
    count: u32,
    /// Bytes in all segments, virtio-net header included; 0 for a malformed chain.
    pub(super) len: u32,
    pub(super) head: u16,
    pub(super) malformed: Option<Malformed>,
}

impl Slot {
    /// A chain of which only the place is known: the one segment at `at`.
    pub(super) fn alone(at: u32) -> Slot {
        Slot { first: at, count: 1, len: 0, head: 0, malformed: None }
    }

    /// Its segments, of those of its batch.
    #[inline(always)]
    pub(super) fn of<'a>(&self, segments: &'a [Segment]) -> &'a [Segment] {
        let first = self.first as usize;
        segments.get(first..first + self.count as usize).unwrap_or_default()
    }
}

/// Chains taken from the available ring and translated, oldest first.
///
/// ```text
///   0 ........ first ........ taken ........ count ........ room
///   │ completed │ given out    │ looked ahead │ free
/// ```
///
/// What was looked ahead is nobody's yet: it can be forgotten and read again.
pub(super) struct Batch {
    arena: Arena,
    slots: Box<[Slot]>,
    count: usize,
    taken: usize,
    first: usize,
}

impl Batch {
    /// For a ring of `size` entries: the write side may have to look at all of them at once.
    pub(super) fn new(size: u16) -> Batch {
        let slot = Slot { first: 0, count: 0, len: 0, head: 0, malformed: None };
        let room = usize::from(size).max(BATCH) + BATCH;
        let slots = vec![slot; room].into_boxed_slice();
        Batch { arena: Arena::new(size), slots, count: 0, taken: 0, first: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.arena.used = 0;
        self.count = 0;
        self.taken = 0;
        self.first = 0;
    }

    /// Forgets where the chains given out are, but not their heads, which are still owed to the driver; and forgets
    /// those looked ahead.
    pub(super) fn untranslate(&mut self) {
        self.arena.used = 0;
        self.count = self.taken;
        for slot in self.slots.iter_mut().take(self.count) {
            *slot = Slot { first: 0, count: 0, len: 0, malformed: Some(Malformed::Address), ..*slot };
        }
    }

    /// Chains given out and not completed.
    #[inline(always)]
    pub(super) fn given(&self) -> &[Slot] {
        self.slots.get(self.first..self.taken).unwrap_or_default()
    }

    /// The chains given out are completed.
    #[inline(always)]
    pub(super) fn complete(&mut self) {
        self.first = self.taken;
        if self.taken == self.count {
            self.clear();
        } else if self.count + BATCH > self.slots.len()
            || self.arena.used + 2 * BATCH > self.arena.segments.len()
        {
            self.compact();
        }
    }

    /// Chains not yet taken.
    #[inline(always)]
    pub(super) fn open(&self) -> &[Slot] {
        self.slots.get(self.taken..self.count).unwrap_or_default()
    }

    /// The first piece of a chain not yet taken; any piece for a malformed one.
    #[inline(always)]
    pub(super) fn first_segment(&self, slot: &Slot) -> Option<&Segment> {
        self.arena.segments.get(slot.first as usize)
    }

    /// The buffers of the first chains not yet taken lie one behind the other, as far apart as each other.
    #[inline]
    pub(super) fn is_in_order(&self) -> bool {
        let [a, b, c, d, ..] = self.open() else { return false };
        let place = |slot| self.first_segment(slot).map_or(0, |segment| segment.host.addr());
        let apart = place(b).wrapping_sub(place(a));
        (1..=FAR).contains(&apart)
            && place(c).wrapping_sub(place(b)) == apart
            && place(d).wrapping_sub(place(c)) == apart
    }

    /// Asks the cache for the buffer of the chain `ahead` places behind those taken, to be written.
    #[inline(always)]
    pub(super) fn expect(&self, ahead: usize) {
        if let Some(segment) = self.open().get(ahead).and_then(|slot| self.first_segment(slot)) {
            Arena::expect(Side::Write, segment.host);
        }
    }

    /// Asks for what the first `len` bytes of that buffer take beyond what [`expect`](Self::expect) asks for. A long frame's
    /// stores would fetch a line after the other; asked for while the frame before is copied, they come side by side.
    #[inline(always)]
    pub(super) fn expect_long(&self, ahead: usize, len: usize) {
        let Some(segment) = self.open().get(ahead).and_then(|slot| self.first_segment(slot)) else { return };
        for line in (2 * LINE..len.min(segment.len as usize)).step_by(LINE) {
            copy::prefetch_to_write(segment.host.wrapping_add(line));
        }
    }

    #[inline(always)]
    pub(super) fn take(&mut self, chains: usize) {
        self.taken += chains;
    }

    /// Chains given out and not completed, to be read.
    #[inline(always)]
    pub(super) fn chains(&self) -> Chains<'_> {
        Chains::new(&self.arena.segments, self.given())
    }

    /// The segments of `slot` and of all chains behind it: chains lie one after another in the arena.
    pub(super) fn segments_from(&self, slot: &Slot) -> &[Segment] {
        self.arena.segments.get(slot.first as usize..self.arena.used).unwrap_or_default()
    }

    /// Appends those pieces of the receive chain `head` that the next `left` bytes of a frame were written to, and
    /// takes them off `left`. False if there is no such chain.
    pub(super) fn gather(&mut self, rings: &Rings, window: &mut Region, head: u16, left: &mut u32) -> bool {
        let Some(first) = rings.descriptor(head) else { return false };
        let start = self.arena.used;
        if desc::walk(rings, window, first, Side::Write, &mut self.arena).is_err() {
            return false;
        }
        let walked = start..self.arena.used;
        self.arena.used = start;
        for segment in self.arena.segments.get_mut(walked).unwrap_or_default() {
            if *left == 0 {
                break;
            }
            segment.len = segment.len.min(*left);
            *left -= segment.len;
            self.arena.used += 1;
        }
        true
    }

    /// Everything gathered since the batch was cleared, as one chain of `len` bytes.
    pub(super) fn gathered(&self, len: u32) -> Chain<'_> {
        let segments = self.arena.segments.get(..self.arena.used).unwrap_or_default();
        Chain::new(segments, &Slot { len, ..Slot::alone(0) })
    }

    /// Moves the chains not yet taken to the front, to make room behind them.
    #[cold]
    pub(super) fn compact(&mut self) {
        let base = self.open().first().map_or(self.arena.used, |slot| slot.first as usize);
        self.arena.segments.copy_within(base..self.arena.used, 0);
        self.arena.used -= base;
        self.slots.copy_within(self.taken..self.count, 0);
        self.count -= self.taken;
        self.taken = 0;
        self.first = 0;
        for slot in self.slots.iter_mut().take(self.count) {
            slot.first -= base as u32;
        }
    }

    /// Appends the chains at available positions `at .. at + want`, fewer if the batch is full; gives how many.
    /// The caller has seen that the driver made them available.
    #[inline(always)]
    pub(super) fn append(
        &mut self,
        rings: &Rings,
        window: &mut Region,
        side: Side,
        at: u16,
        want: usize,
    ) -> Result<usize, Broken> {
        let before = self.count;
        let Some(fresh) = self.slots.get_mut(before..) else { return Ok(0) };
        let want = want.min(fresh.len()).min(BATCH);
        // Two rounds, so that the cache misses of one chain overlap those of the next.
        for (slot, at) in fresh.iter_mut().take(want).zip(Positions(at)) {
            let head = rings.avail_head(at);
            if head >= rings.size() {
                return Err(Broken::Head { head, size: rings.size() });
            }
            slot.head = head;
            rings.prefetch_descriptor(head);
        }
        for slot in fresh.iter_mut().take(want) {
            let Some(first) = rings.descriptor(slot.head) else { break };
            if !self.arena.chain(rings, window, side, first, slot) {
                break;
            }
            self.count += 1;
        }
        Ok(self.count - before)
    }
}

/// Ring positions from one on, wrapping at 2^16 as ring indices do.
struct Positions(u16);

impl Iterator for Positions {
    type Item = u16;

    #[inline(always)]
    fn next(&mut self) -> Option<u16> {
        let at = self.0;
        self.0 = at.wrapping_add(1);
        Some(at)
    }
}

impl Arena {
    /// Translates the chain starting with `first` into `slot`. False if there is no room for it now; a chain that
    /// has no room in an empty arena never will, and is malformed.
    #[inline(always)]
    fn chain(
        &mut self,
        rings: &Rings,
        window: &mut Region,
        side: Side,
        first: Descriptor,
        slot: &mut Slot,
    ) -> bool {
        let start = self.used;
        let walked = match self.short(rings, window, side, first) {
            Some(len) => Ok(len),
            None => {
                self.used = start;
                desc::walk(rings, window, first, side, self)
            }
        };
        let checked = match walked {
            Ok(len) if len >= side.least() => Ok(len),
            Ok(_) => Err(Malformed::Short),
            Err(WalkError::Malformed(malformed)) => Err(malformed),
            Err(WalkError::NoRoom) if start == 0 => Err(Malformed::TooLong),
            Err(WalkError::NoRoom) => {
                self.used = start;
                return false;
            }
        };
        (slot.len, slot.malformed) = match checked {
            Ok(len) => (len, None),
            Err(malformed) => {
                self.used = start;
                (0, Some(malformed))
            }
        };
        slot.first = start as u32;
        slot.count = (self.used - start) as u32;
        true
    }

    /// Asks the cache for what lies at the beginning of a chain.
    #[inline(always)]
    fn expect(side: Side, host: *const u8) {
        // The header pushes even a small frame over the end of its first cache line.
        for line in [host, host.wrapping_add(LINE)] {
            match side {
                Side::Read => copy::prefetch(line),
                Side::Write => copy::prefetch_to_write(line),
            }
        }
    }

    /// The chains that nearly all packets use: one or two descriptors in the ring's table, each inside the region
    /// found last. None for every other chain, well-formed or not.
    #[inline(always)]
    fn short(&mut self, rings: &Rings, window: &mut Region, side: Side, first: Descriptor) -> Option<u32> {
        let host = desc::locate(rings.map(), window, first.addr, u64::from(first.len))?;
        if first.len == 0 {
            return None;
        }
        // What is written is asked for frame by frame (`expect`): all at once, they would wait for each other.
        if side == Side::Read {
            Arena::expect(side, host);
        }
        self.push(host, first.len).ok()?;
        if first.ends_chain(side) {
            return Some(first.len);
        }
        if !first.continues_chain(side) {
            return None;
        }
        let second = rings.descriptor(first.next)?;
        if !second.ends_chain(side) || second.len == 0 {
            return None;
        }
        let host = desc::locate(rings.map(), window, second.addr, u64::from(second.len))?;
        copy::prefetch(host);
        self.push(host, second.len).ok()?;
        first.len.checked_add(second.len)
    }
}

impl Side {
    /// The least number of bytes a chain of this direction has to have: the device reads a header and at least one
    /// byte of frame, and writes a header that lies in one chain.
    fn least(self) -> u32 {
        match self {
            Side::Read => VNET_LEN as u32 + 1,
            Side::Write => VNET_LEN as u32,
        }
    }
}
