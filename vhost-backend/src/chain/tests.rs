//! The reference scenario end to end, and what hostile or failing neighbours do to it.

use nsh::Ttl;

use super::samples::*;
use super::*;
use crate::frame::samples::{Ipv4, ethernet, icmp, udp};
use crate::frame::{Frame, Mac};

mod kept;
mod no_path;

/// A daemon's decisions: what one worker would do with a frame until it is delivered.
struct Host {
    snapshot: Snapshot,
    steering: Steering<'static>,
    now: u64,
}

impl Host {
    fn new(spec: &TablesSpec) -> Host {
        Host { snapshot: snapshot(spec), steering: steering(), now: 1 }
    }

    fn down(&mut self, service: PortId) {
        self.snapshot = self.snapshot.with_service(service, false);
    }

    fn up(&mut self, service: PortId) {
        self.snapshot = self.snapshot.with_service(service, true);
    }

    fn classify(&mut self, from: PortId, frame: &Frame) -> Verdict {
        let arrival = Arrival::new(from, frame, &self.steering, seconds(self.now));
        classify(&self.snapshot, &mut self.steering, &arrival).verdict
    }

    fn forward(&mut self, from: PortId, number: u32, index: u8) -> Verdict {
        let returned = Return { from, spi: spi(number), si: si(index), ttl: Ttl::ORIGIN };
        forward(&self.snapshot, &returned).verdict
    }

    /// Every hop of the frame as (SPI, service, SI), and the last verdict.
    fn journey(&mut self, from: PortId, frame: &Frame) -> (Vec<(u32, PortId, u8)>, Verdict) {
        let (mut hops, mut ttl) = (Vec::new(), Ttl::ORIGIN);
        let (mut at, spi, mut si) = match self.classify(from, frame) {
            Verdict::Push { to, spi, si } => (to, spi, si),
            verdict => return (hops, verdict),
        };
        loop {
            hops.push((spi.get(), at, si.get()));
            match forward(&self.snapshot, &Return { from: at, spi, si, ttl }).verdict {
                Verdict::Forward { to, si: next, ttl: left } => (at, si, ttl) = (to, next, left),
                Verdict::Strip => {
                    let stripped = Stripped { frame, now: seconds(self.now) };
                    return (hops, deliver(&self.snapshot, &self.steering, &stripped).verdict);
                }
                verdict => return (hops, verdict),
            }
        }
    }

    /// How many packets the chain blocked, allowed and sent past a service.
    fn packets(&self) -> (u64, u64, u64) {
        let [block, allow, bypass] = OnFailure::ALL;
        let packets = self.snapshot.chains().next().unwrap().packets;
        (packets.of(block), packets.of(allow), packets.of(bypass))
    }

    fn spi_of(&mut self, from: PortId, frame: &Frame) -> Option<u32> {
        self.journey(from, frame).0.first().map(|(spi, ..)| *spi)
    }
}

fn there(client: u16) -> Frame {
    datagram(VM5, VM6, client, 80)
}

fn back(client: u16) -> Frame {
    datagram(VM6, VM5, 80, client)
}

#[test]
fn the_reference_scenario() {
    let mut host = Host::new(&reference(OnFailure::Block));
    let (hops, end) = host.journey(VM5, &there(1000));
    assert_eq!(hops, [(1, SVM1, 3), (1, SVM2, 2), (1, SVM3, 1)]);
    assert_eq!(end, Verdict::Deliver(VM6));
    let (hops, end) = host.journey(VM6, &back(1000));
    assert_eq!(hops, [(101, SVM3, 3), (101, SVM2, 2), (101, SVM1, 1)]);
    assert_eq!(end, Verdict::Deliver(VM5));

    host.down(SVM2);
    let (hops, end) = host.journey(VM5, &there(1000));
    assert_eq!(hops, [(2, SVM1, 3), (2, SVM4, 2), (2, SVM3, 1)]);
    assert_eq!(end, Verdict::Deliver(VM6));
    let (hops, _) = host.journey(VM6, &back(1000));
    assert_eq!(hops, [(102, SVM3, 3), (102, SVM4, 2), (102, SVM1, 1)], "replies follow");

    host.down(SVM4);
    let (hops, _) = host.journey(VM5, &there(1000));
    assert_eq!(hops, [(3, SVM1, 4), (3, SVM7, 3), (3, SVM8, 2), (3, SVM3, 1)]);

    host.up(SVM2);
    assert_eq!(host.spi_of(VM5, &there(1000)), Some(3), "the flow stays while its path is usable");
    assert_eq!(host.spi_of(VM6, &back(1000)), Some(103));
    assert_eq!(host.spi_of(VM5, &there(1001)), Some(1), "a new flow prefers SPI 1");

    host.down(SVM1);
    assert_eq!(host.journey(VM5, &there(1000)), (vec![], Verdict::Drop(DropReason::Blocked)));
    assert_eq!(host.packets(), (1, 0, 0));
    let Counts { resteered, pinned_forward, pinned_reverse, .. } = *host.steering.counts;
    assert_eq!((resteered, pinned_forward, pinned_reverse), (2, 1, 3));
}

