//! The ring fast path alone, between the generator and one other thread of this process, against the least the same two
//! threads can do to bring a frame over: one copy, and one counter each way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vhost_backend::ring::{BATCH, Layout, Ready, RegionMap, Split, VNET_LEN};

use super::bound::{Bound, Load, beside};
use super::pairs::alternate;
use super::round_trip::round_trip;
use super::{Effort, Row, WARM};
use crate::figure::{Figure, Series, Unit};
use crate::line::{Line, Traffic, Window};
use crate::progress::Progress;
use crate::side::Bench;

/// Entries of the rings, and places of the bound.
const RING: u16 = 256;

/// A virtio-net header that asks for nothing; the frame lies in one buffer.
const HEADER: [u8; VNET_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// Where the time goes, and what was tried.
pub(super) const ACCOUNT: &str = "\
The bound does a frame's copy and its check and nothing else. A ring has besides, on both sides, a descriptor and an available entry to read and a used element \
to write, and the generator has to write and read them too, in the same thread. They share lines with \
those of neighbours, so a burst takes some ten of them from core to core; they are asked for a batch ahead. Where the cores are near each other the bound is \
a few instructions, and nearly all of the difference is the instructions of driver and device; where they are far, it is those lines.";

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let frame = row.frame();
    let mut rings = Rings::new(&Traffic::plain(frame, bench.huge_pages))?;
    let mut bound = Bound::new(bench, Load { frame, copies: 1, ring: RING })?;
    let mut progress = Progress::new(row.name, effort.pairs);
    let (mut ours, mut theirs, mut round_trips) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..effort.pairs {
        round_trips.push(round_trip(bench.core)?);
        let (ring, copy) = alternate(
            pair,
            || rings.measure(bench.core, effort.window),
            || bound.measure(bench.core, effort.window),
        )?;
        ours.push(ring.nanos());
        theirs.push(copy.nanos());
        progress.show(pair + 1, &format!("{:.3}", ours[pair] / theirs[pair]));
    }
    Ok(vec![Figure {
        bench: row.name.to_owned(),
        frame,
        ring: RING,
        unit: Unit::NanosPerPacket,
        ours: Series { who: "ring forward".to_owned(), values: ours },
        peer: Some(Series { who: "copy and counter".to_owned(), values: theirs }),
        target: row.target,
        note: String::new(),
        round_trips,
    }])
}

/// The rate, in millions of frames a second, at which the generator is fed by the ring fast path in this process, with nothing
/// between: what it can do at least.
///
/// # Errors
/// There is not enough memory.
pub fn generator(core: usize, traffic: &Traffic, window: Duration) -> anyhow::Result<f64> {
    let mut rings = Rings::new(traffic)?;
    Ok(rings.measure(core, window)?.mpps())
}

/// A source's transmitq and a sink's receiveq, as the datapath has them.
pub(super) struct Rings {
    line: Line,
    from: Split,
    to: Split,
}

impl Rings {
    pub(super) fn new(traffic: &Traffic) -> anyhow::Result<Rings> {
        let mut line = Line::detached(traffic)?;
        let [from, to] = line.ends().map(|(memory, layout)| {
            let test_vm::Layout { size, desc, avail, used } = layout;
            Split::new(RegionMap::new(memory), Layout { size, desc, avail, used }, 0, 0, true)
        });
        Ok(Rings { line, from: from?, to: to? })
    }

    pub(super) fn measure(&mut self, core: usize, window: Duration) -> anyhow::Result<Window> {
        let Rings { line, from, to } = self;
        beside(
            core,
            |stop| forward(from, to, stop),
            || {
                line.window(WARM)?;
                Ok(line.window(window)?)
            },
        )
    }
}

fn forward(from: &mut Split, to: &mut Split, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(count @ 1..) = from.read_batch(BATCH) else { continue };
        to.prepare();
        // A frame that does not go is missed by the window.
        let frames = from.chains().iter().take(count);
        to.write_ready(frames.map(|chain| Ready { front: &HEADER, tail: Some((chain, 0)) }));
        to.publish();
        from.complete_batch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rings_bring_every_frame_over() {
        for frame in [64, 1500] {
            let mut rings = Rings::new(&Traffic::plain(frame, false)).unwrap();
            assert!(rings.measure(0, Duration::from_millis(5)).unwrap().packets > 0);
        }
    }
}
