//! The write side against a model in safe code that lets `virtio-queue` read the chains: in the end
//! all of guest memory has to be the same, used ring included.

use std::collections::VecDeque;

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};

use super::chains::{SIZE, Seen, Tables, pop, queue, tables};
use super::driver::{Desc, Driver, NEXT, PAYLOAD, WRITE, memory};
use crate::ring::{Gather, Ready, VNET_LEN, WriteError, Written};

#[test]
fn buffers_that_lie_in_order_are_asked_for_further_ahead() {
    let in_order: Vec<u64> = (0..32).map(|buffer| PAYLOAD + buffer * 2112).collect();
    let of_two: Vec<u64> = in_order.iter().map(|addr| PAYLOAD + (addr - PAYLOAD) / 4224 * 8448).collect();
    let backwards: Vec<u64> = in_order.iter().rev().copied().collect();
    let of = |buffers: &[u64]| {
        let mut driver = Driver::new(&memory(), 64, 0);
        buffers.iter().zip(0..).for_each(|(addr, index)| driver.offer_one(index, *addr, 2048, WRITE));
        let mut split = driver.split(false);
        split.prepare();
        split.expected
    };
    let [ordered, few, scattered, reversed] = [&in_order[..], &in_order[..3], &of_two, &backwards].map(of);
    assert!(ordered > few);
    assert_eq!([few, scattered, reversed], [few; 3]);
}

/// What driver and device do, in turn.
#[derive(Debug, Clone)]
enum Step {
    /// The driver posts chains.
    Post(Vec<u16>),
    /// The device writes a frame: a head of that many bytes and a tail of such pieces, from an offset on. So many times as
    /// one that lies ready, as far as that goes, and then once more.
    Write { head: usize, tail: Vec<u32>, offset: usize, ready: usize },
    /// The device publishes; the driver reaps and waits for a used index that far ahead.
    Publish(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let piece = prop_oneof![10 => 1..100_u32, 4 => 100..1500_u32, 1 => 1500..20_000_u32];
    let write = (0..200_usize, prop::collection::vec(piece, 0..4), 0..300_usize, 0..4_usize);
    prop_oneof![
        2 => prop::collection::vec(0..SIZE, 1..10).prop_map(Step::Post),
        6 => write.prop_map(|(head, tail, offset, ready)| Step::Write { head, tail, offset, ready }),
        2 => (0..20_u16).prop_map(Step::Publish),
    ]
}

/// The write side, the plain way.
struct Model {
    driver: Driver,
    queue: Queue,
    posted: VecDeque<Seen>,
}

impl Model {
    fn write(&mut self, frame: &[u8], mergeable: bool) -> Result<(), WriteError> {
        while let Some(chain) = pop(&mut self.queue, &self.driver.mem, true) {
            self.posted.push_back(chain);
        }
        let chains = self.plan(VNET_LEN + frame.len(), mergeable)?;
        let mut stream = vec![9; VNET_LEN - 2];
        stream.extend_from_slice(&(chains as u16).to_le_bytes());
        stream.extend_from_slice(frame);
        let mut left = &stream[..];
        for chain in self.posted.drain(..chains) {
            let used = left.len().min(chain.len());
            for (addr, len) in chain.buffers.into_iter().flatten() {
                let (now, later) = left.split_at(left.len().min(len as usize));
                self.driver.fill(addr, now);
                left = later;
            }
            self.queue.add_used(&*self.driver.mem, chain.head, used as u32).unwrap();
        }
        assert!(left.is_empty());
        Ok(())
    }

