//! The loop: receive a batch, answer each frame in its room, send the answers in order.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags};
use service_vm::{Answer, Counters, Outcome, Responder, Service};

use crate::capture::Capture;
use crate::interface::Link;
use crate::sys::{self, BATCH, FRAME_MAX};
use crate::{log, termination};

/// Under load the signals are looked at once in this many batches.
const BATCHES_PER_SIGNAL_CHECK: u32 = 64;

/// Why the loop ended.
pub(crate) enum Ended {
    /// A termination signal came.
    Terminated,
    /// The interface went down or away.
    LinkLost(io::Error),
}

/// The service and everything it has counted.
pub(crate) struct Station {
    service: Service,
    si_decrement: bool,
    capture: Option<Capture<File>>,
    counters: Counters,
    too_long: u64,
    send_failures: u64,
    /// The first query has been reported.
    answering: bool,
    /// Room for a batch of frames.
    slab: Box<[u8]>,
}

impl Station {
    pub(crate) fn new(service: Service, si_decrement: bool, capture: Option<Capture<File>>) -> Station {
        Station {
            service,
            si_decrement,
            capture,
            counters: Counters::default(),
            too_long: 0,
            send_failures: 0,
            answering: false,
            slab: vec![0; BATCH * FRAME_MAX].into_boxed_slice(),
        }
    }

    /// Answers until a signal comes or the link is lost.
    pub(crate) fn serve(
        &mut self,
        link: &Link,
        name: &str,
        signals: BorrowedFd<'_>,
    ) -> anyhow::Result<Ended> {
        let responder = Responder { mac: Some(link.mac), si_decrement: self.si_decrement };
        let socket = link.socket.as_fd();
        let mut lens = [0; BATCH];
        let mut batches = 0u32;
        loop {
            let received = match sys::receive(socket, &mut self.slab, &mut lens) {
                Ok(received) => received,
                Err(error) if is_retry(&error) => 0,
                Err(error) if is_link_lost(&error) => return Ok(Ended::LinkLost(error)),
                Err(error) => return Err(error.into()),
            };
            batches = batches.wrapping_add(1);
            let terminated = if received == 0 {
                self.wait_for_frames(socket, signals)?
            } else if batches.is_multiple_of(BATCHES_PER_SIGNAL_CHECK) {
                termination::within(signals, std::time::Duration::ZERO)?
            } else {
                false
            };
            if terminated {
                return Ok(Ended::Terminated);
            }
            let to_send = self.answer(responder, received, &lens);
            if let Some(ended) = self.send(socket, &to_send, signals)? {
                return Ok(ended);
            }
            self.flush();
            self.report_first_query(name);
        }
    }

    /// Answers the batch in place; gives the length to send from each room, 0 for nothing.
    fn answer(&mut self, responder: Responder, received: usize, lens: &[usize; BATCH]) -> [usize; BATCH] {
        let mut to_send = [0; BATCH];
        let now = self.capture.as_ref().map_or(SystemTime::UNIX_EPOCH, |_| SystemTime::now());
        let rooms = self.slab.chunks_exact_mut(FRAME_MAX).zip(lens).zip(&mut to_send);
        for ((room, len), to_send) in rooms.take(received) {
            let Some(frame) = room.get_mut(..*len) else {
                self.too_long += 1;
                continue;
            };
            let answer: Answer = responder.answer(frame, |inner| {
                let outcome = self.service.outcome(inner);
                if let Some(capture) = &mut self.capture
                    && outcome == Outcome::Forward
                    && inner.next_protocol() == nsh::NextProtocol::ETHERNET
                {
                    capture.record(now, inner.bytes());
                }
                outcome
            });
            self.counters.count(&answer);
            *to_send = answer.len_to_send().unwrap_or(0);
        }
        to_send
    }

    /// Sends the answers, each once. A frame the kernel refuses is counted and left out.
    fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        to_send: &[usize; BATCH],
        signals: BorrowedFd<'_>,
    ) -> io::Result<Option<Ended>> {
        let mut frames = [&[][..]; BATCH];
        let answers = self.slab.chunks_exact(FRAME_MAX).zip(to_send).filter(|(_, len)| **len > 0);
        let slots = answers.zip(&mut frames);
        let count = slots.map(|((room, len), slot)| *slot = room.get(..*len).unwrap_or_default()).count();
        let mut rest = frames.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            let done = match sys::send(socket, rest) {
                Ok(sent) => sent,
                Err(error) if is_retry(&error) => {
                    if wait_for_room(socket, signals)? {
                        return Ok(Some(Ended::Terminated));
                    }
                    0
                }
                Err(error) if is_link_lost(&error) => return Ok(Some(Ended::LinkLost(error))),
                Err(error) => {
                    if self.send_failures == 0 {
                        let len = rest.first().map_or(0, |frame| frame.len());
                        log(format_args!(
                            "cannot send an answer of {len} bytes (further ones are counted): {error}"
                        ));
                    }
                    self.send_failures += 1;
                    1
                }
            };
            rest = rest.get(done..).unwrap_or_default();
        }
        Ok(None)
    }

    /// Waits for frames, a signal, or the capture's reader; true if a signal has come.
    fn wait_for_frames(&self, socket: BorrowedFd<'_>, signals: BorrowedFd<'_>) -> io::Result<bool> {
        let signals = PollFd::from_borrowed_fd(signals, PollFlags::IN);
        let socket = PollFd::from_borrowed_fd(socket, PollFlags::IN);
        match self.capture.as_ref().filter(|capture| capture.is_pending()) {
            Some(capture) => {
                let reader = PollFd::new(capture.out(), PollFlags::OUT);
                termination::ready(&mut [signals, socket, reader], None)
            }
            None => termination::ready(&mut [signals, socket], None),
        }
    }

    fn flush(&mut self) {
        if let Some(capture) = &mut self.capture
            && let Err(error) = capture.flush()
        {
            log(format_args!("the capture ends, the service goes on: {error}"));
        }
    }

    fn report_first_query(&mut self, name: &str) {
        if !self.answering && self.counters.responses > 0 {
            self.answering = true;
            log(format_args!("answering queries on {name}"));
        }
    }

    /// Writes out what the capture's reader takes and says what was counted.
    pub(crate) fn finish(&mut self) {
        self.flush();
        let left_out = self.capture.as_ref().map_or(0, Capture::left_out);
        log(format_args!(
            "{} too-long={} send-failures={} capture-left-out={left_out}",
            self.counters, self.too_long, self.send_failures
        ));
    }
}

/// Waits until the socket takes frames again; true if a signal has come.
fn wait_for_room(socket: BorrowedFd<'_>, signals: BorrowedFd<'_>) -> io::Result<bool> {
    let signals = PollFd::from_borrowed_fd(signals, PollFlags::IN);
    termination::ready(&mut [signals, PollFd::from_borrowed_fd(socket, PollFlags::OUT)], None)
}

fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn is_link_lost(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO))
}
