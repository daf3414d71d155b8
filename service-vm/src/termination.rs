//! SIGTERM and SIGINT: a file that becomes readable.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits at most `timeout` for a termination signal; true if one has come.
pub(crate) fn within(signals: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    ready(&mut [PollFd::from_borrowed_fd(signals, PollFlags::IN)], Some(timeout))
}

/// As `poll`, for the first descriptor, which is the signals': true if one has come. The others' events are in `fds`.
pub(crate) fn ready(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<bool> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    loop {
        match poll(fds, timeout.as_ref()) {
            Ok(_) => return Ok(fds.first().is_some_and(|signals| !signals.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
