//! What can go wrong between a test VM and its backend.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a test VM could not be made, attached or operated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing accepted the connection in time.
    #[error("no backend listens on {path} after {waited:?}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// How long it was tried.
        waited: Duration,
        /// The last failure.
        #[source]
        source: io::Error,
    },
    /// The socket failed.
    #[error("vhost-user socket: {step}")]
    Socket {
        /// What was being done.
        step: &'static str,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// The backend refused a request, answered wrongly or hung up.
    #[error("vhost-user request {step} failed")]
    Request {
        /// The request.
        step: &'static str,
        /// The failure.
        #[source]
        source: vhost::Error,
    },
    /// The backend did not answer in time; the connection has been closed.
    #[error("the backend was silent for {waited:?}")]
    Silent {
        /// How long it was waited for.
        waited: Duration,
        /// What was waited for.
        #[source]
        source: Box<Error>,
    },
    /// The backend answered a raw request with something else.
    #[error("vhost-user request {step} was answered with {got}")]
    Reply {
        /// The request.
        step: &'static str,
        /// What came.
        got: String,
    },
    /// The options ask for features the backend does not offer.
    #[error("the backend offers features {offered:#x}, which lack {missing:#x}")]
    Features {
        /// What GET_FEATURES said.
        offered: u64,
        /// What the options name and the backend does not offer.
        missing: u64,
    },
    /// The backend has too few rings.
    #[error("{wanted} queue pairs asked for, the backend has {offered} rings")]
    QueuePairs {
        /// Pairs in the options.
        wanted: usize,
        /// Rings the backend reports.
        offered: u64,
    },
    /// An option has a value that makes no sense.
    #[error("option {name}: {why}")]
    Option {
        /// Field of [`crate::Options`].
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Guest memory could not be made.
    #[error("guest memory of {len} bytes")]
    Memory {
        /// Its size.
        len: usize,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// The rings and buffers do not fit.
    #[error("guest memory has {have} bytes, {need} are needed")]
    MemoryTooSmall {
        /// Its size.
        have: usize,
        /// What would be enough so far.
        need: usize,
    },
    /// An eventfd could not be made.
    #[error("eventfd")]
    EventFd(#[source] io::Error),
    /// The VM has no connection: it was killed or never attached.
    #[error("the VM is not attached")]
    Detached,
}