#[test]
fn a_reply_can_be_what_moves_a_flow() {
    let mut host = Host::new(&reference(OnFailure::Block));
    host.journey(VM5, &there(1));
    host.down(SVM2);
    assert_eq!(host.spi_of(VM6, &back(1)), Some(102));
    assert_eq!(host.spi_of(VM5, &there(1)), Some(2));
}

#[test]
fn a_flow_returns_to_its_path_when_nothing_else_was_up() {
    let mut host = Host::new(&reference(OnFailure::Block));
    host.journey(VM5, &there(1));
    host.down(SVM1);
    assert_eq!(host.classify(VM5, &there(1)), Verdict::Drop(DropReason::Blocked));
    assert_eq!(host.classify(VM5, &there(2)), Verdict::Drop(DropReason::Blocked), "begun while down");
    host.up(SVM1);
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1));
    assert_eq!(host.spi_of(VM5, &there(2)), Some(1));
    assert_eq!(host.spi_of(VM6, &back(2)), Some(101));
}

#[test]
fn allow_skips_the_chain() {
    let mut host = Host::new(&reference(OnFailure::Allow));
    host.down(SVM1);
    assert_eq!(host.journey(VM5, &there(1)), (vec![], Verdict::Deliver(VM6)));
    assert_eq!(host.journey(VM6, &back(1)), (vec![], Verdict::Deliver(VM5)));
    assert_eq!(host.packets(), (0, 2, 0));
    host.up(SVM1);
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1), "back in the chain with its next packet");
}

#[test]
fn bypass_skips_only_what_failed_on_the_least_broken_path() {
    let mut host = Host::new(&reference(OnFailure::Bypass));
    host.down(SVM2);
    assert_eq!(host.spi_of(VM5, &there(1)), Some(2), "nothing is skipped while a path is up");
    assert_eq!(host.packets(), (0, 0, 0));
    host.down(SVM1);
    // SPI 1 lacks svm1 and svm2, SPI 2 only svm1.
    let (hops, end) = host.journey(VM5, &there(1));
    assert_eq!(hops, [(2, SVM4, 2), (2, SVM3, 1)]);
    assert_eq!(end, Verdict::Deliver(VM6));
    assert_eq!(host.packets(), (0, 0, 1));
    let (hops, end) = host.journey(VM6, &back(1));
    assert_eq!(hops, [(102, SVM3, 3), (102, SVM4, 2)], "the last hop is skipped to the terminal");
    assert_eq!(end, Verdict::Deliver(VM5));
    for service in SERVICES {
        host.down(service);
    }
    assert_eq!(host.journey(VM5, &there(1)), (vec![], Verdict::Deliver(VM6)), "nothing is left");
}

#[test]
fn a_frame_on_its_way_to_a_dead_service_is_reflected() {
    for on_failure in [OnFailure::Block, OnFailure::Allow, OnFailure::Bypass] {
        let mut host = Host::new(&reference(on_failure));
        host.down(SVM2);
        assert_eq!(host.forward(SVM1, 1, 3), Verdict::Reflect { failed: SVM2, si: si(2) }, "{on_failure:?}");
        assert_eq!(
            host.forward(SVM2, 1, 2),
            Verdict::Forward { to: SVM3, si: si(1), ttl: Ttl::new(62).unwrap() }
        );
    }
    let mut host = Host::new(&reference(OnFailure::Bypass));
    for service in [SVM2, SVM4, SVM7] {
        host.down(service);
    }
    let skipped = Verdict::Forward { to: SVM3, si: si(1), ttl: Ttl::new(62).unwrap() };
    assert_eq!(host.forward(SVM1, 1, 3), skipped, "no path is up, so the service is skipped");
}

