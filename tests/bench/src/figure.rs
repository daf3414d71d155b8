//! Figures of one row: what was measured in each window, and how two sides compare pair by pair.

use serde::{Deserialize, Serialize};

/// The least, the middle and the greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// Half of the values are not above it; of two in the middle, their mean.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value; `None` of none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Spread { min, median, max })
    }
}

/// Between which two of the values the median of many more would be, with 95 % confidence: so far from the middle on both sides
/// as the order of the values alone lets us say. `None` of no values.
pub fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let below = ((count - 1.96 * count.sqrt()) / 2.0).max(0.0) as usize;
    Some((*sorted.get(below)?, *sorted.get(sorted.len() - 1 - below)?))
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Millions of packets a second.
    Mpps,
    /// Nanoseconds a packet.
    NanosPerPacket,
    /// Gigabytes (10^9) of frames a second.
    GigabytesPerSecond,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Percent of a core.
    CorePercent,
    /// MiB.
    Mebibytes,
}

impl Unit {
    /// The key of a JSON line.
    pub const fn key(self) -> &'static str {
        match self {
            Unit::Mpps => "mpps",
            Unit::NanosPerPacket => "ns",
            Unit::GigabytesPerSecond => "gbytes_per_s",
            Unit::Micros => "us",
            Unit::Millis => "ms",
            Unit::CorePercent => "core_percent",
            Unit::Mebibytes => "mib",
        }
    }

    /// For people.
    pub const fn label(self) -> &'static str {
        match self {
            Unit::Mpps => "Mpps",
            Unit::NanosPerPacket => "ns/packet",
            Unit::GigabytesPerSecond => "GB/s",
            Unit::Micros => "µs",
            Unit::Millis => "ms",
            Unit::CorePercent => "% of a core",
            Unit::Mebibytes => "MiB",
        }
    }
}

/// One side of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Who.
    pub who: String,
    /// A value for each window.
    pub values: Vec<f64>,
}

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A ratio of at least this.
    AtLeast(f64),
    /// A ratio of at most this.
    AtMost(f64),
    /// A value of less than this.
    Below(f64),
    /// A value of at most this.
    ValueAtMost(f64),
    /// Nothing: for information.
    Reported,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::AtLeast(ratio) => write!(f, "≥ {ratio}"),
            Target::AtMost(ratio) => write!(f, "≤ {ratio}"),
            Target::Below(value) => write!(f, "< {value}"),
            Target::ValueAtMost(value) => write!(f, "≤ {value}"),
            Target::Reported => f.write_str("reported"),
        }
    }
}

/// A measured thing and what it is measured against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The row.
    pub bench: String,
    /// Bytes of a frame; 0 where there is none.
    pub frame: usize,
    /// Entries of every ring.
    pub ring: u16,
    /// What the values are.
    pub unit: Unit,
    /// The measured thing.
    pub ours: Series,
    /// What it is measured against, window by window; none where the value itself is the figure.
    pub peer: Option<Series>,
    /// What is to be reached.
    pub target: Target,
    /// What has to be known to read the figure.
    pub note: String,
    /// Nanoseconds that a line takes from the generator's core to the forwarder's and back: before each pair, or before the row
    /// and after it.
    #[serde(default)]
    pub round_trips: Vec<f64>,
}

impl Figure {
    /// Ours by theirs, taken pair by pair.
    pub fn ratio(&self) -> Option<Spread> {
        Spread::of(&self.ratios()?)
    }

    fn ratios(&self) -> Option<Vec<f64>> {
        let peer = self.peer.as_ref()?;
        Some(self.ours.values.iter().zip(&peer.values).map(|(ours, theirs)| ours / theirs).collect())
    }

    /// The median of the ratio and the number of pairs while the cores were near each other, a round trip of less than
    /// [`NEAR`](Self::NEAR), and while they were far; `None` unless there were pairs of both kinds.
    pub fn by_distance(&self) -> Option<[(f64, usize); 2]> {
        let ratios = self.ratios().filter(|ratios| ratios.len() == self.round_trips.len())?;
        let pairs = ratios.into_iter().zip(&self.round_trips);
        let (near, far): (Vec<_>, Vec<_>) = pairs.partition(|(_, trip)| **trip < Self::NEAR);
        let median = |pairs: Vec<(f64, &f64)>| {
            let ratios: Vec<f64> = pairs.into_iter().map(|(ratio, _)| ratio).collect();
            Some((Spread::of(&ratios)?.median, ratios.len()))
        };
        Some([median(near)?, median(far)?])
    }

