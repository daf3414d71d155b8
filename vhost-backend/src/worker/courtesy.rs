//! How a worker that polls lets others have its core (`sched_yield`).
//!
//! ```text
//!   round round … offer ─┄ (a session, the control loop, the agent: 0.1 ms) ┄─ round round …      a moment, and they are done
//!   round round … offer ─┄┄┄┄┄┄┄┄ (somebody else's program: 4 ms) ┄┄┄┄┄┄┄┄┄─ round … round …      none for a while
//! ```
//!
//! Where there are few cores, the threads that attach VMs and those that carry the word that a service VM is down run on a worker's
//! core, and a worker that polls never blocks. A thread that is ready and has run of late waits until the kernel looks again at who
//! is to run: at the next tick, for up to 4 ms. When the core is offered the kernel may let it run at once, and it is done in a
//! moment. A worker with a core of its own offers it to nobody, for the price of a system call.
//!
//! Whom an offer goes to is the kernel's choice. Two rules keep a worker from giving away too much: between two offers it has the
//! core for as long as the last one took, and one that took as long as a whole turn of the kernel's went to a program that computes
//! on and on, so for a while nobody gets another.

use std::time::Duration;

use crate::liveness::Timestamp;

/// Time between two offers; each is a system call, about 0.5 µs.
const PERIOD: Duration = Duration::from_micros(250);
/// The same while there is news, for the worker that told it.
const PERIOD_WITH_NEWS: Duration = Duration::from_micros(50);
/// News takes so long: to the agent, to the controller, to its disk and back.
const NEWS: Duration = Duration::from_millis(5);
/// Who has the core for longer is nobody who is soon done.
const TOO_LONG: Duration = Duration::from_millis(1);
/// Then it is not offered for so long, some turns of the kernel's.
const REFUSED: Duration = Duration::from_millis(20);

/// When a worker offers its core next.
#[derive(Debug)]
pub(super) struct Courtesy {
    next: Timestamp,
    news_until: Timestamp,
    refused_until: Timestamp,
}

impl Courtesy {
    /// That of a worker which begins at `now`.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { next: now, news_until: now, refused_until: now }
    }

    /// Whether the core is to be offered at `now`.
    #[inline]
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        now >= self.next
    }

    /// Whether news told before `now` may be on its way yet.
    pub(super) fn has_news(&self, now: Timestamp) -> bool {
        now < self.news_until
    }

    /// It was offered, and others had it for so long, until `now`.
    pub(super) fn offered(&mut self, now: Timestamp, away: Duration) {
        let period = if self.has_news(now) { PERIOD_WITH_NEWS } else { PERIOD };
        self.next = now + period.max(away);
        if away > TOO_LONG {
            self.refused_until = now + REFUSED;
            self.next = self.refused_until;
        }
    }

    /// The worker has slept until `now`, so nobody waits for the core.
    pub(super) fn slept(&mut self, now: Timestamp) {
        self.next = self.next.max(now + PERIOD);
    }

    /// News has been told at `now`, and whoever carries it wants a core.
    pub(super) fn news_told(&mut self, now: Timestamp) {
        self.news_until = now + NEWS;
        self.next = self.refused_until.max(now);
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
                courtesy.offered(at(now), Duration::from_micros(each));
            }
            now += 10;
        }
        offers
    }

    #[test]
    fn a_core_is_offered_now_and_then_and_more_often_while_there_is_news() {
        let mut courtesy = Courtesy::new(at(0));
        assert_eq!(offers(&mut courtesy, 0, 1_000, 0), [0, 250, 500, 750]);
        courtesy.news_told(at(1_010));
        let with_news = offers(&mut courtesy, 1_010, 6_010, 0);
        assert_eq!(with_news.len(), 100);
        assert!(with_news.windows(2).all(|pair| pair[1] - pair[0] == 50));
        let after = offers(&mut courtesy, 6_010, 7_010, 0);
        assert!(after[1..].windows(2).all(|pair| pair[1] - pair[0] == 250), "{after:?}");
    }

    #[test]
    fn a_worker_keeps_half_of_its_core_at_least() {
        let mut courtesy = Courtesy::new(at(0));
        courtesy.news_told(at(0));
        assert_eq!(offers(&mut courtesy, 0, 4_000, 900), [0, 1_800, 3_600]);
    }

    #[test]
    fn who_computes_on_and_on_ends_the_offers_for_a_while_whatever_news_there_is() {
        let mut courtesy = Courtesy::new(at(0));
        assert_eq!(offers(&mut courtesy, 0, 50_000, 4_000), [0, 24_000, 48_000]);
        courtesy.news_told(at(60_000));
        assert!(offers(&mut courtesy, 60_000, 72_000, 10).is_empty());
        assert_eq!(offers(&mut courtesy, 72_000, 73_000, 10), [72_000, 72_260, 72_520, 72_780]);
    }

    #[test]
    fn a_worker_that_was_asleep_works_first() {
        let mut courtesy = Courtesy::new(at(0));
        courtesy.slept(at(900));
        assert_eq!(offers(&mut courtesy, 900, 1_300, 0), [1_150]);
    }
}
