//! One host: tables, classifier, proxies and service VMs. The decisions are the datapath's own.

use std::sync::Arc;

use controller_stub::api::{InterfaceState, Table};
use nsh::{Epoch, Si, Spi, Ttl};
use vhost_backend::chain::{
    Arrival, Counts, Decision, DropReason, Learned, OnFailure, Onward, PathState, PortId, Snapshot, Standing,
    Stripped, Verdict, VerdictCache, classify, deliver,
};
use vhost_backend::host::Intent;
use vhost_backend::liveness::{Session, State, Timestamp, Transition};
use vhost_backend::worker::Tables;
use vmm_glue::tables;

use crate::agent::Agent;
use crate::ledger::{PacketId, Place};
use crate::proxy::Service;
use crate::scenario::Scenario;
use crate::site::{Flow, HostSite, is_reverse};
use crate::wire::Packet;
use crate::world::Scene;
use crate::{Broken, Bug};

/// A host and what its daemon knows.
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) site: &'static HostSite,
    tables: Tables,
    learned: Learned,
    counts: Counts,
    /// Of the tenants' worker, once it has work.
    cache: Option<VerdictCache>,
    pub(crate) services: Vec<Service>,
    pub(crate) agent: Agent,
    /// Its chain says `bypass`.
    bypasses: bool,
    /// How many faults keep its daemon from running.
    pub(crate) dead: u32,
    /// Until when its workers stand still.
    pub(crate) paused_until: u64,
    /// Until when that of its tenants does.
    pub(crate) late_until: u64,
    /// What it has decided by then, with the life of the service VM that each packet is for.
    pub(crate) decided: Vec<(PortId, Packet, Epoch)>,
}

