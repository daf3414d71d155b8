//! The ring fast path alone, between the generator and one other thread of this process, against the least the same two
//! threads can do to bring a frame over: one copy for each way, and one counter each way.
//!
//! On a chain, the frame goes to a service VM behind headers that are always the same and comes back to have them taken off, with
//! nothing looked at: what no forwarder goes beyond with this generator.

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
/// What a frame has pushed before it on its way to a service VM, behind the former.
const PUSHED: usize = VNET_LEN + nsh::ENCAP_LEN;

/// Where the time goes, and what was tried.
pub(super) const ACCOUNT: &str = "\
The bound does a frame's copy and its check and nothing else. A ring has besides, on both sides, a descriptor and an available entry to read and a used element \
to write, and the generator has to write and read them too, in the same thread. They share lines with \
those of neighbours, so a burst takes some ten of them from core to core; they are asked for a batch ahead. Where the cores are near each other the bound is \
a few instructions, and nearly all of the difference is the instructions of driver and device; where they are far, it is those lines.";

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    against_bound(row, bench, effort, 0)
}

/// Through one service VM, as `chain-64` goes.
pub(super) fn chain(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    against_bound(row, bench, effort, 1)
}

fn against_bound(row: &Row, bench: &Bench, effort: Effort, services: usize) -> anyhow::Result<Vec<Figure>> {
    let (frame, copies) = (row.frame(), services + 1);
    let mut rings = Rings::new(&Traffic::plain(frame, bench.huge_pages), services)?;
    let mut bound = Bound::new(bench, Load { frame, copies, ring: RING })?;
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
    let peer =
        if copies == 1 { "copy and counter".to_owned() } else { format!("{copies} copies and a counter") };
    Ok(vec![Figure {
        bench: row.name.to_owned(),
        frame,
        ring: RING,
        unit: Unit::NanosPerPacket,
        ours: Series { who: "ring forward".to_owned(), values: ours },
        peer: Some(Series { who: peer, values: theirs }),
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
    let mut rings = Rings::new(traffic, 0)?;
    Ok(rings.measure(core, window)?.mpps())
}

/// A line whose forwarder is the ring fast path with nothing to decide.
pub(super) struct Rings {
    line: Line,
    ways: Vec<Way>,
}

/// One ring's frames into another one.
struct Way {
    from: Split,
    to: Split,
    /// It goes to a service VM, behind this.
    pushed: Option<[u8; PUSHED]>,
    /// It comes from one, with headers that are taken off.
    returned: bool,
}

impl Rings {
    /// With so many service VMs on the way, each of which gets frames with headers pushed.
    pub(super) fn new(traffic: &Traffic, services: usize) -> anyhow::Result<Rings> {
        let mut line = Line::detached(traffic, services)?;
        let mut ways = Vec::new();
        for (way, ends) in line.ways().into_iter().enumerate() {
            let [from, to] = ends.map(|(memory, layout)| {
                let test_vm::Layout { size, desc, avail, used } = layout;
                Split::new(RegionMap::new(memory), Layout { size, desc, avail, used }, 0, 0, true)
            });
            let pushed = (way < services).then(|| pushed(way));
            ways.push(Way { from: from?, to: to?, pushed, returned: way > 0 });
        }
        Ok(Rings { line, ways })
    }

    pub(super) fn measure(&mut self, core: usize, window: Duration) -> anyhow::Result<Window> {
        let Rings { line, ways } = self;
        beside(
            core,
            |stop| forward(ways, stop),
            || {
                line.window(WARM)?;
                Ok(line.window(window)?)
            },
        )
    }
}

/// The virtio-net header, and the headers of a frame that goes to a service VM.
fn pushed(service: usize) -> [u8; PUSHED] {
    let spi = nsh::Spi::new(1).unwrap_or_else(|| unreachable!("24 bit"));
    let header = nsh::Header {
        oam: false,
        ttl: nsh::Ttl::ORIGIN,
        next_protocol: nsh::NextProtocol::ETHERNET,
        spi,
        si: nsh::Si::new(u8::MAX),
        context: nsh::Context::default().to_bytes(),
    };
    let mut front = [0; PUSHED];
    front[..VNET_LEN].copy_from_slice(&HEADER);
    front[VNET_LEN..].copy_from_slice(&nsh::encap(
        Line::service_mac(0, service),
        Line::source_mac(0),
        &header,
    ));
    front
}

fn forward(ways: &mut [Way], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for Way { from, to, pushed, returned } in &mut *ways {
            match (pushed, *returned) {
                (None, false) => bring::<_, 0>(from, to, &HEADER),
                (None, true) => bring::<_, { nsh::ENCAP_LEN }>(from, to, &HEADER),
                (Some(front), false) => bring::<_, 0>(from, to, front),
                (Some(front), true) => bring::<_, { nsh::ENCAP_LEN }>(from, to, front),
            }
        }
    }
}

/// Brings a batch over, each frame behind `front` and without its first `OFF` bytes.
#[inline(always)]
fn bring<const FRONT: usize, const OFF: usize>(from: &mut Split, to: &mut Split, front: &[u8; FRONT]) {
    let Ok(count @ 1..) = from.read_batch(BATCH) else { return };
    to.prepare();
    // A frame that does not go is missed by the window.
    let frames = from.chains().iter().take(count);
    to.write_ready(frames.map(|chain| Ready { front, tail: Some((chain, OFF)) }));
    to.publish();
    from.complete_batch();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rings_bring_every_frame_over() {
        for (frame, services) in [(64, 0), (1500, 0), (64, 1), (1500, 2)] {
            let mut rings = Rings::new(&Traffic::plain(frame, false), services).unwrap();
            assert!(rings.measure(0, Duration::from_millis(5)).unwrap().packets > 0);
        }
    }
}
