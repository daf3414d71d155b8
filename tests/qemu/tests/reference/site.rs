//! One host with everything of the reference scenario: controller, daemon and six guests.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_guests::{Process, Programs, Progress, Status, poll};
use qemu_vm::{Guest, GuestSpec, Kit, Link, Role};
use serde_json::Value;
use tempfile::TempDir;

/// Tenants: name, MAC, address.
const TENANTS: [(&str, &str, &str); 2] =
    [("vm5", "52:54:00:00:00:05", "10.0.0.5"), ("vm6", "52:54:00:00:00:06", "10.0.0.6")];
/// Service VMs: name, MAC.
const SERVICES: [(&str, &str); 4] = [
    ("svm1", "52:54:00:00:01:01"),
    ("svm2", "52:54:00:00:01:02"),
    ("svm3", "52:54:00:00:01:03"),
    ("svm4", "52:54:00:00:01:04"),
];
/// The VM whose VMM connects to livepathd, as is the default; the others' listen for it.
pub(crate) const CONNECTS: &str = "svm4";
/// Six emulated CPUs on two cores: a guest may have to wait its turn for tens of milliseconds, so liveness is slower
/// here than a real host would have it.
const LIVENESS: &str = r#"{ interval = "100ms", timeout = "100ms", multiplier = 5, idle_interval = "400ms", stall = "500ms", recover = 3, hold_down = "500ms", hold_down_max = "4s" }"#;
/// SPI 1, through svm2, is the preferred path; SPI 2 goes through svm4 instead.
const CHAIN: &str = r#"
[[chain]]
name = "inspect"
on_failure = "block"
[[chain.path]]
spi = 1
hops = ["svm1", "svm2", "svm3"]
reverse_spi = 101
[[chain.path]]
spi = 2
hops = ["svm1", "svm4", "svm3"]
reverse_spi = 102

[[policy]]
chain = "inspect"
priority = 100
from = ["vm5"]
match = { src = "10.0.0.5/32", dst = "10.0.0.0/24" }
"#;

/// Long enough for whatever has to happen on a busy machine, short enough to fail on.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The running site. Dropping it ends everything.
pub(crate) struct Site {
    // Before the directory with their sockets.
    guests: BTreeMap<String, Guest>,
    pub(crate) daemon: Process,
    pub(crate) controller: Process,
    pub(crate) kit: Kit,
    programs: Programs,
    controller_port: u16,
    directory: TempDir,
}

impl Site {
    /// Starts everything; the guests are still booting when it returns.
    pub(crate) fn start(kit: Kit, programs: Programs, progress: &Progress) -> Result<Site> {
        let directory = tempfile::Builder::new().prefix("livepath-").tempdir()?;
        let initramfs = kit.initramfs(directory.path(), &[&programs.responder])?;
        let controller_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = configuration(&directory, controller_port);
        std::fs::write(directory.path().join("livepathd.toml"), &config)?;

        let controller = start_controller(&programs, &directory, controller_port)?;
        let daemon = start_daemon(&programs, &directory)?;
        let mut site =
            Site { guests: BTreeMap::new(), daemon, controller, kit, programs, controller_port, directory };
        poll("livepathd takes commands", PATIENCE, || {
            site.daemon.alive()?;
            site.status()
        })?;
        progress.step("controller and livepathd run");
        for spec in site.specs() {
            let name = spec.name.clone();
            let guest = Guest::start(&site.kit, &initramfs, site.directory.path(), spec)?;
            site.guests.insert(name, guest);
        }
        Ok(site)
    }

    fn specs(&self) -> Vec<GuestSpec> {
        let spec = |name: &str, mac: &str, role| GuestSpec {
            name: name.into(),
            mac: mac.into(),
            role,
            link: match name {
                CONNECTS => Link::VhostUser(self.socket(name)),
                _ => Link::VhostUserListen(self.socket(name)),
            },
            queue_pairs: 1,
            properties: "",
        };
        let tenants =
            TENANTS.map(|(name, mac, address)| spec(name, mac, Role::Tenant(format!("{address}/24"))));
        let services = SERVICES.map(|(name, mac)| spec(name, mac, Role::Service("--service forward".into())));
        tenants.into_iter().chain(services).collect()
    }

    /// All guests.
    pub(crate) fn guests(&self) -> impl Iterator<Item = &Guest> {
        self.guests.values()
    }

    pub(crate) fn guest(&self, name: &str) -> &Guest {
        &self.guests[name]
    }

    pub(crate) fn guest_mut(&mut self, name: &str) -> &mut Guest {
        self.guests.get_mut(name).expect("a guest of the reference scenario")
    }

    /// The port's vhost-user socket.
    pub(crate) fn socket(&self, port: &str) -> PathBuf {
        self.directory.path().join(format!("{port}.sock"))
    }

