//! The path table: (SPI, SI) to the next hop.
//!
//! ```text
//! SPI --Index--> PathIx --> record, half a cache line: SPI, chain, reverse, length, the first eight hops
//! ```
//!
//! A path that leaves the tables is kept for the frames that are on it: it is found by its SPI and leads where it led,
//! but belongs to no chain, so that nothing is steered onto it any more. The newest of these stay, as many as there are
//! paths in force, or [`DRAINING`].

use std::collections::HashMap;
use std::ops::Range;

use nsh::{Si, Spi};

use super::index::Index;
use super::spec::{ChainSpec, PathSpec};
use super::tables::TableHasher;
use super::{ChainIx, PathIx, PortId};
use crate::ring::prefetch;

/// Hops that lie in the path's own record.
const NEAR: usize = 8;

/// Paths out of force that are kept at least.
const DRAINING: usize = 4096;

/// A service path or the reverse of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(32))]
pub(super) struct Path {
    /// Its identifier.
    pub(super) spi: Spi,
    /// The path of the other direction.
    pub(super) reverse: Option<PathIx>,
    /// The chain it embeds; [`ChainIx::NONE`] when it is out of force.
    pub(super) chain: ChainIx,
    /// It is for replies: never chosen for a new flow.
    pub(super) is_reverse: bool,
    /// How many hops there are, which is the SI of the first.
    len: u8,
    /// All hops, unless there are more.
    near: [PortId; NEAR],
}

impl Path {
    /// The SI of the first hop.
    pub(super) const fn first_si(&self) -> Si {
        Si::new(self.len)
    }
}

/// What (SPI, SI) leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The service at this port.
    Service(PortId),
    /// SI 0: the end of the path.
    Terminal,
}

/// The paths of one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChainPaths {
    /// Indices of its paths, without reverse ones, in order of preference.
    pub(super) all: Range<u32>,
    /// Where the paths of each preference end, the best first.
    pub(super) level_ends: Box<[u32]>,
}

impl ChainPaths {
    /// The paths of each preference, the best first.
    pub(super) fn levels(&self) -> impl Iterator<Item = Range<u32>> {
        let starts = std::iter::once(self.all.start).chain(self.level_ends.iter().copied());
        starts.zip(self.level_ends.iter()).map(|(start, end)| start..*end)
    }
}

/// All paths and reverse paths. Paths of one chain are neighbours, in order of preference, then of declaration.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    /// Those in force, then those that are not, the newest of them first.
    paths: Vec<Path>,
    in_force: usize,
    by_spi: Index<24>,
    /// The hops of paths that have more than [`NEAR`].
    far: HashMap<Spi, Box<[PortId]>, TableHasher>,
    /// Paths through each service, once for every hop there, service after service.
    through: Vec<PathIx>,
    /// By port number: where its part of `through` begins; one more at the end.
    through_starts: Vec<u32>,
}

impl PathTable {
    /// The paths of these chains, and where each chain's are. `before`: the table it replaces. `another`, by port number:
    /// there is such a port, and it was not there before.
    ///
    /// # Errors
    /// Two paths have this SPI, the second in this chain.
    pub(super) fn new(
        chains: &[ChainSpec],
        before: &PathTable,
        another: &[bool],
    ) -> Result<(PathTable, Vec<ChainPaths>), (Spi, ChainIx)> {
        let both = |path: &PathSpec| 1 + usize::from(path.reverse_spi.is_some());
        let count: usize = chains.iter().flat_map(|chain| &chain.paths).map(both).sum();
        let room = count.saturating_add(before.paths.len().min(count.max(DRAINING)));
        let mut table = PathTable {
            paths: Vec::with_capacity(room),
            by_spi: Index::with_room(room),
            ..PathTable::default()
        };
        let ranges = (0..).map(ChainIx).zip(chains).map(|(ix, chain)| table.add_chain(ix, &chain.paths));
        let ranges = ranges.collect::<Result<_, _>>()?;
        table.in_force = table.paths.len();
        table.drain(before, another);
        if table.paths.len() < room {
            // The fewer lines it is in, the more of them are in a cache.
            let spis = table.paths.iter().enumerate().map(|(ix, path)| (path.spi.get().into(), ix as u32));
            table.by_spi = Index::new(spis);
        }
        table.sort_by_service(another.len());
        Ok((table, ranges))
    }

