//! What becomes of the frames of a service VM that is down: nothing is lost that it never took.
//!
//! ```text
//! link lost ─► hear out: what it sent before is decided as ever
//! down ─► all workers stand still ─► tables swapped ─► what it left, oldest first: given back to the classifier, steered,
//!                                                      delivered; once the first frames are on their way: the news
//! ```
//!
//! All in one go, so that no later frame of a flow passes an earlier one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::decide::Batch;
use super::{Common, Worker, monotonic_now};
use crate::chain::{Counts, PortId, Snapshot};
use crate::liveness::{State, Timestamp};
use crate::port::{Basis, Estate, FrameQueue, Outgoing, Port, RingSlot, To};
use crate::ring::{BATCH, Frames, MAX_SIZE, VNET_LEN};
use crate::telemetry::{EventKind, Salvage};

/// Batches after which a salvage looks at what became of those before, once the first frame is there or has had its time.
const SLICE: u32 = 4;
/// Most service VMs that are looked at.
const REACHED: usize = 8;

/// Whoever hears the news may want the worker's core for a while, where there are few: this long the first frames go before it,
/// unless one is there sooner.
const AHEAD: Duration = Duration::from_millis(1);

/// The service VMs that what is salvaged has reached. What they send may be passed on meanwhile: nothing in it is of a flow
/// that has older frames to be salvaged. That is not so of those which a path passes before the dead one.
struct Beyond {
    reached: Vec<PortId>,
    /// Not to be looked at.
    before: Vec<PortId>,
}

impl Beyond {
    fn new(snapshot: &Snapshot, dead: PortId, estate: &Estate) -> Beyond {
        let mut before = vec![dead];
        let paths = estate.paths();
        let mut known = paths.is_some();
        for spi in paths.into_iter().flatten() {
            let path = snapshot.paths().find(|path| path.spi == spi);
            // Of a path that has left the tables it is not known what it passed.
            known &= path.is_some();
            before.extend(path.into_iter().flat_map(|path| path.hops).take_while(|hop| **hop != dead));
        }
        let room = if known { REACHED } else { 0 };
        Beyond { reached: Vec::with_capacity(room), before }
    }

    fn note<'a>(&mut self, frames: impl Iterator<Item = &'a Outgoing>) {
        for frame in frames {
            let To::Service(port) = frame.to else { continue };
            if self.reached.len() < self.reached.capacity()
                && !self.reached.contains(&port)
                && !self.before.contains(&port)
            {
                self.reached.push(port);
            }
        }
    }
}

impl Worker {
    /// Carries out what a session decided: first the tables of this host, so that no further frame goes to a
    /// dead service VM, then what the dead one left, and beside it the word to the control loop.
    pub(super) fn announce(&mut self, common: &Common, port: &Port, now: Timestamp) {
        while let Some(transition) = port.proxy().and_then(|mut proxy| proxy.session.transition()) {
            let (from, to) = (transition.from, transition.to);
            let still = (from.keeps() && !to.keeps()).then(|| common.standstill.begin());
            let changed = match (from, to) {
                _ if from.usable() == to.usable() => Vec::new(),
                (State::Recovering, _) if to.usable() => common.tables.set_recovered(port.id, now),
                _ => common.tables.set_usable(port.id, to.usable()),
            };
            let swapped = monotonic_now();
            if let Some(mut proxy) = port.proxy() {
                proxy.publish(now);
            }
            common.events.queue(now, EventKind::Service(port.id, transition));
            for (chain, mode) in changed {
                common.events.queue(now, EventKind::Chain(chain, mode));
            }
            if still.is_some() {
                self.news_at = self.news_at.min(swapped + AHEAD);
                let left = self.salvage(common, port, swapped, now);
                common.events.queue(now, EventKind::Salvaged(port.id, left));
                self.news_at = self.news_at.min(swapped + AHEAD);
                self.tell_due_news(common, left.done);
            } else {
                common.events.wake();
            }
        }
        if let Some(mut proxy) = port.proxy() {
            if let Some(degraded) = proxy.session.degradation() {
                proxy.publish(now);
                common.events.send(now, EventKind::Degraded(port.id, degraded));
            }
            proxy.publish_if_old(now);
        }
    }

    /// Wakes the control loop for the word that a service VM is down, or for what became of its frames, once the first of them have
    /// had their time.
    pub(super) fn tell_due_news(&mut self, common: &Common, now: Timestamp) {
        if now >= self.news_at {
            self.tell_news(common, now);
        }
    }

    /// The same at once, if there is news.
    pub(super) fn tell_news(&mut self, common: &Common, now: Timestamp) {
        if self.news_at != Timestamp::NEVER {
            self.news_at = Timestamp::NEVER;
            common.events.wake();
            self.courtesy.news_told(now);
        }
    }

