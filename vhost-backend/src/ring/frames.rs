use std::fmt;
use std::os::fd::BorrowedFd;
use std::slice;

use rustix::io::Errno;

use super::batch::{Segment, Slot};
use super::chain::Chains;
use super::error::Malformed;
use super::uring::{Outcome, Uring};
use super::{BATCH, VNET_LEN};

/// Bytes of a place: the longest frame a Linux interface sends (64 KiB with all its headers, which offloads allow) behind
/// its virtio-net header. An odd number of cache lines, so that the places begin in different sets of the cache.
const PLACE: usize = 1033 * 64;
const _: () = assert!(PLACE > VNET_LEN + 14 + 4 + 65_535);

/// A batch of frames in memory of our own, to be read as the chains of a guest are: what comes from a descriptor.
///
/// Memory is allocated once, 2 MiB, of which only pages that frames have reached are ever used.
pub struct Frames {
    memory: Memory,
    /// A place each. Invariant: [`PLACE`] bytes at `host` are a part of `memory` that is no other segment's.
    segments: Box<[Segment]>,
    slots: Box<[Slot]>,
    count: usize,
}

/// Bytes that nothing but pointers made from this one reach. Invariant: came from a box.
struct Memory(*mut [u8]);

// SAFETY: it is owned, as the box was that it was made from, and bytes are not tied to a thread.
unsafe impl Send for Memory {}

