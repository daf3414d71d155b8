//! The one place of this crate where a system call forces `unsafe`: signals as a file descriptor, a thread's priority and turns,
//! memory that is given back.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Blocked signals that can be read.
#[derive(Debug)]
pub(crate) struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` for the calling thread and the threads it starts, and makes them readable.
    pub(crate) fn new(signals: &[libc::c_int]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `set` is valid for writes of a `sigset_t`; the call initialises it and cannot fail.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        for signal in signals {
            // SAFETY: `set` was initialised above; an invalid number is refused and changes nothing.
            if unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: sigemptyset initialised it.
        let set = unsafe { set.assume_init() };
        // SAFETY: `set` is a valid set; a null pointer means that the old mask is not wanted.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: -1 asks for a new descriptor; `set` is valid for the call.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call returned a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The number of the next signal that came, if one did.
    pub(crate) fn next(&self) -> Option<i32> {
        // A read gives whole records of 128 bytes; the signal's number is the first word.
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        let count = rustix::io::read(&self.0, &mut record).ok()?;
        let number = record.get(..count)?.first_chunk()?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }

    /// Waits until a signal came, at most this long.
    pub(crate) fn wait(&self, limit: Option<Duration>) {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        // An interrupted wait ends early, as does one that came late: the caller looks again.
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], limit.as_ref());
    }
}

/// Lets the calling thread, but none that it starts, run whenever it is ready, before all threads of ordinary priority.
///
/// # Errors
/// That is for the privileged.
pub(crate) fn run_in_real_time() -> io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread; `lowest` is valid for the call.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const lowest) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// How long a short turn is, the least that Linux takes.
const SHORT_TURN: Duration = Duration::from_micros(100);

/// Asks for short turns for the calling thread and those that it starts. A thread of ordinary priority has as much of a core then
/// as others have, in smaller pieces, and need not wait until one with longer turns, such as a worker that polls, has had its own.
/// A thread of another priority keeps that. Before Linux 6.12, and where the system forbids it, nothing changes.
pub(crate) fn take_short_turns() {
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    let mut own = MaybeUninit::<libc::sched_attr>::zeroed();
    // SAFETY: 0 is the calling thread and no flags; `own` is valid for writes of `size` bytes.
    let known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, own.as_mut_ptr(), size, 0) } == 0;
    // SAFETY: all its fields are integers, for which zeros are good too.
    let mut own = unsafe { own.assume_init() };
    if !known || own.sched_policy != libc::SCHED_OTHER as u32 {
        return;
    }
    own.sched_runtime = SHORT_TURN.as_nanos() as u64;
    // SAFETY: as above; the call reads as many bytes as `own` says, and it says its size.
    if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const own, 0) } != 0 {
        log::debug!("turns are as long as ever: {}", io::Error::last_os_error());
    }
}

/// Gives freed memory back to the system. What reading a file of many paths leaves is more than what stays, and lies in between,
/// where the C library keeps it otherwise.
pub(crate) fn give_back_memory() {
    // SAFETY: it takes the allocator's locks and changes nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The most memory in bytes that is kept for what is made next, and of a piece of it.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 64 << 20;
#[cfg(target_env = "gnu")]
const KEPT_PIECE: libc::c_int = 32 << 20;

/// Has the C library keep memory that is freed, up to 64 MiB, until it is told to give it back. For a program of its own: tables of
/// thousands of paths are made in the memory that those before them have left. Taken from the system anew, page by page, it makes
/// the same work take twice as long.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    for (what, bytes) in [(libc::M_MMAP_THRESHOLD, KEPT_PIECE), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: it changes a number of the allocator's and takes its locks. Of a value that is too large nothing comes.
        unsafe { libc::mallopt(what, bytes) };
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// In a thread of its own, whose turns are nobody else's.
    #[test]
    fn short_turns_change_neither_policy_nor_priority() {
        std::thread::spawn(|| {
            rustix::process::setpriority_process(None, 7).unwrap();
            take_short_turns();
            assert_eq!(rustix::process::getpriority_process(None), Ok(7));
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The 41st field, after the name in brackets, which is the second.
            let policy = stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(38).unwrap();
            assert_eq!(policy, libc::SCHED_OTHER.to_string());
            let sched = std::fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
            let slice = sched.lines().find(|line| line.starts_with("se.slice"));
            // Kernels before show it too, and nobody can change it there.
            if let Some(slice) = slice.filter(|_| kernel() >= (6, 12)) {
                assert_eq!(slice.rsplit(' ').next(), Some("100000"));
            }
        })
        .join()
        .unwrap();
    }

    /// Its version.
    fn kernel() -> (u32, u32) {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers =
            release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_ascii_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn what_lies_between_memory_in_use_is_given_back() {
        // Pieces of 8 KiB, of which every sixteenth stays.
        let mut pieces: Vec<Vec<u8>> = (0..8192).map(|_| vec![1; 8192]).collect();
        let mut number = 0;
        pieces.retain(|_| {
            number += 1;
            number % 16 == 0
        });
        let before = resident_kib();
        give_back_memory();
        let after = resident_kib();
        assert!(after + 16_384 < before, "{before} KiB before, {after} KiB after");
        assert_eq!(pieces.len(), 512);
    }
}
