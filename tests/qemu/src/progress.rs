//! Steps of a long test with elapsed times, and waiting with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Ended;

/// Prints what a test is doing, and how long it has been at it, on standard error.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
}

impl Progress {
    /// Starts the clock.
    pub fn start() -> Progress {
        Progress { start: Instant::now() }
    }

    /// Prints one line: `[  12.3 s] what`.
    pub fn step(&self, what: &str) {
        eprintln!("[{:6.1} s] {what}", self.start.elapsed().as_secs_f64());
    }
}

/// Calls `look` until it gives something, and gives that and the time it took.
///
/// # Errors
/// Nothing within `limit`, or a [`Process`](crate::Process) that was to be [alive](crate::Process::alive) ended; the
/// message names `what` and the last reason `look` gave.
pub fn poll<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok((found, start.elapsed())),
            Err(reason) if reason.is::<Ended>() => return Err(reason).context(what.to_owned()),
            Err(reason) if start.elapsed() > limit => {
                bail!("{what}: not within {} s: {reason:#}", limit.as_secs());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
