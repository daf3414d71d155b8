//! A closed window: frames are sent for a while, then no more, and all of them have to arrive.

use std::time::{Duration, Instant};

use super::Line;

/// Without an arrival for this long, what is under way is lost; a forwarder that has to wait for its core may be silent too.
pub(super) const SILENCE: Duration = Duration::from_secs(3);
/// The same while it is only tried whether frames get through.
const IMPATIENCE: Duration = Duration::from_millis(100);
/// Held back less often than this, the generator is the limit.
const HURRIED: f64 = 0.02;
/// Rounds between two looks at the clock.
const ROUNDS: usize = 16;
/// Windows that show that everything is up and warm.
const WARM: Duration = Duration::from_millis(20);

/// A window in which every frame arrived.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Frames.
    pub packets: u64,
    /// From the first frame sent to the last one received.
    pub elapsed: Duration,
    /// The share of its rounds, 0 to 1, in which the generator could not send because as many frames were under way as
    /// may be: near 0 the generator was what limited the rate, not the forwarder.
    pub held_back: f64,
}

impl Window {
    /// Millions of frames a second.
    pub fn mpps(&self) -> f64 {
        self.packets as f64 / self.elapsed.as_secs_f64() / 1e6
    }

    /// Whether the generator was what limited the rate: held back in less than 2 % of its rounds.
    pub fn is_hurried(&self) -> bool {
        self.held_back < HURRIED
    }

    /// Nanoseconds a frame.
    pub fn nanos(&self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.packets as f64
    }
}

/// Why a window does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Void {
    /// Frames sent.
    pub sent: u64,
    /// Frames that arrived in order and unchanged.
    pub arrived: u64,
    /// Frames that arrived changed, repeated or out of order.
    pub wrong: u64,
}

impl std::fmt::Display for Void {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Void { sent, arrived, wrong } = self;
        write!(f, "of {sent} frames {arrived} arrived as they should and {wrong} did not")
    }
}

impl std::error::Error for Void {}

impl Line {
    /// Sends for `time` as fast as frames arrive and waits for the last one.
    ///
    /// # Errors
    /// Not every frame arrived, once, in order and unchanged.
    pub fn window(&mut self, time: Duration) -> Result<Window, Void> {
        self.closed(time, SILENCE)
    }

    fn closed(&mut self, time: Duration, silence: Duration) -> Result<Window, Void> {
        self.begin();
        let begin = Instant::now();
        let mut now = begin;
        let (mut rounds, mut held_back) = (0_u64, 0_u64);
        while now - begin < time && self.wrong == 0 {
            for _ in 0..ROUNDS {
                held_back += u64::from(!self.has_room());
                self.step(true);
            }
            rounds += ROUNDS as u64;
            now = Instant::now();
        }
        let end = self.drain(silence);
        let (sent, arrived, wrong) = (self.sent, self.received, self.wrong);
        if arrived < sent || wrong > 0 {
            return Err(Void { sent, arrived, wrong });
        }
        let held_back = held_back as f64 / rounds as f64;
        Ok(Window { packets: sent, elapsed: end - begin, held_back })
    }

    /// Sends a burst, if there is room for one, every `pause` and sleeps in between, until `done` says so; then waits for the
    /// last frame.
    ///
    /// # Errors
    /// As [`window`](Line::window).
    pub fn trickle(&mut self, pause: Duration, mut done: impl FnMut() -> bool) -> Result<Window, Void> {
        self.begin();
        let begin = Instant::now();
        while !done() {
            self.step(true);
            std::thread::sleep(pause);
        }
        let end = self.drain(SILENCE);
        let (sent, arrived, wrong) = (self.sent, self.received, self.wrong);
        if arrived < sent || wrong > 0 {
            return Err(Void { sent, arrived, wrong });
        }
        Ok(Window { packets: sent, elapsed: end - begin, held_back: 1.0 })
    }

    /// Waits for what is under way; when the last frame arrived.
    fn drain(&mut self, silence: Duration) -> Instant {
        let mut last = Instant::now();
        loop {
            let arrived = self.step(false);
            let now = Instant::now();
            if self.received == self.sent || now - last > silence {
                return now;
            }
            if arrived > 0 {
                last = now;
            }
        }
    }

    /// Sends at least `frames` frames in windows that may not be void.
    ///
    /// # Errors
    /// One was, or that many did not pass within `patience`.
    pub fn pass(&mut self, frames: u64, patience: Duration) -> Result<(), Void> {
        let (begin, mut passed) = (Instant::now(), 0);
        while passed < frames {
            passed += self.window(10 * WARM)?.packets;
            if begin.elapsed() > patience {
                return Err(Void { sent: frames, arrived: passed, wrong: 0 });
            }
        }
        Ok(())
    }

    /// Sends until a short window was not void: every service VM is up, every flow known and every page touched.
    ///
    /// # Errors
    /// That does not come to pass within `patience`.
    pub fn settle(&mut self, patience: Duration) -> Result<(), Void> {
        let begin = Instant::now();
        loop {
            match self.closed(WARM, IMPATIENCE) {
                Ok(_) => return Ok(()),
                Err(void) if begin.elapsed() > patience => return Err(void),
                Err(_) => {}
            }
        }
    }
}
