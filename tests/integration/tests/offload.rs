//! What a tenant leaves to the device, through the datapath: super-frames and partial checksums, to receivers that take all,
//! some or none of it, directly and through chains; what does not fit is answered.

use integration::{Bed, Plan, STEADY, endpoint, mac};
use rstest::rstest;
use test_vm::Options;
use test_vm::guest::{Guest, OFFLOADS, RECEIVE_OFFLOADS, Stream};
use vhost_backend::port::{Carrier, ServiceOffload};

const VM5: usize = 0;
const VM6: usize = 1;
const VM9: usize = 2;

const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const GUEST_ECN: u64 = 1 << 9;

/// The longest payload of a frame over IPv4: what 16 bits of length leave.
const LONGEST: usize = 65_535 - 40;

fn plan(offload: ServiceOffload) -> Plan {
    let features = OFFLOADS & !RECEIVE_OFFLOADS;
    let options = Options { optional_features: features, tx_buffer_len: 66_000, ..Options::default() };
    Plan { profile: STEADY, options, offload, ..Plan::default() }
}

/// A bed whose tenants take `receives` and send anything.
fn bed(receives: u64, plan: &Plan) -> Bed {
    let optional_features = plan.options.optional_features | receives;
    let mut bed = Bed::new(&Plan { options: Options { optional_features, ..plan.options.clone() }, ..*plan });
    bed.tenants.iter_mut().for_each(|tenant| tenant.expect_stream(1500));
    bed.until_all_up();
    bed
}

fn stream(from: (&str, u8), six: bool) -> Stream {
    let (from, to) = (endpoint(from.0, from.1), endpoint("vm6", 6));
    Stream { from, to, six, mss: if six { 1440 } else { 1460 }, ecn: false }
}

/// Sends `count` frames of `len` bytes each and lets them arrive one by one, so that no ring overflows.
fn send(bed: &mut Bed, from: usize, stream: &Stream, count: u32, len: usize) {
    let before = bed.tenants[VM6].stream().bytes;
    for i in 0..count {
        assert!(bed.tenants[from].send_stream(stream, i * len as u32, len));
        let goal = before + u64::from(i + 1) * len as u64;
        bed.until("the frame has come", |bed| {
            let report = bed.tenants[VM6].stream();
            assert_eq!(report.faults, [""; 0]);
            report.bytes >= goal
        });
    }
}

/// What each receiver gets of one super-frame, directly and through three services: with all of it taken one frame, with
/// none of it every segment whole.
#[rstest]
#[case::everything(RECEIVE_OFFLOADS, false, false, true, true)]
#[case::everything_over_ipv6(RECEIVE_OFFLOADS, true, false, true, true)]
#[case::everything_with_ecn(RECEIVE_OFFLOADS, false, true, true, true)]
#[case::nothing(0, false, false, false, false)]
#[case::nothing_over_ipv6(0, true, false, false, false)]
#[case::checksums_only(GUEST_CSUM, false, false, false, true)]
#[case::the_other_ip(GUEST_CSUM | GUEST_TSO6, false, false, false, true)]
#[case::no_ecn(GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6, false, true, false, true)]
#[case::segments_but_no_checksums(GUEST_TSO4 | GUEST_ECN, false, false, false, false)]
fn a_receiver_gets_what_it_negotiated(
    #[values(ServiceOffload::Metadata, ServiceOffload::Software)] offload: ServiceOffload,
    #[case] receives: u64,
    #[case] six: bool,
    #[case] ecn: bool,
    #[case] takes_super_frames: bool,
    #[case] takes_partial: bool,
) {
    const LEN: usize = 20_000;
    let mut bed = bed(receives, &plan(offload));
    // vm5's traffic is chained, vm9's is not.
    for (from, number, chained) in [(VM9, 9, false), (VM5, 5, true)] {
        bed.tenants[VM6].expect_stream(1500);
        let name = ["vm5", "vm6", "vm9"][from];
        let stream = Stream { ecn, ..stream((name, number), six) };
        send(&mut bed, from, &stream, 3, LEN);
        let report = bed.tenants[VM6].stream().clone();
        let whole = !chained || offload == ServiceOffload::Metadata;
        let segments = 3 * LEN.div_ceil(stream.mss.into()) as u64;
        let super_frames = if whole && takes_super_frames { 3 } else { 0 };
        assert_eq!(report.super_frames, super_frames, "{name} {report:?}");
        assert_eq!(report.frames, if super_frames > 0 { 3 } else { segments }, "{name}");
        assert_eq!(report.partial, super_frames, "what is segmented is complete");

        // One segment asks for its checksum only.
        bed.tenants[VM6].expect_stream(1500);
        send(&mut bed, from, &stream, 3, 1000);
        let partial = if whole && takes_partial { 3 } else { 0 };
        assert_eq!(bed.tenants[VM6].stream().partial, partial, "{name}");
    }
}

