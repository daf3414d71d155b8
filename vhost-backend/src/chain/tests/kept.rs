//! What is kept from one packet to the next spares work and changes nothing.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What may happen between two packets, and a packet.
#[derive(Clone, Copy, Debug)]
enum Step {
    Down(usize),
    Up(usize),
    Recovered(usize),
    Pass(u64),
    /// Other tables: an index into [`variants`].
    Tables(usize),
    Packet {
        kind: Kind,
        client: u16,
    },
}

/// Of the flow between vm5 and vm6 that a client number names.
#[derive(Clone, Copy, Debug)]
enum Kind {
    There,
    Back,
    /// A first fragment and a later one.
    Fragment,
    Later,
    /// From vm7 with vm5's addresses.
    Forged,
    /// To vm6 from the uplink, where the same addresses are learned.
    Far,
    /// To where nobody is.
    Lost,
    /// Ethertype of NSH.
    Nsh,
}

const KINDS: [Kind; 8] =
    [Kind::There, Kind::Back, Kind::Fragment, Kind::Later, Kind::Forged, Kind::Far, Kind::Lost, Kind::Nsh];

fn step() -> impl Strategy<Value = Step> {
    let service = 0..SERVICES.len();
    let kind =
        prop_oneof![4 => Just(Kind::There), 2 => Just(Kind::Back), 2 => prop::sample::select(&KINDS[2..])];
    prop_oneof![
        2 => service.clone().prop_map(Step::Down),
        2 => service.clone().prop_map(Step::Up),
        2 => service.prop_map(Step::Recovered),
        2 => prop_oneof![3 => 0..8_u64, 1 => 250..400_u64].prop_map(Step::Pass),
        1 => (0..6_usize).prop_map(Step::Tables),
        14 => (kind, 0..6_u16).prop_map(|(kind, client)| Step::Packet { kind, client }),
    ]
}

fn frame(kind: Kind, client: u16) -> (PortId, Frame) {
    let udp_frame = |src: Mac, dst: Mac, ip: Ipv4, payload: &[u8]| {
        parse(&ethernet(dst, src, &[], Ipv4::ETHERTYPE, &ip.bytes(payload)))
    };
    let ip = || Ipv4::between(address(VM5), address(VM6), 17);
    let payload = udp(client, 80, 4);
    match kind {
        Kind::There => (VM5, there(client)),
        Kind::Back => (VM6, back(client)),
        Kind::Fragment => {
            let first = Ipv4 { id: client, fragment: 0x2000, ..ip() };
            (VM5, udp_frame(mac(VM5), mac(VM6), first, &udp(client, 80, 16)))
        }
        Kind::Later => {
            (VM5, udp_frame(mac(VM5), mac(VM6), Ipv4 { id: client, fragment: 3, ..ip() }, &[0; 8]))
        }
        Kind::Forged => (VM7, there(client)),
        Kind::Far => (UPLINK, udp_frame(Mac([2, 0, 0, 0, 0, client as u8]), mac(VM6), ip(), &payload)),
        Kind::Lost => (VM5, udp_frame(mac(VM5), Mac([2, 0, 0, 0, 0, client as u8]), ip(), &payload)),
        Kind::Nsh => (VM5, parse(&ethernet(mac(VM6), mac(VM5), &[], nsh::ETHERTYPE, &[0; 40]))),
    }
}

/// Tables to come after each other: with one path less, without policies, with the other direction chained, with every index
/// moved, with an address that moved.
fn variants(of: &TablesSpec) -> [TablesSpec; 6] {
    let mut variants = std::array::from_fn(|_| of.clone());
    let [_, less, none, turned, moved, other] = &mut variants;
    less.chains[0].paths.retain(|path| path.spi != spi(1));
    none.policies.clear();
    turned.policies[0].from = Some(vec![VM6]);
    moved.chains.insert(0, chain("other", OnFailure::Block, vec![path(7, &[SVM8], 0)]));
    let [vm6, vm7] = [VM6, VM7].map(|id| other.ports.iter().position(|port| port.id == id).unwrap());
    (other.ports[vm6].mac, other.ports[vm7].mac) = (other.ports[vm7].mac, other.ports[vm6].mac);
    variants
}

/// So small that flows displace each other.
fn small() -> Steering<'static> {
    Box::leak(Box::new(Learned::new(16, 32, 1, 42))).steering(Box::leak(Box::default()))
}

impl Host {
    fn do_step(&mut self, step: Step, variants: &[TablesSpec]) {
        match step {
            Step::Down(service) => self.down(SERVICES[service]),
            Step::Up(service) => self.up(SERVICES[service]),
            Step::Recovered(service) => {
                self.snapshot = self.snapshot.with_recovered(SERVICES[service], seconds(self.now));
            }
            Step::Pass(time) => self.now += time,
            Step::Tables(index) => self.snapshot = self.snapshot.with_tables(&variants[index]).unwrap(),
            Step::Packet { .. } => {}
        }
    }

