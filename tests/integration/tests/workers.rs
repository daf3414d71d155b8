//! Several workers and several queues: what one worker does on one queue, they do together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use integration::{Bed, PATIENCE, Plan, SERVICES, STEADY, endpoint, intent, mac, port_id};
use test_vm::guest::{Fault, Guest, TenantGuest, Traffic};
use test_vm::{Options, stall};
use vhost_backend::chain::OnFailure;
use vhost_backend::liveness::{Cause, Profile, State};
use vhost_backend::telemetry::EventKind;

const RATE: u64 = 10_000;
const FLOWS: u16 = 24;

fn bed(workers: usize, queue_pairs: usize) -> Bed {
    bed_with(workers, queue_pairs, STEADY)
}

fn bed_with(workers: usize, queue_pairs: usize, profile: Profile) -> Bed {
    let options = Options { queue_pairs, ..Options::default() };
    bed_of(&Plan { profile, options, workers, ..Plan::default() })
}

fn bed_of(plan: &Plan) -> Bed {
    let mut bed = Bed::new(plan);
    bed.until_all_up();
    bed.start_traffic(RATE, FLOWS);
    bed.until("traffic flows", |bed| bed.arrived().received > 1000);
    bed
}

/// Everything sent has arrived, once and in order.
fn assert_whole(bed: &mut Bed) {
    bed.drain();
    let report = bed.arrived();
    assert_eq!(report.received, bed.tenants[0].counters().sent, "{:#?}", bed.host.status());
    assert_eq!((report.missing, report.duplicated, report.reordered, report.corrupt), (0, 0, 0, 0));
}

#[test]
fn workers_pass_frames_to_each_other_whole_and_in_order() {
    let mut bed = bed(3, 1);
    bed.run(Duration::from_millis(300));
    assert_whole(&mut bed);
    assert!(bed.host.workers().iter().filter(|worker| worker.time.rounds > 0).count() == 3);
    assert!(bed.counters("svm2").tx_packets >= bed.arrived().received);
}

#[test]
fn a_flow_stays_in_order_whatever_queues_it_passes() {
    let mut bed = bed(3, 4);
    bed.run(Duration::from_millis(300));
    assert_whole(&mut bed);
    let busy =
        |guest: &mut dyn Guest| guest.vm().pairs().iter().filter(|pair| pair.rx.counters().used > 0).count();
    assert_eq!(busy(&mut bed.tenants[1]), 4, "flows are spread over the destination's queues");
    assert_eq!(busy(bed.service("svm2")), 4, "and over those of a service");
}

