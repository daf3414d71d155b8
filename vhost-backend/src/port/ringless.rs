//! A proxy without rings, for whoever models those: what becomes of the frames for its service VM is decided as on a host.
//!
//! ```text
//! frame ─► let_in, then  room and nobody waits ─► seal ─► the model's ring ─► retain
//!                        else                  ─► hold
//! back  ─► returned, or answered by a response alone
//! down  ─► estate: retained copies ─► what the model's ring holds ─► what waits
//! ```

use std::sync::{Arc, Mutex};

use nsh::{Context, ENCAP_LEN, NshError};

use super::{FrameQueue, Keeps, Proxy, ServiceStatus};
use crate::chain::{PortId, Snapshot};
use crate::liveness::{Probe, Query, Session, Timestamp};
use crate::ring::{Gather, VnetHeader};
use crate::telemetry::Discard;

/// Bytes that a waiting frame takes besides its own, at most.
const LABEL: usize = 8;

/// The proxy of a service VM.
#[derive(Debug)]
pub struct RinglessProxy {
    proxy: Proxy,
}

/// A frame that a service VM left when it went down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its bytes from the outer Ethernet header on.
    pub frame: Vec<u8>,
    /// A copy of one that the service VM had taken.
    pub copy: bool,
}

impl RinglessProxy {
    /// The proxy that `session` belongs to; so much is kept for its service VM, by as many queue pairs.
    #[must_use]
    pub fn new(session: Session, keeps: &Keeps, pairs: usize) -> Self {
        let status = Arc::new(Mutex::new(ServiceStatus::of(&session)));
        Self { proxy: Proxy::new(session, [0; 6], [0; 6], false, status).keeping(keeps, pairs) }
    }

    /// Its session.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.proxy.session
    }

    /// Its session, to be told something.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.proxy.session
    }

    /// Whether frames wait.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.proxy.is_holding()
    }

    /// Whether frames wait for the ring of this pair.
    #[must_use]
    pub fn is_holding_for(&self, pair: usize) -> bool {
        self.proxy.is_holding_for(pair)
    }

    /// Gives those of the frames that wait for the ring of this pair to `ring` for which there is `room`, oldest first; says how
    /// many.
    pub fn let_in(&mut self, now: Timestamp, pair: usize, room: usize, mut ring: impl FnMut(&[u8])) -> usize {
        if !self.proxy.session.state().keeps() {
            return 0;
        }
        let mut hold = self.exchange_hold(pair, FrameQueue::default());
        let mut count = 0;
        while count < room
            && let Some(frame) = hold.front()
        {
            // What waits here has an NSH.
            if self.proxy.seal_held(now, frame).is_ok() {
                ring(frame);
                self.retain(pair, frame);
                count += 1;
            }
            hold.pop();
        }
        self.exchange_hold(pair, hold);
        count
    }

    fn exchange_hold(&mut self, pair: usize, other: FrameQueue) -> FrameQueue {
        let hold = self.proxy.holds.get_mut(pair);
        hold.map_or_else(FrameQueue::default, |hold| std::mem::replace(hold, other))
    }

    /// Completes the header of a frame that is about to be put into the ring; gives the query it carries, if one is due.
    ///
    /// # Errors
    /// It has no NSH.
    pub fn seal(&mut self, now: Timestamp, frame: &mut [u8]) -> Result<Option<Query>, NshError> {
        let len = frame.len();
        self.proxy.seal(now, frame, len, None)
    }

    /// Keeps a copy of a frame that was put into the ring of this pair, if any are kept.
    pub fn retain(&mut self, pair: usize, frame: &[u8]) {
        if self.proxy.retains(pair) {
            self.proxy.retain(pair, &gather(frame));
        }
    }

    /// Lets a frame wait that the ring of this pair has no room for, or that others are before.
    ///
    /// # Errors
    /// Why it is dropped.
    pub fn hold(&mut self, pair: usize, frame: &[u8]) -> Result<(), Discard> {
        self.proxy.hold(pair, Discard::RingFull, &gather(frame))
    }

    /// The probe that carries `query` to the service VM at `port`.
    pub fn probe(&mut self, snapshot: &Snapshot, port: PortId, query: Probe) -> [u8; ENCAP_LEN] {
        self.proxy.probe(snapshot, port, query)
    }

    /// A data frame came back with this context.
    ///
    /// # Errors
    /// It was handed over in an earlier life of the session.
    pub fn returned(&mut self, now: Timestamp, context: &Context) -> Result<(), Discard> {
        self.proxy.fence(now, context)
    }

    /// A response without a frame came back.
    pub fn answered(&mut self, now: Timestamp, context: &Context) {
        self.proxy.answered(now, context);
    }

    /// Everything the service VM was to get, or has been handed and retained, and for all that is known has neither taken
    /// nor answered, in the order in which it is steered again. `untaken`: what the ring of each pair holds, oldest first.
    pub fn estate<F: AsRef<[u8]>>(&mut self, untaken: &[Vec<F>]) -> Vec<Leftover> {
        let rings = (0..self.proxy.holds.len())
            .map(|pair| queue(untaken.get(pair).map(Vec::as_slice).unwrap_or_default()));
        let mut estate = self.proxy.estate(rings.collect());
        let (mut left, mut place) = (Vec::new(), vec![0; usize::from(u16::MAX)]);
        while let Some(bequest) = estate.next(&mut place) {
            let frame = place.get(..bequest.len).unwrap_or_default().to_vec();
            left.push(Leftover { frame, copy: bequest.copy });
        }
        self.proxy.settle(estate);
        left
    }
}

