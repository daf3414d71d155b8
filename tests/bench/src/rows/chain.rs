//! A chain of one service VM from end to end: classify, push, query, echo, check the answer, decrement, strip.

use super::plain::{beside_rings, rates};
use super::ring::Rings;
use super::{Effort, Row, settle};
use crate::figure::Figure;
use crate::line::Traffic;
use crate::side::livepathd::{self, Liveness, Plan};
use crate::side::{Bench, Side, ovs};

/// Where the time goes, and what was tried.
pub(super) const ACCOUNT: &str = "\
Every frame crosses the forwarder twice and the generator answers it in between, so that the lines of a frame go from core to core four \
times; what that takes is the *copy* and *inspect* stages of the account below. The note of the row says what the ring fast path alone reaches on the \
same way against the same peer: to the same service VM behind headers that never change, and back without them, with nothing looked at and nothing decided. \
No forwarder goes beyond that with this generator, and `ring-chain-64` has it beside two bare copies. Besides what plain forward has, the header is written in the private copy \
in one go and completed for a whole batch before it is sent, all fields at places known in advance, and answers are taken by the verdict \
cache. The target was set for an Open vSwitch slower than it is on this machine; the table says what it does here.";
/// The same for the rows about liveness.
pub(super) const ACCOUNT_WATCHED: &str = "\
A query every millisecond is one frame among thousands, and costs less than the pairs scatter: both sides are the same code with the same \
tables, so a ratio beside 1 by some hundredths is what the machine did between two windows.";

pub(super) fn ours(row: &Row, bench: &Bench) -> anyhow::Result<Side> {
    start(row, bench, Liveness::Default)
}

pub(super) fn ours_watched(row: &Row, bench: &Bench) -> anyhow::Result<Side> {
    start(row, bench, Liveness::Fast)
}

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let traffic = Traffic::plain(row.frame(), bench.huge_pages);
    let peer = settle(ovs::start(bench, ovs::Mode::Nsh, &traffic))?;
    beside_rings(row, bench, effort, (peer, settle(ours(row, bench))?), Rings::new(&traffic, 1)?)
}

/// The same chain with a query every millisecond and with none.
pub(super) fn watched(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let mut unwatched = settle(start(row, bench, Liveness::Off))?;
    "livepath, liveness off".clone_into(&mut unwatched.name);
    rates(row, bench, effort, unwatched, settle(ours_watched(row, bench))?)
}

fn start(row: &Row, bench: &Bench, liveness: Liveness) -> anyhow::Result<Side> {
    let plan = Plan { liveness, ..Plan::chain(1) };
    livepathd::start(bench, &plan, &Traffic::plain(row.frame(), bench.huge_pages))
}
