//! transmitq: frames from the guest to the device.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::{Buffers, Geometry, Layout, Ring, RingCounters, Slots, VNET_HEADER_LEN};
use crate::sys::GuestRam;
use crate::{ChainShape, Error, Options};

/// The driver of one transmitq. Frames are queued by `send…`, shown to the device by [`Transmit::flush`] and their buffers
/// taken back by [`Transmit::reap`]; a batch of sends needs one flush.
#[derive(Debug)]
pub struct Transmit {
    pub(crate) ring: Ring,
    pub(crate) slots: Slots,
    pub(crate) buffers: Buffers,
    in_order: bool,
    scratch: Vec<u8>,
    /// By slot, which one is behind it in its frame's chain, of which the device names but the first. Empty until there is one.
    behind: Vec<Option<u16>>,
}

impl Transmit {
    pub(crate) fn new(ram: &Arc<GuestRam>, options: &Options) -> Result<Transmit, Error> {
        let geometry = Geometry::transmit(options);
        Ok(Transmit {
            ring: Ring::new(ram, options.ring_size, options.event_idx)?,
            slots: Slots::new(geometry.slots),
            buffers: Buffers::new(ram, geometry)?,
            in_order: options.in_order,
            scratch: Vec::with_capacity(geometry.buffer_len as usize),
            behind: Vec::new(),
        })
    }

    pub(crate) fn reset(&mut self) {
        self.ring.reset();
        self.slots.reset();
        self.behind.clear();
    }

    /// Looks for used chains if fewer than `count` can be queued, and has the processor fetch what sending that many writes.
    /// It need not be called; a batch of sends is faster then.
    #[inline]
    pub fn prepare(&mut self, count: usize) {
        if self.slots.free() < count {
            self.reap();
        }
        for slot in self.slots.upcoming(count) {
            self.buffers.prefetch_to_write(slot);
            self.ring.prefetch_to_describe(self.buffers.head(slot));
        }
    }

    /// Queues a frame. False if the ring is full (after looking for used chains) or the frame longer than a buffer.
    #[inline]
    pub fn send(&mut self, frame: &[u8]) -> bool {
        self.send_with(frame.len(), |buffer| buffer.copy_from_slice(frame))
    }

    /// Queues a frame of `len` bytes that `fill` writes into the buffer, which holds old bytes before.
    #[inline]
    pub fn send_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        self.send_with_header(&[0; VNET_HEADER_LEN], len, fill)
    }

    /// As [`Transmit::send_with`], with a virtio-net header of the caller's (offload request, or a query carried in it).
    #[inline]
    pub fn send_with_header(
        &mut self,
        header: &[u8; VNET_HEADER_LEN],
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> bool {
        self.build(header, len, |buffer| {
            fill(buffer);
            Some(len)
        })
    }

    /// Lets `fill` write up to `room` bytes into a buffer and queues as many as it says; with `None` nothing is sent. False if
    /// nothing was queued.
    #[inline]
    pub fn send_built(&mut self, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        self.build(&[0; VNET_HEADER_LEN], room, fill)
    }

    #[inline(always)]
    fn build(
        &mut self,
        header: &[u8; VNET_HEADER_LEN],
        room: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let room = VNET_HEADER_LEN + room;
        if room > self.buffers.geometry.buffer_len as usize {
            return false;
        }
        if self.slots.free() == 0 {
            self.reap();
        }
        let Some(slot) = self.slots.take() else { return false };
        let joined = self.buffers.geometry.shape == ChainShape::Joined;
        let buffer = if joined {
            self.buffers.bytes_mut(slot, room)
        } else {
            self.scratch.resize(room, 0);
            &mut self.scratch[..]
        };
        let (head, frame) = buffer.split_at_mut(VNET_HEADER_LEN);
        head.copy_from_slice(header);
        let Some(len) = fill(frame).filter(|len| *len <= frame.len()) else {
            self.slots.untake(slot);
            return false;
        };
        let total = VNET_HEADER_LEN + len;
        if !joined {
            self.buffers.scatter(slot, &self.scratch[..total], total as u32);
        }
        self.buffers.describe(&self.ring, slot, total as u32, 0);
        self.ring.offer(self.buffers.head(slot));
        true
    }

    /// Shows the device what was queued and kicks it if it asks for that. True if it was kicked.
    #[inline]
    pub fn flush(&mut self) -> bool {
        self.ring.publish()
    }

    /// Takes back the chains the device has used. Returns how many.
    #[inline]
    pub fn reap(&mut self) -> usize {
        let pending = self.ring.look(self.slots.in_flight());
        let mut taken = 0;
        while taken < pending {
            let (id, _) = self.ring.used_element(taken);
            taken += match self.buffers.slot(id) {
                Some(slot) if self.in_order => self.give_back_up_to(slot, pending - taken),
                Some(slot) => {
                    if !self.slots.give_back(slot) {
                        self.ring.violation();
                    } else if !self.behind.is_empty() {
                        self.give_back_behind(slot);
                    }
                    1
                }
                None => {
                    self.ring.violation();
                    1
                }
            };
        }
        self.ring.advance(taken);
        taken
    }

    /// These slots are one chain.
    pub(super) fn link(&mut self, slots: &[u16]) {
        assert!(!self.in_order, "chains of several slots are given back by their first one");
        self.behind.resize(self.slots.count(), None);
        for pair in slots.windows(2) {
            self.behind[usize::from(pair[0])] = Some(pair[1]);
        }
    }

    #[cold]
    fn give_back_behind(&mut self, mut slot: u16) {
        while let Some(next) = self.behind[usize::from(slot)].take() {
            self.slots.give_back(next);
            slot = next;
        }
    }

    /// VIRTIO_F_IN_ORDER: one used element may stand for all chains up to `last` (virtio 1.2 section 2.7.9).
    fn give_back_up_to(&mut self, last: u16, limit: usize) -> usize {
        let Some(oldest) = self.slots.oldest() else {
            self.ring.violation();
            return 1;
        };
        let count = self.slots.count() as u16;
        let span = usize::from(if last >= oldest { last - oldest } else { last + (count - oldest) }) + 1;
        if span > limit {
            self.ring.violation();
            return 1;
        }
        let mut slot = oldest;
        for _ in 0..span {
            if !self.slots.give_back(slot) {
                self.ring.violation();
            }
            slot = if slot + 1 == count { 0 } else { slot + 1 };
        }
        span
    }

    /// Chains that can be queued now, without looking at the used ring.
    #[inline]
    pub fn free(&self) -> usize {
        self.slots.free()
    }

    /// Chains that are with the device or queued for it.
    pub fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    /// Longest frame that fits a buffer.
    pub fn max_frame(&self) -> usize {
        self.buffers.geometry.buffer_len as usize - VNET_HEADER_LEN
    }

    /// What happened on this ring.
    pub fn counters(&self) -> RingCounters {
        self.ring.counters
    }

    /// Where the ring lies.
    pub fn layout(&self) -> Layout {
        self.ring.layout()
    }

    /// Asks the device for a call when it uses the next chain; true if one waits already.
    pub fn arm(&mut self) -> bool {
        self.ring.arm()
    }

    /// Asks the device for no calls, and forgets the one that may be pending.
    pub fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// The eventfd the device calls.
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.ring.call.as_fd()
    }

    /// Calls since the last look (the eventfd's counter, which this clears).
    pub fn calls(&self) -> u64 {
        self.ring.calls()
    }

    /// Times the device signalled the ring's error descriptor since the last look.
    pub fn errors(&self) -> u64 {
        self.ring.errors()
    }
}