/// A queue of these frames.
fn queue(frames: &[impl AsRef<[u8]>]) -> FrameQueue {
    let frames = || frames.iter().map(AsRef::<[u8]>::as_ref);
    let mut queue = FrameQueue::new(frames().map(|frame: &[u8]| frame.len() + LABEL).sum());
    for frame in frames() {
        queue.push_with(frame.len(), |place| place.copy_from_slice(frame));
    }
    queue
}

fn gather(frame: &[u8]) -> Gather<'_> {
    Gather { vnet: VnetHeader::NONE, head: frame, tail: None }
}

#[cfg(test)]
mod tests {
    use nsh::{Epoch, Header, NextProtocol, NshView, Ttl};

    use super::*;
    use crate::chain::samples::{si, spi};
    use crate::liveness::Profile;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_nanos(micros * 1000)
    }

    fn proxy(keeps: &Keeps, pairs: usize) -> RinglessProxy {
        let mut session = Session::new(Profile::FAST, Epoch::new(7), at(0));
        session.attached(at(0));
        let probe = session.poll(at(1)).unwrap();
        session.response(at(2), probe.epoch, probe.seq, false);
        while session.transition().is_some() {}
        RinglessProxy::new(session, keeps, pairs)
    }

    fn frame(number: u8) -> Vec<u8> {
        let header = Header {
            oam: false,
            ttl: Ttl::ORIGIN,
            next_protocol: NextProtocol::ETHERNET,
            spi: spi(1),
            si: si(2),
            context: Context::default().to_bytes(),
        };
        let mut frame = nsh::encap([0; 6], [0; 6], &header).to_vec();
        frame.push(number);
        frame
    }

    fn context(frame: &[u8]) -> Context {
        NshView::parse(&frame[nsh::ETHERNET_LEN..]).unwrap().livepath().unwrap().unwrap()
    }

    /// Hands `numbers` over by this pair; gives what lies in its ring then.
    fn hand(proxy: &mut RinglessProxy, pair: usize, numbers: std::ops::Range<u8>) -> Vec<Vec<u8>> {
        numbers
            .map(|number| {
                let mut frame = frame(number);
                proxy.seal(at(10), &mut frame).unwrap();
                proxy.retain(pair, &frame);
                frame
            })
            .collect()
    }

    fn numbers(left: &[Leftover]) -> Vec<(u8, bool)> {
        left.iter().map(|left| (*left.frame.last().unwrap(), left.copy)).collect()
    }

    const NONE: &[Vec<Vec<u8>>] = &[];

    #[test]
    fn an_estate_is_copies_then_the_ring_then_what_waits() {
        let mut proxy = proxy(&Keeps { hold: 200, retain: 4096 }, 1);
        let ring = hand(&mut proxy, 0, 0..5);
        proxy.returned(at(20), &context(&ring[1])).unwrap();
        proxy.hold(0, &frame(5)).unwrap();
        proxy.session_mut().detached(at(30));
        let left = proxy.estate(&[ring[3..].to_vec()]);
        assert_eq!(numbers(&left), [(2, true), (3, false), (4, false), (5, false)]);
        assert!(!proxy.is_holding() && proxy.estate(NONE).is_empty(), "once");
        assert_eq!(proxy.returned(at(40), &context(&ring[2])), Err(Discard::Stale));
    }

    #[test]
    fn the_estate_of_several_pairs_is_in_the_order_of_the_numbers() {
        let mut proxy = proxy(&Keeps { hold: 400, retain: 8192 }, 2);
        let first = hand(&mut proxy, 0, 0..2);
        let second = hand(&mut proxy, 1, 2..4);
        let third = hand(&mut proxy, 0, 4..6);
        proxy.hold(1, &frame(6)).unwrap();
        assert!(proxy.is_holding_for(1) && !proxy.is_holding_for(0));
        proxy.returned(at(20), &context(&first[0])).unwrap();
        proxy.session_mut().detached(at(30));
        let left = proxy.estate(&[third, second[1..].to_vec()]);
        let (copies, ring): (Vec<_>, Vec<_>) = numbers(&left).into_iter().partition(|(_, copy)| *copy);
        assert_eq!(copies, [(1, true), (2, true)]);
        assert_eq!(ring, [(3, false), (4, false), (5, false), (6, false)]);
    }

    #[test]
    fn frames_wait_as_long_as_there_is_memory_and_are_let_in_as_there_is_room() {
        let mut proxy = proxy(&Keeps { hold: 3 * (ENCAP_LEN + 5), retain: 0 }, 1);
        let waits: Vec<_> = (0..4).map(|number| proxy.hold(0, &frame(number))).collect();
        assert_eq!(waits, [Ok(()), Ok(()), Ok(()), Err(Discard::HoldFull)]);
        let mut ring = Vec::new();
        assert_eq!(proxy.let_in(at(10), 0, 2, |frame| ring.push(*frame.last().unwrap())), 2);
        assert!(proxy.is_holding());
        assert_eq!(proxy.let_in(at(11), 0, 9, |frame| ring.push(*frame.last().unwrap())), 1);
        assert_eq!(ring, [0, 1, 2]);
        proxy.session_mut().fail(at(20));
        proxy.hold(0, &frame(9)).unwrap();
        assert_eq!(proxy.let_in(at(21), 0, 9, |_| panic!("it is out")), 0);
    }

    #[test]
    fn who_holds_nothing_says_that_the_ring_is_full() {
        let mut proxy = proxy(&Keeps { hold: 0, retain: 0 }, 1);
        assert_eq!(proxy.hold(0, &frame(0)), Err(Discard::RingFull));
        hand(&mut proxy, 0, 0..2);
        assert!(proxy.estate(NONE).is_empty());
    }
}
