//! What a worker does besides frames: follows the links, feeds the liveness sessions, serves their timers and
//! carries out what they decide.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{monotonic_now, thread_time};
use super::{Common, GRACE, LONGEST_DOZE, TEND, Worker};
use crate::chain::PortId;
use crate::liveness::{DriverSample, Probe, State, Timestamp};
use crate::port::Port;
use crate::ring::{Gather, WriteError};
use crate::telemetry::{Direction, EventKind};

impl Worker {
    /// Takes up what control threads changed on the attachments.
    pub(super) fn follow_links(&mut self, now: Timestamp) {
        let changes = self.common.wakes.changes();
        if changes != self.seen_changes {
            self.seen_changes = changes;
            self.follow_changed_links(now);
        }
    }

    #[cold]
    fn follow_changed_links(&mut self, now: Timestamp) {
        let common = Arc::clone(&self.common);
        for index in 0..self.duties.len() {
            let Self { number, duties, sleeper, started, .. } = self;
            let Some(duty) = duties.get_mut(index) else { break };
            let Some(port) = common.ports.get(duty.share.port) else { continue };
            let changes = port.attachment.changes();
            if changes == duty.seen_changes {
                continue;
            }
            duty.seen_changes = changes;
            if now < *started && port.is_tenant() && port.attachment.link().connected {
                duty.waits = now + GRACE;
            }
            let kicks = duty.share.pairs.iter().filter_map(|pair| port.attachment.transmit_kick(*pair));
            sleeper.watch(duty.share.port, kicks.collect());
            for queue in port.open_queues(&duty.share.pairs) {
                queue.descriptor().into_iter().for_each(|queue| sleeper.listen(duty.share.port, queue));
            }
            if port.home() == *number {
                self.follow(&common, port, now);
            }
        }
    }

    fn follow(&mut self, common: &Common, port: &Port, now: Timestamp) {
        let change = port.link_change();
        if change.hung_up || change.stopped {
            self.hear_out(common, port, now);
        }
        if let Some(mut proxy) = port.proxy() {
            proxy.follow(change, now);
        }
        if change.hung_up || change.stopped {
            self.salvage_maintained(common, port, now);
        }
        if change.went_down {
            common.events.send(now, EventKind::PortDown(port.id));
        }
        if change.came_up {
            common.events.send(now, EventKind::PortUp(port.id));
        }
        self.announce(common, port, now);
        if port.proxy().is_some_and(|proxy| !proxy.session.usable()) {
            port.forget_remains();
        }
    }

    /// Driver evidence, timers and probes of every session at home here.
    pub(super) fn tend(&mut self, now: Timestamp) {
        self.tend_at = now + TEND;
        if self.presence.is_unknown() {
            self.presence.look(monotonic_now(), thread_time());
        }
        let waits = now < self.started + GRACE && self.duties.iter().any(|duty| now < duty.waits);
        if waits && !self.common.awaits_services() {
            self.duties.iter_mut().for_each(|duty| duty.waits = now);
        }
        let common = Arc::clone(&self.common);
        self.tell_due_news(&common, now);
        for index in 0..self.duties.len() {
            self.tend_port(index, &common, now);
        }
    }

    /// The same of one, if the port of this share has a session and is at home here.
    pub(super) fn tend_port(&mut self, index: usize, common: &Common, now: Timestamp) {
        let Some(duty) = self.duties.get(index) else { return };
        let Some(port) = common.ports.get(duty.share.port) else { return };
        if port.is_service() && port.home() == self.number {
            common.let_in(port, now);
            if self.hear_others(index, common, port, now) {
                common.tend_session(port, now);
            }
            self.announce(common, port, now);
            self.salvage_late(common, port, now);
        }
    }

    /// The service ports at home here.
    pub(super) fn services(&self) -> impl Iterator<Item = &Port> {
        let ports = self.duties.iter().filter_map(|duty| self.common.ports.get(duty.share.port));
        ports.filter(|port| port.is_service() && port.home() == self.number)
    }

    /// Sees to it that the worker which the port of a share is at home with carries out what its session decided.
    pub(super) fn announce_of(&self, index: usize, now: Timestamp) {
        if let Some(port) = self.duties.get(index).and_then(|duty| self.common.ports.get(duty.share.port)) {
            self.common.wake_home(port, now);
        }
    }

