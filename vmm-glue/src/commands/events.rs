//! `livepath events`.

use clap::Args;

use super::Reach;
use super::terminal::{Tone, has_colour, print, with_services};
use crate::daemon::{Entry, Occurrence, PortChanges, Taken};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  livepath events\n  livepath events --follow\n  livepath events --json | jq 'select(.kind == \"service\")'"
)]
pub(super) struct Arguments {
    /// Go on as things happen, until interrupted
    #[arg(long)]
    follow: bool,

    /// Only what has a larger id
    #[arg(long, value_name = "ID", default_value_t = 0)]
    since: u64,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(reach: &Reach, arguments: &Arguments) -> anyhow::Result<()> {
    let colour = has_colour();
    let line = |entry: &Entry| -> anyhow::Result<String> {
        Ok(if arguments.json { serde_json::to_string(entry)? } else { text(entry, colour) } + "\n")
    };
    let mut daemon = reach.daemon()?;
    if !arguments.follow {
        let lines: Vec<String> =
            daemon.events(arguments.since)?.iter().map(line).collect::<Result<_, _>>()?;
        print(&lines.concat())?;
        return Ok(());
    }
    let mut failed = None;
    daemon.follow(arguments.since, |entry| {
        let done = line(&entry).and_then(|line| Ok(print(&line)?));
        failed = done.err();
        failed.is_none()
    })?;
    failed.map_or(Ok(()), Err)
}

/// Before the further lines of an event.
const INDENT: &str = "        ";

/// One line for people; a file that is not taken has one more for each fault.
fn text(entry: &Entry, colour: bool) -> String {
    let what = match &entry.occurrence {
        Occurrence::Started { ports } => format!("livepathd serves {ports} ports"),
        Occurrence::PortUp { port } => format!("port {port} up"),
        Occurrence::PortDown { port } => format!("port {port} down"),
        Occurrence::RingBroken { port, reason } => format!("port {port} broken: {reason}"),
        Occurrence::Service { service, from, to, cause, .. } if cause == "none" => {
            format!("service {service} {from} -> {to}")
        }
        Occurrence::Service { service, from, to, cause, .. } => {
            format!("service {service} {from} -> {to} ({cause})")
        }
        Occurrence::Salvaged { service, salvaged, replayed, .. } => {
            format!("service {service}: {salvaged} frames salvaged, {replayed} replayed")
        }
        Occurrence::Chain { chain, mode, .. } if mode == "served" => {
            format!("chain {chain} served: a path is up")
        }
        Occurrence::Chain { chain, mode, bypassed } => {
            format!("chain {chain} {}: no path is up", with_services(mode, bypassed))
        }
        Occurrence::Degraded { service, degraded: true } => {
            format!("service {service} degraded: it answers late")
        }
        Occurrence::Degraded { service, degraded: false } => format!("service {service} answers in time"),
        Occurrence::Tables { generation } => format!("tables of generation {generation} in force"),
        Occurrence::Operator { service, action } => format!("operator: {action} {service}"),
        Occurrence::ControllerUp { url } => format!("controller {url} reached"),
        Occurrence::ControllerDown { url, reason } => format!("controller {url} not reached: {reason}"),
        Occurrence::Reloaded(Taken { chains, ports }) => {
            format!("configuration read again, chains {chains}{}", port_changes(ports))
        }
        Occurrence::ReloadRefused { reason } => {
            format!(
                "configuration not taken, nothing changed:\n{INDENT}{}",
                reason.replace('\n', &format!("\n{INDENT}"))
            )
        }
        Occurrence::EventsLost { count } => format!("{count} events lost"),
    };
    format!("{:>6}  {}  {}", entry.id, entry.at, tone(&entry.occurrence).paint(&what, colour))
}

/// What became of the ports, if anything did.
pub(super) fn port_changes(ports: &PortChanges) -> String {
    let PortChanges { added, removed, changed } = ports;
    let told = [("added", added), ("removed", removed), ("set up anew", changed)].into_iter();
    told.filter(|(_, ports)| !ports.is_empty())
        .map(|(what, ports)| format!(", {what}: {}", ports.join(" ")))
        .collect()
}

/// Good and bad news, and what may become either.
fn tone(occurrence: &Occurrence) -> Tone {
    match occurrence {
        Occurrence::Service { to, .. } => Tone::of(to),
        Occurrence::Chain { mode, .. } => Tone::of(mode),
        Occurrence::Degraded { degraded: true, .. } => Tone::Waiting,
        Occurrence::RingBroken { .. }
        | Occurrence::ControllerDown { .. }
        | Occurrence::ReloadRefused { .. }
        | Occurrence::EventsLost { .. } => Tone::Bad,
        _ => Tone::Plain,
    }
}
