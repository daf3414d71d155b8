//! The event loop: the virtual clock, the network, the faults, and the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use controller_stub::api::{Action, InterfaceState, State};
use nsh::QueryKind;
use vhost_backend::liveness::{Session, State as Liveness, Timestamp};

use crate::chance::Chance;
use crate::control::{Control, Down, Up};
use crate::host::Host;
use crate::ledger::{FLOWS, Ledger, PacketId};
use crate::scenario::{ALL, MS, Scenario, US};
use crate::service::Handed;
use crate::site::sites;
use crate::story::{Lines, Story};
use crate::tally::Tally;
use crate::{Broken, Bug};

/// A worker looks at its sessions this often.
const ROUND: u64 = 200 * US;
/// An agent looks at what it has to say this often.
const TURN: u64 = 500 * US;
/// The controller looks at its leases, and sends its table again, this often.
const WATCH: u64 = 4 * MS;

/// Something that happens. Hosts and services by their place.
#[derive(Debug)]
pub(crate) enum Event {
    /// A tenant sends.
    Packet(usize),
    /// A driver looks at its ring.
    Take(usize, usize),
    /// A service VM, in this life, puts a frame into its transmit ring.
    Return(usize, usize, u32, Handed),
    /// A worker looks at its sessions.
    Round(usize),
    /// An agent's turn.
    Turn(usize),
    /// The controller looks after its hosts.
    Watch,
    /// A message reaches the controller.
    Up(usize, Up),
    /// A message reaches a host, or what was its agent then.
    Down(usize, u64, Down),
    /// A step begins.
    Begin(usize),
    /// A step ends.
    End(usize),
    /// Nothing goes wrong any more.
    Calm,
}

/// An event and when it happens; of two at a time, the one that was planned first.
struct Planned(u64, u64, Event);

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// What everything in the simulation works with.
pub(crate) struct Scene {
    pub(crate) now: u64,
    pub(crate) chance: Chance,
    pub(crate) bug: Option<Bug>,
    pub(crate) ledger: Ledger,
    pub(crate) tally: Tally,
    lines: Lines,
    planned: BinaryHeap<Reverse<Planned>>,
    order: u64,
}

impl Scene {
    pub(crate) fn time(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.planned.push(Reverse(Planned(at, self.order, event)));
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        self.lines.note(self.now, line);
    }

    /// Notes where a packet goes.
    pub(crate) fn note_packet(&mut self, packet: PacketId, to: impl FnOnce() -> String) {
        let Self { now, ledger, lines, .. } = self;
        lines.note(*now, || format!("packet {packet} of {}: {}", ledger.name(packet), to()));
    }

    /// Frames that a service VM had and that are seen no more.
    pub(crate) fn lost(&mut self, frames: impl IntoIterator<Item = Handed>) {
        for frame in frames {
            if let Some(packet) = frame.wire.packet().filter(|_| !frame.salvaged) {
                self.ledger.inside(packet.id);
            }
        }
    }

    /// A packet arrived by its chain.
    pub(crate) fn delivered(&mut self, packet: PacketId) -> Result<(), Broken> {
        self.note_packet(packet, || "delivered".to_owned());
        self.ledger.delivered(packet, &mut self.tally)
    }

    /// A packet arrived past its chain.
    pub(crate) fn let_through(&mut self, packet: PacketId) -> Result<(), Broken> {
        self.note_packet(packet, || "let through".to_owned());
        self.ledger.let_through(packet, &mut self.tally)
    }

    /// A packet was dropped, for a reason that is counted under this name.
    pub(crate) fn dropped(&mut self, packet: PacketId, reason: &'static str) -> Result<(), Broken> {
        self.note_packet(packet, || format!("dropped ({reason})"));
        self.ledger.dropped(packet, reason, &mut self.tally)
    }

    /// The same, by its service.
    fn dropped_by_the_service(&mut self, packet: PacketId) -> Result<(), Broken> {
        self.ledger.dropped_by_the_service(packet, &mut self.tally)
    }
}

