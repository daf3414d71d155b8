//! Messages with descriptors over a stream socket.
//!
//! Reads are exact: first 12 bytes of header, then the body, so the descriptors of one message never mix with the next.
//! Sockets are used without blocking; every wait also ends when the session is stopped or the deadline passes.

use super::message::{HEADER_LEN, Header, Message};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use thiserror::Error;

/// Descriptors a message may carry: one for each memory region.
const MAX_DESCRIPTORS: usize = super::memory::MAX_SLOTS;
const CONTROL_LEN: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// Why a socket gives no more messages.
#[derive(Debug, Error)]
pub(crate) enum SocketError {
    #[error("closed by the other side")]
    Closed,
    #[error("closed by the other side within a message")]
    Cut,
    #[error("not a vhost-user message: request {}, flags {:#x}, size {}", .0.request, .0.flags, .0.size)]
    Header(Header),
    #[error("more than {MAX_DESCRIPTORS} descriptors in a message")]
    Descriptors,
    #[error("no progress within {0:?}")]
    Stalled(Duration),
    #[error("the session was stopped")]
    Stopped,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for SocketError {
    fn from(errno: Errno) -> SocketError {
        match errno {
            Errno::PIPE | Errno::CONNRESET => SocketError::Closed,
            errno => SocketError::System(errno.into()),
        }
    }
}

/// A message and what came with it. Descriptors close when it is dropped.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) message: Message,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Waiting that ends: on a stop signal (a readable descriptor) and at a deadline.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    stop: BorrowedFd<'a>,
    timer: OwnedFd,
    limit: Duration,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(stop: BorrowedFd<'a>) -> io::Result<Patience<'a>> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Patience { stop, timer, limit: Duration::ZERO })
    }

    /// From now on waits end after `limit` altogether; zero: never.
    pub(crate) fn limit(&mut self, limit: Duration) -> Result<(), SocketError> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec::try_from(limit).unwrap_or(zero);
        timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: zero, it_value: value },
        )?;
        self.limit = limit;
        Ok(())
    }

    /// Waits until one of two sockets has something to read or is closed. True: the first one has.
    pub(crate) fn either(&self, first: &UnixStream, second: &UnixStream) -> Result<bool, SocketError> {
        loop {
            let mut polled = [
                PollFd::new(first, PollFlags::IN),
                PollFd::from_borrowed_fd(self.stop, PollFlags::IN),
                PollFd::new(second, PollFlags::IN),
            ];
            let [first, stop, second] = self.poll(&mut polled)?;
            match (stop, first, second) {
                (true, ..) => return Err(SocketError::Stopped),
                (_, true, _) => return Ok(true),
                (_, _, true) => return Ok(false),
                _ => {}
            }
        }
    }

    fn until(&self, socket: &UnixStream, what: PollFlags) -> Result<(), SocketError> {
        loop {
            let mut polled = [
                PollFd::new(socket, what),
                PollFd::from_borrowed_fd(self.stop, PollFlags::IN),
                PollFd::new(&self.timer, PollFlags::IN),
            ];
            let [ready, stop, late] = self.poll(&mut polled)?;
            match (stop, ready, late) {
                (true, ..) => return Err(SocketError::Stopped),
                (_, true, _) => return Ok(()),
                (_, _, true) => return Err(SocketError::Stalled(self.limit)),
                _ => {}
            }
        }
    }

    /// Which of the descriptors are ready; none after a signal.
    fn poll(&self, polled: &mut [PollFd<'_>; 3]) -> Result<[bool; 3], SocketError> {
        match poll(polled, None) {
            Ok(_) | Err(Errno::INTR) => Ok(polled.each_ref().map(|fd| !fd.revents().is_empty())),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Reads one message. `is_valid` judges the header and gives the length of the body.
pub(crate) fn receive(
    socket: &UnixStream,
    patience: &Patience<'_>,
    is_valid: fn(&Header) -> Option<usize>,
) -> Result<Frame, SocketError> {
    let mut descriptors = Vec::new();
    let mut bytes = [0; HEADER_LEN];
    fill(socket, patience, &mut bytes, &mut descriptors, SocketError::Closed)?;
    let header = Header::parse(&bytes);
    let len = is_valid(&header).ok_or(SocketError::Header(header))?;
    let mut body = vec![0; len];
    fill(socket, patience, &mut body, &mut descriptors, SocketError::Cut)?;
    Ok(Frame { message: Message { request: header.request, flags: header.flags, body }, descriptors })
}

/// Fills `buffer` and gathers the descriptors that come with it. `closed`: the error when the other side closes before
/// the first byte.
fn fill(
    socket: &UnixStream,
    patience: &Patience<'_>,
    mut buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    mut closed: SocketError,
) -> Result<(), SocketError> {
    while !buffer.is_empty() {
        let mut space = [MaybeUninit::uninit(); CONTROL_LEN];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Ok(received) => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        descriptors.extend(rights);
                    }
                }
                if received.flags.contains(ReturnFlags::CTRUNC) || descriptors.len() > MAX_DESCRIPTORS {
                    return Err(SocketError::Descriptors);
                }
                if received.bytes == 0 {
                    return Err(closed);
                }
                closed = SocketError::Cut;
                buffer = std::mem::take(&mut buffer)
                    .split_at_mut_checked(received.bytes)
                    .map_or(&mut [], |(_, rest)| rest);
            }
            Err(Errno::AGAIN) => patience.until(socket, PollFlags::IN)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Writes one message with its descriptors.
pub(crate) fn send(
    socket: &UnixStream,
    patience: &Patience<'_>,
    message: &Message,
    descriptors: &[OwnedFd],
) -> Result<(), SocketError> {
    let bytes = message.encode();
    let mut rest = bytes.as_slice();
    let mut descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    while !rest.is_empty() {
        let mut space = [MaybeUninit::uninit(); CONTROL_LEN];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(SocketError::Descriptors);
        }
        match sendmsg(socket, &[IoSlice::new(rest)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        {
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                descriptors.clear();
            }
            Err(Errno::AGAIN) => patience.until(socket, PollFlags::OUT)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
