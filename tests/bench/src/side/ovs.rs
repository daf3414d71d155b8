//! Open vSwitch with DPDK in user space: as a plain switch, or classifying into an NSH chain of one service function.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{Bench, Process, Side, find};
use crate::line::{Line, Sockets, Traffic};

/// What the bridge does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forwards by a port's flow, without a look at the packets.
    L2,
    /// Pushes an NSH, hands the frame to a service function, takes the NSH off what comes back.
    Nsh,
}

impl Mode {
    /// How it is called in figures.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::L2 => "ovs-dpdk-l2",
            Mode::Nsh => "ovs-dpdk-nsh",
        }
    }

    fn flows(self) -> &'static [&'static str] {
        match self {
            Mode::L2 => &["in_port=1,actions=output:2", "in_port=2,actions=output:1"],
            Mode::Nsh => &[
                "in_port=1,actions=encap(nsh(md_type=1)),set_field:0x1->nsh_spi,set_field:255->nsh_si,\
                 encap(ethernet),set_field:52:54:00:00:01:01->eth_dst,output:3",
                "in_port=3,dl_type=0x894f,nsh_spi=0x1,nsh_si=255,actions=decap(),decap(),output:2",
            ],
        }
    }
}

/// Starts Open vSwitch with a database of its own and attaches a line to it.
///
/// # Errors
/// It is not installed or does not start, or there are no huge pages, without which it does not.
pub fn start(bench: &Bench, mode: Mode, traffic: &Traffic) -> anyhow::Result<Side> {
    if !bench.huge_pages {
        bail!("Open vSwitch with DPDK needs pages of 2 MiB");
    }
    let folder = tempfile::tempdir()?;
    let mut processes = vec![start_database(bench, folder.path())?];
    configure(bench, folder.path())?;
    let mut switch =
        Command::new(find("ovs-vswitchd-dpdk").context("openvswitch-switch-dpdk is not installed")?);
    switch.arg("unix:db.sock").arg("--pidfile");
    processes.push(start_in(bench, "ovs-vswitchd", switch, folder.path())?);
    add_bridge(mode, folder.path(), processes.last_mut())?;
    let socket = |name: &str| folder.path().join(name);
    let services = if mode == Mode::Nsh { vec![socket("service")] } else { Vec::new() };
    let sockets = Sockets { source: socket("source"), services, sink: socket("sink") };
    let line = Line::attach(&sockets, traffic)
        .with_context(|| processes.last().map(Process::last_words).unwrap_or_default())?;
    Ok(Side::new(mode.name(), line, processes, folder))
}

pub(crate) fn start_database(bench: &Bench, folder: &Path) -> anyhow::Result<Process> {
    let database = folder.join("conf.db").display().to_string();
    run(folder, "ovsdb-tool", &["create", &database, "/usr/share/openvswitch/vswitch.ovsschema"])?;
    let mut server = Command::new(find("ovsdb-server").context("openvswitch-switch is not installed")?);
    server.args(["--remote=punix:db.sock", "--pidfile", &database]);
    let mut server = start_in(bench, "ovsdb-server", server, folder)?;
    server.until("listening", || folder.join("db.sock").exists())?;
    Ok(server)
}

fn settings(mask: &str) -> [String; 5] {
    let settings = [
        ("dpdk-init", "true"),
        ("dpdk-extra", "--in-memory --no-pci"),
        ("dpdk-socket-mem", "384"),
        ("dpdk-lcore-mask", mask),
        ("pmd-cpu-mask", mask),
    ];
    settings.map(|(key, value)| format!("other_config:{key}=\"{value}\""))
}

/// How it is set up, for people.
pub fn commands() -> String {
    let mut text = format!("ovs-vsctl set Open_vSwitch . {}\n", settings("MASK").join(" "));
    text += &format!("ovs-vsctl {}\n", BRIDGE.join(" "));
    for (name, number) in PORTS {
        text += &format!("ovs-vsctl {}\n", port(name, &request(number)).join(" "));
    }
    for mode in [Mode::L2, Mode::Nsh] {
        let flows = mode.flows().iter();
        text.extend(
            flows.map(|flow| format!("ovs-ofctl -OOpenFlow13 add-flow br0 '{flow}'    # {}\n", mode.name())),
        );
    }
    text
}

/// The datapath thread and all others on the forwarder's core.
fn configure(bench: &Bench, folder: &Path) -> anyhow::Result<()> {
    run(folder, "ovs-vsctl", &["--no-wait", "init"])?;
    for setting in settings(&format!("0x{:x}", 1_u64 << bench.core)) {
        run(folder, "ovs-vsctl", &["--no-wait", "set", "Open_vSwitch", ".", &setting])?;
    }
    Ok(())
}

const BRIDGE: [&str; 8] =
    ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure"];
const PORTS: [(&str, &str); 3] = [("source", "1"), ("sink", "2"), ("service", "3")];

fn request(number: &str) -> String {
    format!("ofport_request={number}")
}

fn port<'a>(name: &'a str, request: &'a str) -> [&'a str; 10] {
    [
        "add-port",
        "br0",
        name,
        "--",
        "set",
        "Interface",
        name,
        "type=dpdkvhostuser",
        "mtu_request=2000",
        request,
    ]
}

fn add_bridge(mode: Mode, folder: &Path, switch: Option<&mut Process>) -> anyhow::Result<()> {
    let vsctl = |arguments: &[&str]| run(folder, "ovs-vsctl", &[&["--timeout=20"], arguments].concat());
    vsctl(&BRIDGE)?;
    for (name, number) in PORTS {
        vsctl(&port(name, &request(number)))?;
    }
    if let Some(switch) = switch {
        switch.until("listening", || PORTS.iter().all(|(name, _)| folder.join(name).exists()))?;
    }
    run(folder, "ovs-ofctl", &["del-flows", "br0"])?;
    mode.flows()
        .iter()
        .try_for_each(|flow| run(folder, "ovs-ofctl", &["-OOpenFlow13", "add-flow", "br0", flow]))
}

/// Everything Open vSwitch would keep in /etc, /var and /run is in `folder`.
fn environment(command: &mut Command, folder: &Path) {
    for key in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(key, folder);
    }
}

pub(crate) fn start_in(
    bench: &Bench,
    name: &str,
    mut command: Command,
    folder: &Path,
) -> anyhow::Result<Process> {
    environment(&mut command, folder);
    Process::start(name, &command, &[bench.core], folder)
}

pub(crate) fn run(folder: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(find(program).with_context(|| format!("{program} is not installed"))?);
    environment(&mut command, folder);
    let output = command.args(arguments).current_dir(folder).output()?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
