//! What goes wrong, and how it ends.

use std::time::Duration;

use controller_stub::api::{Action, InterfaceState, Name};
use vhost_backend::liveness::{Session, Timestamp};

use crate::Broken;
use crate::host::Host;
use crate::scenario::{Fault, MS};
use crate::world::{Event, World};

impl World {
    /// A step begins or ends.
    pub(crate) fn fault(&mut self, place: usize, begins: bool) -> Result<(), Broken> {
        let fault = self.scenario.steps[place].fault;
        self.scene.note(|| format!("{fault:?} {}", if begins { "begins" } else { "ends" }));
        match fault {
            Fault::Hang { host, service } => return self.hang(host, service, begins),
            Fault::Freeze { host, service } => {
                count(&mut self.hosts[host].services[service].vm.frozen, begins);
                self.hosts[host].wake(&mut self.scene, service);
            }
            Fault::Kill { host, service } => return self.unlink(host, service, begins, Session::detached),
            Fault::RingStop { host, service } => {
                return self.unlink(host, service, begins, Session::rings_stopped);
            }
            Fault::Operator { .. } | Fault::Maintain { .. } | Fault::Interface { .. } => {
                return self.word(place, begins);
            }
            Fault::Partition { host } => count(&mut self.apart[host], begins),
            Fault::Restart { host } => return self.restart(host, begins),
            Fault::Pause { host } => {
                if begins {
                    let until = self.scenario.steps[place].when.end;
                    self.hosts[host].paused_until = self.hosts[host].paused_until.max(until);
                    return Ok(());
                }
                let gap = self.scenario.steps[place].when.end - self.scenario.steps[place].when.start;
                for service in 0..self.hosts[host].services.len() {
                    self.tell(host, service, |session, now| {
                        session.paused(now, Duration::from_nanos(gap));
                    })?;
                }
            }
            Fault::Late { host } => return self.late(host, self.scenario.steps[place].when.end, begins),
            Fault::Controller | Fault::Backup => {
                count(&mut self.control.dead, begins);
                if self.control.dead == 0 {
                    self.control.start(&mut self.scene, fault == Fault::Backup);
                    return self.publish();
                }
            }
        }
        Ok(())
    }

    fn hang(&mut self, host: usize, service: usize, begins: bool) -> Result<(), Broken> {
        let vm = &mut self.hosts[host].services[service].vm;
        count(&mut vm.hung, begins);
        if vm.hung > 0 {
            return Ok(());
        }
        let waited = vm.resume();
        self.work(host, service, waited)
    }

    fn late(&mut self, host: usize, until: u64, begins: bool) -> Result<(), Broken> {
        if self.hosts[host].dead > 0 {
            return Ok(());
        }
        if !begins {
            return self.hosts[host].deliver_decided(&mut self.scene);
        }
        let batch = self.batch();
        let host = &mut self.hosts[host];
        let is_late = self.scene.now < host.late_until;
        host.late_until = host.late_until.max(until);
        if is_late {
            return Ok(());
        }
        batch.into_iter().try_for_each(|flow| host.decide(&mut self.scene, flow))
    }

    /// The VMM dies, or its driver stops the rings: what it sent is heard out, and what it was to get is saved.
    fn unlink(
        &mut self,
        host: usize,
        service: usize,
        begins: bool,
        word: fn(&mut Session, Timestamp),
    ) -> Result<(), Broken> {
        count(&mut self.hosts[host].services[service].vm.unlinked, begins);
        if begins {
            if self.hosts[host].dead == 0 {
                self.hosts[host].hear(&mut self.scene, service)?;
                self.tell(host, service, word)?;
                self.hosts[host].salvage_maintained(&mut self.scene, service)?;
            }
            let left = self.hosts[host].services[service].vm.reset();
            self.scene.lost(left);
        } else if self.hosts[host].services[service].vm.unlinked == 0 {
            self.tell(host, service, Session::attached)?;
        }
        Ok(())
    }

    fn restart(&mut self, host: usize, begins: bool) -> Result<(), Broken> {
        count(&mut self.hosts[host].dead, begins);
        if begins {
            self.hosts[host].restart(&mut self.scene);
            return Ok(());
        }
        if self.hosts[host].dead > 0 {
            return Ok(());
        }
        for service in 0..self.hosts[host].services.len() {
            if self.hosts[host].services[service].vm.unlinked == 0 {
                self.tell(host, service, Session::attached)?;
            }
        }
        Ok(())
    }

    /// What people and VM managers say to the controller; they say it again when it is not there.
    fn word(&mut self, place: usize, begins: bool) -> Result<(), Broken> {
        if begins && self.scene.now >= self.scenario.steps[place].when.end {
            return Ok(());
        }
        if self.control.dead > 0 {
            let again = if begins { Event::Begin(place) } else { Event::End(place) };
            self.scene.after(MS, again);
            return Ok(());
        }
        let now = self.scene.wall_time();
        let controller = &mut self.control.controller;
        // A controller with a store of old may not know the service yet; its manager will find out.
        let _ = match self.scenario.steps[place].fault {
            Fault::Operator { host, service } => {
                let action = if begins { Action::Fail } else { Action::Restore };
                controller.act(name_of(&self.hosts[host], service), action, now)
            }
            Fault::Maintain { host, service } => {
                let action = if begins { Action::Maintain } else { Action::Restore };
                controller.act(name_of(&self.hosts[host], service), action, now)
            }
            Fault::Interface { host, service } => {
                let state = if begins { InterfaceState::Down } else { InterfaceState::Up };
                controller.interface(name_of(&self.hosts[host], service), state, now)
            }
            _ => return Ok(()),
        };
        self.publish()
    }

    /// Tells a session something, if there is a daemon that has it.
    pub(crate) fn tell(
        &mut self,
        host: usize,
        service: usize,
        word: impl FnOnce(&mut Session, Timestamp),
    ) -> Result<(), Broken> {
        if self.hosts[host].dead > 0 {
            return Ok(());
        }
        self.hosts[host].tell(&mut self.scene, service, word)
    }
}

fn name_of(host: &Host, service: usize) -> &Name {
    let (name, ..) = &host.site.services[service];
    name
}

fn count(faults: &mut u32, begins: bool) {
    *faults = if begins { *faults + 1 } else { faults.saturating_sub(1) };
}
