//! What the control loop, the agent and the daemon's owner work on together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use controller_stub::api::{Name, Plan};
use vhost_backend::chain::{PolicySpec, PortId};
use vhost_backend::host::{Host, HostError, Intent};
use vhost_backend::liveness::Timestamp;
use vhost_backend::worker::monotonic_now;
use vmm_sys_util::eventfd::EventFd;

use super::history::{Entry, History, Occurrence};
use super::mechanisms::{DownInterfaces, Standing};
use super::operator::{Hold, Holds};
use super::reload::Reading;
use crate::admin::{Action, Answer, Refusal, Request};
use crate::agent::Link;
use crate::config::Config;
use crate::sys::give_back_memory;
use crate::tables::Directory;

/// The controller's table in force, if there is one: its generation, and what it says.
pub(crate) type Steering = Option<(u64, Plan)>;

/// The state of a daemon. Locks are held for moments and never two at a time, but [`steering`](Shared::steering), which comes
/// before all others.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) host: Host,
    directory: Mutex<Arc<Directory>>,
    /// The agent's mailbox, when there is a controller.
    pub(crate) link: Option<Arc<Link>>,
    /// Rung when the history grew or the daemon stops.
    pub(crate) bell: EventFd,
    pub(super) started: Timestamp,
    /// What is read again when somebody asks for it; a VMM that embeds the backend has its own ways.
    file: Option<PathBuf>,
    config: Mutex<Config>,
    /// Of the controller, the table in force.
    steering: Mutex<Steering>,
    /// Of the tables in force, in the order they are asked.
    pub(super) policies: Mutex<Arc<[PolicySpec]>>,
    pub(super) reading: Mutex<Reading>,
    history: Mutex<History>,
    pub(super) holds: Mutex<Holds>,
    pub(super) down_interfaces: Mutex<DownInterfaces>,
    pub(super) standing: Mutex<Standing>,
    pub(super) events_lost: Mutex<u64>,
    stopping: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        config: Config,
        file: Option<PathBuf>,
        host: Host,
        bell: EventFd,
        link: Option<Arc<Link>>,
    ) -> Self {
        Self {
            directory: Mutex::new(Arc::new(Directory::new(&config.ports))),
            host,
            link,
            bell,
            started: monotonic_now(),
            file,
            policies: Mutex::new(config.intent.policies.as_slice().into()),
            reading: Mutex::new(Reading { since: monotonic_now(), refused: None }),
            config: Mutex::new(config),
            steering: Mutex::default(),
            history: Mutex::default(),
            holds: Mutex::default(),
            down_interfaces: Mutex::default(),
            standing: Mutex::default(),
            events_lost: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> MutexGuard<'_, Config> {
        lock(&self.config)
    }

    /// The ports by name and number, as they are now.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&lock(&self.directory))
    }

    /// Held by whoever puts something in force, as long as it takes: what it finds out about ports has to stay true.
    pub(crate) fn steering(&self) -> MutexGuard<'_, Steering> {
        lock(&self.steering)
    }

    /// Puts chains and policies in force.
    pub(crate) fn put_in_force(&self, intent: Intent) -> Result<(), HostError> {
        self.host.set_intent(&intent)?;
        self.show_policies(intent.policies);
        Ok(())
    }

    /// Shows another configuration as the one in force, on the ports of this directory.
    pub(super) fn show_config(&self, config: Config, directory: Arc<Directory>) {
        *lock(&self.config) = config;
        *lock(&self.directory) = directory;
    }

    /// Shows the policies in force.
    pub(super) fn show_policies(&self, mut policies: Vec<PolicySpec>) {
        // Stable, as in the tables: their places are those that a trace names.
        policies.sort_by_key(|policy| policy.priority);
        *lock(&self.policies) = policies.into();
    }

    /// Something happened: one log line, one entry of the history, and whoever follows hears of it.
    pub(crate) fn record(&self, at: Timestamp, occurrence: Occurrence) {
        occurrence.log();
        lock(&self.history).add(at, occurrence);
        self.ring();
    }

    /// The oldest `limit` entries above `since`.
    pub(crate) fn events_after(&self, since: u64, limit: usize) -> Vec<Entry> {
        lock(&self.history).after(since, limit)
    }

    /// Carries out what a client of the admin socket asks, if that takes one line.
    pub(crate) fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(self.status())),
            Request::Service { name, action } => match self.operate(&name, action) {
                Ok(()) => Answer::Service { name, action },
                Err(refusal) => Answer::Refused(refusal),
            },
            Request::Events { since, .. } => Answer::Events { events: self.events_after(since, usize::MAX) },
            Request::Trace { from, flow } => match self.trace(&from, flow) {
                Ok(view) => Answer::Trace(Box::new(view)),
                Err(refusal) => Answer::Refused(refusal),
            },
            Request::Reload => match self.read_again() {
                Ok(answer) => answer,
                Err(refusal) => Answer::Refused(refusal),
            },
            Request::Capture { .. } => {
                Answer::Refused(Refusal::new("a capture needs a connection", "ask on the admin socket"))
            }
        }
    }

    /// Reads the file again that the daemon was started with.
    pub(super) fn read_again(&self) -> Result<Answer, Refusal> {
        let Some(file) = &self.file else {
            let problem = "this livepathd is part of another program and has no file of its own";
            return Err(Refusal::new(problem, "reload it by that program's means"));
        };
        let reloaded = self.reload_from(file);
        give_back_memory();
        match reloaded {
            Ok(taken) => Ok(Answer::Reloaded { file: file.clone(), taken }),
            Err(reason) => Err(Refusal::new("the file is not taken, nothing changed", reason)),
        }
    }

    fn operate(&self, name: &str, action: Action) -> Result<(), Refusal> {
        let directory = self.directory();
        let service = Name::new(name).ok().and_then(|name| directory.service(&name));
        let Some(service) = service else {
            let services: Vec<&str> = directory.services().map(|(name, _)| name.as_str()).collect();
            let remedy = format!("name one of {}", services.join(", "));
            return Err(Refusal::new(format!("there is no service {name} on this host"), remedy));
        };
        let hold = match action {
            Action::Fail => Some(Hold::Failed),
            Action::Maintain => Some(Hold::Maintained),
            Action::Restore => None,
        };
        let act = lock(&self.holds).local(service, hold);
        self.tell(service, act);
        self.record(monotonic_now(), Occurrence::Operator { service: name.to_owned(), action });
        Ok(())
    }

    /// What the controller's operator says of the services of this host.
    pub(crate) fn controller_holds(&self, held: &BTreeMap<PortId, Option<Hold>>) {
        for (service, hold) in held {
            let act = lock(&self.holds).controller(*service, *hold);
            self.tell(*service, act);
        }
    }

    pub(super) fn tell(&self, service: PortId, act: Option<vhost_backend::worker::Act>) {
        let Some(act) = act else { return };
        if let Err(error) = self.host.tell(service, act) {
            log::error!(port = service.get(), error:%; "another mechanism's word did not reach the datapath");
        }
        self.note_mechanisms(service);
    }

    /// There is no port of that name.
    pub(crate) fn no_port(&self, name: &str) -> Refusal {
        let config = self.config();
        let names: Vec<&str> = config.ports.iter().map(|port| port.name.as_str()).collect();
        Refusal::new(
            format!("there is no port {name} on this host"),
            format!("name one of {}", names.join(", ")),
        )
    }

    /// Ends the control loop and every capture.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.ring();
    }

    /// The daemon is on its way out.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn ring(&self) {
        // It can only be full, and then it rings already.
        let _ = self.bell.write(1);
    }
}

/// What a panic left behind is whole: every critical section is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
