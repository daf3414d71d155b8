//! All other workers between two rounds, for as long as one of them needs it.
//!
//! What a dead service VM left is steered again in one go: no frame of a flow may be delivered by its new path before those
//! that came earlier. So nobody else decides or delivers meanwhile, and everything decided by the tables of before has
//! been delivered when it begins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A worker that does not get round to ending its round for this long is not waited for: the kernel has taken its core
/// away. What it has decided by the tables of before then waits for the dead service VM, and it steers that again itself
/// before it reads anything else, so that no later frame of a flow passes an earlier one.
const PATIENCE: Duration = Duration::from_millis(20);

/// Who is in a round, and whether others want all rounds to end. A host with one worker needs none of it.
#[derive(Debug)]
pub(crate) struct Standstill {
    wanted: AtomicBool,
    gate: Mutex<()>,
    in_round: Box<[InRound]>,
}

/// In a cache line of its own: its worker writes it every round.
#[derive(Debug, Default)]
#[repr(align(64))]
struct InRound(AtomicBool);

/// All other workers stand still until this is dropped.
#[derive(Debug)]
pub(super) struct Still<'a> {
    standstill: &'a Standstill,
    _gate: Option<MutexGuard<'a, ()>>,
}

impl Standstill {
    /// For this many workers.
    pub(crate) fn new(workers: usize) -> Standstill {
        let others = if workers > 1 { workers } else { 0 };
        let in_round = (0..others).map(|_| InRound::default()).collect();
        Standstill { wanted: AtomicBool::new(false), gate: Mutex::new(()), in_round }
    }

    /// A worker begins a round, once nobody wants it to stand still.
    #[inline]
    pub(super) fn begin_round(&self, worker: usize) {
        let Some(InRound(own)) = self.in_round.get(worker) else { return };
        loop {
            // Either this load sees what `begin` stored, or `begin` sees this store.
            own.swap(true, Ordering::SeqCst);
            if !self.wanted.load(Ordering::SeqCst) {
                return;
            }
            own.store(false, Ordering::Release);
            drop(self.enter());
        }
    }

    /// Whether a worker in a round should end it soon.
    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// It is over.
    #[inline]
    pub(super) fn end_round(&self, worker: usize) {
        if let Some(InRound(own)) = self.in_round.get(worker) {
            own.store(false, Ordering::Release);
        }
    }

    /// Waits until no worker is in a round. Whoever calls this is in none and holds no lock.
    pub(super) fn begin(&self) -> Still<'_> {
        if self.in_round.is_empty() {
            return Still { standstill: self, _gate: None };
        }
        let gate = self.enter();
        self.wanted.store(true, Ordering::SeqCst);
        let began = Instant::now();
        for InRound(other) in &self.in_round {
            while other.load(Ordering::SeqCst) && began.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
        }
        Still { standstill: self, _gate: Some(gate) }
    }

    /// The gate guards nothing but the standstill itself.
    fn enter(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.standstill.wanted.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn nobody_is_in_a_round_while_all_stand_still() {
        const WORKERS: usize = 4;
        let (standstill, over, rounds) = (Standstill::new(WORKERS), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (standstill, over, rounds) = (&standstill, &over, &rounds);
                scope.spawn(move || {
                    for turn in 0..2000 {
                        standstill.begin_round(worker);
                        rounds.fetch_add(1, Ordering::SeqCst);
                        rounds.fetch_sub(1, Ordering::SeqCst);
                        standstill.end_round(worker);
                        if turn % 50 == worker {
                            let still = standstill.begin();
                            // Unless one was kept from its core for longer than anybody waits.
                            let patient = standstill.in_round.iter().all(|one| !one.0.load(Ordering::SeqCst));
                            assert!(!patient || rounds.load(Ordering::SeqCst) == 0);
                            drop(still);
                        }
                    }
                    over.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(over.load(Ordering::SeqCst), WORKERS);
    }

    #[test]
    fn a_worker_that_never_ends_its_round_is_not_waited_for_for_ever() {
        let standstill = Standstill::new(2);
        standstill.begin_round(1);
        drop(standstill.begin());
        standstill.end_round(1);
        standstill.begin_round(0);
    }

    #[test]
    fn one_worker_alone_waits_for_nobody() {
        let standstill = Standstill::new(1);
        standstill.begin_round(0);
        drop(standstill.begin());
        standstill.end_round(0);
    }
}
