//! Guests that break the rules pay for it themselves: traffic from `vm5` to `vm6` goes on whole, and the counters of the
//! offender say what it did.

use integration::{Bed, Plan, STEADY, mac, port_id};
use test_vm::Malformed;
use test_vm::guest::Guest;
use vhost_backend::liveness::{Cause, State};
use vhost_backend::telemetry::EventKind;

/// Of `vm9` among the tenants.
const VM9: usize = 2;
const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;

fn bed() -> Bed {
    let mut bed = Bed::new(&Plan { profile: STEADY, ..Plan::default() });
    bed.until_all_up();
    bed.start_traffic(5_000, 4);
    bed.until_arrived("traffic flows", 100);
    bed
}

/// The traffic went on meanwhile, and nothing of it was lost, changed or sent twice.
fn unharmed(mut bed: Bed) {
    bed.until_arrived("traffic goes on", 200);
    bed.drain();
    let report = bed.arrived();
    assert_eq!(report.received, bed.tenants[0].counters().sent, "{:#?}", bed.host.status());
    assert_eq!((report.missing, report.duplicated, report.reordered, report.corrupt), (0, 0, 0, 0));
}

/// An Ethernet frame of 60 bytes.
fn frame(dst: [u8; 6], src: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut frame = [&dst[..], &src[..], &ethertype.to_be_bytes()].concat();
    frame.resize(60, 0x5A);
    frame
}

fn send(bed: &mut Bed, frame: &[u8]) {
    let vm = bed.tenants[VM9].vm();
    assert!(vm.send(frame));
    vm.flush();
}

#[test]
fn a_malformed_chain_of_a_tenant_is_dropped_and_the_next_frame_goes() {
    let mut bed = bed();
    let good = frame(mac("vm5"), mac("vm9"), 0x88B5);
    for (done, malformed) in (1..).zip(Malformed::ALL) {
        let mut ring = bed.tenants[VM9].vm().raw(TRANSMITQ);
        assert!(ring.submit(malformed));
        ring.publish();
        send(&mut bed, &good);
        bed.until(&format!("{malformed:?} is dropped and the frame behind it goes"), |bed| {
            bed.drops("vm9", "malformed_chain") == done && bed.counters("vm9").tx_packets == done
        });
    }
    assert_eq!(bed.told(|kind| matches!(kind, EventKind::RingBroken(..))), 0);
    unharmed(bed);
}

#[test]
fn malformed_chains_of_a_service_cost_it_nothing_else() {
    let mut bed = bed();
    for (done, malformed) in (1..).zip(Malformed::ALL) {
        let mut ring = bed.service("svm7").vm().raw(TRANSMITQ);
        assert!(ring.submit(malformed));
        ring.publish();
        bed.until(&format!("{malformed:?} is dropped"), |bed| bed.drops("svm7", "malformed_chain") == done);
    }
    assert!(bed.state("svm7").usable());
    unharmed(bed);
}

/// Every receive buffer of a service is malformed. They come back to its driver, though no frame ever fits, and the
/// buffers it posts then are used.
#[test]
fn malformed_receive_buffers_are_given_back() {
    let mut bed = bed();
    let mut ring = bed.service("svm7").vm().raw(RECEIVEQ);
    let before = ring.used_index();
    for (slot, malformed) in (0..ring.layout().size).zip(Malformed::ALL.into_iter().cycle()) {
        ring.spoil(slot, malformed);
    }
    let size = ring.layout().size;
    bed.until("all buffers came back", |bed| {
        let used = bed.service("svm7").vm().raw(RECEIVEQ).used_index();
        used.wrapping_sub(before) >= size
    });
    let answers = bed.status("svm7").counters.responses;
    bed.until("svm7 answers again", |bed| bed.status("svm7").counters.responses > answers + 3);
    bed.until_state("svm7", State::Up);
    unharmed(bed);
}

/// Makes ring `index` of a guest one that nobody can make sense of.
fn break_ring(guest: &mut dyn Guest, index: usize, by_head: bool) {
    let mut ring = guest.vm().raw(index);
    let next = ring.avail_index();
    if by_head {
        let size = ring.layout().size;
        ring.write_avail(next, size);
        ring.set_avail_index(next.wrapping_add(1));
    } else {
        ring.set_avail_index(next.wrapping_add(5000));
    }
    ring.kick();
}

#[test]
fn a_broken_transmit_ring_is_told_once_and_works_again_after_a_reset() {
    let mut bed = bed();
    let vm9 = port_id("vm9");
    for round in 1..=4 {
        break_ring(&mut bed.tenants[VM9], TRANSMITQ, round % 2 == 0);
        let broken = |kind: &EventKind| matches!(kind, EventKind::RingBroken(port, _) if *port == vm9);
        let down = |kind: &EventKind| matches!(kind, EventKind::PortDown(port) if *port == vm9);
        bed.until("vm9 is told broken and down", |bed| bed.told(broken) == round && bed.told(down) == round);
        bed.until_arrived("others go on", 200);
        assert_eq!((bed.told(broken), bed.told(down)), (round, round), "and told once");
        let status = bed.host.status();
        assert!(status.iter().any(|port| port.name == "vm9" && port.connected && !port.attached));
        bed.tenants[VM9].vm().reset().expect("the driver sets the device up anew");
        let sent = bed.counters("vm9").tx_packets;
        send(&mut bed, &frame(mac("vm6"), mac("vm9"), 0x88B5));
        bed.until("vm9 sends again", |bed| bed.counters("vm9").tx_packets == sent + 1);
    }
    unharmed(bed);
}

