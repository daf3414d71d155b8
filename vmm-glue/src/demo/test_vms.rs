//! The cast of the demo as test VMs in this process.
//!
//! ```text
//! this thread: vm5 vm6 svm1 svm3 svm4 svm7 svm8      a thread of its own: svm2, which fails
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use anyhow::{Context, Result};
use test_vm::guest::{Endpoint, Fault, Guest, Service, ServiceGuest, TenantGuest, Traffic};
use test_vm::{BATCH, Options};
use vhost_backend::host::Host;
use vhost_backend::liveness::Timestamp;
use vhost_backend::worker::monotonic_now;

use super::cast::{Cast, Pace, SERVICES, STAND_IN, Tally, VICTIM};
use super::cores::{Rest, Standing, VmCore, guest_clock};
use super::stage::socket;
use super::victim::{Injection, Order, Victim};

/// Bytes of a frame.
const FRAME: usize = 128;
/// Bursts that vm6 takes at once.
const TAKEN: usize = 8;
/// Flows the traffic consists of.
const FLOWS: u16 = 16;

/// The VMs, and how long those of this thread stood still.
pub(super) struct TestVms {
    vm5: TenantGuest,
    vm6: TenantGuest,
    services: Vec<(&'static str, ServiceGuest)>,
    victim: Victim,
    /// What svm2's service took and kept.
    swallowed: Arc<AtomicU64>,
    /// What svm4 had forwarded when svm2 failed: on a busy machine it may have been needed before.
    forwarded: u64,
    /// For how long the VMs of this thread stood still since traffic began.
    standing: Standing,
    rest: Rest,
}

impl TestVms {
    /// Attaches every VM to its socket in `folder`; the calling thread is the VMs' from now on.
    pub(super) fn attach(folder: &Path, core: VmCore) -> Result<Self> {
        let tenant = |name, last| {
            // A burst of what was saved is to find room at its destination.
            let options = Options { ring_size: 1024, ..options(0, last) };
            TenantGuest::attach(&socket(folder, name), options, 1, true)
                .with_context(|| format!("{name} does not attach"))
        };
        let service = |name: &'static str| {
            let number = name.trim_start_matches("svm").parse().unwrap_or(0);
            let guest =
                ServiceGuest::attach(&socket(folder, name), options(1, number), Service::Forward, false)
                    .with_context(|| format!("{name} does not attach"))?;
            anyhow::Ok((name, guest))
        };
        let (vm5, vm6) = (tenant("vm5", 5)?, tenant("vm6", 6)?);
        let (_, victim) = service(VICTIM)?;
        let others = SERVICES.into_iter().filter(|name| *name != VICTIM);
        let services = others.map(service).collect::<Result<_>>()?;
        core.enter();
        let swallowed = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&swallowed);
        let victim =
            Victim::new(move |orders| live(victim, core, orders, &told)).context("svm2 gets no thread")?;
        let standing = Standing::since(guest_clock());
        Ok(Self { vm5, vm6, services, victim, swallowed, forwarded: 0, standing, rest: Rest::new() })
    }

    /// Frames that svm4 has forwarded.
    fn stand_in_forwarded(&self) -> u64 {
        let stand_in = self.services.iter().find(|(name, _)| *name == STAND_IN);
        stand_in.map_or(0, |(_, guest)| guest.counters().forwarded)
    }
}

impl Cast for TestVms {
    fn pace(&self) -> Pace {
        Pace {
            patience: Duration::from_secs(15),
            settle: Duration::from_millis(200),
            calm: Duration::from_millis(100),
        }
    }

    /// Every VM of this thread works once.
    fn step(&mut self) {
        let now = guest_clock();
        self.standing.step(now);
        let services: usize = self.services.iter_mut().map(|(_, guest)| guest.step(now)).sum();
        let mut frames = self.vm5.step(now) + services;
        // What comes for a tenant waits nowhere but in its ring, so that is emptied first of all.
        for _ in 0..TAKEN {
            let taken = self.vm6.step(now);
            frames += taken;
            if taken < BATCH {
                break;
            }
        }
        self.standing.work(frames);
        self.rest.after(frames, now);
    }

    fn start_traffic(&mut self, rate: u64, _: &Host) -> Result<()> {
        self.standing = Standing::since(guest_clock());
        let endpoint = |last| Endpoint { mac: mac(0, last), ip: [10, 0, 0, last].into() };
        self.vm5.start(Traffic {
            from: endpoint(5),
            to: endpoint(6),
            flows: FLOWS,
            source_port: 40_000,
            port: 7_000,
            rate,
            frame_len: FRAME,
            patterned: true,
            run: 1,
        });
        Ok(())
    }

    fn stop_traffic(&mut self) -> Result<()> {
        self.vm5.stop();
        Ok(())
    }

    fn inject(&mut self, fault: Fault, _: &Host) -> Injection {
        self.forwarded = self.stand_in_forwarded();
        self.victim.inject(fault)
    }

    fn stood_in(&self, _: &Host) -> bool {
        self.stand_in_forwarded() > self.forwarded
    }

    fn arrived(&self, _: &Host) -> u64 {
        self.vm6.sink().report().unique
    }

    fn tally(&mut self) -> Result<Tally> {
        let received = self.vm6.sink().report();
        Ok(Tally {
            sent: self.vm5.counters().sent,
            arrived: received.unique,
            duplicated: received.duplicated,
            reordered: received.reordered,
        })
    }

    fn stood_still(&self) -> Option<Duration> {
        Some(self.standing.longest())
    }

    fn stood_still_between(&self, from: Timestamp, to: Timestamp) -> Option<Duration> {
        let [from, to] = [from, to].map(|at| Duration::from_nanos(at.as_nanos()));
        Some(self.standing.between(from, to))
    }

    fn swallowed(&self) -> Option<u64> {
        Some(self.swallowed.load(Ordering::Relaxed))
    }
}

fn mac(kind: u8, last: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, kind, last]
}

fn options(kind: u8, last: u8) -> Options {
    Options { mac: mac(kind, last), ..Options::default() }
}

/// What svm2's thread does.
fn live(mut guest: ServiceGuest, core: VmCore, orders: &Receiver<Order>, swallowed: &AtomicU64) {
    core.enter();
    let mut rest = Rest::new();
    loop {
        match orders.try_recv() {
            Ok(order) => {
                let at = monotonic_now();
                let injected = guest.inject(order.fault, guest_clock());
                order.made(injected.map(|()| at).map_err(Into::into));
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
        let now = guest_clock();
        let frames = guest.step(now);
        swallowed.store(guest.swallowed(), Ordering::Relaxed);
        rest.after(frames, now);
    }
}
