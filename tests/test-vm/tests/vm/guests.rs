//! Guests and their faults against a real socket; the backend sends every frame back to its sender.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use test_vm::Options;
use test_vm::guest::{Endpoint, Fault, Guest, Service, ServiceGuest, TenantGuest, Traffic};

use crate::echo::{Backend, Manners};

const TRAFFIC: Traffic = Traffic {
    from: Endpoint { mac: [0x52, 0x54, 0, 0, 0, 5], ip: Ipv4Addr::new(10, 0, 0, 5) },
    to: Endpoint { mac: [0x52, 0x54, 0, 0, 0, 6], ip: Ipv4Addr::new(10, 0, 0, 6) },
    flows: 7,
    source_port: 1000,
    port: 9,
    rate: 0,
    frame_len: 200,
    patterned: true,
    run: 1,
};

struct Bench {
    backend: Backend,
    tenant: TenantGuest,
    began: Instant,
}

impl Bench {
    fn start(traffic: Traffic) -> Bench {
        let backend = Backend::start(Manners::default());
        let mut tenant = TenantGuest::attach(&backend.socket(), Options::default(), 1, true).unwrap();
        tenant.start(traffic);
        Bench { backend, tenant, began: Instant::now() }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn inject(&mut self, fault: Fault) {
        let now = self.now();
        self.tenant.inject(fault, now).unwrap();
    }

    /// Steps until `done` is; fails after long.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut TenantGuest) -> bool) {
        let deadline = self.now() + Duration::from_secs(60);
        while !done(&mut self.tenant) {
            assert!(
                self.now() < deadline,
                "{what}: {:?} {:?}",
                self.tenant.counters(),
                self.tenant.sink().report()
            );
            let now = self.now();
            if self.tenant.step(now) == 0 {
                std::thread::yield_now();
            }
        }
    }

    fn until_received(&mut self, more: u64) {
        let goal = self.tenant.sink().report().unique + more;
        self.until("receive", |tenant| tenant.sink().report().unique >= goal);
    }

    /// Stops sending and waits for what is in flight.
    fn drain(&mut self) {
        self.tenant.stop();
        let sent = self.tenant.counters().sent;
        self.until("drain", |tenant| tenant.sink().report().unique == sent);
    }
}

#[test]
fn a_tenant_sees_all_of_its_frames_once_and_in_order() {
    let mut bench = Bench::start(TRAFFIC);
    bench.until_received(20_000);
    bench.drain();
    let report = bench.tenant.sink().report();
    assert_eq!(report.unique, bench.tenant.counters().sent);
    assert_eq!(
        (report.duplicated, report.reordered, report.missing, report.corrupt, report.foreign),
        (0, 0, 0, 0, 0)
    );
    assert_eq!(bench.tenant.sink().latency().count(), report.received);
}

#[test]
fn the_rate_is_kept_on_the_callers_clock() {
    let backend = Backend::start(Manners::default());
    let mut tenant = TenantGuest::attach(&backend.socket(), Options::default(), 1, true).unwrap();
    tenant.start(Traffic { rate: 1000, ..TRAFFIC });
    let mut step = |at: u64| {
        tenant.step(Duration::from_micros(at));
        tenant.counters()
    };
    assert_eq!(step(5_000).sent, 1, "the first frame at once");
    assert_eq!(step(5_999).sent, 1);
    assert_eq!(step(6_000).sent, 2);
    assert_eq!(step(16_000).sent, 12);
    // After a second without steps it catches up with a bounded burst, as the ring has room.
    let counters = loop {
        let counters = step(1_016_000);
        if counters.sent + counters.skipped == 1012 {
            break counters;
        }
        std::thread::yield_now();
    };
    assert_eq!(counters.sent, 12 + 256);
}

#[test]
fn a_frozen_guest_touches_no_ring() {
    let mut bench = Bench::start(TRAFFIC);
    bench.until_received(1000);
    bench.inject(Fault::Freeze);
    let before =
        (bench.tenant.counters(), bench.tenant.sink().report(), bench.tenant.vm().raw(0).avail_index());
    for _ in 0..1000 {
        let now = bench.now();
        assert_eq!(bench.tenant.step(now), 0);
    }
    let after =
        (bench.tenant.counters(), bench.tenant.sink().report(), bench.tenant.vm().raw(0).avail_index());
    assert_eq!(before, after);
    assert!(bench.tenant.vm().is_attached());
    bench.inject(Fault::None);
    bench.until_received(1000);
    bench.drain();
    assert_eq!(bench.tenant.sink().report().missing, 0);
}

#[test]
fn a_killed_guest_is_gone_and_comes_back_as_a_new_one() {
    let mut bench = Bench::start(TRAFFIC);
    bench.until_received(1000);
    bench.inject(Fault::Kill);
    assert!(!bench.tenant.vm().is_attached());
    let now = bench.now();
    assert_eq!(bench.tenant.step(now), 0);
    bench.inject(Fault::None);
    bench.until_received(1000);
    assert_eq!(bench.tenant.life().attachments(), 2);
}

#[test]
fn a_reset_heals_itself() {
    let mut bench = Bench::start(TRAFFIC);
    bench.until_received(1000);
    bench.inject(Fault::Reset);
    assert!(bench.tenant.vm().is_attached() && !bench.tenant.vm().is_running());
    bench.until("reset", |tenant| tenant.fault() == Fault::None);
    assert!(bench.tenant.vm().is_running());
    bench.until_received(1000);
}

#[test]
fn any_fault_may_follow_any_other() {
    let backend = Backend::start(Manners::default());
    let options = Options { mac: [2, 0, 0, 0, 0, 1], ..Options::default() };
    let mut guest = ServiceGuest::attach(&backend.socket(), options, Service::Forward, false).unwrap();
    let began = Instant::now();
    for first in Fault::ALL {
        for second in Fault::ALL {
            for fault in [first, second] {
                guest.inject(fault, began.elapsed()).unwrap();
                assert_eq!(guest.fault(), fault);
                guest.step(began.elapsed());
            }
            guest.inject(Fault::None, began.elapsed()).unwrap();
            // A killed machine has to be attached before it can be reset.
            while !guest.vm().is_running() {
                guest.step(began.elapsed());
            }
        }
    }
}

#[test]
fn guests_attach_again_when_their_backend_returns() {
    let mut bench = Bench::start(Traffic { rate: 20_000, ..TRAFFIC });
    for round in 1..4 {
        bench.until_received(500);
        bench.backend.hang_up();
        bench.until("attach again", |tenant| tenant.life().attachments() > round);
    }
    bench.until_received(500);
}

#[test]
fn a_returning_tenant_sends_frames_back() {
    // The backend returns vm5's frame to vm5, which returns it to the backend, and so on: each goes round for ever.
    let mut bench = Bench::start(Traffic { rate: 1, flows: 1, ..TRAFFIC });
    bench.tenant.set_returning(true);
    bench.until("duplicates", |tenant| tenant.sink().report().duplicated >= 100);
    assert_eq!(bench.tenant.sink().report().corrupt, 0);
    assert!(bench.tenant.counters().returned >= 100);
}
