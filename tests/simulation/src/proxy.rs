//! What a host does at a service port: the proxy is the datapath's own, the rings are a model.

use nsh::{Epoch, Origin};
use vhost_backend::chain::{DropReason, Hop, PortId, Return, Verdict, forward};
use vhost_backend::liveness::{Profile, Session, State};
use vhost_backend::port::{Keeps, Leftover, RinglessProxy};
use vhost_backend::telemetry::Discard;

use crate::host::{Host, Source};
use crate::ledger::PacketId;
use crate::scenario::{Scenario, US};
use crate::service::{Handed, ServiceVm};
use crate::wire::{FRAME, Packet, Wire};
use crate::world::{Event, Scene};
use crate::{Broken, Bug};

/// Bytes that a frame takes in a hold: its own, and its length.
const HELD: usize = FRAME + 4;

/// A service VM and the proxy in front of it.
pub(crate) struct Service {
    pub(crate) vm: ServiceVm,
    pub(crate) proxy: RinglessProxy,
    keeps: Keeps,
    /// It takes packets since this one.
    pub(crate) back_at: PacketId,
    /// Frames that wait for room in the ring of each pair.
    waiting: Vec<usize>,
    /// What its socket lost that may still be asked for, by these pairs, under these serial numbers.
    swallowed: Vec<(PacketId, usize, u16)>,
    /// What it left and a mistake puts off.
    put_off: Vec<Leftover>,
}

impl Service {
    pub(crate) fn new(port: PortId, profile: Profile, scenario: &Scenario, scene: &mut Scene) -> Self {
        let Scenario { keeps, pairs, .. } = *scenario;
        Self {
            vm: ServiceVm::new(port, pairs, scenario.ring, scenario.socket),
            proxy: RinglessProxy::new(session(profile, scene), &keeps, pairs),
            keeps,
            back_at: 0,
            waiting: vec![0; pairs],
            swallowed: Vec::new(),
            put_off: Vec::new(),
        }
    }

    /// The daemon is started anew: what waits is gone, and what the service VM had.
    pub(crate) fn restart(&mut self, profile: Profile, scene: &mut Scene) {
        scene.lost(self.vm.reset());
        let left = self.proxy.estate::<Wire>(&[]).into_iter().chain(self.put_off.drain(..));
        for packet in left.filter(|left| !left.copy).filter_map(|left| Wire::new(&left.frame).packet()) {
            scene.ledger.inside(packet.id);
        }
        self.proxy = RinglessProxy::new(session(profile, scene), &self.keeps, self.waiting.len());
        self.waiting.fill(0);
        self.swallowed.clear();
    }

    pub(crate) fn session(&self) -> &Session {
        self.proxy.session()
    }

    /// Lets a packet wait for room in the ring of its pair.
    fn hold(&mut self, scene: &mut Scene, packet: PacketId, pair: usize, wire: &Wire) -> Result<(), Broken> {
        let held = match scene.bug {
            Some(Bug::HoldUnused) => Err(Discard::RingFull),
            _ => self.proxy.hold(pair, wire.bytes()),
        };
        let Err(full) = held else {
            self.waiting[pair] += 1;
            scene.tally.held += 1;
            return Ok(());
        };
        let hold = self.keeps.hold / self.waiting.len();
        let (full, free) = (full.as_str(), hold.saturating_sub(self.waiting[pair] * HELD));
        // One place may be wasted where the memory ends.
        if free >= 2 * HELD {
            return Err(format!("packet {packet} was dropped ({full}) with {free} bytes of the hold free"));
        }
        scene.dropped(packet, full)
    }

    /// It is the end, and the service VM has not been found dead since its socket lost them.
    pub(crate) fn end(&mut self, scene: &mut Scene) {
        self.swallowed.drain(..).for_each(|(packet, ..)| scene.ledger.went_unnoticed(packet));
    }

    /// The service VM answered for the frame that came by this pair under this number, and so for all before it.
    fn answered_for(&mut self, scene: &mut Scene, pair: usize, serial: u16) {
        self.swallowed.retain(|(packet, by, lost)| {
            let passed = *by == pair && serial.wrapping_sub(*lost).cast_signed() > 0;
            if passed {
                scene.ledger.went_unnoticed(*packet);
            }
            !passed
        });
    }
}

/// A session that has heard nothing yet.
fn session(profile: Profile, scene: &mut Scene) -> Session {
    Session::new(profile, Epoch::new(scene.chance.number() as u8), scene.time())
}

impl Host {
    // ---- to the service VM

