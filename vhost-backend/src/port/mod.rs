//! Ports: one vNIC of one VM each, or a tap, and what a port does with a frame.
//!
//! ```text
//! tenant, tap:
//!          frame -> classifier -> push Ethernet + NSH, or plain delivery
//! service: frame -> proxy -> take the response, check the path, next hop or strip
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod attachment;
mod bucket;
mod classifier;
mod estate;
mod hold;
mod link;
mod outgoing;
mod passages;
mod paths;
mod proxy;
mod queue;
mod reflection;
mod remains;
mod retain;
mod ringless;
#[cfg(test)]
pub(crate) mod samples;
mod serials;
mod status;
mod unaware;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bucket::Bucket;

pub use attachment::{Attachment, Link, MAX_QUEUE_PAIRS, Pairs, RingPosition, RingSlot, RingStart};
pub(crate) use classifier::{Basis, Seen, carry_out, classify};
pub(crate) use estate::Estate;
pub(crate) use link::{LinkChange, LinkWatch};
pub(crate) use outgoing::{Outgoing, To};
pub(crate) use proxy::Proxy;
pub(crate) use queue::FrameQueue;
pub use ringless::{Leftover, RinglessProxy};
pub use status::ServiceStatus;

use crate::chain::{PortId, SiDecrement};
use crate::device::Mode;
use crate::liveness::{Profile, Timestamp};
use crate::offload::{Receiver, Request, Sender};
use crate::ring::{Chain, VNET_LEN};
use crate::tap::{InterfaceName, Queue, Tap};
use crate::telemetry::{Capture, Counters, Direction, Discard};

/// A port as the operator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// Unique on the host.
    pub name: String,
    /// The vhost-user socket. A tap has none.
    pub socket: PathBuf,
    /// Who listens on it.
    pub mode: Mode,
    /// The vNIC's address. All zero for a tap behind which any station may be.
    pub mac: [u8; 6],
    /// Largest frame the driver shall send, without the Ethernet header (`VIRTIO_NET_F_MTU`).
    pub mtu: u16,
    /// Queue pairs.
    pub queue_pairs: u16,
    /// What is behind it.
    pub role: Role,
}

impl PortSpec {
    /// A tap port with one queue, behind which any station may be.
    #[must_use]
    pub fn tap(name: String, interface: InterfaceName) -> Self {
        Self {
            name,
            socket: PathBuf::new(),
            mode: Mode::Server,
            mac: [0; 6],
            mtu: 1500,
            queue_pairs: 1,
            role: Role::Tap(interface),
        }
    }
}

/// What is behind a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Its traffic is chained.
    Tenant,
    /// It performs a service.
    Service(ServiceSpec),
    /// The host's own stack, by this interface.
    Tap(InterfaceName),
}

/// How a service VM is monitored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Timers of its liveness session.
    pub profile: Profile,
    /// Who decrements the service index.
    pub si_decrement: SiDecrement,
    /// For how long, once it has recovered, its share of new flows grows. Zero: it is given its whole share at once.
    pub slow_start: Duration,
    /// In what form it sees frames whose sender left something to the device.
    pub offload: ServiceOffload,
    /// Frames kept on its behalf, in bytes.
    pub keeps: Keeps,
    /// How it is asked.
    pub carrier: Carrier,
}

/// How much is kept for a service VM, in bytes of memory; each frame takes 4 bytes more than it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeps {
    /// Of frames that wait while its ring is full.
    pub hold: usize,
    /// Of frames it was handed and has not answered.
    pub retain: usize,
}

impl Default for Keeps {
    /// 8 MiB wait, nothing is retained.
    fn default() -> Self {
        Self { hold: 8 << 20, retain: 0 }
    }
}

/// How queries travel to a service VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carrier {
    /// In the NSH context.
    #[default]
    Nsh,
    /// In the virtio-net header, see [`nsh::VnetQuery`]; frames have an NSH all the same.
    VnetHeader,
    /// Not at all: the service knows nothing of NSH and gets plain frames. What is known of it is its driver's work, and
    /// whether frames come back.
    None,
}

/// How frames with an offload request reach a service VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceOffload {
    /// Cut into segments, all checksums complete.
    #[default]
    Software,
    /// As they are, up to 64 KiB, with the request in the OFFLOAD context.
    Metadata,
}

/// A port as the workers of its host share it.
///
/// Locks are taken in this order: a transmit ring, a receive ring, the proxy, the link; of each kind one at a time. The
/// locks of capture and answers are held for no other.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) id: PortId,
    /// Of a tap it has no rings.
    pub(crate) attachment: Arc<Attachment>,
    /// Present on tap ports.
    pub(crate) tap: Option<Arc<Tap>>,
    pub(crate) counters: Counters,
    /// Largest frame it is sent, without the Ethernet header.
    pub(crate) mtu: u16,
    /// Answers to what does not fit, which it may still be sent.
    answers: Mutex<Bucket>,
    /// Present on service ports.
    proxy: Option<Mutex<Proxy>>,
    /// The worker that follows the link and serves the session's timers.
    home: AtomicUsize,
    link: Mutex<LinkWatch>,
    captured: AtomicBool,
    capture: Mutex<Option<Capture>>,
}

