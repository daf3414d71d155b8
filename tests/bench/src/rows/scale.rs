//! The chain with large tables against the chain with one entry in each.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context as _;

use super::idle::memory;
use super::plain::rates;
use super::ring::generator;
use super::{Effort, Row, settle};
use crate::figure::{Figure, Series, Target, Unit};
use crate::line::Traffic;
use crate::side::livepathd::{self, NAME, Plan};
use crate::side::{Bench, Side};

/// Flows, a power of two above a million.
const FLOWS: u32 = 1 << 20;
const LARGE: Plan = Plan { paths: 16_000, policies: 10_000, flows: Some(FLOWS), ..Plan::chain(1) };
const DISPLACED: &str = "livepath_flows_displaced_total";
/// How long every flow may take to have been seen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the time goes, and what was tried.
pub(super) const ACCOUNT: &str = "\
2^20 flows in turn are the worst there is: a frame never meets what an earlier one left in a cache. On the way out its flow's bucket and its record are \
read, on the way back the slot of the SPI index and the path: all but the first depend on what was read before, and each is a miss. They are asked for \
a batch at a time, and the verdict cache is passed over while nothing is found in it. Records lie in huge pages where the machine has them; asking for \
one ahead still waits for its translation. What was tried and kept: the first hop and its place in the record of a flow, so that the path need not be read on \
the way out; one look-up of a record without branches; what the frame before has shown of ports and addresses not looked up again. Tried and dropped: \
asking for records frame by frame, between parsing and deciding. Untried: paths in the SPI index itself. The account below says what is left, beside that of \
`chain-64`: *inspect* and *decide* are dearer.";

pub(super) fn ours(row: &Row, bench: &Bench) -> anyhow::Result<Side> {
    start(row, bench, &LARGE)
}

fn start(row: &Row, bench: &Bench, plan: &Plan) -> anyhow::Result<Side> {
    let traffic = Traffic { flows: FLOWS, ..Traffic::plain(row.frame(), bench.huge_pages) };
    let mut side = livepathd::start(bench, plan, &traffic)?;
    side.line.settle(PATIENCE)?;
    side.line.pass(2 * u64::from(FLOWS), PATIENCE)?;
    Ok(side)
}

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let traffic = Traffic::plain(row.frame(), bench.huge_pages);
    // What the flows cost the generator itself is no fault of the forwarder's.
    let generated = |flows| generator(bench.core, &Traffic { flows, ..traffic }, effort.window);
    let [one, all] = [generated(1)?, generated(FLOWS)?];
    let mut small = settle(livepathd::start(bench, &Plan::chain(1), &traffic))?;
    "livepath, one of each".clone_into(&mut small.name);
    // A port that is free now.
    let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let ours = start(row, bench, &Plan { metrics: Some(metrics), ..LARGE })?;
    let displaced = livepathd::counter(metrics, DISPLACED)?;
    let ours = settle(Ok(ours))?;
    let weigh = |side: &Side| memory(&side.process().context("no daemon")?.id().to_string());
    let (weight, alone) = (weigh(&ours)?, weigh(&small)?);
    let mut figures = rates(row, bench, effort, small, ours)?;
    if let Some(rate) = figures.first_mut() {
        rate.remark(&format!("the generator alone: {all:.1} Mpps of these flows, {one:.1} of one"));
        rate.remark(&format!("of 2^20 flows {displaced} not pinned"));
    }
    figures.push(Figure {
        bench: "scale-memory".to_owned(),
        frame: row.frame(),
        ring: traffic.ring,
        unit: Unit::Mebibytes,
        ours: Series { who: NAME.to_owned(), values: vec![weight] },
        peer: None,
        target: Target::Reported,
        note: format!("a daemon with one of each: {alone:.1} MiB"),
        round_trips: Vec::new(),
    });
    Ok(figures)
}
