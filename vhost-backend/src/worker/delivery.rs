//! The decided frames of a batch, written to the receive rings: destination by destination, so that each ring is locked,
//! published and notified once; or to taps.

use std::sync::atomic::Ordering;

use super::Common;
use super::answers::Answers;
use super::decide::Batch;
use super::fitting::Fitting;
use super::sink::{NotTaken, Sink, Unwritten};
use super::spread::spread;
use crate::chain::PortId;
use crate::frame::ETHERNET_LEN;
use crate::liveness::{Query, Timestamp};
use crate::offload::{Request, Scratch};
use crate::port::{Outgoing, Port, Proxy, To};
use crate::ring::{BATCH, Broken, Chain, Chains, Gather, Split, VnetHeader};
use crate::telemetry::{Direction, Discard, EventKind, Stage};

/// Some frames of a batch, a bit each.
pub(super) type Frames = u32;
const _: () = assert!(BATCH == Frames::BITS as usize);

/// The numbers of these frames, ascending.
pub(super) fn numbers(mut frames: Frames) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = frames.trailing_zeros();
        frames &= frames.wrapping_sub(1);
        (lowest < Frames::BITS).then_some(lowest as usize)
    })
}

const fn bit(frame: usize) -> Frames {
    (1 as Frames).wrapping_shl(frame as u32)
}

/// Which of `count` queues each of these frames goes into: the frames of a flow into one.
pub(super) fn queue_of_each(
    common: &Common,
    batch: &[Outgoing],
    frames: Frames,
    count: usize,
) -> [usize; BATCH] {
    let mut queues = [0; BATCH];
    if count > 1 {
        for i in numbers(frames) {
            if let (Some(queue), Some(out)) = (queues.get_mut(i), batch.get(i)) {
                *queue = spread(&common.learned, out, count);
            }
        }
    }
    queues
}

/// Of these frames those that go into queue `number`.
pub(super) fn those_of(queues: &[usize; BATCH], frames: Frames, number: usize) -> Frames {
    let here = numbers(frames).filter(|i| queues.get(*i) == Some(&number));
    here.fold(0, |here, i| here | bit(i))
}

impl Batch {
    /// Delivers the first `count` frames, on behalf of `worker`.
    pub(super) fn deliver(
        &mut self,
        common: &Common,
        worker: usize,
        chains: Chains<'_>,
        count: usize,
        now: Timestamp,
    ) {
        let mut places = [0; BATCH];
        for (place, out) in places.iter_mut().zip(&self.frames).take(count) {
            *place = out.to.place();
        }
        let at = |wanted: u32| {
            let bits = places.iter().enumerate();
            bits.fold(0, |frames, (i, place)| frames | if *place == wanted { bit(i) } else { 0 })
        };
        let mut left = !at(0);
        let mut target = Target { common, worker, chains, now };
        while let Some(first) = numbers(left).next() {
            let (Some(to), Some(place)) = (self.frames.get(first).map(|out| out.to), places.get(first))
            else {
                break;
            };
            let frames = at(*place);
            left &= !frames;
            match to {
                To::Consumed | To::Discard(_) => {}
                To::Port(port) | To::Service(port) => target.deliver_to(self, port, frames),
                // Each of them may have another origin.
                To::Flood { except } => target.flood(self, except, frames),
            }
        }
        self.answers.send(common, now);
    }
}

/// What the frames of one batch are delivered by.
pub(super) struct Target<'a> {
    pub(super) common: &'a Common,
    worker: usize,
    /// They are still in the sender's memory.
    pub(super) chains: Chains<'a>,
    pub(super) now: Timestamp,
}