#[test]
fn a_reflected_frame_goes_on_past_the_hops_both_paths_have_in_common() {
    let mut host = Host::new(&reference(OnFailure::Block));
    host.down(SVM2);
    let spi = |n| nsh::Spi::new(n).unwrap();
    let snapshot = &host.snapshot;
    assert_eq!(
        snapshot.resume(spi(1), si(2), spi(2)),
        Some(Onward::Service(SVM4, si(2))),
        "both begin with svm1"
    );
    assert_eq!(
        snapshot.resume(spi(1), si(2), spi(3)),
        Some(Onward::Service(SVM7, si(3))),
        "whatever their lengths"
    );
    assert_eq!(
        snapshot.resume(spi(1), si(1), spi(2)),
        Some(Onward::Service(SVM4, si(2))),
        "svm1 was passed on both, svm2 has no place there"
    );
    assert_eq!(
        snapshot.resume(spi(1), si(2), spi(101)),
        Some(Onward::Service(SVM3, si(3))),
        "that one begins with svm3"
    );
    assert_eq!(snapshot.resume(spi(1), si(2), spi(1)), None, "the next hop is down");
    assert_eq!(snapshot.resume(spi(1), si(9), spi(2)), None, "no such hop");
    assert_eq!(snapshot.resume(spi(1), si(0), spi(2)), None, "nothing is left of it");
}

#[test]
fn a_service_may_send_only_what_it_was_handed() {
    let mut host = Host::new(&reference(OnFailure::Block));
    let drop = Verdict::Drop;
    assert_eq!(host.forward(SVM2, 1, 3), drop(DropReason::ForeignPath), "svm1's hop");
    assert_eq!(host.forward(SVM2, 1, 1), drop(DropReason::ForeignPath), "would skip a service");
    assert_eq!(host.forward(SVM2, 2, 2), drop(DropReason::ForeignPath), "not on this path");
    assert_eq!(host.forward(SVM2, 1, 0), drop(DropReason::ForeignPath), "the terminal entry");
    assert_eq!(host.forward(SVM2, 1, 4), drop(DropReason::NoPath), "above the first SI");
    assert_eq!(host.forward(SVM2, 9, 2), drop(DropReason::NoPath), "no such SPI");
    assert_eq!(host.forward(VM5, 1, 3), drop(DropReason::UnknownPort));
    assert_eq!(host.forward(PortId::new(999), 1, 3), drop(DropReason::UnknownPort));
    assert_eq!(host.snapshot.received_as(SVM2, spi(1), si(2)), Some(si(2)));
    assert_eq!(host.snapshot.received_as(SVM2, spi(1), si(1)), None);
}

#[test]
fn a_service_that_decrements_si_itself() {
    let mut spec = reference(OnFailure::Block);
    for port in spec.ports.iter_mut().filter(|port| port.role == Role::Service) {
        port.si_decrement = SiDecrement::Service;
    }
    let mut host = Host::new(&spec);
    let ttl = Ttl::new(62).unwrap();
    assert_eq!(host.forward(SVM1, 1, 2), Verdict::Forward { to: SVM2, si: si(2), ttl });
    assert_eq!(host.forward(SVM3, 1, 0), Verdict::Strip);
    assert_eq!(host.forward(SVM1, 1, 3), Verdict::Drop(DropReason::NoPath), "it did not decrement");
    assert_eq!(host.forward(SVM1, 1, 1), Verdict::Drop(DropReason::ForeignPath));
    assert_eq!(host.forward(SVM1, 1, 255), Verdict::Drop(DropReason::NoPath));
    assert_eq!(host.snapshot.received_as(SVM1, spi(1), si(2)), Some(si(3)));
}

#[test]
fn time_to_live_as_rfc_8300_says() {
    let host = Host::new(&reference(OnFailure::Block));
    let forwarded = |ttl: u8| {
        let returned = Return { from: SVM1, spi: spi(1), si: si(3), ttl: Ttl::new(ttl).unwrap() };
        forward(&host.snapshot, &returned).verdict
    };
    let with = |ttl: u8| Verdict::Forward { to: SVM2, si: si(2), ttl: Ttl::new(ttl).unwrap() };
    assert_eq!(forwarded(63), with(62));
    assert_eq!(forwarded(2), with(1));
    assert_eq!(forwarded(1), Verdict::Drop(DropReason::TtlExpired));
    assert_eq!(forwarded(0), with(63), "sent by implementations older than the field");
}