    /// Keeps the paths of the table before that this one does not have. Where a path led to a port whose number another has
    /// now, its frames must not go.
    fn drain(&mut self, before: &PathTable, another: &[bool]) {
        let is_another = |hop: &PortId| another.get(hop.index()).copied().unwrap_or(false);
        let most = self.in_force.saturating_add(self.in_force.max(DRAINING));
        for path in &before.paths {
            if self.paths.len() >= most {
                return;
            }
            if before.hops(path).iter().any(is_another)
                || !self.by_spi.put(path.spi.get().into(), self.next_index())
            {
                continue;
            }
            if let Some(hops) = before.far.get(&path.spi) {
                self.far.insert(path.spi, hops.clone());
            }
            self.paths.push(Path { chain: ChainIx::NONE, reverse: None, ..*path });
        }
    }

    /// Adds a chain's paths, then the reverse paths of them.
    fn add_chain(&mut self, chain: ChainIx, specs: &[PathSpec]) -> Result<ChainPaths, (Spi, ChainIx)> {
        let mut specs: Vec<&PathSpec> = specs.iter().collect();
        specs.sort_by_key(|spec| spec.preference);
        let start = self.next_index();
        let mut level_ends = Vec::with_capacity(1);
        for level in specs.chunk_by(|a, b| a.preference == b.preference) {
            for spec in level {
                self.add(spec.spi, chain, spec, None)?;
            }
            level_ends.push(self.next_index());
        }
        let all = start..self.next_index();
        for (ix, spec) in (start..).map(PathIx).zip(specs) {
            let Some(spi) = spec.reverse_spi else { continue };
            let reverse = PathIx(self.next_index());
            self.add(spi, chain, spec, Some(ix))?;
            if let Some(path) = self.paths.get_mut(ix.index()) {
                path.reverse = Some(reverse);
            }
        }
        Ok(ChainPaths { all, level_ends: level_ends.into() })
    }

    fn next_index(&self) -> u32 {
        u32::try_from(self.paths.len()).unwrap_or(u32::MAX)
    }

    /// Adds the path of these hops, or, if it is the reverse of a path, of these hops in reverse order.
    fn add(
        &mut self,
        spi: Spi,
        chain: ChainIx,
        spec: &PathSpec,
        reverse: Option<PathIx>,
    ) -> Result<(), (Spi, ChainIx)> {
        if !self.by_spi.put(spi.get().into(), self.next_index()) {
            return Err((spi, chain));
        }
        let len = u8::try_from(spec.hops.len()).unwrap_or(u8::MAX);
        let mut near = [PortId::new(0); NEAR];
        let put = |(place, hop): (&mut PortId, &PortId)| *place = *hop;
        if reverse.is_some() {
            near.iter_mut().zip(spec.hops.iter().rev()).for_each(put);
        } else {
            near.iter_mut().zip(&spec.hops).for_each(put);
        }
        if spec.hops.len() > NEAR {
            let mut hops: Box<[PortId]> = spec.hops.as_slice().into();
            if reverse.is_some() {
                hops.reverse();
            }
            self.far.insert(spi, hops);
        }
        self.paths.push(Path { spi, reverse, chain, is_reverse: reverse.is_some(), len, near });
        Ok(())
    }

    /// Fills `through`: counts, then puts every path in its places.
    fn sort_by_service(&mut self, ports: usize) {
        let mut ends = vec![0_u32; ports.saturating_add(1)];
        for (_, path) in self.iter() {
            for hop in self.hops(path) {
                if let Some(count) = ends.get_mut(hop.index()) {
                    *count = count.saturating_add(1);
                }
            }
        }
        let mut total = 0_u32;
        for end in &mut ends {
            total = total.saturating_add(*end);
            *end = total;
        }
        let mut through = vec![PathIx(0); total as usize];
        // From the last path to the first and from each end downwards: then `ends` are the beginnings, and paths are in
        // order.
        for (ix, path) in self.iter().rev() {
            for hop in self.hops(path) {
                let Some(place) = ends.get_mut(hop.index()) else { continue };
                *place = place.saturating_sub(1);
                if let Some(slot) = through.get_mut(*place as usize) {
                    *slot = ix;
                }
            }
        }
        (self.through, self.through_starts) = (through, ends);
    }

