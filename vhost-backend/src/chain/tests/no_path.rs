//! What becomes of packets when no path of their chain is up, and when one comes back.

use std::collections::HashMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// SPI 1 before SPI 2 before SPI 3, or all three alike.
fn tables(on_failure: OnFailure, failback: Failback, slow_start: u64, alike: bool) -> TablesSpec {
    let mut spec = reference(on_failure);
    spec.chains[0].failback = failback;
    if alike {
        spec.chains[0].paths.iter_mut().for_each(|path| path.preference = 0);
    }
    spec.ports.iter_mut().for_each(|port| port.slow_start = Duration::from_secs(slow_start));
    spec
}

impl Host {
    fn recovered(&mut self, service: PortId) {
        self.snapshot = self.snapshot.with_recovered(service, seconds(self.now));
    }

    /// The path of each of these flows.
    fn spis(&mut self, clients: std::ops::Range<u16>) -> Vec<u32> {
        clients.map(|client| self.spi_of(VM5, &there(client)).unwrap()).collect()
    }

    fn mode(&self) -> ChainMode {
        self.snapshot.chains().next().unwrap().mode
    }
}

fn share(spis: &[u32], spi: u32) -> usize {
    spis.iter().filter(|one| **one == spi).count()
}

#[test]
fn pinned_flows_move_back_only_if_the_chain_says_so() {
    for (failback, after) in [(Failback::New, [2, 102]), (Failback::All, [1, 101])] {
        let mut host = Host::new(&tables(OnFailure::Block, failback, 0, false));
        assert_eq!(host.spi_of(VM5, &there(1)), Some(1));
        host.down(SVM2);
        assert_eq!(host.spi_of(VM5, &there(1)), Some(2));
        host.recovered(SVM2);
        let now = [host.spi_of(VM5, &there(1)), host.spi_of(VM6, &back(1))];
        assert_eq!(now, after.map(Some), "{failback:?}");
        assert_eq!(host.spi_of(VM5, &there(2)), Some(1), "a new flow uses the path at once");
        assert_eq!(host.steering.counts.resteered, 1 + u64::from(failback == Failback::All));
    }
}

#[test]
fn flows_that_share_their_paths_move_back_to_their_own() {
    let mut host = Host::new(&tables(OnFailure::Block, Failback::All, 0, true));
    let before = host.spis(0..300);
    host.down(SVM2);
    let meanwhile = host.spis(0..300);
    assert!(before.iter().zip(&meanwhile).all(|(had, has)| *has != 1 && (*had == 1 || had == has)));
    host.recovered(SVM2);
    assert_eq!(host.spis(0..300), before);
}

#[test]
fn a_reply_can_be_what_moves_a_flow_back() {
    let mut host = Host::new(&tables(OnFailure::Block, Failback::All, 0, false));
    host.down(SVM2);
    host.spi_of(VM5, &there(1));
    host.recovered(SVM2);
    assert_eq!(host.spi_of(VM6, &back(1)), Some(101));
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1));
}

#[test]
fn a_recovered_service_is_given_new_flows_little_by_little() {
    let mut host = Host::new(&tables(OnFailure::Block, Failback::New, 10, false));
    host.down(SVM2);
    host.spi_of(VM5, &there(9999));
    host.now = 100;
    host.recovered(SVM2);
    let mut before = 0;
    for passed in 0..=10_u16 {
        host.now = 100 + u64::from(passed);
        // As many as the flow table of these tests has room for.
        let spis = host.spis(passed * 80..passed * 80 + 80);
        let taken = share(&spis, 1);
        assert_eq!(taken + share(&spis, 2), 80, "the others go where they went");
        assert!(taken.abs_diff(usize::from(passed) * 8) < 15, "{taken} of 80 after {passed} s");
        before = taken;
    }
    assert_eq!(before, 80);
    assert_eq!(host.spi_of(VM5, &there(9999)), Some(2), "a pinned flow stays");
    assert_eq!(share(&host.spis(0..80), 2), 80, "and so do those of the first second");
}

#[test]
fn a_share_of_alike_paths_grows_to_what_it_was() {
    let mut host = Host::new(&tables(OnFailure::Block, Failback::All, 10, true));
    let before = host.spis(0..1000);
    host.down(SVM2);
    host.now = 50;
    host.recovered(SVM2);
    let mut taken = vec![false; 1000];
    for now in 50..=60 {
        host.now = now;
        for ((taken, had), has) in taken.iter_mut().zip(&before).zip(host.spis(0..1000)) {
            assert!(has == *had || (*had == 1 && !*taken), "a flow moves once, and only to where it was");
            *taken = has == 1;
        }
        let (all, now_taken) = (share(&before, 1), taken.iter().filter(|taken| **taken).count());
        let expected = all * (now as usize - 50) / 10;
        assert!(now_taken.abs_diff(expected) < all / 8, "{now_taken} of {all}, {expected} expected");
    }
    assert_eq!(host.spis(0..1000), before);
}

