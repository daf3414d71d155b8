//! How long a cache line takes from the generator's core to the forwarder's and back, which tells how near to each other they are
//! just now: on a virtual machine they may share a cache, or not, and that changes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::bound::{Alone, beside};
use crate::figure::Spread;

/// Round trips of one value.
const TRIPS: u64 = 300;
/// Values, of which the middle one is taken: an interruption spoils few.
const VALUES: usize = 11;

/// Nanoseconds, in the middle of some thousand trips.
///
/// # Errors
/// The other core does not answer.
pub(super) fn round_trip(core: usize) -> anyhow::Result<f64> {
    let (there, back) = (Alone(AtomicU64::new(0)), Alone(AtomicU64::new(0)));
    let echo = |stop: &AtomicBool| {
        while !stop.load(Ordering::Relaxed) {
            back.0.store(there.0.load(Ordering::Acquire), Ordering::Release);
        }
    };
    let trips = |first: u64| {
        let begin = Instant::now();
        for number in first..first + TRIPS {
            there.0.store(number, Ordering::Release);
            while back.0.load(Ordering::Acquire) != number {
                std::hint::spin_loop();
            }
        }
        begin.elapsed().as_nanos() as f64 / TRIPS as f64
    };
    let values =
        beside(core, echo, || Ok((0..VALUES as u64).map(|nth| trips(1 + nth * TRIPS)).collect::<Vec<_>>()))?;
    Ok(Spread::of(&values).map_or(0.0, |spread| spread.median))
}
