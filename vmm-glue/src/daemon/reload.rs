//! SIGHUP or `livepath reload`: the file is read again. Chains and policies are replaced as a whole; flows keep their path where it still
//! exists. Of the ports, those that are new get their sockets, those that are gone are closed, those that differ are
//! both, and the others are not touched. What cannot change while the daemon runs is said, and then nothing changes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vhost_backend::chain::{Generation, PortId};
use vhost_backend::host::{HostError, Intent};
use vhost_backend::liveness::Timestamp;
use vhost_backend::worker::monotonic_now;

use super::Shared;
use super::history::Occurrence;
use super::shared::{Steering, lock};
use crate::causes::in_one_line;
use crate::config::{Config, HostConfig};
use crate::tables::{self, Directory, Skipped};

/// Why a configuration is not taken. Nothing changed.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// These parts cannot change while the daemon runs.
    #[error("{}; these cannot change while livepathd runs: restart it, guests keep their links", list(.0))]
    NeedsRestart(Vec<Difference>),
    /// The ports or the chains are refused.
    #[error("it cannot be put in force: {}", in_one_line(.0))]
    Host(HostError),
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A part of a configuration that differs from the one in force and cannot change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// These keys of `[host]`.
    Host(Vec<&'static str>),
    /// The controller's address.
    Controller,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(keys) => write!(f, "[host] has another {}", keys.join(", ")),
            Self::Controller => f.write_str("[controller] has another url or token, or came or went"),
        }
    }
}

/// What came of a file that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Where its chains went: `in-force` or `offered`, to the controller.
    pub chains: String,
    /// What became of the ports.
    #[serde(flatten)]
    pub ports: PortChanges,
}

/// What became of the ports, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortChanges {
    /// They were not there before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// They are there no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// They were taken down and set up anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

impl PortChanges {
    fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        for port in &new.ports {
            match old.ports.iter().find(|before| before.name == port.name) {
                None => changes.added.push(port.name.to_string()),
                Some(before) if before.spec != port.spec => changes.changed.push(port.name.to_string()),
                Some(_) => {}
            }
        }
        let gone = old.ports.iter().filter(|port| new.ports.iter().all(|other| other.name != port.name));
        changes.removed = gone.map(|port| port.name.to_string()).collect();
        changes
    }
}

/// What became of reading the file.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// When what is in force was read.
    pub(super) since: Timestamp,
    /// When the last attempt to replace it failed, and why; `None` once one succeeded.
    pub(super) refused: Option<(Timestamp, String)>,
}

impl Shared {
    /// Takes ports, chains and policies of another configuration.
    pub(crate) fn reload(&self, new: Config) -> Result<Taken, ReloadError> {
        // Nobody else replaces the configuration while this is held.
        let steering = self.steering();
        let old = self.config().clone();
        let differences = differences(&old, &new);
        if !differences.is_empty() {
            return Err(ReloadError::NeedsRestart(differences));
        }
        let before = self.directory();
        let directory_on = |numbers: &[PortId]| before.succeeded_by(&new.ports, numbers);
        let intent_on = |numbers: &[PortId]| self.intent_on(&steering, &new, numbers, &directory_on(numbers));
        let ports = new.ports.iter().map(|port| port.spec.clone()).collect();
        let numbers =
            self.host.set_ports(ports, |numbers| intent_on(numbers).0).map_err(ReloadError::Host)?;

        let directory = Arc::new(directory_on(&numbers));
        let (intent, skipped) = intent_on(&numbers);
        self.show_policies(intent.policies);
        for skipped in skipped {
            log::warn!(skipped:%; "a part of the controller's table is not carried out here");
        }
        let ports = PortChanges::between(&old, &new);
        let offer = new.offer.clone();
        self.show_config(new, Arc::clone(&directory));
        for (service, from) in before.services() {
            let to = directory.service(service);
            if to != Some(from) {
                self.moved(from, to);
            }
        }
        if let Some(link) = self.link.as_ref() {
            link.forget_others(&directory);
            link.offer(offer);
        }
        let chains = if steering.is_some() { "offered" } else { "in-force" };
        drop(steering);
        let now = monotonic_now();
        *lock(&self.reading) = Reading { since: now, refused: None };
        let taken = Taken { chains: chains.to_owned(), ports };
        self.record(now, Occurrence::Reloaded(taken.clone()));
        Ok(taken)
    }