#[test]
fn slow_start_waits_for_nothing_where_no_other_path_is_up() {
    let mut host = Host::new(&tables(OnFailure::Block, Failback::New, 10, false));
    for service in [SVM2, SVM4, SVM7] {
        host.down(service);
    }
    assert_eq!(host.classify(VM5, &there(1)), Verdict::Drop(DropReason::Blocked));
    host.recovered(SVM2);
    assert_eq!(share(&host.spis(0..100), 1), 100);
}

#[test]
fn a_service_that_comes_up_for_the_first_time_is_given_its_share_at_once() {
    let mut host = Host::new(&tables(OnFailure::Block, Failback::New, 10, false));
    host.down(SVM2);
    host.up(SVM2);
    assert_eq!(share(&host.spis(0..100), 1), 100);
}

#[test]
fn a_share_goes_on_growing_under_other_tables_and_begins_anew_with_another_recovery() {
    let spec = tables(OnFailure::Block, Failback::New, 10, false);
    let mut host = Host::new(&spec);
    host.down(SVM2);
    host.recovered(SVM2);
    host.now += 5;
    let before = host.spis(0..200);
    assert!((60..140).contains(&share(&before, 1)));
    host.snapshot = host.snapshot.with_tables(&spec).unwrap();
    host.steering = steering();
    assert_eq!(host.spis(0..200), before, "and which flows are taken is a matter of the flows");
    let stale = host.snapshot.clone();
    host.down(SVM2);
    host.recovered(SVM2);
    assert_eq!(share(&host.spis(1000..1200), 1), 0);
    // Tables made from an earlier state catch up with it.
    host.snapshot = stale.with_tables(&spec).unwrap().caught_up(&host.snapshot);
    assert_eq!(share(&host.spis(1000..1200), 1), 0);
    host.now += 10;
    assert_eq!(share(&host.spis(2000..2200), 1), 200);
}

#[test]
fn a_bypassed_flow_keeps_the_services_it_had() {
    let mut host = Host::new(&tables(OnFailure::Bypass, Failback::New, 0, false));
    host.down(SVM2);
    assert_eq!(host.spi_of(VM5, &there(1)), Some(2));
    host.up(SVM2);
    // Both SPI 1 and SPI 2 lack svm3 now; svm4 knows the flow, svm2 does not.
    host.down(SVM3);
    assert_eq!(host.mode(), ChainMode::Bypassing(vec![SVM3]));
    let (hops, end) = host.journey(VM5, &there(1));
    assert_eq!((hops, end), (vec![(2, SVM1, 3), (2, SVM4, 2)], Verdict::Deliver(VM6)));
    let (hops, end) = host.journey(VM6, &back(1));
    assert_eq!((hops, end), (vec![(102, SVM4, 2), (102, SVM1, 1)], Verdict::Deliver(VM5)));
    assert_eq!(host.spi_of(VM5, &there(2)), Some(1), "a flow that begins now");
    assert_eq!(host.packets(), (0, 0, 3));
    // Another path has fewer services out.
    host.down(SVM4);
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1));
    host.up(SVM3);
    assert_eq!((host.mode(), host.packets()), (ChainMode::Served, (0, 0, 4)));
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1), "its path is whole again");
}

#[test]
fn a_flow_moves_to_the_shorter_path_when_all_services_are_out_and_stays_there() {
    let mut host = Host::new(&tables(OnFailure::Bypass, Failback::New, 0, false));
    [SVM2, SVM4].into_iter().for_each(|service| host.down(service));
    assert_eq!(host.spi_of(VM5, &there(1)), Some(3));
    [SVM1, SVM3, SVM7, SVM8].into_iter().for_each(|service| host.down(service));
    assert_eq!(host.journey(VM5, &there(1)), (vec![], Verdict::Deliver(VM6)));
    [SVM2, SVM7, SVM8].into_iter().for_each(|service| host.up(service));
    assert_eq!(host.spi_of(VM5, &there(1)), Some(1), "SPI 1 and SPI 3 lack as many");
}

#[test]
fn bypassed_flows_share_the_paths_that_are_alike() {
    let mut host = Host::new(&tables(OnFailure::Bypass, Failback::New, 0, true));
    host.down(SVM3);
    let spis = host.spis(0..600);
    assert!((1..=3).all(|spi| share(&spis, spi) > 150), "{spis:?}");
    host.up(SVM3);
    assert_eq!(host.spis(0..600), spis, "and stay there when they are whole");
}