    /// Hands a packet that was just decided to the proxy of a service, and that to its VM.
    pub(crate) fn hand(&mut self, scene: &mut Scene, to: PortId, packet: Packet) -> Result<(), Broken> {
        let id = packet.id;
        let Some(index) = self.index(to) else { return Err(format!("packet {id} went to {to}")) };
        let state = self.services[index].session().state();
        if !state.usable() {
            let (name, ..) = &self.site.services[index];
            return Err(format!("packet {id} was handed to {name}, which is down ({state})"));
        }
        self.deliver_to(scene, index, &packet)
    }

    /// A worker delivers, later than it should, what it has decided; what waits then for a service VM that is down it steers
    /// again, before it reads anything else.
    pub(crate) fn deliver_decided(&mut self, scene: &mut Scene) -> Result<(), Broken> {
        for (to, packet, epoch) in std::mem::take(&mut self.decided) {
            let Some(index) = self.index(to) else { continue };
            scene.tally.late += 1;
            if self.services[index].session().epoch() != epoch {
                // If it is there again its flow may have another path by now.
                scene.ledger.may_be_passed(packet.id);
            }
            self.deliver_to(scene, index, &packet)?;
        }
        for index in 0..self.services.len() {
            let proxy = &self.services[index].proxy;
            if proxy.is_holding() && !proxy.session().state().keeps() {
                self.salvage(scene, index)?;
            }
        }
        Ok(())
    }

    fn deliver_to(&mut self, scene: &mut Scene, index: usize, packet: &Packet) -> Result<(), Broken> {
        let Packet { id, spi, si, .. } = *packet;
        let (name, ..) = &self.site.services[index];
        scene.note_packet(id, || format!("SPI {} SI {} to {name}", spi.get(), si.get()));
        scene.ledger.handed(id, spi, si);
        let overtakes = scene.bug == Some(Bug::HoldOvertaken);
        let pair = scene.ledger.flow(id) / 2 % self.services[index].waiting.len();
        if !overtakes {
            self.let_in(scene, index, pair);
        }
        let from = self.flow(scene, id).from;
        let mut wire = Wire::push(packet, Origin { host: self.site.id.get(), port: from.get() });
        let Service { vm, proxy, .. } = &mut self.services[index];
        let state = proxy.session().state();
        let out = !state.keeps() && scene.bug != Some(Bug::LateHanded);
        if !out && (!proxy.is_holding_for(pair) || overtakes) {
            let query = proxy.seal(scene.time(), wire.bytes_mut()).map_err(|error| error.to_string())?;
            if vm.room(pair) > 0 {
                if !state.keeps() {
                    return Err(format!("packet {id} was handed to {name}, which is down ({state})"));
                }
                vm.put(pair, wire);
                proxy.retain(pair, wire.bytes());
                self.wake(scene, index);
                return Ok(());
            }
            if let Some(query) = query {
                proxy.session_mut().refused(query);
            }
        }
        self.services[index].hold(scene, id, pair, &wire)
    }

    /// Frames that wait for the ring of this pair go into it, as far as there is room.
    fn let_in(&mut self, scene: &mut Scene, index: usize, pair: usize) {
        let Service { vm, proxy, waiting, .. } = &mut self.services[index];
        if !proxy.is_holding_for(pair) {
            return;
        }
        let room = vm.room(pair);
        let let_in = proxy.let_in(scene.time(), pair, room, |frame| vm.put(pair, Wire::new(frame)));
        waiting[pair] -= let_in;
        if let_in > 0 {
            self.wake(scene, index);
        }
    }

    /// Its driver will look at the ring soon.
    pub(crate) fn wake(&mut self, scene: &mut Scene, index: usize) {
        let vm = &mut self.services[index].vm;
        if !vm.woken && vm.frozen == 0 {
            vm.woken = true;
            let soon = scene.chance.within(5 * US..100 * US);
            scene.after(soon, Event::Take(self.number, index));
        }
    }

    /// Its socket had no room for these.
    pub(crate) fn swallowed(&mut self, scene: &mut Scene, index: usize, lost: Vec<Handed>) {
        let numbers = lost.iter().filter(|frame| !frame.salvaged);
        let numbers = numbers
            .filter_map(|frame| Some((frame.wire.packet()?.id, frame.pair, frame.wire.context().serial)));
        self.services[index].swallowed.extend(numbers);
        scene.lost(lost);
    }

    // ---- from the service VM

    /// Reads what it sent.
    pub(crate) fn hear(&mut self, scene: &mut Scene, index: usize) -> Result<(), Broken> {
        while let Some(frame) = self.services[index].vm.sent.pop_front() {
            self.returned(scene, index, frame)?;
        }
        Ok(())
    }

