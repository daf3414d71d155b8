//! Coming back: the more often a service VM fell, the longer it has to prove itself.

use super::{Profile, Timestamp};
use core::time::Duration;

/// Doublings beyond this do not matter: 2³¹ × any hold-down is above any cap.
const LEVELS: u32 = 32;

#[derive(Clone, Debug, Default)]
pub(super) struct Damping {
    /// Flaps, less what good time has taken back.
    level: u32,
    /// Up since then.
    up: Option<Timestamp>,
    /// Answers in a row since recovery began.
    streak: u32,
    /// Enough of them came; the hold-down ends then.
    held: Option<Timestamp>,
}

impl Damping {
    /// The time a service VM that recovers now has to hold out: none before the first flap, then
    /// `hold_down`, doubled with every further flap up to `hold_down_max`.
    pub(super) fn hold_down(&self, profile: &Profile) -> Duration {
        let Some(doublings) = self.level.checked_sub(1) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        profile.hold_down.saturating_mul(factor).min(profile.hold_down_max)
    }

    pub(super) fn up(&mut self, now: Timestamp) {
        self.up = Some(now);
    }

    /// It fell. Every `hold_down_max` it was Up before takes one doubling back.
    pub(super) fn flap(&mut self, now: Timestamp, profile: &Profile) {
        let good = self.up.take().map_or(Duration::ZERO, |up| now.saturating_since(up));
        let healed = good.as_nanos().checked_div(profile.hold_down_max.as_nanos()).unwrap_or(u128::MAX);
        let healed = u32::try_from(healed).unwrap_or(u32::MAX);
        self.level = self.level.saturating_sub(healed).saturating_add(1).min(LEVELS);
    }

    /// Recovery begins, or begins again.
    pub(super) fn begin(&mut self) {
        self.streak = 0;
        self.held = None;
    }

    /// A miss breaks the row of answers. Once the hold-down runs only silence ends it, as it would end Up.
    pub(super) fn miss(&mut self) {
        self.streak = 0;
    }

    /// An answer came: whether recovery is complete.
    pub(super) fn answer(&mut self, now: Timestamp, profile: &Profile) -> bool {
        self.streak = self.streak.saturating_add(1);
        if self.held.is_none() && self.streak >= profile.recover {
            self.held = Some(now + self.hold_down(profile));
        }
        self.held.is_some_and(|until| until <= now)
    }

    /// Moves the running times by a pause of the proxy's own.
    pub(super) fn shift(&mut self, gap: Duration) {
        for at in [&mut self.up, &mut self.held] {
            *at = at.map(|at| at + gap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: Profile = Profile::DEFAULT;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_nanos(secs * 1_000_000_000)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn doubles_with_every_flap_up_to_the_cap() {
        let mut damping = Damping::default();
        assert_eq!(damping.hold_down(&PROFILE), Duration::ZERO);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            damping.up(at(0));
            damping.flap(at(1), &PROFILE);
            assert_eq!(damping.hold_down(&PROFILE), secs(expected));
        }
        for _ in 0..100 {
            damping.flap(at(1), &PROFILE);
        }
        assert_eq!(damping.hold_down(&PROFILE), secs(60));
    }

    #[test]
    fn good_time_takes_doublings_back() {
        let mut damping = Damping::default();
        for _ in 0..5 {
            damping.flap(at(0), &PROFILE);
        }
        assert_eq!(damping.hold_down(&PROFILE), secs(16));
        damping.up(at(0));
        damping.flap(at(59), &PROFILE);
        assert_eq!(damping.hold_down(&PROFILE), secs(32), "one more");
        damping.up(at(0));
        damping.flap(at(180), &PROFILE);
        assert_eq!(damping.hold_down(&PROFILE), secs(8), "three less, one more");
        damping.up(at(0));
        damping.flap(at(100_000), &PROFILE);
        assert_eq!(damping.hold_down(&PROFILE), secs(1), "all forgiven but this");
    }

    #[test]
    fn a_miss_breaks_the_row_but_not_the_hold_down() {
        let profile = Profile { recover: 3, ..PROFILE };
        let mut damping = Damping::default();
        damping.flap(at(0), &profile);
        damping.begin();
        assert!(!damping.answer(at(1), &profile));
        assert!(!damping.answer(at(1), &profile));
        damping.miss();
        assert!(!damping.answer(at(2), &profile));
        assert!(!damping.answer(at(2), &profile));
        assert!(!damping.answer(at(2), &profile), "the row is complete, the hold-down runs until 3");
        damping.miss();
        assert!(damping.answer(at(3), &profile));
    }

    #[test]
    fn without_hold_down_the_row_is_enough() {
        let profile =
            Profile { recover: 2, hold_down: Duration::ZERO, hold_down_max: Duration::ZERO, ..PROFILE };
        let mut damping = Damping::default();
        damping.up(at(0));
        damping.flap(at(0), &profile);
        damping.begin();
        assert!(!damping.answer(at(1), &profile));
        assert!(damping.answer(at(1), &profile));
    }
}