impl Port {
    pub(crate) fn new(
        id: PortId,
        attachment: Arc<Attachment>,
        tap: Option<Arc<Tap>>,
        mtu: u16,
        proxy: Option<Proxy>,
    ) -> Self {
        Self {
            id,
            attachment,
            tap,
            counters: Counters::default(),
            mtu,
            answers: Mutex::default(),
            proxy: proxy.map(Mutex::new),
            home: AtomicUsize::new(0),
            link: Mutex::default(),
            captured: AtomicBool::new(false),
            capture: Mutex::default(),
        }
    }

    /// How many queue pairs it has, running or not.
    pub(crate) fn queue_pairs(&self) -> usize {
        self.tap.as_ref().map_or_else(|| self.attachment.queue_pairs(), |tap| tap.queues())
    }

    /// Of these queues of a tap, those that are open.
    pub(crate) fn open_queues<'a>(&'a self, numbers: &'a [usize]) -> impl Iterator<Item = Queue<'a>> {
        let tap = self.tap.iter();
        tap.flat_map(|tap| numbers.iter().filter_map(|number| tap.queue(*number)))
    }

    /// The proxy of a service port.
    #[inline]
    pub(crate) fn proxy(&self) -> Option<MutexGuard<'_, Proxy>> {
        self.proxy.as_ref().map(lock)
    }

    /// What the driver asks for with a frame of `len` bytes that begins with `prefix`.
    ///
    /// # Errors
    /// It may not ask for that.
    #[inline]
    pub(crate) fn request(
        &self,
        header: &[u8; VNET_LEN],
        prefix: &[u8],
        len: usize,
    ) -> Result<Option<Request>, Discard> {
        if !Request::is_in(header) {
            return Ok(None);
        }
        let sender = Sender::new(self.attachment.features());
        Request::parse(header, sender, prefix, len).map_err(|_| Discard::VnetHeader)
    }

    /// What the driver takes as it is.
    pub(crate) fn receiver(&self) -> Receiver {
        Receiver::new(self.attachment.features())
    }

    /// Whether the port may be told once more that a frame of its did not fit.
    pub(crate) fn may_be_answered(&self, now: Timestamp) -> bool {
        !self.is_service() && lock(&self.answers).take(now)
    }

    pub(crate) fn is_service(&self) -> bool {
        self.proxy.is_some()
    }

    pub(crate) fn is_tenant(&self) -> bool {
        self.proxy.is_none() && self.tap.is_none()
    }

    /// Number of the worker the port is at home with.
    #[inline]
    pub(crate) fn home(&self) -> usize {
        self.home.load(Ordering::Relaxed)
    }

    pub(crate) fn set_home(&self, worker: usize) {
        self.home.store(worker, Ordering::Relaxed);
    }

    /// What became of the link since the last call.
    pub(crate) fn link_change(&self) -> LinkChange {
        lock(&self.link).look(&self.attachment)
    }

    /// Copies frames there from now on.
    pub(crate) fn start_capture(&self, capture: Capture) {
        *lock(&self.capture) = Some(capture);
        self.captured.store(true, Ordering::Release);
    }

    /// Whether someone wants copies of its frames.
    #[inline]
    pub(crate) fn is_captured(&self) -> bool {
        self.captured.load(Ordering::Relaxed)
    }

    /// Copies a frame, if someone wants it: `head`, then `tail` from its offset on.
    #[inline]
    pub(crate) fn keep(
        &self,
        now: Timestamp,
        direction: Direction,
        head: &[u8],
        tail: Option<&(Chain<'_>, usize)>,
    ) {
        if self.is_captured() {
            self.keep_frame(now, direction, head, tail);
        }
    }

    #[cold]
    fn keep_frame(
        &self,
        now: Timestamp,
        direction: Direction,
        head: &[u8],
        tail: Option<&(Chain<'_>, usize)>,
    ) {
        let len = head.len() + tail.map_or(0, |(chain, offset)| chain.len().saturating_sub(*offset));
        let mut capture = lock(&self.capture);
        let kept = capture.as_ref().is_some_and(|capture| {
            capture.keep(now, direction, len, |buffer| {
                let at = head.len().min(buffer.len());
                let (front, back) = buffer.split_at_mut(at);
                front.copy_from_slice(head.get(..at).unwrap_or_default());
                at + tail.map_or(0, |(chain, offset)| chain.copy_to(*offset, back))
            })
        });
        if !kept {
            *capture = None;
            self.captured.store(false, Ordering::Release);
        }
    }
}

/// A poisoned lock only says that another worker panicked; what it guards is checked at every use.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn hosts_have_different_addresses_which_no_vendor_owns() {
        assert_eq!(host_mac(0x0102), [0x02, b'l', b'p', 1, 2, 0]);
        assert_eq!(host_mac(1)[0] & 3, 2, "locally administered, no group address");
    }
}
