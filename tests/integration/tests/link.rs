//! Links that go down and come up, in every way a VMM and a driver have.

use integration::{Bed, Plan, SERVICES, STEADY, mac};
use test_vm::guest::{Guest, TenantGuest};
use test_vm::{ChainShape, Options, Order};
use vhost_backend::liveness::{Cause, State};

fn bed(options: Options) -> Bed {
    let mut bed = Bed::new(&Plan { profile: STEADY, options, ..Plan::default() });
    bed.until_all_up();
    bed
}

fn flowing(options: Options) -> Bed {
    let mut bed = bed(options);
    bed.start_traffic(5_000, 4);
    bed.until_arrived("traffic flows", 100);
    bed
}

/// What was sent has arrived, whole and in order.
fn clean(bed: &Bed, what: &str) {
    let report = bed.arrived();
    assert_eq!(report.received, bed.tenants[0].counters().sent, "{what}: {:#?}", bed.host.status());
    let faults = (report.missing, report.duplicated, report.reordered, report.corrupt);
    assert_eq!(faults, (0, 0, 0, 0), "{what}");
}

fn every_feature_set() -> impl Iterator<Item = Options> {
    (0..16).map(|bits: u8| Options {
        event_idx: bits & 1 != 0,
        mergeable: bits & 2 != 0,
        in_order: bits & 4 != 0,
        indirect: bits & 8 != 0,
        // Even in four pieces each, more frames than a guest sends at once.
        ring_size: 1024,
        ..Options::default()
    })
}

const SHAPES: [ChainShape; 3] =
    [ChainShape::Joined, ChainShape::Cut { first: 12, count: 2 }, ChainShape::Cut { first: 5, count: 4 }];

#[test]
fn services_of_every_driver_are_served() {
    let orders = [Order::Qemu, Order::CloudHypervisor];
    for (i, features) in every_feature_set().enumerate() {
        let shape = SHAPES[i % SHAPES.len()];
        let options = Options { order: orders[i / 2 % 2], tx_shape: shape, rx_shape: shape, ..features };
        let what = format!("{options:?}");
        let mut bed = bed(options);
        bed.start_traffic(5_000, 3);
        bed.until_arrived(&what, 200);
        bed.drain();
        clean(&bed, &what);
    }
}

/// Tenants of every kind, one after the other on the same ports.
#[test]
fn tenants_of_every_driver_are_served() {
    let mut bed = bed(Options::default());
    for features in every_feature_set() {
        for order in [Order::Qemu, Order::CloudHypervisor] {
            for (tx_shape, rx_shape) in
                [(SHAPES[0], SHAPES[1]), (SHAPES[1], SHAPES[2]), (SHAPES[2], SHAPES[0])]
            {
                let options = Options { order, tx_shape, rx_shape, ..features.clone() };
                let what = format!("{options:?}");
                for (place, name) in [(0, "vm5"), (1, "vm6")] {
                    let options = Options { mac: mac(name), ..options.clone() };
                    bed.tenants[place].vm().kill();
                    bed.tenants[place] =
                        TenantGuest::attach(&bed.socket(name), options, 1, true).expect("a tenant attaches");
                }
                bed.start_traffic(5_000, 3);
                bed.until_arrived(&what, 50);
                bed.drain();
                clean(&bed, &what);
            }
        }
    }
}

/// Something happens to the service VM's link; it is Down for `cause` until it is undone, and the flow takes SPI 2.
fn bounces(options: Options, cause: Cause, act: impl FnOnce(&mut Bed), undo: impl FnOnce(&mut Bed)) {
    let mut bed = flowing(options);
    act(&mut bed);
    bed.until_state("svm2", State::Down);
    assert_eq!(bed.status("svm2").cause, cause);
    bed.until_arrived("traffic takes SPI 2", 500);
    undo(&mut bed);
    bed.until_state("svm2", State::Up);
    bed.until_arrived("traffic goes on", 200);
    bed.drain();
    assert_eq!((bed.arrived().duplicated, bed.arrived().corrupt), (0, 0));
}

fn orders() -> [Options; 2] {
    [Order::Qemu, Order::CloudHypervisor].map(|order| Options { order, ..Options::default() })
}

#[test]
fn a_driver_that_is_unloaded_is_ring_stopped() {
    for options in orders() {
        bounces(
            options,
            Cause::RingStopped,
            |bed| bed.service("svm2").vm().unload().unwrap(),
            |bed| bed.service("svm2").vm().load().unwrap(),
        );
    }
}

#[test]
fn a_paused_vm_is_ring_stopped_and_goes_on_where_it_was() {
    for options in orders() {
        let mut bases = Vec::new();
        let kept = std::cell::RefCell::new(&mut bases);
        bounces(
            options,
            Cause::RingStopped,
            |bed| **kept.borrow_mut() = bed.service("svm2").vm().pause().unwrap(),
            |bed| bed.service("svm2").vm().resume(&kept.borrow()).unwrap(),
        );
    }
}

#[test]
fn a_reboot_is_detached() {
    for options in orders() {
        // The guest attaches again by itself.
        let mut bed = flowing(options);
        bed.service("svm2").vm().reboot().unwrap();
        bed.until("the hang-up is noticed", |bed| !bed.state("svm2").usable());
        assert_eq!(bed.status("svm2").cause, Cause::Detached);
        bed.until_state("svm2", State::Up);
        bed.until_arrived("traffic goes on", 200);
    }
}

#[test]
fn a_tenant_that_pauses_or_resets_loses_its_own_frames_only() {
    for options in orders() {
        let mut bed = flowing(options);
        let bases = bed.tenants[1].vm().pause().unwrap();
        bed.until("frames for vm6 are dropped", |bed| bed.drops("vm6", "not_attached") > 50);
        bed.tenants[1].vm().resume(&bases).unwrap();
        bed.until_arrived("vm6 is back", 200);
        bed.tenants[0].vm().reset().unwrap();
        bed.until_arrived("vm5 is back", 200);
        bed.tenants[1].vm().kill();
        bed.until_arrived("vm6 attached again", 200);
        bed.drain();
        assert_eq!((bed.arrived().duplicated, bed.arrived().corrupt), (0, 0));
        assert!(SERVICES.iter().all(|name| bed.state(name).usable()));
    }
}

#[test]
fn memory_announced_while_rings_run_disturbs_nothing() {
    let options = Options { order: Order::CloudHypervisor, ..Options::default() };
    let mut bed = flowing(options);
    for _ in 0..20 {
        bed.service("svm2").vm().announce_memory().unwrap();
        bed.tenants[1].vm().announce_memory().unwrap();
        bed.until_arrived("traffic goes on", 20);
    }
    bed.drain();
    clean(&bed, "after 20 memory tables");
}
