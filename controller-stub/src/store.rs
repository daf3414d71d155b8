//! Where the controller survives: one `redb` file.
//!
//! ```text
//!  meta      "format", "table", "room"   → format number; plan and generation; zeros that show that there is room
//!  chains    name                        → Chain, or nothing for one that is deleted
//!  hosts     id                          → Host
//!  services  name                        → Service, with the id of its last report
//!  events    id                          → Event, the newest MAX_EVENTS
//! ```
//!
//! [`Store::commit`] writes all of an order's changes in one transaction and returns when it is durable: after a crash
//! the file holds all of it or nothing. Values are JSON of the API's types.

use crate::api::{Chain, Event, HostId, Name, Table};
use crate::controller::{Changes, Controller, Host};
use crate::intent::Intent;
use crate::service::Service;
use file::WrittenFile;
use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageError, TableDefinition, WriteTransaction,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, fs, io};

/// How many events are kept.
pub const MAX_EVENTS: u64 = 100_000;

/// The layout above. A file of another format is not touched.
const FORMAT: &[u8] = b"1";

/// The key of the record that shows that there is room.
const ROOM: &str = "room";

/// Bytes that the file hands out at once.
const PAGE: usize = 4096;

/// Bytes of the file kept in memory.
const CACHE: usize = 16 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const CHAINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("chains");
const HOSTS: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("hosts");
const SERVICES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("services");
const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("cannot open the store {path}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Box<DatabaseError>,
    },
    /// Another process has the file open.
    #[error("the store {0} is in use by another process")]
    InUse(String),
    /// Reading or writing failed. After a failed commit the file holds all of it or nothing of it.
    #[error("the store {path} cannot be used")]
    Storage {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record is not what this version writes.
    #[error("the store {path} holds a record that cannot be understood: {record}")]
    Record {
        /// The file.
        path: String,
        /// Which one.
        record: String,
        /// Why.
        #[source]
        source: Box<serde_json::Error>,
    },
    /// The file was written in another format.
    #[error("the store {path} has format {found}, this version knows {}", String::from_utf8_lossy(FORMAT))]
    Format {
        /// The file.
        path: String,
        /// Its format.
        found: String,
    },
}

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// An open store. Reading and one writer at a time.
pub struct Store {
    path: String,
    opener: Opener,
    /// None after a failed commit, until [`Store::reopen`].
    database: Mutex<Option<Arc<Database>>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// The store in this file, which is made if it is not there.
    ///
    /// # Errors
    /// The file cannot be opened, is in use, or is of another format.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let shown = path.display().to_string();
        let path = path.to_path_buf();
        if !path.exists() {
            create(&path, &shown)?;
        }
        // An empty file that is there already becomes a store as well.
        Store::with(shown, Box::new(move || open(&path)))
    }

    fn with(path: String, opener: Opener) -> Result<Store, StoreError> {
        let store = Store { path, opener, database: Mutex::new(None) };
        store.reopen()?;
        Ok(store)
    }

    /// The file, as it was named.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Closes the file, so that another one may open it; nothing can be read or written until [`Store::reopen`].
    pub fn close(&self) {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Opens the file anew after a failure.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        *database = None;
        let opened = (self.opener)().map_err(|source| match source {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(self.path.clone()),
            source => StoreError::Open { path: self.path.clone(), source: Box::new(source) },
        })?;
        self.prepare(&opened)?;
        *database = Some(Arc::new(opened));
        Ok(())
    }

    /// What was stored; a new controller from a new store.
    ///
    /// # Errors
    /// The file cannot be read, or holds what this version does not understand.
    pub fn load(&self) -> Result<Controller, StoreError> {
        let read = self.database()?.begin_read().map_err(|e| self.storage(e))?;
        let mut controller = Controller::default();

        let meta = read.open_table(META).map_err(|e| self.storage(e))?;
        if let Some(bytes) = meta.get("table").map_err(|e| self.storage(e))? {
            let table: Table = self.understand(|| "table".to_string(), bytes.value())?;
            controller.generation = table.generation;
            controller.plan = table.plan;
        }

        let (mut chains, mut deleted) = (BTreeMap::new(), BTreeSet::new());
        for entry in
            read.open_table(CHAINS).map_err(|e| self.storage(e))?.iter().map_err(|e| self.storage(e))?
        {
            let (key, value) = entry.map_err(|e| self.storage(e))?;
            let name = self.name(key.value())?;
            match self.understand::<Option<Chain>>(|| format!("chain {name}"), value.value())? {
                Some(chain) => _ = chains.insert(name, chain),
                None => _ = deleted.insert(name),
            }
        }
        controller.intent = Intent::from_stored(chains);
        controller.deleted = deleted;

        for entry in
            read.open_table(HOSTS).map_err(|e| self.storage(e))?.iter().map_err(|e| self.storage(e))?
        {
            let (key, value) = entry.map_err(|e| self.storage(e))?;
            let what = || format!("host {}", key.value());
            let id = HostId::new(key.value().into())
                .map_err(|e| self.record(what(), serde::de::Error::custom(e)))?;
            controller.hosts.insert(id, self.understand::<Host>(what, value.value())?);
        }

        for entry in
            read.open_table(SERVICES).map_err(|e| self.storage(e))?.iter().map_err(|e| self.storage(e))?
        {
            let (key, value) = entry.map_err(|e| self.storage(e))?;
            let name = self.name(key.value())?;
            let service: Service = self.understand(|| format!("service {name}"), value.value())?;
            controller.services.insert(name, service);
        }

        let events = read.open_table(EVENTS).map_err(|e| self.storage(e))?;
        let last = events.last().map_err(|e| self.storage(e))?;
        controller.newest_event = last.map_or(0, |(id, _)| id.value());
        Ok(controller)
    }

    /// Stores the changes of the controller. When it returns they are durable.
    ///
    /// # Errors
    /// Nothing can be written at the moment. Whether the changes are in the file is not known: [`Store::reopen`] and
    /// [`Store::load`] tell.
    pub fn commit(&self, controller: &Controller, changes: &Changes) -> Result<(), StoreError> {
        let stored = self.transact(|write| {
            write_records(write, controller, changes)?;
            write_events(write, &changes.events)
        });
        stored.map_err(|source| self.failed(source))
    }

    /// Shows that there is room for this many bytes: stores a record of that length and takes it out again.
    ///
    /// # Errors
    /// Nothing can be written at the moment; [`Store::reopen`] before the next try.
    pub fn prove_room(&self, bytes: usize) -> Result<(), StoreError> {
        // Of some length, so that it does not fit into a page that is there anyway.
        let record = vec![0; bytes.max(PAGE)];
        let proven = [Some(record), None].into_iter().try_for_each(|record| {
            self.transact(|write| {
                let mut meta = write.open_table(META)?;
                match &record {
                    Some(record) => _ = meta.insert(ROOM, record.as_slice())?,
                    None => _ = meta.remove(ROOM)?,
                }
                Ok(())
            })
        });
        proven.map_err(|source| self.failed(source))
    }

    /// The oldest `limit` events with an id above `since`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn events(&self, since: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let Some(first) = since.checked_add(1) else { return Ok(Vec::new()) };
        let read = self.database()?.begin_read().map_err(|e| self.storage(e))?;
        let table = read.open_table(EVENTS).map_err(|e| self.storage(e))?;
        let mut events = Vec::new();
        for entry in table.range(first..).map_err(|e| self.storage(e))?.take(limit) {
            let (id, value) = entry.map_err(|e| self.storage(e))?;
            events.push(self.understand(|| format!("event {}", id.value()), value.value())?);
        }
        Ok(events)
    }

    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        database.clone().ok_or_else(|| self.storage(StorageError::PreviousIo))
    }

    /// Makes the tables, so that reading finds them, and checks the format.
    fn prepare(&self, database: &Database) -> Result<(), StoreError> {
        let write = database.begin_write().map_err(|e| self.storage(e))?;
        {
            let mut meta = write.open_table(META).map_err(|e| self.storage(e))?;
            let found = meta.get("format").map_err(|e| self.storage(e))?.map(|bytes| bytes.value().to_vec());
            match found {
                Some(format) if format == FORMAT => return Ok(()),
                Some(format) => {
                    let found = String::from_utf8_lossy(&format).into_owned();
                    return Err(StoreError::Format { path: self.path.clone(), found });
                }
                None => meta.insert("format", FORMAT).map_err(|e| self.storage(e))?,
            };
            write.open_table(CHAINS).map_err(|e| self.storage(e))?;
            write.open_table(HOSTS).map_err(|e| self.storage(e))?;
            write.open_table(SERVICES).map_err(|e| self.storage(e))?;
            write.open_table(EVENTS).map_err(|e| self.storage(e))?;
        }
        write.commit().map_err(|e| self.storage(e))
    }

    /// One transaction, which is durable when this returns.
    fn transact(
        &self,
        records: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let database = database.ok_or(redb::Error::PreviousIo)?;
        let mut write = database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        records(&write)?;
        write.commit()?;
        Ok(())
    }

    /// A transaction failed: nothing is read or written until the file was opened anew.
    fn failed(&self, source: redb::Error) -> StoreError {
        self.close();
        self.storage(source)
    }

    fn storage(&self, source: impl Into<redb::Error>) -> StoreError {
        StoreError::Storage { path: self.path.clone(), source: Box::new(source.into()) }
    }

    fn record(&self, record: String, source: serde_json::Error) -> StoreError {
        StoreError::Record { path: self.path.clone(), record, source: Box::new(source) }
    }

    fn understand<T: DeserializeOwned>(
        &self,
        what: impl Fn() -> String,
        bytes: &[u8],
    ) -> Result<T, StoreError> {
        serde_json::from_slice(bytes).map_err(|source| self.record(what(), source))
    }

    fn name(&self, text: &str) -> Result<Name, StoreError> {
        Name::new(text).map_err(|e| self.record(format!("name {text:?}"), serde::de::Error::custom(e)))
    }
}

