//! The policy table: which chain a flow takes.
//!
//! A tuple space search: policies that ask for the same bits of a [`FlowKey`] share a group, and a group is a hash map
//! from those bits to its policies. A look-up costs one probe per group, however many policies there are, and stops
//! as soon as no remaining group can hold a policy of better rank. Port ranges that are not a single port are compared
//! within the group.

use std::collections::HashMap;

use super::matching::{Match, PortRange};
use super::spec::PolicySpec;
use super::tables::TableHasher;
use super::{ChainIx, PolicyIx, PortId};
use crate::frame::{FlowKey, Ports, word4};

/// One policy, its chain resolved.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) chain: ChainIx,
    from: Option<Vec<PortId>>,
    matches: Match,
}

impl Policy {
    fn is_about(&self, from: PortId, tenant: bool) -> bool {
        self.from.as_ref().map_or(tenant, |ports| ports.contains(&from))
    }
}

/// All policies, best rank first.
#[derive(Debug, Default)]
pub(super) struct PolicyTable {
    ranked: Vec<Policy>,
    /// Policies about every tenant port.
    tenants: Index,
    /// Policies about certain ports, by port.
    by_port: Vec<Index>,
}

impl PolicyTable {
    /// Takes policies in the order they are listed, with their chains.
    pub(super) fn new<'a>(listed: impl IntoIterator<Item = (&'a PolicySpec, ChainIx)>) -> PolicyTable {
        let mut specs: Vec<_> = listed.into_iter().collect();
        // Stable: the order in the list decides among equal priorities.
        specs.sort_by_key(|(spec, _)| spec.priority);
        let mut table = PolicyTable::default();
        for (rank, (spec, chain)) in (0..).zip(specs) {
            let rank = PolicyIx(rank);
            match &spec.from {
                None => table.tenants.insert(rank, &spec.matches),
                Some(ports) => ports.iter().for_each(|port| table.of_port(*port).insert(rank, &spec.matches)),
            }
            table.ranked.push(Policy { chain, from: spec.from.clone(), matches: spec.matches });
        }
        table.tenants.seal();
        table.by_port.iter_mut().for_each(Index::seal);
        table
    }

    fn of_port(&mut self, port: PortId) -> &mut Index {
        if self.by_port.len() <= port.index() {
            self.by_port.resize_with(port.index() + 1, Index::default);
        }
        #[expect(clippy::indexing_slicing, reason = "just made that long; tables are not built per packet")]
        &mut self.by_port[port.index()]
    }

    pub(super) fn len(&self) -> usize {
        self.ranked.len()
    }

    /// The first policy by rank that is about frames of this port and that the flow matches. `tenant`: the port is a
    /// tenant's, so that policies without ports are about it.
    pub(super) fn find(&self, from: PortId, tenant: bool, flow: &FlowKey) -> Option<(PolicyIx, ChainIx)> {
        let rank = if flow.is_partial() {
            // Rare, and pinned in the flow table after the first packet: asking under every mask is not worth it.
            let mut ranks = (0..).map(PolicyIx).zip(&self.ranked);
            ranks.find(|(_, policy)| policy.is_about(from, tenant) && policy.matches.contains(flow))?.0
        } else {
            let best = if tenant { self.tenants.find(flow, None) } else { None };
            match self.by_port.get(from.index()) {
                Some(index) => index.find(flow, best)?,
                None => best?,
            }
        };
        self.ranked.get(rank.index()).map(|policy| (rank, policy.chain))
    }
}

/// Groups of policies, the group with the best-ranked policy first.
#[derive(Debug, Default)]
struct Index {
    groups: Vec<Group>,
}

/// Policies that ask for the bits in `mask`.
#[derive(Debug)]
struct Group {
    mask: [u64; 5],
    best: PolicyIx,
    entries: HashMap<[u64; 5], Vec<Entry>, TableHasher>,
}

/// A policy of a group; those under one key are in order of rank.
#[derive(Clone, Copy, Debug)]
struct Entry {
    rank: PolicyIx,
    src_ports: Option<PortRange>,
    dst_ports: Option<PortRange>,
}

