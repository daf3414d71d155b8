//! What happened lately, bounded, for `livepath events` and for tests.

use std::collections::VecDeque;
use std::time::SystemTime;

use controller_stub::api::{Evidence, WallTime};
use serde::{Deserialize, Serialize};
use vhost_backend::liveness::Timestamp;
use vhost_backend::worker::monotonic_now;

use super::reload::{PortChanges, Taken};
use crate::admin::Action;

/// Entries kept.
const KEPT: usize = 4096;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, in order; a gap at the front is history that was dropped.
    pub id: u64,
    /// When, for people.
    pub at: WallTime,
    /// When, in nanoseconds of the host's monotonic clock.
    pub at_ns: u64,
    /// What.
    #[serde(flatten)]
    pub occurrence: Occurrence,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Occurrence {
    /// The daemon serves its ports.
    Started {
        /// How many.
        ports: usize,
    },
    /// A driver runs the port's rings.
    PortUp {
        /// The port.
        port: String,
    },
    /// The port's rings stopped or its VMM is gone.
    PortDown {
        /// The port.
        port: String,
    },
    /// A driver broke the rules of the ring.
    RingBroken {
        /// The port.
        port: String,
        /// Which rule.
        reason: String,
    },
    /// A service VM changed state.
    Service {
        /// The service.
        service: String,
        /// Before.
        from: String,
        /// After.
        to: String,
        /// Why.
        cause: String,
        /// What was known of it.
        evidence: Evidence,
    },
    /// What a service VM left when it went down has been steered again.
    Salvaged {
        /// The service.
        service: String,
        /// Frames that it never took.
        salvaged: u64,
        /// Copies of frames that it took and did not answer.
        replayed: u64,
        /// Microseconds from the moment at which it was noticed until no table sent anything to it.
        swapped_after_us: u64,
        /// Until the first of these frames had been given to who is next; null if there were none.
        first_after_us: Option<u64>,
        /// Until all of them had.
        done_after_us: u64,
    },
    /// A chain's last path went down, or a path came back, or its policy changed while none was up.
    Chain {
        /// The chain.
        chain: String,
        /// What becomes of its packets: `served`, `blocked`, `allowed` or `bypassing`.
        mode: String,
        /// The services they go past; empty unless `bypassing`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        bypassed: Vec<String>,
    },
    /// A service VM answers too slowly from now on, or in time again.
    Degraded {
        /// The service.
        service: String,
        /// Which of the two.
        degraded: bool,
    },
    /// Other tables are in force.
    Tables {
        /// Their generation.
        generation: u64,
    },
    /// An operator acted on a service at this host.
    Operator {
        /// The service.
        service: String,
        /// What was done.
        action: Action,
    },
    /// The agent is registered with the controller.
    ControllerUp {
        /// Its address.
        url: String,
    },
    /// The controller is not reached; the datapath goes on with the tables it has.
    ControllerDown {
        /// Its address.
        url: String,
        /// Why.
        reason: String,
    },
    /// The file was read again; its ports are in force, and its chains are or are offered to the controller.
    Reloaded(Taken),
    /// The file was read again and cannot be taken; nothing changed.
    ReloadRefused {
        /// Why.
        reason: String,
    },
    /// The control loop did not keep up.
    EventsLost {
        /// How many are missing before this entry.
        count: u64,
    },
}

impl Occurrence {
    /// One log line with structured fields.
    pub(super) fn log(&self) {
        match self {
            Self::Started { ports } => log::info!(ports; "livepathd serves"),
            Self::PortUp { port } => log::info!(port; "port up"),
            Self::PortDown { port } => log::info!(port; "port down"),
            Self::RingBroken { port, reason } => log::warn!(port, reason; "ring broken"),
            Self::Service { service, from, to, cause, evidence } => {
                let fields = (evidence.attached, evidence.driver, evidence.service, evidence.forwarding);
                let (attached, driver, answers, forwarding) = fields;
                let level = if matches!(to.as_str(), "down" | "failed") {
                    log::Level::Warn
                } else {
                    log::Level::Info
                };
                log::log!(level, service, from, to, cause, attached, driver, answers, forwarding; "service state");
            }
            Self::Salvaged { service, salvaged, replayed, done_after_us, .. } => {
                log::info!(service, salvaged, replayed, done_after_us; "what it left is steered again");
            }
            Self::Chain { chain, mode, bypassed } => {
                let level = if mode == "served" { log::Level::Info } else { log::Level::Warn };
                log::log!(level, chain, mode, bypassed = bypassed.join(","); "chain");
            }
            Self::Degraded { service, degraded: true } => log::warn!(service; "service answers late"),
            Self::Degraded { service, degraded: false } => log::info!(service; "service answers in time"),
            Self::Tables { generation } => log::info!(generation; "tables in force"),
            Self::Operator { service, action } => log::info!(service, action:%; "operator"),
            Self::ControllerUp { url } => log::info!(url; "controller reached"),
            Self::ControllerDown { url, reason } => {
                log::warn!(url, reason; "controller not reached, the datapath goes on with the tables it has");
            }
            Self::Reloaded(Taken { chains, ports }) => {
                let PortChanges { added, removed, changed } = ports;
                log::info!(chains, added:?, removed:?, changed:?; "configuration read again");
            }
            // A line for each fault.
            Self::ReloadRefused { reason } => reason.lines().for_each(|reason| {
                log::error!(reason; "configuration not taken, nothing changed");
            }),
            Self::EventsLost { count } => log::warn!(count; "events lost"),
        }
    }
}

/// The newest entries.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: VecDeque<Entry>,
    newest: u64,
}

impl History {
    pub(crate) fn add(&mut self, at: Timestamp, occurrence: Occurrence) {
        self.newest += 1;
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        let entry = Entry { id: self.newest, at: wall_time(at), at_ns: at.as_nanos(), occurrence };
        self.entries.push_back(entry);
    }

    /// The oldest `limit` entries above `since`.
    pub(crate) fn after(&self, since: u64, limit: usize) -> Vec<Entry> {
        let first = self.entries.partition_point(|entry| entry.id <= since);
        self.entries.range(first..).take(limit).cloned().collect()
    }
}

/// An instant of the monotonic clock on the wall clock, as far as that stood still since.
#[expect(clippy::disallowed_methods, reason = "shown to people")]
pub(crate) fn wall_time(at: Timestamp) -> WallTime {
    let since = monotonic_now().saturating_since(at);
    SystemTime::now().checked_sub(since).map_or(WallTime::EPOCH, WallTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_found_by_id() {
        let mut history = History::default();
        let all = KEPT as u64 + 10;
        for generation in 1..=all {
            history.add(Timestamp::from_nanos(generation), Occurrence::Tables { generation });
        }
        assert_eq!(history.after(0, 1).first().map(|entry| entry.id), Some(11));
        assert_eq!(history.after(0, usize::MAX).len(), KEPT);
        let last: Vec<u64> = history.after(all - 2, usize::MAX).iter().map(|entry| entry.id).collect();
        assert_eq!(last, [all - 1, all]);
        assert!(history.after(all, 1).is_empty());
    }
}
