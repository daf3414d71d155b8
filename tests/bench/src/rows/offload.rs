//! Frames of 64 KiB that cross a chain of three unsegmented, against frames of 1500 bytes, by bytes; and what the copies alone
//! would let them reach, over as much memory as their rings take. The same into buffers of 4 KiB, of which a frame takes sixteen.

use super::bound::{Bound, Load};
use super::pairs::{self, Pairs, until_whole};
use super::{Effort, Row, settle};
use crate::figure::{Figure, Series, Target, Unit};
use crate::line::{Kind, Merged, Traffic, Window};
use crate::side::livepathd::{self, NAME, Plan};
use crate::side::{Bench, Side};

const SEGMENT: u16 = 1448;
/// Headers and 45 segments, the longest a Linux guest sends.
const SUPER_FRAME: usize = 54 + 45 * SEGMENT as usize;
const FRAME: usize = 1500;
/// A ring of 256 buffers of 64 KiB would be more than any guest posts, and than the caches hold.
const RING: u16 = 32;
/// What Linux posts when such frames come, of which as much as the others have: 2 MiB.
const MERGED: Merged = Merged { buffer: 4096, ring: 512 };
const SERVICES: usize = 3;

/// Where the time goes, and what was tried.
pub(super) const ACCOUNT: &str = "\
A super-frame is copied once more often than it passes services, and beside that the forwarder does next to nothing: `offload-bound` is what so many bare copies \
over as much memory reach on these two cores, and `offload-of-bound` how near the row comes to that. The faster 1500-byte frames get, \
the less is left to gain on them. Copies of 64 KiB run at the rate of the shared cache, and 1500-byte frames, which stay in \
the private ones, do not. Non-temporal stores were tried: faster when the receiver's buffer is cold, slower when it is warm, as it is with a guest that \
reads what it gets. Rings of 32 entries keep an eighth of the memory in use that those of 256 would. `offload-merged` is the same with buffers of 4 KiB, as Linux \
posts them.";

pub(super) fn ours(_: &Row, bench: &Bench) -> anyhow::Result<Side> {
    start(bench, None)
}

pub(super) fn ours_merged(_: &Row, bench: &Bench) -> anyhow::Result<Side> {
    start(bench, Some(MERGED))
}

fn start(bench: &Bench, merged: Option<Merged>) -> anyhow::Result<Side> {
    let plan = Plan { offload: true, ..Plan::chain(SERVICES) };
    let plain = Traffic::plain(SUPER_FRAME, bench.huge_pages);
    let traffic = Traffic { kind: Kind::Tcp, segment: Some(SEGMENT), ring: RING, merged, ..plain };
    livepathd::start(bench, &plan, &traffic)
}

fn gigabytes(window: &Window, frame: usize) -> f64 {
    window.mpps() * frame as f64 / 1e3
}

/// A settled side of ours against one with short frames.
fn against_short(
    row: &Row,
    bench: &Bench,
    effort: Effort,
    ours: &mut Side,
    between: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<(Pairs, Series, String)> {
    let short = Traffic::plain(FRAME, bench.huge_pages);
    let mut theirs = settle(livepathd::start(bench, &Plan::chain(SERVICES), &short))?;
    let pairs = pairs::measure(
        row.name,
        bench,
        (ours, &mut theirs),
        effort,
        |window, line| gigabytes(window, line.frame()),
        between,
    )?;
    let note = pairs.note(ours, &theirs);
    let theirs = Series { who: format!("{NAME}, {FRAME} B"), values: pairs.theirs.values.clone() };
    Ok((pairs, theirs, note))
}

/// One of the figures of a row.
fn figure(bench: &str, pairs: &Pairs, ours: Series, peer: Series, target: Target, note: String) -> Figure {
    Figure {
        bench: bench.to_owned(),
        frame: SUPER_FRAME,
        ring: RING,
        unit: Unit::GigabytesPerSecond,
        ours,
        peer: Some(peer),
        target,
        note,
        round_trips: pairs.trips.clone(),
    }
}

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let mut ours = settle(ours(row, bench))?;
    let mut bound = Bound::new(bench, Load { frame: SUPER_FRAME, copies: SERVICES + 1, ring: RING })?;
    let mut bounds = Vec::new();
    let (pairs, theirs, note) = against_short(row, bench, effort, &mut ours, || {
        bounds.push(gigabytes(&bound.measure(bench.core, effort.window)?, SUPER_FRAME));
        Ok(())
    })?;
    let bound = Series { who: format!("{} copies and a counter", SERVICES + 1), values: bounds };
    let ours = Series { who: ours.name, values: pairs.ours.values.clone() };
    let reach = format!("what {} bare copies reach", SERVICES + 1);
    Ok(vec![
        figure(row.name, &pairs, ours.clone(), theirs.clone(), row.target, note),
        figure("offload-bound", &pairs, bound.clone(), theirs, Target::Reported, reach),
        figure("offload-of-bound", &pairs, ours, bound, Target::Reported, String::new()),
    ])
}

/// Against the short frames, as `offload` is, which a guest has with offloads off; and against the same frames where a buffer holds
/// each, which differ in nothing else.
pub(super) fn measure_merged(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let mut merged = settle(ours_merged(row, bench))?;
    let mut whole = settle(ours(row, bench))?;
    let (mut wholes, mut void) = (Vec::new(), 0);
    let (pairs, theirs, mut note) = against_short(row, bench, effort, &mut merged, || {
        whole.go_on()?;
        let window = until_whole(&mut whole, &mut void, |line| line.window(effort.window))?;
        whole.halt()?;
        wholes.push(gigabytes(&window, SUPER_FRAME));
        Ok(())
    })?;
    let Merged { buffer, ring } = MERGED;
    if !note.is_empty() {
        note += "; ";
    }
    note += &format!(
        "{ring} buffers of {buffer} bytes at service VMs and sink, {} for a frame; service VMs send it on from them, a descriptor \
         for each",
        SUPER_FRAME.div_ceil(buffer as usize)
    );
    let ours = Series { who: format!("{NAME}, merged"), values: pairs.ours.values.clone() };
    let whole = Series { who: format!("{NAME}, a buffer for each"), values: wholes };
    Ok(vec![
        figure(row.name, &pairs, ours.clone(), theirs, row.target, note),
        figure(
            "merged-of-offload",
            &pairs,
            ours,
            whole,
            Target::Reported,
            pairs::again(void).unwrap_or_default(),
        ),
    ])
}
