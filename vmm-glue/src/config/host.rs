//! `[host]`: who this host is and what it runs on.

use controller_stub::api::{HostId, Name};

use super::HostConfig;
use super::fault::Findings;
use super::file;

/// Checks the table; `None` once a fault leaves nothing to go on with.
pub(super) fn check(host: &file::Host, findings: &mut Findings<'_>) -> Option<HostConfig> {
    let id = HostId::new((*host.id.get_ref()).into());
    if id.is_err() {
        findings.add("host: id", host.id.span(), "is no host number", "use 1 to 65535, unique among hosts");
    }
    let name = Name::new(host.name.get_ref().as_str());
    if let Err(error) = &name {
        findings.add("host: name", host.name.span(), "is no name", remedy(&error.to_string()));
    }
    if *host.workers.get_ref() != 1 {
        let problem = "this version runs one worker";
        findings.add("host: workers", host.workers.span(), problem, "remove the key or set 1");
    }
    if host.cpus.get_ref().len() > 1 {
        let problem = "this version runs one worker, on one core";
        findings.add("host: cpus", host.cpus.span(), problem, "give one core, e.g. [1], or remove the key");
    }
    if let Some(metrics) = &host.metrics {
        findings.add(
            "host: metrics",
            metrics.span(),
            "metrics are not served in this version",
            "remove the key",
        );
    }
    let folder = host.admin.get_ref().parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        let problem = format!("the folder {} does not exist", folder.display());
        let remedy = format!("make it (mkdir -p {}) or name another place with host.admin", folder.display());
        findings.add("host: admin", host.admin.span(), problem, remedy);
    }
    let cpu = host.cpus.get_ref().first().copied();
    Some(HostConfig { id: id.ok()?, name: name.ok()?, cpu, admin: host.admin.get_ref().clone() })
}

/// The part of a "what value: remedy" message behind the value.
pub(super) fn remedy(message: &str) -> String {
    message.rsplit_once("\": ").map_or(message, |(_, remedy)| remedy).to_owned()
}
