//! A guest that sends a frame back in the buffer it came in.

use std::mem;

use super::receive::num_buffers;
use super::{BATCH, Buffers, VNET_HEADER_LEN};
use crate::{ChainShape, Pair};

impl Pair {
    /// As [`Receive::expect`](crate::Receive::expect), for frames that will be [sent back](Self::echo).
    #[inline]
    pub fn expect_to_echo(&mut self) {
        let pending = self.rx.ring.look(self.rx.slots.in_flight()).min(BATCH);
        self.rx.ask(pending, Buffers::prefetch_to_change);
    }

    /// Lets `answer` change up to `limit` received frames in place and sends back as many of their first bytes as it
    /// says, with an empty virtio-net header; with `None` the frame ends here. No payload is copied: the received
    /// buffer becomes the transmitq's and a free one of that the receiveq's, as in a service that polls its vNIC.
    ///
    /// No frame is taken that could not be sent. A frame in more than one buffer is counted as a violation and dropped.
    /// Returns how many frames were taken.
    ///
    /// # Panics
    /// If the buffers of the two rings are not of one length and one descriptor each.
    #[inline]
    pub fn echo(&mut self, limit: usize, mut answer: impl FnMut(&mut [u8]) -> Option<usize>) -> usize {
        assert_exchangeable(self);
        let Pair { rx, tx } = self;
        let pending = rx.ring.pending(rx.slots.in_flight()).min(limit).min(BATCH);
        if tx.free() < pending {
            tx.reap();
        }
        let pending = pending.min(tx.free());
        rx.ask(pending, Buffers::prefetch_to_change);
        for ahead in 0..pending {
            let Some((slot, len)) = rx.element(ahead) else { continue };
            let buffer = rx.buffers.bytes_mut(slot, len as usize);
            if let Some((header, frame)) = buffer.split_first_chunk_mut::<VNET_HEADER_LEN>() {
                if num_buffers(header, rx.mergeable) != 1 {
                    rx.ring.violation();
                } else if let Some(len) = answer(frame).filter(|len| *len <= frame.len())
                    && let Some(out) = tx.slots.take()
                {
                    header.fill(0);
                    mem::swap(
                        &mut rx.buffers.buffers[usize::from(slot)],
                        &mut tx.buffers.buffers[usize::from(out)],
                    );
                    tx.buffers.describe(&tx.ring, out, (VNET_HEADER_LEN + len) as u32, 0);
                    tx.ring.offer(tx.buffers.head(out));
                }
            }
            rx.slots.give_back(slot);
        }
        rx.advance(pending);
        rx.refill();
        tx.flush();
        pending
    }
}

/// That the buffers of both rings are alike.
#[inline(always)]
pub(super) fn assert_exchangeable(pair: &Pair) {
    let (rx, tx) = (&pair.rx.buffers.geometry, &pair.tx.buffers.geometry);
    assert_eq!((rx.shape, tx.shape), (ChainShape::Joined, ChainShape::Joined), "one descriptor a buffer");
    assert_eq!(rx.buffer_len, tx.buffer_len, "buffers are exchanged");
}
