//! What the generator's thread and one other thread need to bring a frame over when all that is done between is so many copies,
//! and one counter each way; no descriptors. Frames are written and checked in their places, which lie as the buffers of a ring
//! do; the copy is the datapath's own, and what is asked for ahead is what it asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::thread::{CpuSet, sched_setaffinity};
use test_vm::{GuestRam, Places, VNET_HEADER_LEN};
use vhost_backend::ring::{BATCH, copy_bare, expect_bare, expect_bare_to_write};
use vm_memory::{GuestAddress, GuestMemoryBackend, VolatileSlice};

use super::WARM;
use crate::line::{Kind, Line, Template, Window, buffer_len, burst};
use crate::side::Bench;

/// Places that are asked for before they are written.
const AHEAD: usize = 8;
/// Longer frames are not asked for as a whole.
const LONG: usize = 4096;

/// What is brought over, and over how much memory it is spread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Bytes of a frame.
    pub(super) frame: usize,
    /// How often each is copied on its way.
    pub(super) copies: usize,
    /// Places of a frame at every stop, as many as a ring has entries.
    pub(super) ring: u16,
}

/// Frames at fixed places at every stop, and a counter each way.
pub(super) struct Bound {
    load: Load,
    ram: Arc<GuestRam>,
    template: Template,
    /// The source's places first and the sink's last.
    stops: Vec<Places>,
    sent: Alone<AtomicU64>,
    copied: Alone<AtomicU64>,
}

/// A value that shares its cache lines with no other.
#[repr(align(128))]
pub(super) struct Alone<T>(pub(super) T);

impl Bound {
    pub(super) fn new(bench: &Bench, load: Load) -> anyhow::Result<Bound> {
        let Load { frame, copies, ring } = load;
        let (places, buffer) = (usize::from(ring), buffer_len(frame));
        // Some of it is not handed out.
        let len = test_vm::HUGE_PAGE + (copies + 1) * Places::memory(places, buffer);
        let ram = if bench.huge_pages { GuestRam::in_huge_pages(len)? } else { GuestRam::new(len)? };
        let template = Template::new(Kind::Udp, Line::source_mac(0), Line::sink_mac(0), frame, 1);
        let stops = (0..=copies).map(|_| Places::new(&ram, places, buffer, true));
        let mut stops = stops.collect::<Result<Vec<_>, _>>()?;
        for place in 0..places {
            let bytes = stops[0].bytes_mut(place, VNET_HEADER_LEN + frame);
            template.write(&mut bytes[VNET_HEADER_LEN..], 0);
        }
        let counter = || Alone(AtomicU64::new(0));
        Ok(Bound { load, ram, template, stops, sent: counter(), copied: counter() })
    }

    pub(super) fn measure(&mut self, core: usize, window: Duration) -> anyhow::Result<Window> {
        let Bound { load, ram, template, stops, sent, copied } = self;
        let memory = ram.mapping();
        let len = VNET_HEADER_LEN + load.frame;
        let addresses: Vec<Vec<u64>> = stops
            .iter()
            .map(|stop| (0..load.ring.into()).map(|place| stop.address(place)).collect())
            .collect();
        let [source, .., sink] = &mut stops[..] else { unreachable!("a source and a sink") };
        let mut ends = Ends { template, source, sink, sent: &sent.0, copied: &copied.0, ring: load.ring };
        beside(
            core,
            |stop| {
                // Slices belong to the thread that made them.
                let slices = |stop: &Vec<u64>| {
                    let slices = stop.iter().map(|at| memory.get_slice(GuestAddress(*at), len));
                    slices.collect::<Result<Vec<_>, _>>()
                };
                if let Ok(stops) = addresses.iter().map(slices).collect::<Result<Vec<_>, _>>() {
                    copy(&stops, (&sent.0, &copied.0), stop);
                }
            },
            || {
                ends.generate(WARM)?;
                ends.generate(window)
            },
        )
    }
}