    /// Steers frames again that came for a service VM when it was down already, decided by tables of before.
    pub(super) fn salvage_late(&mut self, common: &Common, port: &Port, now: Timestamp) {
        if port.proxy().is_some_and(|proxy| proxy.is_holding() && !proxy.session.state().keeps()) {
            self.salvage_more(common, port, now);
        }
    }

    /// The same, in a round, for frames of the batch just delivered: the service VM died after they had been decided, and this
    /// worker was kept from delivering them in time. Nothing later is read before.
    pub(super) fn steer_late(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.batch.late) {
            let common = Arc::clone(&self.common);
            common.standstill.end_round(self.number);
            for port in common.ports.iter().filter(|port| port.is_service()) {
                self.salvage_late(&common, port, now);
            }
            common.standstill.begin_round(self.number);
        }
    }

    /// The same for what a service VM in maintenance was still to process, and will not now that its link is lost.
    pub(super) fn salvage_maintained(&mut self, common: &Common, port: &Port, now: Timestamp) {
        if port.proxy().is_some_and(|proxy| proxy.session.state() == State::Maintained) {
            self.salvage_more(common, port, now);
        }
    }

    fn salvage_more(&mut self, common: &Common, port: &Port, now: Timestamp) {
        let _still = common.standstill.begin();
        let left = self.salvage(common, port, now, now);
        if left.first.is_some() {
            common.events.send(now, EventKind::Salvaged(port.id, left));
        }
    }

    /// Steers everything again that a service VM was to get and never took, and what was retained for it.
    fn salvage(&mut self, common: &Common, port: &Port, swapped: Timestamp, now: Timestamp) -> Salvage {
        let mut left = Salvage { salvaged: 0, replayed: 0, swapped, first: None, done: swapped };
        let mut estate = port.estate();
        let mut beyond = Beyond::new(&common.tables.load(), port.id, &estate);
        for batches in 1_u32.. {
            let Self { number, batch, counts, frames, .. } = self;
            // Which of them are copies, a bit each.
            let (mut copies, mut bit): (u32, u32) = (0, 1);
            let count = frames.fill(BATCH, |place| {
                let (vnet, room) = place.split_first_chunk_mut::<VNET_LEN>()?;
                *vnet = [0; VNET_LEN];
                let bequest = estate.next(room)?;
                copies |= if bequest.copy { bit } else { 0 };
                bit <<= 1;
                Some(VNET_LEN + bequest.len)
            });
            if count == 0 {
                break;
            }
            let (salvaged, replayed) = batch.give_back(common, port, frames, copies, counts, now);
            left.salvaged += salvaged;
            left.replayed += replayed;
            beyond.note(batch.frames.iter().take(count));
            batch.deliver(common, *number, frames.chains(), count, now);
            if left.first.is_none() && salvaged + replayed > 0 {
                left.first = Some(monotonic_now());
            }
            let first_awaited = self.news_at != Timestamp::NEVER;
            if first_awaited || batches.is_multiple_of(SLICE) {
                let there = self.hear_beyond(common, &mut beyond, now);
                let now = monotonic_now();
                if there {
                    self.tell_news(common, now);
                }
                self.tell_due_news(common, now);
                self.offer_core_for_news(now);
            }
        }
        port.settle(estate);
        left.done = monotonic_now();
        left
    }

    /// Passes on what the service VMs of the new path have done with the first frames, so that they need not wait until the
    /// last one has been steered. True if one is there.
    fn hear_beyond(&mut self, common: &Common, beyond: &mut Beyond, now: Timestamp) -> bool {
        let (mut next, mut there) = (0, false);
        while let Some(port) = beyond.reached.get(next).and_then(|port| common.ports.get(port.index())) {
            next += 1;
            for pair in 0..port.attachment.queue_pairs() {
                let Some(mut slot) = port.attachment.transmit_in_turn(pair) else { continue };
                let Some(ring) = slot.split() else { continue };
                let Ok(count @ 1..) = ring.read_batch(BATCH) else { continue };
                let Self { number, batch, counts, .. } = self;
                batch.decide(common, port, ring.chains(), count, counts, now);
                beyond.note(batch.frames.iter().take(count));
                there |= batch
                    .frames
                    .iter()
                    .take(count)
                    .any(|out| matches!(out.to, To::Port(_) | To::Flood { .. }));
                batch.deliver(common, *number, ring.chains(), count, now);
                if ring.complete_batch() {
                    slot.call();
                }
            }
        }
        there
    }

    /// Decides what a service VM sent before its link was lost, as long as its session is of that life.
    pub(super) fn hear_out(&mut self, common: &Common, port: &Port, now: Timestamp) {
        if !port.is_service() {
            return;
        }
        let _still = common.standstill.begin();
        for pair in 0..port.attachment.queue_pairs() {
            if let Some(slot) = port.attachment.transmit_in_turn(pair) {
                self.hear_ring(common, port, slot, now);
            }
            let Some(mut unheard) = port.attachment.unheard(pair) else { continue };
            let Self { number, batch, counts, frames, .. } = self;
            loop {
                let count = frames.fill(BATCH, |place| next_of(&mut unheard.frames, place));
                if count == 0 {
                    break;
                }
                batch.decide(common, port, frames.chains(), count, counts, now);
                batch.deliver(common, *number, frames.chains(), count, now);
            }
        }
    }

    /// What its answers come by is served by other workers too, and they may be kept from their cores. Hears what waits there, if
    /// the service VM is about to be judged; false if one of these queues cannot be looked at now and the verdict is due.
    pub(super) fn hear_others(&mut self, index: usize, common: &Common, port: &Port, now: Timestamp) -> bool {
        let pairs = port.attachment.queue_pairs();
        if self.duties.get(index).is_none_or(|duty| duty.share.pairs.len() >= pairs) {
            return true;
        }
        let Some((verdict, ahead)) = port.proxy().map(|proxy| {
            let session = &proxy.session;
            // Early enough that an answer which was in time is not taken for a late one.
            (session.verdict_at(), session.profile().timeout / 2)
        }) else {
            return true;
        };
        if verdict > now + ahead {
            return true;
        }
        let mut heard = true;
        common.standstill.begin_round(self.number);
        for pair in 0..pairs {
            if self.duties.get(index).is_some_and(|duty| duty.share.pairs.contains(&pair)) {
                continue;
            }
            match port.attachment.transmit(pair) {
                Some(slot) => self.hear_ring(common, port, slot, now),
                None => heard = false,
            }
            self.steer_late(now);
        }
        common.standstill.end_round(self.number);
        heard || verdict > now
    }

    /// Decides what waits in a transmit ring.
    fn hear_ring(
        &mut self,
        common: &Common,
        port: &Port,
        mut slot: MutexGuard<'_, RingSlot>,
        now: Timestamp,
    ) {
        let Self { number, batch, counts, .. } = self;
        let mut notify = false;
        // A ring of frames, however fast it adds more.
        for _ in 0..usize::from(MAX_SIZE).div_ceil(BATCH) {
            let Some(ring) = slot.split() else { return };
            match ring.read_batch(BATCH) {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let chains = ring.chains();
                    batch.decide(common, port, chains, count, counts, now);
                    batch.deliver(common, *number, chains, count, now);
                    notify |= ring.complete_batch();
                }
            }
            if batch.late {
                break;
            }
        }
        if notify {
            slot.call();
        }
    }
}

