//! Which of many pairs of port ranges has the best rank.
//!
//! ```text
//! destination ports     |    0    |    1    |    2    |    3    |   cut wherever a range begins or ends
//! a tree over them      |    0 and 1        |    2 and 3        |   a range is in few nodes, those it covers whole
//! each node             source ports -> best rank
//! ```
//!
//! A port is in one node of every level, so a look-up is a binary search in each of them: some 15, each among the
//! ranges of that node, for 10 000 ranges.

use super::PolicyIx;
use crate::chain::PortRange;

/// Source and destination ports a policy asks for.
pub(super) type Ranges = (PortRange, PortRange);

/// Pairs of port ranges with ranks.
#[derive(Debug, Default)]
pub(super) struct Spans {
    /// Destination ports at which a leaf of the tree begins; leaf `i` is node `leaves + i`, and node `n` is around `2n`
    /// and `2n + 1`.
    firsts: Vec<u16>,
    /// Where each node's part of `sources` ends; it begins where that of the node before ends.
    ends: Vec<u32>,
    sources: Vec<Source>,
}

/// From this source port on, up to the next one of the node.
#[derive(Clone, Copy, Debug)]
struct Source {
    first: u16,
    best: Option<PolicyIx>,
}

impl Spans {
    /// Of ranges in order of rank.
    pub(super) fn new(ranked: &[(PolicyIx, Ranges)]) -> Spans {
        let firsts = cuts(ranked.iter().map(|(_, (_, dst))| *dst));
        let leaves = firsts.len();
        let mut nodes: Vec<Vec<(PolicyIx, PortRange)>> = vec![Vec::new(); leaves.saturating_mul(2)];
        for (rank, (src, dst)) in ranked {
            let place = |port| firsts.partition_point(|first| *first <= port).saturating_sub(1);
            let (mut from, mut to) = (place(dst.first()) + leaves, place(dst.last()) + 1 + leaves);
            // Upwards on both sides of the range: a node whose sibling is not in it is taken here.
            while from < to {
                if from % 2 == 1 {
                    put(nodes.get_mut(from), *rank, *src);
                    from += 1;
                }
                if to % 2 == 1 {
                    to -= 1;
                    put(nodes.get_mut(to), *rank, *src);
                }
                (from, to) = (from / 2, to / 2);
            }
        }
        let mut spans = Spans { firsts, ends: Vec::with_capacity(nodes.len()), sources: Vec::new() };
        for node in &nodes {
            spans.sources.extend(painted(node));
            spans.ends.push(u32::try_from(spans.sources.len()).unwrap_or(u32::MAX));
        }
        spans
    }

    /// The best rank of those that contain both ports.
    pub(super) fn find(&self, src: u16, dst: u16) -> Option<PolicyIx> {
        let leaf = self.firsts.partition_point(|first| *first <= dst).checked_sub(1)?;
        let up = |node: &usize| Some(node / 2).filter(|node| *node > 0);
        let nodes = std::iter::successors(Some(leaf.saturating_add(self.firsts.len())), up);
        #[cfg(test)]
        let nodes = nodes.inspect(|_| super::tests::NODES.set(super::tests::NODES.get() + 1));
        nodes.filter_map(|node| self.in_node(node, src)).min()
    }

    fn in_node(&self, node: usize, src: u16) -> Option<PolicyIx> {
        let end = *self.ends.get(node)? as usize;
        let start =
            node.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |start| *start as usize);
        let sources = self.sources.get(start..end)?;
        let place = sources.partition_point(|source| source.first <= src).checked_sub(1)?;
        sources.get(place)?.best
    }
}

/// Ports at which one of the ranges begins, or has ended just before; 0 is one.
fn cuts(ranges: impl Iterator<Item = PortRange>) -> Vec<u16> {
    let mut cuts = vec![0];
    for range in ranges {
        cuts.push(range.first());
        cuts.extend(range.last().checked_add(1));
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Unless one of better rank takes every source port already.
fn put(node: Option<&mut Vec<(PolicyIx, PortRange)>>, rank: PolicyIx, src: PortRange) {
    if let Some(node) = node
        && node.last().is_none_or(|(_, last)| *last != PortRange::ALL)
    {
        node.push((rank, src));
    }
}

/// The best rank from each source port on. Every range takes what better ones have left.
fn painted(ranked: &[(PolicyIx, PortRange)]) -> Vec<Source> {
    if ranked.is_empty() {
        return Vec::new();
    }
    let mut sources: Vec<Source> = cuts(ranked.iter().map(|(_, range)| *range))
        .into_iter()
        .map(|first| Source { first, best: None })
        .collect();
    // By place: the first free one from there on, as far as known; shortened whenever it is walked.
    let mut free: Vec<usize> = (0..=sources.len()).collect();
    for (rank, range) in ranked {
        let mut at = sources.partition_point(|source| source.first < range.first());
        loop {
            at = first_free(&mut free, at);
            match sources.get_mut(at) {
                Some(source) if source.first <= range.last() => source.best = Some(*rank),
                _ => break,
            }
            if let Some(next) = free.get_mut(at) {
                *next = at + 1;
            }
        }
    }
    sources.dedup_by_key(|source| source.best);
    sources
}

fn first_free(free: &mut [usize], mut at: usize) -> usize {
    while let Some(next) = free.get(at).copied().filter(|next| *next != at) {
        let beyond = free.get(next).copied().unwrap_or(next);
        if let Some(place) = free.get_mut(at) {
            *place = beyond;
        }
        at = next;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = PortRange> {
        prop_oneof![
            Just(PortRange::ALL),
            (0..20_u16, 0..6_u16).prop_map(|(first, more)| PortRange::new(first, first + more).unwrap()),
            (65_520..=65_535_u16).prop_map(|first| PortRange::new(first, u16::MAX).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn finds_the_first_that_contains_both_ports(ranges in vec((range(), range()), 0..40)) {
            let ranked: Vec<_> = (0..).map(PolicyIx).zip(ranges).collect();
            let spans = Spans::new(&ranked);
            for src in (0..30).chain(65_510..=65_535) {
                for dst in (0..30).chain(65_510..=65_535) {
                    let first = ranked.iter().find(|(_, (s, d))| s.contains(src) && d.contains(dst));
                    prop_assert_eq!(spans.find(src, dst), first.map(|(rank, _)| *rank));
                }
            }
        }
    }

    #[test]
    fn ten_thousand_ranges_of_one_side_are_a_line_each() {
        let narrow = |i: u16| PortRange::new(i * 6, i * 6 + 5).unwrap();
        for turn in [false, true] {
            let both = |i| if turn { (narrow(i), PortRange::ALL) } else { (PortRange::ALL, narrow(i)) };
            let ranked: Vec<_> = (0..10_000).map(|i| (PolicyIx(i.into()), both(i))).collect();
            let spans = Spans::new(&ranked);
            assert!(spans.sources.len() < 20_002);
            let find = |port| if turn { spans.find(port, 7) } else { spans.find(7, port) };
            assert_eq!(
                [0, 5, 6, 59_999, 60_000].map(find).map(|rank| rank.map(|rank| rank.0)),
                [Some(0), Some(0), Some(1), Some(9_999), None]
            );
        }
    }
}