    /// As [`deliver`] says, asked only if the last frame like it does not tell.
    fn delivered(&mut self, frame: &Frame) -> Verdict {
        let head = [&frame.dst.0[..], &frame.src.0, &frame.ethertype.to_be_bytes()].concat();
        if let Some(kept) = self.steering.delivered(&self.snapshot, &head) {
            return kept;
        }
        let decision = deliver(&self.snapshot, &self.steering, &Stripped { frame, now: seconds(self.now) });
        if decision.lasting {
            self.steering.keep_delivered(&self.snapshot, &head, decision.verdict);
        }
        decision.verdict
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// One host keeps first hops in flows' records, where its last frames went, and guesses where records are; to another
    /// every packet comes under a snapshot of a new version, so that nothing that was kept is good.
    #[test]
    fn a_host_that_keeps_nothing_decides_alike(
        on_failure in prop::sample::select(OnFailure::ALL.to_vec()),
        failback in prop_oneof![Just(Failback::New), Just(Failback::All)],
        slow_start in prop_oneof![Just(0), Just(10_u64)],
        alike: bool,
        steps in vec(step(), 1..150),
    ) {
        let mut spec = reference(on_failure);
        spec.chains[0].failback = failback;
        spec.ports.iter_mut().for_each(|port| port.slow_start = Duration::from_secs(slow_start));
        if alike {
            spec.chains[0].paths.iter_mut().for_each(|path| path.preference = 0);
        }
        let variants = variants(&spec);
        let [mut quick, mut slow] = [(); 2].map(|()| Host { steering: small(), ..Host::new(&spec) });
        for step in steps {
            quick.do_step(step, &variants);
            slow.do_step(step, &variants);
            let Step::Packet { kind, client } = step else { continue };
            let (from, frame) = frame(kind, client);
            slow.snapshot = slow.snapshot.renumbered();
            let plain = Arrival::new(from, &frame, &slow.steering, seconds(slow.now));
            let likely = frame.flow().and_then(|_| quick.steering.expect_record(plain.hash));
            let guessed = Arrival { likely, ..plain };
            let quickly = classify(&quick.snapshot, &mut quick.steering, &guessed);
            let slowly = classify(&slow.snapshot, &mut slow.steering, &plain);
            prop_assert_eq!(quickly, slowly);
            prop_assert_eq!(&*quick.steering.counts, &*slow.steering.counts);
            prop_assert_eq!(quick.delivered(&frame), slow.delivered(&frame));
        }
    }
}

#[test]
fn a_kept_first_hop_is_of_the_snapshot_it_was_kept_under() {
    let mut host = Host::new(&reference(OnFailure::Block));
    let pinned = |host: &Host| host.steering.counts.pinned_forward;
    assert_eq!((0..3).map(|_| host.spi_of(VM5, &there(1))).collect::<Vec<_>>(), [Some(1); 3]);
    assert_eq!(pinned(&host), 2);
    host.down(SVM2);
    assert_eq!(host.spi_of(VM5, &there(1)), Some(2));
    host.up(SVM2);
    assert_eq!(host.spi_of(VM5, &there(1)), Some(2), "pinned");
    let mut less = reference(OnFailure::Block);
    less.chains[0].paths.retain(|path| path.spi != spi(2));
    host.snapshot = host.snapshot.with_tables(&less).unwrap();
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1));
}

#[test]
fn a_wrong_guess_at_a_record_is_no_matter() {
    let mut host = Host::new(&reference(OnFailure::Block));
    let [one, other] = [1, 2].map(there);
    assert_eq!((host.spi_of(VM5, &one), host.spi_of(VM5, &other)), (Some(1), Some(1)));
    let of = |frame: &Frame, host: &Host| host.steering.hash(frame.flow().unwrap());
    let likely = host.steering.expect_record(of(&other, &host));
    assert!(likely.is_some());
    let arrival = Arrival { likely, ..Arrival::new(VM5, &one, &host.steering, seconds(1)) };
    let decision = classify(&host.snapshot, &mut host.steering, &arrival);
    assert!(matches!(decision.verdict, Verdict::Push { to: SVM1, .. }));
    assert_eq!((host.steering.counts.flows_entered, host.steering.counts.pinned_forward), (2, 1));
}

#[test]
fn where_the_last_frames_went_is_of_the_snapshot_too() {
    let mut spec = reference(OnFailure::Block);
    let [.., mut moved] = variants(&spec);
    spec.policies.clear();
    moved.policies.clear();
    let mut host = Host::new(&spec);
    for to in [VM6, VM7] {
        for _ in 0..2 {
            assert_eq!(host.classify(VM5, &there(1)), Verdict::Deliver(to));
            assert_eq!(host.delivered(&there(1)), Verdict::Deliver(to));
        }
        host.snapshot = host.snapshot.with_tables(&moved).unwrap();
    }
}
