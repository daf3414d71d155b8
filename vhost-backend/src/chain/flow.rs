//! The flow table: which path a flow is pinned to.
//!
//! ```text
//! hash --+--> bucket a   8 tags, marks, hand      way i of a bucket -> record (64 bytes)
//!        +--> bucket b   8 tags, marks, hand
//! ```
//!
//! Preallocated and of fixed size. A record is in one of two buckets, the emptier one when it was entered, so the table
//! fills almost whole before it displaces anything. When both are full the newcomer displaces a record that was not
//! used since the bucket's hand passed it last (second chance). Nothing is ever scanned.
//!
//! Where the packets of a flow go first, a record tells as long as nothing has changed since that was found out: then no path
//! is looked at.
//!
//! Both directions of a flow find one record: the hash is symmetric, and the record is compared with the key and its
//! reverse. A flow is known by its 5-tuple, its VLAN *and* the two ports it runs between, so that a tenant that
//! forges another's addresses gets a record of its own and cannot steer or pin anybody else's packets.

mod record;

use std::hint::select_unpredictable;
use std::time::Duration;

use nsh::{Si, Spi};

use self::record::{NO_PORT, Record, TICK_SHIFT, U24, tick};
use super::{ChainIx, PathIx, PortId};
use crate::frame::{FlowHash, FlowKey};
use crate::liveness::Timestamp;
use crate::ring::{on_huge_pages, prefetch};

/// Records of one bucket.
const WAYS: usize = 8;
/// A table of no more flows than this is in the cache anyway.
const CACHED: usize = 2048;

/// A packet's flow as the table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    /// Addresses, transport and VLAN, as the packet has them.
    pub(super) key: FlowKey,
    /// The port it came from.
    pub(super) from: PortId,
    /// The port its destination MAC is at; `None` if unknown or a group.
    pub(super) to: Option<PortId>,
}

/// Which way a packet runs, seen from the flow's first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// As the first packet.
    Forward,
    /// A reply.
    Reverse,
}

/// What was chosen for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is not chained.
    Plain {
        /// Nor do the policies chain packets of its other direction.
        both: bool,
    },
    /// It takes this chain.
    Chain {
        /// The chain.
        chain: ChainIx,
        /// The path; `None` while the chain has none that is up.
        path: Option<(PathIx, Spi)>,
    },
}

/// The first hop of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct First {
    /// The port of its service.
    pub(super) to: PortId,
    /// The path.
    pub(super) spi: Spi,
    /// The service index there.
    pub(super) si: Si,
}

/// A record's place. Valid until the next flow is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    #[inline]
    fn new(bucket: usize, way: usize) -> Slot {
        Slot(bucket.saturating_mul(WAYS).saturating_add(way) as u32)
    }

    #[inline]
    const fn index(self) -> usize {
        self.0 as usize
    }

    /// The bucket and the way of it.
    #[inline]
    const fn place(self) -> (usize, usize) {
        (self.index() / WAYS, self.index() % WAYS)
    }
}

/// Aligned, so that none reaches into a second cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
struct Bucket {
    /// A byte of the hash per record; 0: free.
    tags: [u8; WAYS],
    /// A bit per record: used since the hand passed.
    marks: u8,
    /// The next record to be displaced.
    hand: u8,
}

/// Flows and their paths: one shard of what [`Learned`](super::Learned) holds.
#[derive(Debug)]
pub struct FlowTable {
    buckets: Box<[Bucket]>,
    records: Box<[Record]>,
    occupied: usize,
    idle_ticks: u32,
}

impl FlowTable {
    /// A table for this many flows: an eighth more fit, so that few displace each other. Takes about 75 bytes for each,
    /// all of it here. A flow not used for `idle` begins anew.
    pub fn new(flows: usize, idle: Duration) -> FlowTable {
        let buckets = flows.saturating_add(flows / 8).div_ceil(WAYS).max(2);
        let ticks = u32::try_from(idle.as_nanos() >> TICK_SHIFT).unwrap_or(u32::MAX).clamp(1, U24::MAX / 2);
        FlowTable {
            buckets: on_huge_pages(Bucket::default(), buckets),
            records: on_huge_pages(Record::FREE, buckets.saturating_mul(WAYS)),
            occupied: 0,
            idle_ticks: ticks,
        }
    }

    /// How many flows fit.
    pub fn capacity(&self) -> usize {
        self.records.len()
    }

    /// How many records are held, idle ones that nothing has displaced yet included.
    pub fn len(&self) -> usize {
        self.occupied
    }

