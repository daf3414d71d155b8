//! The backend of one host: its ports, its worker, its tables. What a daemon or a VMM embeds.
//!
//! ```text
//! Host::start ── a device session per port ──► Attachment ──► worker ──► events, counters, status
//!      ▲  set_tables, tell, capture ────────────────────────► commands, tables
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use thiserror::Error;

use crate::chain::{
    self, ChainSpec, Generation, PolicySpec, PortId, SiDecrement, Snapshot, SpecError, TablesSpec,
};
use crate::device::{Datapath, DeviceSpec, Session};
use crate::frame::Mac;
use crate::liveness;
use crate::port::{Attachment, Port, PortSpec, Proxy, Role, ServiceStatus, host_mac};
use crate::ring::{MAX_SIZE, catch_lost_memory};
use crate::telemetry::{Counters, EventKind, EventSender, Frames, PortCounters, capture};
use crate::worker::{Act, Command, Tables, Wake, Worker, monotonic_now, pin_to, random};
use nsh::Epoch;

/// This host, as the operator describes it.
#[derive(Debug, Clone)]
pub struct HostSpec {
    /// Unique among hosts; travels in the NSH origin.
    pub id: u16,
    /// The core the worker is pinned to.
    pub cpu: Option<usize>,
}

/// Chains and policies, by port names resolved to [`PortId`]s.
#[derive(Debug, Clone, Default)]
pub struct Intent {
    /// Counted up by whoever made it.
    pub generation: Generation,
    /// The chains.
    pub chains: Vec<ChainSpec>,
    /// What is chained.
    pub policies: Vec<PolicySpec>,
}

