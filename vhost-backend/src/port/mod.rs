//! Ports: one vNIC of one VM each, and what a port does with a frame.
//!
//! ```text
//! tenant:  frame -> classifier -> push Ethernet + NSH, or plain delivery
//! service: frame -> proxy -> take the response, check the path, next hop or strip
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod attachment;
mod classifier;
mod outgoing;
mod proxy;
#[cfg(test)]
mod samples;
mod status;

use std::path::PathBuf;
use std::sync::Arc;

pub use attachment::{Attachment, Link, RingPosition, RingSlot, RingStart};
pub(crate) use classifier::{Basis, classify};
pub(crate) use outgoing::{Outgoing, To};
pub(crate) use proxy::Proxy;
pub use status::ServiceStatus;

use crate::chain::{PortId, SiDecrement};
use crate::device::Mode;
use crate::liveness::{Profile, Timestamp};
use crate::ring::Chain;
use crate::telemetry::{Capture, Counters, Direction};

/// A port as the operator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// Unique on the host.
    pub name: String,
    /// The vhost-user socket.
    pub socket: PathBuf,
    /// Who listens on it.
    pub mode: Mode,
    /// The vNIC's address.
    pub mac: [u8; 6],
    /// Largest frame the driver shall send, without the Ethernet header (`VIRTIO_NET_F_MTU`).
    pub mtu: u16,
    /// Queue pairs.
    pub queue_pairs: u16,
    /// What the VM behind it is.
    pub role: Role,
}

/// What the VM behind a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Its traffic is chained.
    Tenant,
    /// It performs a service.
    Service(ServiceSpec),
}

/// How a service VM is monitored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Timers of its liveness session.
    pub profile: Profile,
    /// Who decrements the service index.
    pub si_decrement: SiDecrement,
}

/// A port as its worker holds it.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) id: PortId,
    pub(crate) attachment: Arc<Attachment>,
    pub(crate) counters: Arc<Counters>,
    /// Present on service ports.
    pub(crate) proxy: Option<Proxy>,
    capture: Option<Capture>,
    /// The attachment's change count when the worker last looked.
    seen_changes: u64,
    link: Link,
}

impl Port {
    pub(crate) fn new(
        id: PortId,
        attachment: Arc<Attachment>,
        counters: Arc<Counters>,
        proxy: Option<Proxy>,
    ) -> Self {
        Self { id, attachment, counters, proxy, capture: None, seen_changes: 0, link: Link::default() }
    }

    /// Copies frames there from now on.
    pub(crate) fn start_capture(&mut self, capture: Capture) {
        self.capture = Some(capture);
    }