#[test]
fn tenants_cannot_forge() {
    let mut host = Host::new(&reference(OnFailure::Block));
    let frame = |dst: Mac, src: Mac, tags: &[(u16, u16)], ethertype: u16| {
        parse(&ethernet(dst, src, tags, ethertype, &[0; 46]))
    };
    let drop = Verdict::Drop;
    for tags in [&[][..], &[(0x8100, 1)], &[(0x88A8, 1), (0x8100, 2)]] {
        let forged = frame(mac(SVM1), mac(VM5), tags, nsh::ETHERTYPE);
        assert_eq!(host.classify(VM5, &forged), drop(DropReason::ForgedNsh));
    }
    let stripped = frame(mac(VM6), mac(VM5), &[], nsh::ETHERTYPE);
    let inner = Stripped { frame: &stripped, now: seconds(1) };
    assert_eq!(deliver(&host.snapshot, &host.steering, &inner).verdict, drop(DropReason::ForgedNsh));
    let arp = |dst, src| frame(dst, src, &[], 0x0806);
    assert_eq!(host.classify(VM5, &arp(mac(VM6), mac(VM7))), drop(DropReason::ForgedSource));
    assert_eq!(host.classify(VM5, &arp(mac(VM6), mac(SVM1))), drop(DropReason::ForgedSource));
    assert_eq!(host.classify(UPLINK, &arp(mac(VM6), mac(VM7))), drop(DropReason::ForgedSource));
    assert_eq!(host.classify(VM5, &arp(mac(VM6), Mac([0; 6]))), drop(DropReason::InvalidSource));
    assert_eq!(host.classify(VM5, &arp(mac(VM6), Mac::BROADCAST)), drop(DropReason::InvalidSource));
    assert_eq!(host.classify(VM5, &arp(mac(SVM1), mac(VM5))), drop(DropReason::ToService));
    assert_eq!(host.classify(SVM1, &arp(mac(VM6), mac(SVM1))), drop(DropReason::UnknownPort));
    assert_eq!(host.classify(VM5, &arp(mac(VM5), mac(VM5))), drop(DropReason::Hairpin));
    let pause = Mac([1, 0x80, 0xC2, 0, 0, 1]);
    assert_eq!(host.classify(VM5, &arp(pause, mac(VM5))), drop(DropReason::LinkConstrained));
}

#[test]
fn unknown_and_group_addresses_flood_among_tenants() {
    let mut host = Host::new(&reference(OnFailure::Block));
    let stranger = Mac([2, 0, 0, 0, 0, 1]);
    for dst in [Mac::BROADCAST, Mac([0x33, 0x33, 0, 0, 0, 1]), stranger] {
        let arp = parse(&ethernet(dst, mac(VM5), &[], 0x0806, &[0; 28]));
        assert_eq!(host.classify(VM5, &arp), Verdict::Flood { except: Some(VM5) });
    }
    assert_eq!(host.snapshot.flood_ports(), [UPLINK, VM5, VM6, VM7], "never to services");
    // A chained broadcast floods at its end, but not back to its source.
    let packet = Ipv4::between(address(VM5), [255; 4], 17).bytes(&udp(68, 67, 4));
    let broadcast = parse(&ethernet(Mac::BROADCAST, mac(VM5), &[], Ipv4::ETHERTYPE, &packet));
    let (hops, end) = host.journey(VM5, &broadcast);
    assert_eq!((hops.len(), end), (3, Verdict::Flood { except: Some(VM5) }));
}

#[test]
fn stations_behind_the_uplink_are_learned() {
    let mut host = Host::new(&reference(OnFailure::Block));
    let gateway = Mac([2, 0, 0, 0, 0, 1]);
    let from_gateway = parse(&ethernet(mac(VM5), gateway, &[], 0x0806, &[0; 28]));
    assert_eq!(host.classify(UPLINK, &from_gateway), Verdict::Deliver(VM5));
    let to_gateway = parse(&ethernet(gateway, mac(VM6), &[], 0x0806, &[0; 28]));
    assert_eq!(host.classify(VM6, &to_gateway), Verdict::Deliver(UPLINK));
    // vm7 claims to be the gateway: its frame passes, but the address stays where it is.
    let claim = parse(&ethernet(mac(VM5), gateway, &[], 0x0806, &[0; 28]));
    host.classify(VM7, &claim);
    assert_eq!(host.classify(VM6, &to_gateway), Verdict::Deliver(UPLINK));
    host.now += 301;
    assert_eq!(host.classify(VM6, &to_gateway), Verdict::Flood { except: Some(VM6) }, "forgotten");
}