/// Why a host did not start, or did not take what it was given.
#[derive(Debug, Error)]
pub enum HostError {
    /// The tables contradict themselves.
    #[error("the tables are not valid")]
    Tables(#[from] SpecError),
    /// Older tables than those in force.
    #[error("tables of generation {offered} are older than generation {current}, which is in force")]
    Stale {
        /// Of the tables offered.
        offered: Generation,
        /// Of the tables in force.
        current: Generation,
    },
    /// More ports than a table numbers.
    #[error("{0} ports are more than one host can have")]
    TooManyPorts(usize),
    /// A port's socket could not be served.
    #[error("port {port}: cannot serve {socket}")]
    Socket {
        /// The port's name.
        port: String,
        /// The socket's path.
        socket: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread or descriptor could not be had.
    #[error("cannot start the worker")]
    Worker(#[source] io::Error),
    /// There is no such port, or it is no service port.
    #[error("{0} is no service port of this host")]
    NoService(PortId),
}

/// A running backend.
#[derive(Debug)]
pub struct Host {
    ports: Vec<HostPort>,
    tables: Arc<Tables>,
    events: EventSender,
    commands: Mutex<Sender<Command>>,
    wake: Arc<Wake>,
    sessions: Vec<Session>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct HostPort {
    spec: PortSpec,
    attachment: Arc<Attachment>,
    counters: Arc<Counters>,
    service: Option<Arc<Mutex<ServiceStatus>>>,
}

/// A port as [`Host::status`] shows it.
#[derive(Debug, Clone)]
pub struct PortStatus {
    /// Its number.
    pub id: PortId,
    /// Its name.
    pub name: String,
    /// A VMM is on the socket.
    pub connected: bool,
    /// A driver runs both rings.
    pub attached: bool,
    /// What it carried.
    pub counters: PortCounters,
    /// Liveness, of a service port.
    pub service: Option<ServiceStatus>,
}

impl Host {
    /// Listens on every port's socket and starts the worker. Port `i` of `ports` is [`PortId`] `i`. The first host of a
    /// process also installs a handler of SIGBUS, see [`catch_lost_memory`].
    ///
    /// # Errors
    /// See [`HostError`]; nothing is left running.
    pub fn start(
        host: &HostSpec,
        ports: Vec<PortSpec>,
        intent: &Intent,
        events: EventSender,
    ) -> Result<Self, HostError> {
        if ports.len() > usize::from(u16::MAX) {
            return Err(HostError::TooManyPorts(ports.len()));
        }
        catch_lost_memory().map_err(HostError::Worker)?;
        let wake = Arc::new(Wake::new().map_err(HostError::Worker)?);
        let (ports, owned): (Vec<_>, Vec<_>) = ports
            .into_iter()
            .zip(0..)
            .map(|(spec, number)| HostPort::new(spec, PortId::new(number), host.id, &wake))
            .unzip();
        let snapshot = Snapshot::default().with_tables(&tables_spec(&ports, intent)?)?;
        let tables = Arc::new(Tables::new(snapshot));
        let (commands, inbox) = channel();
        let worker =
            Worker::new(host.id, owned, Arc::clone(&tables), events.clone(), inbox, Arc::clone(&wake))
                .map_err(HostError::Worker)?;
        let cpu = host.cpu;
        let thread = std::thread::Builder::new()
            .name("worker-0".into())
            .spawn(move || {
                pin_to(cpu);
                worker.run();
            })
            .map_err(HostError::Worker)?;
        // From here on dropping the host ends the thread.
        let commands = Mutex::new(commands);
        let mut host =
            Self { ports, tables, events, commands, wake, sessions: Vec::new(), worker: Some(thread) };
        for port in &host.ports {
            let attachment: Arc<dyn Datapath> = Arc::clone(&port.attachment) as _;
            let session = Session::spawn(port.device(), attachment).map_err(|source| {
                let (port, socket) = (port.spec.name.clone(), port.spec.socket.display().to_string());
                HostError::Socket { port, socket, source }
            })?;
            host.sessions.push(session);
        }
        Ok(host)
    }

    /// Puts other chains and policies in force; flows keep their path where it still exists.
    ///
    /// # Errors
    /// They are not valid or older than those in force; these stay then.
    pub fn set_intent(&self, intent: &Intent) -> Result<(), HostError> {
        let spec = tables_spec(&self.ports, intent)?;
        self.tables.update(|snapshot| {
            let (offered, current) = (intent.generation, snapshot.generation());
            if offered < current {
                return Err(HostError::Stale { offered, current });
            }
            Ok(snapshot.with_tables(&spec)?)
        })?;
        self.events.send(monotonic_now(), EventKind::Tables(intent.generation));
        Ok(())
    }

    /// Tells the liveness session of a service port what another mechanism says.
    ///
    /// # Errors
    /// There is no such service port.
    pub fn tell(&self, service: PortId, act: Act) -> Result<(), HostError> {
        if self.ports.get(service.index()).is_none_or(|port| port.service.is_none()) {
            return Err(HostError::NoService(service));
        }
        self.command(Command::Session(service, act));
        Ok(())
    }

    /// Copies the port's frames from now on, until the receiver is dropped; `None` if there is no such port. A port
    /// has one capture at a time; a new one ends the old.
    #[must_use]
    pub fn capture(&self, port: PortId) -> Option<Frames> {
        self.ports.get(port.index())?;
        let (capture, frames) = capture();
        self.command(Command::Capture(port, capture));
        Some(frames)
    }

    /// The port of that name.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<PortId> {
        let index = self.ports.iter().position(|port| port.spec.name == name)?;
        u16::try_from(index).ok().map(PortId::new)
    }

    /// Every port as it is now.
    #[must_use]
    pub fn status(&self) -> Vec<PortStatus> {
        self.ports.iter().zip(0..).map(|(port, number)| port.status(PortId::new(number))).collect()
    }

    /// The liveness session of a service port as it is now; `None` for another port.
    #[must_use]
    pub fn service(&self, port: PortId) -> Option<ServiceStatus> {
        let status = self.ports.get(port.index())?.service.as_ref()?;
        Some(status.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The tables in force, with the state of every path.
    #[must_use]
    pub fn tables(&self) -> Arc<Snapshot> {
        self.tables.load_full()
    }

    fn command(&self, command: Command) {
        // The worker ends only when the host does.
        let _ = self.commands.lock().unwrap_or_else(PoisonError::into_inner).send(command);
        self.wake.wake();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for session in self.sessions.drain(..) {
            session.stop();
        }
        self.command(Command::Stop);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

impl HostPort {
    /// The port as the host keeps it, and as its worker does.
    fn new(spec: PortSpec, id: PortId, host: u16, wake: &Arc<Wake>) -> (Self, Port) {
        let attachment = Arc::new(Attachment::new(usize::from(spec.queue_pairs), Arc::clone(wake)));
        let counters = Arc::new(Counters::default());
        let (mut proxy, mut service) = (None, None);
        if let Role::Service(watched) = &spec.role {
            let session = liveness::Session::new(watched.profile, random_epoch(), monotonic_now());
            let status = Arc::new(Mutex::new(ServiceStatus::of(&session)));
            proxy = Some(Proxy::new(session, spec.mac, host_mac(host), Arc::clone(&status)));
            service = Some(status);
        }
        let owned = Port::new(id, Arc::clone(&attachment), Arc::clone(&counters), proxy);
        (Self { spec, attachment, counters, service }, owned)
    }

    fn device(&self) -> DeviceSpec {
        DeviceSpec {
            name: self.spec.name.clone(),
            socket: self.spec.socket.clone(),
            mode: self.spec.mode,
            mac: self.spec.mac,
            mtu: self.spec.mtu,
            queue_pairs: self.spec.queue_pairs,
            max_queue_size: MAX_SIZE,
        }
    }

    fn in_tables(&self, id: PortId) -> chain::PortSpec {
        let (role, si_decrement) = match &self.spec.role {
            Role::Tenant => (chain::Role::Tenant, SiDecrement::default()),
            Role::Service(service) => (chain::Role::Service, service.si_decrement),
        };
        chain::PortSpec {
            id,
            name: self.spec.name.clone(),
            role,
            mac: Some(Mac(self.spec.mac)),
            si_decrement,
        }
    }

    fn status(&self, id: PortId) -> PortStatus {
        let link = self.attachment.link();
        PortStatus {
            id,
            name: self.spec.name.clone(),
            connected: link.connected,
            attached: link.running,
            counters: self.counters.read(),
            service: self
                .service
                .as_ref()
                .map(|status| status.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }
}

fn tables_spec(ports: &[HostPort], intent: &Intent) -> Result<TablesSpec, HostError> {
    let count = u16::try_from(ports.len()).map_err(|_| HostError::TooManyPorts(ports.len()))?;
    Ok(TablesSpec {
        generation: intent.generation,
        ports: ports.iter().zip(0..count).map(|(port, number)| port.in_tables(PortId::new(number))).collect(),
        chains: intent.chains.clone(),
        policies: intent.policies.clone(),
    })
}

/// An epoch that answers to an earlier daemon do not carry, save one time in 256.
fn random_epoch() -> Epoch {
    let [first, ..] = random().to_ne_bytes();
    Epoch::new(first)
}