    /// No record is held.
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// The flow's record and which direction of it this packet is. The flow counts as used. `likely`: what
    /// [`expect_record`](FlowTable::expect_record) gave; it is only where to look first.
    #[inline]
    pub(super) fn find(
        &mut self,
        hash: FlowHash,
        likely: Option<Slot>,
        tuple: &Tuple,
        now: Timestamp,
    ) -> Option<(Slot, Direction)> {
        let guess = likely.and_then(|slot| Some((slot, self.direction(slot, hash, tuple)?)));
        let (slot, direction) = guess.or_else(|| self.search(hash, tuple))?;
        let (bucket, way) = slot.place();
        let bucket = self.buckets.get_mut(bucket)?;
        let record = self.records.get_mut(slot.index())?;
        let tick = tick(now);
        if record.idle(tick) > self.idle_ticks {
            bucket.empty(way);
            self.occupied = self.occupied.saturating_sub(1);
            return None;
        }
        if record.used != tick {
            record.used = tick;
        }
        let mark = 1_u8.wrapping_shl(way as u32);
        if bucket.marks & mark == 0 {
            bucket.marks |= mark;
        }
        Some((slot, direction))
    }

    /// The same without counting as use, for those who only want to know.
    pub(super) fn look(&self, hash: FlowHash, tuple: &Tuple, now: Timestamp) -> Option<(Slot, Direction)> {
        let (slot, direction) = self.search(hash, tuple)?;
        let idle = self.records.get(slot.index())?.idle(tick(now));
        (idle <= self.idle_ticks).then_some((slot, direction))
    }

    /// The flow's record, idle or not, looked for in both buckets.
    #[inline(never)]
    fn search(&self, hash: FlowHash, tuple: &Tuple) -> Option<(Slot, Direction)> {
        self.places(hash).into_iter().find_map(|bucket| {
            let ways = self.buckets.get(bucket)?.tagged(tag(hash));
            ways.map(|way| Slot::new(bucket, way))
                .find_map(|slot| Some((slot, self.direction(slot, hash, tuple)?)))
        })
    }

    /// Which direction of the flow in this slot the packet is; `None` if it is of another flow.
    #[inline]
    fn direction(&self, slot: Slot, hash: FlowHash, tuple: &Tuple) -> Option<Direction> {
        let (bucket, way) = slot.place();
        // What was given up as idle still has its key.
        let held = self.buckets.get(bucket)?.tags.get(way) == Some(&tag(hash));
        if held { self.records.get(slot.index())?.direction(tuple) } else { None }
    }

    /// Asks the cache for the buckets of a flow that will be looked for soon. A table that fits into the cache is left
    /// alone.
    #[inline]
    pub(super) fn expect_buckets(&self, hash: FlowHash) {
        if self.occupied > CACHED {
            for bucket in self.places(hash).into_iter().filter_map(|ix| self.buckets.get(ix)) {
                prefetch(bucket);
            }
        }
    }

    /// The same for the record: the first one with this hash's tag, which is nearly always the flow's. In which bucket that is
    /// nothing could foretell, so there is no branch on it.
    #[inline]
    pub(super) fn expect_record(&self, hash: FlowHash) -> Option<Slot> {
        let [first, second] = self.places(hash);
        let equal = |bucket: usize| self.buckets.get(bucket).map_or(0, |bucket| bucket.equal(tag(hash)));
        let (equal_first, equal_second) = (equal(first), equal(second));
        let in_first = equal_first != 0;
        let bucket = select_unpredictable(in_first, first, second);
        let equal = select_unpredictable(in_first, equal_first, equal_second);
        let slot = Slot::new(bucket, equal.trailing_zeros() as usize / 8);
        prefetch(self.records.get(slot.index())?);
        (equal != 0).then_some(slot)
    }

    /// The path of the flow in this slot, if a packet from this port needs more of it than is in the record.
    #[inline]
    pub(super) fn needed_path(&self, slot: Slot, from: PortId, version: u64) -> Option<PathIx> {
        let record = self.records.get(slot.index())?;
        if record.from == from.get() && record.version == version as u32 {
            return None;
        }
        record.path()
    }

    /// Where every packet of the flow goes first that runs as the first one did, if that was [kept](FlowTable::keep_first)
    /// under this version of the snapshot.
    #[inline]
    pub(super) fn first(&self, slot: Slot, version: u64) -> Option<First> {
        let record = self.records.get(slot.index())?;
        let kept = record.hop != NO_PORT && record.version == version as u32;
        let spi = Spi::new(record.spi.get())?;
        kept.then_some(First { to: PortId::new(record.hop), spi, si: Si::new(record.si) })
    }