    /// A file in the site's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `livepath ARGUMENTS` against this site's daemon.
    pub(crate) fn livepath(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.livepath);
        command
            .args(arguments)
            .env("LIVEPATH_ADMIN", self.file("admin.sock"))
            .env("LIVEPATH_CONTROLLER", format!("http://127.0.0.1:{}", self.controller_port));
        command
    }

    /// What `livepath status --json` says.
    pub(crate) fn status(&self) -> Result<Status> {
        let output = self.livepath(&["status", "--json"]).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "livepath status: {} {error}", output.status);
        Status::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// Waits until the status is as `wanted`; gives the time it took.
    pub(crate) fn await_status(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Duration> {
        let (_, elapsed) = poll(what, PATIENCE, || {
            self.daemon.alive()?;
            let status = self.status()?;
            ensure!(wanted(&status), "{}", status.summary());
            Ok(())
        })?;
        Ok(elapsed)
    }

    /// The same for a moment that is to be told: looks as often as it can, also while the daemon does not answer yet.
    pub(crate) fn await_moment(&mut self, what: &str, come: impl Fn(&Status) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.status().is_ok_and(|status| come(&status)) {
            self.daemon.alive()?;
            ensure!(Instant::now() < deadline, "{what}: not within {} s", PATIENCE.as_secs());
        }
        Ok(())
    }

    /// Waits until every guest is attached, every service VM up and both paths up.
    pub(crate) fn await_health(&mut self) -> Result<Duration> {
        self.await_status("everything up", |status| {
            let attached = |port: &str| status.attached(port);
            TENANTS.iter().all(|(name, ..)| attached(name))
                && SERVICES.iter().all(|(name, _)| attached(name) && status.state(name) == "up")
                && [1, 2].iter().all(|spi| status.path(*spi) == "up")
        })
    }

    /// Waits until the controller says this of a service VM's data plane.
    pub(crate) fn await_controller(&self, service: &str, state: &str) -> Result<Duration> {
        let what = format!("the controller has {service} {state}");
        let (_, elapsed) = poll(&what, PATIENCE, || {
            let status = self.controller_status()?;
            let services = status["services"].as_array().context("no services")?;
            let found = services.iter().find(|entry| entry["name"] == service).context("unknown service")?;
            ensure!(found["data_plane"]["state"] == state, "it says {found}");
            Ok(())
        })?;
        Ok(elapsed)
    }

    fn controller_status(&self) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.controller_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /v1/status HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("not HTTP")?;
        ensure!(head.split_whitespace().nth(1) == Some("200"), "{head}");
        Ok(serde_json::from_str(body)?)
    }

    /// Kills the daemon and starts it again.
    pub(crate) fn restart_daemon(&mut self) -> Result<()> {
        self.daemon.kill()?;
        self.daemon = start_daemon(&self.programs, &self.directory)?;
        Ok(())
    }

    /// Starts the controller again after it was killed.
    pub(crate) fn start_controller_again(&mut self) -> Result<()> {
        self.controller = start_controller(&self.programs, &self.directory, self.controller_port)?;
        Ok(())
    }

    /// Prints what helps to understand a failure.
    pub(crate) fn dump(&self) {
        eprintln!(
            "--- status: {}",
            self.status().map_or_else(|error| format!("{error:#}"), |status| status.summary())
        );
        eprintln!("--- livepathd:\n{}", last_lines(&self.daemon.log(), 200));
        eprintln!("--- livepath-controller:\n{}", last_lines(&self.controller.log(), 40));
        for guest in self.guests() {
            // A frozen guest cannot tell; one that is gone says nothing.
            let _ = guest.thaw();
            let command = "ip -s link show eth0; cat /tmp/responder.log 2>/dev/null | tail -n 20";
            let told = guest.output(command, Duration::from_secs(5)).map(|output| output.text);
            eprintln!("--- {} says:\n{}", guest.name(), told.unwrap_or_else(|error| format!("{error:#}")));
            eprintln!("--- {}'s console:\n{}", guest.name(), last_lines(&guest.console(), 40));
        }
    }
}

fn start_controller(programs: &Programs, directory: &TempDir, port: u16) -> Result<Process> {
    let mut command = Command::new(&programs.controller);
    command
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("--store")
        .arg(directory.path().join("store.redb"));
    Process::start(command.env("RUST_LOG", "info"), &directory.path().join("controller.log"))
}

fn start_daemon(programs: &Programs, directory: &TempDir) -> Result<Process> {
    let mut command = Command::new(&programs.livepathd);
    command.arg("--config").arg(directory.path().join("livepathd.toml"));
    Process::start(command.env("RUST_LOG", "info"), &directory.path().join("livepathd.log"))
}

fn configuration(directory: &TempDir, controller_port: u16) -> String {
    let directory = directory.path().display();
    let port = |name: &str, role: &str, mac: &str| {
        let mode = if name == CONNECTS { "server" } else { "client" };
        format!(
            "\n[[port]]\nname = \"{name}\"\nrole = \"{role}\"\nsocket = \"{directory}/{name}.sock\"\n\
             mode = \"{mode}\"\nmac = \"{mac}\"\n"
        )
    };
    let mut text = format!(
        "[host]\nid = 1\nname = \"host-a\"\nworkers = 1\nadmin = \"{directory}/admin.sock\"\n\n\
         [controller]\nurl = \"http://127.0.0.1:{controller_port}\"\n"
    );
    for (name, mac, _) in TENANTS {
        text += &port(name, "tenant", mac);
    }
    for (index, (name, mac)) in SERVICES.iter().enumerate() {
        text += &port(name, "service", mac);
        text += &format!("uuid = \"0d1a7e6a-6d0c-4f0b-9f5e-{:012}\"\nliveness = {LIVENESS}\n", index + 1);
    }
    text + CHAIN
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
