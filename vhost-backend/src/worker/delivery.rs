//! From one transmit ring to the receive rings: a batch is read, every frame decided, then delivered destination
//! by destination, so that each receive ring is locked, published and notified once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Worker;
use crate::chain::PortId;
use crate::liveness::Query;
use crate::liveness::Timestamp;
use crate::port::{Basis, Outgoing, Port, To, classify};
use crate::ring::{BATCH, Broken, Chain, Gather, Split, VNET_LEN, WriteError};
use crate::telemetry::{Direction, Discard, EventKind};

/// The frames of one batch between decision and delivery.
pub(super) struct Batch {
    frames: [Outgoing; BATCH],
}

impl Batch {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self { frames: [const { Outgoing::new() }; BATCH] })
    }
}

impl Worker {
    /// Serves one batch of the port at `index`; gives the number of frames.
    pub(super) fn serve(&mut self, index: usize, now: Timestamp) -> usize {
        let Some(attachment) = self.ports.get(index).map(|port| Arc::clone(&port.attachment)) else {
            return 0;
        };
        let mut served = 0;
        for pair in 0..attachment.queue_pairs() {
            let Some(mut slot) = attachment.transmit(pair) else { continue };
            let Some(ring) = slot.split() else { continue };
            let notify = match ring.read_batch(BATCH) {
                Ok(0) => continue,
                Ok(count) => {
                    served += count;
                    self.decide(index, ring, count, now);
                    self.deliver(ring, count, now);
                    ring.complete_batch()
                }
                Err(why) => {
                    attachment.mark_broken(pair * 2 + 1, &mut slot, why);
                    drop(slot);
                    self.ring_broken(index, why, now);
                    continue;
                }
            };
            if notify {
                slot.call();
            }
        }
        served
    }

    /// Decides every frame of the batch on one snapshot.
    fn decide(&mut self, index: usize, ring: &Split, count: usize, now: Timestamp) {
        let Self { ports, batch, tables, steering, host, .. } = self;
        let snapshot = tables.load();
        let Some(port) = ports.get_mut(index) else { return };
        let mut basis = Basis { host: *host, snapshot: &snapshot, steering, now };
        let (mut packets, mut bytes) = (0, 0);
        for (i, out) in batch.frames.iter_mut().enumerate().take(count) {
            let Some(chain) = ring.chain(i) else { continue };
            if chain.malformed().is_some() {
                out.to = To::Discard(Discard::MalformedChain);
            } else {
                packets += 1;
                bytes += chain.len() as u64;
                port.keep(now, Direction::Tx, &[], Some((chain, 0)));
                // No offload is negotiated, so nobody may ask for one (virtio 1.2 section 5.1.6.2).
                let [flags, gso_type, ..] = chain.vnet_header();
                let decided = match port.proxy.as_mut() {
                    _ if flags != 0 || gso_type != 0 => Err(Discard::VnetHeader),
                    Some(proxy) => proxy.take(&mut basis, port.id, &chain, out),
                    None => classify(&mut basis, port.id, &chain, out),
                };
                out.to = decided.unwrap_or_else(To::Discard);
            }
            if let To::Discard(reason) = out.to {
                port.counters.count_drop(reason);
            } else if out.reflected {
                port.counters.reflected.fetch_add(1, Ordering::Relaxed);
            }
        }
        port.counters.count_tx(packets, bytes);
    }

    fn deliver(&mut self, ring: &Split, count: usize, now: Timestamp) {
        let mut done = [false; BATCH];
        for first in 0..count {
            let Some(to) = self.batch.frames.get(first).map(|out| out.to) else { break };
            if done.get(first).copied().unwrap_or(true) {
                continue;
            }
            match to {
                To::Consumed | To::Discard(_) => {}
                To::Port(port) | To::Service(port) => {
                    self.deliver_to(port, ring, now, |i, out| {
                        let same = i >= first && i < count && out.to == to;
                        if let (true, Some(done)) = (same, done.get_mut(i)) {
                            *done = true;
                        }
                        same
                    });
                }
                To::Flood { except } => self.flood(except, first, ring, now),
            }
        }
    }
}