/// Moves the oldest frame of a queue to `place`, behind an empty virtio-net header; gives the bytes of both.
fn next_of(queue: &mut FrameQueue, place: &mut [u8]) -> Option<usize> {
    let frame = queue.front()?;
    let (vnet, room) = place.split_first_chunk_mut::<VNET_LEN>()?;
    *vnet = [0; VNET_LEN];
    // No ring takes a longer frame than a place holds.
    let len = frame.len().min(room.len());
    room.get_mut(..len)?.copy_from_slice(frame.get(..len)?);
    queue.pop();
    Some(VNET_LEN + len)
}

impl Batch {
    /// Decides about frames that the service VM at `port` never took; gives how many of them go on, and of how many copies.
    fn give_back(
        &mut self,
        common: &Common,
        port: &Port,
        given: &Frames,
        copies: u32,
        counts: &mut Counts,
        now: Timestamp,
    ) -> (u64, u64) {
        let snapshot = common.tables.load();
        let mut steering = common.learned.steering(counts);
        let mut basis = Basis { host: common.host, snapshot: &snapshot, steering: &mut steering, now };
        let Some(proxy) = port.proxy() else { return (0, 0) };
        let (mut salvaged, mut replayed) = (0, 0);
        for (i, (out, chain)) in self.frames.iter_mut().zip(given.chains().iter()).enumerate() {
            out.load(&chain, 0);
            out.to = proxy.give_back(&mut basis, port.id, &chain, out).unwrap_or_else(To::Discard);
            match out.to {
                To::Discard(reason) => port.counters.count_drop(reason),
                To::Consumed => {}
                To::Port(_) | To::Service(_) | To::Flood { .. } if copies >> i & 1 != 0 => replayed += 1,
                To::Port(_) | To::Service(_) | To::Flood { .. } => salvaged += 1,
            }
        }
        port.counters.salvaged.fetch_add(salvaged, Ordering::Relaxed);
        port.counters.replayed.fetch_add(replayed, Ordering::Relaxed);
        (salvaged, replayed)
    }
}