/// Source and sink.
struct Ends<'a> {
    template: &'a Template,
    source: &'a mut Places,
    sink: &'a mut Places,
    sent: &'a AtomicU64,
    copied: &'a AtomicU64,
    ring: u16,
}

impl Ends<'_> {
    /// Sends and checks for `time`; as a line does, what is read and written next is asked for first.
    fn generate(&mut self, time: Duration) -> anyhow::Result<Window> {
        let Ends { template, source, sink, sent, copied, ring } = self;
        let (places, burst) = (u64::from(*ring), burst(*ring) as u64);
        let (frame, len) = (template.len(), VNET_HEADER_LEN + template.len());
        let place = |number: u64| (number % places) as usize;
        let (begin, first) = (Instant::now(), copied.load(Ordering::Relaxed));
        let (mut number, mut received) = (first, first);
        loop {
            let elapsed = begin.elapsed();
            let sending = elapsed < time;
            let arrived = copied.load(Ordering::Acquire);
            (received..arrived).for_each(|number| sink.expect(place(number), frame));
            if sending && number - received + 2 * burst <= places {
                (number..number + burst).for_each(|number| source.expect_to_write(place(number)));
                for _ in 0..burst {
                    let bytes = source.bytes_mut(place(number), len);
                    template.renumber(&mut bytes[VNET_HEADER_LEN..], number);
                    number += 1;
                }
                sent.store(number, Ordering::Release);
            }
            while received < arrived {
                let bytes = sink.bytes(place(received), len);
                let is = template.is(&bytes[VNET_HEADER_LEN..], received);
                ensure!(is, "frame {received} did not arrive as it should");
                received += 1;
            }
            if !sending && received == number {
                return Ok(Window { packets: number - first, elapsed, held_back: 0.0 });
            }
        }
    }
}

/// Copies every frame from stop to stop.
fn copy(stops: &[Vec<VolatileSlice<'_>>], (sent, copied): (&AtomicU64, &AtomicU64), stop: &AtomicBool) {
    let mut done = copied.load(Ordering::Relaxed) as usize;
    while !stop.load(Ordering::Relaxed) {
        let count = (sent.load(Ordering::Acquire) as usize - done).min(BATCH);
        if count == 0 {
            continue;
        }
        // A batch at a time from stop to stop, as a forwarder does.
        for way in stops.windows(2) {
            copy_batch(&way[0], &way[1], done, count);
        }
        done += count;
        copied.store(done as u64, Ordering::Release);
    }
}

#[inline(always)]
fn copy_batch(from: &[VolatileSlice<'_>], to: &[VolatileSlice<'_>], first: usize, count: usize) {
    let places = from.len();
    for number in first..first + count {
        expect_bare(&from[number % places]);
    }
    (first..first + AHEAD).for_each(|number| expect_bare_to_write(&to[number % places], false));
    for number in first..first + count {
        expect_bare_to_write(&to[(number + AHEAD) % places], false);
        let next = &to[(number + 1) % places];
        if next.len() <= LONG {
            expect_bare_to_write(next, true);
        }
        copy_bare(&from[number % places], &to[number % places]);
    }
}

/// Runs `work` on a thread on `core` while `window` runs here.
pub(super) fn beside<T>(
    core: usize,
    work: impl FnOnce(&AtomicBool) + Send,
    window: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut own = CpuSet::new();
            own.set(core);
            let _ = sched_setaffinity(None, &own);
            work(&stop);
        });
        let measured = window();
        stop.store(true, Ordering::Relaxed);
        measured
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_brought_over_by_any_number_of_copies() {
        let bench = Bench { core: 0, cores: vec![0], huge_pages: false, livepathd: "none".into() };
        for (frame, copies, ring) in [(64, 1, 256), (1500, 1, 256), (65_214, 4, 32)] {
            let mut bound = Bound::new(&bench, Load { frame, copies, ring }).unwrap();
            assert!(bound.measure(0, Duration::from_millis(5)).unwrap().packets > 0);
        }
    }
}
