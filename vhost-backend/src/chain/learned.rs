//! What the workers of a host learn from packets and share: flows and addresses.
//!
//! The two directions of a flow may be seen by two workers and have to find one record. So the flow table is cut into
//! shards by the flow's hash, each behind a lock that is held from one packet to the next as long as they fall into one
//! shard: a host with one worker has one shard and takes the lock once a batch.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::decide::{Between, Inner};
use super::{Counts, FlowTable, MacTable, PortId, Slot, Snapshot};
use crate::frame::{FlowHash, FlowKey, Mac};
use crate::liveness::Timestamp;

/// A flow not used for this long begins anew.
const FLOW_IDLE: Duration = Duration::from_secs(300);
/// A learned address not heard for this long is forgotten.
const MAC_AGE: Duration = Duration::from_secs(300);
/// Shards per worker, when there are several: two workers rarely want one at a time.
const SHARDS_PER_WORKER: usize = 16;

/// Flows and addresses, shared by all workers of a host.
#[derive(Debug)]
pub struct Learned {
    shards: Box<[Mutex<FlowTable>]>,
    seed: u64,
    macs: Mutex<MacTable>,
}

impl Learned {
    /// Room for `flows` flows and the addresses behind `ports` ports (one more than the greatest number). `seed` is
    /// secret from guests, see [`FlowKey::hash`]. All memory is taken here.
    #[must_use]
    pub fn new(flows: usize, ports: usize, workers: usize, seed: u64) -> Learned {
        let count = if workers > 1 { (workers * SHARDS_PER_WORKER).next_power_of_two() } else { 1 };
        let shard = || Mutex::new(FlowTable::new(flows.div_ceil(count), FLOW_IDLE));
        Learned {
            shards: std::iter::repeat_with(shard).take(count).collect(),
            seed,
            macs: Mutex::new(mac_table(ports, seed)),
        }
    }

    /// Makes room for the addresses behind `ports` ports. What was learned stays.
    pub(crate) fn reserve(&self, ports: usize) {
        let known = lock(&self.macs).ports();
        if ports <= known {
            return;
        }
        // Doubled, so that it is done rarely; and made before the lock is taken, for which workers wait.
        let mut larger = mac_table(ports.max(known.saturating_mul(2)), self.seed);
        let mut macs = lock(&self.macs);
        larger.take_over(&mut macs);
        let smaller = std::mem::replace(&mut *macs, larger);
        drop(macs);
        drop(smaller);
    }

    /// Forgets the addresses that a port taught: it is gone.
    pub(crate) fn forget(&self, port: PortId) {
        lock(&self.macs).forget(port);
    }

    /// The hash under which a flow is known.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        key.hash(self.seed)
    }

    /// Looks at the flows among which one of this hash is. It holds a lock meanwhile.
    pub(super) fn look<T>(&self, hash: FlowHash, look: impl FnOnce(&FlowTable) -> Option<T>) -> Option<T> {
        let shard = self.shard(hash);
        look(&lock(self.shards.get(shard)?))
    }

    /// The shard of a hash, by its low bits: a table's buckets and tags are chosen by higher ones.
    #[inline]
    fn shard(&self, hash: FlowHash) -> usize {
        hash.get() as usize & self.shards.len().wrapping_sub(1)
    }

    /// What one worker needs to decide the packets of a batch. It holds a lock: not to be kept while waiting for another.
    #[must_use]
    pub fn steering<'a>(&'a self, counts: &'a mut Counts) -> Steering<'a> {
        Steering { learned: self, held: None, between: None, inner: None, counts }
    }
}

/// The mutable side of every decision: what was learned, and the counts of one worker.
pub struct Steering<'a> {
    learned: &'a Learned,
    /// The shard used last.
    held: Option<(usize, MutexGuard<'a, FlowTable>)>,
    /// The stations between which the last frame ran, if that follows from the snapshot alone, and where it went.
    pub(super) between: Option<(Between, PortId)>,
    /// The same of the last frame that left its path.
    pub(super) inner: Option<(Inner, PortId)>,
    /// What was counted.
    pub counts: &'a mut Counts,
}

