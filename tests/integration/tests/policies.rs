//! What becomes of frames when no path of their chain is left, and which way replies take.

use integration::{Bed, Plan, STEADY, intent, port_id};
use test_vm::guest::Guest;
use vhost_backend::chain::OnFailure;
use vhost_backend::host::HostError;
use vhost_backend::liveness::{Cause, State};
use vhost_backend::worker::Act;

fn bed(on_failure: OnFailure) -> Bed {
    let mut bed = Bed::new(&Plan { profile: STEADY, on_failure, ..Plan::default() });
    bed.until_all_up();
    bed.start_traffic(5_000, 4);
    bed.until_arrived("traffic flows", 100);
    bed
}

fn tell(bed: &mut Bed, services: &[&str], act: Act) {
    for service in services {
        bed.host.tell(port_id(service), act).expect("a service port");
    }
}

/// An operator takes out what SPI 1 and SPI 2 do not share.
fn cut(bed: &mut Bed) {
    tell(bed, &["svm2", "svm4"], Act::Fail);
    bed.until_state("svm2", State::Failed);
    bed.until_state("svm4", State::Failed);
    assert_eq!(bed.status("svm2").cause, Cause::Operator);
}

fn mend(mut bed: Bed) {
    tell(&mut bed, &["svm2", "svm4"], Act::Restore);
    bed.until_state("svm2", State::Up);
    let before = bed.counters("svm2").tx_packets;
    bed.until("svm2 is used again", |bed| bed.counters("svm2").tx_packets > before + 500);
    bed.until_arrived("traffic flows", 100);
}

#[test]
fn block_drops_until_a_path_returns() {
    let mut bed = bed(OnFailure::Block);
    cut(&mut bed);
    bed.until("frames are blocked", |bed| bed.drops("vm5", "blocked") > 500);
    let before = bed.arrived().received;
    let blocked = bed.drops("vm5", "blocked");
    bed.until("more are", |bed| bed.drops("vm5", "blocked") > blocked + 500);
    assert_eq!(bed.arrived().received, before, "none got past");
    mend(bed);
}

#[test]
fn allow_goes_past_the_services() {
    let mut bed = bed(OnFailure::Allow);
    cut(&mut bed);
    bed.until_arrived("traffic goes on", 500);
    let before = bed.counters("svm1").tx_packets;
    bed.until_arrived("and on", 1000);
    assert!(bed.counters("svm1").tx_packets < before + 200, "svm1 sees probes only");
    mend(bed);
}

#[test]
fn bypass_skips_the_dead_service_only() {
    let mut bed = bed(OnFailure::Bypass);
    cut(&mut bed);
    bed.until_arrived("traffic goes on", 500);
    let sent = |bed: &Bed| ["svm1", "svm2", "svm3", "svm4"].map(|name| bed.counters(name).tx_packets);
    let before = sent(&bed);
    bed.until_arrived("and on", 1000);
    let after = sent(&bed);
    let [svm1, svm2, svm3, svm4] = [0, 1, 2, 3].map(|i| after[i] - before[i]);
    assert!(svm1 > 900 && svm3 > 900, "{svm1} {svm3}");
    assert!(svm2 < 200 && svm4 < 200, "{svm2} {svm4}");
    mend(bed);
}

#[test]
fn replies_take_the_same_services() {
    let mut bed = bed(OnFailure::Block);
    bed.tenants[1].set_returning(true);
    bed.until("replies come", |bed| bed.tenants[0].sink().report().received > 1000);
    tell(&mut bed, &["svm2"], Act::Fail);
    bed.until_state("svm2", State::Failed);
    let before = bed.tenants[0].sink().report().received;
    bed.until("replies come through svm4", |bed| bed.tenants[0].sink().report().received > before + 1000);
    bed.drain();
    let (asked, answered) = (bed.arrived(), bed.tenants[0].sink().report());
    assert_eq!((asked.duplicated, asked.corrupt, answered.duplicated, answered.corrupt), (0, 0, 0, 0));
    let svm4 = bed.counters("svm4");
    let share = |name: &str| bed.counters(name).tx_packets;
    // Each frame once on its way out and once on its way back.
    assert!(svm4.tx_packets > 1800, "{svm4:?}");
    assert!(share("svm1") > 2 * 1900 && share("svm3") > 2 * 1900);
    assert!(share("svm7") < 500, "the other chain has no traffic");
}

#[test]
fn a_service_is_down_by_any_mechanism_and_up_when_all_agree() {
    let mut bed = bed(OnFailure::Block);
    tell(&mut bed, &["svm2"], Act::ControlPlane(false));
    bed.until_state("svm2", State::Down);
    assert_eq!(bed.status("svm2").cause, Cause::ControlPlane);
    tell(&mut bed, &["svm2"], Act::Fail);
    bed.until_state("svm2", State::Failed);
    tell(&mut bed, &["svm2"], Act::Restore);
    bed.until("the control plane has not agreed", |bed| {
        bed.state("svm2") == State::Down && bed.status("svm2").cause == Cause::ControlPlane
    });
    tell(&mut bed, &["svm2"], Act::ControlPlane(true));
    bed.until_state("svm2", State::Up);
}

#[test]
fn older_tables_and_strangers_are_refused() {
    let mut bed = bed(OnFailure::Block);
    bed.host.set_intent(&intent(7, OnFailure::Allow)).expect("newer tables");
    let stale = bed.host.set_intent(&intent(6, OnFailure::Block)).unwrap_err();
    assert!(matches!(stale, HostError::Stale { .. }), "{stale}");
    assert_eq!(bed.host.tables().generation().0, 7);
    let stranger = bed.host.tell(port_id("vm5"), Act::Fail).unwrap_err();
    assert!(matches!(stranger, HostError::NoService(_)), "{stranger}");
    bed.until_arrived("traffic goes on", 200);
    assert_eq!(bed.counters("svm4").tx_packets.saturating_sub(200), 0, "pinned flows stay on SPI 1");
    bed.service("svm2").vm().kill();
    bed.until("svm2 gets no more traffic", |bed| !bed.state("svm2").usable());
    bed.until_arrived("new tables still have SPI 2", 200);
}