    /// Nanoseconds that tell cores which share a cache from those that do not.
    pub const NEAR: f64 = 150.0;

    /// The [`interval`] of the ratio's median.
    pub fn interval(&self) -> Option<(f64, f64)> {
        interval(&self.ratios()?)
    }

    /// Whether a target for the ratio lies outside of its interval, so that another run would say the same of it; `None` where
    /// there is none.
    pub fn is_resolved(&self) -> Option<bool> {
        let (Target::AtLeast(target) | Target::AtMost(target)) = self.target else { return None };
        let (low, high) = self.interval()?;
        Some(!(low..=high).contains(&target))
    }

    /// Says one thing more of it.
    pub fn remark(&mut self, text: &str) {
        if !self.note.is_empty() && !text.is_empty() {
            self.note += "; ";
        }
        self.note += text;
    }

    /// The figure without its void pairs, those in which a side's value is 0, as of a window in which nothing moved, or no
    /// number: such a pair says nothing of the other side. The note says how many there were; `None` if no pair is left.
    #[must_use]
    pub fn counted(mut self) -> Option<Figure> {
        let Some(peer) = &mut self.peer else { return Some(self) };
        let before = self.ours.values.len();
        let counts = |value: f64| value.is_finite() && value > 0.0;
        let pairs = self.ours.values.iter().copied().zip(peer.values.iter().copied());
        let good: Vec<bool> = pairs.map(|(ours, theirs)| counts(ours) && counts(theirs)).collect();
        let keep = |values: &mut Vec<f64>| {
            let mut good = good.iter();
            values.retain(|_| good.next().is_none_or(|good| *good));
        };
        if self.round_trips.len() == before {
            keep(&mut self.round_trips);
        }
        keep(&mut self.ours.values);
        keep(&mut peer.values);
        let void = before - self.ours.values.len();
        if void > 0 {
            self.remark(&format!("{void} of {before} pairs void: nothing moved in a window"));
        }
        (void < before).then_some(self)
    }

    /// How far the target was missed, in percent of it; `None` if it was reached or there is none.
    pub fn short_by(&self) -> Option<f64> {
        let ratio = || self.ratio().map(|ratio| ratio.median);
        let value = || Spread::of(&self.ours.values).map(|value| value.median);
        let (reached, wanted) = match self.target {
            Target::AtLeast(least) => (ratio()?, least),
            Target::AtMost(most) => (ratio()?, most),
            Target::Below(limit) | Target::ValueAtMost(limit) => (value()?, limit),
            Target::Reported => return None,
        };
        (self.reached() == Some(false)).then(|| 100.0 * (reached - wanted).abs() / wanted)
    }