impl Target<'_> {
    /// Delivers some frames of the batch to one port, in their order.
    fn deliver_to(&mut self, batch: &mut Batch, to: PortId, frames: Frames) {
        let Some(port) = self.common.ports.get(to.index()) else { return };
        if let Some(tap) = &port.tap {
            return self.deliver_to_tap(batch, port, tap, frames);
        }
        let pairs = port.attachment.receiving();
        match pairs.count() {
            // Until its session has heard of it, and the tables have.
            0 if port.is_service() => self.deliver_into(batch, port, 0, frames),
            0 => {
                for _ in numbers(frames) {
                    port.counters.count_drop(Discard::NotAttached);
                }
            }
            1 => {
                let pair = pairs.iter().next().unwrap_or(0);
                self.deliver_into(batch, port, pair, frames);
            }
            count => {
                let queues = queue_of_each(self.common, &batch.frames, frames, count);
                for (nth, pair) in pairs.iter().enumerate() {
                    let here = those_of(&queues, frames, nth);
                    if here != 0 {
                        self.deliver_into(batch, port, pair, here);
                    }
                }
            }
        }
    }

    fn deliver_into(&mut self, batch: &mut Batch, port: &Port, pair: usize, frames: Frames) {
        let mergeable = port.attachment.is_mergeable();
        let Some(mut slot) = port.attachment.receive(pair) else { return };
        let mut proxy = port.proxy();
        let Batch { frames: outgoing, scratch, answers, .. } = batch;
        let mut delivery = Delivery::begin(port, proxy.as_deref_mut(), self.now);
        delivery.pair = pair;
        let mut sink = match slot.split() {
            Some(receive) => Sink::Ring { receive, mergeable },
            None => Sink::Nothing,
        };
        delivery.let_in(&mut sink);
        delivery.undress(outgoing, frames, self.chains);
        let (mut left, ready) = delivery.prepare(outgoing, frames);
        loop {
            if let Sink::Ring { receive, .. } = &mut sink {
                left = delivery.run(receive, outgoing, self.chains, left, ready);
            }
            let Some(i) = numbers(left).next() else { break };
            left &= !bit(i);
            if let (Some(out), Some(chain)) = (outgoing.get_mut(i), self.chains.get(i)) {
                delivery.deliver(&mut sink, out, chain, scratch, answers);
            }
        }
        drop(sink);
        batch.account.done(Stage::Copy);
        // What waits until all that was written is in the driver's sight comes last: the counters, and to ask whether it
        // wants to be called.
        let mut broken = None;
        if let Some(receive) = slot.split() {
            receive.show();
            receive.prepare();
            broken = receive.broken();
        }
        let late = delivery.is_late();
        broken = delivery.end().or(broken);
        batch.account.done(Stage::Publish);
        if slot.split().is_some_and(Split::wants_call) {
            slot.call();
        }
        if let Some(why) = broken {
            port.attachment.mark_broken(pair * 2, &mut slot, why);
        }
        drop(slot);
        batch.account.done(Stage::Notify);
        drop(proxy);
        batch.late |= late;
        if port.home() != self.worker && port.is_service() {
            self.common.wake_home(port, self.now);
        }
        if let Some(why) = broken {
            self.common.ring_broken(port, why, self.now);
        }
    }

    /// Frames to every tenant but the one they came from.
    fn flood(&mut self, batch: &mut Batch, except: Option<PortId>, frames: Frames) {
        let snapshot = self.common.tables.load_full();
        for to in snapshot.flood_ports().iter().filter(|to| Some(**to) != except) {
            self.deliver_to(batch, *to, frames);
        }
    }
}

impl Common {
    /// Says that the port is out until its driver sets it up anew.
    pub(super) fn ring_broken(&self, port: &Port, why: Broken, now: Timestamp) {
        self.events.send(now, EventKind::RingBroken(port.id, why));
    }
}

/// What is delivered to one receive ring or tap in one go, counted once.
pub(super) struct Delivery<'a> {
    pub(super) port: &'a Port,
    pub(super) proxy: Option<&'a mut Proxy>,
    pub(super) now: Timestamp,
    /// The longest frame that is not looked at twice.
    plain: usize,
    /// The pair whose receive ring it is.
    pub(super) pair: usize,
    /// Frames wait for room in it, and those that come now wait behind them.
    pub(super) behind: bool,
    /// A copy is kept of what is handed over.
    pub(super) retains: bool,
    /// Frames that wait since this delivery.
    pub(super) held: u64,
    /// Queries go into the virtio-net header.
    in_header: bool,
    /// Someone wants copies of what is delivered.
    pub(super) is_captured: bool,
    packets: u64,
    bytes: u64,
    broken: Option<Broken>,
}

