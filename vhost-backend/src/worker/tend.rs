//! What a worker does besides frames: follows the links, feeds the liveness sessions, serves their timers and
//! carries out what they decide.

use std::sync::Arc;
use std::time::Duration;

use super::{TEND, Worker};
use crate::liveness::{DriverSample, Timestamp};
use crate::port::{Port, Proxy};
use crate::ring::{Gather, VNET_LEN, WriteError};
use crate::telemetry::{Direction, EventKind};

impl Worker {
    /// Takes up what control threads changed on the attachments.
    pub(super) fn follow_links(&mut self, now: Timestamp) {
        for index in 0..self.ports.len() {
            let Some(port) = self.ports.get_mut(index) else { break };
            let Some(change) = port.link_change() else { continue };
            let pairs = port.attachment.queue_pairs();
            let kicks = (0..pairs).filter_map(|pair| port.attachment.transmit_kick(pair)).collect();
            self.sleeper.watch(index, kicks);
            if let Some(proxy) = port.proxy.as_mut() {
                proxy.follow(change, now);
            }
            if change.went_down {
                self.events.send(now, EventKind::PortDown(port.id));
            }
            if change.came_up {
                self.events.send(now, EventKind::PortUp(port.id));
            }
            self.announce(index, now);
        }
    }

    /// Driver evidence, timers and probes of every session.
    pub(super) fn tend(&mut self, now: Timestamp) {
        self.tend_at = now + TEND;
        for index in 0..self.ports.len() {
            self.tend_session(index, now);
            self.announce(index, now);
        }
    }

    fn tend_session(&mut self, index: usize, now: Timestamp) {
        let Self { ports, tables, .. } = self;
        let Some(port) = ports.get_mut(index) else { return };
        let Some(proxy) = port.proxy.as_mut() else { return };
        let attachment = Arc::clone(&port.attachment);
        let Some(mut slot) = attachment.receive(0) else { return };
        if let Some(receive) = slot.split() {
            let mark = receive.driver_mark();
            let pending = proxy.driver_pending(mark, receive.next_used());
            let sample = DriverSample { mark: mark.into(), full: receive.free_chains() == 0, pending };
            proxy.session.driver(now, sample);
            if let Some(why) = receive.broken() {
                attachment.mark_broken(0, &mut slot, why);
                drop(slot);
                return self.ring_broken(index, why, now);
            }
        }
        let Some(query) = proxy.session.poll(now) else { return };
        let probe = proxy.probe(&tables.load(), port.id, query);
        let frame = Gather { vnet: [0; VNET_LEN], head: &probe, tail: None };
        let Some(receive) = slot.split() else { return proxy.session.refused(query) };
        let written = receive.write_frame(&frame, attachment.is_mergeable());
        // Also when nothing was written: malformed buffers go back to a driver that has no others.
        if receive.publish() {
            slot.call();
        }
        match written {
            Ok(()) => {
                port.counters.count_rx(1, probe.len() as u64);
                port.keep(now, Direction::Rx, &probe, None);
            }
            Err(WriteError::Broken(why)) => {
                proxy.session.refused(query);
                attachment.mark_broken(0, &mut slot, why);
                drop(slot);
                self.ring_broken(index, why, now);
            }
            Err(WriteError::Full | WriteError::TooLong) => proxy.session.refused(query),
        }
    }

    /// Carries out what a session decided: first the tables of this host, so that no further frame goes to a
    /// dead service VM, then the word to the control loop.
    pub(super) fn announce(&mut self, index: usize, now: Timestamp) {
        let Self { ports, tables, events, .. } = self;
        let Some(Port { id, proxy: Some(proxy), .. }) = ports.get_mut(index) else { return };
        while let Some(transition) = proxy.session.transition() {
            if transition.from.usable() != transition.to.usable() {
                tables.set_usable(*id, transition.to.usable());
            }
            proxy.publish(now);
            events.send(now, EventKind::Service(*id, transition));
        }
        proxy.publish_if_old(now);
    }

    /// How long the worker may sleep.
    pub(super) fn until_deadline(&self, now: Timestamp) -> Duration {
        let sessions = self.ports.iter().filter_map(|port| port.proxy.as_ref());
        let deadline = sessions.map(Proxy::deadline).min().unwrap_or(Timestamp::NEVER);
        deadline.saturating_since(now).min(super::DOZE)
    }
}