/// Who gives the classifier a packet.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The tenant.
    Tenant,
    /// A service VM, before a hop of its path that is not usable.
    Path(&'a Packet),
    /// The estate of one that is down, in the order in which it got it.
    Estate(&'a Packet),
}

impl Host {
    pub(crate) fn new(
        number: usize,
        site: &'static HostSite,
        scenario: &Scenario,
        scene: &mut Scene,
    ) -> Self {
        let services = site.services.iter();
        let services = services.map(|(_, port, profile)| Service::new(*port, *profile, scenario, scene));
        let services = services.collect();
        Self {
            number,
            site,
            tables: of_the_file(site),
            learned: Learned::new(64, 16, 1, scene.chance.number()),
            counts: Counts::default(),
            cache: None,
            services,
            agent: Agent::new(scene.chance.number() >> 11),
            bypasses: scenario.on_failure == OnFailure::Bypass,
            dead: 0,
            paused_until: 0,
            late_until: 0,
            decided: Vec::new(),
        }
    }

    /// The tables in force.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.tables.load_full()
    }

    /// Its daemon is started anew: what the old one knew is gone, and what was in flight with it.
    pub(crate) fn restart(&mut self, scene: &mut Scene) {
        for (service, (_, _, profile)) in self.services.iter_mut().zip(&self.site.services) {
            service.restart(*profile, scene);
        }
        self.decided.drain(..).for_each(|(_, packet, _)| scene.ledger.inside(packet.id));
        scene.ledger.forgotten(self.number);
        self.tables = of_the_file(self.site);
        self.learned = Learned::new(64, 16, 1, scene.chance.number());
        self.cache = None;
        self.agent = Agent::new(scene.chance.number() >> 11);
    }

    // ---- packets

    /// A tenant sends a packet of one of its flows, or of one to it.
    pub(crate) fn send(&mut self, scene: &mut Scene, flow: usize) -> Result<(), Broken> {
        let id = scene.ledger.sent(self.number, flow);
        self.steer(scene, id, Source::Tenant)
    }

    /// The same, but for a worker that gets no further than to decide.
    pub(crate) fn decide(&mut self, scene: &mut Scene, flow: usize) -> Result<(), Broken> {
        let id = scene.ledger.sent(self.number, flow);
        let Some((to, packet)) = self.classify(scene, id, Source::Tenant)? else { return Ok(()) };
        let epoch = self.index(to).map(|index| self.services[index].session().epoch()).unwrap_or_default();
        self.decided.push((to, packet, epoch));
        Ok(())
    }

    /// The flow of a packet.
    pub(crate) fn flow(&self, scene: &Scene, packet: PacketId) -> &'static Flow {
        let flow = scene.ledger.flow(packet);
        &self.site.flows[flow / 2][flow % 2]
    }

    /// The classifier gets a packet.
    pub(crate) fn steer(
        &mut self,
        scene: &mut Scene,
        id: PacketId,
        source: Source<'_>,
    ) -> Result<(), Broken> {
        match self.classify(scene, id, source)? {
            Some((to, packet)) => self.hand(scene, to, packet),
            None => Ok(()),
        }
    }

    /// Which service VM it goes to now, unless it went elsewhere.
    fn classify(
        &mut self,
        scene: &mut Scene,
        id: PacketId,
        source: Source<'_>,
    ) -> Result<Option<(PortId, Packet)>, Broken> {
        let flow = self.flow(scene, id);
        let snapshot = self.tables.load_full();
        let known = match source {
            Source::Tenant => self.decided_lately(scene, &snapshot, flow),
            Source::Path(_) | Source::Estate(_) => None,
        };
        let verdict = known.unwrap_or_else(|| {
            let mut steering = self.learned.steering(&mut self.counts);
            let arrival = Arrival::new(flow.from, &flow.frame, &steering, scene.time());
            let Decision { verdict, lasting } = classify(&snapshot, &mut steering, &arrival);
            if let (true, Source::Tenant, Some(cache)) = (lasting, source, &mut self.cache) {
                cache.keep(&flow.imprint, flow.from, standing(scene, &snapshot), verdict);
            }
            verdict
        });
        let (to, spi, si) = match verdict {
            Verdict::Push { to, spi, si } => (to, spi, si),
            Verdict::Deliver(_) => return scene.let_through(id).map(|()| None),
            Verdict::Drop(reason) => return self.dropped(scene, &snapshot, id, reason).map(|()| None),
            other => return Err(format!("packet {id} of a tenant came to {other:?}")),
        };
        let left = match source {
            Source::Tenant => return Ok(Some((to, Packet { id, spi, si, ttl: Ttl::ORIGIN }))),
            Source::Path(left) | Source::Estate(left) => left,
        };
        let moved_before = passed(&snapshot, left).iter().any(|hop| !self.is_usable(*hop));
        if parts(&snapshot, left, spi) && (matches!(source, Source::Path(_)) || moved_before) {
            // What left its path before it, or comes now, is ahead of it.
            scene.ledger.may_be_passed(id);
        }
        let (to, si) = match snapshot.resume(left.spi, left.si, spi) {
            Some(Onward::Service(to, si)) => (to, si),
            Some(Onward::End) => return scene.delivered(id).map(|()| None),
            None => (to, si),
        };
        Ok(Some((to, Packet { id, spi, si, ttl: Ttl::ORIGIN })))
    }

    /// What was decided about the flow's last packet, if that still stands.
    fn decided_lately(&mut self, scene: &mut Scene, snapshot: &Snapshot, flow: &Flow) -> Option<Verdict> {
        let cache = self.cache.get_or_insert_with(|| VerdictCache::new(scene.chance.number()));
        let known = cache.for_batch(flow.from, standing(scene, snapshot), 1)?.find(&flow.imprint);
        scene.tally.known += u64::from(known.is_some());
        known
    }

    /// What is to happen to a packet that a service VM returned.
    pub(crate) fn carry_out(
        &mut self,
        scene: &mut Scene,
        snapshot: &Snapshot,
        packet: Packet,
        verdict: Verdict,
    ) -> Result<(), Broken> {
        match verdict {
            Verdict::Forward { to, si, ttl } => {
                if self.index(to).is_some_and(|index| packet.id < self.services[index].back_at) {
                    scene.ledger.may_be_passed(packet.id);
                }
                self.hand(scene, to, Packet { si, ttl, ..packet })
            }
            Verdict::Reflect { si, .. } => {
                scene.tally.resteered += 1;
                self.steer(scene, packet.id, Source::Path(&Packet { si, ..packet }))
            }
            Verdict::Drop(reason) => self.dropped(scene, snapshot, packet.id, reason),
            Verdict::Strip => {
                let frame = &self.flow(scene, packet.id).frame;
                let steering = self.learned.steering(&mut self.counts);
                match deliver(snapshot, &steering, &Stripped { frame, now: scene.time() }).verdict {
                    Verdict::Deliver(_) => scene.delivered(packet.id),
                    other => Err(format!("packet {} came from its path to {other:?}", packet.id)),
                }
            }
            other => Err(format!("packet {} came back to {other:?}", packet.id)),
        }
    }

    /// The word that a packet goes nowhere.
    pub(crate) fn dropped(
        &self,
        scene: &mut Scene,
        snapshot: &Snapshot,
        id: PacketId,
        reason: DropReason,
    ) -> Result<(), Broken> {
        // Every host has one chain that can be carried out; a path that left the tables has no chain.
        let up =
            |path: &PathState<'_>| !path.chain.is_empty() && path.hops.iter().all(|hop| self.is_usable(*hop));
        if let (DropReason::Blocked, Some(path)) = (reason, snapshot.paths().find(up)) {
            return Err(format!("packet {id} was blocked while SPI {} is up", path.spi.get()));
        }
        scene.dropped(id, reason.as_str())
    }

    // ---- what the worker does besides

    /// Tells a session something, and does what follows.
    pub(crate) fn tell(
        &mut self,
        scene: &mut Scene,
        index: usize,
        word: impl FnOnce(&mut Session, Timestamp),
    ) -> Result<(), Broken> {
        word(self.services[index].proxy.session_mut(), scene.time());
        self.announce(scene, index)
    }

    /// Carries out what a session decided: first the tables, then what waited there, then the report.
    pub(crate) fn announce(&mut self, scene: &mut Scene, index: usize) -> Result<(), Broken> {
        while let Some(transition) = self.services[index].proxy.session_mut().transition() {
            let Transition { from, to, cause, .. } = transition;
            let (name, port, _) = &self.site.services[index];
            scene.note(|| format!("{name} {from} -> {to} ({cause})"));
            let forgotten = scene.bug == Some(Bug::SwapForgotten) && !to.usable();
            if from.usable() != to.usable() && !forgotten {
                let changed = match from {
                    State::Recovering => self.tables.set_recovered(*port, scene.time()),
                    _ => self.tables.set_usable(*port, to.usable()),
                };
                if self.bypasses && to.usable() && !changed.is_empty() {
                    // A path is up again: what goes around others goes on so.
                    scene.ledger.ways_part(self.number);
                }
            }
            if !from.usable() && to.usable() {
                self.services[index].back_at = scene.ledger.next();
            }
            if from.usable() && !to.usable() {
                let why = if to == State::Maintained { "maintenance" } else { cause.name() };
                *scene.tally.downs.entry(why).or_default() += 1;
                scene.ledger.ways_part_at(self.number, &places(&self.snapshot(), *port));
            }
            if to == State::Maintained {
                // What it has been handed goes on through it, and what comes now goes another way.
                scene.ledger.ways_part(self.number);
            }
            if from.keeps() && !to.keeps() {
                self.salvage(scene, index)?;
            }
            let epoch = self.services[index].session().epoch().get();
            self.agent.notice(name.clone(), &transition, epoch);
        }
        Ok(())
    }

    // ---- what the controller says

    /// A table arrived, however late and however often.
    pub(crate) fn take_table(&mut self, scene: &mut Scene, table: &Table) -> Result<(), Broken> {
        let (offered, current) = (table.generation, self.agent.generation);
        if !tables::is_newer(offered, current) && scene.bug != Some(Bug::GenerationIgnored) {
            scene.tally.tables_refused += 1;
            return Ok(());
        }
        let (intent, _) = tables::intent(offered, &table.plan, &self.site.directory);
        let (site, before) = (self.site, self.snapshot());
        let in_force = self.tables.update(|snapshot| snapshot.with_tables(site.tables(&intent)));
        let in_force =
            in_force.map_err(|error| format!("host {} cannot take a table: {error}", self.number))?;
        if in_force.0 < current {
            return Err(format!(
                "host {} went back from generation {current} to {}",
                self.number, in_force.0
            ));
        }
        scene.tally.tables += 1;
        if paths(&before) != paths(&self.snapshot()) {
            scene.ledger.ways_part(self.number);
        }
        self.agent.generation = offered;
        scene.note(|| format!("host {} works with generation {offered}", site.id));
        for service in table.plan.services.iter().filter(|service| service.host == Some(site.id)) {
            let Some(index) = site.services.iter().position(|(name, ..)| *name == service.name) else {
                continue;
            };
            let up = service.interface == InterfaceState::Up;
            self.tell(scene, index, |session, now| {
                match (service.held, service.maintenance) {
                    (false, _) => session.restore(now),
                    (true, true) => session.maintain(now),
                    (true, false) => session.fail(now),
                }
                session.control_plane(now, up);
            })?;
        }
        Ok(())
    }

    fn is_usable(&self, port: PortId) -> bool {
        self.index(port).is_some_and(|index| self.services[index].session().usable())
    }

    /// The place of the service at a port.
    pub(crate) fn index(&self, port: PortId) -> Option<usize> {
        self.services.iter().position(|service| service.vm.port == port)
    }
}

