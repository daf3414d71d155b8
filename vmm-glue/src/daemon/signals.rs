//! The process's signals as a descriptor of the control loop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

use super::Shared;
use crate::config::Config;
use crate::sys::{SignalFd, give_back_memory};

/// SIGTERM, SIGINT and SIGHUP, blocked and readable.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks them for this thread and every thread it starts from now on, so call it first in `main`.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn block() -> io::Result<Self> {
        SignalFd::new(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]).map(Self)
    }
}

/// What the daemon does about them.
#[derive(Debug)]
pub(super) struct Obedience {
    signals: Signals,
    file: PathBuf,
    shared: Arc<Shared>,
}

impl Obedience {
    pub(super) fn new(signals: Signals, file: PathBuf, shared: Arc<Shared>) -> Self {
        Self { signals, file, shared }
    }
}

impl MutEventSubscriber for Obedience {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        while let Some(signal) = self.signals.0.next() {
            if signal == libc::SIGHUP {
                self.shared.reload_from(Config::load(&self.file));
                give_back_memory();
            } else {
                log::info!(signal; "livepathd stops");
                self.shared.stop();
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.signals.0, EventSet::IN)) {
            log::error!(error:%; "signals are not heard");
        }
    }
}