#[test]
fn both_ends_reach_one_record_through_the_uplink() {
    let mut host = Host::new(&reference(OnFailure::Block));
    let gateway = Mac([2, 0, 0, 0, 0, 1]);
    let arp = parse(&ethernet(Mac::BROADCAST, gateway, &[], 0x0806, &[0; 28]));
    host.classify(UPLINK, &arp);
    let out = Ipv4::between(address(VM5), [192, 0, 2, 1], 17).bytes(&udp(9, 53, 4));
    let out = parse(&ethernet(gateway, mac(VM5), &[], Ipv4::ETHERTYPE, &out));
    let reply = Ipv4::between([192, 0, 2, 1], address(VM5), 17).bytes(&udp(53, 9, 4));
    let reply = parse(&ethernet(mac(VM5), gateway, &[], Ipv4::ETHERTYPE, &reply));
    assert_eq!(host.journey(VM5, &out).1, Verdict::Deliver(UPLINK));
    assert_eq!(host.spi_of(UPLINK, &reply), Some(101));
    let other = Ipv4::between([192, 0, 2, 1], address(VM5), 17).bytes(&udp(53, 10, 4));
    let other = parse(&ethernet(mac(VM5), gateway, &[], Ipv4::ETHERTYPE, &other));
    assert_eq!(
        host.classify(UPLINK, &other),
        Verdict::Deliver(VM5),
        "not a reply, and no policy of the uplink"
    );
}

#[test]
fn a_tenant_that_forges_ip_addresses_steers_only_itself() {
    let mut spec = reference(OnFailure::Block);
    spec.policies.push(policy("inspect", 200, Some(&[VM7]), Match::default()));
    let mut host = Host::new(&spec);
    // vm7 begins "vm6's" flow to vm5 before vm6 does: its record is not vm6's.
    let packet = Ipv4::between(address(VM6), address(VM5), 17).bytes(&udp(80, 1000, 4));
    let forged = parse(&ethernet(mac(VM5), mac(VM7), &[], Ipv4::ETHERTYPE, &packet));
    assert_eq!(host.spi_of(VM7, &forged), Some(1));
    assert_eq!(host.spi_of(VM5, &there(1000)), Some(1), "a first packet, not a reply to vm7");
    assert_eq!(host.spi_of(VM6, &back(1000)), Some(101));
}

#[test]
fn the_first_direction_unchained_does_not_keep_the_other_out() {
    let mut host = Host::new(&reference(OnFailure::Block));
    // vm6 opens the flow; only vm5's packets have a policy.
    assert_eq!(host.journey(VM6, &back(1)), (vec![], Verdict::Deliver(VM5)));
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1));
    assert_eq!(host.spi_of(VM6, &back(1)), Some(101), "from now on, both directions on one path");
}

#[test]
fn replies_without_a_reverse_path_are_not_chained() {
    let mut spec = reference(OnFailure::Block);
    spec.chains[0].paths.iter_mut().for_each(|path| path.reverse_spi = None);
    let mut host = Host::new(&spec);
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1));
    assert_eq!(host.journey(VM6, &back(1)), (vec![], Verdict::Deliver(VM5)));
}

#[test]
fn fragments_follow_the_first_of_their_datagram() {
    let mut spec = reference(OnFailure::Block);
    let web = Match { dst_ports: PortRange::new(80, 80), ..Match::default() };
    spec.policies = vec![policy("inspect", 1, Some(&[VM5]), web)];
    let mut host = Host::new(&spec);
    let fragment = |from, to, id, field, payload: &[u8]| {
        let ip = Ipv4 { id, fragment: field, ..Ipv4::between(address(from), address(to), 17) };
        parse(&ethernet(mac(to), mac(from), &[], Ipv4::ETHERTYPE, &ip.bytes(payload)))
    };
    let later = |id| fragment(VM5, VM6, id, 3, &[0; 8]);
    assert_eq!(host.spi_of(VM5, &fragment(VM5, VM6, 1, 0x2000, &udp(9, 80, 16))), Some(1));
    assert_eq!(host.spi_of(VM5, &later(1)), Some(1));
    assert_eq!(host.spi_of(VM5, &fragment(VM5, VM6, 2, 0x2000, &udp(9, 81, 16))), None);
    assert_eq!(host.spi_of(VM5, &later(2)), None);
    assert_eq!(host.spi_of(VM5, &later(3)), Some(1), "its first was not seen: it might be to port 80");
    // Replies in fragments take the reverse path.
    assert_eq!(host.spi_of(VM6, &fragment(VM6, VM5, 4, 0x2000, &udp(80, 9, 16))), Some(101));
    assert_eq!(host.spi_of(VM6, &fragment(VM6, VM5, 4, 3, &[0; 8])), Some(101));
    host.down(SVM2);
    assert_eq!(host.spi_of(VM5, &later(1)), Some(2));
    assert_eq!(host.spi_of(VM6, &fragment(VM6, VM5, 4, 3, &[0; 8])), Some(102), "still a reply");
}