    /// Keeps where every packet of the flow goes first that runs as the first one did, as long as neither the snapshot nor
    /// what was chosen is another.
    pub(super) fn keep_first(&mut self, slot: Slot, version: u64, first: First) {
        let Some(record) = self.records.get_mut(slot.index()) else { return };
        // The path's own, so there has to be one.
        if record.path().is_some() && record.spi == U24::new(first.spi.get()) {
            (record.version, record.hop, record.si) = (version as u32, first.to.get(), first.si.get());
        }
    }

    /// What was chosen for the flow, if that was by the tables of this revision. `chain_of`: the chain of a path of theirs.
    #[inline]
    pub(super) fn choice(
        &self,
        slot: Slot,
        revision: u32,
        chain_of: impl FnOnce(PathIx) -> Option<ChainIx>,
    ) -> Option<Choice> {
        let record = self.records.get(slot.index())?;
        if record.revision == revision { record.choice(chain_of) } else { None }
    }

    /// The flow as it began and the path it had, by name, for choosing anew under other tables.
    pub(super) fn origin(&self, slot: Slot) -> Option<(Tuple, Option<Spi>)> {
        let record = self.records.get(slot.index())?;
        let to = (record.to != NO_PORT).then_some(PortId::new(record.to));
        let spi = record.path().and_then(|_| Spi::new(record.spi.get()));
        Some((Tuple { key: record.key, from: PortId::new(record.from), to }, spi))
    }

    /// Replaces what was chosen for a flow.
    pub(super) fn set(&mut self, slot: Slot, choice: Choice, revision: u32) {
        if let Some(record) = self.records.get_mut(slot.index()) {
            record.set(choice, revision);
        }
    }

    /// Makes this packet the one that began the flow.
    pub(super) fn turn(&mut self, slot: Slot, tuple: &Tuple, choice: Choice, revision: u32) {
        if let Some(record) = self.records.get_mut(slot.index()) {
            *record = Record::new(tuple, choice, revision, record.used);
        }
    }

    /// Enters a flow that [`find`](FlowTable::find) did not find. True if another one was displaced by it.
    pub(super) fn enter(
        &mut self,
        hash: FlowHash,
        tuple: &Tuple,
        choice: Choice,
        revision: u32,
        now: Timestamp,
    ) -> bool {
        let [first, second] = self.places(hash);
        let free = |ix: usize| self.buckets.get(ix).map_or(0, Bucket::free);
        let bucket_ix = if free(second) > free(first) { second } else { first };
        let Some(bucket) = self.buckets.get_mut(bucket_ix) else { return false };
        let (way, displaced) = match bucket.tagged(0).next() {
            Some(way) => (way, false),
            None => (bucket.victim(), true),
        };
        let index = bucket_ix.saturating_mul(WAYS).saturating_add(way);
        if let (Some(held), Some(record)) = (bucket.tags.get_mut(way), self.records.get_mut(index)) {
            *held = tag(hash);
            *record = Record::new(tuple, choice, revision, tick(now));
            self.occupied = self.occupied.saturating_add(usize::from(!displaced));
        }
        displaced
    }

    /// The two buckets of a hash, never the same one.
    #[inline]
    fn places(&self, hash: FlowHash) -> [usize; 2] {
        let count = self.buckets.len();
        // The high half of a product with 64 bits is an even choice.
        let place = |bits: u64| (u128::from(bits).wrapping_mul(count as u128) >> 64) as usize;
        let (first, second) = (place(hash.get()), place(hash.get().rotate_left(32)));
        if second != first {
            return [first, second];
        }
        let next = first.saturating_add(1);
        [first, if next < count { next } else { 0 }]
    }
}

impl Bucket {
    /// The ways that hold this tag.
    #[inline]
    fn tagged(&self, tag: u8) -> impl Iterator<Item = usize> + use<> {
        let mut equal = self.equal(tag);
        std::iter::from_fn(move || {
            let way = (equal != 0).then(|| equal.trailing_zeros() as usize / 8)?;
            equal &= equal.wrapping_sub(1);
            Some(way)
        })
    }

    /// The same as the upper bit of a byte for each way, all told at once: which of them does is nothing a branch could be
    /// foretold by.
    #[inline]
    fn equal(&self, tag: u8) -> u64 {
        const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;
        let differing = u64::from_le_bytes(self.tags) ^ u64::from_le_bytes([tag; WAYS]);
        // The upper bit of each byte that is 0, of no other.
        !((differing & LOW).wrapping_add(LOW) | differing | LOW)
    }