/// Between services that are handed super-frames.
#[test]
fn a_service_that_knows_nothing_of_nsh_sees_segments_with_whole_checksums() {
    let carrier = |name: &str| if name == "svm2" { Carrier::None } else { Carrier::Nsh };
    let mut bed = bed(RECEIVE_OFFLOADS, &Plan { carrier, ..plan(ServiceOffload::Metadata) });
    let before = bed.counters("svm2");
    for (six, len) in [(false, 20_000), (true, 20_000), (false, 1000)] {
        bed.tenants[VM6].expect_stream(1500);
        send(&mut bed, VM5, &stream(("vm5", 5), six), 3, len);
        let report = bed.tenants[VM6].stream();
        assert_eq!((report.super_frames, report.partial), (0, 0));
    }
    let after = bed.counters("svm2");
    let (frames, bytes) = (after.rx_packets - before.rx_packets, after.rx_bytes - before.rx_bytes);
    assert!(bytes > 2 * 60_000 && bytes / frames <= 1514, "{frames} frames of {bytes} bytes");
    assert_eq!((after.tx_bytes, after.dropped()), (after.rx_bytes, 0));
}

#[test]
fn a_service_with_metadata_sees_super_frames_and_one_without_sees_segments() {
    for (offload, longest) in [(ServiceOffload::Metadata, 20_000), (ServiceOffload::Software, 1600)] {
        let mut bed = bed(RECEIVE_OFFLOADS, &plan(offload));
        let before = bed.counters("svm2");
        send(&mut bed, VM5, &stream(("vm5", 5), false), 4, 20_000);
        let after = bed.counters("svm2");
        // Probes are among them, which are short.
        let (frames, bytes) = (after.rx_packets - before.rx_packets, after.rx_bytes - before.rx_bytes);
        assert!(bytes >= 80_000);
        if longest > 2000 {
            assert!(bytes / 20_000 >= 4 && after.tx_bytes - before.tx_bytes >= 80_000);
            assert!(frames < 40 + bytes / 1600, "{frames} frames of {bytes} bytes");
        } else {
            assert!(frames >= 4 * 14, "{frames} frames of {bytes} bytes");
        }
        let trouble: Vec<_> =
            ["vm5", "vm6", "svm1", "svm2", "svm3"].iter().flat_map(|port| bed.counters(port).drops).collect();
        assert_eq!(trouble, []);
    }
}

#[test]
fn the_longest_frame_goes_directly_whole_and_through_a_chain_in_segments() {
    let mut bed = bed(RECEIVE_OFFLOADS, &plan(ServiceOffload::Metadata));
    send(&mut bed, VM9, &stream(("vm9", 9), false), 2, LONGEST);
    assert_eq!(bed.tenants[VM6].stream().super_frames, 2);
    // With an NSH around it, it is longer than any link carries.
    bed.tenants[VM6].expect_stream(1500);
    send(&mut bed, VM5, &stream(("vm5", 5), false), 2, LONGEST);
    assert_eq!(bed.tenants[VM6].stream().super_frames, 0);
}

/// HOSTILE 7: each is dropped and counted where it came from, and nobody else notices.
#[test]
fn a_hostile_request_is_dropped_and_counted() {
    let mut bed = bed(0, &plan(ServiceOffload::Metadata));
    let stream = stream(("vm9", 9), false);
    let frame = stream.frame(0, 5000, false);
    let good = stream.request(5000);
    let with = |changes: &[(usize, u8)]| {
        let mut header = good;
        changes.iter().for_each(|(at, value)| header[*at] = *value);
        header
    };
    let headers = [
        ("csum_start beyond the packet", with(&[(6, 0xFF), (7, 0xFF)])),
        ("csum_offset beyond the packet", with(&[(6, 0xAD), (7, 0x13), (1, 0)])),
        ("csum over the addresses", with(&[(6, 0), (8, 28), (1, 0)])),
        ("csum over the ports", with(&[(8, 0), (1, 0)])),
        ("gso_size 0", with(&[(4, 0), (5, 0)])),
        ("gso_size 1", with(&[(4, 1), (5, 0)])),
        ("segments without a checksum", with(&[(0, 0)])),
        ("IPv6 segments of IPv4", with(&[(1, 4)])),
        ("UDP segments", with(&[(1, 5)])),
        ("an unknown type", with(&[(1, 0x42)])),
        ("ECN of nothing", with(&[(1, 0x80)])),
    ];
    for ((what, header), before) in headers.into_iter().zip(0..) {
        assert!(bed.tenants[VM9].send_raw(&header, &frame), "{what}");
        bed.until(what, |bed| bed.drops("vm9", "vnet_header") == before + 1);
    }
    send(&mut bed, VM9, &stream, 2, 5000);
    assert_eq!(bed.tenants[VM6].stream().bad, 0);
}

