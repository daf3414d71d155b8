//! A service VM: rings, a driver, a kernel with a socket, a process. Only a model: real rings are memory.
//!
//! ```text
//! proxy ─► ring ─ driver takes ─► process ─ in order, one after the other ─► sent ─► proxy
//!                     └─ while it hangs ─► socket ─ as it goes on ─┘
//! ```

use std::collections::VecDeque;

use vhost_backend::chain::PortId;
use vhost_backend::liveness::DriverSample;

use crate::wire::Wire;

/// A frame that a service VM has been handed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handed {
    pub(crate) wire: Wire,
    /// The queue pair by which it came.
    pub(crate) pair: usize,
    /// Its packet was steered anew from the ring: what becomes of this frame is nobody's fate any more.
    pub(crate) salvaged: bool,
}

/// A service VM.
#[derive(Debug)]
pub(crate) struct ServiceVm {
    pub(crate) port: PortId,
    /// Of each pair, with what changes when the driver touches it.
    rings: Vec<(VecDeque<Handed>, u32)>,
    size: usize,
    socket: VecDeque<Handed>,
    kept: usize,
    /// What it put into its transmit ring and no worker has read.
    pub(crate) sent: VecDeque<Handed>,
    /// When its process is done with all it has.
    pub(crate) busy_until: u64,
    /// Counts up whenever its rings begin anew: what it had then is gone.
    pub(crate) life: u32,
    /// How many faults freeze it, hang its service, keep it from its socket.
    pub(crate) frozen: u32,
    pub(crate) hung: u32,
    pub(crate) unlinked: u32,
    /// A look at the ring is under way.
    pub(crate) woken: bool,
}

impl ServiceVm {
    /// One with so many queue pairs, rings of this size, and a socket that keeps so many frames.
    pub(crate) fn new(port: PortId, pairs: usize, size: usize, kept: usize) -> Self {
        Self {
            port,
            rings: vec![(VecDeque::new(), 0); pairs],
            size,
            socket: VecDeque::new(),
            kept,
            sent: VecDeque::new(),
            busy_until: 0,
            life: 0,
            frozen: 0,
            hung: 0,
            unlinked: 0,
            woken: false,
        }
    }

    /// Frames the ring of a pair has room for.
    pub(crate) fn room(&self, pair: usize) -> usize {
        self.size - self.rings[pair].0.len()
    }

    /// The proxy puts a frame into the ring of a pair, which has room.
    pub(crate) fn put(&mut self, pair: usize, wire: Wire) {
        self.rings[pair].0.push_back(Handed { wire, pair, salvaged: false });
    }

    /// What the proxy sees of the driver; `holding`: frames wait for room in the ring of this pair.
    pub(crate) fn look(&self, holding: impl Fn(usize) -> bool) -> DriverSample {
        let looks = self.rings.iter().enumerate().map(|(pair, (ring, mark))| DriverSample {
            mark: *mark,
            full: ring.len() == self.size || holding(pair),
            pending: !ring.is_empty(),
        });
        looks.reduce(DriverSample::and).expect("a pair")
    }

    /// Gives the frames that the driver has not taken, pair by pair; they stay where they are.
    pub(crate) fn untaken(&mut self) -> Vec<Vec<Wire>> {
        let of_ring = |(ring, _): &mut (VecDeque<Handed>, u32)| {
            let left = ring.iter_mut().filter(|frame| !frame.salvaged);
            left.map(|frame| {
                frame.salvaged = true;
                frame.wire
            })
            .collect()
        };
        self.rings.iter_mut().map(of_ring).collect()
    }

    /// The driver takes what is in the rings, this pair's first: what the service works on, and what is lost between them.
    pub(crate) fn take(&mut self, first: usize) -> (Vec<Handed>, Vec<Handed>) {
        self.woken = false;
        if self.frozen > 0 {
            return (Vec::new(), Vec::new());
        }
        let mut taken = Vec::new();
        let (before, from) = self.rings.split_at_mut(first);
        for (ring, mark) in from.iter_mut().chain(before).filter(|(ring, _)| !ring.is_empty()) {
            *mark = mark.wrapping_add(1);
            taken.extend(ring.drain(..));
        }
        if self.hung == 0 {
            return (taken, Vec::new());
        }
        let room = self.kept.saturating_sub(self.socket.len()).min(taken.len());
        let lost = taken.split_off(room);
        self.socket.extend(taken);
        (Vec::new(), lost)
    }

    /// The process goes on with what waited in its socket.
    pub(crate) fn resume(&mut self) -> Vec<Handed> {
        self.socket.drain(..).collect()
    }

    /// The guest, or its rings, begin anew: what it had.
    pub(crate) fn reset(&mut self) -> Vec<Handed> {
        self.life += 1;
        let rings = self.rings.iter_mut().flat_map(|(ring, mark)| {
            *mark = 0;
            ring.drain(..)
        });
        rings.chain(self.socket.drain(..)).chain(self.sent.drain(..)).collect()
    }

    /// What it has and does not let go of.
    pub(crate) fn contents(&self) -> impl Iterator<Item = &Handed> {
        self.rings.iter().flat_map(|(ring, _)| ring).chain(&self.socket).chain(&self.sent)
    }
}