impl Memory {
    fn new(len: usize) -> Memory {
        Memory(Box::into_raw(vec![0; len].into_boxed_slice()))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it came from a box (see the invariant), and segments into it go with the `Frames` that own both.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Frames {
    /// Room for a batch, without frames.
    #[must_use]
    pub fn new() -> Frames {
        let memory = Memory::new(BATCH * PLACE);
        let first = memory.0.cast::<u8>();
        let segments = (0..BATCH).map(|i| Segment { host: first.wrapping_add(i * PLACE), len: 0 }).collect();
        let slots = (0..BATCH).map(|i| Slot::alone(i as u32)).collect();
        Frames { memory, segments, slots, count: 0 }
    }

    /// Reads up to `max` (at most [`BATCH`]) frames in place of those before; gives how many. `read` fills a buffer
    /// with a virtio-net header and a frame behind it and gives the number of bytes, or `None` when there are no more.
    /// Fewer bytes than a header and one more are a malformed chain.
    pub fn fill(&mut self, max: usize, read: impl FnMut(&mut [u8]) -> Option<usize>) -> usize {
        self.clear();
        self.append(max, read)
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// As [`fill`](Self::fill), behind those that there are: `max` more.
    pub fn append(&mut self, max: usize, mut read: impl FnMut(&mut [u8]) -> Option<usize>) -> usize {
        let mut more = 0;
        while more < max {
            let Some(len) = self.free_places().next().and_then(&mut read) else { break };
            self.push(len);
            more += 1;
        }
        more
    }

    /// As [`append`](Self::append) from a descriptor, all in one system call. `failed` hears why a read brought none.
    pub fn append_at_once(
        &mut self,
        max: usize,
        from: BorrowedFd<'_>,
        uring: &mut Uring,
        failed: impl FnMut(Errno),
    ) {
        let outcomes = uring.read(from, self.free_places().take(max));
        self.take(outcomes, failed);
    }

    /// Takes what was read into the next places.
    fn take(&mut self, outcomes: &[Outcome], mut failed: impl FnMut(Errno)) {
        let first = self.count;
        for (number, outcome) in outcomes.iter().enumerate() {
            match outcome.get() {
                Some(Ok(len)) => {
                    // One before it may have brought none.
                    self.segments.swap(self.count, first + number);
                    self.push(len);
                }
                Some(Err(errno)) => failed(errno),
                None => {}
            }
        }
    }

    /// The places behind the frames there are.
    fn free_places(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.segments.iter().skip(self.count).map(|segment| {
            // SAFETY: the bytes are a place of `memory`, which lives as long as `self`; they were initialised when it was
            // made. `self` is borrowed mutably, so no chain is left that reads them, and places do not overlap.
            unsafe { slice::from_raw_parts_mut(segment.host, PLACE) }
        })
    }

    /// What was read into the next place is a frame of `len` bytes, header included.
    fn push(&mut self, len: usize) {
        let place = (self.segments.get_mut(self.count), self.slots.get_mut(self.count));
        let (Some(segment), Some(slot)) = place else { return };
        let len = len.min(PLACE) as u32;
        segment.len = len;
        (slot.len, slot.malformed) =
            if len > VNET_LEN as u32 { (len, None) } else { (0, Some(Malformed::Short)) };
        self.count += 1;
    }

    /// The frames read last.
    #[inline]
    #[must_use]
    pub fn chains(&self) -> Chains<'_> {
        debug_assert_eq!(self.memory.0.len(), BATCH * PLACE);
        Chains::new(&self.segments, self.slots.get(..self.count).unwrap_or_default())
    }
}

impl Default for Frames {
    fn default() -> Frames {
        Frames::new()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    /// Frames with such bytes, the header counted.
    fn filled(frames: &mut Frames, bytes: &[Vec<u8>]) -> usize {
        let mut left = bytes.iter();
        frames.fill(BATCH, |place| {
            let bytes = left.next()?;
            place[..bytes.len()].copy_from_slice(bytes);
            Some(bytes.len())
        })
    }

    fn bytes(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 256 + seed) as u8).collect()
    }

    #[test]
    fn frames_read_are_chains_until_the_next_are_read() {
        let mut frames = Frames::new();
        assert!(frames.chains().get(0).is_none());
        for lens in [vec![13, 72, 1526, 65_563], vec![100; BATCH], vec![60]] {
            let sent: Vec<_> = lens.iter().enumerate().map(|(i, len)| bytes(*len, i)).collect();
            assert_eq!(filled(&mut frames, &sent), sent.len());
            for (i, sent) in sent.iter().enumerate() {
                let chain = frames.chains().get(i).unwrap();
                assert_eq!((chain.len(), chain.malformed()), (sent.len() - VNET_LEN, None));
                assert_eq!(chain.vnet_header(), sent[..VNET_LEN]);
                let mut read = vec![0; PLACE];
                let len = chain.copy_to(0, &mut read);
                assert_eq!(read[..len], sent[VNET_LEN..]);
            }
            assert!(frames.chains().get(sent.len()).is_none());
        }
    }

    #[test]
    fn less_than_a_header_and_a_byte_is_malformed() {
        let mut frames = Frames::new();
        let sent: Vec<_> = [0, 1, 12, 13].into_iter().map(|len| bytes(len, 0)).collect();
        filled(&mut frames, &sent);
        let malformed: Vec<_> =
            (0..4).map(|i| frames.chains().get(i).and_then(|chain| chain.malformed())).collect();
        let short = Some(Malformed::Short);
        assert_eq!(malformed, [short, short, short, None]);
    }

    #[test]
    fn no_more_are_read_than_asked_for_and_none_after_the_last() {
        let mut frames = Frames::new();
        assert_eq!(frames.fill(3, |_| Some(20)), 3);
        assert_eq!(frames.fill(BATCH + 9, |_| Some(20)), BATCH);
        let mut calls = 0;
        assert_eq!(
            frames.fill(BATCH, |_| {
                calls += 1;
                None
            }),
            0
        );
        assert_eq!(calls, 1);
        // One that says it read more than there was room for.
        assert_eq!(frames.fill(1, |place| Some(place.len() + 1)), 1);
        assert_eq!(frames.chains().get(0).map(|chain| chain.len()), Some(PLACE - VNET_LEN));
    }
    #[test]
    fn frames_read_at_once_follow_those_before_them() {
        let Ok(mut uring) = Uring::new() else {
            return skip::skip("frames_read_at_once_follow_those_before_them", "no io_uring");
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut frames = Frames::new();
        for before in [0, 1, 5, BATCH - 1] {
            let sent: Vec<_> = (0..before + 3).map(|number| bytes(13 + 31 * number, number)).collect();
            filled(&mut frames, &sent[..before]);
            for frame in &sent[before..] {
                rustix::io::write(&one, frame).unwrap();
            }
            let there = sent.len().min(BATCH);
            frames.append_at_once(there - before, other.as_fd(), &mut uring, |errno| panic!("{errno}"));
            assert_eq!(frames.count(), there);
            for (i, sent) in sent.iter().take(there).enumerate() {
                let chain = frames.chains().get(i).unwrap();
                let mut read = vec![0; PLACE];
                let len = chain.copy_to(0, &mut read);
                assert_eq!((chain.malformed(), &read[..len]), (None, &sent[VNET_LEN..]));
            }
            while rustix::io::read(&other, &mut [0; PLACE]).is_ok() {}
        }
    }

    #[test]
    fn places_that_brought_no_frame_are_closed_up() {
        let mut frames = Frames::new();
        filled(&mut frames, &[bytes(50, 9)]);
        let outcomes = [Ok(20), Err(Errno::AGAIN), Ok(30), Err(Errno::IO), Err(Errno::AGAIN), Ok(40)];
        for (place, outcome) in frames.free_places().zip(outcomes) {
            let bytes = bytes(outcome.unwrap_or(0), 5);
            place[..bytes.len()].copy_from_slice(&bytes);
        }
        let mut failures = Vec::new();
        frames.take(&outcomes.map(Outcome::of), |errno| failures.push(errno));
        assert_eq!(failures, [Errno::AGAIN, Errno::IO, Errno::AGAIN]);
        let there: Vec<_> = frames
            .chains()
            .iter()
            .map(|chain| {
                let mut read = vec![0; 100];
                let len = chain.copy_to(0, &mut read);
                read[..len].to_vec()
            })
            .collect();
        let expected =
            [bytes(50, 9), bytes(20, 5), bytes(30, 5), bytes(40, 5)].map(|frame| frame[VNET_LEN..].to_vec());
        assert_eq!(there, expected);
        // No two places are the same, whatever was swapped.
        let mut places: Vec<_> = frames.segments.iter().map(|segment| segment.host).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), BATCH);
    }
}