    /// How long the worker may sleep.
    pub(super) fn until_deadline(&mut self, now: Timestamp) -> Duration {
        let Self { number, common, duties, .. } = self;
        let mut first = Timestamp::NEVER;
        for duty in duties {
            let port = common.ports.get(duty.share.port).filter(|port| port.home() == *number);
            let proxy = port.and_then(Port::proxy);
            let deadline = proxy.map_or(Timestamp::NEVER, |proxy| proxy.deadline(now));
            // One that has not come yet is kept: some are a while from now whenever that is, and each kick of another would put
            // them off.
            let kept = Some(duty.deadline).filter(|before| *before > now);
            duty.deadline = kept.map_or(deadline, |before| before.min(deadline));
            first = first.min(duty.deadline);
        }
        first.saturating_since(now).min(LONGEST_DOZE)
    }
}

impl Common {
    /// Service VMs have not been heard yet by which flows would go. After a restart of the daemon they answer within milliseconds;
    /// what a tenant has in its ring waits for that, as all of it would be blocked for want of a path. A stand-by whose VMM
    /// comes back later is not waited for.
    fn awaits_services(&self) -> bool {
        let silent = |port: &&Port| {
            port.proxy()
                .is_some_and(|proxy| proxy.session.state() == State::Init || proxy.session.has_transition())
        };
        let silent: Vec<PortId> = self.ports.iter().filter(silent).map(|port| port.id).collect();
        self.tables.load().waits_for(&silent)
    }

    fn tend_session(&self, port: &Port, now: Timestamp) {
        self.sample_driver(port, now);
        let query = port.proxy().and_then(|mut proxy| proxy.session.poll(now));
        if let Some(query) = query {
            self.send_probe(port, query, now);
        }
    }

    /// What the driver does to the receive rings; of several, one that moves is a sign of life.
    fn sample_driver(&self, port: &Port, now: Timestamp) {
        let mut whole: Option<DriverSample> = None;
        for pair in port.attachment.receiving().iter() {
            let Some(mut slot) = port.attachment.receive(pair) else { return };
            let Some(receive) = slot.split() else { continue };
            let mark = receive.driver_mark();
            let (next_used, no_chain) = (receive.next_used(), receive.free_chains() == 0);
            if let Some(why) = receive.broken() {
                port.attachment.mark_broken(pair * 2, &mut slot, why);
                drop(slot);
                return self.ring_broken(port, why, now);
            }
            let Some(mut proxy) = port.proxy() else { return };
            let pending = proxy.driver_pending(pair, mark, next_used);
            // What is left may be too little for a frame.
            let full = no_chain || proxy.is_holding_for(pair);
            let sample = DriverSample { mark: mark.into(), full, pending };
            whole = Some(whole.map_or(sample, |whole| whole.and(sample)));
        }
        if let (Some(sample), Some(mut proxy)) = (whole, port.proxy()) {
            proxy.session.driver(now, sample);
        }
    }

    fn send_probe(&self, port: &Port, query: Probe, now: Timestamp) {
        let pair = port.attachment.receiving().iter().next();
        let mut slot = pair.and_then(|pair| port.attachment.receive(pair));
        let Some(mut proxy) = port.proxy() else { return };
        let (Some(slot), Some(pair)) = (&mut slot, pair) else { return proxy.session.refused(query) };
        let Some(receive) = slot.split() else { return proxy.session.refused(query) };
        if receive.free_chains() == 0 && receive.broken().is_none() {
            return proxy.session.refused(query);
        }
        let last_number = proxy.last_number();
        let probe = proxy.probe(&self.tables.load(), port.id, query);
        let frame = Gather { vnet: proxy.header(Some(query)), head: &probe, tail: None };
        let written = receive.write_frame(&frame, port.attachment.is_mergeable());
        // Also when nothing was written: malformed buffers go back to a driver that has no others.
        if receive.publish() {
            slot.call();
        }
        if written.is_err() {
            proxy.session.refused(query);
            proxy.take_number_back(last_number);
        }
        drop(proxy);
        match written {
            Ok(()) => {
                port.counters.count_rx(1, probe.len() as u64);
                port.keep(now, Direction::Rx, &probe, None);
            }
            Err(WriteError::Broken(why)) => {
                port.attachment.mark_broken(pair * 2, slot, why);
                self.ring_broken(port, why, now);
            }
            Err(WriteError::Full | WriteError::TooLong) => {}
        }
    }

    /// Sees to it that the worker a service port is at home with is awake when its session needs it.
    pub(super) fn wake_home(&self, port: &Port, now: Timestamp) {
        let deadline = port.proxy().map(|proxy| proxy.deadline(now));
        if let (Some(deadline), Some(home)) = (deadline, self.wakes.of(port.home())) {
            home.wake_before(deadline);
        }
    }
}
