//! The driver against the framework's own queue code: every combination of ring features and shapes.

use std::time::{Duration, Instant};

use crate::echo::{Manners, attach, attach_to};
use test_vm::{ChainShape, Options, TestVm};

/// Frame `number`: its length and every byte follow from the number.
fn frame(number: u32, max: usize) -> Vec<u8> {
    let len = 60 + (number as usize * 37) % (max - 60 + 1);
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((4..len).map(|at| (at as u32 ^ number.wrapping_mul(0x9e37)) as u8));
    bytes
}

/// Sends frames `0..count` and checks that exactly these come back in order.
fn echo_frames(vm: &mut TestVm, count: u32, max: usize, sleep: bool) {
    let (mut sent, mut expected) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while expected < count {
        assert!(Instant::now() < deadline, "{expected} of {count} frames came back, {sent} were sent");
        while sent < count && sent - expected < 100 && vm.send(&frame(sent, max)) {
            sent += 1;
        }
        vm.flush();
        let received = vm.receive(|bytes| {
            assert!(bytes == frame(expected, max), "frame {expected} differs");
            expected += 1;
        });
        if received == 0 {
            if sleep {
                vm.wait(Duration::from_millis(100));
            } else {
                std::thread::yield_now();
            }
        }
    }
    assert_eq!(vm.pair(0).rx.counters().violations, 0);
    assert_eq!(vm.pair(0).tx.counters().violations, 0);
}

#[test]
fn every_combination_of_features_and_shapes_carries_frames() {
    let shapes =
        [ChainShape::Joined, ChainShape::Cut { first: 12, count: 2 }, ChainShape::Cut { first: 5, count: 4 }];
    for bits in 0..16u32 {
        for shape in shapes {
            let options = Options {
                event_idx: bits & 1 != 0,
                mergeable: bits & 2 != 0,
                indirect: bits & 4 != 0,
                in_order: bits & 8 != 0,
                tx_shape: shape,
                rx_shape: shape,
                ..Options::default()
            };
            println!("{options:?}");
            let (_backend, mut vm) = attach(options);
            echo_frames(&mut vm, 600, 1514, bits & 1 != 0);
        }
    }
}

#[test]
fn indices_wrap_beyond_65536_frames() {
    for (event_idx, ring_size) in [(true, 256), (false, 256), (true, 1024), (false, 64)] {
        let (_backend, mut vm) = attach(Options { event_idx, ring_size, ..Options::default() });
        echo_frames(&mut vm, 70_000, 80, false);
        assert_eq!(vm.pair(0).tx.counters().published, 70_000);
        assert!(vm.pair(0).rx.counters().published > 65_536 + 64);
    }
}

#[test]
fn large_frames_are_merged_from_many_buffers() {
    for indirect in [false, true] {
        let options = Options {
            rx_buffer_len: 512,
            tx_buffer_len: 12 + 20_000,
            regions: 3,
            indirect,
            rx_shape: if indirect { ChainShape::Cut { first: 100, count: 3 } } else { ChainShape::Joined },
            ..Options::default()
        };
        let (backend, mut vm) = attach(options);
        echo_frames(&mut vm, 500, 20_000, false);
        assert!(backend.counts.merged.load(std::sync::atomic::Ordering::Relaxed) > 400);
    }
}

#[test]
fn one_used_element_for_a_batch_in_order() {
    let options = Options { in_order: true, ring_size: 64, ..Options::default() };
    let (_backend, mut vm) = attach_to(Manners { batch_used: true }, options);
    echo_frames(&mut vm, 5_000, 1514, false);
    vm.reap();
    assert_eq!(vm.pair(0).tx.in_flight(), 0);
}

#[test]
fn a_polling_driver_asks_for_no_calls() {
    for event_idx in [true, false] {
        let (backend, mut vm) = attach(Options { event_idx, ..Options::default() });
        echo_frames(&mut vm, 5_000, 100, false);
        let calls = backend.counts.calls.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(calls, 0, "EVENT_IDX {event_idx}");
    }
}

#[test]
fn a_sleeping_driver_is_called() {
    for event_idx in [true, false] {
        let (backend, mut vm) = attach(Options { event_idx, ..Options::default() });
        for number in 0..50 {
            // Before there is anything, so that the device has to call for it however fast it is.
            assert!(!vm.pair(0).rx.arm());
            assert!(vm.send(&frame(number, 100)));
            vm.flush();
            while vm.receive(|bytes| assert_eq!(bytes, frame(number, 100))) == 0 {
                assert!(
                    vm.wait(Duration::from_secs(20)),
                    "no call for frame {number}, EVENT_IDX {event_idx}"
                );
            }
        }
        assert!(backend.counts.calls.load(std::sync::atomic::Ordering::Relaxed) >= 1);
    }
}

#[test]
fn one_kick_is_enough_for_a_batch() {
    let (_backend, mut vm) = attach(Options::default());
    let kicks = vm.pair(0).tx.counters().kicks;
    for number in 0..32 {
        assert!(vm.send(&frame(number, 100)));
    }
    vm.flush();
    assert_eq!(vm.pair(0).tx.counters().kicks, kicks + 1);
    assert!(!vm.flush(), "nothing new, no kick");
}

#[test]
fn a_full_ring_and_a_long_frame_are_refused() {
    let mut vm = TestVm::new(Options { ring_size: 16, ..Options::default() }).unwrap();
    assert!(!vm.send(&[0; 2048 - 12 + 1]), "longer than a buffer");
    for _ in 0..16 {
        assert!(vm.send(&[0; 2048 - 12]));
    }
    assert!(!vm.send(&[0; 60]), "the ring is full");
}
