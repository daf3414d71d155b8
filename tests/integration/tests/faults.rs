//! How a service VM fails, and what its liveness session makes of it.

use std::time::Duration;

use integration::{Bed, Plan, STEADY};
use test_vm::guest::{Fault, Guest};
use vhost_backend::liveness::{Cause, Counters, Profile, State};

fn bed(profile: Profile) -> Bed {
    let mut bed = Bed::new(&Plan { profile, ..Plan::default() });
    bed.until_all_up();
    bed.start_traffic(5_000, 4);
    bed.until_arrived("traffic flows", 100);
    bed
}

fn inject(bed: &mut Bed, fault: Fault) {
    let now = bed.now();
    bed.service("svm2").inject(fault, now).expect("the fault is made");
}

/// The service VM goes Down for `cause`, the flow goes on through SPI 2, and it comes back.
fn down(fault: Fault, cause: Cause) -> Bed {
    let mut bed = bed(Profile::DEFAULT);
    inject(&mut bed, fault);
    bed.until("svm2 gets no more traffic", |bed| !bed.state("svm2").usable());
    assert_eq!(bed.status("svm2").cause, cause);
    bed.until_arrived("traffic takes SPI 2", 500);
    assert!(bed.counters("svm4").tx_packets > 400);
    inject(&mut bed, Fault::None);
    bed.until_state("svm2", State::Up);
    bed.until_arrived("traffic goes on", 200);
    bed
}

/// The service VM stays in use, and `seen` is counted.
fn up(fault: Fault, seen: impl Fn(&Counters) -> u64) -> Bed {
    let mut bed = bed(STEADY);
    inject(&mut bed, fault);
    bed.until(&format!("{fault} is counted"), |bed| seen(&bed.status("svm2").counters) > 20);
    assert!(bed.state("svm2").usable());
    assert_eq!(bed.status("svm2").counters.flaps, 0);
    bed
}

#[test]
fn mute_is_no_response() {
    down(Fault::Mute, Cause::NoResponse);
}

#[test]
fn answers_of_another_life_are_no_response() {
    let bed = down(Fault::Stale, Cause::NoResponse);
    assert!(bed.status("svm2").counters.stale > 0);
    assert!(bed.drops("svm2", "stale") > 0, "nor are its frames let through");
}

#[test]
fn answers_to_what_was_not_asked_are_no_response() {
    let bed = down(Fault::UnknownSeq, Cause::NoResponse);
    assert!(bed.status("svm2").counters.unknown > 0);
}

#[test]
fn answers_on_another_path_are_no_response() {
    let bed = down(Fault::WrongSpi, Cause::NoResponse);
    assert!(bed.drops("svm2", "no_path") > 0);
}

#[test]
fn answers_from_another_hop_are_no_response() {
    let bed = down(Fault::WrongSi, Cause::NoResponse);
    assert!(bed.drops("svm2", "no_path") > 0);
}

#[test]
fn a_reset_is_ring_stopped() {
    // It heals by itself.
    let mut bed = bed(Profile::DEFAULT);
    inject(&mut bed, Fault::Reset);
    bed.until("svm2 gets no more traffic", |bed| !bed.state("svm2").usable());
    assert_eq!(bed.status("svm2").cause, Cause::RingStopped);
    bed.until_state("svm2", State::Up);
}

#[test]
fn answers_that_come_twice_count_once() {
    let bed = up(Fault::Duplicate, |counters| counters.duplicate);
    let counters = bed.status("svm2").counters;
    assert!(counters.responses <= counters.in_band + counters.probes, "{counters:?}");
}

#[test]
fn a_slow_service_stays_up() {
    let bed = up(Fault::Delay(Duration::from_millis(30)), |counters| counters.late);
    assert!(bed.counters("svm4").tx_packets < 200, "SPI 2 was used");
}

#[test]
fn a_service_that_drops_everything_stays_up() {
    let mut bed = up(Fault::DropAll, |counters| counters.dropped);
    let before = bed.arrived().received;
    bed.run(Duration::from_millis(100));
    bed.drain();
    assert!(bed.arrived().received < before + 100, "what the service drops stays dropped");
    assert_eq!(bed.state("svm2"), State::Up);
}