#[test]
fn a_frame_given_back_goes_on_behind_the_service_that_is_skipped() {
    let mut host = Host::new(&tables(OnFailure::Bypass, Failback::New, 0, false));
    host.down(SVM2);
    assert_eq!(host.snapshot.resume(spi(1), si(2), spi(1)), None, "nothing is skipped while a path is up");
    host.down(SVM4);
    host.down(SVM7);
    let onward = |host: &Host, left, at| host.snapshot.resume(spi(left), si(at), spi(left));
    assert_eq!(onward(&host, 1, 2), Some(Onward::Service(SVM3, si(1))), "svm1 does not see it twice");
    assert_eq!(onward(&host, 102, 2), Some(Onward::Service(SVM1, si(1))));
    host.down(SVM3);
    assert_eq!(onward(&host, 1, 2), Some(Onward::End));
    assert_eq!(onward(&host, 101, 3), Some(Onward::Service(SVM1, si(1))));
}

#[test]
fn a_frame_under_way_skips_no_service_that_a_better_path_has() {
    let mut host = Host::new(&tables(OnFailure::Bypass, Failback::New, 0, false));
    // Every path lacks svm3, and SPI 1 svm2 besides.
    [SVM3, SVM2].into_iter().for_each(|service| host.down(service));
    assert_eq!(host.forward(SVM1, 1, 3), Verdict::Reflect { failed: SVM2, si: si(2) });
    assert_eq!(host.forward(SVM1, 101, 1), Verdict::Strip, "there is nothing to skip");
    assert_eq!(host.snapshot.resume(spi(1), si(2), spi(2)), Some(Onward::Service(SVM4, si(2))));
    [SVM4, SVM7].into_iter().for_each(|service| host.down(service));
    assert_eq!(host.forward(SVM1, 1, 3), Verdict::Strip, "no path lacks fewer");
}

#[test]
fn modes_are_told_when_they_change() {
    let mut spec = reference(OnFailure::Bypass);
    spec.chains.push(chain("other", OnFailure::Block, vec![path(7, &[SVM8], 0)]));
    let whole = snapshot(&spec);
    assert!(whole.cut_chains().is_empty());
    let told = |after: &Snapshot, before: &Snapshot| {
        let changed = after.modes_changed_since(&before.cut_chains());
        changed.into_iter().map(|(name, mode)| (name.to_string(), mode)).collect::<Vec<_>>()
    };
    let inspect = |services: &[PortId]| ("inspect".to_owned(), ChainMode::Bypassing(services.to_vec()));
    let one = whole.with_service(SVM2, false);
    assert_eq!(told(&one, &whole), [], "SPI 2 is up");
    let two = one.with_service(SVM8, false);
    assert_eq!(told(&two, &one), [("other".to_owned(), ChainMode::Blocked)]);
    let three = two.with_service(SVM4, false);
    assert_eq!(told(&three, &two), [inspect(&[SVM2, SVM4, SVM8])], "one is out on each path");
    let four = three.with_service(SVM1, false);
    assert_eq!(told(&four, &three), [inspect(&[SVM1, SVM2, SVM4, SVM8])]);
    let mended = four.with_service(SVM1, true).with_service(SVM4, true);
    assert_eq!(told(&mended, &four), [("inspect".to_owned(), ChainMode::Served)]);
    // Other tables: a chain whose policy is another now, and one that is gone.
    spec.chains.pop();
    spec.chains[0].on_failure = OnFailure::Allow;
    let next = four.with_tables(&spec).unwrap();
    assert_eq!(told(&next, &four), [("inspect".to_owned(), ChainMode::Allowed)]);
}

#[test]
fn counts_go_on_under_other_tables() {
    let mut host = Host::new(&reference(OnFailure::Block));
    host.down(SVM1);
    host.classify(VM5, &there(1));
    host.snapshot = host.snapshot.with_tables(&reference(OnFailure::Allow)).unwrap();
    host.classify(VM5, &there(1));
    host.classify(VM5, &there(2));
    assert_eq!(host.packets(), (1, 2, 0));
}

