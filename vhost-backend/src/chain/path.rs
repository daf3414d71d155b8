//! The path table: (SPI, SI) to the next hop.

use std::collections::HashMap;

use nsh::{Si, Spi};

use super::spec::PathSpec;
use super::tables::TableHasher;
use super::{ChainIx, PathIx, PortId};

/// A service path or the reverse of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// Its identifier.
    pub(super) spi: Spi,
    /// The chain it embeds.
    pub(super) chain: ChainIx,
    /// The path of the other direction.
    pub(super) reverse: Option<PathIx>,
    /// It is for replies: never chosen for a new flow.
    pub(super) is_reverse: bool,
    /// New flows prefer the lowest.
    pub(super) preference: u8,
    /// Where its hops begin in the table's array.
    first_hop: u32,
    /// How many there are, which is the SI of the first.
    len: u8,
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

/// All paths and reverse paths. Paths of one chain are neighbours, in order of preference, then of declaration.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    paths: Vec<Path>,
    hops: Vec<PortId>,
    by_spi: HashMap<Spi, PathIx, TableHasher>,
}

impl PathTable {
    /// Adds a chain's paths, then the reverse paths of them; returns the index of the first and how many come, without
    /// the reverse ones.
    pub(super) fn add_chain(&mut self, chain: ChainIx, specs: &[PathSpec]) -> std::ops::Range<u32> {
        let mut specs: Vec<&PathSpec> = specs.iter().collect();
        specs.sort_by_key(|spec| spec.preference);
        let start = self.next_index();
        let mut forward = Vec::with_capacity(specs.len());
        for spec in &specs {
            forward.push(self.add(spec.spi, chain, spec, false, None));
        }
        let end = self.next_index();
        for (spec, ix) in specs.iter().zip(forward) {
            let Some(spi) = spec.reverse_spi else { continue };
            let reverse = self.add(spi, chain, spec, true, Some(ix));
            if let Some(path) = self.paths.get_mut(ix.index()) {
                path.reverse = Some(reverse);
            }
        }
        start..end
    }

    fn next_index(&self) -> u32 {
        u32::try_from(self.paths.len()).unwrap_or(u32::MAX)
    }

    fn add(
        &mut self,
        spi: Spi,
        chain: ChainIx,
        spec: &PathSpec,
        is_reverse: bool,
        reverse: Option<PathIx>,
    ) -> PathIx {
        let ix = PathIx(self.next_index());
        let first_hop = u32::try_from(self.hops.len()).unwrap_or(u32::MAX);
        let len = u8::try_from(spec.hops.len()).unwrap_or(u8::MAX);
        if is_reverse {
            self.hops.extend(spec.hops.iter().rev());
        } else {
            self.hops.extend(&spec.hops);
        }
        let preference = spec.preference;
        self.paths.push(Path { spi, chain, reverse, is_reverse, preference, first_hop, len });
        self.by_spi.insert(spi, ix);
        ix
    }

    /// Every path, in index order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PathIx, &Path)> {
        (0..).map(PathIx).zip(&self.paths)
    }

    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    #[inline]
    pub(super) fn get(&self, ix: PathIx) -> Option<&Path> {
        self.paths.get(ix.index())
    }

    #[inline]
    pub(super) fn find(&self, spi: Spi) -> Option<PathIx> {
        self.by_spi.get(&spi).copied()
    }

    /// The services of a path in order.
    #[inline]
    pub(super) fn hops(&self, path: &Path) -> &[PortId] {
        let start = path.first_hop as usize;
        self.hops.get(start..start.saturating_add(usize::from(path.len))).unwrap_or_default()
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
}