#[test]
fn a_service_that_makes_a_request_up_harms_itself() {
    for (offload, reason) in
        [(ServiceOffload::Software, "bad_context"), (ServiceOffload::Metadata, "bad_context")]
    {
        let mut bed = bed(0, &plan(offload));
        let mut bytes = vec![0; 300];
        bytes[..6].copy_from_slice(&mac("svm7"));
        bytes[6..12].copy_from_slice(&mac("svm7"));
        bytes[12..14].copy_from_slice(&nsh::ETHERTYPE.to_be_bytes());
        // SPI 3, SI 3 (its place), no query, OFFLOAD: a checksum at 0xFFFF.
        bytes[14..24].copy_from_slice(&[0x0F, 0xC6, 0x01, 0x03, 0, 0, 3, 3, 0x11, 0]);
        bytes[30..32].copy_from_slice(&[0xFF, 0xFF]);
        let vm = bed.service("svm7").vm();
        assert!(vm.send(&bytes));
        vm.flush();
        bed.until(reason, |bed| bed.drops("svm7", reason) + bed.drops("svm7", "stale") == 1);
        assert!(bed.state("svm7").usable());
    }
}

/// vm6's link is shorter than the frames sent to it: their sender hears of it, and at no more than a bounded rate.
#[rstest]
#[case::directly(VM9, ("vm9", 9), false)]
#[case::directly_over_ipv6(VM9, ("vm9", 9), true)]
#[case::through_a_chain(VM5, ("vm5", 5), false)]
#[case::through_a_chain_over_ipv6(VM5, ("vm5", 5), true)]
fn the_sender_of_a_frame_that_does_not_fit_is_told(
    #[values(ServiceOffload::Metadata, ServiceOffload::Software)] offload: ServiceOffload,
    #[case] from: usize,
    #[case] name: (&str, u8),
    #[case] six: bool,
) {
    let plan = Plan { mtu: |name| if name == "vm6" { 1400 } else { 1500 }, ..plan(offload) };
    let mut bed = bed(RECEIVE_OFFLOADS, &plan);
    bed.tenants[VM6].expect_stream(1400);
    let stream = stream(name, six);
    // Once in one frame, once as segments that do not fit.
    for (i, len) in [1440, 6 * usize::from(stream.mss)].into_iter().enumerate() {
        assert!(bed.tenants[from].send_stream(&stream, 0, len));
        bed.until("its sender is told", |bed| bed.tenants[from].stream().too_big.len() > i);
    }
    assert!(bed.tenants[from].stream().too_big.iter().all(|mtu| *mtu == 1400));
    assert_eq!(bed.tenants[from].stream().faults, [""; 0]);
    assert!(bed.drops("vm6", "too_long") >= 2);
    // What fits arrives.
    let shorter = Stream { mss: 1300, ..stream };
    send(&mut bed, from, &shorter, 3, 10_000);
}

/// The links of the services carry no more than those of the tenants: an NSH leaves 38 bytes less to a frame.
#[rstest]
fn the_sender_of_a_frame_that_does_not_fit_behind_an_nsh_is_told(#[values(false, true)] six: bool) {
    let mut bed = bed(0, &Plan { service_mtu: Some(1500), ..plan(ServiceOffload::Software) });
    let stream = stream(("vm5", 5), six);
    assert!(bed.tenants[VM5].send_stream(&stream, 0, usize::from(stream.mss)));
    bed.until("its sender is told", |bed| !bed.tenants[VM5].stream().too_big.is_empty());
    assert_eq!(bed.tenants[VM5].stream().too_big, [1462]);
    assert_eq!(bed.tenants[VM5].stream().faults, [""; 0]);
    // What it makes of that arrives.
    let shorter = Stream { mss: stream.mss - 38, ..stream };
    send(&mut bed, VM5, &shorter, 3, usize::from(shorter.mss));
}

#[test]
fn a_flood_of_frames_that_do_not_fit_gets_a_bounded_number_of_answers() {
    let plan = Plan { mtu: |name| if name == "vm6" { 1400 } else { 1500 }, ..plan(ServiceOffload::Software) };
    let mut bed = bed(0, &plan);
    let stream = stream(("vm9", 9), false);
    let began = bed.now();
    for _ in 0..1000 {
        let goal = bed.drops("vm6", "too_long") + 1;
        assert!(bed.tenants[VM9].send_stream(&stream, 0, 1440));
        bed.until("it is counted", |bed| bed.drops("vm6", "too_long") >= goal);
    }
    let most = 11 + (bed.now() - began).as_millis() / 10;
    let told = bed.tenants[VM9].stream().too_big.len();
    assert!(told > 0 && told as u128 <= most, "{told} of {most}");
}

/// A frame that asks for nothing is not looked at twice, and what is as long as the link carries passes.
#[test]
fn a_whole_frame_passes_as_it_is() {
    let mut bed = bed(RECEIVE_OFFLOADS, &plan(ServiceOffload::Software));
    for (from, name) in [(VM9, ("vm9", 9)), (VM5, ("vm5", 5))] {
        bed.tenants[VM6].expect_stream(1500);
        let stream = stream(name, false);
        let frame = stream.frame(0, 1460, true);
        assert!(bed.tenants[from].send_raw(&[0; 12], &frame));
        bed.until("it came", |bed| bed.tenants[VM6].stream().bytes == 1460);
        let report = bed.tenants[VM6].stream();
        assert_eq!((report.frames, report.partial, report.bad), (1, 0, 0));
    }
}
