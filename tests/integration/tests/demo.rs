//! `livepath demo`, played for a moment: what it reports is what INTERFACES promises and what happened.

use std::time::Duration;

use serde_json::Value;
use test_vm::guest::Fault;
use vmm_glue::demo::{DemoOptions, DemoReport, GuestKind, View, play};

fn demo(fault: Fault) -> DemoReport {
    demo_with(fault, "0")
}

fn demo_with(fault: Fault, retain: &str) -> DemoReport {
    let options = DemoOptions {
        guests: GuestKind::Test,
        fault,
        duration: Duration::from_millis(800),
        rate: 5_000,
        // On a busy machine the guests' thread may have to wait its turn.
        liveness: "relaxed".into(),
        retain: retain.into(),
        capture: None,
    };
    play(&options, &mut View::silent()).unwrap()
}

fn service<'a>(report: &'a DemoReport, name: &str) -> &'a vmm_glue::demo::ServiceLine {
    report.services.iter().find(|service| service.name == name).unwrap()
}

fn paths(report: &DemoReport) -> Vec<(u32, &str)> {
    report.paths.iter().map(|path| (path.spi, path.state.as_str())).collect()
}

/// Every figure that a sound run cannot but have.
fn is_sound(report: &DemoReport) {
    let packets = &report.packets;
    assert!(packets.sent > 1000, "{report:#?}");
    assert_eq!(packets.sent, packets.delivered + packets.lost, "{report:#?}");
    assert_eq!(packets.duplicated, 0, "{report:#?}");
    assert!(report.liveness.in_band > 0, "{report:#?}");
    assert_eq!(report.liveness.queries, report.liveness.in_band + report.liveness.probes);
    assert!(report.liveness.responses > 0);
    assert_eq!(report.liveness.false_down, 0, "{report:#?}");
    assert!(report.rate.before_mpps > 0.0 && report.rate.after_mpps > 0.0, "{report:#?}");
}

/// Nothing was lost, and no flow out of order.
fn is_whole(report: &DemoReport) {
    assert_eq!((report.packets.lost, report.packets.reordered), (0, 0), "{report:#?}");
}

fn switches(fault: Fault, causes: &[&str]) -> DemoReport {
    let report = demo(fault);
    is_sound(&report);
    let detection = report.detection.as_ref().expect("noticed");
    assert!(causes.contains(&detection.cause.as_str()), "{detection:?}");
    assert!(detection.detected_after_us > 0);
    assert!(detection.detected_after_us <= detection.switched_after_us, "{detection:?}");
    assert!(detection.detected_after_us <= detection.reported_after_us, "{detection:?}");
    report
}

#[test]
fn a_frozen_service_vm_is_replaced() {
    let report = switches(Fault::Freeze, &["driver-stalled"]);
    assert_eq!(service(&report, "svm2").state, "down");
    let evidence = service(&report, "svm2").evidence;
    assert!(evidence.attached && !evidence.driver && !evidence.service);
    assert_eq!(paths(&report), [(1, "down"), (2, "up"), (3, "up")]);
    assert!(report.packets.salvaged > 0, "{report:#?}");
    is_whole(&report);
}

#[test]
fn a_hung_service_is_replaced() {
    let report = switches(Fault::Hang, &["no-response"]);
    let evidence = service(&report, "svm2").evidence;
    assert!(evidence.attached && evidence.driver && !evidence.service);
    assert_eq!(paths(&report), [(1, "down"), (2, "up"), (3, "up")]);
    assert!(report.packets.lost <= report.guests.swallowed.unwrap(), "lost elsewhere: {report:#?}");
}

#[test]
fn a_hung_service_costs_nothing_if_frames_are_retained() {
    let report = demo_with(Fault::Hang, "8MiB");
    is_sound(&report);
    is_whole(&report);
}

#[test]
fn a_killed_vmm_is_replaced() {
    let report = switches(Fault::Kill, &["detached"]);
    assert!(!service(&report, "svm2").evidence.attached);
    is_whole(&report);
}

#[test]
fn a_vnic_that_is_reset_is_replaced() {
    is_whole(&switches(Fault::Reset, &["ring-stopped"]));
}

#[test]
fn a_service_that_drops_everything_stays_up() {
    let report = demo(Fault::DropAll);
    assert_eq!(report.detection, None);
    assert_eq!(service(&report, "svm2").state, "up");
    assert!(report.packets.lost > 0, "it did drop");
    assert_eq!((report.packets.duplicated, report.liveness.false_down), (0, 0));
}

#[test]
fn without_a_fault_nothing_is_lost_and_nobody_taken_down() {
    let report = demo(Fault::None);
    is_sound(&report);
    assert_eq!((report.packets.lost, report.packets.reordered, report.packets.reflected), (0, 0, 0));
    assert_eq!(report.detection, None);
    assert!(report.services.iter().all(|service| service.state == "up"), "{report:#?}");
}

#[test]
fn the_json_object_has_the_promised_keys() {
    let report = serde_json::to_value(demo(Fault::Kill)).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&report), ["detection", "guests", "liveness", "packets", "paths", "rate", "services"]);
    let packets = ["delivered", "duplicated", "lost", "reflected", "reordered", "salvaged", "sent"];
    assert_eq!(keys(&report["packets"]), packets);
    let detection = [
        "all_hosts_after_us",
        "cause",
        "detected_after_us",
        "reported_after_us",
        "steps",
        "switched_after_us",
    ];
    assert_eq!(keys(&report["detection"]), detection);
    let steps = [
        "first_salvaged_after_us",
        "heard_after_us",
        "salvaged_after_us",
        "sent_after_us",
        "stood_in_after_us",
        "stood_still_us",
        "storing_us",
        "swapped_after_us",
        "table_after_us",
    ];
    assert_eq!(keys(&report["detection"]["steps"]), steps);
    assert_eq!(keys(&report["services"][0]), ["cause", "evidence", "name", "state"]);
    assert_eq!(keys(&report["services"][0]["evidence"]), ["attached", "driver", "forwarding", "service"]);
    assert_eq!(keys(&report["paths"][0]), ["spi", "state"]);
    assert_eq!(keys(&report["liveness"]), ["false_down", "in_band", "probes", "queries", "responses"]);
    assert_eq!(keys(&report["guests"]), ["stood_still_us", "swallowed"]);
    assert_eq!(keys(&report["rate"]), ["after_mpps", "before_mpps"]);
}
