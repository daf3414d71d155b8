//! Ours: a `livepathd` process with a file made for the row.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{Bench, Namespace, Process, Side};
use crate::line::{Line, Sockets, Traffic};

/// How it is called in figures.
pub const NAME: &str = "livepath";

/// How the service VMs are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// The profile of 10 ms × 3.
    Default,
    /// The profile of 1 ms × 3.
    Fast,
    /// As good as not at all: a query every two seconds; without any, a service VM never comes up.
    Off,
}

impl Liveness {
    const fn value(self) -> &'static str {
        match self {
            Liveness::Default => "\"default\"",
            Liveness::Fast => "\"fast\"",
            Liveness::Off => {
                "{ interval = \"2s\", timeout = \"2s\", idle_interval = \"2s\", stall = \"2s\", recover = 1, \
                 hold_down = \"0s\" }"
            }
        }
    }
}

/// The file of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Service VMs that every frame passes; 0: none is chained.
    pub services: usize,
    /// How they are watched.
    pub liveness: Liveness,
    /// Paths of the chain, which share the flows.
    pub paths: usize,
    /// Policies, of which every one takes some of the flows.
    pub policies: usize,
    /// `host.flows`, when it is to be named.
    pub flows: Option<u32>,
    /// The service VMs understand offloads.
    pub offload: bool,
    /// Where it serves metrics.
    pub metrics: Option<SocketAddr>,
    /// There is a tap port besides, with [`INTERFACE`].
    pub tap: bool,
}

/// The interface of [`Plan::TAP`].
pub const INTERFACE: &str = "lp0";

impl Plan {
    /// Two tenants and nothing between them.
    pub const PLAIN: Plan = Plan {
        services: 0,
        liveness: Liveness::Default,
        paths: 1,
        policies: 1,
        flows: None,
        offload: false,
        metrics: None,
        tap: false,
    };

    /// Two tenants and the host's stack.
    pub const TAP: Plan = Plan { tap: true, ..Plan::PLAIN };

    /// A chain of that many service VMs.
    pub const fn chain(services: usize) -> Plan {
        Plan { services, ..Plan::PLAIN }
    }

    /// The configuration file, with all sockets in `folder`.
    pub fn file(&self, folder: &Path, core: usize) -> String {
        let mut text = String::new();
        self.write(&mut text, &folder.display().to_string(), core).unwrap_or_default();
        text
    }

    fn write(&self, text: &mut String, folder: &str, core: usize) -> std::fmt::Result {
        writeln!(text, "[host]\nid = 1\nname = \"bench\"\ncpus = [{core}]\nadmin = \"{folder}/admin\"")?;
        if let Some(flows) = self.flows {
            writeln!(text, "flows = {flows}")?;
        }
        if let Some(metrics) = self.metrics {
            writeln!(text, "metrics = \"{metrics}\"")?;
        }
        for (name, mac) in [("source", Line::source_mac(0)), ("sink", Line::sink_mac(0))] {
            let mac = colons(mac);
            writeln!(
                text,
                "[[port]]\nname = \"{name}\"\nrole = \"tenant\"\nsocket = \"{folder}/{name}\"\nmac = \"{mac}\""
            )?;
        }
        for index in 0..self.services {
            let mac = colons(Line::service_mac(0, index));
            writeln!(
                text,
                "[[port]]\nname = \"svm{index}\"\nrole = \"service\"\nuuid = \"00000000-0000-4000-8000-{index:012}\"\n\
                 socket = \"{folder}/svm{index}\"\nmac = \"{mac}\"\nliveness = {}",
                self.liveness.value()
            )?;
            if self.offload {
                writeln!(text, "offload = \"metadata\"")?;
            }
        }
        if self.tap {
            let mac = colons(Line::router_mac(0));
            writeln!(
                text,
                "[[port]]\nname = \"world\"\nrole = \"tap\"\ninterface = \"{INTERFACE}\"\nmac = \"{mac}\""
            )?;
        }
        if self.services > 0 { self.write_chain(text) } else { Ok(()) }
    }

