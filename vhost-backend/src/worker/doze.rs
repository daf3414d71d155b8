//! The sleep of a worker that has nothing to do but to ask service VMs whether they are well.
//!
//! ```text
//! all rings armed ─► sleep ─┬─ a wake, a tap, too many kicks at once, a second is over ──────────────► awake
//!                      ▲    └─ kicks, a probe is due ─► stir: those ports alone ─┬─ a frame to pass on ─► awake
//!                      └──────────── their rings armed, and looked at once more ─┘
//! ```
//!
//! What it costs to be woken is then a matter of the rings that are concerned, not of all that are there. Nothing is left
//! lying meanwhile: a ring that is not concerned stays armed all along, so its driver kicks; one that is has been armed
//! again, and looked at once more, before the next sleep, and what is found there wakes the worker up. So does whatever else
//! is more than an answer and its session: there is no second way to pass on a frame, to follow a link or to obey.

use std::sync::Arc;

use super::sleep::Roused;
use super::{Duty, LONGEST_DOZE, Worker, monotonic_now};
use crate::liveness::Timestamp;

impl Worker {
    /// Sleeps, with every ring armed, until there is more to do than [`stir`](Self::stir) does. Gives the time, which is
    /// accounted for until then. Apart from the loop of rounds, whose code it would make worse.
    #[inline(never)]
    pub(super) fn doze(&mut self, mut now: Timestamp) -> Timestamp {
        let end = now + LONGEST_DOZE;
        loop {
            self.sleeper.falls_asleep();
            // It took a while to arm the rings, which is no lateness.
            let begin = monotonic_now();
            let limit = self.until_deadline(begin).min(end.saturating_since(begin));
            self.due = begin + limit;
            let roused = self.sleeper.sleep(self.due, limit);
            self.patience.slept();
            self.presence.slept();
            let woke = monotonic_now();
            if roused.wholly() || woke >= end {
                self.wake_up();
                let after = monotonic_now();
                self.counters.slept(after.saturating_since(now));
                return after;
            }
            self.counters.slept(woke.saturating_since(now));
            self.excuse_pause(woke);
            let (served, on) = self.stir(&roused, woke);
            if !on {
                self.wake_up();
            }
            now = monotonic_now();
            self.counters.stirred(now.saturating_since(woke), served > 0);
            if !on {
                return now;
            }
            // As between two rounds.
            self.excuse_pause(now);
        }
    }

    /// Serves the ports that were kicked and arms their rings again, tells what has become of their sessions, and tends those
    /// whose time has come. Gives the number of frames, and whether the worker may sleep on.
    fn stir(&mut self, roused: &Roused, now: Timestamp) -> (usize, bool) {
        self.due = now;
        self.batch.traffic = false;
        let (mut served, mut on) = (0, true);
        self.common.standstill.begin_round(self.number);
        for port in roused.ports() {
            on = on && self.serve_port(port, now, &mut served);
        }
        // An answer whose kick was lost, or is still to come, is heard before its service VM is judged.
        for index in 0..self.duties.len() {
            let due = self.duties.get(index).filter(|duty| duty.deadline <= now).map(|duty| duty.share.port);
            on = on && due.is_none_or(|port| self.serve_port(port, now, &mut served));
        }
        self.common.standstill.end_round(self.number);
        if self.batch.traffic {
            self.patience.served(now);
        }
        // Else it is the first thing to do when it is awake.
        if on {
            self.tend_concerned(roused, now);
        }
        // Tending, too, it may have heard frames, or found a service VM down.
        (served, on && !self.batch.traffic && self.news_at == Timestamp::NEVER)
    }

    /// Serves the port of that number, adding to the frames `served`; false if there is more to do about it.
    fn serve_port(&mut self, port: usize, now: Timestamp, served: &mut usize) -> bool {
        let Ok(index) = self.duties.binary_search_by_key(&port, |duty| duty.share.port) else { return false };
        let waits = |duty: &Duty| duty.tap || now < duty.waits;
        if self.duties.get(index).is_none_or(waits) || self.common.standstill.is_wanted() {
            return false;
        }
        *served += self.serve(index, now);
        self.steer_late(now);
        !self.batch.traffic && self.duties.get(index).is_some_and(|duty| !self.arm_rings_of(duty))
    }

    fn tend_concerned(&mut self, roused: &Roused, now: Timestamp) {
        let common = Arc::clone(&self.common);
        // An answer says all there is to say of the driver; its ring is looked at when it is asked again.
        for port in roused.ports().filter_map(|port| common.ports.get(port)) {
            if port.home() == self.number {
                self.announce(&common, port, now);
            }
        }
        for index in 0..self.duties.len() {
            if self.duties.get(index).is_some_and(|duty| duty.deadline <= now) {
                self.tend_port(index, &common, now);
            }
        }
    }

    /// From now on all rings are looked at, without being asked to.
    fn wake_up(&mut self) {
        // Timers are looked at before anything else can come late.
        self.tend_at = Timestamp::from_nanos(0);
        // What woke it may be in any ring.
        self.duties.iter_mut().for_each(|duty| duty.idle = 0);
        self.disarm();
        self.courtesy.slept(monotonic_now());
    }
}

#[cfg(test)]
mod tests;
