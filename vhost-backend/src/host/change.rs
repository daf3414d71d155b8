//! Other ports on a host that runs: those that stay keep their number, their link and every frame.
//!
//! ```text
//! prepare   numbers, sockets and tables of the new ports; whatever is wrong is found here, and nothing has changed
//! part      new chains on the old ports ─► the ports that go: no more frames, hang up, all workers take note, salvage
//! replace   the final tables ─► every worker takes the new ports up between two rounds ─► the old ones are freed
//! ```
//!
//! So no table names a port that a worker might take for another, and no worker holds a port when its number begins to rest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::crew::obeyed;
use super::roster::{Member, Roster};
use super::serving::{Served, Serving};
use super::{Host, HostError, Intent, announce_tables, lock, put_tables, shares};
use crate::chain::{self, PortId};
use crate::device::{Endpoint, Mode};
use crate::port::{PortSpec, Role};
use crate::worker::{Common, monotonic_now};

/// How long a service that goes may take at most to give back the frames it has.
const FAREWELL: Duration = Duration::from_millis(50);
/// It has none any more when it was silent for so many milliseconds.
const SILENT: u32 = 3;

/// What it takes to get from the ports of a host to others.
struct Plan {
    /// The ports then.
    next: Roster,
    /// Of the ports asked for, by place: their number then, and their number while those that go are still there.
    numbers: Vec<PortId>,
    numbers_meanwhile: Vec<PortId>,
    fresh: Vec<Arc<Member>>,
    gone: Vec<Arc<Member>>,
}

impl Host {
    /// Puts other ports in force, with chains and policies that `intent` makes of the numbers they get, by place. A port
    /// that is the same under its name stays as it is, whatever its place. One that is not is taken down, and set up anew
    /// under another number; the VMM may come back to its socket at once. Waits for the workers, and for the frames that
    /// services which go have in their hands, for 50 ms at most. Gives the numbers. `intent` is asked twice: while ports go,
    /// those that replace them have their numbers.
    ///
    /// # Errors
    /// See [`HostError`]; then nothing has changed.
    pub fn set_ports(
        &self,
        ports: Vec<PortSpec>,
        intent: impl Fn(&[PortId]) -> Intent,
    ) -> Result<Vec<PortId>, HostError> {
        let mut serving = self.serving();
        let (before, roster) = (self.common(), self.roster());
        let mut plan = Plan::new(&roster, ports, &before)?;
        let (last, meanwhile) = (intent(&plan.numbers), intent(&plan.numbers_meanwhile));
        let (ports, ports_meanwhile) = (plan.next.in_tables(), plan.ports_meanwhile(&roster));
        last.tables(&ports).check()?;
        meanwhile.tables(&ports_meanwhile).check()?;
        let (offered, current) = (last.generation, before.tables.load().generation());
        if offered < current {
            return Err(HostError::Stale { offered, current });
        }
        let mut served = plan.open()?;

        // Nothing fails from here on: what tables can be refused for was looked at above.
        let cut = before.tables.load().cut_chains();
        before.learned.reserve(plan.next.len());
        let mut sockets = Vec::new();
        if !plan.gone.is_empty() {
            put_tables(&before, &meanwhile, &ports_meanwhile)?;
            take_out(&before, &plan.gone);
            sockets = hang_up(&mut serving, &plan.gone);
            obeyed(|obeyed| self.crews.follow(&obeyed));
        }
        put_tables(&before, &last, &ports)?;
        let common = Arc::new(Common { ports: plan.next.ports(), ..Common::clone(&before) });
        let shares = shares(&common.ports, &last, self.crews.count());
        obeyed(|obeyed| self.crews.serve(&common, shares, &obeyed));
        // Nobody learns from those that are gone any more, nor counts there.
        plan.next.count_departed(&plan.gone);
        plan.gone.iter().for_each(|member| common.learned.forget(member.port.id));
        plan.hand_over(sockets, &mut served);
        serving.append(&mut served);
        announce_tables(&common, &last, &cut);
        *lock(&self.common) = common;
        *lock(&self.roster) = Arc::new(plan.next);
        Ok(plan.numbers)
    }

    /// Before the end of a host that is to lose nothing: what tenants and taps send stays where it is, and services have a
    /// moment to give back the frames they have. Waits for 50 ms at most.
    pub fn drain(&self) {
        let _serving = self.serving();
        obeyed(|obeyed| self.crews.drain(&obeyed));
        let roster = self.roster();
        until_silent(&roster.iter().filter(|member| member.port.is_service()).collect::<Vec<_>>());
    }
}

