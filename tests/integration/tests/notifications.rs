//! Who is called for what came: once for a batch, and not at all who asked for no calls, with EVENT_IDX and with flags.

use std::time::{Duration, Instant};

use integration::{Bed, PATIENCE, Plan, mac};
use rstest::rstest;
use test_vm::guest::Guest;
use test_vm::{Options, TestVm};

const VM6: usize = 1;
const VM9: usize = 2;
/// Frames that a worker takes at a time.
const BATCH: usize = 32;

fn bed(event_idx: bool) -> Bed {
    let options = Options { event_idx, ..Options::default() };
    let mut bed = Bed::new(&Plan { options, ..Plan::default() });
    // Both ways, so that both rings are known to work.
    for (from, to) in [(VM9, VM6), (VM6, VM9)] {
        burst(&mut bed, from, to, 1);
    }
    bed
}

/// Shows the backend `count` frames at once and waits until they have arrived, without a look at the rings beside.
fn burst(bed: &mut Bed, from: usize, to: usize, count: usize) {
    let mut frame = [0; 64];
    let names = ["vm5", "vm6", "vm9"];
    frame[..6].copy_from_slice(&mac(names[to]));
    frame[6..12].copy_from_slice(&mac(names[from]));
    frame[12..14].copy_from_slice(&[0x88, 0xB5]);
    let before = bed.counters(names[to]).rx_packets;
    let vm = bed.tenants[from].vm();
    for _ in 0..count {
        assert!(vm.send(&frame));
    }
    vm.flush();
    let begin = Instant::now();
    while bed.counters(names[to]).rx_packets < before + count as u64 {
        assert!(begin.elapsed() < PATIENCE, "the frames do not arrive");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// So many calls came: waits for those expected, and a while for any beyond them.
fn called(expected: u64, mut calls: impl FnMut() -> u64) -> u64 {
    let (begin, mut sum) = (Instant::now(), calls());
    while sum < expected && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
        sum += calls();
    }
    std::thread::sleep(Duration::from_millis(20));
    sum + calls()
}

/// Takes all frames that are there.
fn take(vm: &mut TestVm) -> usize {
    let mut taken = 0;
    while let count @ 1.. = vm.pair(0).rx.receive(|_| {}) {
        taken += count;
    }
    taken
}

#[rstest]
fn a_receiver_is_called_once_for_a_batch_and_only_if_it_wants(#[values(true, false)] event_idx: bool) {
    let mut bed = bed(event_idx);
    for _ in 0..3 {
        let vm = bed.tenants[VM6].vm();
        take(vm);
        vm.pair(0).rx.disarm();
        assert!(!vm.pair(0).rx.arm());
        burst(&mut bed, VM9, VM6, BATCH);
        let vm = bed.tenants[VM6].vm();
        assert_eq!(called(1, || vm.pair(0).rx.calls()), 1);
        assert_eq!(take(vm), BATCH);

        bed.tenants[VM6].vm().pair(0).rx.disarm();
        burst(&mut bed, VM9, VM6, BATCH);
        let vm = bed.tenants[VM6].vm();
        assert_eq!(called(0, || vm.pair(0).rx.calls()), 0);
        assert_eq!(take(vm), BATCH);
    }
}

#[rstest]
fn a_sender_is_called_once_for_a_batch_and_only_if_it_wants(#[values(true, false)] event_idx: bool) {
    let mut bed = bed(event_idx);
    for _ in 0..3 {
        let tx = &mut bed.tenants[VM9].vm().pair(0).tx;
        tx.reap();
        tx.disarm();
        assert!(!tx.arm());
        burst(&mut bed, VM9, VM6, BATCH);
        let tx = &mut bed.tenants[VM9].vm().pair(0).tx;
        assert_eq!(called(1, || tx.calls()), 1);
        assert_eq!(tx.reap(), BATCH);

        tx.disarm();
        burst(&mut bed, VM9, VM6, BATCH);
        let tx = &mut bed.tenants[VM9].vm().pair(0).tx;
        assert_eq!(called(0, || tx.calls()), 0);
        assert_eq!(tx.reap(), BATCH);
        take(bed.tenants[VM6].vm());
    }
}

/// With EVENT_IDX a driver names the frame it wants to be called for; one call serves for all that follow it.
#[test]
fn with_event_idx_no_call_comes_before_the_driver_has_armed_again() {
    let mut bed = bed(true);
    let vm = bed.tenants[VM6].vm();
    take(vm);
    vm.pair(0).rx.disarm();
    assert!(!vm.pair(0).rx.arm());
    for expected in [1, 0, 0] {
        burst(&mut bed, VM9, VM6, BATCH);
        let vm = bed.tenants[VM6].vm();
        assert_eq!(called(expected, || vm.pair(0).rx.calls()), expected);
    }
}