impl Index {
    fn insert(&mut self, rank: PolicyIx, matches: &Match) {
        let (value, mask) = value_and_mask(matches);
        let entry = Entry {
            rank,
            src_ports: matches.src_ports.filter(|range| range.single().is_none()),
            dst_ports: matches.dst_ports.filter(|range| range.single().is_none()),
        };
        // Ranks come in ascending order, so a group's first policy is its best.
        match self.groups.iter_mut().find(|group| group.mask == mask) {
            Some(group) => group.entries.entry(value).or_default().push(entry),
            None => {
                let entries = HashMap::from_iter([(value, vec![entry])]);
                self.groups.push(Group { mask, best: rank, entries });
            }
        }
    }

    fn seal(&mut self) {
        self.groups.sort_by_key(|group| group.best);
    }

    /// The best-ranked policy that the flow matches, if better than `best`; else `best`.
    fn find(&self, flow: &FlowKey, mut best: Option<PolicyIx>) -> Option<PolicyIx> {
        for group in &self.groups {
            if best.is_some_and(|best| best < group.best) {
                break;
            }
            let Some(entries) = group.entries.get(&masked(flow.words(), group.mask)) else { continue };
            if let Some(entry) = entries.iter().find(|entry| entry.contains(flow.ports()))
                && best.is_none_or(|best| entry.rank < best)
            {
                best = Some(entry.rank);
            }
        }
        best
    }
}

impl Entry {
    fn contains(&self, ports: Ports) -> bool {
        match ports {
            Ports::Known { src, dst } => {
                self.src_ports.is_none_or(|range| range.contains(src))
                    && self.dst_ports.is_none_or(|range| range.contains(dst))
            }
            // Whoever asks for ports has HAS_PORTS in the group's mask.
            Ports::Absent | Ports::Unknown => true,
        }
    }
}

fn masked(words: [u64; 5], mask: [u64; 5]) -> [u64; 5] {
    let ([a, b, c, d, e], [ma, mb, mc, md, me]) = (words, mask);
    [a & ma, b & mb, c & mc, d & md, e & me]
}

/// The bits of a flow key that a match asks for, and what they must be.
fn value_and_mask(matches: &Match) -> ([u64; 5], [u64; 5]) {
    let ((src, src_mask), (dst, dst_mask)) = (prefix_words(matches.src), prefix_words(matches.dst));
    let (mut value, mut mask) = (0, 0);
    let mut ask = |bits: u64, wanted: u64| {
        mask |= bits;
        value |= wanted;
    };
    for prefix in [matches.src, matches.dst].into_iter().flatten() {
        ask(word4::V6, if prefix.is_v6() { word4::V6 } else { 0 });
    }
    if let Some(protocol) = matches.protocol {
        ask(word4::PROTOCOL, u64::from(protocol.0) << 8);
    }
    if let Some(vlan) = matches.vlan {
        ask(word4::VLAN_TAGGED | word4::VLAN_ID, word4::VLAN_TAGGED | (u64::from(vlan.get()) << 16));
    }
    for (range, field, shift) in
        [(matches.src_ports, word4::SRC_PORT, 48), (matches.dst_ports, word4::DST_PORT, 32)]
    {
        if let Some(range) = range {
            ask(word4::HAS_PORTS, word4::HAS_PORTS);
            if let Some(port) = range.single() {
                ask(field, u64::from(port) << shift);
            }
        }
    }
    let ([a, b], [c, d], [ma, mb], [mc, md]) = (src, dst, src_mask, dst_mask);
    ([a, b, c, d, value], [ma, mb, mc, md, mask])
}

