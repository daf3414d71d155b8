//! A and B in turn on one core: while one is measured, the other stands still.

use std::time::Duration;

use anyhow::bail;

use super::Effort;
use super::round_trip::round_trip;
use crate::line::{Line, Void, Window};
use crate::progress::Progress;
use crate::side::{Bench, Process, Side};

/// How long a side may take until frames flow.
const PATIENCE: Duration = Duration::from_secs(20);
/// Void windows in a row after which a side is given up.
const MOST_VOID: usize = 10;

/// A side that is settled and halted.
///
/// # Errors
/// No frames get through.
pub fn settle(side: anyhow::Result<Side>) -> anyhow::Result<Side> {
    let mut side = side?;
    if let Err(void) = side.line.settle(PATIENCE) {
        let words = side.process().map(Process::last_words).unwrap_or_default();
        bail!("{}: {void}\n{words}", side.name);
    }
    side.halt()?;
    Ok(side)
}

/// What was measured of both sides.
#[derive(Default)]
pub(super) struct Pairs {
    pub(super) ours: Windows,
    pub(super) theirs: Windows,
    /// A line's way there and back before each pair, in nanoseconds.
    pub(super) trips: Vec<f64>,
}

/// What was measured of one side.
#[derive(Default)]
pub(super) struct Windows {
    /// Window by window.
    pub(super) values: Vec<f64>,
    /// How many windows were void and measured again.
    void: usize,
    /// In how many of the others the generator was the limit.
    hurried: usize,
}

impl Pairs {
    /// What has to be known of them.
    pub(super) fn note(&self, ours: &Side, theirs: &Side) -> String {
        let void = again(self.ours.void + self.theirs.void);
        let of = |windows: &Windows, side: &Side| {
            format!("{} of {} windows of {}", windows.hurried, windows.values.len(), side.name)
        };
        let hurried = (self.ours.hurried + self.theirs.hurried > 0).then(|| {
            let (ours, theirs) = (of(&self.ours, ours), of(&self.theirs, theirs));
            format!("the generator was the limit in {ours}, {theirs}")
        });
        void.into_iter().chain(hurried).collect::<Vec<_>>().join("; ")
    }
}

/// What is said of void windows; nothing of none.
pub(super) fn again(void: usize) -> Option<String> {
    (void > 0).then(|| format!("{void} windows lost frames and were measured again"))
}

/// Calls both, each first as often as second; gives what ours gave first.
pub(super) fn alternate<T>(
    pair: usize,
    ours: impl FnOnce() -> anyhow::Result<T>,
    theirs: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, T)> {
    if pair.is_multiple_of(2) {
        let ours = ours()?;
        Ok((ours, theirs()?))
    } else {
        let theirs = theirs()?;
        Ok((ours()?, theirs))
    }
}

/// Measures two settled sides in turn; `between` is called after every pair, while both stand still.
pub(super) fn measure(
    row: &str,
    bench: &Bench,
    (ours, theirs): (&mut Side, &mut Side),
    effort: Effort,
    value: impl Fn(&Window, &Line) -> f64,
    mut between: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Pairs> {
    let mut pairs = Pairs::default();
    let mut progress = Progress::new(row, effort.pairs);
    let one = |side: &mut Side, windows: &mut Windows| {
        side.go_on()?;
        let window = until_whole(side, &mut windows.void, |line| line.window(effort.window))?;
        side.halt()?;
        windows.values.push(value(&window, &side.line));
        windows.hurried += usize::from(window.is_hurried());
        Ok(())
    };
    for pair in 0..effort.pairs {
        pairs.trips.push(round_trip(bench.core)?);
        alternate(pair, || one(ours, &mut pairs.ours), || one(theirs, &mut pairs.theirs))?;
        between()?;
        progress.show(pair + 1, &format!("{:.3}", pairs.ours.values[pair] / pairs.theirs.values[pair]));
    }
    Ok(pairs)
}

/// Warms a side up and measures it until a window is not void.
pub(super) fn until_whole<T>(
    side: &mut Side,
    voids: &mut usize,
    mut value: impl FnMut(&mut Line) -> Result<T, Void>,
) -> anyhow::Result<T> {
    for _ in 0..MOST_VOID {
        let measured = side.line.settle(PATIENCE).and_then(|()| value(&mut side.line));
        match measured {
            Ok(value) => return Ok(value),
            Err(_) => *voids += 1,
        }
    }
    let words = side.process().map(Process::last_words).unwrap_or_default();
    bail!("{}: {MOST_VOID} windows in a row were void\n{words}", side.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn each_of_two_is_first_as_often_as_second() {
        let order = RefCell::new(String::new());
        let call = |name: &'static str| {
            order.borrow_mut().push_str(name);
            Ok(name)
        };
        for pair in 0..4 {
            assert_eq!(alternate(pair, || call("a"), || call("b")).unwrap(), ("a", "b"));
        }
        assert_eq!(order.into_inner(), "abbaabba");
    }

    #[test]
    fn void_windows_are_told() {
        assert_eq!(again(0), None);
        assert_eq!(again(2).as_deref(), Some("2 windows lost frames and were measured again"));
    }
}