/// Hosts, controller and network of one seed.
pub(crate) struct World {
    seed: u64,
    pub(crate) scenario: Scenario,
    pub(crate) scene: Scene,
    pub(crate) hosts: Vec<Host>,
    pub(crate) control: Control,
    /// How many faults keep each host and the controller apart.
    pub(crate) apart: [u32; 3],
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, told: bool) -> Self {
        let scenario = Scenario::new(&mut Chance::new(seed));
        let mut scene = Scene {
            now: 0,
            chance: Chance::new(!seed),
            bug,
            ledger: Ledger::default(),
            tally: Tally::default(),
            lines: Lines::new(told),
            planned: BinaryHeap::new(),
            order: 0,
        };
        let sites = sites(scenario.on_failure).iter().enumerate();
        let hosts = sites.map(|(number, site)| Host::new(number, site, &scenario, &mut scene)).collect();
        let control = Control::new(&mut scene);
        Self { seed, scenario, scene, hosts, control, apart: [0; 3] }
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Result<Tally, Box<Story>> {
        match self.play() {
            Ok(()) => Ok(self.scene.tally),
            Err(broken) => {
                let Self { seed, scenario, scene: Scene { lines, now: at, .. }, .. } = self;
                Err(Box::new(Story { seed, scenario, lines, at, broken }))
            }
        }
    }

    fn play(&mut self) -> Result<(), Broken> {
        self.begin()?;
        while let Some(Reverse(Planned(at, _, event))) = self.scene.planned.pop() {
            if at > self.scenario.end {
                break;
            }
            self.scene.now = at;
            if let Some(until) = self.postponed(&event) {
                self.scene.at(until, event);
            } else {
                self.happen(event)?;
            }
        }
        self.end()
    }

    fn begin(&mut self) -> Result<(), Broken> {
        for host in 0..self.hosts.len() {
            for service in 0..self.hosts[host].services.len() {
                self.tell(host, service, Session::attached)?;
            }
            if !self.hosts[host].services.is_empty() {
                self.scene.at(self.scene.order % ROUND, Event::Round(host));
                self.scene.at(0, Event::Packet(host));
            }
            self.scene.at(0, Event::Turn(host));
        }
        self.scene.at(0, Event::Watch);
        for (place, step) in self.scenario.steps.iter().enumerate() {
            self.scene.at(step.when.start, Event::Begin(place));
            self.scene.at(step.when.end, Event::End(place));
        }
        self.scene.at(self.scenario.calm, Event::Calm);
        Ok(())
    }

    /// A worker that stands still does nothing; the guests and the network go on.
    fn postponed(&self, event: &Event) -> Option<u64> {
        let until = match event {
            Event::Packet(host) => self.hosts[*host].paused_until.max(self.hosts[*host].late_until),
            Event::Round(host) => self.hosts[*host].paused_until,
            _ => return None,
        };
        (self.scene.now < until).then_some(until)
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Packet(host) => self.packet(host),
            Event::Take(host, service) => {
                let first = self.scene.chance.within(0..self.scenario.pairs as u64) as usize;
                let (worked_on, lost) = self.hosts[host].services[service].vm.take(first);
                self.hosts[host].swallowed(&mut self.scene, service, lost);
                self.work(host, service, worked_on)
            }
            Event::Return(host, service, life, frame) => {
                let host = &mut self.hosts[host];
                let vm = &mut host.services[service].vm;
                if life != vm.life || host.dead > 0 {
                    self.scene.lost([frame]);
                    return Ok(());
                }
                vm.sent.push_back(frame);
                // A worker that stands still reads it later.
                let runs = self.scene.now >= host.paused_until;
                if runs { host.hear(&mut self.scene, service) } else { Ok(()) }
            }
            Event::Round(host) => {
                self.scene.after(ROUND, Event::Round(host));
                if self.hosts[host].dead == 0 { self.hosts[host].tend(&mut self.scene) } else { Ok(()) }
            }
            Event::Turn(host) => {
                self.scene.after(TURN, Event::Turn(host));
                if self.hosts[host].dead == 0
                    && let Some(said) = self.hosts[host].speak(&self.scene)
                {
                    self.travel(host, || Event::Up(host, said.clone()));
                }
                Ok(())
            }
            Event::Watch => self.watch(),
            Event::Up(host, said) => self.up(host, said),
            Event::Down(host, incarnation, told) => self.down(host, incarnation, &told),
            Event::Begin(step) => self.fault(step, true),
            Event::End(step) => self.fault(step, false),
            Event::Calm => self.calm(),
        }
    }

    // ---- guests

    fn packet(&mut self, host: usize) -> Result<(), Broken> {
        if self.scene.now >= self.scenario.last {
            return Ok(());
        }
        let gap = self.scene.chance.within(self.scenario.gap.clone());
        self.scene.after(gap, Event::Packet(host));
        let batch = self.batch();
        let host = &mut self.hosts[host];
        if host.dead > 0 {
            return Ok(());
        }
        batch.into_iter().try_for_each(|flow| host.send(&mut self.scene, flow))
    }

    /// The flows of packets that tenants send at a time.
    pub(crate) fn batch(&mut self) -> Vec<usize> {
        let chance = &mut self.scene.chance;
        let packets = 0..chance.within(self.scenario.burst.clone());
        // Replies now and then.
        packets
            .map(|_| 2 * chance.within(0..FLOWS as u64 / 2) as usize + usize::from(chance.happens(300)))
            .collect()
    }

    /// The service works on frames, one after the other: each comes back, or the word that it was dropped, if that was asked.
    pub(crate) fn work(&mut self, host: usize, service: usize, frames: Vec<Handed>) -> Result<(), Broken> {
        for mut frame in frames {
            let asked = frame.wire.context().query == QueryKind::Ping;
            match frame.wire.packet() {
                Some(packet) if self.scene.chance.happens(self.scenario.refused) => {
                    if !frame.salvaged {
                        self.scene.dropped_by_the_service(packet.id)?;
                    }
                    if !asked {
                        continue;
                    }
                    frame.wire.answer_bare(true);
                }
                Some(_) => frame.wire.answer(),
                None => frame.wire.answer_bare(false),
            }
            let soon = self.scene.now + self.scene.chance.within(5 * US..200 * US);
            let vm = &mut self.hosts[host].services[service].vm;
            vm.busy_until = vm.busy_until.max(soon);
            self.scene.at(vm.busy_until, Event::Return(host, service, vm.life, frame));
        }
        Ok(())
    }

    // ---- the network

    /// A message on its way, or two, or none.
    fn travel(&mut self, host: usize, message: impl Fn() -> Event) {
        let calm = self.scene.now >= self.scenario.calm;
        let (lost, doubled) = if calm { (0, 0) } else { (self.scenario.lost, self.scenario.doubled) };
        if self.apart[host] > 0 || self.scene.chance.happens(lost) {
            self.scene.tally.messages_lost += 1;
            return;
        }
        for _ in 0..1 + u32::from(self.scene.chance.happens(doubled)) {
            let latency = self.scene.chance.within(self.scenario.latency.clone());
            self.scene.after(latency, message());
        }
    }

    fn up(&mut self, host: usize, said: Up) -> Result<(), Broken> {
        if self.control.dead > 0 || self.apart[host] > 0 {
            return Ok(());
        }
        let answer = self.control.answer(&mut self.scene, self.hosts[host].site.id, said);
        let registered = matches!(answer, Down::Registered { .. });
        self.send_down(host, &answer);
        self.publish()?;
        if registered {
            // Its table stream opens: the newest one comes at once.
            let (table, _) = self.control.table()?;
            self.send_down(host, &table);
        }
        Ok(())
    }

    fn send_down(&mut self, host: usize, told: &Down) {
        let incarnation = self.hosts[host].agent.incarnation;
        self.travel(host, || Event::Down(host, incarnation, told.clone()));
    }

    fn down(&mut self, host: usize, incarnation: u64, told: &Down) -> Result<(), Broken> {
        let to = &mut self.hosts[host];
        if to.dead > 0 || self.apart[host] > 0 || to.agent.incarnation != incarnation {
            return Ok(());
        }
        if to.agent.hear(told) {
            to.report_all();
        }
        match told {
            Down::Table { table, .. } => to.take_table(&mut self.scene, table),
            _ => Ok(()),
        }
    }

    /// Sends a new table to every host.
    pub(crate) fn publish(&mut self) -> Result<(), Broken> {
        if let (table, true) = self.control.table()? {
            (0..self.hosts.len()).for_each(|host| self.send_down(host, &table));
        }
        Ok(())
    }

    fn watch(&mut self) -> Result<(), Broken> {
        self.scene.after(WATCH, Event::Watch);
        if self.scene.chance.happens(300) && self.scene.now < self.scenario.calm {
            self.control.copy();
        }
        if self.control.dead > 0 {
            return Ok(());
        }
        self.control.watch(&mut self.scene);
        self.publish()?;
        // A stream that broke is opened anew, and begins with the newest table.
        let (table, _) = self.control.table()?;
        (0..self.hosts.len()).for_each(|host| self.send_down(host, &table));
        Ok(())
    }

    // ---- the end

    /// Whoever holds a service out gives it back: a store of old may have forgotten that they did.
    fn calm(&mut self) -> Result<(), Broken> {
        if self.control.dead > 0 {
            self.scene.after(MS, Event::Calm);
            return Ok(());
        }
        self.scene.note(|| "calm".to_owned());
        for host in &self.hosts {
            for (name, ..) in &host.site.services {
                let now = self.scene.wall_time();
                let controller = &mut self.control.controller;
                let _ = controller.act(name, Action::Restore, now);
                let _ = controller.interface(name, InterfaceState::Up, now);
            }
        }
        self.publish()
    }

    fn end(&mut self) -> Result<(), Broken> {
        let Self { scenario, scene, hosts, control, .. } = self;
        // What is still under way is in a service VM's hands.
        let under_way =
            std::mem::take(&mut scene.planned).into_iter().filter_map(|Reverse(planned)| match planned.2 {
                Event::Return(.., frame) => Some(frame),
                _ => None,
            });
        let in_rings = hosts.iter().flat_map(|host| &host.services).flat_map(|service| service.vm.contents());
        let left: Vec<Handed> = under_way.chain(in_rings.copied()).collect();
        let mut left = left.iter().filter(|frame| !frame.salvaged);
        if let Some(packet) = left.find_map(|frame| frame.wire.packet()) {
            return Err(format!("packet {} is still under way in the end", packet.id));
        }
        if hosts.iter().flat_map(|host| &host.services).any(|service| service.proxy.is_holding()) {
            return Err("frames still wait for room in the end".to_owned());
        }
        hosts.iter_mut().flat_map(|host| &mut host.services).for_each(|service| service.end(scene));
        scene.ledger.close(scenario.keeps.retain >= ALL, &mut scene.tally)?;
        let table = control.controller.table();
        for host in hosts.iter() {
            converged(host, table.generation)?;
        }
        let status = control.controller.status();
        for service in &status.services {
            if service.state != State::Up {
                return Err(format!(
                    "the controller has {} {} in the end: {service:?}",
                    service.name, service.state
                ));
            }
        }
        let paths = table.plan.chains.iter().flat_map(|chain| &chain.paths);
        match paths.into_iter().find(|path| path.state != State::Up) {
            Some(path) => Err(format!("the controller has SPI {} {} in the end", path.spi, path.state)),
            None => Ok(()),
        }
    }
}

/// A host that is where it should be in the end.
fn converged(host: &Host, generation: u64) -> Result<(), Broken> {
    let id = host.site.id;
    for (service, (name, ..)) in host.services.iter().zip(&host.site.services) {
        let session = service.session();
        if session.state() != Liveness::Up {
            return Err(format!("host {id} has {name} {} in the end: {session:?}", session.state()));
        }
    }
    let snapshot: Arc<_> = host.snapshot();
    if let Some(path) = snapshot.paths().find(|path| !path.up) {
        return Err(format!("host {id} has SPI {} down in the end", path.spi.get()));
    }
    let in_force = (host.agent.generation, snapshot.generation().0);
    if in_force != (generation, generation) {
        return Err(format!("host {id} has generation {in_force:?} in the end, the controller {generation}"));
    }
    if !host.agent.queue.is_empty() {
        return Err(format!("host {id} has {} reports to hand in, in the end", host.agent.queue.len()));
    }
    Ok(())
}