/// What a verdict of now is valid under.
fn standing(scene: &Scene, snapshot: &Snapshot) -> Standing {
    let version = if scene.bug == Some(Bug::VerdictKept) { 0 } else { snapshot.version() };
    Standing::new(version, scene.time())
}

/// The paths that packets can take.
fn paths(snapshot: &Snapshot) -> Vec<(u32, Vec<PortId>)> {
    // Those that left the tables have no chain.
    let paths = snapshot.paths().filter(|path| !path.chain.is_empty());
    paths.map(|path| (path.spi.get(), path.hops.to_vec())).collect()
}

/// The hops that a packet has passed.
fn passed<'a>(snapshot: &'a Snapshot, packet: &Packet) -> &'a [PortId] {
    let path = snapshot.paths().find(|path| path.spi == packet.spi);
    path.map_or(&[], |path| &path.hops[..path.hops.len().saturating_sub(packet.si.get().into())])
}

/// Whether another path does not begin with them.
fn parts(snapshot: &Snapshot, packet: &Packet, other: Spi) -> bool {
    let other = snapshot.paths().find(|path| path.spi == other);
    other.is_some_and(|path| !path.hops.starts_with(passed(snapshot, packet)))
}

/// The places of a service on paths, and where there are others that have not the same services before or behind it.
fn places(snapshot: &Snapshot, service: PortId) -> Vec<Place> {
    let paths: Vec<_> = snapshot.paths().filter(|path| !path.chain.is_empty()).collect();
    let place = |path: &PathState<'_>| {
        let place = path.hops.iter().position(|hop| *hop == service)?;
        let (before, behind) = (&path.hops[..place], &path.hops[place + 1..]);
        let others = || paths.iter().filter(|other| is_reverse(other.spi) == is_reverse(path.spi));
        Some(Place {
            spi: path.spi,
            si: Si::new((path.hops.len() - place) as u8),
            parts_before: others().any(|other| !other.hops.starts_with(before)),
            parts_behind: others().any(|other| !other.hops.ends_with(behind)),
        })
    };
    paths.iter().filter_map(place).collect()
}

/// The tables a daemon starts with.
fn of_the_file(site: &HostSite) -> Tables {
    let intent: &Intent = &site.config.intent;
    Tables::new(Snapshot::default().with_tables(site.tables(intent)).expect("the file's tables"))
}