#[test]
fn a_service_with_a_broken_ring_is_down_and_comes_back_after_a_reset() {
    let mut bed = bed();
    let svm7 = port_id("svm7");
    for (round, ring) in [(1, RECEIVEQ), (2, TRANSMITQ)] {
        let far = bed.service("svm7").vm().raw(ring).avail_index().wrapping_add(5000);
        bed.until("svm7 is down", |bed| {
            // Its driver may have written the right index over it before anyone looked.
            let mut ring = bed.service("svm7").vm().raw(ring);
            ring.set_avail_index(far);
            ring.kick();
            bed.state("svm7") == State::Down
        });
        assert_eq!(bed.status("svm7").cause, Cause::RingStopped);
        let broken = |kind: &EventKind| matches!(kind, EventKind::RingBroken(port, _) if *port == svm7);
        bed.until("it is told", |bed| bed.told(broken) == round);
        bed.service("svm7").vm().reset().expect("the driver sets the device up anew");
        bed.until_state("svm7", State::Up);
        assert_eq!(bed.told(broken), round);
    }
    unharmed(bed);
}

#[test]
fn a_tenant_cannot_send_what_is_not_its_own() {
    let mut bed = bed();
    let (vm5, vm6, vm9) = (mac("vm5"), mac("vm6"), mac("vm9"));
    let mut probe = frame(mac("svm2"), vm9, nsh::ETHERTYPE);
    // The beginning of a valid NSH, SPI 1, SI 2, with a response.
    probe[14..24].copy_from_slice(&[0x2F, 0xC6, 0x01, 0x07, 0, 0, 1, 2, 0x14, 0]);
    let cases = [
        (probe, "forged_nsh"),
        (frame(vm6, vm5, 0x88B5), "forged_source"),
        (frame(vm6, mac("svm2"), 0x88B5), "forged_source"),
        (frame(vm6, [0x01, 0, 0x5E, 0, 0, 1], 0x88B5), "invalid_source"),
        (frame(mac("svm2"), vm9, 0x88B5), "to_service"),
        (frame(vm9, vm9, 0x88B5), "hairpin"),
        (vec![0xFF; 13], "malformed_frame"),
    ];
    for (bytes, reason) in cases {
        let before = bed.drops("vm9", reason);
        send(&mut bed, &bytes);
        bed.until(reason, |bed| bed.drops("vm9", reason) == before + 1);
    }
    let counters = bed.status("svm2").counters;
    assert_eq!((counters.stale, counters.unknown, counters.duplicate), (0, 0, 0));
    unharmed(bed);
}

/// No offload is negotiated, so a virtio-net header that asks for one is a lie (HOSTILE 7).
#[test]
fn an_offload_that_was_not_negotiated_is_dropped() {
    let mut bed = bed();
    let good = frame(mac("vm5"), mac("vm9"), 0x88B5);
    // NEEDS_CSUM far beyond the frame; TCPv4 segmentation with a size of 0.
    let headers = [[1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 2, 0, 0, 0], [0, 1, 54, 0, 0, 0, 0, 0, 0, 0, 0, 0]];
    for (header, before) in headers.into_iter().zip(0..) {
        let vm = bed.tenants[VM9].vm();
        assert!(vm.pair(0).tx.send_with_header(&header, good.len(), |buffer| buffer.copy_from_slice(&good)));
        vm.flush();
        bed.until("it is dropped", |bed| bed.drops("vm9", "vnet_header") == before + 1);
    }
    unharmed(bed);
}

#[test]
fn a_service_cannot_send_for_another_or_off_its_path() {
    let mut bed = bed();
    let to = mac("svm1");
    let nsh = |spi: u32, si: u8, next: u8| {
        let mut bytes = frame(to, mac("svm7"), nsh::ETHERTYPE);
        let word = (spi << 8) | u32::from(si);
        bytes[14..18].copy_from_slice(&[if next == 7 { 0x2F } else { 0x0F }, 0xC6, 0x01, next]);
        bytes[18..22].copy_from_slice(&word.to_be_bytes());
        bytes[22..38].copy_from_slice(&[0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    };
    let cases = [
        (frame(to, mac("svm7"), 0x0800), "not_nsh"),
        (nsh(1, 2, 3), "foreign_path"), // svm2's place
        (nsh(1, 2, 7), "foreign_path"), // svm2's answer
        (nsh(3, 1, 3), "foreign_path"), // its own path, past svm8
        (nsh(77, 1, 3), "no_path"),
        (nsh(3, 0, 3), "foreign_path"), // the end of its path
        (
            {
                let mut bytes = nsh(3, 3, 3);
                bytes[15] = 0xC1;
                bytes
            },
            "bad_nsh",
        ), // 1 word long
        (
            {
                let mut bytes = nsh(3, 3, 3);
                bytes[15] = 0xFF;
                bytes
            },
            "bad_nsh",
        ), // beyond the frame
        (
            {
                let mut bytes = nsh(3, 3, 3);
                bytes[16] = 0x03;
                bytes
            },
            "bad_nsh",
        ), // MD type 3
        (
            {
                let mut bytes = nsh(3, 3, 3);
                bytes[22] = 0x24;
                bytes
            },
            "bad_context",
        ), // version 2
    ];
    for (i, (bytes, reason)) in cases.into_iter().enumerate() {
        let before = bed.drops("svm7", reason);
        let vm = bed.service("svm7").vm();
        assert!(vm.send(&bytes));
        vm.flush();
        bed.until(&format!("{i}: {reason}"), |bed| bed.drops("svm7", reason) == before + 1);
    }
    assert!(bed.state("svm7").usable());
    let counters = bed.status("svm2").counters;
    assert_eq!((counters.stale, counters.unknown, counters.duplicate), (0, 0, 0));
    unharmed(bed);
}