    /// What is to be in force on ports of these numbers: the controller's table if there is one, else the file's chains. And
    /// what of it cannot be carried out here.
    fn intent_on(
        &self,
        steering: &Steering,
        new: &Config,
        numbers: &[PortId],
        directory: &Directory,
    ) -> (Intent, Vec<Skipped>) {
        if let Some((generation, plan)) = steering {
            return tables::intent(*generation, plan, directory);
        }
        let current = self.host.tables().generation();
        // Without a controller nobody else counts.
        let next = if self.link.is_none() { Generation(current.0 + 1) } else { current };
        (new.intent_on(numbers, next), Vec::new())
    }

    /// Reads a file again and takes it. A fault is logged, recorded and shown, and given: a line for each.
    pub(crate) fn reload_from(&self, file: &Path) -> Result<Taken, String> {
        let taken = match Config::load(file) {
            Ok(config) => self.reload(config).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        taken.inspect_err(|reason| {
            let now = monotonic_now();
            lock(&self.reading).refused = Some((now, reason.clone()));
            self.record(now, Occurrence::ReloadRefused { reason: reason.clone() });
        })
    }
}

/// What differs and cannot change, in the order of the file.
fn differences(old: &Config, new: &Config) -> Vec<Difference> {
    let mut found = Vec::new();
    let keys = host_keys(&old.host, &new.host);
    if !keys.is_empty() {
        found.push(Difference::Host(keys));
    }
    if old.controller != new.controller {
        found.push(Difference::Controller);
    }
    found
}

fn host_keys(old: &HostConfig, new: &HostConfig) -> Vec<&'static str> {
    let HostConfig { id, name, workers, cpus, flows, admin, metrics, metrics_names } = old;
    differing([
        ("id", *id != new.id),
        ("name", *name != new.name),
        ("workers", *workers != new.workers),
        ("cpus", *cpus != new.cpus),
        ("flows", *flows != new.flows),
        ("admin", *admin != new.admin),
        ("metrics", *metrics != new.metrics),
        ("metrics_names", *metrics_names != new.metrics_names),
    ])
}

fn differing<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const HOST: &str = "[host]\nid = 1\nname = \"host-a\"\nadmin = \"/tmp/admin.sock\"\n";
    const PORTS: &str = "[[port]]\nname = \"vm5\"\nrole = \"tenant\"\nsocket = \"/tmp/vm5\"\nmac = \"52:54:00:00:00:05\"\n\
        [[port]]\nname = \"svm1\"\nrole = \"service\"\nuuid = \"0d1a7e6a-6d0c-4f0b-9f5e-000000000001\"\n\
        socket = \"/tmp/svm1\"\nmac = \"52:54:00:00:01:01\"\n";
    const MORE: &str =
        "[[port]]\nname = \"vm6\"\nrole = \"tenant\"\nsocket = \"/tmp/vm6\"\nmac = \"52:54:00:00:00:06\"\n";

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("t.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn host(ports: &str) -> Config {
        config(&format!("{HOST}{ports}"))
    }

    #[test]
    fn what_cannot_change_is_named() {
        let told = |new: &str| list(&differences(&host(PORTS), &config(new)));
        assert_eq!(told(&format!("{HOST}{MORE}")), "", "ports can");
        let elsewhere = "[host]\nid = 2\nname = \"host-a\"\nflows = 2048\nadmin = \"/tmp/admin.sock\"\n\
             [controller]\nurl = \"http://127.0.0.1:8300\"\n";
        let both = "[host] has another id, flows, [controller] has another url or token, or came or went";
        assert_eq!(told(&format!("{elsewhere}{PORTS}")), both);
    }

    #[test]
    fn what_becomes_of_ports_is_told_by_name_and_their_order_is_nothing() {
        let told = |new: &str| {
            let PortChanges { added, removed, changed } = PortChanges::between(&host(PORTS), &host(new));
            [added, removed, changed].map(|ports| ports.join(" "))
        };
        let (one, two) = PORTS.split_at(PORTS.rfind("[[port]]").unwrap());
        assert_eq!(told(&format!("{two}{one}")), ["", "", ""]);
        assert_eq!(told(&format!("{MORE}{PORTS}")), ["vm6", "", ""]);
        assert_eq!(told(MORE), ["vm6", "vm5 svm1", ""]);
        let other =
            PORTS.replace("01:01\"\n", "01:01\"\nliveness = \"fast\"\n").replace("/tmp/vm5", "/tmp/five");
        assert_eq!(told(&other), ["", "", "vm5 svm1"]);
        let only_for_the_controller = PORTS.replace("00000001", "00000002");
        assert_eq!(told(&only_for_the_controller), ["", "", ""], "its guest does not notice");
    }
}
