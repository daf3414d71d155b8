//! Where the frames of a batch are written: a receive ring, or a queue of a tap.

use super::decide::Batch;
use super::delivery::{Delivery, Frames, Target, numbers, queue_of_each, those_of};
use crate::port::Port;
use crate::ring::{Broken, Gather, Split, WriteError};
use crate::tap::{Exchange, Queue, Tap};
use crate::telemetry::Discard;

/// One of them.
pub(super) enum Sink<'a> {
    /// A guest's.
    Ring {
        /// The ring.
        receive: &'a mut Split,
        /// Its driver takes a frame in several buffers.
        mergeable: bool,
    },
    /// A guest's that does not run.
    Nothing,
    /// The host's stack.
    Tap {
        /// The queue.
        queue: Queue<'a>,
        /// By what frames go into it.
        exchange: &'a mut Exchange,
        /// Frames do not wait for others, with which they could go in one system call.
        at_once: bool,
        /// Those that waited and were then not taken.
        not_taken: NotTaken<'a>,
    },
}

/// Frames that a tap did not take although they count as delivered.
pub(super) struct NotTaken<'a> {
    port: &'a Port,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl NotTaken<'_> {
    fn note(&mut self, len: usize, reason: Discard) {
        self.packets += 1;
        self.bytes += len as u64;
        self.port.counters.count_drop(reason);
    }
}

/// Why a frame was not written.
#[derive(Clone, Copy)]
pub(super) struct Unwritten {
    pub(super) reason: Discard,
    pub(super) broken: Option<Broken>,
}

impl Sink<'_> {
    /// There is no room for any frame.
    pub(super) fn is_full(&mut self) -> bool {
        match self {
            Self::Ring { receive, .. } => receive.free_chains() == 0,
            Self::Nothing => true,
            Self::Tap { .. } => false,
        }
    }

    /// Writes one frame.
    #[inline(always)]
    pub(super) fn write(&mut self, frame: &Gather<'_>) -> Result<(), Unwritten> {
        match self {
            Self::Ring { receive, mergeable } => Ok(receive.write_frame(frame, *mergeable)?),
            Self::Nothing => Err(Discard::NotAttached.into()),
            Self::Tap { queue, exchange, at_once, not_taken } => {
                Ok(write_to_tap(queue, exchange, *at_once, not_taken, frame)?)
            }
        }
    }

    /// Writes what waits.
    fn flush(&mut self) {
        if let Self::Tap { queue, exchange, not_taken, .. } = self {
            exchange.flush(queue, |len, reason| not_taken.note(len, reason));
        }
    }
}

/// Out of line: receive rings are written in a loop that should stay short.
#[inline(never)]
fn write_to_tap(
    queue: &Queue<'_>,
    exchange: &mut Exchange,
    at_once: bool,
    not_taken: &mut NotTaken<'_>,
    frame: &Gather<'_>,
) -> Result<(), Discard> {
    if at_once {
        return exchange.write(queue, frame);
    }
    if !exchange.add(frame)? {
        exchange.flush(queue, |len, reason| not_taken.note(len, reason));
        exchange.add(frame)?;
    }
    Ok(())
}

impl From<Discard> for Unwritten {
    fn from(reason: Discard) -> Self {
        Self { reason, broken: None }
    }
}

impl From<WriteError> for Unwritten {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Full => Discard::RingFull.into(),
            WriteError::TooLong => Discard::TooLong.into(),
            WriteError::Broken(why) => Self { reason: Discard::RingBroken, broken: Some(why) },
        }
    }
}

impl Target<'_> {
    /// Hands some frames of the batch to a tap, in their order. Those of a flow go by one queue, by which the kernel then
    /// also sends what answers them.
    pub(super) fn deliver_to_tap(&mut self, batch: &mut Batch, port: &Port, tap: &Tap, frames: Frames) {
        let Batch { frames: outgoing, scratch, answers, exchange, .. } = batch;
        let mut delivery = Delivery::begin(port, None, self.now);
        // What is captured was taken, and only of a frame that does not wait is that known while it is there.
        let at_once = delivery.is_captured || !exchange.has_uring();
        let count = tap.queues().max(1);
        let queues = queue_of_each(self.common, outgoing.as_slice(), frames, count);
        for number in 0..count {
            let here = those_of(&queues, frames, number);
            if here == 0 {
                continue;
            }
            let Some(queue) = tap.queue(number) else {
                numbers(here).for_each(|_| port.counters.count_drop(Discard::NotAttached));
                continue;
            };
            let not_taken = NotTaken { port, packets: 0, bytes: 0 };
            let mut sink = Sink::Tap { queue, exchange, at_once, not_taken };
            for i in numbers(here) {
                if let (Some(out), Some(chain)) = (outgoing.get_mut(i), self.chains.get(i)) {
                    delivery.deliver(&mut sink, out, chain, scratch, answers);
                }
            }
            sink.flush();
            if let Sink::Tap { not_taken, .. } = sink {
                delivery.take_back(&not_taken);
            }
        }
        // A tap has no ring to break.
        let _ = delivery.end();
    }
}
