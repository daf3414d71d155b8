//! `livepathd` killed without a word and started again under traffic. The guests are test VMs that live on: they keep
//! memory, rings and what lies in them, and resume where the used indices stand, as VMMs do.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use test_vm::Options;
use test_vm::guest::{Endpoint, Guest, Service, ServiceGuest, TenantGuest, Traffic};
use vmm_glue::admin::{self, Status};

/// A test gives up after this long.
const PATIENCE: Duration = Duration::from_secs(30);
const SERVICES: [&str; 2] = ["svm1", "svm2"];
const RATE: u64 = 20_000;
const FLOWS: u16 = 8;

/// Who makes the vhost-user connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listens {
    Daemon,
    Vmm,
}

/// The daemon as a process of its own, and the guests on the test's thread.
struct Site {
    daemon: Child,
    tenants: [TenantGuest; 2],
    services: Vec<ServiceGuest>,
    began: Instant,
    folder: TempDir,
}

impl Site {
    fn start(listens: Listens) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("livepathd.toml"), configuration(folder.path(), listens))
            .expect("the file is written");
        let socket = |name: &str| folder.path().join(name);
        let options = |name: &str| Options { mac: mac(name), ..Options::default() };
        let run = 1;
        let (daemon, tenants, services) = match listens {
            Listens::Daemon => {
                let daemon = start(folder.path());
                let tenant = |name: &str| TenantGuest::attach(&socket(name), options(name), run, true);
                let tenants = ["vm5", "vm6"].map(|name| tenant(name).expect("a tenant attaches"));
                let service =
                    |name| ServiceGuest::attach(&socket(name), options(name), Service::Forward, false);
                let services = SERVICES.map(|name| service(name).expect("a service VM attaches"));
                (daemon, tenants, services)
            }
            Listens::Vmm => {
                let listen = |name: &str| UnixListener::bind(socket(name)).expect("a socket");
                let (tenants, services) = (["vm5", "vm6"].map(listen), SERVICES.map(listen));
                let daemon = start(folder.path());
                let mut names = ["vm5", "vm6"].into_iter();
                let tenants = tenants.map(|listener| {
                    let name = names.next().expect("a name for each");
                    TenantGuest::accept(listener, options(name), run, true).expect("a tenant attaches")
                });
                let mut names = SERVICES.into_iter();
                let services = services.map(|listener| {
                    let name = names.next().expect("a name for each");
                    ServiceGuest::accept(listener, options(name), Service::Forward)
                        .expect("a service VM attaches")
                });
                (daemon, tenants, services)
            }
        };
        Self { daemon, tenants, services: services.into(), began: Instant::now(), folder }
    }

    /// Kills the daemon and starts it again `after` a while; gives the moment it was started.
    fn kill_and_start(&mut self, after: Duration) -> Instant {
        self.daemon.kill().expect("the daemon ran");
        self.daemon.wait().expect("it ends");
        let end = Instant::now() + after;
        while Instant::now() < end {
            self.step();
        }
        let started = Instant::now();
        self.daemon = start(self.folder.path());
        started
    }

    /// Tells the daemon to end, and starts another once it has.
    fn end_and_start(&mut self) {
        kill_process(Pid::from_child(&self.daemon), Signal::TERM).expect("the daemon runs");
        self.until("the daemon has ended", |site| site.daemon.try_wait().expect("it is ours").is_some());
        self.daemon = start(self.folder.path());
    }

    fn step(&mut self) {
        let now = self.began.elapsed();
        let mut worked: usize = self.tenants.iter_mut().map(|tenant| tenant.step(now)).sum();
        worked += self.services.iter_mut().map(|service| service.step(now)).sum::<usize>();
        if worked == 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "waited in vain until {what}: {:#?}", self.status());
            for _ in 0..20 {
                self.step();
            }
        }
    }

    fn status(&self) -> Option<Status> {
        admin::Client::connect(&self.folder.path().join("admin.sock")).ok()?.status().ok()
    }

    fn until_all_up(&mut self) {
        self.until("all services are up", |site| {
            site.status().is_some_and(|status| status.services.iter().all(|service| service.state == "up"))
        });
    }

    fn arrived(&self) -> u64 {
        self.tenants[1].sink().report().received
    }

    fn start_traffic(&mut self) {
        let end = |name: &str, last| Endpoint { mac: mac(name), ip: [10, 0, 0, last].into() };
        self.tenants[0].start(Traffic {
            from: end("vm5", 5),
            to: end("vm6", 6),
            flows: FLOWS,
            source_port: 40_000,
            port: 7000,
            rate: RATE,
            frame_len: 128,
            patterned: true,
            run: 1,
        });
    }

    /// Lets what is under way arrive.
    fn drain(&mut self) {
        self.tenants[0].stop();
        let mut seen = None;
        self.until("the frames under way have arrived", |site| {
            let end = Instant::now() + Duration::from_millis(100);
            while Instant::now() < end {
                site.step();
            }
            let now = site.arrived();
            seen.replace(now) == Some(now)
        });
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn start(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_livepathd"))
        .arg("--config")
        .arg(folder.join("livepathd.toml"))
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()
        .expect("livepathd runs")
}

fn mac(name: &str) -> [u8; 6] {
    let number = name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
    [0x52, 0x54, 0, 0, u8::from(name.starts_with("svm")), number]
}

fn configuration(folder: &Path, listens: Listens) -> String {
    let folder = folder.display();
    let mode = if listens == Listens::Daemon { "server" } else { "client" };
    let mut text = format!("[host]\nid = 1\nname = \"host-a\"\nadmin = \"{folder}/admin.sock\"\n");
    for name in ["vm5", "vm6"].into_iter().chain(SERVICES) {
        let [.., kind, number] = mac(name);
        text += &format!(
            "[[port]]\nname = \"{name}\"\nsocket = \"{folder}/{name}\"\nmode = \"{mode}\"\n\
             mac = \"52:54:00:00:{kind:02x}:{number:02x}\"\n"
        );
        text += &match kind {
            0 => "role = \"tenant\"\n".to_owned(),
            _ => format!("role = \"service\"\nuuid = \"0d1a7e6a-6d0c-4f0b-9f5e-{number:012}\"\n"),
        };
    }
    text + "[[chain]]\nname = \"inspect\"\n[[chain.path]]\nspi = 1\nhops = [\"svm1\", \"svm2\"]\nreverse_spi = 101\n\
            [[policy]]\nchain = \"inspect\"\npriority = 100\nfrom = [\"vm5\"]\n"
}

/// Kills the daemon several times, each time as far into its life as `after` says, and counts what was lost.
fn survives(listens: Listens) {
    // The figures are for those who ask for them: RUST_LOG=info.
    let _ = env_logger::builder().is_test(true).try_init();
    let mut site = Site::start(listens);
    site.until_all_up();
    site.start_traffic();
    site.until("traffic flows", |site| site.arrived() > 2_000);
    const RESTARTS: u64 = 5;
    let mut dropped = 0;
    for restart in 1..=RESTARTS {
        let before = site.arrived();
        let started = site.kill_and_start(Duration::from_millis(restart));
        // What the killed daemon had put into vm6's ring is not the new one's merit.
        site.until("the new daemon serves every port", |site| {
            site.status().is_some_and(|status| status.ports.iter().all(|port| port.attached))
        });
        let attached = started.elapsed();
        let mut first = None;
        site.until("the first packet", |site| {
            let handed = site.status().is_some_and(|status| {
                status.ports.iter().any(|port| port.name == "vm6" && port.rx_packets > 0)
            });
            first = first.or(handed.then(|| started.elapsed()));
            handed
        });
        let (attached, first) = (attached.as_millis(), first.unwrap_or_default().as_millis());
        log::info!(
            "restart {restart}: ports attached {attached} ms, first packet at vm6 {first} ms after the start"
        );
        site.until("traffic flows", |site| site.arrived() > before + 2_000);
        if restart == RESTARTS {
            site.drain();
        }
        let status = site.status().expect("the daemon answers");
        dropped += status.ports.iter().map(|port| port.dropped).sum::<u64>();
    }
    let report = site.tenants[1].sink().report();
    let sent = site.tenants[0].counters().sent;
    let lost = sent - report.received;
    log::info!("sent {sent}, lost in {RESTARTS} restarts {lost}, dropped and counted {dropped}");
    let faults = (report.duplicated, report.reordered, report.corrupt);
    assert_eq!(faults, (0, 0, 0), "{report:?}");
    assert!(lost <= dropped, "{dropped} frames are accounted for: {report:?}");
    for guest in &mut site.tenants {
        assert_eq!(guest.life().attachments(), RESTARTS + 1, "{:?}", guest.life().last_error());
    }
    for guest in &mut site.services {
        assert_eq!(guest.life().attachments(), RESTARTS + 1, "{:?}", guest.life().last_error());
    }
}

#[test]
fn guests_whose_vmm_connects_keep_their_link() {
    survives(Listens::Daemon);
}

#[test]
fn guests_whose_vmm_listens_keep_their_link() {
    survives(Listens::Vmm);
}

/// Tenants' frames wait in their rings, and services have a moment to return theirs. A machine that does not run this thread
/// for that moment loses some, so not every try counts.
#[test]
fn a_daemon_that_is_told_to_end_loses_nothing() {
    const TRIES: usize = 6;
    let mut lost = Vec::new();
    while lost.len() < TRIES && lost.iter().filter(|lost| **lost == 0).count() < TRIES / 2 {
        let mut site = Site::start(Listens::Vmm);
        site.until_all_up();
        site.start_traffic();
        site.until("traffic flows", |site| site.arrived() > 2_000);
        site.end_and_start();
        let before = site.arrived();
        site.until("traffic flows again", |site| site.arrived() > before + 2_000);
        site.drain();
        let report = site.tenants[1].sink().report();
        assert_eq!((report.duplicated, report.reordered, report.corrupt), (0, 0, 0), "{report:?}");
        lost.push(site.tenants[0].counters().sent - report.received);
    }
    assert_eq!(lost.iter().filter(|lost| **lost == 0).count(), TRIES / 2, "lost in each try: {lost:?}");
}
