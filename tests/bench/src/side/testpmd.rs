//! DPDK's own forwarder: testpmd between two vhost ports, without a look at the packets.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::{Bench, Process, Side, find};
use crate::line::{Line, Sockets, Traffic};

/// How it is called in figures.
pub const NAME: &str = "testpmd-io";

/// How it is started, for people.
pub fn command() -> String {
    let sockets = ["SOURCE", "SINK"].map(Path::new);
    format!("dpdk-testpmd {}", arguments("CORE", sockets, true).join(" "))
}

fn arguments(core: &str, sockets: [&Path; 2], huge_pages: bool) -> Vec<String> {
    // Its main thread waits for a key, so that both may have one core.
    let mut all = vec!["--lcores".to_owned(), format!("(0-1)@{core}")];
    all.extend(["--in-memory", "--no-pci", "--no-telemetry", "-m", "256"].map(str::to_owned));
    if !huge_pages {
        all.push("--no-huge".to_owned());
    }
    for (index, path) in sockets.into_iter().enumerate() {
        all.extend(["--vdev".to_owned(), format!("net_vhost{index},iface={},queues=1", path.display())]);
    }
    let forward = ["--", "--forward-mode=io", "--burst=32", "--nb-cores=1", "--total-num-mbufs=16384"];
    all.extend(forward.into_iter().chain(["--disable-link-check", "--no-lsc-interrupt"]).map(str::to_owned));
    all
}

/// Starts testpmd in io mode and attaches a line to it.
///
/// # Errors
/// DPDK is not installed or does not start.
pub fn start(bench: &Bench, traffic: &Traffic) -> anyhow::Result<Side> {
    let program = find("dpdk-testpmd").context("dpdk-testpmd is not installed (Debian: dpdk-dev)")?;
    let folder = tempfile::tempdir()?;
    let socket = |name: &str| folder.path().join(name);
    let sockets = Sockets { source: socket("source"), services: Vec::new(), sink: socket("sink") };
    let mut command = Command::new(program);
    command.args(arguments(&bench.core.to_string(), [&sockets.source, &sockets.sink], bench.huge_pages));
    let mut process = Process::start("testpmd", &command, &[bench.core], folder.path())?;
    process.until("listening", || sockets.source.exists() && sockets.sink.exists())?;
    let line = Line::attach(&sockets, traffic).with_context(|| process.last_words())?;
    Ok(Side::new(NAME, line, vec![process], folder))
}