impl Worker {
    /// Delivers the frames of the batch that `wanted` picks to the port `to`, in their order.
    fn deliver_to(
        &mut self,
        to: PortId,
        ring: &Split,
        now: Timestamp,
        mut wanted: impl FnMut(usize, &Outgoing) -> bool,
    ) {
        let Self { ports, batch, .. } = self;
        let Some(port) = ports.get_mut(to.index()) else { return };
        let mut delivery = Delivery::begin(port, now);
        let attachment = Arc::clone(&delivery.port.attachment);
        let mergeable = attachment.is_mergeable();
        let Some(mut slot) = attachment.receive(0) else { return };
        for (i, out) in batch.frames.iter_mut().enumerate() {
            if !wanted(i, out) {
                continue;
            }
            match (slot.split(), ring.chain(i)) {
                (Some(receive), Some(chain)) => delivery.frame(receive, mergeable, out, chain),
                _ => delivery.port.counters.count_drop(Discard::NotAttached),
            }
        }
        if slot.split().is_some_and(Split::publish) {
            slot.call();
        }
        let broken = delivery.end();
        if let Some(why) = broken {
            attachment.mark_broken(0, &mut slot, why);
            drop(slot);
            self.ring_broken(to.index(), why, now);
        }
    }

    /// One frame to every tenant but the one it came from.
    fn flood(&mut self, except: Option<PortId>, frame: usize, ring: &Split, now: Timestamp) {
        let snapshot = self.tables.load_full();
        for to in snapshot.flood_ports().iter().filter(|to| Some(**to) != except) {
            self.deliver_to(*to, ring, now, |i, _| i == frame);
        }
    }

    /// Says that the port is out until its driver sets it up anew.
    pub(super) fn ring_broken(&self, index: usize, why: Broken, now: Timestamp) {
        if let Some(port) = self.ports.get(index) {
            self.events.send(now, EventKind::RingBroken(port.id, why));
        }
    }
}

/// What is delivered to one port in one go, counted once.
struct Delivery<'a> {
    port: &'a mut Port,
    now: Timestamp,
    packets: u64,
    bytes: u64,
    broken: Option<Broken>,
}

impl<'a> Delivery<'a> {
    fn begin(port: &'a mut Port, now: Timestamp) -> Self {
        Self { port, now, packets: 0, bytes: 0, broken: None }
    }

    fn frame(&mut self, receive: &mut Split, mergeable: bool, out: &mut Outgoing, chain: Chain<'_>) {
        let len = out.len();
        let mut query = None;
        if let (To::Service(_), Some(proxy)) = (out.to, self.port.proxy.as_mut()) {
            match proxy.seal(self.now, out.head_mut(), len) {
                Ok(sealed) => query = sealed,
                Err(_) => return self.port.counters.count_drop(Discard::BadNsh),
            }
        }
        let tail = Some((chain, out.tail()));
        let gather = Gather { vnet: [0; VNET_LEN], head: out.head(), tail };
        match receive.write_frame(&gather, mergeable) {
            Ok(()) => {
                self.packets += 1;
                self.bytes += len as u64;
                self.port.keep(self.now, Direction::Rx, out.head(), tail);
            }
            Err(error) => self.refused(error, query),
        }
    }

    fn refused(&mut self, error: WriteError, query: Option<Query>) {
        if let (Some(query), Some(proxy)) = (query, self.port.proxy.as_mut()) {
            proxy.session.refused(query);
        }
        self.port.counters.count_drop(match error {
            WriteError::Full => Discard::RingFull,
            WriteError::TooLong => Discard::TooLong,
            WriteError::Broken(why) => {
                self.broken = Some(why);
                Discard::RingBroken
            }
        });
    }

    fn end(self) -> Option<Broken> {
        if self.packets > 0 {
            self.port.counters.count_rx(self.packets, self.bytes);
        }
        self.broken
    }
}
