//! `[host]`: who this host is and what it runs on.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use controller_stub::api::{HostId, Name};
use controller_stub::server::HostName;
use toml::Spanned;
use vhost_backend::host::HostSpec;

use super::HostConfig;
use super::fault::Findings;
use super::file;
use super::folder::{self, Use};
use super::ports::SOCKET_PATH;

/// Fewer are no saving.
const FLOWS: RangeInclusive<usize> = 1 << 10..=1 << 24;
const WORKERS: RangeInclusive<usize> = 1..=64;

/// Checks the table; `None` once a fault leaves nothing to go on with.
pub(super) fn check(table: &Spanned<file::Host>, findings: &mut Findings<'_>) -> Option<HostConfig> {
    let host = table.get_ref();
    let id = id(table, findings);
    let name = name(table, findings);
    workers(host, findings);
    let flows = *host.flows.get_ref();
    if !FLOWS.contains(&flows) {
        let remedy =
            format!("use {} to {}, or remove the key for {}", FLOWS.start(), FLOWS.end(), HostSpec::FLOWS);
        findings.add("host: flows", host.flows.span(), "is no number of flows to remember", remedy);
    }
    let metrics = metrics(host, findings);
    let metrics_names = metrics_names(host, findings);
    if let Err((problem, remedy)) = folder::check(host.admin.get_ref(), Use::Listens) {
        let remedy = format!("{remedy}, or name another place");
        // Left out it has no place of its own.
        let span = if host.admin.span().is_empty() { table.span() } else { host.admin.span() };
        findings.add_at("host: admin", host.admin.span(), span, problem, remedy);
    }
    if host.admin.get_ref().as_os_str().len() > SOCKET_PATH {
        let problem = format!("a socket's path has 1 to {SOCKET_PATH} bytes");
        findings.add(
            "host: admin",
            host.admin.span(),
            problem,
            "choose a shorter path, e.g. below /run/livepath",
        );
    }
    Some(HostConfig {
        id: id?,
        name: name?,
        workers: *host.workers.get_ref(),
        cpus: host.cpus.get_ref().clone(),
        flows,
        admin: host.admin.get_ref().clone(),
        metrics,
        metrics_names,
    })
}

fn id(table: &Spanned<file::Host>, findings: &mut Findings<'_>) -> Option<HostId> {
    let remedy = "use 1 to 65535, unique among hosts";
    let Some(given) = &table.get_ref().id else {
        findings.missing(
            "host: id",
            &table.span(),
            "is missing",
            &format!("give the host a number: {remedy}"),
        );
        return None;
    };
    let id = HostId::new((*given.get_ref()).into()).ok();
    if id.is_none() {
        findings.add("host: id", given.span(), "is no host number", remedy);
    }
    id
}

fn name(table: &Spanned<file::Host>, findings: &mut Findings<'_>) -> Option<Name> {
    let Some(given) = &table.get_ref().name else {
        let remedy = "give the host a name for people, e.g. name = \"host-a\"";
        findings.missing("host: name", &table.span(), "is missing", remedy);
        return None;
    };
    match Name::new(given.get_ref().as_str()) {
        Ok(name) => Some(name),
        Err(error) => {
            findings.add("host: name", given.span(), "is no name", remedy(&error.to_string()));
            None
        }
    }
}

/// How many workers, and where each of them runs.
fn workers(host: &file::Host, findings: &mut Findings<'_>) {
    let workers = *host.workers.get_ref();
    if !WORKERS.contains(&workers) {
        let remedy = format!("use {} to {}", WORKERS.start(), WORKERS.end());
        findings.add("host: workers", host.workers.span(), "is no number of workers", remedy);
        return;
    }
    let cpus = host.cpus.get_ref();
    let mut seen = HashSet::new();
    if let Some(twice) = cpus.iter().find(|cpu| !seen.insert(**cpu)) {
        let problem = format!("names core {twice} twice");
        findings.add("host: cpus", host.cpus.span(), problem, "give every worker a core of its own");
    } else if !cpus.is_empty() && cpus.len() != workers {
        let problem = format!("names {} for {}", counted(cpus.len(), "core"), counted(workers, "worker"));
        let remedy = "give one core for each worker, or remove the key";
        findings.add("host: cpus", host.cpus.span(), problem, remedy);
    } else if let Some(online) = online_cpus()
        && let Some(missing) = cpus.iter().find(|cpu| !online.iter().any(|range| range.contains(*cpu)))
    {
        let problem = format!("names core {missing}, which this machine does not have");
        let has = online.iter().map(shown).collect::<Vec<_>>().join(", ");
        findings.add("host: cpus", host.cpus.span(), problem, format!("use {has}, or remove the key"));
    }
}

/// The cores of this machine that are online, if it says so.
fn online_cpus() -> Option<Vec<RangeInclusive<usize>>> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').map(range).collect()
}

fn shown(range: &RangeInclusive<usize>) -> String {
    match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first} to {last}"),
    }
}

fn metrics(host: &file::Host, findings: &mut Findings<'_>) -> Option<SocketAddr> {
    let given = host.metrics.as_ref()?;
    let address = given.get_ref().parse().ok();
    if address.is_none() {
        let problem = "is no address to listen on";
        let remedy = "write an IP address and a port, e.g. \"127.0.0.1:9300\"";
        findings.add("host: metrics", given.span(), problem, remedy);
    }
    address
}

fn metrics_names(host: &file::Host, findings: &mut Findings<'_>) -> Vec<HostName> {
    let given = &host.metrics_names;
    let names = given.get_ref().iter().map(|name| name.parse::<HostName>());
    match names.collect::<Result<Vec<_>, _>>() {
        Ok(names) => names,
        Err(error) => {
            let remedy = "write names as in a URL, without scheme and port, e.g. [\"host-a.example\"]";
            findings.add("host: metrics_names", given.span(), error.to_string(), remedy);
            Vec::new()
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The part of a "what value: remedy" message behind the value.
pub(super) fn remedy(message: &str) -> String {
    message.rsplit_once("\": ").map_or(message, |(_, remedy)| remedy).to_owned()
}