fn prefix_words(prefix: Option<super::Prefix>) -> ([u64; 2], [u64; 2]) {
    prefix.map_or(([0; 2], [0; 2]), |prefix| prefix.words())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::chain::Prefix;
    use crate::chain::samples::policy;
    use crate::frame::{Layer4, Protocol, VlanId};

    /// The table and, by rank, the place of each policy in the list.
    fn table(specs: &[PolicySpec]) -> (PolicyTable, Vec<usize>) {
        let mut order: Vec<usize> = (0..specs.len()).collect();
        order.sort_by_key(|place| specs[*place].priority);
        let chains = (0..).map(ChainIx);
        (PolicyTable::new(specs.iter().zip(chains)), order)
    }

    /// The place in the list of the first match, found by walking.
    fn naive(specs: &[PolicySpec], from: PortId, tenant: bool, flow: &FlowKey) -> Option<usize> {
        let about = |spec: &PolicySpec| spec.from.as_ref().map_or(tenant, |ports| ports.contains(&from));
        let matching = specs.iter().enumerate().filter(|(_, s)| about(s) && s.matches.contains(flow));
        matching.min_by_key(|(place, spec)| (spec.priority, *place)).map(|(place, _)| place)
    }

    fn udp(src: [u8; 4], dst: [u8; 4], dst_port: u16) -> FlowKey {
        let layer4 = Layer4::Ports { protocol: Protocol::UDP, src: 999, dst: dst_port };
        FlowKey::v4(src.into(), dst.into(), layer4, None)
    }

    #[test]
    fn the_lowest_priority_number_wins_and_the_order_breaks_ties() {
        let specs = [(20, "0.0.0.0/0"), (10, "10.0.0.0/8"), (10, "10.0.0.0/16"), (5, "11.0.0.0/8")].map(
            |(priority, dst)| {
                policy("c", priority, None, Match { dst: Some(dst.parse().unwrap()), ..Match::default() })
            },
        );
        let (table, order) = table(&specs);
        let place =
            |dst| table.find(PortId::new(1), true, &udp([1; 4], dst, 5)).map(|(ix, _)| order[ix.index()]);
        assert_eq!(place([10, 0, 0, 1]), Some(1));
        assert_eq!(place([11, 0, 0, 1]), Some(3));
        assert_eq!(place([12, 0, 0, 1]), Some(0));
    }

    #[test]
    fn policies_without_ports_are_about_tenants() {
        let (any, one) = (PortId::new(1), PortId::new(2));
        let specs = [policy("c", 1, None, Match::default()), policy("c", 2, Some(&[one]), Match::default())];
        let (table, _) = table(&specs);
        let rank = |port, tenant| table.find(port, tenant, &udp([1; 4], [2; 4], 5)).map(|(ix, _)| ix.index());
        assert_eq!(rank(any, true), Some(0));
        assert_eq!(rank(any, false), None);
        assert_eq!(rank(one, false), Some(1));
        assert_eq!(rank(one, true), Some(0));
    }

    #[test]
    fn an_icmp_identifier_is_no_port() {
        let dns = Match { dst_ports: PortRange::new(53, 53), ..Match::default() };
        let range = Match { dst_ports: PortRange::new(50, 60), ..Match::default() };
        let (table, _) = table(&[policy("c", 1, None, dns), policy("c", 2, None, range)]);
        let echo = Layer4::Query { protocol: Protocol::ICMP, id: 53 };
        let echo = FlowKey::v4([1; 4].into(), [2; 4].into(), echo, None);
        assert_eq!(table.find(PortId::new(1), true, &echo), None);
    }

    #[test]
    fn ten_thousand_policies_of_one_shape_are_one_group() {
        let specs: Vec<_> = (0..10_000_u32)
            .map(|i| {
                let dst = Prefix::new(Ipv4Addr::from_bits(0x0A00_0000 + i).into(), 32).unwrap();
                policy("c", i, None, Match { dst: Some(dst), ..Match::default() })
            })
            .collect();
        let (table, _) = table(&specs);
        assert_eq!(table.tenants.groups.len(), 1);
        let [.., a, b] = 9_999_u32.to_be_bytes();
        let found = table.find(PortId::new(1), true, &udp([1; 4], [10, 0, a, b], 5));
        assert_eq!(found.map(|(ix, _)| ix.index()), Some(9_999));
    }

    /// Few distinct values, so that policies and flows meet.
    fn address() -> impl Strategy<Value = u32> {
        (0..4_u32, 0..4_u32).prop_map(|(high, low)| 0x0A00_0000 | high << 16 | low)
    }

    fn prefix(six: bool) -> impl Strategy<Value = Prefix> {
        (address(), prop_oneof![Just(0_u8), Just(8), Just(16), Just(31), Just(32)]).prop_map(
            move |(bits, len)| {
                if six {
                    let bits =
                        u128::from(bits) << 96 & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                    Prefix::new(Ipv6Addr::from_bits(bits).into(), len).unwrap()
                } else {
                    let bits = bits & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                    Prefix::new(Ipv4Addr::from_bits(bits).into(), len).unwrap()
                }
            },
        )
    }

    fn ports() -> impl Strategy<Value = PortRange> {
        (0..8_u16, 0..3_u16).prop_map(|(first, more)| PortRange::new(first, first + more).unwrap())
    }

    fn protocol() -> impl Strategy<Value = Protocol> {
        prop_oneof![Just(Protocol::TCP), Just(Protocol::UDP), Just(Protocol::ICMP)]
    }

    fn vlan() -> impl Strategy<Value = Option<VlanId>> {
        option::weighted(0.3, (0..3_u16).prop_map(|id| VlanId::new(id).unwrap()))
    }

    fn matches() -> impl Strategy<Value = Match> {
        any::<bool>().prop_flat_map(|six| {
            let prefixes = (option::of(prefix(six)), option::of(prefix(six)));
            let both = (option::weighted(0.3, ports()), option::weighted(0.3, ports()));
            (prefixes, option::of(protocol()), both, vlan()).prop_map(
                |((src, dst), protocol, (src_ports, dst_ports), vlan)| Match {
                    src,
                    dst,
                    protocol,
                    src_ports,
                    dst_ports,
                    vlan,
                },
            )
        })
    }

    fn spec() -> impl Strategy<Value = PolicySpec> {
        let from = option::of(vec((0..3_u16).prop_map(PortId::new), 1..3));
        (0..5_u32, from, matches())
            .prop_map(|(priority, from, matches)| policy("c", priority, from.as_deref(), matches))
    }

    fn flow() -> impl Strategy<Value = FlowKey> {
        let layer4 = prop_oneof![
            4 => (protocol(), 0..9_u16, 0..9_u16)
                .prop_map(|(protocol, src, dst)| Layer4::Ports { protocol, src, dst }),
            1 => (protocol(), 0..9_u16).prop_map(|(protocol, id)| Layer4::Query { protocol, id }),
            1 => (option::of(protocol()), any::<u32>())
                .prop_map(|(protocol, id)| Layer4::Datagram { protocol, id }),
            1 => option::of(protocol()).prop_map(|protocol| Layer4::Unreadable { protocol }),
        ];
        (any::<bool>(), address(), address(), layer4, vlan()).prop_map(|(six, src, dst, layer4, vlan)| {
            if six {
                let wide = |bits| Ipv6Addr::from_bits(u128::from(bits) << 96);
                FlowKey::v6(wide(src), wide(dst), layer4, vlan)
            } else {
                FlowKey::v4(Ipv4Addr::from_bits(src), Ipv4Addr::from_bits(dst), layer4, vlan)
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn finds_what_a_walk_over_all_policies_finds(
            specs in vec(spec(), 0..40), flows in vec(flow(), 20), from in 0..4_u16, tenant: bool,
        ) {
            let (table, order) = table(&specs);
            let from = PortId::new(from);
            for flow in flows {
                let found = table.find(from, tenant, &flow);
                let place = naive(&specs, from, tenant, &flow);
                prop_assert_eq!(found.map(|(ix, _)| order[ix.index()]), place);
                prop_assert_eq!(found.map(|(_, chain)| chain.index()), place);
            }
        }
    }
}