impl<'a> Delivery<'a> {
    pub(super) fn begin(port: &'a Port, proxy: Option<&'a mut Proxy>, now: Timestamp) -> Self {
        let plain = usize::from(port.mtu) + ETHERNET_LEN;
        let in_header = proxy.as_ref().is_some_and(|proxy| proxy.in_header);
        Self {
            port,
            proxy,
            now,
            plain,
            in_header,
            is_captured: port.is_captured(),
            pair: 0,
            behind: false,
            retains: false,
            held: 0,
            packets: 0,
            bytes: 0,
            broken: None,
        }
    }

    /// Whether the frame goes out as it is: it asks for nothing, and fits.
    #[inline]
    fn takes(&self, out: &Outgoing) -> bool {
        out.request.is_none() && out.len() <= self.plain
    }

    /// Takes the NSH off frames to a service VM that knows nothing of it.
    #[inline]
    fn undress(&mut self, batch: &mut [Outgoing], frames: Frames, chains: Chains<'_>) {
        let Some(proxy) = self.proxy.as_mut().filter(|proxy| proxy.is_unaware()) else { return };
        for i in numbers(frames) {
            let (Some(out), Some(chain)) = (batch.get_mut(i), chains.get(i)) else { continue };
            if let Err(reason) = proxy.undress(self.now, out, &chain) {
                self.port.counters.count_drop(reason);
                out.to = To::Consumed;
            }
        }
    }

    /// The virtio-net header that goes with a frame, `vnet` unless a query travels in it.
    #[inline(always)]
    pub(super) fn header(&self, vnet: VnetHeader, query: Option<Query>) -> VnetHeader {
        match &self.proxy {
            Some(proxy) if self.in_header => proxy.header(query),
            _ => vnet,
        }
    }

    /// Completes the headers of those frames that go out as they are. All at once: copying one right after would wait until
    /// its stores are done. Gives those that are still to be delivered, and those of them that are ready to be written as
    /// they lie.
    #[inline]
    fn prepare(&mut self, batch: &mut [Outgoing], frames: Frames) -> (Frames, Frames) {
        let (mut left, mut ready) = (frames, 0);
        if self.behind {
            return (left, ready);
        }
        for i in numbers(frames) {
            let Some(out) = batch.get_mut(i).filter(|out| self.takes(out)) else { continue };
            if out.to == To::Consumed {
                left &= !bit(i);
                continue;
            }
            let len = out.len();
            match self.seal(out.head_mut(), len, None) {
                Ok(query) => out.query = query,
                Err(Refused) => {
                    left &= !bit(i);
                    continue;
                }
            }
            out.dress(self.header(VnetHeader::NONE, out.query).with_buffers(1));
            ready |= bit(i);
        }
        (left, if self.is_captured || self.retains { 0 } else { ready })
    }

    /// Writes the first of the frames that are `left`, as long as they are `ready` and fit as they are; gives the others.
    #[inline(never)]
    fn run(
        &mut self,
        receive: &mut Split,
        batch: &[Outgoing],
        chains: Chains<'_>,
        mut left: Frames,
        ready: Frames,
    ) -> Frames {
        if self.behind {
            return left;
        }
        let others = left & !ready;
        let before_others = others.wrapping_sub(1) & !others;
        let frames = numbers(left & before_others);
        let written = receive.write_ready(frames.map_while(|i| Some(batch.get(i)?.ready(chains.get(i)?))));
        self.packets += written.frames as u64;
        self.bytes += written.bytes;
        for _ in 0..written.frames {
            left &= left.wrapping_sub(1);
        }
        left
    }

    /// Delivers a frame, in as many pieces as it takes. One that needs no more than a header has it.
    #[inline(always)]
    pub(super) fn deliver(
        &mut self,
        sink: &mut Sink<'_>,
        out: &mut Outgoing,
        chain: Chain<'_>,
        scratch: &mut Scratch,
        answers: &mut Answers,
    ) {
        if self.takes(out) {
            self.frame(sink, out, chain, VnetHeader::NONE);
        } else {
            self.unlike(Fitting { sink, chain, scratch, answers }, out);
        }
    }

