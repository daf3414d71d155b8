//! What the demo measured: the JSON object that `livepath demo --json` prints.

use serde::Serialize;

/// The whole result. Times are microseconds since the instant of the fault, on one monotonic clock.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DemoReport {
    /// What became of the tenants' packets.
    pub packets: Packets,
    /// How the fault was noticed; null when nothing failed.
    pub detection: Option<Detection>,
    /// The service VMs as they were on the new path.
    pub services: Vec<ServiceLine>,
    /// The paths at the same moment.
    pub paths: Vec<PathLine>,
    /// The price of watching.
    pub liveness: Liveness,
    /// Packets that arrived per microsecond, before the fault and after the switch.
    pub rate: Rate,
    /// Whether the VMs got the processor time they needed.
    pub guests: Guests,
}

/// Tenant packets, vm5 to vm6, as the tenants count them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packets {
    /// Put into vm5's ring, or given to its kernel where it is a guest with one.
    pub sent: u64,
    /// Arrived at vm6, each counted once.
    pub delivered: u64,
    /// Sent and never arrived.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived behind a later one of their flow.
    pub reordered: u64,
    /// On their way to a service VM that died, never taken by it, and steered anew.
    pub salvaged: u64,
    /// Given back to their classifier at a hop that was down.
    pub reflected: u64,
}

/// How the fault was noticed. The service of a guest in QEMU is told to hang over the guest's console, and the times count
/// from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detection {
    /// The cause the proxy reported.
    pub cause: String,
    /// Until the proxy was sure.
    pub detected_after_us: u64,
    /// Until the first packet arrived over the new path; at a guest in QEMU, was handed to it.
    pub switched_after_us: u64,
    /// Until the controller had stored the report.
    pub reported_after_us: u64,
    /// Until the controller's table was in force on every host.
    pub all_hosts_after_us: u64,
    /// What lay between.
    pub steps: Steps,
}

/// What the time went on, from the fault like all times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Steps {
    /// Until no table of the host sent anything to the service VM.
    pub swapped_after_us: u64,
    /// Until the first frame that it had left was given to who stands in for it; null if it left none.
    pub first_salvaged_after_us: Option<u64>,
    /// Until who stands in for it had forwarded a frame.
    pub stood_in_after_us: u64,
    /// Of the time between the notice and the first packet over the new path, how much the machine did not run the VMs; null for
    /// guests in QEMU, of which this is not known.
    pub stood_still_us: Option<u64>,
    /// Until all it had left was steered again.
    pub salvaged_after_us: u64,
    /// Until the agent heard of it.
    pub heard_after_us: u64,
    /// Until the agent sent the report.
    pub sent_after_us: u64,
    /// How long the controller had the report before it was stored.
    pub storing_us: u64,
    /// Until the controller's table came to the host.
    pub table_after_us: u64,
}

/// One service VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceLine {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: String,
    /// Why.
    pub cause: String,
    /// What is known.
    pub evidence: EvidenceLine,
}

/// The four levels of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "four levels, each there or not")]
pub struct EvidenceLine {
    /// Socket and rings.
    pub attached: bool,
    /// The driver takes frames.
    pub driver: bool,
    /// Queries are answered.
    pub service: bool,
    /// Data frames come back.
    pub forwarding: bool,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathLine {
    /// Its identifier.
    pub spi: u32,
    /// Up or down.
    pub state: String,
}

/// Queries and answers of all service VMs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Liveness {
    /// Asked.
    pub queries: u64,
    /// Of these, on tenant packets.
    pub in_band: u64,
    /// Of these, alone.
    pub probes: u64,
    /// Answered.
    pub responses: u64,
    /// Service VMs taken down that had not failed.
    pub false_down: u64,
}

/// Packets per microsecond; where vm6 is a guest in QEMU, as they are handed to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// Before the fault.
    pub before_mpps: f64,
    /// After the switch.
    pub after_mpps: f64,
}

/// What is known of the VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Guests {
    /// The longest time, in microseconds, that the machine did not run them while traffic flowed, pauses with less work between
    /// them than they took together; one thread plays all test VMs. Beyond what the liveness profile forgives they are down, and
    /// rightly so. Null for guests in QEMU, of which this is not known.
    pub stood_still_us: Option<u64>,
    /// Frames that svm2's service took and kept while it hung, queries that travelled alone among them: what is lost with it. Null
    /// for guests in QEMU.
    pub swallowed: Option<u64>,
}