    fn returned(&mut self, scene: &mut Scene, index: usize, frame: Handed) -> Result<(), Broken> {
        let now = scene.time();
        let snapshot = self.snapshot();
        let mut context = frame.wire.context();
        let serial = context.serial;
        if scene.bug == Some(Bug::AnswerForgotten) {
            context.serial = 0;
        }
        let service = &mut self.services[index];
        let is_old = context.epoch != service.session().epoch();
        let Some(packet) = frame.wire.packet() else {
            service.proxy.answered(now, &context);
            if !is_old {
                service.answered_for(scene, frame.pair, serial);
            }
            return self.announce(scene, index);
        };
        let Packet { spi, si, ttl, .. } = packet;
        let verdict = forward(&snapshot, &Return { from: service.vm.port, spi, si, ttl }).verdict;
        // As the proxy does: the answer counts whatever becomes of the frame, unless nobody may have sent it.
        let fenced = match verdict {
            Verdict::Drop(_) => is_old,
            _ => service.proxy.returned(now, &context).is_err() && scene.bug != Some(Bug::FenceForgotten),
        };
        if fenced {
            scene.tally.fenced += 1;
            scene.lost([frame]);
        } else {
            if !matches!(verdict, Verdict::Drop(_)) {
                service.answered_for(scene, frame.pair, serial);
            }
            self.carry_out(scene, &snapshot, packet, verdict)?;
        }
        self.announce(scene, index)
    }

    // ---- what the worker does besides

    /// Driver evidence, timers, probes.
    pub(crate) fn tend(&mut self, scene: &mut Scene) -> Result<(), Broken> {
        for index in 0..self.services.len() {
            self.hear(scene, index)?;
        }
        for index in 0..self.services.len() {
            self.steer_what_was_put_off(scene, index)?;
            let pairs = self.services[index].waiting.len();
            (0..pairs).for_each(|pair| self.let_in(scene, index, pair));
            self.look(scene, index);
            self.announce(scene, index)?;
        }
        Ok(())
    }

    fn look(&mut self, scene: &mut Scene, index: usize) {
        let now = scene.time();
        let snapshot = self.snapshot();
        let Service { vm, proxy, .. } = &mut self.services[index];
        let sample = vm.look(|pair| proxy.is_holding_for(pair));
        proxy.session_mut().driver(now, sample);
        let Some(query) = proxy.session_mut().poll(now) else { return };
        // By the first pair.
        if vm.room(0) == 0 {
            return proxy.session_mut().refused(query);
        }
        vm.put(0, Wire::new(&proxy.probe(&snapshot, vm.port, query)));
        self.wake(scene, index);
    }

    // ---- what it leaves

    /// Frames that the dead service VM's driver never took are steered anew, and copies of those it did not answer; the
    /// ring keeps them, fenced.
    pub(crate) fn salvage(&mut self, scene: &mut Scene, index: usize) -> Result<(), Broken> {
        let service = &mut self.services[index];
        let untaken = service.vm.untaken();
        let left = service.proxy.estate(&untaken);
        service.waiting.fill(0);
        service.swallowed.clear();
        if !left.is_empty() {
            let copies = left.iter().filter(|left| left.copy).count();
            let (name, ..) = &self.site.services[index];
            scene.note(|| format!("{name} leaves {} frames, {copies} of them copies", left.len()));
        }
        if scene.bug == Some(Bug::SalvageLate) {
            self.services[index].put_off.extend(left);
            return Ok(());
        }
        left.into_iter().try_for_each(|left| self.give_back(scene, index, &left))
    }

    fn steer_what_was_put_off(&mut self, scene: &mut Scene, index: usize) -> Result<(), Broken> {
        let left = std::mem::take(&mut self.services[index].put_off);
        left.into_iter().try_for_each(|left| self.give_back(scene, index, &left))
    }

    fn give_back(&mut self, scene: &mut Scene, index: usize, left: &Leftover) -> Result<(), Broken> {
        // A probe goes nowhere.
        let Some(packet) = Wire::new(&left.frame).packet() else { return Ok(()) };
        if left.copy {
            scene.tally.replayed += 1;
            if scene.bug == Some(Bug::CopiesForgotten) {
                return Ok(());
            }
            scene.ledger.replayed(packet.id);
        } else {
            scene.tally.resteered += 1;
            if scene.bug == Some(Bug::SalvageDropped) {
                return Ok(());
            }
        }
        let snapshot = self.snapshot();
        // As on a host: the bytes may have been in a guest's memory.
        if snapshot.hop(packet.spi, packet.si) != Some(Hop::Service(self.services[index].vm.port)) {
            return self.dropped(scene, &snapshot, packet.id, DropReason::ForeignPath);
        }
        self.steer(scene, packet.id, Source::Estate(&packet))
    }

    /// The same for what a service VM in maintenance was still to process, and will not now that its link is lost.
    pub(crate) fn salvage_maintained(&mut self, scene: &mut Scene, index: usize) -> Result<(), Broken> {
        if self.services[index].session().state() == State::Maintained {
            self.salvage(scene, index)
        } else {
            Ok(())
        }
    }
}