    /// Copies a frame, if someone wants it: `head`, then `tail` from its offset on.
    #[inline]
    pub(crate) fn keep(
        &mut self,
        now: Timestamp,
        direction: Direction,
        head: &[u8],
        tail: Option<(Chain<'_>, usize)>,
    ) {
        if self.capture.is_some() {
            self.keep_frame(now, direction, head, tail);
        }
    }

    #[cold]
    fn keep_frame(
        &mut self,
        now: Timestamp,
        direction: Direction,
        head: &[u8],
        tail: Option<(Chain<'_>, usize)>,
    ) {
        let len = head.len() + tail.map_or(0, |(chain, offset)| chain.len().saturating_sub(offset));
        let kept = self.capture.as_ref().is_some_and(|capture| {
            capture.keep(now, direction, len, |buffer| {
                let at = head.len().min(buffer.len());
                let (front, back) = buffer.split_at_mut(at);
                front.copy_from_slice(head.get(..at).unwrap_or_default());
                at + tail.map_or(0, |(chain, offset)| chain.copy_to(offset, back))
            })
        });
        if !kept {
            self.capture = None;
        }
    }

    /// What control threads did to the attachment since the last call, if anything.
    pub(crate) fn link_change(&mut self) -> Option<LinkChange> {
        let changes = self.attachment.changes();
        if changes == self.seen_changes {
            return None;
        }
        self.seen_changes = changes;
        let old = std::mem::replace(&mut self.link, self.attachment.link());
        let new = self.link;
        Some(LinkChange {
            hung_up: new.hang_ups != old.hang_ups,
            stopped: new.stops != old.stops || (old.running && !new.running),
            came_up: new.running && (!old.running || new.stops != old.stops || new.hang_ups != old.hang_ups),
            went_down: old.running
                && (!new.running || new.stops != old.stops || new.hang_ups != old.hang_ups),
        })
    }
}

/// What happened to a link. It may have gone down and come up again between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkChange {
    /// The VMM hung up.
    pub(crate) hung_up: bool,
    /// A ring stopped.
    pub(crate) stopped: bool,
    /// Frames can no longer pass, or could not for a moment.
    pub(crate) went_down: bool,
    /// Frames can pass now, and could not before.
    pub(crate) came_up: bool,
}

/// The address the proxies and classifiers of a host send from: locally administered, unique per host.
#[must_use]
pub fn host_mac(host: u16) -> [u8; 6] {
    let [high, low] = host.to_be_bytes();
    [0x02, b'l', b'p', high, low, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::RegionMap;
    use crate::ring::tests::driver::{Driver, memory};
    use crate::worker::Wake;

    const NOTHING: LinkChange =
        LinkChange { hung_up: false, stopped: false, went_down: false, came_up: false };
    const UP: LinkChange = LinkChange { came_up: true, ..NOTHING };
    const STOPPED: LinkChange = LinkChange { stopped: true, went_down: true, ..NOTHING };
    const BOUNCED: LinkChange = LinkChange { came_up: true, ..STOPPED };
    const HUNG_UP: LinkChange = LinkChange { hung_up: true, ..STOPPED };

    struct Rig {
        port: Port,
        rx: Driver,
        tx: Driver,
    }

    impl Rig {
        fn new() -> Rig {
            let attachment = Arc::new(Attachment::new(1, Arc::new(Wake::new().unwrap())));
            let mem = memory();
            let (rx, tx) = (Driver::new(&mem, 8, 0), Driver::at(&mem, 8, 0, 0x1_0000));
            Rig { port: Port::new(PortId::new(0), attachment, Arc::default(), None), rx, tx }
        }

        fn say(&self, word: &str) {
            let port = &self.port.attachment;
            match word {
                "connect" => {
                    port.connect();
                    port.set_memory(&RegionMap::new(Arc::clone(&self.rx.mem))).unwrap();
                }
                "start rx" => self.start(0),
                "start tx" => self.start(1),
                "stop rx" => _ = port.stop_ring(0),
                "stop tx" => _ = port.stop_ring(1),
                "disable" => port.enable_ring(0, false),
                "enable" => port.enable_ring(0, true),
                "features" => port.set_features(0),
                "hang up" => port.disconnect(),
                other => panic!("{other}"),
            }
        }

        fn start(&self, index: usize) {
            let layout = if index == 0 { self.rx.layout } else { self.tx.layout };
            let start = RingStart {
                layout,
                next_avail: 0,
                next_used: 0,
                event_idx: false,
                kick: None,
                call: None,
                err: None,
                enabled: true,
            };
            self.port.attachment.start_ring(index, start).unwrap();
        }
    }

    /// What the worker makes of what was said between two of its looks.
    #[test]
    fn changes_of_the_link_as_the_worker_sees_them() {
        let mut rig = Rig::new();
        let looks: [(&[&str], Option<LinkChange>); 14] = [
            (&[], None),
            (&["connect", "start rx"], Some(NOTHING)),
            (&["start tx"], Some(UP)),
            (&[], None),
            (&["features"], Some(NOTHING)),
            (&["stop rx"], Some(STOPPED)),
            (&["stop tx"], Some(LinkChange { went_down: false, ..STOPPED })),
            (&["start rx", "start tx"], Some(UP)),
            (&["stop rx", "stop tx", "start rx", "start tx"], Some(BOUNCED)),
            (&["disable"], Some(STOPPED)),
            (&["enable"], Some(UP)),
            (&["disable", "enable"], Some(BOUNCED)),
            (&["hang up"], Some(HUNG_UP)),
            (&["connect", "start rx", "start tx", "hang up"], Some(LinkChange { hung_up: true, ..NOTHING })),
        ];
        for (i, (words, expected)) in looks.into_iter().enumerate() {
            words.iter().for_each(|word| rig.say(word));
            assert_eq!(rig.port.link_change(), expected, "look {i}: {words:?}");
        }
        ["connect", "start rx", "start tx"].iter().for_each(|word| rig.say(word));
        assert_eq!(rig.port.link_change(), Some(UP));
        // A VMM that was killed and came back between two looks.
        ["hang up", "connect", "start rx", "start tx"].iter().for_each(|word| rig.say(word));
        assert_eq!(rig.port.link_change(), Some(LinkChange { hung_up: true, stopped: false, ..BOUNCED }));
    }

    #[test]
    fn hosts_have_different_addresses_which_no_vendor_owns() {
        assert_eq!(host_mac(0x0102), [0x02, b'l', b'p', 1, 2, 0]);
        assert_eq!(host_mac(1)[0] & 3, 2, "locally administered, no group address");
    }
}
