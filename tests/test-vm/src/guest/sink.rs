//! Checks what arrives: loss, duplicates, order, damage, latency, gaps.

use std::time::Duration;

use super::Latency;
use super::payload::{self, Stamp, Wrong};

/// Sequence numbers behind the newest that a flow remembers one by one.
pub const WINDOW: u32 = 4096;
const WORDS: usize = WINDOW as usize / 64;

/// What a [`Sink`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Good frames, repeated ones included.
    pub received: u64,
    /// Different good frames.
    pub unique: u64,
    /// Frames that had come before.
    pub duplicated: u64,
    /// Frames that came after a later one of their flow.
    pub reordered: u64,
    /// Frames so late that it is not known any more whether they came before ([`WINDOW`]). Not counted as unique.
    pub late: u64,
    /// Sequence numbers below the newest of their flow that have not come. What is lost at the end of a flow only its sender
    /// knows: loss is `sent - unique`.
    pub missing: u64,
    /// Frames of ours that were changed on the way.
    pub corrupt: u64,
    /// Frames that are no test frames, or of another run.
    pub foreign: u64,
    /// Bytes of good frames.
    pub bytes: u64,
}

/// The checking end of a tenant's traffic.
#[derive(Clone, Debug)]
pub struct Sink {
    run: u16,
    patterned: bool,
    flows: Vec<Flow>,
    report: Report,
    latency: Latency,
    last_arrival: Option<Duration>,
    longest_gap: Duration,
}

#[derive(Clone, Debug)]
struct Flow {
    /// The next number after the newest seen. The first frame is number 0.
    next: u32,
    /// Bit `seq % WINDOW` for the numbers `next - WINDOW..next`.
    seen: [u64; WORDS],
    unique: u64,
    /// How many numbers lie before `next`, without wrapping.
    reached: u64,
}

impl Flow {
    const NEW: Flow = Flow { next: 0, seen: [0; WORDS], unique: 0, reached: 0 };

    #[inline]
    fn bit(seq: u32) -> (usize, u64) {
        ((seq % WINDOW / 64) as usize, 1 << (seq % 64))
    }

    /// Moves the window so that `seq` is its newest number.
    fn advance(&mut self, seq: u32) {
        let steps = seq.wrapping_sub(self.next).wrapping_add(1);
        self.reached += u64::from(steps);
        if steps >= WINDOW {
            self.seen = [0; WORDS];
        } else {
            for passed in 0..steps {
                let (word, bit) = Flow::bit(self.next.wrapping_add(passed));
                self.seen[word] &= !bit;
            }
        }
        self.next = seq.wrapping_add(1);
    }
}

impl Sink {
    /// A sink for the flows of run `run`. With `patterned` the whole payload is checked, otherwise headers and fields.
    pub fn new(run: u16, patterned: bool) -> Sink {
        Sink {
            run,
            patterned,
            flows: Vec::new(),
            report: Report::default(),
            latency: Latency::default(),
            last_arrival: None,
            longest_gap: Duration::ZERO,
        }
    }

    /// Checks one frame. True if it is a good one, repeated or not.
    #[inline]
    pub fn take(&mut self, frame: &[u8], now: Duration) -> bool {
        let stamp = match payload::read(frame, self.patterned) {
            Ok(stamp) if stamp.run == self.run => stamp,
            Ok(_) | Err(Wrong::Foreign) => {
                self.report.foreign += 1;
                return false;
            }
            Err(Wrong::Corrupt) => {
                self.report.corrupt += 1;
                return false;
            }
        };
        self.report.received += 1;
        self.report.bytes += frame.len() as u64;
        self.note_sequence(stamp);
        let now_nanos = now.as_nanos() as u64;
        self.latency.record(now_nanos.saturating_sub(stamp.time));
        if let Some(last) = self.last_arrival {
            self.longest_gap = self.longest_gap.max(now.saturating_sub(last));
        }
        self.last_arrival = Some(now);
        true
    }

    #[inline]
    fn note_sequence(&mut self, stamp: Stamp) {
        let index = usize::from(stamp.flow);
        if index >= self.flows.len() {
            // A flow seen for the first time: the one allocation, 65536 flows at most.
            self.flows.resize(index + 1, Flow::NEW);
        }
        let flow = &mut self.flows[index];
        let behind = flow.next.wrapping_sub(1).wrapping_sub(stamp.seq);
        let ahead = stamp.seq.wrapping_sub(flow.next);
        let (word, bit) = Flow::bit(stamp.seq);
        if ahead < 1 << 31 {
            flow.advance(stamp.seq);
        } else if behind >= WINDOW || u64::from(behind) >= flow.reached {
            self.report.late += 1;
            return;
        } else if flow.seen[word] & bit != 0 {
            self.report.duplicated += 1;
            return;
        } else {
            self.report.reordered += 1;
        }
        flow.seen[word] |= bit;
        flow.unique += 1;
        self.report.unique += 1;
    }

