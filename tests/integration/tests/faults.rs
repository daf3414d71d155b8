//! How a service VM fails, and what its liveness session makes of it.

use std::time::Duration;

use integration::{Bed, Plan, STEADY, port_id};
use test_vm::guest::{Fault, Guest, Service};
use vhost_backend::liveness::{Cause, Counters, Profile, State, Transition};
use vhost_backend::telemetry::EventKind;

/// Frames a second.
const RATE: u64 = 5_000;

fn bed(profile: Profile) -> Bed {
    let mut bed = Bed::new(&Plan { profile, ..Plan::default() });
    bed.until_all_up();
    bed.start_traffic(RATE, 4);
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
    bed.until_cause("svm2", cause);
    bed.until_arrived("traffic takes SPI 2", 500);
    assert!(bed.counters("svm4").tx_packets > 400);
    inject(&mut bed, Fault::None);
    bed.until_state("svm2", State::Up);
    bed.until_arrived("traffic goes on", 200);
    is_told(&mut bed, cause);
    bed
}

/// The log has the story in order: out of use for `cause` with the evidence that goes with it, then recovering, then Up; and
/// what was counted agrees with it.
fn is_told(bed: &mut Bed, cause: Cause) {
    let changes = all_changes(bed);
    let first = changes.first().expect("it came up at first");
    assert_eq!((first.from, first.to), (State::Init, State::Up), "{changes:?}");
    assert!(changes.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].at <= pair[1].at));
    let out = changes.iter().position(|change| (change.to, change.cause) == (State::Down, cause));
    let out = out.unwrap_or_else(|| panic!("never out for {cause}: {changes:?}"));
    let seen = changes[out].evidence;
    let levels = match cause {
        Cause::NoResponse => (true, true, false),
        Cause::DriverStalled => (true, false, false),
        _ => (false, false, false),
    };
    assert_eq!((seen.attached, seen.driver, seen.service), levels, "{cause}");
    let back: Vec<State> =
        changes[out..].iter().map(|change| change.to).filter(|state| *state != State::Down).collect();
    assert_eq!(back[..2], [State::Recovering, State::Up], "{changes:?}");
    let status = bed.status("svm2");
    let flaps = changes.iter().filter(|change| change.from.usable() && !change.to.usable()).count();
    assert_eq!(status.counters.flaps, flaps as u64);
    let counters = status.counters;
    assert!(counters.responses <= counters.in_band + counters.probes, "{counters:?}");
}

/// What was told of svm2, oldest first, once that is all that was counted.
fn all_changes(bed: &mut Bed) -> Vec<Transition> {
    // The status may show a change before its event has come.
    let counted = |bed: &Bed| bed.status("svm2").transitions.iter().map(|(_, _, times)| times).sum::<u64>();
    bed.until("every change is told", |bed| changes(bed).len() as u64 == counted(bed));
    changes(bed)
}

