//! A host's agent: the daemon's own queue of reports, and its conversation with the controller as far as it can be
//! told without sockets: register, report, again when no answer comes.

use controller_stub::api::{Name, Registration, Reports, ServicePort};
use vhost_backend::liveness::Transition;
use vmm_glue::agent::{Noticed, Pending, Queue};

use crate::Bug;
use crate::control::{Down, Up};
use crate::host::Host;
use crate::scenario::MS;
use crate::world::Scene;

/// Reports that may wait.
const WAITING: usize = 8;
/// Reports of one batch.
const BATCH: usize = 4;
/// A request without an answer ends the conversation after this long.
const DEADLINE: u64 = 12 * MS;
/// A host with nothing to say says so this often.
const RENEWAL: u64 = 5 * MS;

/// The agent of one life of a daemon.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) incarnation: u64,
    /// Of the table in force, 0 before the first of the controller.
    pub(crate) generation: u64,
    pub(crate) queue: Queue,
    /// The life of the controller it is registered with.
    pub(crate) registered: Option<u64>,
    /// The request under way: number, when it was sent, its reports.
    asked: Option<(u64, u64, Vec<Pending>)>,
    requests: u64,
    said_at: u64,
}

impl Agent {
    pub(crate) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            generation: 0,
            queue: Queue::new(WAITING),
            registered: None,
            asked: None,
            requests: 0,
            said_at: 0,
        }
    }

    /// A service VM changed state.
    pub(crate) fn notice(&mut self, service: Name, transition: &Transition, epoch: u8) {
        let Transition { to, cause, evidence, at, .. } = *transition;
        self.queue.push(Noticed {
            service,
            state: to,
            cause,
            evidence,
            degraded: false,
            epoch,
            at,
            heard_at: at,
        });
    }

    /// What it says now, if anything.
    pub(crate) fn speak(&mut self, scene: &Scene, registration: impl FnOnce() -> Registration) -> Option<Up> {
        if let Some((_, sent, batch)) = &self.asked {
            if scene.now < sent + DEADLINE {
                return None;
            }
            if scene.bug == Some(Bug::ReportGivenUp) {
                self.queue.stored(batch);
            } else {
                self.registered = None;
            }
            self.asked = None;
        }
        self.requests += 1;
        let request = self.requests;
        let Some(boot) = self.registered else {
            self.asked = Some((request, scene.now, Vec::new()));
            let registration =
                Registration { incarnation: self.incarnation, generation: self.generation, ..registration() };
            return Some(Up::Register { request, registration });
        };
        let batch = self.queue.batch(BATCH);
        if batch.is_empty() && scene.now < self.said_at + RENEWAL {
            return None;
        }
        self.said_at = scene.now;
        let reports = batch.iter().map(Pending::report).collect();
        self.asked = Some((request, scene.now, batch));
        Some(Up::Reports { request, boot, reports: Reports { incarnation: self.incarnation, reports } })
    }

    /// An answer: whether it is news that the controller knows this host, so that it is to hear of every service.
    pub(crate) fn hear(&mut self, answer: &Down) -> bool {
        let asked = self.asked.take_if(|(request, ..)| answer.request() == Some(*request));
        match (answer, asked) {
            (Down::Registered { boot, .. }, Some(_)) => {
                self.registered = Some(*boot);
                return true;
            }
            (Down::Reported { .. }, Some((_, _, batch))) => self.queue.stored(&batch),
            (Down::Refused { .. }, Some(_)) => self.registered = None,
            // The connection it came by belongs to another life of the controller.
            (Down::Table { boot, .. }, _) if self.registered.is_some_and(|known| known != *boot) => {
                self.registered = None;
            }
            _ => {}
        }
        false
    }
}

impl Host {
    /// Its agent's turn.
    pub(crate) fn speak(&mut self, scene: &Scene) -> Option<Up> {
        let site = self.site;
        self.agent.speak(scene, || Registration {
            name: site.config.host.name.clone(),
            incarnation: 0,
            generation: 0,
            services: site
                .services
                .iter()
                .map(|(name, ..)| ServicePort { name: name.clone(), uuid: None })
                .collect(),
            chains: site.config.offer.clone(),
        })
    }

    /// Every service as it is now.
    pub(crate) fn report_all(&mut self) {
        for (service, (name, ..)) in self.services.iter().zip(&self.site.services) {
            let session = service.session();
            self.agent.queue.push(Noticed {
                service: name.clone(),
                state: session.state(),
                cause: session.cause(),
                evidence: session.evidence(),
                degraded: session.degraded(),
                epoch: session.epoch().get(),
                at: session.since(),
                heard_at: session.since(),
            });
        }
    }
}
