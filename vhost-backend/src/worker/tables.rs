//! The snapshot in force, and how it is replaced.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};

use crate::chain::{Generation, PortId, Snapshot};

/// The tables of the host. Workers load them once a batch; whoever changes them swaps the whole snapshot.
#[derive(Debug)]
pub struct Tables {
    current: ArcSwap<Snapshot>,
    /// Taken by writers, so that none works on a snapshot another has replaced.
    writing: Mutex<()>,
}

impl Tables {
    /// Tables that begin with `snapshot`.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(snapshot), writing: Mutex::new(()) }
    }

    /// The snapshot in force, for the length of a batch.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The snapshot in force, to keep.
    #[must_use]
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// A service takes tenant packets from now on, or does not.
    pub fn set_usable(&self, service: PortId, usable: bool) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.current.load().with_service(service, usable);
        self.current.store(Arc::new(snapshot));
    }

    /// Puts what `change` makes of the present snapshot in its place. From the return on no packet is steered by
    /// the old one, except those of a batch that is being decided.
    ///
    /// # Errors
    /// What `change` gives; the present snapshot stays.
    pub fn update<E>(&self, change: impl FnOnce(&Snapshot) -> Result<Snapshot, E>) -> Result<Generation, E> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = change(&self.current.load())?;
        let generation = snapshot.generation();
        self.current.store(Arc::new(snapshot));
        Ok(generation)
    }
}
