//! A service VM: a receive ring, a driver, a kernel with a socket, a process.

use super::prng::SplitMix64;
use super::scenario::{Conditions, Service};
use crate::liveness::{DriverSample, Query};
use nsh::Seq;
use std::collections::VecDeque;

/// A frame between proxy and service VM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// With its place in the log of the hop's queries; a forged one has none.
    pub(super) query: Option<(Query, Option<usize>)>,
    /// A tenant's packet; else a probe, or a bare response.
    pub(super) data: bool,
    pub(super) dropped: bool,
}

pub(super) struct ServiceVm {
    service: Service,
    ring: VecDeque<Frame>,
    size: usize,
    socket: VecDeque<Frame>,
    kept: usize,
    mark: u32,
    pub(super) attached: bool,
    pub(super) frozen: bool,
    pub(super) hung: bool,
    /// A look at the ring is under way.
    pub(super) woken: bool,
}

impl ServiceVm {
    pub(super) fn new(service: Service, size: usize, kept: usize) -> Self {
        Self {
            service,
            ring: VecDeque::with_capacity(size),
            size,
            socket: VecDeque::new(),
            kept,
            mark: 0,
            attached: true,
            frozen: false,
            hung: false,
            woken: false,
        }
    }

    /// The proxy puts a frame into the ring: whether it fits.
    pub(super) fn offer(&mut self, frame: Frame) -> bool {
        let fits = self.attached && self.ring.len() < self.size;
        if fits {
            self.ring.push_back(frame);
        }
        fits
    }

    /// What the proxy sees of the driver.
    pub(super) fn look(&self) -> DriverSample {
        DriverSample { mark: self.mark, full: self.ring.len() == self.size, pending: !self.ring.is_empty() }
    }

    /// The driver takes what is in the ring and the service works on it: the answers, with the time each takes.
    pub(super) fn take(
        &mut self,
        rng: &mut SplitMix64,
        conditions: &Conditions,
        out: &mut Vec<(u64, Frame)>,
    ) {
        self.woken = false;
        if self.frozen || self.ring.is_empty() {
            return;
        }
        self.mark = self.mark.wrapping_add(1);
        while let Some(frame) = self.ring.pop_front() {
            if self.hung {
                if self.socket.len() < self.kept {
                    self.socket.push_back(frame);
                }
            } else {
                self.answer(rng, conditions, frame, out);
            }
        }
    }

    /// The process goes on: what waited in its socket is answered now.
    pub(super) fn resume(
        &mut self,
        rng: &mut SplitMix64,
        conditions: &Conditions,
        out: &mut Vec<(u64, Frame)>,
    ) {
        while let Some(frame) = self.socket.pop_front() {
            self.answer(rng, conditions, frame, out);
        }
    }

    /// The guest starts afresh.
    pub(super) fn reset(&mut self) {
        self.ring.clear();
        self.socket.clear();
        self.mark = 0;
    }

    fn answer(
        &self,
        rng: &mut SplitMix64,
        conditions: &Conditions,
        frame: Frame,
        out: &mut Vec<(u64, Frame)>,
    ) {
        let answer = match self.service {
            _ if !frame.data => frame,
            Service::Forward => frame,
            Service::Drop => Frame { data: false, dropped: true, ..frame },
            Service::Copy => Frame { data: false, ..frame },
        };
        if (!answer.data && answer.query.is_none()) || rng.chance(conditions.lost) {
            return;
        }
        out.push((rng.within(conditions.latency.clone()), answer));
        // A frame that travels twice is a fault of the way, not of the tenant: only its answer is doubled.
        if answer.query.is_some() && rng.chance(conditions.doubled) {
            out.push((rng.within(conditions.latency.clone()), Frame { data: false, ..answer }));
        }
        if let Some((query, _)) = answer.query.filter(|_| rng.chance(conditions.forged)) {
            let seq = Seq::new(rng.within(0..64) as u8).unwrap_or_default();
            let forged = Frame { query: Some((Query { seq, ..query }, None)), data: false, dropped: false };
            out.push((rng.within(conditions.latency.clone()), forged));
        }
    }
}
