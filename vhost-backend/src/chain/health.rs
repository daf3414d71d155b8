//! Which services are usable, and what follows for paths and chains.

use std::ops::Range;

use super::ramp::Ramp;
use super::spec::OnFailure;
use super::tables::{Chain, Tables};
use super::{ChainIx, PathIx, PortId};
use crate::frame::FlowHash;
use crate::liveness::Timestamp;

/// Up to this many paths of one preference, each is given a weight; above, a flow tries places in turn.
const WEIGHED: usize = 64;
/// Places a flow tries before every path that is up is given a weight.
const TRIES: u64 = 16;

/// Usability of every service, and what is derived from it.
///
/// A worker asks for [`is_up`](Health::is_up) with every packet: that is a bit, so that 16 000 paths and their reverses
/// are 4 kB. When one service changes, only the paths through it are derived anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// By port number.
    usable: Vec<bool>,
    /// By path: how many of its hops are not usable.
    broken_hops: Vec<u8>,
    /// By path, a bit: none of its hops is broken.
    up: Vec<u64>,
    /// By chain.
    chains: Vec<ChainHealth>,
    /// Services that recovered lately and whose share still grows.
    ramps: Vec<Ramp>,
    /// When the last of them has its whole share.
    settled: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ChainHealth {
    /// The paths new flows may take, as far as they are up: those of the best preference that has one. Empty if no
    /// path is up.
    level: Range<u32>,
    /// The path with the fewest broken hops, of a chain that says `bypass` and has no path up.
    least_broken: Option<PathIx>,
}

impl Health {
    /// Derives everything from the flags; `usable` is by port number, missing ones are not usable. Shares grow as
    /// they did before.
    pub(super) fn new(tables: &Tables, mut usable: Vec<bool>, ramps: Vec<Ramp>) -> Health {
        usable.resize(tables.port_numbers(), false);
        let paths = tables.paths.len();
        let mut health = Health {
            usable,
            broken_hops: Vec::with_capacity(paths),
            up: vec![0; paths.div_ceil(64)],
            chains: Vec::with_capacity(tables.chains.len()),
            ..Health::default()
        }
        .with_ramps(ramps);
        for (ix, path) in tables.paths.iter() {
            let broken = tables.paths.hops(path).iter().filter(|hop| !health.is_usable(**hop)).count();
            health.broken_hops.push(u8::try_from(broken).unwrap_or(u8::MAX));
            health.note_up(ix);
        }
        for chain in &tables.chains {
            let derived = health.derive(chain);
            health.chains.push(derived);
        }
        health
    }

    /// The health after one service became usable, or not: copies a byte for every path and derives those through the
    /// service and their chains.
    #[must_use]
    pub(super) fn with(&self, tables: &Tables, service: PortId, usable: bool) -> Health {
        let ramps = self.ramps.iter().filter(|ramp| ramp.service != service).copied().collect();
        let mut health = self.clone().with_ramps(ramps);
        match health.usable.get_mut(service.index()) {
            Some(flag) if *flag != usable => *flag = usable,
            _ => return health,
        }
        let mut changed: Option<ChainIx> = None;
        for &ix in tables.paths.through(service) {
            if let Some(broken) = health.broken_hops.get_mut(ix.index()) {
                *broken = if usable { broken.saturating_sub(1) } else { broken.saturating_add(1) };
            }
            health.note_up(ix);
            // Paths of a chain are neighbours.
            let chain = tables.paths.get(ix).map(|path| path.chain);
            if chain != changed {
                health.derive_chain(tables, changed);
                changed = chain;
            }
        }
        health.derive_chain(tables, changed);
        health
    }

    /// The same with these shares growing, and no others.
    #[must_use]
    pub(super) fn with_ramps(self, ramps: Vec<Ramp>) -> Health {
        let settled = ramps.iter().map(|ramp| ramp.until).max().unwrap_or_default();
        Health { ramps, settled, ..self }
    }

    /// The same with the share of a service growing from now on.
    #[must_use]
    pub(super) fn with_ramp(self, ramp: Ramp) -> Health {
        let others = self.ramps.iter().filter(|other| other.service != ramp.service);
        let ramps = others.filter(|other| other.until > ramp.since).chain([&ramp]).copied().collect();
        self.with_ramps(ramps)
    }

    /// The shares that grow.
    pub(super) fn ramps(&self) -> &[Ramp] {
        &self.ramps
    }

    /// Every service has its whole share.
    #[inline]
    pub(super) fn is_settled(&self, now: Timestamp) -> bool {
        now >= self.settled
    }

