//! A simulated disk for tests: it forgets what was not synced, tears, and fills up.

use super::{Store, StoreError};
use redb::{Database, StorageBackend};
use std::io;
use std::sync::{Arc, Mutex};

/// A disk that keeps what was synced and, of the rest, only what luck leaves: each write since the last sync survives
/// or not by itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Platters>>);

#[derive(Debug, Default)]
struct Platters {
    synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// Writes and syncs until every further one fails.
    room: Option<usize>,
}

#[derive(Debug)]
enum Unsynced {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Platters {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.room {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(room) => {
                *room -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk {
    /// What is on the disk after the power failed.
    pub(crate) fn crash(&self, mut luck: impl FnMut() -> bool) -> Disk {
        let platters = self.0.lock().unwrap();
        let mut left = platters.synced.clone();
        for unsynced in platters.unsynced.iter().filter(|_| luck()) {
            match unsynced {
                Unsynced::Length(length) => left.resize(*length, 0),
                Unsynced::Write(at, data) => {
                    left.resize(left.len().max(at + data.len()), 0);
                    left[*at..at + data.len()].copy_from_slice(data);
                }
            }
        }
        Disk(Arc::new(Mutex::new(Platters { synced: left.clone(), current: left, ..Platters::default() })))
    }

    /// From now on only `room` more writes and syncs succeed; None: all do.
    pub(crate) fn limit(&self, room: Option<usize>) {
        self.0.lock().unwrap().room = room;
    }

    /// The store on this disk.
    pub(crate) fn store(&self) -> Result<Store, StoreError> {
        let disk = self.clone();
        Store::with(
            "disk".to_string(),
            Box::new(move || Database::builder().create_with_backend(disk.clone())),
        )
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        let platters = self.0.lock().unwrap();
        out.copy_from_slice(platters.current.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.spend()?;
        platters.current.resize(len as usize, 0);
        platters.unsynced.push(Unsynced::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.spend()?;
        platters.synced = platters.current.clone();
        platters.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        platters.spend()?;
        let at = offset as usize;
        platters.current[at..at + data.len()].copy_from_slice(data);
        platters.unsynced.push(Unsynced::Write(at, data.to_vec()));
        Ok(())
    }
}
