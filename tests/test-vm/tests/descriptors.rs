//! What a VM leaves behind in its process: nothing. A test of its own, since other tests would be counted too.

#[path = "vm/scribe.rs"]
mod scribe;

use std::time::{Duration, Instant};

use scribe::Offer;
use test_vm::{Options, Order, TestVm};

/// Descriptors, threads and mappings of guest memory.
fn resources() -> (usize, usize, usize) {
    let entries = |path: &str| std::fs::read_dir(path).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter(|line| line.contains("memfd:test-vm")).count();
    (entries("/proc/self/fd"), entries("/proc/self/task"), mapped)
}

#[test]
fn attaching_and_detaching_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let offer = Offer { features: u64::MAX, protocol: u64::MAX, queues: 2 };
    let cycle = |number: usize| {
        let scribe = scribe::serve(&socket, offer);
        let order = if number.is_multiple_of(2) { Order::Qemu } else { Order::CloudHypervisor };
        let mut vm = TestVm::attach(&socket, Options { order, ..Options::default() }).unwrap();
        match number % 3 {
            0 => drop(vm),
            1 => vm.detach().unwrap(),
            _ => vm.reboot().unwrap(),
        }
        scribe.join().unwrap();
        std::fs::remove_file(&socket).unwrap();
    };
    (0..6).for_each(cycle);
    std::thread::sleep(Duration::from_millis(20));
    let before = resources();
    assert_eq!(before.2, 0);
    let held = TestVm::new(Options::default()).unwrap();
    assert_ne!(resources(), before, "a VM that is there is seen");
    drop(held);
    (0..300).for_each(cycle);
    // A joined thread may still be listed for a moment.
    let deadline = Instant::now() + Duration::from_secs(10);
    while resources() != before && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(resources(), before);
}
