//! The vhost-user-net device of a port: from the VMM's socket to the port's attachment.
//!
//! ```text
//!            ┌───────────────────────── Session (a thread for each port) ─────────────────────────┐
//!  VMM ──────┤ endpoint ──► guard ──► private socket ──► vhost crate ──► vring hook, net device   ├──► Attachment
//!  (socket)  │ accept or    forward, answer, refuse      (its thread)    start, stop, memory      │    (the port's worker)
//!            └────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A connection gets a new `VhostUserDaemon`, a new guest memory object and no worker of the crate; when it ends, nothing
//! of it is left and the next may come. The data path is not here: the worker that owns the port touches the rings.

#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]
#![forbid(unsafe_code)]

mod config_space;
mod datapath;
mod endpoint;
pub mod features;
mod guard;
mod net;
mod private;
mod session;
mod vring;

pub use config_space::ConfigSpace;
pub use datapath::Datapath;
pub(crate) use endpoint::Endpoint;
pub use features::Offloads;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub use guard::fuzz;
pub use session::Session;

use std::path::PathBuf;

/// Most queue pairs of a port.
pub const MAX_QUEUE_PAIRS: u16 = crate::port::MAX_QUEUE_PAIRS as u16;

/// Which side creates the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// We listen, the VMM connects (QEMU's default). While one VMM is connected a second one waits, unserved, until the
    /// first has gone.
    Server,
    /// The VMM listens, we connect and keep trying.
    Client,
}

/// What a port's device is.
#[derive(Clone, Debug)]
pub struct DeviceSpec {
    /// Name of the port, for the log and the threads.
    pub name: String,
    /// Path of the socket, below 108 bytes. In server mode the file is ours: made with mode 0660, removed at the end.
    pub socket: PathBuf,
    /// Which side creates it.
    pub mode: Mode,
    /// The guest's address, in the configuration space. QEMU and Cloud Hypervisor show the guest the one they were
    /// started with.
    pub mac: [u8; 6],
    /// Largest packet without the Ethernet header, bytes, at least 68.
    pub mtu: u16,
    /// Pairs of rings, 1 to [`MAX_QUEUE_PAIRS`].
    pub queue_pairs: u16,
    /// Largest ring a driver may use, a power of two up to [`MAX_SIZE`](crate::ring::MAX_SIZE).
    pub max_queue_size: u16,
    /// Offloads it offers.
    pub offloads: Offloads,
}

impl DeviceSpec {
    /// Virtio features it offers, as the bit mask of GET_FEATURES.
    pub(crate) fn features(&self) -> u64 {
        features::virtio(self.queue_pairs) | self.offloads.features()
    }
}