/// What may happen between two packets.
#[derive(Clone, Copy, Debug)]
enum Step {
    Down(usize),
    Up(usize),
    Recovered(usize),
    Pass(u64),
    Packet { client: u16, reply: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let service = 0..SERVICES.len();
    prop_oneof![
        2 => service.clone().prop_map(Step::Down),
        1 => service.clone().prop_map(Step::Up),
        2 => service.prop_map(Step::Recovered),
        1 => (0..8_u64).prop_map(Step::Pass),
        6 => (0..12_u16, any::<bool>()).prop_map(|(client, reply)| Step::Packet { client, reply }),
    ]
}

/// One packet's journey against what the services allow. Gives the path its flow is on then, as far as that can be told.
fn check(host: &mut Host, spec: &TablesSpec, pinned: Option<u32>, client: u16, reply: bool) -> Option<u32> {
    let chain = &spec.chains[0];
    let broken = |path: &PathSpec| path.hops.iter().filter(|hop| !host.snapshot.is_usable(**hop)).count();
    let fewest = chain.paths.iter().map(broken).min().unwrap();
    let (from, to, frame) = if reply { (VM6, VM5, back(client)) } else { (VM5, VM6, there(client)) };
    let found = chain.paths.iter().find(|path| pinned == Some(path.spi.get()));
    let (had, was) = (found.map(broken), host.packets());
    let (hops, end) = host.journey(from, &frame);
    let ((blocked, allowed, bypassed), skips) = (host.packets(), fewest > 0);
    let counted = (blocked - was.0, allowed - was.1, bypassed - was.2);
    for (_, service, _) in &hops {
        assert!(host.snapshot.is_usable(*service), "steered to {service}, which is out");
    }
    match chain.on_failure {
        OnFailure::Block if skips => {
            assert_eq!((hops.len(), end, counted), (0, Verdict::Drop(DropReason::Blocked), (1, 0, 0)));
            return pinned;
        }
        OnFailure::Allow if skips => {
            assert_eq!((hops.len(), end, counted), (0, Verdict::Deliver(to), (0, 1, 0)));
            return pinned;
        }
        _ => assert_eq!(counted, (0, 0, u64::from(skips))),
    }
    assert_eq!(end, Verdict::Deliver(to));
    let Some((spi, ..)) = hops.first() else {
        assert!(chain.paths.iter().any(|path| path.hops.len() == fewest), "a path has services left");
        // It may have moved, which shows in nothing when all services of its path are out.
        return pinned.filter(|_| had == Some(fewest));
    };
    let number = if reply { spi - 100 } else { *spi };
    let path = chain.paths.iter().find(|path| path.spi.get() == number).unwrap();
    let len = path.hops.len() as u8;
    let mut wanted: Vec<(PortId, u8)> = if reply {
        path.hops.iter().rev().copied().zip((1..=len).rev()).collect()
    } else {
        path.hops.iter().copied().zip((1..=len).rev()).collect()
    };
    wanted.retain(|(hop, _)| host.snapshot.is_usable(*hop));
    assert_eq!(wanted.len(), usize::from(len) - fewest, "no path has fewer services out");
    let taken: Vec<_> = hops.iter().map(|(_, service, si)| (*service, *si)).collect();
    assert_eq!(taken, wanted, "the rest in order, each with the SI it always has");
    if chain.failback == Failback::New && had == Some(fewest) {
        assert_eq!(pinned, Some(number), "a flow stays where it is served as well as anywhere");
    }
    Some(number)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever becomes of the services, no packet is steered to one that is out; while a path is up a packet takes a
    /// whole one, else it meets the policy, and `bypass` leaves out nothing but what is out.
    #[test]
    fn every_packet_takes_a_whole_path_or_meets_the_policy(
        on_failure in prop::sample::select(OnFailure::ALL.to_vec()),
        failback in prop_oneof![Just(Failback::New), Just(Failback::All)],
        slow_start in prop_oneof![Just(0), Just(10_u64)],
        alike: bool,
        steps in vec(step(), 1..120),
    ) {
        let spec = tables(on_failure, failback, slow_start, alike);
        let mut host = Host::new(&spec);
        // The path of each, if that can be told.
        let mut flows: HashMap<u16, Option<u32>> = HashMap::new();
        for step in steps {
            match step {
                Step::Down(service) => host.down(SERVICES[service]),
                Step::Up(service) => host.up(SERVICES[service]),
                Step::Recovered(service) => host.recovered(SERVICES[service]),
                Step::Pass(time) => host.now += time,
                Step::Packet { client, reply } => {
                    // Only what vm5 begins is chained.
                    let known = flows.get(&client).copied();
                    let reply = reply && known.is_some();
                    let spi = check(&mut host, &spec, known.flatten(), client, reply);
                    if known.is_some() || spi.is_some() {
                        flows.insert(client, spi);
                    }
                    if let (Failback::All, Some(spi)) = (failback, spi) {
                        let learned = std::mem::replace(&mut host.steering, steering());
                        let anew = host.spi_of(VM5, &there(client));
                        prop_assert!(host.mode() != ChainMode::Served || anew == Some(spi), "as if it began now");
                        host.steering = learned;
                    }
                }
            }
        }
    }
}
