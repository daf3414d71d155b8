//! Frames one by one through plain forward: how long each takes, from a worker that polls and from one that sleeps.

use std::time::Duration;

use anyhow::Context as _;

use super::pairs::{again, alternate, until_whole};
use super::{Effort, Row, plain, settle};
use crate::figure::{Figure, Series, Target, Unit};
use crate::line::{Latencies, Traffic};
use crate::progress::Progress;
use crate::side::{Bench, Side, testpmd};

/// 100 000 frames a second.
const PAUSE: Duration = Duration::from_micros(10);
/// So far apart that the worker sleeps before each.
const LONG_PAUSE: Duration = Duration::from_millis(5);
/// So many windows are one where frames are so far apart.
const LONG_WINDOW: u32 = 4;

/// Half of a side's frames and 99 of 100 took no longer, in microseconds, window by window.
#[derive(Default)]
struct Quantiles {
    p50: Vec<f64>,
    p99: Vec<f64>,
    void: usize,
}

impl Quantiles {
    fn add(&mut self, latencies: &Latencies) {
        self.p50.push(micros(latencies, 0.5));
        self.p99.push(micros(latencies, 0.99));
    }
}

fn micros(latencies: &Latencies, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}

/// Where the time goes, and what was tried.
pub(super) const ACCOUNT: &str = "\
A frame alone finds a worker between two rounds; half a round and six transfers of a line from core to core are the time. A round looks at \
every port that has been in use, and reads the clock once.";

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let mut theirs = settle(testpmd::start(bench, &Traffic::plain(row.frame(), bench.huge_pages)))?;
    let mut ours = settle(plain::ours(row, bench))?;
    let (mut our_quantiles, mut their_quantiles) = (Quantiles::default(), Quantiles::default());
    let mut progress = Progress::new(row.name, effort.pairs);
    let one = |side: &mut Side, quantiles: &mut Quantiles| {
        let latencies = take(side, effort.window, PAUSE, &mut quantiles.void)?;
        quantiles.add(&latencies);
        Ok(())
    };
    for pair in 0..effort.pairs {
        alternate(pair, || one(&mut ours, &mut our_quantiles), || one(&mut theirs, &mut their_quantiles))?;
        progress.show(pair + 1, &format!("{:.2} µs", our_quantiles.p50[pair]));
    }
    let note = again(our_quantiles.void + their_quantiles.void).unwrap_or_default();
    let figure = |name: &str, target, values: [Vec<f64>; 2]| {
        let [our_values, their_values] = values;
        Figure {
            bench: name.to_owned(),
            frame: row.frame(),
            ring: ours.line.ring(),
            unit: Unit::Micros,
            ours: Series { who: ours.name.clone(), values: our_values },
            peer: Some(Series { who: theirs.name.clone(), values: their_values }),
            target,
            note: note.clone(),
            round_trips: Vec::new(),
        }
    };
    Ok(vec![
        figure("latency-p50", row.target, [our_quantiles.p50, their_quantiles.p50]),
        figure("latency-p99", Target::Reported, [our_quantiles.p99, their_quantiles.p99]),
    ])
}

/// The same for frames that each have to wake the worker; nothing that only polls can be compared with it.
pub(super) fn asleep(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let mut ours = settle(plain::ours(row, bench))?;
    // All windows are one: there are too few frames in each to say how long one of a hundred takes.
    let mut all: Option<Latencies> = None;
    let mut progress = Progress::new(row.name, effort.pairs);
    let mut void = 0;
    for window in 0..effort.pairs {
        let latencies = take(&mut ours, effort.window * LONG_WINDOW, LONG_PAUSE, &mut void)?;
        progress.show(window + 1, &format!("{:.2} µs", micros(&latencies, 0.5)));
        match &mut all {
            Some(all) => all.add(&latencies)?,
            None => all = Some(latencies),
        }
    }
    let all = all.context("nothing was measured")?;
    let frames = format!("of {} frames", all.len());
    let note = [frames].into_iter().chain(again(void)).collect::<Vec<_>>().join("; ");
    let figure = |name: &str, quantile| Figure {
        bench: name.to_owned(),
        frame: row.frame(),
        ring: ours.line.ring(),
        unit: Unit::Micros,
        ours: Series { who: ours.name.clone(), values: vec![micros(&all, quantile)] },
        peer: None,
        target: row.target,
        note: note.clone(),
        round_trips: Vec::new(),
    };
    Ok(vec![figure("wake-p50", 0.5), figure("wake-p99", 0.99)])
}

/// One window of a side that stands still before and after.
fn take(side: &mut Side, window: Duration, pause: Duration, void: &mut usize) -> anyhow::Result<Latencies> {
    side.go_on()?;
    let latencies = until_whole(side, void, |line| line.latencies(window, pause))?;
    side.halt()?;
    Ok(latencies)
}
