//! Two tenant ports and nothing between them.

use super::ring::Rings;
use super::{Effort, Row, pairs, settle};
use crate::figure::{Figure, Series, Spread, Unit};
use crate::line::{Line, Traffic, Window};
use crate::side::livepathd::{self, Plan};
use crate::side::{Bench, Side, ovs, testpmd};

/// Where the time goes, and what was tried.
pub(super) const ACCOUNT: &str = "\
The time is the generator's and the way between the cores as much as the forwarder's: the note of the row says what the ring fast path alone, with \
nothing to decide, reaches against the same peer, how much of that the row reaches, and in how many windows the generator was never kept waiting. The account below has the forwarder's \
part. What was tried and kept: batches of 32; descriptors, payload and receive buffers asked for ahead, the \
latter some frames ahead; the verdict cache with the last flow in front; frames completed in a first pass and written by a loop that \
stores next to nothing else, since a core has a fixed number of stores under way, in order, and those into another core's lines take long; pieces \
of 32 bytes; a long frame's buffer asked for while the frame before is copied. Tried and dropped: larger batches, non-temporal stores, asking \
for the payload of the batch after this one, asking for the next long frame's payload, and in the generator asking for ring entries ahead.";
/// The same for buffers one behind the other.
pub(super) const ACCOUNT_ORDERED: &str = "\
Most of the worker's time is the store into receive buffers that the generator's core has fetched ahead by itself. Buffers one behind the other are asked for \
further ahead than scattered ones, which is faster for the former and slower for the latter. Tried and dropped: other distances, reading payload in another \
order, asking for no payload.";

pub(super) fn ours(row: &Row, bench: &Bench) -> anyhow::Result<Side> {
    livepathd::start(bench, &Plan::PLAIN, &Traffic::plain(row.frame(), bench.huge_pages))
}

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    against_testpmd(row, bench, effort, &Traffic::plain(row.frame(), bench.huge_pages))
}

/// With buffers one behind the other.
pub(super) fn in_order(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let plain = Traffic::plain(row.frame(), bench.huge_pages);
    against_testpmd(row, bench, effort, &Traffic { scattered: false, ..plain })
}

fn against_testpmd(
    row: &Row,
    bench: &Bench,
    effort: Effort,
    traffic: &Traffic,
) -> anyhow::Result<Vec<Figure>> {
    let peer = settle(testpmd::start(bench, traffic))?;
    let ours = settle(livepathd::start(bench, &Plan::PLAIN, traffic))?;
    beside_rings(row, bench, effort, (peer, ours), Rings::new(traffic, 0)?)
}

/// Frames a second of two settled sides. After every pair the generator is fed by the ring fast path alone, with nothing to
/// decide: the note says what that reaches against the same peer, and how much of it ours.
pub(super) fn beside_rings(
    row: &Row,
    bench: &Bench,
    effort: Effort,
    (peer, ours): (Side, Side),
    mut rings: Rings,
) -> anyhow::Result<Vec<Figure>> {
    let mut alone = Vec::new();
    let mut figure = rate(row, bench, effort, peer, ours, || {
        alone.push(rings.measure(bench.core, effort.window)?.mpps());
        Ok(())
    })?;
    let theirs = figure.peer.as_ref().map(|peer| &peer.values[..]).unwrap_or_default();
    let limits = (ratio(&alone, theirs), ratio(&figure.ours.values, &alone));
    if let (Some(limit), Some(reached)) = limits {
        figure.remark(&format!(
            "the ring alone, with nothing to decide: {limit:.2}, of which {reached:.2} is reached"
        ));
    }
    Ok(vec![figure])
}

/// The median of one by the other, pair by pair.
fn ratio(ones: &[f64], others: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = ones.iter().zip(others).map(|(one, other)| one / other).collect();
    Spread::of(&ratios).map(|spread| spread.median)
}

pub(super) fn against_ovs(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let peer = ovs::start(bench, ovs::Mode::L2, &Traffic::plain(row.frame(), bench.huge_pages));
    rates(row, bench, effort, settle(peer)?, settle(ours(row, bench))?)
}

/// Frames a second of two settled sides.
pub(super) fn rates(
    row: &Row,
    bench: &Bench,
    effort: Effort,
    peer: Side,
    ours: Side,
) -> anyhow::Result<Vec<Figure>> {
    Ok(vec![rate(row, bench, effort, peer, ours, || Ok(()))?])
}

fn rate(
    row: &Row,
    bench: &Bench,
    effort: Effort,
    mut peer: Side,
    mut ours: Side,
    between: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Figure> {
    let mpps = |window: &Window, _: &Line| window.mpps();
    let pairs = pairs::measure(row.name, bench, (&mut ours, &mut peer), effort, mpps, between)?;
    Ok(Figure {
        bench: row.name.to_owned(),
        frame: ours.line.frame(),
        ring: ours.line.ring(),
        unit: Unit::Mpps,
        note: pairs.note(&ours, &peer),
        ours: Series { who: ours.name, values: pairs.ours.values },
        peer: Some(Series { who: peer.name, values: pairs.theirs.values }),
        target: row.target,
        round_trips: pairs.trips,
    })
}
