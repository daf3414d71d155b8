//! Where the frames of a batch are written: a receive ring, or a queue of a tap.

use super::decide::Batch;
use super::delivery::{Delivery, Frames, Target, numbers};
use super::spread::spread;
use crate::port::Port;
use crate::ring::{Broken, Gather, Split, WriteError};
use crate::tap::{Queue, Tap};
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
        /// Where a frame is put together.
        joined: &'a mut [u8],
    },
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
            Self::Tap { queue, joined } => {
                let frame = frame.join(joined).ok_or(Discard::TooLong)?;
                Ok(queue.write(frame)?)
            }
        }
    }
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
        let Batch { frames: outgoing, scratch, answers, joined, .. } = batch;
        let mut delivery = Delivery::begin(port, None, self.now);
        for i in numbers(frames) {
            let (Some(out), Some(chain)) = (outgoing.get_mut(i), self.chains.get(i)) else { continue };
            let number = match tap.queues() {
                0 | 1 => 0,
                count => spread(&self.common.learned, out, count),
            };
            match tap.queue(number) {
                Some(queue) => {
                    delivery.deliver(&mut Sink::Tap { queue, joined }, out, chain, scratch, answers);
                }
                None => port.counters.count_drop(Discard::NotAttached),
            }
        }
        // A tap has no ring to break.
        let _ = delivery.end();
    }
}