impl Steering<'_> {
    /// The hash under which a flow is known.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        self.learned.hash(key)
    }

    /// The flows among which one of this hash is.
    #[inline(always)]
    pub(super) fn flows(&mut self, hash: FlowHash) -> Option<&mut FlowTable> {
        let shard = self.learned.shard(hash);
        if self.held.as_ref().is_none_or(|(held, _)| *held != shard) {
            self.hold(shard);
        }
        self.held.as_mut().map(|(_, table)| &mut **table)
    }

    #[inline(never)]
    fn hold(&mut self, shard: usize) {
        // Never two at a time.
        self.held = None;
        self.held = self.learned.shards.get(shard).map(|table| (shard, lock(table)));
    }

    /// Asks the cache for what a look-up of the flow will read first.
    #[inline]
    pub fn expect(&mut self, hash: FlowHash) {
        if let Some(flows) = self.flows(hash) {
            flows.expect_buckets(hash);
        }
    }

    /// Asks the cache for what it will read then, and gives where that is. Between the two some time should pass, and some
    /// before the look-up.
    #[inline]
    pub fn expect_record(&mut self, hash: FlowHash) -> Option<Slot> {
        self.flows(hash)?.expect_record(hash)
    }

    /// Asks the cache for the path that the record names, if a packet from this port needs to have it looked at.
    #[inline]
    pub fn expect_path(&mut self, snapshot: &Snapshot, hash: FlowHash, from: PortId, record: Slot) {
        let version = snapshot.version();
        if let Some(path) = self.flows(hash).and_then(|flows| flows.needed_path(record, from, version)) {
            snapshot.tables.paths.prefetch_record(path);
        }
    }

    /// A frame from `mac` arrived at `port`, see [`MacTable::learn`].
    pub(super) fn learn(&mut self, mac: Mac, port: PortId, may_move: bool, now: Timestamp) {
        lock(&self.learned.macs).learn(mac, port, may_move, now);
    }

    /// The port where this address was last heard.
    pub(super) fn heard(&self, mac: Mac, now: Timestamp) -> Option<PortId> {
        lock(&self.learned.macs).find(mac, now)
    }
}

impl fmt::Debug for Steering<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("counts", &self.counts).finish_non_exhaustive()
    }
}

fn mac_table(ports: usize, seed: u64) -> MacTable {
    MacTable::new(ports, MAC_AGE, seed.rotate_left(17))
}

/// A poisoned lock only says that another worker panicked; a table has no state between two of its records.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::samples::{VM5, VM6, datagram, mac, seconds};

    #[test]
    fn workers_share_the_flows_and_both_directions_are_in_one_shard() {
        let learned = Learned::new(4096, 8, 4, 42);
        assert_eq!(learned.shards.len(), 64);
        let (mut one, mut other) = (Counts::default(), Counts::default());
        for client in 0..200 {
            let (there, back) = (datagram(VM5, VM6, client, 80), datagram(VM6, VM5, 80, client));
            let hashes = [there, back].map(|frame| learned.steering(&mut one).hash(frame.flow().unwrap()));
            assert_eq!(hashes[0], hashes[1]);
            let shards = hashes.map(|hash| {
                let mut steering = learned.steering(&mut other);
                steering.flows(hash).unwrap();
                steering.held.as_ref().unwrap().0
            });
            assert_eq!(shards[0], shards[1]);
        }
    }

    #[test]
    fn one_worker_has_one_shard() {
        assert_eq!(Learned::new(4096, 8, 1, 42).shards.len(), 1);
        let several = Learned::new(4096, 8, 3, 42);
        assert!(several.shards.iter().map(|shard| lock(shard).capacity()).sum::<usize>() >= 4096);
    }

    #[test]
    fn more_ports_than_at_the_start_teach_addresses_and_one_that_is_gone_has_taught_none() {
        let learned = Learned::new(16, 8, 1, 42);
        let mut counts = Counts::default();
        let far = PortId::new(8);
        learned.steering(&mut counts).learn(mac(VM5), VM5, false, seconds(1));
        learned.steering(&mut counts).learn(mac(VM6), far, false, seconds(1));
        assert_eq!(learned.steering(&mut counts).heard(mac(VM6), seconds(1)), None, "no room was made");
        learned.reserve(9);
        learned.steering(&mut counts).learn(mac(VM6), far, false, seconds(1));
        assert_eq!(learned.steering(&mut counts).heard(mac(VM6), seconds(1)), Some(far));
        assert_eq!(learned.steering(&mut counts).heard(mac(VM5), seconds(1)), Some(VM5));
        learned.forget(far);
        assert_eq!(learned.steering(&mut counts).heard(mac(VM6), seconds(1)), None);
    }

    #[test]
    fn an_address_learned_by_one_worker_is_known_to_the_other() {
        let learned = Learned::new(16, 8, 2, 42);
        let (mut one, mut other) = (Counts::default(), Counts::default());
        learned.steering(&mut one).learn(mac(VM5), VM5, false, seconds(1));
        assert_eq!(learned.steering(&mut other).heard(mac(VM5), seconds(1)), Some(VM5));
    }
}
