use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::{IoUring, Probe, opcode};
use rustix::io::Errno;

use super::BATCH;

/// Many reads or writes of one descriptor in one system call, by Linux's io_uring.
///
/// They are over when the call returns, as with `read` and `write`: what the kernel is told of is borrowed until then, and
/// nothing is under way between two calls. The kernel is asked to wait for nothing (RWF_NOWAIT; it would wait for a
/// descriptor that does not wait, too), so it carries each out as it takes it, and they are in order. A `Uring` whose kernel
/// cannot do that for a descriptor is spent.
///
/// Invariant: nothing that was begun is under way outside of `carry_out`.
pub struct Uring {
    ring: IoUring,
    outcomes: [Outcome; BATCH],
    spent: bool,
}

/// The number of entries that take back others.
const TAKES_BACK: u64 = u64::MAX;

/// What came of one read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome(i32);

impl Outcome {
    const NOT_DONE: Outcome = Outcome(-libc::ECANCELED);

    /// How many bytes, or why none; `None` if nothing was done, and nothing will be by this [`Uring`].
    #[must_use]
    pub fn get(self) -> Option<Result<usize, Errno>> {
        if self == Self::NOT_DONE {
            return None;
        }
        Some(usize::try_from(self.0).map_err(|_| Errno::from_raw_os_error(self.0.wrapping_neg())))
    }
}

#[cfg(test)]
impl Outcome {
    pub(super) fn of(result: Result<usize, Errno>) -> Outcome {
        Outcome(result.map_or_else(|errno| -errno.raw_os_error(), |len| len as i32))
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring").field("spent", &self.spent).finish_non_exhaustive()
    }
}