    fn write_chain(&self, text: &mut String) -> std::fmt::Result {
        let hops: Vec<String> = (0..self.services).map(|index| format!("\"svm{index}\"")).collect();
        writeln!(text, "[[chain]]\nname = \"inspect\"")?;
        for path in 1..=self.paths {
            writeln!(text, "[[chain.path]]\nspi = {path}\npreference = 0\nhops = [{}]", hops.join(", "))?;
        }
        if self.policies == 1 {
            return writeln!(text, "[[policy]]\nchain = \"inspect\"\nfrom = [\"source\"]");
        }
        // The flows are 256 addresses with 4096 source ports each; every policy takes some ports of one address.
        let each = self.policies.div_ceil(256);
        let span = 4096_usize.div_ceil(each);
        for policy in 0..self.policies {
            let (address, part) = (policy / each, policy % each);
            let first = 1024 + part * span;
            let last = (first + span - 1).min(1024 + 4095);
            writeln!(
                text,
                "[[policy]]\nchain = \"inspect\"\npriority = {policy}\nfrom = [\"source\"]\n\
                 match = {{ src = \"10.1.0.{address}\", dst = \"10.2.0.0/16\", proto = \"udp\", sport = \"{first}-{last}\" }}"
            )?;
        }
        // What the division left over.
        writeln!(text, "[[policy]]\nchain = \"inspect\"\npriority = {}\nfrom = [\"source\"]", self.policies)
    }

    /// The sockets of [`Plan::file`].
    pub fn sockets(&self, folder: &Path) -> Sockets {
        let socket = |name: &str| folder.join(name);
        Sockets {
            source: socket("source"),
            services: (0..self.services).map(|index| socket(&format!("svm{index}"))).collect(),
            sink: socket("sink"),
        }
    }
}

/// The sum of a counter over all its labels, as a daemon serves it.
///
/// # Errors
/// It does not answer, or has no such counter.
pub fn counter(metrics: SocketAddr, name: &str) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(metrics).context("no metrics")?;
    io::Write::write_all(
        &mut stream,
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.reduce(|sum, value| sum + value).with_context(|| format!("no metric {name}"))
}

/// An address as files have it.
pub fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Starts the daemon and attaches a line to it.
///
/// # Errors
/// It refuses the file or does not start.
pub fn start(bench: &Bench, plan: &Plan, traffic: &Traffic) -> anyhow::Result<Side> {
    start_by(bench, plan, traffic, Command::new(&bench.livepathd))
}

/// The same in a network namespace.
///
/// # Errors
/// As [`start`].
pub fn start_in(
    namespace: &Namespace,
    bench: &Bench,
    plan: &Plan,
    traffic: &Traffic,
) -> anyhow::Result<Side> {
    start_by(bench, plan, traffic, namespace.command(&bench.livepathd))
}

fn start_by(bench: &Bench, plan: &Plan, traffic: &Traffic, daemon: Command) -> anyhow::Result<Side> {
    let folder = tempfile::tempdir()?;
    let text = plan.file(folder.path(), bench.core);
    let process = start_daemon_by(daemon, bench, &[bench.core], &text, folder.path())?;
    let line = Line::attach(&plan.sockets(folder.path()), traffic).with_context(|| process.last_words())?;
    Ok(Side::new(NAME, line, vec![process], folder))
}

/// Starts the daemon on these cores with a file of that text.
///
/// # Errors
/// As [`start`].
pub fn start_daemon(bench: &Bench, cores: &[usize], text: &str, folder: &Path) -> anyhow::Result<Process> {
    start_daemon_by(Command::new(&bench.livepathd), bench, cores, text, folder)
}

fn start_daemon_by(
    mut daemon: Command,
    bench: &Bench,
    cores: &[usize],
    text: &str,
    folder: &Path,
) -> anyhow::Result<Process> {
    let file = folder.join("livepathd.toml");
    std::fs::write(&file, text)?;
    let check = Command::new(&bench.livepathd).arg("--check").arg("--config").arg(&file).output();
    let check = check.with_context(|| format!("cannot start {}", bench.livepathd.display()))?;
    if !check.status.success() {
        bail!("livepathd refuses the file: {}", String::from_utf8_lossy(&check.stderr).trim());
    }
    daemon.arg("--config").arg(&file);
    let mut process = Process::start("livepathd", &daemon, cores, folder)?;
    let admin = folder.join("admin");
    process.until("listening", || admin.exists())?;
    Ok(process)
}
