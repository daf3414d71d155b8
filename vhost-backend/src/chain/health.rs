//! Which services are usable, and what follows for paths and chains.

use std::ops::Range;

use super::tables::Tables;
use super::{ChainIx, PathIx, PortId};
use crate::frame::FlowHash;

/// Up to this many paths of one preference, each is given a weight; above, a flow tries places in turn.
const WEIGHED: usize = 64;
/// Places a flow tries before every path that is up is given a weight.
const TRIES: u64 = 16;

/// Usability of every service, and what is derived from it. Rebuilt whole when one service changes: 16 000 paths of
/// four hops are 64 000 look-ups in one small array.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// By port number.
    usable: Vec<bool>,
    /// By path: how many of its hops are not usable.
    broken_hops: Vec<u8>,
    /// By chain.
    chains: Vec<ChainHealth>,
    /// The paths new flows may take, chain after chain.
    candidates: Vec<PathIx>,
}

#[derive(Clone, Debug)]
struct ChainHealth {
    /// Where its candidates are.
    candidates: Range<usize>,
    /// All paths of the candidates' preference, up or not.
    level: Range<u32>,
    /// The path with the fewest broken hops.
    least_broken: Option<PathIx>,
}

impl Health {
    /// Derives everything from the flags; `usable` is by port number, missing ones are not usable.
    pub(super) fn new(tables: &Tables, mut usable: Vec<bool>) -> Health {
        usable.resize(tables.port_numbers(), false);
        let mut health = Health {
            usable,
            broken_hops: Vec::with_capacity(tables.paths.len()),
            chains: Vec::with_capacity(tables.chains.len()),
            candidates: Vec::with_capacity(tables.paths.len()),
        };
        for (_, path) in tables.paths.iter() {
            let broken = tables.paths.hops(path).iter().filter(|hop| !health.is_usable(**hop)).count();
            health.broken_hops.push(u8::try_from(broken).unwrap_or(u8::MAX));
        }
        for chain in &tables.chains {
            let derived = health.derive(tables, chain);
            health.chains.push(derived);
        }
        health
    }

    fn derive(&mut self, tables: &Tables, chain: &super::tables::Chain) -> ChainHealth {
        let preference = |ix: PathIx| tables.paths.get(ix).map(|path| path.preference);
        let best = chain.path_indices().find(|ix| self.is_up(*ix)).and_then(preference);
        let start = self.candidates.len();
        let (mut from, mut to) = (chain.paths.end, chain.paths.start);
        for ix in chain.path_indices().filter(|ix| best.is_some() && preference(*ix) == best) {
            from = from.min(ix.0);
            to = to.max(ix.0.saturating_add(1));
            if self.is_up(ix) {
                self.candidates.push(ix);
            }
        }
        ChainHealth {
            candidates: start..self.candidates.len(),
            level: from..to.max(from),
            least_broken: chain.path_indices().min_by_key(|ix| self.broken_hops.get(ix.index())),
        }
    }

    pub(super) fn flags(&self) -> &[bool] {
        &self.usable
    }

    #[inline]
    pub(super) fn is_usable(&self, service: PortId) -> bool {
        self.usable.get(service.index()).copied().unwrap_or(false)
    }

    /// All services of the path are usable.
    #[inline]
    pub(super) fn is_up(&self, path: PathIx) -> bool {
        self.broken_hops.get(path.index()) == Some(&0)
    }

    /// The chain has a path that is up.
    #[inline]
    pub(super) fn has_path(&self, chain: ChainIx) -> bool {
        self.chains.get(chain.index()).is_some_and(|chain| !chain.candidates.is_empty())
    }

    /// The path of the chain with the fewest broken hops.
    pub(super) fn least_broken(&self, chain: ChainIx) -> Option<PathIx> {
        self.chains.get(chain.index())?.least_broken
    }

