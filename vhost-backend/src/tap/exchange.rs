use crate::ring::{BATCH, Frames, Gather, Uring, VNET_LEN};
use crate::telemetry::Discard;

use super::Queue;

/// The longest frame a tap is handed, with its virtio-net header: what IP can carry, with VLAN tags.
const LONGEST: usize = VNET_LEN + 65_535 + 32;
/// Bytes of the frames that wait to be written. Of long ones, a few are as cheap as many.
const MEMORY: usize = 4 * LONGEST;
/// Each begins in a cache line of its own.
const LINE: usize = 64;
/// Reads in one system call, at most: those in vain cost, too.
const READS: usize = 16;

/// How a worker's frames come from the queues of taps and go into them: many in one system call where the kernel lets it, else
/// one by one.
pub struct Exchange {
    uring: Option<Uring>,
    /// Where frames are put together, one behind the other.
    memory: Box<[u8]>,
    /// Where those that wait begin and end.
    waiting: [(usize, usize); BATCH],
    count: usize,
    /// Where there is room behind them.
    end: usize,
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}

impl Exchange {
    /// One that takes a system call for each frame.
    #[must_use]
    pub fn new() -> Self {
        Self { uring: None, memory: vec![0; MEMORY].into(), waiting: [(0, 0); BATCH], count: 0, end: 0 }
    }

    /// Takes one system call for many frames from now on.
    ///
    /// # Errors
    /// The kernel has no io_uring, or refuses it to this process; frames go one by one then.
    pub fn use_uring(&mut self) -> std::io::Result<()> {
        if self.uring.is_none() {
            self.uring = Some(Uring::new()?);
        }
        Ok(())
    }

    /// Whether one system call is taken for many frames.
    #[must_use]
    pub fn has_uring(&self) -> bool {
        self.uring.is_some()
    }

    /// Reads the frames that wait in a queue, up to [`BATCH`], in place of those before; gives how many. After less than a
    /// batch a descriptor watched for edges signals when there are more.
    pub fn read(&mut self, queue: &Queue<'_>, frames: &mut Frames) -> usize {
        // As many as came last are likely to be there again.
        let mut ask = frames.count().clamp(1, READS);
        frames.clear();
        let mut faults = 0;
        // The first one by itself: a look at a queue without frames shall cost no more than that.
        let mut more = queue.append(frames, 1, &mut faults);
        while more && frames.count() < BATCH {
            let most = ask.min(BATCH - frames.count());
            more = match &mut self.uring {
                Some(uring) if most > 1 => queue.append_at_once(frames, most, uring, &mut faults),
                _ => queue.append(frames, most, &mut faults),
            };
            self.give_up_spent();
            ask = (2 * ask).min(READS);
        }
        frames.count()
    }

