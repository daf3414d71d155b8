//! The cycle account: where a worker's time goes, stage by stage. Only with the feature `stages`, which costs some
//! nanoseconds a frame; without it nothing of this is left.

use std::fmt;

#[cfg(feature = "stages")]
use crate::worker::monotonic_now;

/// What is done to the frames of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Available entries and descriptors of the sender's ring read, checked and translated.
    Read,
    /// Heads copied, which waits for the payload to come.
    Inspect,
    /// Parsed and hashed, where no imprint tells the flow; looked up and decided.
    Decide,
    /// Frames completed, with their query and serial number (sealed), and copied into the receivers' buffers; used entries written.
    Copy,
    /// Receivers' used entries made visible, their next buffers looked up and asked for; frames counted.
    Publish,
    /// Receivers' drivers asked whether they want to be called, and called.
    Notify,
    /// The sender's used entries written and made visible, its driver asked whether it wants to be called, and called.
    Complete,
}

impl Stage {
    #[cfg(feature = "stages")]
    const ALL: [Self; 7] =
        [Self::Read, Self::Inspect, Self::Decide, Self::Copy, Self::Publish, Self::Notify, Self::Complete];
}

/// The account of one worker.
#[derive(Default)]
pub(crate) struct Account {
    #[cfg(feature = "stages")]
    nanos: [u64; Stage::ALL.len()],
    #[cfg(feature = "stages")]
    frames: u64,
    #[cfg(feature = "stages")]
    batches: u64,
    #[cfg(feature = "stages")]
    since: crate::liveness::Timestamp,
}

impl Account {
    /// A stage begins now that no other ended.
    #[inline]
    pub(crate) fn begin(&mut self) {
        #[cfg(feature = "stages")]
        {
            self.since = monotonic_now();
        }
    }

    /// What was done since the last call belongs to `stage`.
    #[inline]
    pub(crate) fn done(&mut self, stage: Stage) {
        #[cfg(feature = "stages")]
        {
            let now = monotonic_now();
            if let Some(nanos) = self.nanos.get_mut(stage as usize) {
                let spent = now.saturating_since(self.since).as_nanos();
                *nanos = nanos.saturating_add(u64::try_from(spent).unwrap_or(u64::MAX));
            }
            self.since = now;
        }
        #[cfg(not(feature = "stages"))]
        let _ = stage;
    }

    /// So many frames have gone through.
    #[inline]
    pub(crate) fn count(&mut self, frames: usize) {
        #[cfg(feature = "stages")]
        {
            self.frames = self.frames.saturating_add(frames as u64);
            self.batches = self.batches.saturating_add(1);
        }
        #[cfg(not(feature = "stages"))]
        let _ = frames;
    }

    /// Tells the log, at the worker's end.
    pub(crate) fn tell(&self, worker: usize) {
        #[cfg(feature = "stages")]
        log::info!(worker; "{self:?}");
        #[cfg(not(feature = "stages"))]
        let _ = worker;
    }
}

impl fmt::Debug for Account {
    /// `stages frames=… batch=… read=… inspect=…`: frames a batch has on average, then nanoseconds per frame. Batches that
    /// are not full say that the worker waits for its drivers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stages")?;
        #[cfg(feature = "stages")]
        {
            let batch = self.frames as f64 / self.batches.max(1) as f64;
            write!(f, " frames={} batch={batch:.1}", self.frames)?;
            for (stage, nanos) in Stage::ALL.iter().zip(self.nanos) {
                let name = format!("{stage:?}").to_lowercase();
                write!(f, " {name}={:.1}", nanos as f64 / self.frames.max(1) as f64)?;
            }
        }
        Ok(())
    }
}
