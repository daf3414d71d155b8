//! A tenant, a service and taps on one backend, driven by the test's own thread.

use std::path::Path;
use std::time::{Duration, Instant};

use integration::{PATIENCE, STEADY, mac};
use nsh::Spi;
use test_vm::Options;
use test_vm::guest::{Guest, Service, ServiceGuest, TenantGuest};
use vhost_backend::chain::{
    ChainSpec, Egress, Failback, Generation, Match, OnFailure, PathSpec, PolicySpec, PortId, SiDecrement,
};
use vhost_backend::device::Mode;
use vhost_backend::host::{Host, HostError, HostSpec, Intent, PortStatus};
use vhost_backend::liveness::State;
use vhost_backend::port::{Carrier, Keeps, PortSpec, Role, ServiceOffload, ServiceSpec};
use vhost_backend::ring::Uring;
use vhost_backend::telemetry::{Event, EventKind, EventReceiver, EventSender, events};

use crate::namespace::ip;

/// Ports of a site, in this order; `world` and `away` are taps.
pub(crate) const VM5: PortId = PortId::new(0);
pub(crate) const SVM1: PortId = PortId::new(1);
pub(crate) const WORLD: PortId = PortId::new(2);

/// The interface of `world`, and its addresses.
pub(crate) const WORLD_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 2, 1];
pub(crate) const WORLD_IP: [u8; 4] = [10, 0, 0, 201];

/// How a site is made.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) workers: usize,
    /// Of each tap.
    pub(crate) queues: u16,
    /// Whether there is a second tap.
    pub(crate) away: bool,
    /// In what form the service sees super-frames.
    pub(crate) offload: ServiceOffload,
}

pub(crate) struct Site {
    pub(crate) host: Host,
    pub(crate) vm5: TenantGuest,
    pub(crate) svm1: ServiceGuest,
    pub(crate) log: Vec<Event>,
    events: EventReceiver,
    began: Instant,
    _folder: tempfile::TempDir,
}

/// Makes the interface of `world`, as an operator would.
pub(crate) fn make_world() {
    ip("tuntap add dev lp0 mode tap multi_queue");
    ip("link set lp0 address 52:54:00:00:02:01 up");
    ip("addr add 10.0.0.201/24 dev lp0");
}

/// Starts a backend with these ports and a chain of one service for what `vm5` and `world` send.
pub(crate) fn start(workers: usize, ports: Vec<PortSpec>, sender: EventSender) -> Result<Host, HostError> {
    let path = PathSpec {
        spi: Spi::new(1).expect("24 bit"),
        hops: vec![SVM1],
        reverse_spi: Spi::new(101),
        preference: 0,
    };
    let intent = Intent {
        generation: Generation(1),
        chains: vec![ChainSpec {
            name: "inspect".into(),
            on_failure: OnFailure::Block,
            failback: Failback::New,
            egress: Egress::Direct,
            paths: vec![path],
        }],
        policies: vec![PolicySpec {
            chain: "inspect".into(),
            priority: 100,
            from: Some(vec![VM5, WORLD]),
            matches: Match::default(),
        }],
    };
    Host::start(&HostSpec { workers, ..HostSpec::new(1) }, ports, &intent, sender)
}

/// A port of a VM, whose name says what it is.
pub(crate) fn vnic(name: &str, folder: &Path, offload: ServiceOffload) -> PortSpec {
    let service = ServiceSpec {
        profile: STEADY,
        si_decrement: SiDecrement::Proxy,
        slow_start: Duration::ZERO,
        offload,
        keeps: Keeps::default(),
        carrier: Carrier::Nsh,
    };
    let is_service = name.starts_with("svm");
    PortSpec {
        name: name.into(),
        socket: folder.join(name),
        mode: Mode::Server,
        mac: mac(name),
        mtu: match offload {
            _ if !is_service => 1500,
            ServiceOffload::Software => 2000,
            ServiceOffload::Metadata => u16::MAX,
        },
        queue_pairs: 1,
        role: if is_service { Role::Service(service) } else { Role::Tenant },
    }
}

/// A tap port.
pub(crate) fn tap(name: &str, interface: &str, queues: u16) -> PortSpec {
    let interface = interface.parse().expect("a name of an interface");
    PortSpec { queue_pairs: queues, ..PortSpec::tap(name.into(), interface) }
}

/// Whether this process has an io_uring.
pub(crate) fn has_uring() -> bool {
    let files = std::fs::read_dir("/proc/self/fd").expect("proc is mounted");
    let mut links = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    links.any(|link| link.to_string_lossy().contains("[io_uring]"))
}

impl Site {
    /// Starts it all and waits until the service is Up.
    pub(crate) fn new(plan: Plan) -> Site {
        let folder = tempfile::tempdir().expect("a folder for the sockets");
        let mut ports = vec![
            vnic("vm5", folder.path(), plan.offload),
            vnic("svm1", folder.path(), plan.offload),
            tap("world", "lp0", plan.queues),
        ];
        if plan.away {
            ports.push(tap("away", "lp1", plan.queues));
        }
        let (sender, events) = events().expect("an event channel");
        let host = start(plan.workers, ports, sender).expect("the backend starts");
        assert_eq!(has_uring(), Uring::new().is_ok(), "io_uring is taken where it may be had");
        // More buffers than what comes while a busy machine lets the guests wait.
        let options = |name: &str| Options {
            mac: mac(name),
            ring_size: 1024,
            // A service sends on what it was handed.
            tx_buffer_len: if plan.offload == ServiceOffload::Metadata { 70_000 } else { 2048 },
            ..Options::default()
        };
        let vm5 = TenantGuest::attach(&folder.path().join("vm5"), options("vm5"), 1, true);
        let svm1 =
            ServiceGuest::attach(&folder.path().join("svm1"), options("svm1"), Service::Forward, false);
        let mut site = Site {
            host,
            vm5: vm5.expect("a tenant attaches"),
            svm1: svm1.expect("a service VM attaches"),
            log: Vec::new(),
            events,
            began: Instant::now(),
            _folder: folder,
        };
        site.until("svm1 is up", |site| {
            site.host.service(SVM1).is_some_and(|status| status.state == State::Up)
        });
        site
    }

    /// Lets every guest work once.
    pub(crate) fn step(&mut self) {
        let now = self.began.elapsed();
        if self.vm5.step(now) + self.svm1.step(now) == 0 {
            // The workers and the host's stack want a core too.
            std::thread::sleep(Duration::from_micros(50));
        }
        self.events.clear();
        self.log.extend(std::iter::from_fn(|| self.events.try_next()));
    }

    /// Lets the guests work until `done` says so.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Site) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "waited in vain until {what}: {:#?}", self.host.status());
            self.step();
        }
    }

    pub(crate) fn port(&self, port: PortId) -> PortStatus {
        self.host.status().swap_remove(port.index())
    }

    /// How many frames of a port were dropped for that reason.
    pub(crate) fn drops(&self, port: PortId, reason: &str) -> u64 {
        let drops = self.port(port).counters.drops;
        drops.iter().find(|(why, _)| why.as_str() == reason).map_or(0, |(_, count)| *count)
    }

    /// How often a port came up and went down.
    pub(crate) fn ups_and_downs(&self, port: PortId) -> (usize, usize) {
        let count = |wanted: fn(&EventKind) -> bool| {
            let about = self.log.iter().filter(|event| event.kind.port() == Some(port));
            about.filter(|event| wanted(&event.kind)).count()
        };
        (
            count(|kind| matches!(kind, EventKind::PortUp(_))),
            count(|kind| matches!(kind, EventKind::PortDown(_))),
        )
    }
}
