//! The VMs of the reference scenario, of either kind.

use std::time::Duration;

use anyhow::Result;
use test_vm::guest::Fault;
use vhost_backend::host::Host;
use vhost_backend::liveness::Timestamp;

use super::victim::Injection;

/// What plays the VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum GuestKind {
    /// Test VMs in this process
    Test,
    /// Stock Linux guests in QEMU
    Qemu,
}

/// Service VMs of the scenario; the one that fails and the one that takes its place among them.
pub(super) const SERVICES: [&str; 6] = ["svm1", "svm2", "svm3", "svm4", "svm7", "svm8"];
/// The service VM that fails.
pub(super) const VICTIM: &str = "svm2";
/// The one that SPI 2 has in its place.
pub(super) const STAND_IN: &str = "svm4";

/// Two tenants and six service VMs, attached to their ports.
pub(super) trait Cast {
    /// How long things take with VMs of this kind.
    fn pace(&self) -> Pace;

    /// Lets the VMs work for a moment.
    fn step(&mut self);

    /// Sends `rate` frames a second from vm5 to vm6 from now on.
    fn start_traffic(&mut self, rate: u64, host: &Host) -> Result<()>;

    /// Sends no more.
    fn stop_traffic(&mut self) -> Result<()>;

    /// Lets svm2 fail, or heals it.
    fn inject(&mut self, fault: Fault, host: &Host) -> Injection;

    /// Whether svm4 has forwarded tenants' frames, since svm2 failed at least.
    fn stood_in(&self, host: &Host) -> bool;

    /// Tenants' frames that have come to vm6.
    fn arrived(&self, host: &Host) -> u64;

    /// What the tenants counted, when no more is sent and what was under way has arrived.
    fn tally(&mut self) -> Result<Tally>;

    /// The longest time since traffic began in which no VM worked because the machine had something else to do, if that is known.
    fn stood_still(&self) -> Option<Duration>;

    /// How much of the time between `from` and `to` that was.
    fn stood_still_between(&self, from: Timestamp, to: Timestamp) -> Option<Duration>;

    /// Frames that svm2's service took and kept while it hung, if that is known.
    fn swallowed(&self) -> Option<u64>;
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// What must happen at most.
    pub(super) patience: Duration,
    /// What is under way, to arrive.
    pub(super) settle: Duration,
    /// All service VMs have to be well for as long before the traffic begins: what a start takes is over by then.
    pub(super) calm: Duration,
}

/// Frames from vm5 to vm6.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tally {
    pub(super) sent: u64,
    /// Each counted once.
    pub(super) arrived: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
}