    /// Whether the target was reached; `None` where there is none.
    pub fn reached(&self) -> Option<bool> {
        let ratio = || self.ratio().map(|ratio| ratio.median);
        let value = || Spread::of(&self.ours.values).map(|value| value.median);
        match self.target {
            Target::AtLeast(least) => ratio().map(|ratio| ratio >= least),
            Target::AtMost(most) => ratio().map(|ratio| ratio <= most),
            Target::Below(limit) => value().map(|value| value < limit),
            Target::ValueAtMost(most) => value().map(|value| value <= most),
            Target::Reported => None,
        }
    }
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was measured; most rows are one figure.
    Measured(Vec<Figure>),
    /// It cannot be measured here and now, for this reason.
    Unavailable(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(ours: &[f64], peer: &[f64], target: Target) -> Figure {
        let series = |who: &str, values: &[f64]| Series { who: who.into(), values: values.into() };
        Figure {
            bench: "plain-64".into(),
            frame: 64,
            ring: 256,
            unit: Unit::Mpps,
            ours: series("livepath", ours),
            peer: (!peer.is_empty()).then(|| series("testpmd-io", peer)),
            target,
            note: String::new(),
            round_trips: Vec::new(),
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let median = |values: &[f64]| Spread::of(values).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
        let spread = Spread::of(&[4.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!((spread.min, spread.max), (1.0, 9.0));
    }

    /// The places are those of a table of the binomial distribution.
    #[test]
    fn the_interval_of_a_median_follows_from_the_number_of_values() {
        let of = |count: i32| {
            let values: Vec<f64> = (1..=count).rev().map(f64::from).collect();
            interval(&values)
        };
        assert_eq!((of(0), of(1), of(5)), (None, Some((1.0, 1.0)), Some((1.0, 5.0))));
        assert_eq!((of(15), of(75)), (Some((4.0, 12.0)), Some((30.0, 46.0))));
    }

    #[test]
    fn a_target_within_the_interval_is_not_resolved() {
        let ours: Vec<f64> = (0..15).map(|i| 0.9 + 0.01 * f64::from(i)).collect();
        let resolved = |target| figure(&ours, &[1.0; 15], target).is_resolved();
        assert_eq!(resolved(Target::AtLeast(0.99)), Some(false));
        assert_eq!(
            (resolved(Target::AtLeast(0.92)), resolved(Target::AtMost(1.2))),
            (Some(true), Some(true))
        );
        assert_eq!(resolved(Target::Reported), None);
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The machine became half as fast after the first pair; the ratio does not care.
        let ratio = figure(&[10.0, 5.0, 6.0], &[5.0, 2.5, 2.0], Target::Reported).ratio().unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (2.0, 2.0, 3.0));
    }

    #[test]
    fn a_pair_with_a_window_in_which_nothing_moved_does_not_count() {
        let counted = |ours: &[f64], peer: &[f64]| figure(ours, peer, Target::AtLeast(1.0)).counted();
        let whole = counted(&[10.0, 5.0], &[5.0, 5.0]).unwrap();
        assert_eq!((whole.note.as_str(), whole.ours.values.len()), ("", 2));
        let void = counted(&[10.0, 5.0, 0.0, 6.0], &[0.0, 5.0, 3.0, f64::INFINITY]).unwrap();
        assert_eq!((&void.ours.values, &void.peer.as_ref().unwrap().values), (&vec![5.0], &vec![5.0]));
        assert_eq!(void.note, "3 of 4 pairs void: nothing moved in a window");
        assert_eq!(void.ratio().unwrap().max, 1.0);
        assert_eq!(counted(&[10.0], &[0.0]), None);
        assert!(counted(&[0.0], &[]).is_some(), "0 % of a core is a figure");
    }

    #[test]
    fn ratios_are_told_apart_by_how_near_the_cores_were() {
        let mut figure = figure(&[2.0, 9.0, 4.0, 6.0], &[1.0, 0.0, 1.0, 1.0], Target::Reported);
        figure.round_trips = vec![60.0, 60.0, 400.0, 390.0];
        let figure = figure.counted().unwrap();
        assert_eq!(figure.by_distance(), Some([(2.0, 1), (5.0, 2)]));
        assert_eq!(Figure { round_trips: vec![60.0; 3], ..figure.clone() }.by_distance(), None);
        assert_eq!(Figure { round_trips: vec![60.0, 400.0], ..figure }.by_distance(), None);
    }

    #[test]
    fn a_missed_target_says_by_how_much() {
        let short = |target| figure(&[3.0, 3.0], &[2.0, 2.0], target).short_by();
        assert_eq!(short(Target::AtLeast(2.0)), Some(25.0));
        assert_eq!(short(Target::AtMost(1.0)), Some(50.0));
        assert_eq!(short(Target::ValueAtMost(2.0)), Some(50.0));
        assert_eq!((short(Target::AtLeast(1.5)), short(Target::Reported)), (None, None));
    }

    #[test]
    fn targets_are_compared_with_what_they_are_about() {
        let reached = |target| figure(&[2.0, 2.0], &[1.0, 1.0], target).reached();
        assert_eq!(reached(Target::AtLeast(2.0)), Some(true));
        assert_eq!(reached(Target::AtLeast(2.1)), Some(false));
        assert_eq!(reached(Target::AtMost(1.0)), Some(false));
        assert_eq!(reached(Target::Below(2.0)), Some(false));
        assert_eq!(reached(Target::ValueAtMost(2.0)), Some(true));
        assert_eq!(reached(Target::Reported), None);
        assert_eq!(figure(&[2.0], &[], Target::AtLeast(1.0)).reached(), None);
    }
}