impl Plan {
    fn new(roster: &Roster, ports: Vec<PortSpec>, common: &Common) -> Result<Self, HostError> {
        let (now, count) = (monotonic_now(), ports.len());
        let mut plan = Self {
            next: roster.clone(),
            numbers: Vec::with_capacity(count),
            numbers_meanwhile: Vec::with_capacity(count),
            fresh: Vec::new(),
            gone: Vec::new(),
        };
        for spec in ports {
            let old = roster.named(&spec.name);
            if let Some(stays) = old.filter(|old| old.spec == spec) {
                plan.numbers.push(stays.port.id);
                plan.numbers_meanwhile.push(stays.port.id);
                continue;
            }
            let number = plan.next.take_number(now).ok_or(HostError::TooManyPorts(count))?;
            // One that is only set up anew keeps its place in the chains until the end.
            let alike = old.filter(|old| in_chains(&old.spec) == in_chains(&spec));
            plan.numbers.push(number);
            plan.numbers_meanwhile.push(alike.map_or(number, |old| old.port.id));
            let member = Member::new(spec, number, common.host, &common.wakes);
            plan.fresh.push(Arc::new(member.map_err(HostError::Worker)?));
        }
        let stays: BTreeSet<PortId> = plan.numbers.iter().copied().collect();
        plan.gone = roster.iter().filter(|member| !stays.contains(&member.port.id)).cloned().collect();
        plan.gone.iter().for_each(|member| plan.next.remove(member.port.id, now));
        plan.fresh.iter().for_each(|member| plan.next.put(Arc::clone(member)));
        Ok(plan)
    }

    /// The ports as the tables have them while those that go are still there, and those already that replace none.
    fn ports_meanwhile(&self, roster: &Roster) -> Vec<chain::PortSpec> {
        let mut ports = roster.in_tables();
        let named: BTreeSet<PortId> = self.numbers_meanwhile.iter().copied().collect();
        let fresh = self.fresh.iter().filter(|member| named.contains(&member.port.id));
        for mut added in fresh.map(|member| member.in_tables()) {
            for port in &mut ports {
                if port.name == added.name {
                    port.name.push_str(" (gone)");
                }
                if port.mac.is_some() && port.mac == added.mac {
                    added.mac = None;
                }
            }
            ports.push(added);
        }
        ports
    }

    /// Opens the sockets and interfaces of the new ports. A socket that a port listens on which goes is handed over later.
    fn open(&self) -> Result<Serving, HostError> {
        let mut left: Vec<&Path> = self.gone.iter().filter_map(|member| listening(&member.spec)).collect();
        let mut serving = Serving::new();
        for member in &self.fresh {
            let same = left.iter().position(|path| listening(&member.spec) == Some(path));
            same.map(|place| left.swap_remove(place));
            serving.insert(member.port.id, Served::open(member, same.is_some())?);
        }
        Ok(serving)
    }

    /// Hands the sockets over to those who wait for them, and closes the others.
    fn hand_over(&self, sockets: Vec<(PathBuf, Endpoint)>, serving: &mut Serving) {
        for (path, socket) in sockets {
            let heir = self.fresh.iter().find(|member| listening(&member.spec) == Some(&path));
            if let Some(served) = heir.and_then(|member| serving.get_mut(&member.port.id)) {
                served.succeed(Some(socket));
            }
        }
        serving.values_mut().for_each(|served| served.succeed(None));
    }
}

/// Gives the services that go no more frames, and waits until they have given back what they have, or for a moment.
fn take_out(common: &Common, gone: &[Arc<Member>]) {
    let usable = |member: &&Arc<Member>| common.tables.load().is_usable(member.port.id);
    let busy: Vec<&Arc<Member>> = gone.iter().filter(usable).collect();
    for member in &busy {
        common.tables.set_usable(member.port.id, false);
    }
    until_silent(&busy);
}

/// Waits until these services neither get nor give frames, or for a moment.
fn until_silent(services: &[&Arc<Member>]) {
    let carried = || -> u64 {
        let counters = services.iter().map(|member| member.port.counters.read());
        counters.map(|counters| counters.rx_packets.wrapping_add(counters.tx_packets)).sum()
    };
    let (began, mut before, mut silent) = (monotonic_now(), carried(), 0);
    while !services.is_empty() && silent < SILENT && monotonic_now().saturating_since(began) < FAREWELL {
        std::thread::sleep(Duration::from_millis(1));
        let now = carried();
        silent = if now == before { silent + 1 } else { 0 };
        before = now;
    }
}

/// Ends what serves the ports that go, all at once. Gives the sockets they listened on, which are open yet.
fn hang_up(serving: &mut Serving, gone: &[Arc<Member>]) -> Vec<(PathBuf, Endpoint)> {
    let ended = gone.iter().filter_map(|member| Some((member, serving.remove(&member.port.id)?)));
    let ended: Vec<_> = ended.collect();
    ended.iter().for_each(|(_, served)| served.ask_to_stop());
    let sockets = ended.into_iter().filter_map(|(member, served)| {
        let socket = served.hang_up();
        Some((listening(&member.spec)?.to_owned(), socket?))
    });
    sockets.collect()
}

/// The socket that the port listens on itself.
fn listening(spec: &PortSpec) -> Option<&Path> {
    let listens = spec.mode == Mode::Server && !matches!(spec.role, Role::Tap(_));
    listens.then_some(spec.socket.as_path())
}

/// What a port can be in chains and policies.
fn in_chains(spec: &PortSpec) -> chain::Role {
    match spec.role {
        Role::Tenant => chain::Role::Tenant,
        Role::Service(_) => chain::Role::Service,
        Role::Tap(_) => chain::Role::Tap,
    }
}