    /// The path a new flow takes: rendezvous hashing among the paths that are up, of the best preference that has one.
    ///
    /// When a path goes down only its own flows choose anew, and when it comes back only the flows it had return to
    /// it. With many paths of one preference, a flow tries places of the whole list in an order of its own and takes the
    /// first path that is up, which has the same property and a constant cost.
    pub(super) fn choose(&self, tables: &Tables, chain: ChainIx, flow: FlowHash) -> Option<PathIx> {
        let derived = self.chains.get(chain.index())?;
        let candidates = self.candidates.get(derived.candidates.clone())?;
        let level = derived.level.end.saturating_sub(derived.level.start);
        if candidates.len() > 1 && level as usize > WEIGHED {
            for attempt in 0..TRIES {
                // High half of a product: an even choice among `level` places.
                let place = (u128::from(flow.weight(attempt)).wrapping_mul(u128::from(level)) >> 64) as u32;
                let path = PathIx(derived.level.start.saturating_add(place));
                if self.is_up(path) {
                    return Some(path);
                }
            }
        }
        match candidates {
            [only] => Some(*only),
            _ => candidates.iter().copied().max_by_key(|ix| {
                // By SPI rather than by place, so that other paths in the tables change nothing.
                let spi = tables.paths.get(*ix).map_or(0, |path| path.spi.get());
                flow.weight(u64::from(spi).wrapping_add(TRIES))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::chain::samples::{chain, path, port};
    use crate::chain::{OnFailure, Role, TablesSpec};
    use crate::frame::{FlowKey, Layer4, Protocol};

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
        Tables::new(&TablesSpec { ports, chains, ..TablesSpec::default() }).unwrap()
    }

    fn flow(number: u32) -> FlowHash {
        let layer4 = Layer4::Ports { protocol: Protocol::TCP, src: (number >> 8) as u16, dst: 80 };
        FlowKey::v4([10, 0, 0, number as u8].into(), [10, 1, 0, 1].into(), layer4, None).hash(42)
    }

    fn spi_of(tables: &Tables, up: &[bool], number: u32) -> Option<u32> {
        let health = Health::new(tables, up.to_vec());
        let path = health.choose(tables, ChainIx(0), flow(number))?;
        Some(tables.paths.get(path).unwrap().spi.get())
    }

    #[test]
    fn flows_spread_evenly() {
        for paths in [2, 3, 7, 64, 65, 200] {
            let tables = tables(&vec![0; paths]);
            let health = Health::new(&tables, vec![true; paths]);
            let mut shares = HashMap::new();
            let flows = paths as u32 * 400;
            for number in 0..flows {
                *shares.entry(health.choose(&tables, ChainIx(0), flow(number)).unwrap()).or_insert(0) += 1;
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
        let health = Health::new(&tables, vec![true, false]);
        assert_eq!([0, 1, 2].map(|ix| health.is_up(PathIx(ix))), [true, false, false]);
        assert!(!health.is_up(PathIx(3)), "no such path");
        assert!(!health.is_usable(PortId::new(77)), "no such port");
        assert_eq!(health.choose(&tables, ChainIx(9), flow(1)), None, "no such chain");
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
            dice in proptest::collection::vec(0.0..1.0_f64, 300),
        ) {
            let tables = tables(&vec![0; paths]);
            let lost = lost.index(paths);
            let mut before: Vec<bool> = dice.iter().take(paths).map(|die| *die < alive).collect();
            before[lost] = true;
            let mut after = before.clone();
            after[lost] = false;
            let (before, after) = (Health::new(&tables, before), Health::new(&tables, after));
            for number in 0..200 {
                let had = before.choose(&tables, ChainIx(0), flow(number)).unwrap();
                let has = after.choose(&tables, ChainIx(0), flow(number));
                if had.index() != lost {
                    prop_assert_eq!(has, Some(had));
                } else if let Some(has) = has {
                    prop_assert!(has.index() != lost && after.is_up(has));
                }
            }
        }
    }
}
