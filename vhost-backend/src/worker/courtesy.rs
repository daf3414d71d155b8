//! How a worker that polls lets others have its core.
//!
//! ```text
//!   round round … offer ─┄ (a session, the control loop, the agent: 0.1 ms) ┄─ round round …      a moment, and they are done
//!   round round … offer ─┄┄┄┄┄┄┄┄ (somebody else's program: 4 ms) ┄┄┄┄┄┄┄┄┄─ round … round …      none for a while
//! ```
//!
//! Where there are few cores the threads that attach VMs, and those that carry the word that a service VM is down, have that of a
//! worker, which never blocks. A thread that is ready and has had a turn of late waits until the kernel looks again at who is to
//! run: at the next tick, for up to 4 ms. Offered the core they have it at once, and give it back when they are done. A worker
//! with a core of its own offers it to nobody, for the price of a system call. Who computes without end takes it for a turn of the
//! kernel's, and so is not offered another one soon.

use std::time::Duration;

use crate::liveness::Timestamp;

/// Time between two offers; each is a system call, about 0.5 µs.
const PERIOD: Duration = Duration::from_micros(250);
/// The same while there is news to be carried.
const SHORT: Duration = Duration::from_micros(50);
/// News is carried for so long: to the agent, to the controller, to its disk and back.
const CARRIED: Duration = Duration::from_millis(5);
/// Who has the core for longer is nobody who is soon done.
const LONG: Duration = Duration::from_millis(1);
/// Then it is not offered for so long, some turns of the kernel's.
const REFUSED: Duration = Duration::from_millis(20);

/// When a worker offers its core next.
#[derive(Debug)]
pub(super) struct Courtesy {
    next: Timestamp,
    /// Until then there is news to be carried.
    carried: Timestamp,
    /// Until then nothing is offered.
    refused: Timestamp,
}

impl Courtesy {
    /// That of a worker which begins at `now`.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { next: now, carried: now, refused: now }
    }

    /// Whether the core is to be offered at `now`.
    #[inline]
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        now >= self.next
    }

    /// It has been, and the worker has it again at `now`.
    pub(super) fn offered(&mut self, now: Timestamp) {
        self.next = now + if now < self.carried { SHORT } else { PERIOD };
    }

    /// The worker has not had the core for so long, asked or not.
    pub(super) fn was_away(&mut self, now: Timestamp, away: Duration) {
        if away > LONG {
            self.refused = now + REFUSED;
            self.next = self.refused;
        }
    }

    /// News has been told at `now`, and whoever carries it wants a core.
    pub(super) fn told(&mut self, now: Timestamp) {
        self.carried = now + CARRIED;
        self.next = self.refused.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: u64) -> Timestamp {
        Timestamp::from_nanos(micros * 1_000)
    }

    /// When the core is offered from `from` on until `to`, a look every 10 microseconds, if each offer takes so long.
    fn offers(courtesy: &mut Courtesy, from: u64, to: u64, each: u64) -> Vec<u64> {
        let mut offers = Vec::new();
        let mut now = from;
        while now < to {
            if courtesy.is_due(at(now)) {
                offers.push(now);
                now += each;
                courtesy.offered(at(now));
                courtesy.was_away(at(now), Duration::from_micros(each));
            }
            now += 10;
        }
        offers
    }

    #[test]
    fn a_core_is_offered_now_and_then_and_more_often_while_news_is_carried() {
        let mut courtesy = Courtesy::new(at(0));
        assert_eq!(offers(&mut courtesy, 0, 1_000, 0), [0, 250, 500, 750]);
        courtesy.told(at(1_010));
        let carried = offers(&mut courtesy, 1_010, 6_010, 0);
        assert_eq!(carried.len(), 100);
        assert!(carried.windows(2).all(|pair| pair[1] - pair[0] == 50));
        let after = offers(&mut courtesy, 6_010, 7_010, 0);
        assert!(after[1..].windows(2).all(|pair| pair[1] - pair[0] == 250), "{after:?}");
    }

    #[test]
    fn who_computes_on_and_on_gets_no_offer_for_a_while_whatever_there_is_to_carry() {
        let mut courtesy = Courtesy::new(at(0));
        assert_eq!(offers(&mut courtesy, 0, 50_000, 4_000), [0, 24_000, 48_000]);
        courtesy.told(at(60_000));
        assert!(offers(&mut courtesy, 60_000, 72_000, 10).is_empty());
        assert_eq!(offers(&mut courtesy, 72_000, 73_000, 10), [72_000, 72_260, 72_520, 72_780]);
        courtesy.was_away(at(73_000), Duration::from_micros(4_000));
        assert!(!courtesy.is_due(at(92_990)), "taken unasked");
        assert!(courtesy.is_due(at(93_000)));
    }

    #[test]
    fn a_short_turn_is_no_reason_to_refuse_the_next() {
        let mut courtesy = Courtesy::new(at(0));
        courtesy.told(at(0));
        assert_eq!(offers(&mut courtesy, 0, 1_000, 400), [0, 450, 900]);
    }
}