/// How many bytes the records of these changes have.
pub fn size(controller: &Controller, changes: &Changes) -> usize {
    let chains = changes.chains.iter().map(|name| length(&controller.intent.chains().get(name)));
    let hosts = changes.hosts.iter().map(|id| length(&controller.hosts.get(id)));
    let services = changes.services.iter().map(|name| length(&controller.services.get(name)));
    let table = if changes.table { length(&controller.table()) } else { 0 };
    chains.chain(hosts).chain(services).chain(changes.events.iter().map(length)).sum::<usize>() + table
}

fn length<T: Serialize>(value: &T) -> usize {
    json(value).map_or(0, |bytes| bytes.len())
}

/// Opens the file as a database; an empty one, or one that is not there yet, becomes one.
fn open(path: &Path) -> Result<Database, DatabaseError> {
    let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    Database::builder().set_cache_size(CACHE).create_with_backend(WrittenFile::new(file)?)
}

/// Makes a new store under another name and gives it its own once it is whole: a start that is cut short leaves no
/// file that cannot be opened. A store that another process made meanwhile stays.
fn create(path: &Path, shown: &str) -> Result<(), StoreError> {
    let unborn = unborn(path);
    let failed = |source: io::Error| StoreError::Open {
        path: shown.to_string(),
        source: Box::new(StorageError::from(source).into()),
    };
    match fs::remove_file(&unborn) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = unborn.clone();
    drop(Store::with(shown.to_string(), Box::new(move || open(&file)))?);
    match renameat_with(CWD, &unborn, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::EXIST) => return fs::remove_file(&unborn).map_err(failed),
        Err(error) => return Err(failed(error.into())),
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// The name of a store that is not whole yet; each process has its own.
fn unborn(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    name.into()
}

fn write_records(
    write: &WriteTransaction,
    controller: &Controller,
    changes: &Changes,
) -> Result<(), redb::Error> {
    let mut chains = write.open_table(CHAINS)?;
    for name in &changes.chains {
        chains.insert(name.as_str(), json(&controller.intent.chains().get(name))?.as_slice())?;
    }
    let mut hosts = write.open_table(HOSTS)?;
    for id in &changes.hosts {
        match controller.hosts.get(id) {
            Some(host) => hosts.insert(id.get(), json(host)?.as_slice())?,
            None => hosts.remove(id.get())?,
        };
    }
    let mut services = write.open_table(SERVICES)?;
    for name in &changes.services {
        match controller.services.get(name) {
            Some(service) => services.insert(name.as_str(), json(service)?.as_slice())?,
            None => services.remove(name.as_str())?,
        };
    }
    if changes.table {
        write.open_table(META)?.insert("table", json(&controller.table())?.as_slice())?;
    }
    Ok(())
}

fn write_events(write: &WriteTransaction, new: &[Event]) -> Result<(), redb::Error> {
    let mut events = write.open_table(EVENTS)?;
    for event in new {
        events.insert(event.id, json(event)?.as_slice())?;
    }
    while events.len()? > MAX_EVENTS {
        events.pop_first()?;
    }
    Ok(())
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|error| redb::Error::Io(error.into()))
}

mod file;

#[cfg(test)]
pub(crate) mod disk;
#[cfg(test)]
mod tests;