/// What was told of svm2 so far, oldest first.
fn changes(bed: &Bed) -> Vec<Transition> {
    let told = bed.log.iter().filter_map(|event| match event.kind {
        EventKind::Service(port, change) if port == port_id("svm2") => Some(change),
        _ => None,
    });
    told.collect()
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
fn a_hung_service_is_no_response() {
    down(Fault::Hang, Cause::NoResponse);
}

#[test]
fn a_frozen_vcpu_is_driver_stalled() {
    down(Fault::Freeze, Cause::DriverStalled);
}

#[test]
fn a_killed_vmm_is_detached() {
    down(Fault::Kill, Cause::Detached);
}

/// It falls as fast as the first time, however often it fell, and each time it has to hold out twice as long before it gets
/// traffic again.
#[test]
fn a_flapping_service_falls_at_once_and_comes_back_ever_later() {
    const FALLS: u32 = 4;
    let profile = Profile { hold_down: Duration::from_millis(100), ..Profile::DEFAULT };
    let mut bed = bed(profile);
    for fall in 1..=FALLS {
        let before = bed.service("svm2").swallowed();
        inject(&mut bed, Fault::Hang);
        bed.until(&format!("fall {fall}"), |bed| !bed.state("svm2").usable());
        // What is sent and what hangs stand still together on a machine that starves them, so this is no matter of time.
        let lost = bed.service("svm2").swallowed() - before;
        assert!(
            lost < RATE / 2,
            "fall {fall} cost {lost} frames; a hung service takes 150 until it is noticed"
        );
        let passed = bed.counters("svm4").tx_packets;
        bed.until("traffic takes SPI 2", |bed| bed.counters("svm4").tx_packets >= passed + 200);
        let then = bed.status("svm2").counters;
        inject(&mut bed, Fault::None);
        bed.until(&format!("it is back after fall {fall}"), |bed| {
            let now = bed.status("svm2");
            // Where it fell once more meanwhile it had been given traffic, and rightly so.
            let asked = now.counters.in_band == then.in_band || now.counters.flaps > then.flaps;
            assert!(now.state.usable() || asked, "it gets no traffic before it is Up: {now:#?}");
            now.state == State::Up
        });
        bed.until_arrived("traffic goes on", 200);
    }
    let returns = returns(&all_changes(&mut bed));
    assert!(returns.last().is_some_and(|(falls, _)| *falls >= FALLS), "{returns:?}");
    for (falls, held) in &returns {
        assert!(*held >= profile.hold_down * 2_u32.pow(falls - 1), "{returns:?}");
    }
}

/// Of each time the service VM was Up again: how often it had fallen before, and for how long it had answered.
fn returns(changes: &[Transition]) -> Vec<(u32, Duration)> {
    let (mut falls, mut began, mut returns) = (0, None, Vec::new());
    for change in changes {
        falls += u32::from(change.from.usable() && !change.to.usable());
        match (change.from, change.to) {
            (_, State::Recovering) => began = Some(change.at),
            (State::Recovering, State::Up) => {
                let held = began.map_or(Duration::ZERO, |began| change.at.saturating_since(began));
                returns.push((falls, held));
            }
            _ => {}
        }
    }
    returns
}

/// Nothing but probes goes to them.
#[test]
fn on_an_idle_path_the_causes_are_the_same() {
    for (fault, cause) in [
        (Fault::Hang, Cause::NoResponse),
        (Fault::Freeze, Cause::DriverStalled),
        (Fault::Kill, Cause::Detached),
    ] {
        let mut bed = Bed::new(&Plan::default());
        bed.until_all_up();
        inject(&mut bed, fault);
        bed.until_cause("svm2", cause);
        inject(&mut bed, Fault::None);
        bed.until_state("svm2", State::Up);
        is_told(&mut bed, cause);
        assert_eq!(bed.status("svm2").counters.in_band, 0);
    }
}

/// A driver that was frozen takes frames again, but its service hangs.
#[test]
fn the_cause_follows_what_is_seen() {
    let mut bed = bed(Profile::DEFAULT);
    inject(&mut bed, Fault::Freeze);
    bed.until_cause("svm2", Cause::DriverStalled);
    inject(&mut bed, Fault::Hang);
    bed.until_cause("svm2", Cause::NoResponse);
    inject(&mut bed, Fault::Freeze);
    bed.until_cause("svm2", Cause::DriverStalled);
    inject(&mut bed, Fault::Kill);
    bed.until_cause("svm2", Cause::Detached);
    inject(&mut bed, Fault::None);
    bed.until_state("svm2", State::Up);
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
    bed.until_cause("svm2", Cause::RingStopped);
    bed.until_state("svm2", State::Up);
    is_told(&mut bed, Cause::RingStopped);
}

#[test]
fn answers_that_come_twice_count_once() {
    let bed = up(Fault::Duplicate, |counters| counters.duplicate);
    let counters = bed.status("svm2").counters;
    assert!(counters.responses <= counters.in_band + counters.probes, "{counters:?}");
}

#[test]
fn answers_out_of_order_count() {
    let bed = up(Fault::Swap, |counters| counters.responses);
    assert_eq!(bed.status("svm2").counters.stale, 0);
}

/// A millisecond beyond the tolerance is as good as never; what comes then is of a life that is over.
#[test]
fn answers_that_come_far_too_late_are_no_response() {
    let bed = down(Fault::Delay(Duration::from_millis(200)), Cause::NoResponse);
    assert!(bed.status("svm2").counters.stale > 0);
    assert!(bed.drops("svm2", "stale") > 0, "nor are its frames let through");
}

#[test]
fn a_slow_service_is_degraded_and_stays_up() {
    let mut bed = up(Fault::Delay(Duration::from_millis(30)), |counters| counters.late);
    assert!(bed.counters("svm4").tx_packets < 200, "SPI 2 was used");
    bed.until("it is told", |bed| degradations(bed) == [true] && bed.status("svm2").degraded);
    let suspected = |bed: &Bed| bed.told(is_suspicion);
    let before = suspected(&bed);
    let late = bed.status("svm2").counters.late;
    bed.until("it goes on", |bed| bed.status("svm2").counters.late > late + 50);
    assert_eq!(suspected(&bed), before, "known to be slow");
    inject(&mut bed, Fault::None);
    bed.until("it is told", |bed| degradations(bed) == [true, false] && !bed.status("svm2").degraded);
}

fn degradations(bed: &Bed) -> Vec<bool> {
    let svm2 = |kind: &EventKind| match kind {
        EventKind::Degraded(port, degraded) if *port == port_id("svm2") => Some(*degraded),
        _ => None,
    };
    bed.log.iter().filter_map(|event| svm2(&event.kind)).collect()
}

fn is_suspicion(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Service(port, change) if *port == port_id("svm2") && change.to == State::Suspect)
}

#[test]
fn a_service_in_copy_mode_stays_up_without_evidence_of_forwarding() {
    let mut bed = bed(STEADY);
    bed.service("svm2").set_service(Service::Copy);
    bed.until("nothing comes back", |bed| !bed.status("svm2").evidence.forwarding);
    let before = bed.status("svm2").counters.responses;
    bed.until("it answers", |bed| bed.status("svm2").counters.responses > before + 20);
    let status = bed.status("svm2");
    assert!(status.state.usable() && status.evidence.service && status.counters.flaps == 0);
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