    fn note_up(&mut self, ix: PathIx) {
        let up = self.broken_hops.get(ix.index()) == Some(&0);
        if let Some(word) = self.up.get_mut(ix.index() / 64) {
            *word = *word & !bit(ix) | if up { bit(ix) } else { 0 };
        }
    }

    fn derive_chain(&mut self, tables: &Tables, ix: Option<ChainIx>) {
        let Some((ix, chain)) = ix.and_then(|ix| Some((ix, tables.chain(ix)?))) else { return };
        let derived = self.derive(chain);
        if let Some(chain) = self.chains.get_mut(ix.index()) {
            *chain = derived;
        }
    }

    fn derive(&self, chain: &Chain) -> ChainHealth {
        let up = chain.paths.levels().find(|level| self.up_among(level).next().is_some());
        let least_broken = match &up {
            None if chain.on_failure == OnFailure::Bypass => {
                let paths = chain.paths.all.clone().map(PathIx);
                paths.min_by_key(|ix| self.broken_hops.get(ix.index()))
            }
            _ => None,
        };
        ChainHealth { level: up.unwrap_or_default(), least_broken }
    }

    /// The paths of this range that are up.
    fn up_among(&self, paths: &Range<u32>) -> impl Iterator<Item = PathIx> + use<'_> {
        let (start, end) = (paths.start, paths.end);
        let words = start / 64..end.div_ceil(64);
        let ups = words.zip(self.up.get(start as usize / 64..).unwrap_or_default());
        ups.flat_map(move |(word, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let first = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits.wrapping_sub(1);
                Some(PathIx(word.wrapping_mul(64).wrapping_add(first)))
            })
        })
        .filter(move |ix| start <= ix.0 && ix.0 < end)
    }

    #[inline]
    pub(super) fn is_usable(&self, service: PortId) -> bool {
        self.usable.get(service.index()).copied().unwrap_or(false)
    }

    /// All services of the path are usable.
    #[inline]
    pub(super) fn is_up(&self, path: PathIx) -> bool {
        self.up.get(path.index() / 64).is_some_and(|word| word & bit(path) != 0)
    }

    /// The chain has a path that is up.
    #[inline]
    pub(super) fn has_path(&self, chain: ChainIx) -> bool {
        self.chains.get(chain.index()).is_some_and(|chain| !chain.level.is_empty())
    }

    /// Of a chain that says `bypass` and has no path up: the path a flow takes past the services that are out. That is
    /// the one it had, if no other has fewer of them, else one of the paths that have the fewest, of the best
    /// preference among these.
    pub(super) fn around(
        &self,
        tables: &Tables,
        chain: ChainIx,
        flow: FlowHash,
        had: Option<PathIx>,
    ) -> Option<PathIx> {
        let least = self.chains.get(chain.index())?.least_broken?;
        let as_good = |ix: PathIx| self.goes_around(chain, ix);
        let had = had.filter(|ix| as_good(*ix));
        had.or_else(|| {
            let level = tables.chain(chain)?.paths.levels().find(|level| level.contains(&least.0))?;
            among(tables, &level, flow, as_good, |level| level.map(PathIx).filter(|ix| as_good(*ix)))
        })
    }

    /// Whether its chain says `bypass` and has no path up, and none has fewer services that are out than this one.
    pub(super) fn goes_around(&self, chain: ChainIx, path: PathIx) -> bool {
        let least = self.chains.get(chain.index()).and_then(|chain| chain.least_broken);
        least.is_some_and(|least| self.broken_hops.get(path.index()) == self.broken_hops.get(least.index()))
    }

    /// Of a chain that says `bypass` and has no path up: the paths with the fewest services that are out.
    pub(super) fn least_broken<'a>(
        &'a self,
        chain: ChainIx,
        tables: &'a Tables,
    ) -> impl Iterator<Item = PathIx> {
        let least = self.chains.get(chain.index()).and_then(|chain| chain.least_broken);
        let fewest = least.and_then(|ix| self.broken_hops.get(ix.index()));
        let all = tables.chain(chain).map(|chain| chain.paths.all.clone()).unwrap_or_default();
        all.map(PathIx).filter(move |ix| fewest.is_some() && self.broken_hops.get(ix.index()) == fewest)
    }

    /// The path a new flow takes: rendezvous hashing among the paths that are up, of the best preference that has one.
    /// While the share of a service grows, a flow that its paths do not take yet goes elsewhere, to a worse preference if
    /// need be; where there is nothing else it goes there all the same.
    ///
    /// When a path goes down only its own flows choose anew, and when it comes back only the flows it had return to
    /// it. With many paths of one preference, a flow tries places of the whole list in an order of its own and takes the
    /// first path that is up, which has the same property and a constant cost.
    pub(super) fn choose(
        &self,
        tables: &Tables,
        chain: ChainIx,
        flow: FlowHash,
        now: Timestamp,
    ) -> Option<PathIx> {
        let level = &self.chains.get(chain.index())?.level;
        let slowly = if self.is_settled(now) { None } else { self.choose_slowly(tables, chain, flow, now) };
        let any = || among(tables, level, flow, |ix| self.is_up(ix), |level| self.up_among(&level));
        slowly.or_else(any)
    }

    #[cold]
    fn choose_slowly(
        &self,
        tables: &Tables,
        chain: ChainIx,
        flow: FlowHash,
        now: Timestamp,
    ) -> Option<PathIx> {
        let takes = |ix: PathIx| self.is_up(ix) && self.admits(tables, ix, flow, now);
        tables.chain(chain)?.paths.levels().find_map(|level| {
            among(tables, &level, flow, takes, |level| self.up_among(&level).filter(|ix| takes(*ix)))
        })
    }

    /// Whether all services of a path take this flow already.
    fn admits(&self, tables: &Tables, ix: PathIx, flow: FlowHash, now: Timestamp) -> bool {
        let Some(path) = tables.paths.get(ix) else { return false };
        // Another number than the one that chooses among paths.
        let dice = flow.weight(!u64::from(path.spi.get()));
        let hops = tables.paths.hops(path);
        self.ramps.iter().filter(|ramp| hops.contains(&ramp.service)).all(|ramp| ramp.admits(dice, now))
    }
}

