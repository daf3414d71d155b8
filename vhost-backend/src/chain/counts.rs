//! What the classifier of one worker has counted.

/// Packets and flows of one worker, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flows entered into the flow table.
    pub flows_entered: u64,
    /// Flows that a newer one displaced.
    pub flows_displaced: u64,
    /// Packets that took the path their flow was pinned to, in the direction the flow began.
    pub pinned_forward: u64,
    /// Packets that took the reverse of the path their flow was pinned to.
    pub pinned_reverse: u64,
    /// Flows moved to another path because theirs was not usable any more or had left the tables.
    pub resteered: u64,
    /// Packets dropped because no path was up (`block`).
    pub blocked: u64,
    /// Packets that skipped their chain because no path was up (`allow`).
    pub allowed: u64,
    /// Packets that skipped a service because no path was up (`bypass`).
    pub bypassed: u64,
}