/// The queue pairs of vm6 that each flow's frames came by while the others worked, by the flow's source port.
fn queues_of_flows(bed: &mut Bed, frames: usize) -> BTreeMap<u16, BTreeSet<usize>> {
    let mut queues: BTreeMap<u16, BTreeSet<usize>> = BTreeMap::new();
    let (mut seen, begin) = (0, Instant::now());
    while seen < frames {
        assert!(begin.elapsed() < PATIENCE, "{seen} of {frames} frames");
        let now = bed.now();
        bed.tenants[0].step(now);
        bed.services.values_mut().for_each(|service| _ = service.step(now));
        for (queue, pair) in bed.tenants[1].vm().pairs().iter_mut().enumerate() {
            seen += pair.rx.receive(|frame| {
                // UDP over IPv4 without options; what it is told of addresses is none.
                if frame[12..14] == [8, 0] && frame[23] == 17 {
                    let flow = u16::from_be_bytes([frame[34], frame[35]]);
                    queues.entry(flow).or_default().insert(queue);
                }
            });
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    queues
}

fn assert_one_queue_each(queues: &BTreeMap<u16, BTreeSet<usize>>, pairs: usize) {
    assert_eq!(queues.len(), usize::from(FLOWS), "{queues:?}");
    assert!(queues.values().all(|of_flow| of_flow.len() == 1), "{queues:?}");
    let used: BTreeSet<usize> = queues.values().flatten().copied().collect();
    assert!(used.iter().copied().eq(0..pairs), "{queues:?}");
}

#[test]
fn a_flow_stays_on_one_queue() {
    let mut bed = bed(3, 4);
    assert_one_queue_each(&queues_of_flows(&mut bed, 3000), 4);
}

/// A guest with fewer CPUs sets up fewer of the pairs it is offered.
#[test]
fn flows_are_spread_over_the_pairs_a_guest_has_set_up() {
    let mut bed = bed(3, 4);
    let options = Options { mac: mac("vm6"), queue_pairs: 2, ..Options::default() };
    bed.tenants[1].vm().kill();
    bed.tenants[1] = TenantGuest::attach(&bed.socket("vm6"), options, 1, true).unwrap();
    // Until the backend has heard of both pairs.
    bed.until_arrived("traffic goes on", 1000);
    assert_one_queue_each(&queues_of_flows(&mut bed, 3000), 2);
}

/// Or it sets up all of them and enables some, as QEMU does for a Linux guest.
#[test]
fn nothing_goes_to_a_pair_that_is_not_enabled() {
    let mut bed = bed(3, 4);
    bed.drain();
    bed.tenants[1].vm().enable_pairs(2..4, false).unwrap();
    let used = |bed: &mut Bed| {
        let pairs = bed.tenants[1].vm().pairs();
        pairs.iter().map(|pair| pair.rx.counters().used).collect::<Vec<_>>()
    };
    let before = used(&mut bed);
    bed.tenants[0].go_on();
    assert_one_queue_each(&queues_of_flows(&mut bed, 3000), 2);
    bed.drain();
    let after = used(&mut bed);
    assert!(
        after[0] > before[0] && after[1] > before[1] && after[2..] == before[2..],
        "{before:?} {after:?}"
    );
    bed.tenants[1].vm().enable_pairs(2..4, true).unwrap();
    bed.tenants[0].go_on();
    assert_one_queue_each(&queues_of_flows(&mut bed, 3000), 4);
    let drops = bed.counters("vm6").drops;
    assert!(drops.iter().all(|(_, count)| *count == 0), "{drops:?}");
}

#[test]
fn of_many_pairs_every_one_is_served() {
    let options = Options { queue_pairs: 20, ring_size: 64, ..Options::default() };
    let mut bed = bed_of(&Plan { profile: STEADY, options, workers: 3, ..Plan::default() });
    bed.run(Duration::from_millis(300));
    assert_whole(&mut bed);
    let pairs = bed.tenants[0].vm().pairs();
    assert!(pairs.iter().all(|pair| pair.tx.counters().used > 0), "a flow was sent by each of them");
    let pairs = bed.tenants[1].vm().pairs().iter();
    let busy = pairs.filter(|pair| pair.rx.counters().used > 0).count();
    assert!(busy > 5, "{FLOWS} flows came by {busy} of 20 queues");
}

#[test]
fn replies_take_the_same_services_whichever_worker_sees_them() {
    let mut bed = bed(3, 2);
    bed.tenants[1].set_returning(true);
    bed.until("replies arrive", |bed| bed.tenants[0].sink().report().received > 1000);
    let there = bed.arrived().received;
    assert_whole(&mut bed);
    let back = bed.tenants[0].sink().report();
    assert_eq!((back.duplicated, back.reordered, back.corrupt), (0, 0, 0));
    let passed = bed.counters("svm2").tx_packets;
    assert!(passed >= there + back.received, "{passed} of {there} and {}", back.received);
}

/// Down after 100 ms of silence.
const PATIENT: Profile = Profile { multiplier: 10, stall: Duration::from_millis(400), ..Profile::DEFAULT };

/// One flow, whose frames svm2 gets and returns by its second queue pair: another worker than its home serves that.
fn bed_beside_home() -> Bed {
    let options = Options { queue_pairs: 2, ..Options::default() };
    let mut bed = Bed::new(&Plan { profile: PATIENT, options, workers: 2, ..Plan::default() });
    bed.until_all_up();
    for source_port in 40_000.. {
        let used = |bed: &mut Bed| bed.service("svm2").vm().pairs()[1].rx.counters().used;
        let before = used(&mut bed);
        let (from, to) = (endpoint("vm5", 5), endpoint("vm6", 6));
        let flow = Traffic {
            from,
            to,
            flows: 1,
            source_port,
            port: 7000,
            rate: RATE,
            frame_len: 128,
            patterned: true,
            run: 1,
        };
        bed.tenants[0].start(flow);
        bed.until_arrived("traffic flows", 200);
        if used(&mut bed) > before + 100 {
            break;
        }
    }
    bed
}

/// All ports of the chain are at home with the first worker.
const OTHER: &str = "worker-1";

#[test]
fn a_worker_that_is_kept_from_its_core_takes_nobody_down() {
    let mut bed = bed_with(1, 1, PATIENT);
    for _ in 0..3 {
        stall("worker-0", Duration::from_millis(400)).unwrap();
        bed.run(Duration::from_millis(500));
    }
    let flaps = SERVICES.map(|name| bed.status(name).counters.flaps);
    assert_eq!(flaps, [0; SERVICES.len()], "{:#?}", bed.host.status());
    assert!(bed.host.workers().iter().any(|worker| worker.time.rounds > 0));
}

#[test]
fn answers_that_another_worker_has_not_read_count() {
    let mut bed = bed_beside_home();
    for _ in 0..3 {
        stall(OTHER, Duration::from_millis(400)).unwrap();
        bed.run(Duration::from_millis(500));
    }
    assert_eq!(bed.status("svm2").counters.flaps, 0, "{:#?}", bed.host.status());
    assert!(bed.told(|event| matches!(event, EventKind::Degraded(..))) == 0);
}

#[test]
fn a_worker_that_pauses_again_and_again_hides_no_failure() {
    let mut bed = bed_beside_home();
    let now = bed.now();
    bed.service("svm2").inject(Fault::Hang, now).unwrap();
    let mut pauses = 0;
    bed.until("svm2 is down", |bed| {
        stall(OTHER, Duration::from_millis(20)).unwrap();
        pauses += 1;
        bed.run(Duration::from_millis(21));
        !bed.state("svm2").usable()
    });
    assert!(pauses < 50, "100 ms of silence, after {pauses} pauses of 20 ms");
}

#[test]
fn a_hung_service_is_noticed_whoever_hands_it_frames() {
    let mut bed = bed_with(3, 2, Profile::DEFAULT);
    let now = bed.now();
    bed.service("svm2").inject(Fault::Hang, now).unwrap();
    bed.until("svm2 is down", |bed| !bed.state("svm2").usable());
    assert_eq!(bed.status("svm2").cause, Cause::NoResponse);
    bed.until_arrived("traffic takes SPI 2", 2000);
    let now = bed.now();
    bed.service("svm2").inject(Fault::None, now).unwrap();
    bed.until_state("svm2", State::Up);
    bed.drain();
    let report = bed.arrived();
    assert_eq!((report.duplicated, report.corrupt), (0, 0));
}

#[test]
fn ports_change_hands_under_traffic_without_a_loss() {
    let mut bed = bed(3, 2);
    for generation in 2..12 {
        let mut other = intent(generation, OnFailure::Block);
        // vm5 and vm6 now with the chain, now on their own.
        let tenants = [port_id("vm5"), port_id("vm6")];
        other.policies[0].from = (generation % 2 == 0).then(|| tenants.to_vec());
        bed.host.set_intent(&other).unwrap();
        bed.until_arrived("traffic goes on", 300);
    }
    assert_whole(&mut bed);
}