impl Uring {
    /// Room for a batch.
    ///
    /// # Errors
    /// The kernel has no io_uring, one older than Linux 5.6, or refuses it to this process.
    pub fn new() -> io::Result<Uring> {
        let ring = IoUring::new(BATCH as u32)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) || !probe.is_supported(opcode::Write::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Uring { ring, outcomes: [Outcome::NOT_DONE; BATCH], spent: false })
    }

    /// It is of no use: every call is in vain from now on.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// Reads from a descriptor into one place after the other, [`BATCH`] at most. A place without an outcome was not used.
    pub fn read<'a>(
        &mut self,
        from: BorrowedFd<'_>,
        places: impl Iterator<Item = &'a mut [u8]>,
    ) -> &[Outcome] {
        let fd = Fd(from.as_raw_fd());
        let entries = places.map(|place| {
            opcode::Read::new(fd, place.as_mut_ptr(), length(place)).rw_flags(libc::RWF_NOWAIT).build()
        });
        // SAFETY: each place is borrowed for longer than this call, and as a unique reference, so it stays and nobody else
        // gets at it; the kernel writes no more than its length.
        unsafe { self.carry_out(entries) }
    }

    /// Writes one frame after the other to a descriptor, [`BATCH`] at most. A frame without an outcome was not written.
    pub fn write<'a>(&mut self, to: BorrowedFd<'_>, frames: impl Iterator<Item = &'a [u8]>) -> &[Outcome] {
        let fd = Fd(to.as_raw_fd());
        let entries = frames.map(|frame| {
            opcode::Write::new(fd, frame.as_ptr(), length(frame)).rw_flags(libc::RWF_NOWAIT).build()
        });
        // SAFETY: each frame is borrowed for longer than this call, so it stays and nobody changes it; the kernel reads no
        // more than its length.
        unsafe { self.carry_out(entries) }
    }

    /// Has the kernel carry the entries out; returns when all that were begun are over.
    ///
    /// # Safety
    /// The memory that the entries name stays until this returns; nobody but the kernel touches what is read into, and nobody
    /// changes what is written.
    unsafe fn carry_out(&mut self, entries: impl Iterator<Item = Entry>) -> &[Outcome] {
        let mut queue = self.ring.submission();
        // What is left there, when the kernel refused it or an iterator panicked, must never begin: its memory may be gone.
        if self.spent || !queue.is_empty() {
            self.spent = true;
            return &[];
        }
        let mut count = 0;
        for entry in entries.take(BATCH) {
            let entry = entry.user_data(count as u64);
            // SAFETY: the memory it names stays until this function returns, as its caller promises; by then the entry is
            // over, or left in the queue of a `Uring` that is spent, which is not submitted again.
            if unsafe { queue.push(&entry) }.is_err() {
                break;
            }
            count += 1;
        }
        drop(queue);
        self.outcomes.iter_mut().take(count).for_each(|outcome| *outcome = Outcome::NOT_DONE);
        // A refusal is met again below.
        let _ = self.ring.submit();
        let done = self.collect();
        if done < count {
            self.settle(count, done);
        }
        self.outcomes.get(..count).unwrap_or_default()
    }

    /// Takes the outcomes that are there; how many.
    fn collect(&mut self) -> usize {
        let Self { ring, outcomes, spent } = self;
        let mut done = 0;
        for entry in ring.completion() {
            let place = usize::try_from(entry.user_data()).ok().and_then(|number| outcomes.get_mut(number));
            let Some(place) = place else { continue };
            // It cannot do without waiting.
            if entry.result() == -libc::EOPNOTSUPP {
                *spent = true;
            } else {
                *place = Outcome(entry.result());
            }
            done += 1;
        }
        done
    }

    /// Until each of `count` entries, `done` of which are over, is over or was never begun.
    #[cold]
    fn settle(&mut self, count: usize, mut done: usize) {
        // What the kernel did not take at first.
        while !self.ring.submission().is_empty() && matches!(self.ring.submit(), Ok(1..)) {}
        done += self.collect();
        if done >= count {
            return;
        }
        self.spent = true;
        let were_all_begun = self.ring.submission().is_empty();
        if were_all_begun {
            self.take_back(count);
        }
        loop {
            let never_begun = if were_all_begun { 0 } else { self.ring.submission().len() };
            if done + never_begun >= count {
                return;
            }
            // Should the call fail it is made again: each lets the kernel go on with what is under way.
            let _ = self.ring.submit_and_wait(1);
            done += self.collect();
        }
    }

    /// Asks the kernel to end what is not over of `count` entries.
    fn take_back(&mut self, count: usize) {
        let Self { ring, outcomes, .. } = self;
        let mut queue = ring.submission();
        for (number, outcome) in outcomes.iter().take(count).enumerate() {
            if *outcome == Outcome::NOT_DONE {
                let entry = opcode::AsyncCancel::new(number as u64).build().user_data(TAKES_BACK);
                // SAFETY: the entry names no memory.
                let _ = unsafe { queue.push(&entry) };
            }
        }
    }
}

