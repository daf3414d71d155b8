//! Frames that lie in several receive buffers (VIRTIO_NET_F_MRG_RXBUF), looked at and sent back where they lie: for guests
//! that are to cost next to nothing themselves.

use std::mem;

use super::echo::assert_exchangeable;
use super::receive::num_buffers;
use super::{BATCH, Buffers, DESC_F_NEXT, VNET_HEADER_LEN};
use crate::sys::Descriptor;
use crate::{ChainShape, Pair, Receive, Transmit};

/// Buffers of a frame at most: 64 KiB in the smallest that Linux posts.
const MOST: usize = 64;

/// Places and lengths of a frame's buffers.
type Pieces = [(u16, u32); MOST];

/// A frame at the front of what the device has used.
enum Front {
    /// All of its buffers are there; so many.
    Frame(usize),
    /// So many buffers hold no frame; they have been given back.
    Wrong(usize),
    /// Some buffers of it have not come.
    Awaited,
}

impl Receive {
    /// As [`Receive::receive`], with each frame in the pieces it lies in.
    ///
    /// # Panics
    /// If the buffers are not of one descriptor each.
    #[inline]
    pub fn receive_pieces(&mut self, mut take: impl FnMut(&[&[u8]])) -> usize {
        assert_eq!(self.buffers.geometry.shape, ChainShape::Joined, "one descriptor a buffer");
        let mut pending = self.ring.pending(self.slots.in_flight());
        self.ask(pending, Buffers::prefetch);
        let (mut taken, mut frames) = (0, 0);
        let mut places = [(0, 0); MOST];
        while frames < BATCH && taken < pending {
            let count = match self.front(taken, &mut pending, &mut places) {
                Front::Frame(count) => count,
                Front::Wrong(count) => {
                    taken += count;
                    continue;
                }
                Front::Awaited => break,
            };
            let mut pieces = [&[][..]; MOST];
            for (at, (piece, (slot, len))) in pieces.iter_mut().zip(&places[..count]).enumerate() {
                let bytes = self.buffers.bytes(*slot, *len as usize);
                *piece = if at == 0 { &bytes[VNET_HEADER_LEN..] } else { bytes };
            }
            take(&pieces[..count]);
            places[..count].iter().for_each(|(slot, _)| _ = self.slots.give_back(*slot));
            taken += count;
            frames += 1;
        }
        self.advance(taken);
        self.refill();
        frames
    }

    /// The frame that begins `ahead` places on, its buffers in `places`. What is wrong there is counted and given back.
    fn front(&mut self, ahead: usize, pending: &mut usize, places: &mut Pieces) -> Front {
        let Some(first) = self.element(ahead) else { return Front::Wrong(1) };
        let header = self.buffers.bytes(first.0, VNET_HEADER_LEN).first_chunk().copied().unwrap_or_default();
        let count = num_buffers(&header, self.mergeable);
        if !(1..=MOST.min(self.slots.count())).contains(&count) {
            self.ring.violation();
            self.slots.give_back(first.0);
            return Front::Wrong(1);
        }
        if count > *pending - ahead {
            // The rest of the frame may have come since the last look.
            *pending = self.ring.look(self.slots.in_flight() + ahead);
            if count > *pending - ahead {
                return Front::Awaited;
            }
        }
        places[0] = first;
        for nth in 1..count {
            let (id, len) = self.ring.used_element(ahead + nth);
            let slot = self.buffers.slot(id).filter(|slot| self.slots.is_with_device(*slot));
            let Some(slot) = slot.filter(|_| len <= self.buffers.geometry.buffer_len) else {
                self.ring.violation();
                places[..nth].iter().for_each(|(slot, _)| _ = self.slots.give_back(*slot));
                return Front::Wrong(nth + 1);
            };
            places[nth] = (slot, len);
        }
        Front::Frame(count)
    }
}

impl Pair {
    /// As [`echo`](Self::echo), for frames in any number of buffers: each goes back in those it came in, a descriptor for each.
    /// `answer` sees what the first one holds; when it wants less than that sent, the frame ends there.
    ///
    /// # Panics
    /// As [`echo`](Self::echo); or if the driver negotiated VIRTIO_F_IN_ORDER, whose order of descriptors this does not keep.
    #[inline]
    pub fn echo_merged(&mut self, limit: usize, mut answer: impl FnMut(&mut [u8]) -> Option<usize>) -> usize {
        assert_exchangeable(self);
        let Pair { rx, tx } = self;
        let mut pending = rx.ring.pending(rx.slots.in_flight());
        rx.ask(pending, Buffers::prefetch_to_change);
        let (mut taken, mut frames) = (0, 0);
        let mut places = [(0, 0); MOST];
        while frames < limit && taken < pending {
            let mut count = match rx.front(taken, &mut pending, &mut places) {
                Front::Frame(count) => count,
                Front::Wrong(count) => {
                    taken += count;
                    continue;
                }
                Front::Awaited => break,
            };
            if tx.free() < count {
                tx.reap();
                if tx.free() < count {
                    break;
                }
            }
            taken += count;
            frames += 1;
            let (first, len) = places[0];
            let buffer = rx.buffers.bytes_mut(first, len as usize);
            let Some((header, frame)) = buffer.split_first_chunk_mut::<VNET_HEADER_LEN>() else { continue };
            header.fill(0);
            let all = frame.len();
            let wanted = answer(frame).filter(|wanted| *wanted <= all);
            places[..count].iter().for_each(|(slot, _)| _ = rx.slots.give_back(*slot));
            let Some(wanted) = wanted else { continue };
            if wanted < all {
                (places[0].1, count) = ((VNET_HEADER_LEN + wanted) as u32, 1);
            }
            let mut out = [0; MOST];
            for (out, (slot, _)) in out.iter_mut().zip(&places[..count]) {
                // As many as were seen to be free.
                let Some(free) = tx.slots.take() else { break };
                let (from, to) = (usize::from(*slot), usize::from(free));
                mem::swap(&mut rx.buffers.buffers[from], &mut tx.buffers.buffers[to]);
                *out = free;
            }
            tx.queue_linked(&out[..count], &places[..count]);
        }
        rx.advance(taken);
        rx.refill();
        tx.flush();
        frames
    }
}

impl Transmit {
    /// Queues one frame that lies in the buffers of several slots, `lens` bytes in each, as one chain.
    fn queue_linked(&mut self, slots: &[u16], lens: &[(u16, u32)]) {
        for (nth, (slot, (_, len))) in slots.iter().zip(lens).enumerate() {
            let next = slots.get(nth + 1).copied();
            let (flags, next) = next.map_or((0, 0), |next| (DESC_F_NEXT, self.buffers.head(next)));
            let descriptor = Descriptor { addr: self.buffers.address(*slot), len: *len, flags, next };
            self.ring.describe(self.buffers.head(*slot), descriptor);
        }
        if let Some(first) = slots.first() {
            self.link(slots);
            self.ring.offer(self.buffers.head(*first));
        }
    }
}