#[test]
fn an_echo_and_its_reply_share_a_path() {
    let mut host = Host::new(&reference(OnFailure::Block));
    let ping = |from, to, kind| {
        let packet = Ipv4::between(address(from), address(to), 1).bytes(&icmp(kind, 7));
        parse(&ethernet(mac(to), mac(from), &[], Ipv4::ETHERTYPE, &packet))
    };
    assert_eq!(host.spi_of(VM5, &ping(VM5, VM6, 8)), Some(1));
    assert_eq!(host.spi_of(VM6, &ping(VM6, VM5, 0)), Some(101));
    assert_eq!(host.spi_of(VM6, &ping(VM6, VM5, 8)), Some(101), "the same identifier is the same flow");
}

#[test]
fn new_tables_keep_flows_where_the_policies_still_want_them() {
    let spec = reference(OnFailure::Block);
    let mut host = Host::new(&spec);
    host.down(SVM2);
    assert_eq!(host.spi_of(VM5, &there(1)), Some(2));
    host.up(SVM2);

    // A chain and a port before the others: every index moves, the flow does not.
    let mut more = spec.clone();
    more.generation = Generation(2);
    more.chains.insert(0, chain("other", OnFailure::Block, vec![path(7, &[SVM8], 0)]));
    host.snapshot = host.snapshot.with_tables(&more).unwrap();
    assert_eq!(host.snapshot.generation(), Generation(2));
    assert_eq!(host.spi_of(VM5, &there(1)), Some(2));
    assert_eq!(host.spi_of(VM6, &back(1)), Some(102));
    assert_eq!(host.steering.counts.resteered, 0);

    // Its path leaves: it moves. Its policy names another chain: it moves there. No policy: it is plain.
    more.chains[1].paths.retain(|path| path.spi != spi(2));
    host.snapshot = host.snapshot.with_tables(&more).unwrap();
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1));
    assert_eq!(host.steering.counts.resteered, 1);
    more.policies[0].chain = "other".into();
    host.snapshot = host.snapshot.with_tables(&more).unwrap();
    assert_eq!(host.spi_of(VM5, &there(1)), Some(7));
    more.policies.clear();
    host.snapshot = host.snapshot.with_tables(&more).unwrap();
    assert_eq!(host.journey(VM5, &there(1)), (vec![], Verdict::Deliver(VM6)));
}

#[test]
fn frames_on_a_path_that_leaves_the_tables_reach_its_end() {
    let spec = reference(OnFailure::Block);
    let mut host = Host::new(&spec);
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1));
    let mut less = spec.clone();
    less.chains[0].paths.retain(|path| path.spi != spi(1));
    host.snapshot = host.snapshot.with_tables(&less).unwrap();
    assert!(matches!(host.forward(SVM1, 1, 3), Verdict::Forward { to: SVM2, .. }));
    assert!(matches!(host.forward(SVM2, 1, 2), Verdict::Forward { to: SVM3, .. }));
    assert_eq!(host.forward(SVM3, 1, 1), Verdict::Strip);
    assert_eq!(host.forward(SVM3, 1, 2), Verdict::Drop(DropReason::ForeignPath), "by the rules of any path");
    host.down(SVM2);
    assert!(matches!(host.forward(SVM1, 1, 3), Verdict::Reflect { failed: SVM2, .. }));
    assert_eq!(host.snapshot.path_is_up(spi(1)), None, "it is not in the tables");
    assert!(host.snapshot.paths().all(|path| path.spi != spi(1)));
    assert_eq!(host.spi_of(VM5, &there(1)), Some(2));
}
