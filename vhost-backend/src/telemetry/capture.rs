//! A copy of the frames that pass a port, for `livepath capture`.
//!
//! Buffers go round: a consumer gives each one back by dropping it, so a running capture allocates nothing per
//! frame, and a slow consumer loses frames of the capture, never of the traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::liveness::Timestamp;

/// Bytes kept of each frame.
pub const SNAPLEN: usize = 2048;
/// Frames that may wait for the consumer.
const PENDING: usize = 1024;

/// Which way a frame passed, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Handed to the guest.
    Rx,
    /// Taken from the guest.
    Tx,
}

/// One captured frame.
#[derive(Debug)]
pub struct Captured {
    /// When it passed, on the monotonic clock.
    pub at: Timestamp,
    /// Which way.
    pub direction: Direction,
    /// Its whole length; may exceed what was kept.
    pub len: usize,
    kept: usize,
    buffer: Option<Box<[u8; SNAPLEN]>>,
    give_back: SyncSender<Box<[u8; SNAPLEN]>>,
}

impl Captured {
    /// The first [`SNAPLEN`] bytes of the frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.as_deref().and_then(|buffer| buffer.get(..self.kept)).unwrap_or_default()
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            let _ = self.give_back.try_send(buffer);
        }
    }
}

/// The worker's end of a capture; it ends when the consumer drops the receiver.
#[derive(Debug)]
pub struct Capture {
    free: Receiver<Box<[u8; SNAPLEN]>>,
    give_back: SyncSender<Box<[u8; SNAPLEN]>>,
    out: SyncSender<Captured>,
    missed: Arc<AtomicU64>,
}

/// The consumer's end.
#[derive(Debug)]
pub struct Frames {
    frames: Receiver<Captured>,
    missed: Arc<AtomicU64>,
}

/// A capture and its consumer.
#[must_use]
pub fn capture() -> (Capture, Frames) {
    let (give_back, free) = sync_channel(PENDING);
    for _ in 0..PENDING {
        let _ = give_back.try_send(Box::new([0; SNAPLEN]));
    }
    let (out, frames) = sync_channel(PENDING);
    let missed = Arc::new(AtomicU64::new(0));
    (Capture { free, give_back, out, missed: Arc::clone(&missed) }, Frames { frames, missed })
}

impl Capture {
    /// Keeps a copy of a frame of `len` bytes that `fill` writes (it returns how many bytes it wrote). False
    /// when the consumer is gone and the capture should end.
    pub fn keep(
        &self,
        at: Timestamp,
        direction: Direction,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> bool {
        let Ok(mut buffer) = self.free.try_recv() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            // Whether the consumer is gone shows when there is a buffer again, or by its count.
            return Arc::strong_count(&self.missed) > 1;
        };
        let kept = fill(buffer.as_mut_slice()).min(SNAPLEN);
        let give_back = self.give_back.clone();
        let captured = Captured { at, direction, len, kept, buffer: Some(buffer), give_back };
        !matches!(self.out.try_send(captured), Err(std::sync::mpsc::TrySendError::Disconnected(_)))
    }
}

impl Frames {
    /// The next frame; `Ok(None)` when none came within `timeout`.
    ///
    /// # Errors
    /// The port is gone.
    pub fn next(&self, timeout: Duration) -> Result<Option<Captured>, PortGone> {
        match self.frames.recv_timeout(timeout) {
            Ok(frame) => Ok(Some(frame)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(PortGone),
        }
    }

    /// Frames that passed while the consumer was too slow.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// The captured port does not exist any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the port is gone")]
pub struct PortGone;

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(capture: &Capture, bytes: &[u8]) -> bool {
        capture.keep(Timestamp::from_nanos(1), Direction::Tx, bytes.len(), |out| {
            let n = bytes.len().min(out.len());
            out[..n].copy_from_slice(&bytes[..n]);
            n
        })
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let (capture, frames) = capture();
        assert!(keep(&capture, b"abc"));
        let frame = frames.next(Duration::ZERO).unwrap().unwrap();
        assert_eq!((frame.bytes(), frame.len), (&b"abc"[..], 3));
    }

    #[test]
    fn a_long_frame_is_cut_but_its_length_is_kept() {
        let (capture, frames) = capture();
        assert!(keep(&capture, &[7; SNAPLEN + 9]));
        let frame = frames.next(Duration::ZERO).unwrap().unwrap();
        assert_eq!((frame.bytes().len(), frame.len), (SNAPLEN, SNAPLEN + 9));
    }

    #[test]
    fn a_slow_consumer_misses_frames_and_a_gone_one_ends_the_capture() {
        let (capture, frames) = capture();
        for _ in 0..PENDING + 5 {
            assert!(keep(&capture, b"x"));
        }
        assert_eq!(frames.missed(), 5);
        drop(frames);
        assert!(!keep(&capture, b"x"));
    }

    #[test]
    fn buffers_go_round() {
        let (capture, frames) = capture();
        for i in 0..PENDING * 3 {
            assert!(keep(&capture, &[i as u8]));
            assert_eq!(frames.next(Duration::ZERO).unwrap().unwrap().bytes(), [i as u8]);
        }
        assert_eq!(frames.missed(), 0);
    }
}