    fn plan(&mut self, need: usize, mergeable: bool) -> Result<usize, WriteError> {
        while let Some(at) = self.posted.iter().position(|chain| chain.buffers.is_none()) {
            let before: usize = self.posted.iter().take(at).map(Seen::len).sum();
            if before >= need || (!mergeable && at > 0) {
                break;
            }
            for chain in self.posted.drain(..=at) {
                self.queue.add_used(&*self.driver.mem, chain.head, 0).unwrap();
            }
        }
        let mut room = 0;
        for (i, chain) in self.posted.iter().enumerate() {
            room += chain.len();
            if room >= need {
                return Ok(i + 1);
            }
            if !mergeable {
                return Err(WriteError::TooLong);
            }
        }
        Err(if self.posted.len() == usize::from(SIZE) { WriteError::TooLong } else { WriteError::Full })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn writes_what_the_model_writes(
        start in prop_oneof![2 => 65_480..=u16::MAX, 1 => any::<u16>()],
        event_idx: bool,
        mergeable in prop::bool::weighted(0.7),
        tables in tables(true),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run(start, event_idx, mergeable, &tables, steps)?;
    }
}

#[test]
fn frames_that_lie_ready_are_written_as_far_as_they_fit_what_was_looked_ahead() {
    let mut driver = Driver::new(&memory(), SIZE, 0);
    let mut ring = driver.split(true);
    for (head, len) in [(0, 100), (1, 100), (2, 20), (3, 100)] {
        driver.desc(head, Desc::new(PAYLOAD + 200 * u64::from(head), len, WRITE, 0));
        driver.offer(head);
    }
    let front = [7; VNET_LEN + 40];
    let frames = || std::iter::repeat_n(Ready { front: &front, tail: None }, 4);
    assert_eq!(ring.write_ready(frames()), Written::default(), "nothing was looked ahead");
    ring.prepare();
    assert_eq!(ring.write_ready(std::iter::once(Ready { front: &[7; 11], tail: None })), Written::default());
    assert_eq!(ring.write_ready(frames()), Written { frames: 2, bytes: 80 }, "the third buffer is too short");
    ring.publish();
    assert_eq!(driver.reap(), [(0, 52), (1, 52)]);
}

#[test]
fn a_batch_that_was_looked_ahead_is_always_written_as_it_lies() {
    let mut driver = Driver::new(&memory(), SIZE, 0);
    let mut ring = driver.split(true);
    for head in 0..SIZE {
        driver.desc(head, Desc::new(PAYLOAD + 200 * u64::from(head), 100, WRITE, 0));
    }
    let front = [7; VNET_LEN + 40];
    // More rounds than there are places for chains, with chains left over each time.
    for round in 0..10 * SIZE {
        let posted = driver.avail.wrapping_sub(driver.reaped);
        (posted..SIZE.min(7)).for_each(|i| driver.offer((driver.reaped + posted + i) % SIZE));
        ring.prepare();
        let written = ring.write_ready(std::iter::repeat_n(Ready { front: &front, tail: None }, 5));
        assert_eq!(written.frames, 5, "round {round}");
        ring.publish();
        assert_eq!(driver.reap().len(), 5);
    }
}

fn run(
    start: u16,
    event_idx: bool,
    mergeable: bool,
    tables: &Tables,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let mut driver = Driver::new(&memory(), SIZE, start);
    let mut ring = driver.split(event_idx);
    let other = Driver::new(&memory(), SIZE, start);
    let mut model = Model { queue: queue(&other, event_idx), driver: other, posted: VecDeque::new() };
    let mut sender = Driver::new(&memory(), SIZE, start);
    let mut source = sender.split(event_idx);
    sender.fill_payload();
    let bytes = sender.bytes(PAYLOAD, 100_000);
    tables.store(&driver);
    tables.store(&model.driver);
    for step in steps {
        match step {
            Step::Post(heads) => {
                let room = SIZE - driver.avail.wrapping_sub(driver.reaped);
                for &head in heads.iter().take(usize::from(room)) {
                    driver.offer(head);
                    model.driver.offer(head);
                }
            }
            Step::Write { head, tail, offset, ready } => {
                for (i, &len) in tail.iter().enumerate() {
                    // Every piece elsewhere; the first begins with the virtio-net header.
                    let len = if i == 0 { len + VNET_LEN as u32 } else { len };
                    let flags = if i + 1 < tail.len() { NEXT } else { 0 };
                    sender.desc(i as u16, Desc::new(PAYLOAD + 20_100 * i as u64, len, flags, i as u16 + 1));
                }
                let mut frame = bytes[500..500 + head].to_vec();
                let mut rest = Vec::new();
                for (i, &len) in tail.iter().enumerate() {
                    let from = 20_100 * i + if i == 0 { VNET_LEN } else { 0 };
                    rest.extend_from_slice(&bytes[from..from + len as usize]);
                }
                if !tail.is_empty() {
                    sender.offer(0);
                    prop_assert_eq!(source.read_batch(1), Ok(1));
                    frame.extend_from_slice(rest.get(offset..).unwrap_or_default());
                }
                let gather = Gather {
                    vnet: [9; VNET_LEN].into(),
                    head: &bytes[500..500 + head],
                    tail: source.chain(0).map(|chain| (chain, offset)),
                };
                prop_assert_eq!(gather.len(), frame.len());
                let front = [&[9; VNET_LEN - 2][..], &[1, 0], gather.head].concat();
                let run = std::iter::repeat_n(Ready { front: &front, tail: gather.tail }, ready);
                let written = ring.write_ready(run);
                prop_assert!(written.frames <= ready);
                prop_assert_eq!(written.bytes, (written.frames * frame.len()) as u64);
                for _ in 0..written.frames {
                    prop_assert_eq!(model.write(&frame, mergeable), Ok(()));
                }
                prop_assert_eq!(ring.write_frame(&gather, mergeable), model.write(&frame, mergeable));
                source.complete_batch();
            }
            Step::Publish(ahead) => {
                let wanted = ring.publish();
                let used = ring.next_used();
                let news = driver.used_idx() != driver.reaped;
                prop_assert_eq!(wanted, news && model.queue.needs_notification(&*model.driver.mem).unwrap());
                prop_assert_eq!(driver.reap(), model.driver.reap());
                prop_assert_eq!(used, driver.reaped);
                prop_assert_eq!(ring.free_chains(), driver.avail.wrapping_sub(driver.reaped));
                for driver in [&driver, &model.driver] {
                    driver.set_used_event(driver.reaped.wrapping_add(ahead));
                }
            }
        }
    }
    ring.publish();
    prop_assert!(driver.image() == model.driver.image(), "guest memory differs");
    Ok(())
}
