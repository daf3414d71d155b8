//! Frames of 64 KiB that cross a chain of three unsegmented, against frames of 1500 bytes, by bytes; and what the copies alone
//! would let them reach, over as much memory as their rings take.

use super::bound::{Bound, Load};
use super::pairs;
use super::{Effort, Row, settle};
use crate::figure::{Figure, Series, Target, Unit};
use crate::line::{Kind, Traffic, Window};
use crate::side::livepathd::{self, NAME, Plan};
use crate::side::{Bench, Side};

const SEGMENT: u16 = 1448;
/// Headers and 45 segments, the longest a Linux guest sends.
const SUPER_FRAME: usize = 54 + 45 * SEGMENT as usize;
const FRAME: usize = 1500;
/// A ring of 256 buffers of 64 KiB would be more than any guest posts, and than the caches hold.
const RING: u16 = 32;
const SERVICES: usize = 3;

/// Where the time goes, and what was tried.
pub(super) const ACCOUNT: &str = "\
A super-frame is copied once more often than it passes services, and beside that the forwarder does next to nothing: `offload-bound` is what so many bare copies \
over as much memory reach on these two cores, and `offload-of-bound` how near the row comes to that. The faster 1500-byte frames get, \
the less is left to gain on them. Copies of 64 KiB run at the rate of the shared cache, and 1500-byte frames, which stay in \
the private ones, do not. Non-temporal stores were tried: faster when the receiver's buffer is cold, slower when it is warm, as it is with a guest that \
reads what it gets. Rings of 32 entries keep an eighth of the memory in use that those of 256 would.";

pub(super) fn ours(_: &Row, bench: &Bench) -> anyhow::Result<Side> {
    let plan = Plan { offload: true, ..Plan::chain(SERVICES) };
    let plain = Traffic::plain(SUPER_FRAME, bench.huge_pages);
    let traffic = Traffic { kind: Kind::Tcp, segment: Some(SEGMENT), ring: RING, ..plain };
    livepathd::start(bench, &plan, &traffic)
}

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let mut ours = settle(ours(row, bench))?;
    let short = Traffic::plain(FRAME, bench.huge_pages);
    let mut theirs = settle(livepathd::start(bench, &Plan::chain(SERVICES), &short))?;
    let gigabytes = |window: &Window, frame: usize| window.mpps() * frame as f64 / 1e3;
    let mut bound = Bound::new(bench, Load { frame: SUPER_FRAME, copies: SERVICES + 1, ring: RING })?;
    let mut bounds = Vec::new();
    let pairs = pairs::measure(
        row.name,
        bench,
        (&mut ours, &mut theirs),
        effort,
        |window, line| gigabytes(window, line.frame()),
        || {
            bounds.push(gigabytes(&bound.measure(bench.core, effort.window)?, SUPER_FRAME));
            Ok(())
        },
    )?;
    let note = pairs.note(&ours, &theirs);
    let theirs = Series { who: format!("{NAME}, {FRAME} B"), values: pairs.theirs.values };
    let figure = |name: &str, series: Series, peer: &Series, target, note| Figure {
        bench: name.to_owned(),
        frame: SUPER_FRAME,
        ring: RING,
        unit: Unit::GigabytesPerSecond,
        ours: series,
        peer: Some(peer.clone()),
        target,
        note,
        round_trips: pairs.trips.clone(),
    };
    let bound = Series { who: format!("{} copies and a counter", SERVICES + 1), values: bounds };
    let ours = Series { who: ours.name, values: pairs.ours.values };
    Ok(vec![
        figure(row.name, ours.clone(), &theirs, row.target, note),
        figure(
            "offload-bound",
            bound.clone(),
            &theirs,
            Target::Reported,
            format!("what {} bare copies reach", SERVICES + 1),
        ),
        figure("offload-of-bound", ours, &bound, Target::Reported, String::new()),
    ])
}