fn length(memory: &[u8]) -> u32 {
    u32::try_from(memory.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _, pipe};
    use std::os::fd::{AsFd, OwnedFd};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;
    use std::time::Duration;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    /// `None` where the kernel lets nobody have one.
    fn uring(test: &str) -> Option<Uring> {
        Uring::new().map_err(|error| skip::skip(test, &format!("io_uring: {error}"))).ok()
    }

    /// Messages go through, as frames do through a tap, and nothing waits.
    fn ends() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn ended(outcomes: &[Outcome]) -> Vec<Result<usize, Errno>> {
        outcomes.iter().map(|outcome| outcome.get().expect("it was begun")).collect()
    }

    #[test]
    fn what_is_written_is_read_in_order_and_then_there_is_no_more() {
        let Some(mut uring) = uring("what_is_written_is_read_in_order_and_then_there_is_no_more") else {
            return;
        };
        let (one, other) = ends();
        for round in 0..100_u8 {
            let frames: Vec<Vec<u8>> = (0..20).map(|number| vec![number; 1 + usize::from(number)]).collect();
            let written = ended(uring.write(one.as_fd(), frames.iter().map(Vec::as_slice)));
            assert_eq!(written, (1..=20).map(Ok).collect::<Vec<_>>());
            let mut places = vec![vec![round; 64]; 25];
            let read = ended(uring.read(other.as_fd(), places.iter_mut().map(Vec::as_mut_slice)));
            assert_eq!(read[..20], written);
            assert_eq!(read[20..], [Err(Errno::AGAIN); 5]);
            for (place, frame) in places.iter().zip(&frames) {
                assert_eq!(&place[..frame.len()], frame);
                assert!(place[frame.len()..].iter().all(|byte| *byte == round));
            }
        }
        assert!(!uring.is_spent());
    }

    #[test]
    fn no_more_than_a_batch_is_taken() {
        let Some(mut uring) = uring("no_more_than_a_batch_is_taken") else { return };
        let (one, other) = ends();
        let frames = [[1_u8; 10]; BATCH + 7];
        assert_eq!(uring.write(one.as_fd(), frames.iter().map(<[u8; 10]>::as_slice)).len(), BATCH);
        assert!(uring.write(one.as_fd(), std::iter::empty()).is_empty());
        let mut places = [[0_u8; 16]; BATCH + 7];
        assert_eq!(uring.read(other.as_fd(), places.iter_mut().map(<[u8; 16]>::as_mut_slice)).len(), BATCH);
    }

    #[test]
    fn each_fails_for_itself() {
        let Some(mut uring) = uring("each_fails_for_itself") else { return };
        let (one, _other) = ends();
        // No socket takes as much at a time.
        let long = vec![0; 8 << 20];
        let frames: [&[u8]; 3] = [&[1; 10], &long, &[2; 20]];
        let written = ended(uring.write(one.as_fd(), frames.into_iter()));
        assert_eq!(written, [Ok(10), Err(Errno::MSGSIZE), Ok(20)]);
        let (reader, _writer) = pipe().unwrap();
        let written = ended(uring.write(reader.as_fd(), [[0_u8; 4]; 3].iter().map(<[u8; 4]>::as_slice)));
        assert_eq!(written, [Err(Errno::BADF); 3]);
    }

    /// Neither waits for a descriptor that would, nor leaves anything behind that is written later.
    #[test]
    fn what_the_kernel_would_wait_for_is_taken_back() {
        let Some(mut uring) = uring("what_the_kernel_would_wait_for_is_taken_back") else { return };
        let (mut reader, mut writer) = pipe().unwrap();
        writer.write_all(&[7; 8]).unwrap();
        let mut places = [[0_u8; 8]; 5];
        let read = ended(uring.read(reader.as_fd(), places.iter_mut().map(<[u8; 8]>::as_mut_slice)));
        assert_eq!((read[0], &read[1..]), (Ok(8), [Err(Errno::AGAIN); 4].as_slice()));
        assert!(!uring.is_spent());
        // As from a kernel that does not know what it is asked.
        writer.write_all(&[7; 8]).unwrap();
        let fd = Fd(reader.as_raw_fd());
        let waits = places.iter_mut().map(|place| opcode::Read::new(fd, place.as_mut_ptr(), 8).build());
        // SAFETY: the places are here until the end of the test, and nobody else uses them in the meantime.
        let outcomes = unsafe { uring.carry_out(waits) };
        let read: Vec<_> = outcomes.iter().map(|outcome| outcome.get()).collect();
        assert_eq!(read, [Some(Ok(8)), None, None, None, None]);
        writer.write_all(&[9; 8]).unwrap();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(places, [[7; 8], [0; 8], [0; 8], [0; 8], [0; 8]]);
        let mut left = [0; 8];
        reader.read_exact(&mut left).unwrap();
        assert_eq!(left, [9; 8]);
        assert!(uring.is_spent());
        assert!(uring.read(reader.as_fd(), std::iter::once(left.as_mut_slice())).is_empty());
    }

    #[test]
    fn what_was_left_by_a_panic_is_never_begun() {
        let Some(mut uring) = uring("what_was_left_by_a_panic_is_never_begun") else { return };
        let (one, other) = ends();
        let frames = [[1_u8; 4]; 3];
        let failing = frames.iter().enumerate().map(|(number, frame)| {
            assert!(number < 2, "on purpose");
            frame.as_slice()
        });
        assert!(catch_unwind(AssertUnwindSafe(|| uring.write(one.as_fd(), failing).len())).is_err());
        assert!(uring.write(one.as_fd(), frames.iter().map(<[u8; 4]>::as_slice)).is_empty());
        assert!(uring.is_spent());
        assert_eq!(rustix::io::read(&other, &mut [0; 4]), Err(Errno::AGAIN));
    }
}