    /// Every path in force, in index order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (PathIx, &Path)> {
        let in_force = self.paths.get(..self.in_force).unwrap_or_default();
        in_force.iter().enumerate().map(|(ix, path)| (PathIx(ix as u32), path))
    }

    /// How many are in force.
    pub(super) fn len(&self) -> usize {
        self.in_force
    }

    #[inline]
    pub(super) fn get(&self, ix: PathIx) -> Option<&Path> {
        self.paths.get(ix.index())
    }

    /// The path of this SPI, in force or not.
    #[inline]
    pub(super) fn find(&self, spi: Spi) -> Option<PathIx> {
        self.by_spi.find(u64::from(spi.get())).map(PathIx)
    }

    /// Asks the cache for what [`find`](PathTable::find) reads.
    #[inline]
    pub(super) fn prefetch_index(&self, spi: Spi) {
        self.by_spi.prefetch(u64::from(spi.get()));
    }

    /// Asks the cache for the path's record.
    #[inline]
    pub(super) fn prefetch_record(&self, ix: PathIx) {
        if let Some(path) = self.get(ix) {
            prefetch(path);
        }
    }

    /// The services of a path in order.
    #[inline]
    pub(super) fn hops<'a>(&'a self, path: &'a Path) -> &'a [PortId] {
        match path.near.get(..usize::from(path.len)) {
            Some(hops) => hops,
            None => self.far.get(&path.spi).map(|hops| &**hops).unwrap_or_default(),
        }
    }

    /// The hop at a service index; `None` where there is no entry.
    #[inline]
    pub(super) fn hop(&self, path: &Path, si: Si) -> Option<Hop> {
        if si == Si::TERMINAL {
            return Some(Hop::Terminal);
        }
        let place = path.len.checked_sub(si.get())?;
        self.hops(path).get(usize::from(place)).copied().map(Hop::Service)
    }

    /// Paths with a hop at this service, in index order; a path with two hops there comes twice.
    pub(super) fn through(&self, service: PortId) -> &[PathIx] {
        let bound = |at: usize| self.through_starts.get(at).map(|start| *start as usize);
        match (bound(service.index()), bound(service.index().saturating_add(1))) {
            (Some(start), Some(end)) => self.through.get(start..end).unwrap_or_default(),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::OnFailure;
    use crate::chain::samples::{SVM1, SVM2, SVM3, chain, path, si, spi};

    fn table(paths: Vec<PathSpec>) -> (PathTable, Vec<ChainPaths>) {
        PathTable::new(&[chain("c", OnFailure::Block, paths)], &PathTable::default(), &[false; 20]).unwrap()
    }

    #[test]
    fn two_records_are_a_cache_line() {
        assert_eq!(size_of::<Path>(), 32);
    }

    #[test]
    fn paths_are_in_order_of_preference_and_their_reverses_behind_them() {
        let (table, chains) =
            table(vec![path(1, &[SVM1], 5), path(2, &[SVM2], 0), path(3, &[SVM3], 5), path(4, &[SVM1], 0)]);
        let spis: Vec<_> = table.iter().map(|(_, path)| path.spi.get()).collect();
        assert_eq!(spis, [2, 4, 1, 3, 102, 104, 101, 103]);
        assert_eq!(chains[0].all, 0..4);
        assert_eq!(chains[0].levels().collect::<Vec<_>>(), [0..2, 2..4]);
        for (ix, path) in table.iter() {
            assert_eq!(table.find(path.spi), Some(ix));
            assert_eq!(table.get(path.reverse.unwrap()).unwrap().reverse, Some(ix));
        }
    }

    #[test]
    fn an_spi_is_one_path() {
        let one = |paths| {
            PathTable::new(
                &[
                    chain("a", OnFailure::Block, vec![path(1, &[SVM1], 0)]),
                    chain("b", OnFailure::Block, paths),
                ],
                &PathTable::default(),
                &[false; 20],
            )
            .map(drop)
        };
        assert_eq!(one(vec![path(2, &[SVM1], 0)]), Ok(()));
        assert_eq!(one(vec![path(2, &[SVM1], 0), path(1, &[SVM1], 0)]), Err((spi(1), ChainIx(1))));
        // 101 is the first one's way back.
        assert_eq!(one(vec![path(101, &[SVM1], 0)]), Err((spi(101), ChainIx(1))));
    }

    #[test]
    fn a_path_longer_than_its_record_is_found_whole() {
        for len in [1, 7, 8, 9, 255] {
            let hops: Vec<_> = (0..len).map(PortId::new).collect();
            let (table, _) = table(vec![path(1, &hops, 0)]);
            for (number, first) in [(1, 0), (101, len - 1)] {
                let path = table.get(table.find(spi(number)).unwrap()).unwrap();
                assert_eq!(path.first_si().get(), len as u8);
                for index in 1..=len {
                    let place = first.abs_diff(len - index);
                    assert_eq!(table.hop(path, si(index as u8)), Some(Hop::Service(PortId::new(place))));
                }
                assert_eq!(table.hop(path, si(0)), Some(Hop::Terminal));
                assert!(len == 255 || table.hop(path, si(len as u8 + 1)).is_none());
            }
        }
    }

    #[test]
    fn paths_that_left_are_found_by_their_spi_only() {
        let long: Vec<_> = (0..10).map(PortId::new).collect();
        let (before, _) = table(vec![path(1, &[SVM1, SVM2], 0), path(2, &long, 0), path(3, &[SVM3], 0)]);
        let now = [chain("c", OnFailure::Block, vec![path(3, &[SVM2], 0)])];
        let (now, _) = PathTable::new(&now, &before, &[false; 20]).unwrap();
        assert_eq!(now.iter().map(|(_, path)| path.spi.get()).collect::<Vec<_>>(), [3, 103]);
        let hops = |table: &PathTable, number| {
            let path = table.get(table.find(spi(number))?)?;
            Some((path.chain, table.hops(path).to_vec()))
        };
        assert_eq!(hops(&now, 1), Some((ChainIx::NONE, vec![SVM1, SVM2])));
        assert_eq!(hops(&now, 101), Some((ChainIx::NONE, vec![SVM2, SVM1])));
        assert_eq!(hops(&now, 2), Some((ChainIx::NONE, long)));
        assert_eq!(hops(&now, 3), Some((ChainIx(0), vec![SVM2])), "the new one");
        assert!(now.through(SVM1).is_empty());
        // Back in force.
        let again = [chain("c", OnFailure::Block, vec![path(1, &[SVM1], 0)])];
        let (again, _) = PathTable::new(&again, &now, &[false; 20]).unwrap();
        assert_eq!(hops(&again, 1), Some((ChainIx(0), vec![SVM1])));
        assert_eq!(hops(&again, 3), Some((ChainIx::NONE, vec![SVM2])));
    }

    #[test]
    fn a_path_that_left_does_not_lead_to_another_port_of_the_same_number() {
        let (before, _) = table(vec![path(1, &[SVM1, SVM2], 0), path(2, &[SVM1, SVM3], 0)]);
        let (now, _) =
            PathTable::new(&[], &before, &std::array::from_fn::<_, 20, _>(|port| port == SVM2.index()))
                .unwrap();
        let kept = [1, 101, 2, 102].map(|number| now.find(spi(number)).is_some());
        assert_eq!(kept, [false, false, true, true]);
    }

    #[test]
    fn the_newest_paths_that_left_are_kept() {
        let mut table = PathTable::default();
        for number in 0..3000 {
            let chains = [chain("c", OnFailure::Block, vec![path(number * 1000, &[SVM1], 0)])];
            table = PathTable::new(&chains, &table, &[false; 20]).unwrap().0;
        }
        assert_eq!(table.paths.len(), 2 + DRAINING);
        let kept = |number: u32| table.find(spi(number * 1000)).is_some();
        assert!(kept(2999) && kept(2998) && kept(2999 - 2048) && !kept(2999 - 2049) && !kept(0));
    }

    #[test]
    fn a_service_knows_the_paths_through_it() {
        let (table, _) = table(vec![path(1, &[SVM1, SVM2, SVM1], 0), path(2, &[SVM2], 0)]);
        let through = |port| table.through(port).iter().map(|ix| ix.0).collect::<Vec<_>>();
        assert_eq!(through(SVM1), [0, 0, 2, 2]);
        assert_eq!(through(SVM2), [0, 1, 2, 3]);
        assert!(through(SVM3).is_empty());
        assert!(through(PortId::new(19)).is_empty() && through(PortId::new(u16::MAX)).is_empty());
    }
}