    fn free(&self) -> usize {
        self.tagged(0).count()
    }

    fn empty(&mut self, way: usize) {
        if let Some(tag) = self.tags.get_mut(way) {
            *tag = 0;
        }
    }

    /// The record to displace, all being occupied.
    fn victim(&mut self) -> usize {
        for _ in 0..WAYS {
            let way = self.hand;
            self.hand = way.wrapping_add(1) % WAYS as u8;
            let mark = 1_u8.wrapping_shl(u32::from(way));
            if self.marks & mark == 0 {
                return usize::from(way);
            }
            self.marks &= !mark;
        }
        usize::from(self.hand)
    }
}

/// A byte of the hash, never 0. Its bits choose neither bucket as long as there are fewer than 2^20.
#[inline]
fn tag(hash: FlowHash) -> u8 {
    ((hash.get() >> 36) as u8).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::samples::{VM5, VM6, VM7, seconds};
    use crate::frame::{Layer4, Protocol};

    const CHOICE: Choice = Choice::Plain { both: false };

    fn tuple(number: u32) -> Tuple {
        let [a, b, c, d] = number.to_be_bytes();
        let layer4 = Layer4::Ports { protocol: Protocol::UDP, src: 1, dst: 2 };
        let key = FlowKey::v4([10, a, b, c].into(), [11, 0, 0, d].into(), layer4, None);
        Tuple { key, from: VM5, to: Some(VM6) }
    }

    fn reply(of: &Tuple) -> Tuple {
        Tuple { key: of.key.reversed(), from: VM6, to: Some(VM5) }
    }

    fn table(flows: usize) -> FlowTable {
        FlowTable::new(flows, Duration::from_secs(60))
    }

    fn enter(flows: &mut FlowTable, tuple: &Tuple, now: u64) -> bool {
        flows.enter(tuple.key.hash(42), tuple, CHOICE, 1, seconds(now))
    }

    fn find(flows: &mut FlowTable, tuple: &Tuple, now: u64) -> Option<Direction> {
        flows.find(tuple.key.hash(42), None, tuple, seconds(now)).map(|(_, direction)| direction)
    }

    #[test]
    fn a_record_is_a_cache_line() {
        assert_eq!((size_of::<Record>(), align_of::<Record>()), (64, 64));
    }

    #[test]
    fn both_directions_find_one_record() {
        let mut flows = table(64);
        let there = tuple(1);
        assert_eq!(find(&mut flows, &there, 0), None);
        enter(&mut flows, &there, 0);
        assert_eq!(find(&mut flows, &there, 0), Some(Direction::Forward));
        assert_eq!(find(&mut flows, &reply(&there), 0), Some(Direction::Reverse));
        assert_eq!(flows.len(), 1);
    }

    #[test]
    fn a_flow_is_known_by_its_ports_too() {
        let mut flows = table(64);
        let there = tuple(1);
        enter(&mut flows, &there, 0);
        for other in [
            Tuple { from: VM7, ..there },
            Tuple { to: None, ..there },
            Tuple { to: Some(VM7), ..there },
            Tuple { from: VM7, ..reply(&there) },
            Tuple { key: there.key.reversed(), ..there },
        ] {
            assert_eq!(find(&mut flows, &other, 0), None, "{other:?}");
        }
    }

    #[test]
    fn later_fragments_have_no_replies() {
        let mut flows = table(64);
        let there = Tuple { key: tuple(1).key.datagram(0x0007_0007), ..tuple(1) };
        enter(&mut flows, &there, 0);
        assert_eq!(find(&mut flows, &there, 0), Some(Direction::Forward));
        assert_eq!(find(&mut flows, &reply(&there), 0), None);
    }

    #[test]
    fn what_was_chosen_is_kept() {
        let mut flows = table(64);
        let there = tuple(1);
        enter(&mut flows, &there, 0);
        let (slot, _) = flows.find(there.key.hash(42), None, &there, seconds(0)).unwrap();
        let path = Spi::new(7).map(|spi| (PathIx(3), spi));
        let mut choices = vec![CHOICE, Choice::Plain { both: true }];
        choices.extend([None, path].map(|path| Choice::Chain { chain: ChainIx(2), path }));
        for choice in choices {
            flows.set(slot, choice, 9);
            let chain_of = |path| (path == PathIx(3)).then_some(ChainIx(2));
            assert_eq!(flows.choice(slot, 9, chain_of), Some(choice));
            assert_eq!(flows.choice(slot, 8, chain_of), None, "of other tables");
        }
        assert_eq!(flows.origin(slot), Some((there, Spi::new(7))));
        flows.turn(slot, &reply(&there), CHOICE, 9);
        assert_eq!(find(&mut flows, &there, 0), Some(Direction::Reverse));
    }

    #[test]
    fn a_first_hop_is_kept_with_one_choice_under_one_version() {
        let mut flows = table(64);
        let (there, [one, other]) = (tuple(1), [7, 8].map(|spi| Spi::new(spi).unwrap()));
        enter(&mut flows, &there, 0);
        let (slot, _) = flows.find(there.key.hash(42), None, &there, seconds(0)).unwrap();
        let first = |spi| First { to: VM7, spi, si: Si::new(3) };
        let pinned = Choice::Chain { chain: ChainIx(2), path: Some((PathIx(3), one)) };
        flows.keep_first(slot, 5, first(one));
        assert_eq!(flows.first(slot, 5), None, "it has no path");
        flows.set(slot, pinned, 9);
        flows.keep_first(slot, 5, first(other));
        assert_eq!(flows.first(slot, 5), None, "of another path");
        flows.keep_first(slot, 5, first(one));
        assert_eq!((flows.first(slot, 5), flows.first(slot, 6)), (Some(first(one)), None));
        let needed = |flows: &FlowTable, from, version| flows.needed_path(slot, from, version).is_some();
        assert_eq!([(VM5, 5), (VM6, 5), (VM5, 6)].map(|(f, v)| needed(&flows, f, v)), [false, true, true]);
        flows.set(slot, pinned, 9);
        assert_eq!(flows.first(slot, 5), None, "chosen anew");
    }

    #[test]
    fn ticks_come_round() {
        let at = |used| Record { used: U24::new(used), ..Record::FREE };
        assert_eq!(at(U24::MAX).idle(U24::new(2)), 3);
        assert_eq!(at(7).idle(U24::new(6)), 0, "read a little later by another worker");
    }

    #[test]
    fn an_idle_flow_begins_anew() {
        let mut flows = table(64);
        let there = tuple(1);
        enter(&mut flows, &there, 0);
        assert_eq!(find(&mut flows, &there, 50), Some(Direction::Forward));
        assert_eq!(find(&mut flows, &there, 100), Some(Direction::Forward), "used at 50");
        assert_eq!(find(&mut flows, &there, 200), None);
        assert_eq!(flows.len(), 0);
    }

    #[test]
    fn a_flow_given_up_as_idle_is_not_found_where_it_was() {
        let mut flows = table(64);
        [1, 2].iter().for_each(|number| {
            enter(&mut flows, &tuple(*number), 0);
        });
        let (there, hash) = (tuple(1), tuple(1).key.hash(42));
        let likely = flows.expect_record(hash);
        assert!(likely.is_some());
        for _ in 0..2 {
            assert_eq!(flows.find(hash, likely, &there, seconds(200)), None);
            assert_eq!(flows.len(), 1, "given up once");
        }
    }

    #[test]
    fn the_stated_number_of_flows_fits() {
        let mut flows = table(20_000);
        assert_eq!(flows.capacity(), 22_504);
        let displaced = (0..20_000).filter(|number| enter(&mut flows, &tuple(*number), 0)).count();
        assert!(displaced <= 200, "{displaced} displaced");
        (20_000..90_000).for_each(|number| {
            enter(&mut flows, &tuple(number), 0);
        });
        let (held, capacity) = (flows.len(), flows.capacity());
        assert!(held <= capacity && held >= capacity * 99 / 100, "{held} of {capacity}");
    }

    #[test]
    fn flows_in_use_outlast_a_flood_of_new_ones() {
        let mut flows = table(1 << 10);
        let busy: Vec<Tuple> = (0..100).map(tuple).collect();
        busy.iter().for_each(|tuple| {
            enter(&mut flows, tuple, 0);
        });
        for number in 1000..41_000 {
            enter(&mut flows, &tuple(number), 0);
            // Each busy flow has a packet every 100 new flows.
            find(&mut flows, &busy[number as usize % 100], 0);
        }
        let left = busy.iter().filter(|tuple| find(&mut flows, tuple, 0).is_some()).count();
        assert!(left >= 99, "{left} of 100 left");
    }

    #[test]
    fn the_smallest_table_works() {
        let mut flows = table(0);
        for number in 0..1000 {
            enter(&mut flows, &tuple(number), 0);
            assert_eq!(find(&mut flows, &tuple(number), 0), Some(Direction::Forward));
        }
        assert_eq!(flows.len(), flows.capacity());
    }
}