/// The path of a flow among those of one preference that are `good`, which `all` lists.
fn among<I: Iterator<Item = PathIx>>(
    tables: &Tables,
    level: &Range<u32>,
    flow: FlowHash,
    good: impl Fn(PathIx) -> bool,
    all: impl FnOnce(Range<u32>) -> I,
) -> Option<PathIx> {
    let width = level.end.saturating_sub(level.start);
    if width as usize > WEIGHED {
        for attempt in 0..TRIES {
            // High half of a product: an even choice among `width` places.
            let place = (u128::from(flow.weight(attempt)).wrapping_mul(u128::from(width)) >> 64) as u32;
            let path = PathIx(level.start.saturating_add(place));
            if good(path) {
                return Some(path);
            }
        }
    }
    all(level.clone()).max_by_key(|ix| {
        // By SPI rather than by place, so that other paths in the tables change nothing.
        let spi = tables.paths.get(*ix).map_or(0, |path| path.spi.get());
        flow.weight(u64::from(spi).wrapping_add(TRIES))
    })
}

/// The path's bit in its word.
const fn bit(path: PathIx) -> u64 {
    1_u64.wrapping_shl(path.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::chain::samples::{chain, path, port, spi};
    use crate::chain::{PortSpec, Role, TablesSpec};
    use crate::frame::{FlowKey, Layer4, Protocol};

    const NOW: Timestamp = Timestamp::from_nanos(1);

    /// One chain; path `i` has SPI `i + 1`, one service of its own at port `i`, and this preference.
    fn tables(preferences: &[u8]) -> Tables {
        let ports = (0..preferences.len()).map(|i| port(PortId::new(i as u16), Role::Service));
        let paths = (0..).zip(preferences).map(|(i, preference)| {
            let mut path = path(i + 1, &[PortId::new(i as u16)], *preference);
            path.reverse_spi = None;
            path
        });
        let mut ports: Vec<_> = ports.collect();
        ports.iter_mut().for_each(|port| port.mac = None);
        let chains = vec![chain("c", OnFailure::Block, paths.collect())];
        let spec = TablesSpec { ports, chains, ..TablesSpec::default() };
        Tables::new((&spec).into(), &Tables::default()).unwrap()
    }

    fn flow(number: u32) -> FlowHash {
        let layer4 = Layer4::Ports { protocol: Protocol::TCP, src: (number >> 8) as u16, dst: 80 };
        FlowKey::v4([10, 0, 0, number as u8].into(), [10, 1, 0, 1].into(), layer4, None).hash(42)
    }

    fn spi_of(tables: &Tables, up: &[bool], number: u32) -> Option<u32> {
        let health = Health::new(tables, up.to_vec(), Vec::new());
        let path = health.choose(tables, ChainIx(0), flow(number), NOW)?;
        Some(tables.paths.get(path).unwrap().spi.get())
    }

    #[test]
    fn flows_spread_evenly() {
        for paths in [2, 3, 7, 64, 65, 200] {
            let tables = tables(&vec![0; paths]);
            let health = Health::new(&tables, vec![true; paths], Vec::new());
            let mut shares = HashMap::new();
            let flows = paths as u32 * 400;
            for number in 0..flows {
                *shares.entry(health.choose(&tables, ChainIx(0), flow(number), NOW).unwrap()).or_insert(0) +=
                    1;
            }
            assert_eq!(shares.len(), paths);
            let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            assert!(*least > 300 && *most < 500, "{paths} paths: {least} to {most} of 400");
        }
    }

    #[test]
    fn the_best_preference_that_is_up_takes_all() {
        let tables = tables(&[5, 1, 5, 1, 9]);
        let spis = |up: [bool; 5]| {
            let mut spis: Vec<_> = (0..100).filter_map(|number| spi_of(&tables, &up, number)).collect();
            spis.sort_unstable();
            spis.dedup();
            spis
        };
        assert_eq!(spis([true; 5]), [2, 4]);
        assert_eq!(spis([true, true, true, false, true]), [2]);
        assert_eq!(spis([true, false, true, false, true]), [1, 3]);
        assert_eq!(spis([false, false, false, false, true]), [5]);
        assert!(spis([false; 5]).is_empty());
    }

    #[test]
    fn a_path_is_up_when_all_its_services_are() {
        let tables = tables(&[0; 3]);
        let health = Health::new(&tables, vec![true, false], Vec::new());
        assert_eq!([0, 1, 2].map(|ix| health.is_up(PathIx(ix))), [true, false, false]);
        assert!(!health.is_up(PathIx(3)), "no such path");
        assert!(!health.is_usable(PortId::new(77)), "no such port");
        assert_eq!(health.choose(&tables, ChainIx(9), flow(1), NOW), None, "no such chain");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// A path that goes down moves its own flows and no other; when it comes back they return, and no other moves.
        /// On both sides of the bound above which places are tried, and with most paths down.
        #[test]
        fn a_path_moves_only_its_own_flows(
            paths in prop_oneof![2..80_usize, Just(300)],
            alive in prop_oneof![Just(0.02), Just(0.5), Just(1.0)],
            lost: prop::sample::Index,
            loses: bool,
            dice in vec(0.0..1.0_f64, 300),
        ) {
            let tables = tables(&vec![0; paths]);
            let lost = lost.index(paths);
            let mut before: Vec<bool> = dice.iter().take(paths).map(|die| *die < alive).collect();
            before[lost] = true;
            let mut after = before.clone();
            after[lost] = false;
            let before = Health::new(&tables, before, Vec::new());
            let after = if loses { before.with(&tables, PortId::new(lost as u16), false) } else { Health::new(&tables, after, Vec::new()) };
            for number in 0..200 {
                let had = before.choose(&tables, ChainIx(0), flow(number), NOW).unwrap();
                let has = after.choose(&tables, ChainIx(0), flow(number), NOW);
                if had.index() != lost {
                    prop_assert_eq!(has, Some(had));
                } else if let Some(has) = has {
                    prop_assert!(has.index() != lost && after.is_up(has));
                }
            }
        }

        /// Services that go down and come up one after the other leave what all their flags at once give.
        #[test]
        fn one_change_after_the_other_gives_what_all_at_once_give(
            hops in vec(vec(0..12_u16, 1..5), 1..150),
            chains in 1..4_usize,
            levels in 1..4_u8,
            changes in vec((0..13_u16, any::<bool>()), 0..40),
        ) {
            let mut spec = TablesSpec::default();
            spec.ports.extend((0..12).map(|i| PortSpec { mac: None, ..port(PortId::new(i), Role::Service) }));
            for (i, hops) in (1..).zip(hops.chunks(hops.len().div_ceil(chains))) {
                let paths = (0..).zip(hops).map(|(p, hops)| {
                    let hops: Vec<_> = hops.iter().copied().map(PortId::new).collect();
                    path(i * 200 + p, &hops, p as u8 % levels)
                });
                let mut chain = chain(&i.to_string(), OnFailure::Bypass, paths.collect());
                for path in &mut chain.paths {
                    path.reverse_spi = Some(spi(10_000 + path.spi.get()));
                }
                spec.chains.push(chain);
            }
            let tables = Tables::new((&spec).into(), &Tables::default()).unwrap();
            let mut flags = vec![false; 12];
            let mut health = Health::new(&tables, flags.clone(), Vec::new());
            for (service, usable) in changes {
                if let Some(flag) = flags.get_mut(usize::from(service)) {
                    *flag = usable;
                }
                health = health.with(&tables, PortId::new(service), usable);
                prop_assert_eq!(&health, &Health::new(&tables, flags.clone(), Vec::new()));
            }
            for (ix, path) in tables.paths.iter() {
                let all = tables.paths.hops(path).iter().all(|hop| flags[hop.index()]);
                prop_assert_eq!(health.is_up(ix), all);
            }
        }
    }
}
