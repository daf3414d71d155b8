//! What the agent shares with the rest of the daemon: the reports that wait, and where it stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use controller_stub::api::{Chain, Name};
use tokio::sync::Notify;
use tokio::time::sleep;
use vhost_backend::liveness::{Timestamp, Transition};
use vhost_backend::port::ServiceStatus;
use vhost_backend::worker::monotonic_now;

use super::ledger::{Applied, Delivered, Ledger, keep};
use super::queue::{Noticed, Pending, Queue};
use crate::admin::ControllerView;
use crate::config::{Config, ControllerConfig};
use crate::daemon::Shared;
use crate::tables::Directory;

/// Reports that may wait while the controller is away.
const WAITING: usize = 1024;
/// What moves no traffic, a suspicion and its end, is told this much later, together with what comes meanwhile: the
/// controller's disk should not be busy with it when a verdict comes. With the default profile that is 20 ms after a suspicion.
const ASIDE: Duration = Duration::from_millis(50);

/// The agent's mailbox and its state.
#[derive(Debug)]
pub(crate) struct Link {
    url: String,
    token: Option<PathBuf>,
    queue: Mutex<Queue>,
    /// Rung when a report is added that is to go at once, and when one is added that may wait.
    reports: Notify,
    asides: Notify,
    offer: Mutex<BTreeMap<Name, Chain>>,
    /// Rung when the offer changes.
    pub(super) offers: Notify,
    connected: AtomicBool,
    generation: AtomicU64,
    ledger: Mutex<Ledger>,
}

impl Link {
    pub(crate) fn new(controller: &ControllerConfig, config: &Config) -> Self {
        Self {
            url: controller.url.clone(),
            token: controller.token.clone(),
            queue: Mutex::new(Queue::new(WAITING)),
            reports: Notify::new(),
            asides: Notify::new(),
            offer: Mutex::new(config.offer.clone()),
            offers: Notify::new(),
            connected: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            ledger: Mutex::default(),
        }
    }

    /// The controller's address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The file with the token that the controller wants to be shown.
    pub(super) fn token(&self) -> Option<&Path> {
        self.token.as_deref()
    }

    /// A service VM changed state.
    pub(crate) fn transition(&self, service: &Name, transition: &Transition, now: Option<&ServiceStatus>) {
        let (epoch, degraded) = now.map_or((0, false), |now| (now.epoch, now.degraded));
        let Transition { from, to, cause, evidence, at } = *transition;
        let (service, heard_at) = (service.clone(), monotonic_now());
        let noticed = Noticed { service, state: to, cause, evidence, degraded, epoch, at, heard_at };
        lock(&self.queue).push(noticed);
        let moves_traffic = from.usable() != to.usable();
        if moves_traffic { self.reports.notify_one() } else { self.asides.notify_one() }
    }

    /// A service VM answers too slowly from now on, or in time again: it is told with the state it is in.
    pub(crate) fn degraded(&self, service: &Name, degraded: bool, now: &ServiceStatus) {
        let noticed = Noticed { degraded, ..as_it_is(service, now) };
        lock(&self.queue).push(noticed);
        self.asides.notify_one();
    }

    /// Waits until reports are due.
    pub(super) async fn due(&self) {
        tokio::select! {
            () = self.reports.notified() => {}
            () = async { self.asides.notified().await; sleep(ASIDE).await } => {}
        }
    }

    /// Every service as it is now: the controller may know nothing, or something older.
    pub(crate) fn report_all(&self, shared: &Shared) {
        let directory = shared.directory();
        for port in shared.host.status() {
            let (Some(status), Some(service)) = (port.service, directory.service_at(port.id)) else {
                continue;
            };
            let noticed = as_it_is(service, &status);
            lock(&self.queue).push(noticed);
        }
        self.reports.notify_one();
    }

    /// Other services are here now: what was to be told of those that are gone concerns nobody.
    pub(crate) fn forget_others(&self, directory: &Directory) {
        lock(&self.queue).retain(|service| directory.service(service).is_some());
    }

    /// Other chains for the controller to adopt, and it is told anew which services are here.
    pub(crate) fn offer(&self, chains: BTreeMap<Name, Chain>) {
        *lock(&self.offer) = chains;
        self.offers.notify_one();
    }

    pub(super) fn offered(&self) -> BTreeMap<Name, Chain> {
        lock(&self.offer).clone()
    }

    pub(super) fn batch(&self, limit: usize) -> Vec<Pending> {
        lock(&self.queue).batch(limit)
    }

    /// The controller has stored these, which were sent at `sent_at`. It had them for `storing`.
    pub(super) fn stored(&self, batch: &[Pending], sent_at: Timestamp, storing: Duration) {
        let stored_at = monotonic_now();
        lock(&self.queue).stored(batch);
        let mut ledger = lock(&self.ledger);
        for Pending { id, noticed } in batch {
            let delivered = Delivered {
                id: *id,
                service: noticed.service.to_string(),
                state: noticed.state,
                cause: noticed.cause,
                noticed_at: noticed.at,
                heard_at: noticed.heard_at,
                sent_at,
                storing,
                stored_at,
            };
            keep(&mut ledger.delivered, delivered);
        }
    }

    /// A table is in force.
    pub(super) fn in_force(&self, applied: Applied) {
        self.generation.store(applied.generation, Ordering::Release);
        keep(&mut lock(&self.ledger).applied, applied);
    }

    /// Says whether the controller is there; gives what was said before.
    pub(super) fn set_connected(&self, connected: bool) -> bool {
        self.connected.swap(connected, Ordering::AcqRel)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn delivered(&self) -> Vec<Delivered> {
        lock(&self.ledger).delivered.iter().cloned().collect()
    }

    pub(super) fn applied(&self) -> Vec<Applied> {
        lock(&self.ledger).applied.iter().cloned().collect()
    }

    pub(super) fn waiting(&self) -> usize {
        lock(&self.queue).len()
    }

    /// For the status.
    pub(crate) fn view(&self) -> ControllerView {
        ControllerView {
            url: self.url.clone(),
            connected: self.is_connected(),
            generation: self.generation(),
            reports_waiting: self.waiting(),
        }
    }
}

fn as_it_is(service: &Name, status: &ServiceStatus) -> Noticed {
    Noticed {
        service: service.clone(),
        state: status.state,
        cause: status.cause,
        evidence: status.evidence,
        degraded: status.degraded,
        epoch: status.epoch,
        at: status.since,
        heard_at: monotonic_now(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
