//! Frames from one tenant to another by way of the host's own IP stack, through a tap: with many frames in a system call, by io_uring, against
//! one.
//!
//! ```text
//!  source ─▶ livepathd ─▶ tap ─▶ the stack of a network namespace, which routes ─▶ the same tap ─▶ livepathd ─▶ sink
//! ```
//!
//! All of it but source and sink is on the forwarder's core. The daemon takes io_uring where it may have it; the other one starts
//! while the kernel refuses it to everybody.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use super::{Effort, Row, pairs, settle};
use crate::figure::{Figure, Series, Unit};
use crate::line::{Line, Traffic, Window};
use crate::side::livepathd::{self, INTERFACE, Plan, colons};
use crate::side::{Bench, Namespace, Side};

const NAMESPACE: &str = "lptap";
/// 0: whoever wants may have an io_uring, 1: not everybody, 2: nobody.
const SWITCH: &str = "/proc/sys/kernel/io_uring_disabled";

/// Where the time goes, and what was tried.
pub(super) const ACCOUNT: &str = "\
Most of a frame's time is the host's stack, once in the write and once more until the read, and the same either way; io_uring saves all but one entry into the \
kernel a batch. Reads in vain cost too, so 16 are asked for at most, and as many as came last; 8 gain less, 31 no more.";

pub(super) fn ours(row: &Row, bench: &Bench) -> anyhow::Result<Side> {
    start(bench, &traffic(row, bench))
}

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let traffic = traffic(row, bench);
    let mut one_by_one = {
        let _refusal = Refusal::begin(Path::new(SWITCH))?;
        start(bench, &traffic)?
    };
    ensure!(!has_uring(&one_by_one)?, "the kernel refused io_uring, and livepathd has one");
    "livepath, read and write".clone_into(&mut one_by_one.name);
    let mut one_by_one = settle(Ok(one_by_one))?;
    let mut at_once = settle(start(bench, &traffic))?;
    "livepath, io_uring".clone_into(&mut at_once.name);
    let nanos = |window: &Window, _: &Line| window.nanos();
    let pairs = pairs::measure(row.name, bench, (&mut at_once, &mut one_by_one), effort, nanos, || Ok(()))?;
    // It gives up one that does not work out.
    ensure!(has_uring(&at_once)?, "livepathd has no io_uring here; its log says why");
    Ok(vec![Figure {
        bench: row.name.to_owned(),
        frame: row.frame(),
        ring: traffic.ring,
        unit: Unit::NanosPerPacket,
        note: pairs.note(&at_once, &one_by_one),
        ours: Series { who: at_once.name, values: pairs.ours.values },
        peer: Some(Series { who: one_by_one.name, values: pairs.theirs.values }),
        target: row.target,
        round_trips: pairs.trips,
    }])
}

fn traffic(row: &Row, bench: &Bench) -> Traffic {
    Traffic { routed: true, ..Traffic::plain(row.frame(), bench.huge_pages) }
}

/// A daemon with its tap in a namespace that lives as long as it.
fn start(bench: &Bench, traffic: &Traffic) -> anyhow::Result<Side> {
    let namespace = Namespace::new(NAMESPACE)?;
    prepare(&namespace, traffic.line)?;
    livepathd::start_in(&namespace, bench, &Plan::TAP, traffic)
}

/// Makes the interface, and a router of the namespace's stack that sends on what comes there to the sink.
fn prepare(namespace: &Namespace, line: u8) -> anyhow::Result<()> {
    let (router, sink) = (colons(Line::router_mac(line)), colons(Line::sink_mac(line)));
    namespace.ip(&format!("tuntap add dev {INTERFACE} mode tap multi_queue"))?;
    // The stack shall send nothing of its own accord.
    let _ = namespace.set(&format!("ipv6/conf/{INTERFACE}/disable_ipv6"), "1");
    namespace.set("ipv4/ip_forward", "1")?;
    for place in ["all", INTERFACE] {
        namespace.set(&format!("ipv4/conf/{place}/rp_filter"), "0")?;
        namespace.set(&format!("ipv4/conf/{place}/send_redirects"), "0")?;
    }
    namespace.ip(&format!("link set {INTERFACE} address {router} up"))?;
    // Addresses of the generator's frames.
    namespace.ip(&format!("address add 10.1.255.1/16 dev {INTERFACE}"))?;
    namespace.ip(&format!("route add 10.2.0.0/16 dev {INTERFACE}"))?;
    namespace.ip(&format!("neighbour add 10.2.0.1 lladdr {sink} dev {INTERFACE} nud permanent"))
}

/// Whether its daemon has an io_uring.
fn has_uring(side: &Side) -> anyhow::Result<bool> {
    let daemon = side.process().context("no daemon")?.id();
    let files = fs::read_dir(format!("/proc/{daemon}/fd")).context("the daemon is gone")?;
    let mut links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    Ok(links.any(|link| is_uring(&link)))
}

fn is_uring(link: &Path) -> bool {
    link.to_string_lossy().contains("[io_uring]")
}

/// While it lasts the kernel refuses new io_urings to everybody on this machine. A process of its own puts back what was there,
/// so that it is also put back should this program be killed.
struct Refusal(Child);

impl Refusal {
    fn begin(switch: &Path) -> anyhow::Result<Refusal> {
        let name = switch.display();
        let before = fs::read_to_string(switch).with_context(|| format!("cannot read {name}"))?;
        let script = format!(
            "trap '' INT TERM HUP; echo 2 >'{name}' || exit; echo refused; cat >/dev/null; echo {} >'{name}'",
            before.trim()
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut refusal = Refusal(shell.spawn().context("cannot start sh")?);
        let said = refusal.0.stdout.take().context("sh says nothing")?;
        let said = BufReader::new(said).lines().next().transpose()?;
        ensure!(said.as_deref() == Some("refused"), "{name} cannot be written");
        Ok(refusal)
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's own switch is everybody's.
    #[test]
    fn what_was_refused_is_allowed_again() {
        let folder = tempfile::tempdir().unwrap();
        let switch = folder.path().join("switch");
        fs::write(&switch, "1\n").unwrap();
        let is = |value: &str| fs::read_to_string(&switch).unwrap() == value;
        let refusal = Refusal::begin(&switch).unwrap();
        assert!(is("2\n"));
        drop(refusal);
        assert!(is("1\n"));
    }

    #[test]
    fn a_switch_that_cannot_be_thrown_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = |switch: &Path| Refusal::begin(switch).err().unwrap().to_string();
        assert!(error(&folder.path().join("none")).contains("cannot read"));
        // Readable for anybody, writable for nobody.
        assert!(error(Path::new("/proc/sys/kernel/osrelease")).contains("cannot be written"));
    }

    #[test]
    fn an_io_uring_is_known_by_its_name() {
        assert!(is_uring(Path::new("anon_inode:[io_uring]")));
        assert!(!is_uring(Path::new("anon_inode:[eventfd]")));
    }
}