    /// Writes one frame, while none waits.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn write(&mut self, queue: &Queue<'_>, frame: &Gather<'_>) -> Result<(), Discard> {
        let room = self.memory.get_mut(..LONGEST).unwrap_or_default();
        queue.write(frame.join(room).ok_or(Discard::TooLong)?)
    }

    /// Puts a frame with those that wait; false if there is no room for it before they are written.
    ///
    /// # Errors
    /// It is too long to be ever taken.
    pub fn add(&mut self, frame: &Gather<'_>) -> Result<bool, Discard> {
        if VNET_LEN + frame.len() > LONGEST {
            return Err(Discard::TooLong);
        }
        let room = self.memory.get_mut(self.end..);
        let (Some(place), Some(room)) = (self.waiting.get_mut(self.count), room) else { return Ok(false) };
        let Some(joined) = frame.join(room) else { return Ok(false) };
        *place = (self.end, self.end + joined.len());
        self.end = place.1.next_multiple_of(LINE);
        self.count += 1;
        Ok(true)
    }

    /// Writes the frames that wait, in their order; `refused` hears of each that was not taken, how long it was and why.
    pub fn flush(&mut self, queue: &Queue<'_>, mut refused: impl FnMut(usize, Discard)) {
        let Self { uring, memory, waiting, count, .. } = self;
        let memory: &[u8] = memory;
        let frames = waiting.iter().take(*count).filter_map(|(begin, end)| memory.get(*begin..*end));
        let outcomes = match (uring, queue.descriptor()) {
            (Some(uring), Some(fd)) if *count > 1 => uring.write(fd, frames.clone()),
            _ => &[],
        };
        for (number, frame) in frames.enumerate() {
            let written = match outcomes.get(number).and_then(|outcome| outcome.get()) {
                Some(written) => queue.written(written),
                None => queue.write(frame),
            };
            if let Err(reason) = written {
                refused(frame.len().saturating_sub(VNET_LEN), reason);
            }
        }
        (self.count, self.end) = (0, 0);
        self.give_up_spent();
    }

    /// Goes on one by one when it does not work out otherwise.
    fn give_up_spent(&mut self) {
        if self.uring.as_ref().is_some_and(Uring::is_spent) {
            log::info!("io_uring is refused, or waits for taps; each frame of a tap takes a system call");
            self.uring = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rstest::rstest;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::super::Tap;
    use super::*;
    use crate::ring::VnetHeader;

    /// A tap of one queue, behind which is not the host's stack but the test.
    fn tap() -> (Tap, OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (queue, stack) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let tap = Tap::new(1).unwrap();
        tap.replace(vec![queue]);
        (tap, stack)
    }

    /// `None` where the kernel lets nobody have an io_uring.
    fn exchange(at_once: bool, test: &str) -> Option<Exchange> {
        let mut exchange = Exchange::new();
        if at_once && let Err(error) = exchange.use_uring() {
            skip::skip(test, &format!("io_uring: {error}"));
            return None;
        }
        assert_eq!(exchange.has_uring(), at_once);
        Some(exchange)
    }

    fn frame(number: usize) -> Vec<u8> {
        (0..60 + 37 * (number % 20)).map(|at| (at + number) as u8).collect()
    }

    fn gather(frame: &[u8]) -> Gather<'_> {
        Gather { vnet: VnetHeader::NONE, head: frame, tail: None }
    }

    fn from(stack: &OwnedFd) -> Option<Vec<u8>> {
        let mut read = vec![0; LONGEST];
        let len = rustix::io::read(stack, &mut read).ok()?;
        Some(read[VNET_LEN..len].to_vec())
    }

    #[rstest]
    fn frames_are_read_in_order_however_many_there_are(#[values(false, true)] at_once: bool) {
        let test = "frames_are_read_in_order_however_many_there_are";
        let Some(mut exchange) = exchange(at_once, test) else { return };
        let (tap, stack) = tap();
        let queue = tap.queue(0).unwrap();
        let mut frames = Frames::new();
        let mut next = 0;
        for count in [0, 1, 2, 3, BATCH - 1, 0, BATCH, BATCH + 1, 5, 70, 1, 7, 0] {
            for number in next..next + count {
                let sent = [vec![0; VNET_LEN], frame(number)].concat();
                rustix::io::write(&stack, &sent).unwrap();
            }
            let end = next + count;
            loop {
                let read = exchange.read(&queue, &mut frames);
                assert_eq!(read, (end - next).min(BATCH), "of {count}");
                for number in 0..read {
                    let chain = frames.chains().get(number).unwrap();
                    let mut bytes = vec![0; 4096];
                    let len = chain.copy_to(0, &mut bytes);
                    assert_eq!(bytes[..len], frame(next), "{next}");
                    next += 1;
                }
                if read < BATCH {
                    break;
                }
            }
            assert_eq!(next, end);
        }
    }

    #[rstest]
    fn frames_that_wait_are_written_in_order(#[values(false, true)] at_once: bool) {
        let Some(mut exchange) = exchange(at_once, "frames_that_wait_are_written_in_order") else { return };
        let (tap, stack) = tap();
        let queue = tap.queue(0).unwrap();
        let mut next = 0;
        for count in [1, 2, BATCH, 0, 9] {
            for number in next..next + count {
                assert_eq!(exchange.add(&gather(&frame(number))), Ok(true));
            }
            assert!(count < BATCH || exchange.add(&gather(&frame(0))) == Ok(false), "no room");
            exchange.flush(&queue, |len, why| panic!("{len} refused: {why:?}"));
            for number in next..next + count {
                assert_eq!(from(&stack), Some(frame(number)));
            }
            assert_eq!(from(&stack), None);
            next += count;
        }
    }

    #[rstest]
    fn what_is_not_taken_is_told_frame_by_frame(#[values(false, true)] at_once: bool) {
        let Some(mut exchange) = exchange(at_once, "what_is_not_taken_is_told_frame_by_frame") else {
            return;
        };
        let (tap, stack) = tap();
        let queue = tap.queue(0).unwrap();
        let long = vec![7; 16_000];
        let (mut sent, mut refused) = (0, Vec::new());
        while refused.is_empty() {
            for _ in 0..10 {
                assert_eq!(exchange.add(&gather(&long)), Ok(true));
                sent += 1;
            }
            exchange.flush(&queue, |len, why| refused.push((len, why)));
            assert!(sent < 10_000, "its queue has no end");
        }
        assert!(refused.iter().all(|refused| *refused == (16_000, Discard::RingFull)), "{refused:?}");
        let arrived = std::iter::from_fn(|| from(&stack)).count();
        assert_eq!(arrived + refused.len(), sent);
        assert_eq!(exchange.add(&gather(&[0; LONGEST - VNET_LEN + 1])), Err(Discard::TooLong));
        // Nobody is there any more.
        drop(stack);
        let mut refused = Vec::new();
        for len in [60, 70] {
            assert_eq!(exchange.add(&gather(&vec![0; len])), Ok(true));
        }
        exchange.flush(&queue, |len, why| refused.push((len, why)));
        assert_eq!(refused, [(60, Discard::Refused), (70, Discard::Refused)]);
    }

    #[rstest]
    fn the_longest_frames_go_a_few_at_a_time(#[values(false, true)] at_once: bool) {
        let Some(mut exchange) = exchange(at_once, "the_longest_frames_go_a_few_at_a_time") else { return };
        let (tap, stack) = tap();
        let queue = tap.queue(0).unwrap();
        let longest = vec![3; LONGEST - VNET_LEN];
        for _ in 0..3 {
            let mut waiting = 0;
            while exchange.add(&gather(&longest)).unwrap() {
                waiting += 1;
            }
            assert!((2..=4).contains(&waiting), "{waiting}");
            let mut refused = 0;
            exchange.flush(&queue, |_, _| refused += 1);
            let arrived = std::iter::from_fn(|| from(&stack)).filter(|frame| *frame == longest).count();
            assert_eq!(arrived + refused, waiting);
            assert!(arrived > 0);
        }
    }

    #[test]
    fn a_queue_that_was_closed_gives_nothing() {
        let (tap, _stack) = tap();
        tap.replace(Vec::new());
        assert!(tap.queue(0).is_none());
    }
}