    /// What was seen so far.
    pub fn report(&self) -> Report {
        let missing = self.flows.iter().map(|flow| flow.reached - flow.unique).sum();
        Report { missing, ..self.report }
    }

    /// Different good frames of one flow.
    pub fn unique(&self, flow: u16) -> u64 {
        self.flows.get(usize::from(flow)).map_or(0, |flow| flow.unique)
    }

    /// Time from sending to arrival.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// When the newest good frame came.
    pub fn last_arrival(&self) -> Option<Duration> {
        self.last_arrival
    }

    /// The longest time between two good frames since the last call.
    pub fn take_longest_gap(&mut self) -> Duration {
        std::mem::take(&mut self.longest_gap)
    }

    /// Forgets the latencies recorded so far.
    pub fn clear_latency(&mut self) {
        self.latency = Latency::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Endpoint;
    use std::net::Ipv4Addr;

    const RUN: u16 = 3;

    fn frame(flow: u16, seq: u32) -> Vec<u8> {
        let end = |last| Endpoint { mac: [2, 0, 0, 0, 0, last], ip: Ipv4Addr::new(10, 0, 0, last) };
        let mut frame = vec![0; 80];
        let headers = payload::headers(end(5), end(6), (1, 2), frame.len());
        payload::write(&mut frame, &headers, Stamp { run: RUN, flow, seq, time: 1_000 }, true);
        frame
    }

    fn seen(seqs: impl IntoIterator<Item = u32>) -> Report {
        let mut sink = Sink::new(RUN, true);
        for seq in seqs {
            assert!(sink.take(&frame(0, seq), Duration::from_micros(2)));
        }
        sink.report()
    }

    #[test]
    fn a_flow_in_order_is_clean() {
        let report = seen(0..10_000);
        let clean = Report { received: 10_000, unique: 10_000, bytes: 800_000, ..Report::default() };
        assert_eq!(report, clean);
    }

    #[test]
    fn loss_is_detected_in_the_middle_and_at_the_start() {
        assert_eq!(seen((0..100).filter(|seq| seq % 10 != 3)).missing, 10);
        assert_eq!(seen(5..10).missing, 5);
        assert_eq!(seen((0..5000).chain(20_000..20_100)).missing, 15_000);
    }

    #[test]
    fn duplicates_are_detected_next_to_each_other_and_far_apart() {
        assert_eq!(seen([0, 1, 1, 2]).duplicated, 1);
        assert_eq!(seen((0..WINDOW).chain([0])).duplicated, 1);
        assert_eq!(seen((0..50).chain(0..50)).duplicated, 50);
    }

    #[test]
    fn reordering_is_detected_and_is_not_loss() {
        let report = seen([0, 2, 1, 3, 6, 5, 4]);
        assert_eq!((report.reordered, report.missing, report.duplicated, report.unique), (3, 0, 0, 7));
    }

    #[test]
    fn what_is_older_than_the_window_is_late_not_guessed() {
        let report = seen((0..10_000).chain([0, 10_000 - WINDOW - 1]));
        assert_eq!((report.late, report.duplicated, report.reordered), (2, 0, 0));
        // The first frame of all can only be number 0 or later.
        assert_eq!(seen([0, u32::MAX]).late, 1);
    }

    #[test]
    fn flows_are_told_apart() {
        let mut sink = Sink::new(RUN, true);
        for seq in 0..3 {
            for flow in [0, 9, 4000] {
                sink.take(&frame(flow, seq), Duration::ZERO);
            }
        }
        sink.take(&frame(9, 5), Duration::ZERO);
        let report = sink.report();
        assert_eq!((report.unique, report.missing, report.duplicated), (10, 2, 0));
        assert_eq!((sink.unique(0), sink.unique(9), sink.unique(1)), (3, 4, 0));
    }

    #[test]
    fn damage_and_strangers_are_counted_apart() {
        let mut sink = Sink::new(RUN, true);
        let mut bad = frame(0, 0);
        bad[70] ^= 1;
        assert!(!sink.take(&bad, Duration::ZERO));
        assert!(!sink.take(&[0; 80], Duration::ZERO));
        assert!(!Sink::new(RUN + 1, true).take(&frame(0, 0), Duration::ZERO));
        let report = sink.report();
        assert_eq!((report.corrupt, report.foreign, report.received), (1, 1, 0));
    }

    #[test]
    fn latency_and_gaps_are_measured() {
        let mut sink = Sink::new(RUN, true);
        for (seq, at) in [(0, 2), (1, 3), (2, 50), (3, 51)] {
            sink.take(&frame(0, seq), Duration::from_micros(at));
        }
        assert_eq!(sink.latency().max(), Duration::from_micros(50));
        assert_eq!(sink.last_arrival(), Some(Duration::from_micros(51)));
        assert_eq!(sink.take_longest_gap(), Duration::from_micros(47));
        assert_eq!(sink.take_longest_gap(), Duration::ZERO);
    }
}
