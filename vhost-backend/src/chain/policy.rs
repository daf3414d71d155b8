//! The policy table: which chain a flow takes.
//!
//! ```text
//! source address --Nests--> every source prefix around it, the longest first
//!                           each: destination address --Nests--> every destination prefix around it
//!                                                                each: Leaf, by VLAN, protocol and ports
//! ```
//!
//! Prefixes contain each other or are apart, so those around an address are a chain, which a binary search finds the
//! end of. A look-up costs as many leaves as the packet has pairs of prefixes around it, however many policies there
//! are, and leaves out what cannot hold a policy of better rank than it has found. A policy is in one leaf.

mod leaf;
mod nest;
mod spans;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::net::IpAddr;

use self::leaf::Leaf;
use self::nest::{Nest, Nests};
use super::matching::{Match, Prefix};
use super::spec::PolicySpec;
use super::{ChainIx, PolicyIx, PortId};
use crate::frame::FlowKey;

/// All policies.
#[derive(Debug, Default)]
pub(super) struct PolicyTable {
    /// The chain of each policy, best rank first.
    chains: Vec<ChainIx>,
    /// Policies about every tenant port.
    tenants: Rules,
    /// Policies about certain ports, by port.
    by_port: Vec<Rules>,
}

/// A policy's rank and what it asks.
type Ranked<'a> = (PolicyIx, &'a Match);

impl PolicyTable {
    /// Takes policies in the order they are listed, with their chains.
    pub(super) fn new<'a>(listed: impl IntoIterator<Item = (&'a PolicySpec, ChainIx)>) -> PolicyTable {
        let mut specs: Vec<_> = listed.into_iter().collect();
        // Stable: the order in the list decides among equal priorities.
        specs.sort_by_key(|(spec, _)| spec.priority);
        let mut tenants: Vec<Ranked<'_>> = Vec::new();
        let mut by_port: Vec<Vec<Ranked<'_>>> = Vec::new();
        for (rank, (spec, _)) in (0..).map(PolicyIx).zip(&specs) {
            let ranked = (rank, &spec.matches);
            let Some(ports) = &spec.from else {
                tenants.push(ranked);
                continue;
            };
            for port in ports {
                if by_port.len() <= port.index() {
                    by_port.resize_with(port.index().saturating_add(1), Vec::new);
                }
                if let Some(rules) = by_port.get_mut(port.index()) {
                    rules.push(ranked);
                }
            }
        }
        PolicyTable {
            chains: specs.iter().map(|(_, chain)| *chain).collect(),
            tenants: Rules::new(&tenants),
            by_port: by_port.iter().map(|rules| Rules::new(rules)).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.chains.len()
    }

    /// The first policy by rank that is about frames of this port and that the flow matches. `tenant`: the port is a
    /// tenant's, so that policies without ports are about it.
    pub(super) fn find(&self, from: PortId, tenant: bool, flow: &FlowKey) -> Option<(PolicyIx, ChainIx)> {
        let best = if tenant { self.tenants.find(flow, None) } else { None };
        let rank = match self.by_port.get(from.index()) {
            Some(rules) => rules.find(flow, best)?,
            None => best?,
        };
        self.chains.get(rank.index()).map(|chain| (rank, *chain))
    }
}

/// Policies about frames of the same ports.
#[derive(Debug, Default)]
struct Rules {
    v4: Pairs<u32>,
    v6: Pairs<u128>,
}

impl Rules {
    /// Of policies in order of rank. One that asks for no address is about both versions of IP.
    fn new(ranked: &[Ranked<'_>]) -> Rules {
        Rules { v4: Pairs::new(ranked, Prefix::span_v4), v6: Pairs::new(ranked, Prefix::span_v6) }
    }

    /// The best-ranked policy that the flow matches, if better than `best`; else `best`.
    fn find(&self, flow: &FlowKey, best: Option<PolicyIx>) -> Option<PolicyIx> {
        match (flow.src(), flow.dst()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4.find(src.to_bits(), dst.to_bits(), flow, best),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.v6.find(src.to_bits(), dst.to_bits(), flow, best),
            _ => best,
        }
    }
}

/// Policies of one version of IP, by their pairs of prefixes. `K` is an address as a number.
#[derive(Debug, Default)]
struct Pairs<K> {
    sources: Nests<K>,
    /// All source prefixes.
    source: Nest,
    /// Destination prefixes, a nest for each source prefix.
    destinations: Nests<K>,
    /// By the value of a source prefix.
    of_source: Vec<Nest>,
    /// By the value of a destination prefix.
    leaves: Vec<Leaf>,
}

/// First and last address of a prefix, as numbers.
type Span<K> = (K, K);

impl<K: Ord + Copy + Default> Pairs<K> {
    /// Of policies in order of rank. `span` gives the addresses of a prefix, all of them for none, and `None` for
    /// prefixes of the other version.
    fn new(ranked: &[Ranked<'_>], span: impl Fn(Option<Prefix>) -> Option<Span<K>>) -> Pairs<K> {
        let placed = ranked.iter().filter_map(|rule| Some((span(rule.1.src)?, span(rule.1.dst)?, *rule)));
        let mut rules: Vec<(Span<K>, Span<K>, Ranked<'_>)> = placed.collect();
        // Outer prefixes before those within them. Stable: a leaf's policies stay in order of rank.
        rules.sort_by_key(|(src, dst, _)| (src.0, Reverse(src.1), dst.0, Reverse(dst.1)));
        let mut pairs = Pairs::default();
        let (mut sources, mut destinations) = (Vec::new(), Vec::new());
        for of_source in rules.chunk_by(|a, b| a.0 == b.0) {
            destinations.clear();
            for of_pair in of_source.chunk_by(|a, b| a.1 == b.1) {
                let Some((_, span, (best, _))) = of_pair.first() else { continue };
                destinations.push(nest::Entry { span: *span, best: *best, value: pairs.leaves.len() });
                pairs.leaves.push(Leaf::new(of_pair.iter().map(|(_, _, ranked)| *ranked)));
            }
            let best = destinations.iter().map(|entry| entry.best).min();
            let (Some((span, ..)), Some(best)) = (of_source.first(), best) else { continue };
            sources.push(nest::Entry { span: *span, best, value: pairs.of_source.len() });
            let nest = pairs.destinations.add(&destinations);
            pairs.of_source.push(nest);
        }
        pairs.source = pairs.sources.add(&sources);
        pairs
    }

    fn find(&self, src: K, dst: K, flow: &FlowKey, mut best: Option<PolicyIx>) -> Option<PolicyIx> {
        let worse = |best: Option<PolicyIx>, rank| best.is_some_and(|best| best <= rank);
        for source in self.sources.around(&self.source, src) {
            if worse(best, source.best) {
                break;
            }
            let Some(nest) = self.of_source.get(source.value()) else { continue };
            for destination in self.destinations.around(nest, dst) {
                if worse(best, destination.best) {
                    break;
                }
                #[cfg(test)]
                tests::LEAVES.set(tests::LEAVES.get() + 1);
                let found = self.leaves.get(destination.value()).and_then(|leaf| leaf.find(flow));
                best = best.into_iter().chain(found).min();
            }
        }
        best
    }
}
