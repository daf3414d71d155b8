//! What the policy table finds is what a walk over all policies finds.

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::chain::samples::policy;
use crate::chain::{PortRange, Prefix};
use crate::frame::{Layer4, Protocol, VlanId};

thread_local! {
    /// Leaves that look-ups on this thread have looked into, and nodes of trees in them.
    pub(super) static LEAVES: Cell<usize> = const { Cell::new(0) };
    pub(super) static NODES: Cell<usize> = const { Cell::new(0) };
}

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
    let place = |dst| table.find(PortId::new(1), true, &udp([1; 4], dst, 5)).map(|(ix, _)| order[ix.index()]);
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

/// Every policy is found by a packet of its own, whatever the policies are told apart by.
#[test]
fn ten_thousand_policies_are_told_apart() {
    let host = |base: u32, i: u32| Prefix::new(Ipv4Addr::from_bits(base + i).into(), 32).ok();
    fn port(i: u32) -> Option<PortRange> {
        PortRange::new(i as u16 * 6, i as u16 * 6 + 5)
    }
    type Shape = fn(u32, Option<Prefix>, Option<Prefix>) -> Match;
    let shapes: [Shape; 4] = [
        |_, src, dst| Match { src, dst, ..Match::default() },
        |_, _, dst| Match { dst, ..Match::default() },
        |i, src, _| Match { src: src.filter(|_| i % 2 == 0), dst_ports: port(i), ..Match::default() },
        |i, _, _| Match { dst_ports: port(i), protocol: Some(Protocol::UDP), ..Match::default() },
    ];
    for (number, shape) in shapes.iter().enumerate() {
        let specs: Vec<_> = (0..10_000_u32)
            .map(|i| policy("c", i, None, shape(i, host(0x0A00_0000, i), host(0x0B00_0000, i))))
            .collect();
        let (table, _) = table(&specs);
        // One shape has two source prefixes around each even source: its own and none.
        let (most, height) = (if number == 2 { 2 } else { 1 }, 16);
        for i in 0..10_000_u32 {
            LEAVES.set(0);
            NODES.set(0);
            let [.., a, b] = i.to_be_bytes();
            let packet = udp([10, 0, a, b], [11, 0, a, b], i as u16 * 6 + (i % 6) as u16);
            let found = table.find(PortId::new(1), true, &packet);
            assert_eq!(found.map(|(ix, _)| ix.index()), Some(i as usize), "shape {number}");
            assert!(LEAVES.get() <= most, "shape {number}: {} leaves for one packet", LEAVES.get());
            assert!(NODES.get() <= most * height, "shape {number}: {} nodes for one packet", NODES.get());
        }
        assert_eq!(table.find(PortId::new(1), true, &udp([1; 4], [2; 4], 65_000)), None);
    }
}

/// Few distinct values, so that policies and flows meet.
fn address() -> impl Strategy<Value = u32> {
    (0..4_u32, 0..4_u32).prop_map(|(high, low)| 0x0A00_0000 | high << 16 | low)
}

fn prefix(six: bool) -> impl Strategy<Value = Prefix> {
    (address(), prop_oneof![Just(0_u8), Just(8), Just(16), Just(31), Just(32)]).prop_map(
        move |(bits, len)| {
            if six {
                let bits = u128::from(bits) << 96 & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
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

    /// The same with so many policies for the same addresses that they are told apart by the rest.
    #[test]
    fn finds_what_a_walk_over_policies_of_the_same_addresses_finds(
        specs in vec(spec(), 0..150), flows in vec(flow(), 30), keep: bool,
    ) {
        let specs: Vec<_> = specs.into_iter().map(|mut spec| {
            spec.from = None;
            if !keep {
                (spec.matches.src, spec.matches.dst) = (None, None);
            }
            spec.matches.src = None;
            spec
        }).collect();
        let (table, order) = table(&specs);
        for flow in flows {
            let found = table.find(PortId::new(1), true, &flow);
            prop_assert_eq!(found.map(|(ix, _)| order[ix.index()]), naive(&specs, PortId::new(1), true, &flow));
        }
    }
}