    /// Delivers a frame in one piece, its header complete.
    #[inline(always)]
    pub(super) fn frame(&mut self, sink: &mut Sink<'_>, out: &Outgoing, chain: Chain<'_>, vnet: VnetHeader) {
        if out.to != To::Consumed {
            // A short frame is in the private copy alone.
            let tail = (out.rest() > 0).then_some((chain, out.tail()));
            let vnet = self.header(vnet, out.query);
            self.write(sink, &Gather { vnet, head: out.head(), tail }, out.query);
        }
    }

    /// Completes the header of a frame for a service VM; `Err` when the frame went no further, which is counted.
    #[inline]
    pub(super) fn seal(
        &mut self,
        head: &mut [u8],
        len: usize,
        request: Option<&Request>,
    ) -> Result<Option<Query>, Refused> {
        let Some(proxy) = &mut self.proxy else { return Ok(None) };
        let sealed = if self.behind {
            proxy.ask_to_wait(head, len, request).map(|()| None)
        } else {
            proxy.seal(self.now, head, len, request)
        };
        sealed.map_err(|_| {
            self.port.counters.count_drop(Discard::BadNsh);
            Refused
        })
    }

    /// Writes one frame; false when no more are taken.
    #[inline(always)]
    pub(super) fn write(&mut self, sink: &mut Sink<'_>, frame: &Gather<'_>, query: Option<Query>) -> bool {
        let written = if self.behind { Err(Discard::RingFull.into()) } else { sink.write(frame) };
        match written {
            Ok(()) => {
                self.count(frame);
                if self.retains {
                    self.retain(frame);
                }
                true
            }
            Err(error) => self.unwritten(error, frame, query),
        }
    }

    #[inline(always)]
    pub(super) fn count(&mut self, frame: &Gather<'_>) {
        self.packets += 1;
        self.bytes += frame.len() as u64;
        if self.is_captured {
            self.port.keep(self.now, Direction::Rx, frame.head, frame.tail.as_ref());
        }
    }

    /// Remembers why the ring is broken, if it is.
    pub(super) fn broken(&mut self, why: Option<Broken>) {
        self.broken = self.broken.or(why);
    }

    /// A frame that the ring did not take waits, if it is for a service VM and might be taken later; false if no more
    /// like it are taken.
    fn unwritten(&mut self, error: Unwritten, frame: &Gather<'_>, query: Option<Query>) -> bool {
        self.broken(error.broken);
        if let Some(query) = query {
            self.take_query_back(query);
        }
        let waits = self.wait(error.reason, frame);
        if let Err(reason) = waits {
            self.port.counters.count_drop(reason);
        }
        waits.is_ok()
    }

    pub(super) fn take_query_back(&mut self, query: Query) {
        if let Some(proxy) = &mut self.proxy {
            proxy.session.refused(query);
        }
    }

    /// Some that were counted were not taken.
    pub(super) fn take_back(&mut self, not_taken: &NotTaken<'_>) {
        self.packets = self.packets.saturating_sub(not_taken.packets);
        self.bytes = self.bytes.saturating_sub(not_taken.bytes);
    }

    /// Frames wait since this delivery for a service VM that was down by then.
    fn is_late(&self) -> bool {
        self.held > 0 && self.proxy.as_ref().is_some_and(|proxy| !proxy.session.state().keeps())
    }

    pub(super) fn end(self) -> Option<Broken> {
        if self.packets > 0 {
            self.port.counters.count_rx(self.packets, self.bytes);
        }
        if self.held > 0 {
            self.port.counters.held.fetch_add(self.held, Ordering::Relaxed);
        }
        self.broken
    }
}

/// The frame went no further.
pub(super) struct Refused;

/// What is handed on with a frame of what its sender left to the device.
pub(super) struct Handed {
    /// The header a tenant gets.
    pub(super) vnet: VnetHeader,
    /// What a service VM finds in the context.
    pub(super) context: Option<Request>,
}

impl Handed {
    pub(super) const PLAIN: Handed = Handed { vnet: VnetHeader::NONE, context: None };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_numbered_from_the_lowest_bit() {
        assert_eq!(numbers(0).count(), 0);
        assert_eq!(numbers(bit(0) | bit(7) | bit(31)).collect::<Vec<_>>(), [0, 7, 31]);
        assert_eq!(numbers(Frames::MAX).count(), BATCH);
    }
}
