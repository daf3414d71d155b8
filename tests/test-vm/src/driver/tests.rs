use std::collections::HashSet;

use virtio_queue::QueueT;

use crate::device::Device;
use crate::{ChainShape, Malformed, Options, TestVm, VNET_HEADER_LEN};

fn vm(options: Options) -> (TestVm, Device) {
    let mut vm = TestVm::new(options).unwrap();
    let device = Device::of(&mut vm);
    (vm, device)
}

fn received(vm: &mut TestVm) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while vm.receive(|frame| frames.push(frame.to_vec())) > 0 {}
    frames
}

#[test]
fn a_device_that_breaks_the_protocol_is_found_out() {
    let violations = |forge: &dyn Fn(&mut Device)| {
        let (mut vm, mut device) = vm(Options { ring_size: 16, ..Options::default() });
        assert!(device.put(&[1; 60]));
        forge(&mut device);
        let frames = received(&mut vm);
        let counters = vm.pair(0).rx.counters();
        assert!(frames.iter().all(|frame| frame == &[1; 60]), "only the good frame may come through");
        (frames.len(), counters.violations > 0)
    };
    assert_eq!(violations(&|_| ()), (1, false));
    assert_eq!(violations(&|device| device.forge_used(0, 72)), (1, true), "id returned twice");
    assert_eq!(violations(&|device| device.forge_used(16, 72)), (1, true), "no such id");
    assert_eq!(violations(&|device| device.forge_used(1, 2049)), (1, true), "longer than the buffer");
    assert_eq!(violations(&|device| device.forge_used(1, 11)), (1, true), "shorter than the header");
    // The look at the jumped index is refused, so the good frame stays where it is.
    assert_eq!(violations(&|device| (0..30).for_each(|_| device.forge_used(1, 72))), (0, true));
}

#[test]
fn impossible_num_buffers_are_found_out() {
    for (num_buffers, violations) in [(0u16, 1), (17, 1), (u16::MAX, 1)] {
        let (mut vm, mut device) = vm(Options { ring_size: 16, ..Options::default() });
        let mut bytes = [0; 72];
        bytes[10..12].copy_from_slice(&num_buffers.to_le_bytes());
        assert!(device.put_raw(&bytes));
        assert!(device.put(&[2; 60]));
        assert_eq!(received(&mut vm), [[2; 60]]);
        assert_eq!(vm.pair(0).rx.counters().violations, violations);
    }
}

#[test]
fn a_merged_frame_waits_until_all_its_buffers_are_there() {
    let (mut vm, mut device) = vm(Options { ring_size: 16, rx_buffer_len: 64, ..Options::default() });
    let mut first = [7; 64];
    first[..VNET_HEADER_LEN].fill(0);
    first[10] = 3;
    assert!(device.put(&[9; 40]));
    assert!(device.put_raw(&first));
    assert!(device.put_raw(&[7; 64]));
    assert_eq!(received(&mut vm), [[9; 40]]);
    assert!(device.put_raw(&[7; 5]));
    assert_eq!(received(&mut vm), [vec![7; 52 + 64 + 5]]);
    assert_eq!(vm.pair(0).rx.counters().violations, 0);
    assert_eq!(vm.pair(0).rx.posted(), 16);
}

#[test]
fn merged_frames_cross_the_batch_limit() {
    let (mut vm, mut device) = vm(Options { rx_buffer_len: 64, ..Options::default() });
    for number in 0..60u8 {
        let mut first = [number; 64];
        first[..VNET_HEADER_LEN].fill(0);
        first[10] = 3;
        assert!(device.put_raw(&first) && device.put_raw(&[number; 64]) && device.put_raw(&[number; 1]));
    }
    let frames = received(&mut vm);
    assert_eq!(frames.len(), 60);
    assert!((0..60u8).zip(&frames).all(|(number, frame)| *frame == vec![number; 52 + 64 + 1]));
}

#[test]
fn a_ring_that_is_not_refilled_runs_dry_and_recovers() {
    let (mut vm, mut device) = vm(Options { ring_size: 16, ..Options::default() });
    for _ in 0..16 {
        assert!(device.put(&[1; 60]));
    }
    assert_eq!(vm.pair(0).rx.receive_without_refill(|_| ()), 16);
    assert!(!device.put(&[1; 60]), "no buffer is posted");
    assert_eq!(vm.pair(0).rx.refill(), 16);
    assert!(device.put(&[2; 60]));
    assert_eq!(received(&mut vm), [[2; 60]]);
}

#[test]
fn what_fill_declines_is_not_sent() {
    for tx_shape in [ChainShape::Joined, ChainShape::Cut { first: 5, count: 4 }] {
        let (mut vm, mut device) = vm(Options { tx_shape, ..Options::default() });
        assert!(!vm.pair(0).tx.send_built(100, |_| None));
        assert!(!vm.pair(0).tx.send_built(100, |_| Some(101)));
        assert!(vm.pair(0).tx.send_built(100, |buffer| {
            buffer.fill(3);
            Some(70)
        }));
        assert!(vm.send(&[4; 60]));
        vm.flush();
        assert_eq!(device.take(), [vec![3; 70], vec![4; 60]]);
        assert_eq!((vm.reap(), vm.pair(0).tx.in_flight()), (2, 0));
    }
}

#[test]
fn every_malformed_chain_is_another_one_and_the_driver_goes_on_after_it() {
    let mut different = HashSet::new();
    for indirect in [false, true] {
        different.clear();
        for kind in Malformed::ALL {
            let (mut vm, mut device) = vm(Options { indirect, ..Options::default() });
            let mut ring = vm.raw(1);
            assert!(ring.submit(kind));
            let mut bytes = [0; 16 + 64];
            let layout = ring.layout();
            ring.ram().read(layout.desc, &mut bytes[..16]);
            ring.ram().read(ring.scratch(), &mut bytes[16..]);
            assert!(different.insert(bytes), "{kind:?} is like another");
            ring.publish();
            assert!(vm.send(&[1; 60]));
            vm.flush();

            let memory = vm.ram().mapping().clone();
            let head = device.tx.pop_descriptor_chain(&memory).unwrap().head_index();
            device.tx.add_used(&memory, head, 0).unwrap();
            assert_eq!(device.take(), [[1; 60]], "{kind:?}");
            assert_eq!((vm.reap(), vm.pair(0).tx.counters().violations), (2, 0));
            for _ in 0..300 {
                assert!(vm.send(&[2; 60]));
                vm.flush();
                assert_eq!(device.take(), [[2; 60]], "the slot of {kind:?} serves again");
            }
        }
    }
}

#[test]
fn spoiled_rx_buffers_heal_when_they_are_posted_again() {
    let (mut vm, mut device) = vm(Options { ring_size: 16, ..Options::default() });
    vm.raw(0).spoil(0, Malformed::NullAddress);
    let memory = vm.ram().mapping().clone();
    let head = device.rx.pop_descriptor_chain(&memory).unwrap().head_index();
    device.rx.add_used(&memory, head, 0).unwrap();
    assert_eq!(received(&mut vm).len(), 0);
    for _ in 0..32 {
        assert!(device.put(&[5; 60]));
        assert_eq!(received(&mut vm), [[5; 60]]);
    }
}

#[test]
fn raw_writes_land_in_the_ring() {
    let (mut vm, _device) = vm(Options { ring_size: 16, ..Options::default() });
    let mut ring = vm.raw(1);
    ring.write_avail(17, 99);
    ring.set_avail_index(40_000);
    ring.set_used_index(7);
    ring.write_avail_flags(5);
    ring.write_used_event(6);
    let layout = ring.layout();
    let word = |at: u64| {
        let mut bytes = [0; 2];
        ring.ram().read(at, &mut bytes);
        u16::from_le_bytes(bytes)
    };
    assert_eq!(word(layout.avail), 5);
    assert_eq!((word(layout.avail + 2), ring.avail_index()), (40_000, 40_000));
    assert_eq!(word(layout.avail + 4 + 2), 99);
    assert_eq!(word(layout.avail + 4 + 32), 6);
    assert_eq!(ring.used_index(), 7);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let refused = |options: Options| TestVm::new(options).unwrap_err().to_string();
    let default = Options::default;
    assert!(refused(Options { ring_size: 100, ..default() }).starts_with("option ring_size: 100"));
    assert!(refused(Options { ring_size: 0, ..default() }).starts_with("option ring_size"));
    assert!(refused(Options { regions: 9, ..default() }).starts_with("option regions"));
    assert!(refused(Options { queue_pairs: 0, ..default() }).starts_with("option queue_pairs"));
    assert!(refused(Options { rx_buffer_len: 10, ..default() }).starts_with("option rx_buffer_len"));
    let shape = ChainShape::Cut { first: 1, count: 32 };
    assert!(refused(Options { ring_size: 16, tx_shape: shape, ..default() }).starts_with("option tx_shape"));
}

#[test]
fn an_echo_sends_the_received_buffer_back_and_loses_none() {
    let (mut vm, mut device) = vm(Options { ring_size: 16, ..Options::default() });
    for round in 0..100u8 {
        for number in 0..4 {
            assert!(device.put(&[round; 60]), "round {round}, frame {number}");
        }
        let taken = vm.pair(0).echo(3, |frame| {
            frame[0] = !frame[0];
            (frame[1] % 2 == 0).then_some(50)
        });
        assert_eq!((taken, vm.pair(0).echo(usize::MAX, |_| None)), (3, 1));
        let mut answer = [round; 50];
        answer[0] = !round;
        assert_eq!(device.take(), if round % 2 == 0 { vec![answer.to_vec(); 3] } else { Vec::new() });
        assert_eq!(vm.pair(0).rx.posted(), 16);
    }
    vm.reap();
    assert_eq!((vm.pair(0).tx.free(), vm.pair(0).rx.counters().violations), (16, 0));
}

#[test]
fn an_echo_takes_no_frame_that_it_could_not_send() {
    let (mut vm, mut device) = vm(Options { ring_size: 16, ..Options::default() });
    for _ in 0..16 {
        assert!(device.put(&[1; 60]));
    }
    assert_eq!(vm.pair(0).echo(usize::MAX, |frame| Some(frame.len())), 16);
    assert!(device.put(&[2; 60]));
    assert_eq!(vm.pair(0).echo(usize::MAX, |frame| Some(frame.len())), 0, "the transmitq is full");
    assert_eq!(device.take(), vec![vec![1; 60]; 16]);
    assert_eq!(vm.pair(0).echo(usize::MAX, |frame| Some(frame.len())), 1);
    assert_eq!(device.take(), [[2; 60]]);
}

#[test]
fn an_echo_drops_a_frame_of_two_buffers() {
    let (mut vm, mut device) = vm(Options { ring_size: 16, ..Options::default() });
    let mut first = [7; 64];
    first[..VNET_HEADER_LEN].fill(0);
    first[10] = 2;
    assert!(device.put_raw(&first));
    assert_eq!(vm.pair(0).echo(usize::MAX, |frame| Some(frame.len())), 1);
    assert_eq!((device.take().len(), vm.pair(0).rx.counters().violations), (0, 1));
}

/// Guests whose frames come in several buffers.
fn merged_vm() -> (TestVm, Device) {
    vm(Options { ring_size: 16, rx_buffer_len: 64, tx_buffer_len: 64, ..Options::default() })
}

/// A frame of 52 + 64 + 5 bytes in three buffers.
fn put_in_three(device: &mut Device, number: u8) -> Vec<u8> {
    let mut first = [number; 64];
    first[..VNET_HEADER_LEN].fill(0);
    first[10] = 3;
    assert!(device.put_raw(&first) && device.put_raw(&[number; 64]) && device.put_raw(&[number; 5]));
    vec![number; 52 + 64 + 5]
}

#[test]
fn a_merged_frame_is_shown_in_its_pieces() {
    let (mut vm, mut device) = merged_vm();
    let mut shown = Vec::new();
    let mut show = |vm: &mut TestVm| {
        let frames = vm.pair(0).rx.receive_pieces(|pieces| {
            shown.push(pieces.iter().map(|piece| piece.to_vec()).collect::<Vec<_>>());
        });
        (frames, std::mem::take(&mut shown))
    };
    for number in 0..100 {
        put_in_three(&mut device, number);
        assert!(device.put(&[7; 40]));
        let pieces = [52, 64, 5].map(|len| vec![number; len]).to_vec();
        assert_eq!(show(&mut vm), (2, vec![pieces, vec![vec![7; 40]]]));
    }
    let mut first = [1; 64];
    first[..VNET_HEADER_LEN].fill(0);
    first[10] = 2;
    assert!(device.put_raw(&first));
    assert_eq!(show(&mut vm).0, 0, "the second buffer has not come");
    device.forge_used(99, 10);
    assert!(device.put(&[8; 40]));
    assert_eq!(show(&mut vm), (1, vec![vec![vec![8; 40]]]), "there is no such buffer, so no such frame");
    first[10] = 17;
    assert!(device.put_raw(&first));
    assert_eq!(
        (show(&mut vm).0, vm.pair(0).rx.counters().violations),
        (0, 2),
        "nor one in more than there are"
    );
    assert_eq!(vm.pair(0).rx.posted(), 16);
}

#[test]
fn an_echo_sends_a_merged_frame_back_in_the_buffers_it_came_in() {
    let (mut vm, mut device) = merged_vm();
    for round in 0..100 {
        let mut frame = put_in_three(&mut device, round);
        assert!(device.put(&[7; 40]));
        let taken = vm.pair(0).echo_merged(usize::MAX, |part| {
            part[0] = !part[0];
            Some(part.len())
        });
        frame[0] = !round;
        let mut short = vec![7; 40];
        short[0] = !7;
        assert_eq!((taken, device.take()), (2, vec![frame, short]));
        assert_eq!(vm.pair(0).rx.posted(), 16);
    }
    put_in_three(&mut device, 1);
    put_in_three(&mut device, 2);
    assert_eq!(vm.pair(0).echo_merged(usize::MAX, |part| (part[0] == 1).then_some(20)), 2);
    assert_eq!(device.take(), [[1; 20]], "an answer without the packet, and none");
    vm.reap();
    assert_eq!((vm.pair(0).tx.free(), vm.pair(0).tx.in_flight()), (16, 0), "all buffers came back");
    assert_eq!((vm.pair(0).rx.posted(), vm.pair(0).rx.counters().violations), (16, 0));
    assert_eq!(vm.pair(0).tx.counters().violations, 0);
}

#[test]
fn an_echo_takes_no_merged_frame_that_it_could_not_send() {
    let (mut vm, mut device) = merged_vm();
    let echo = |vm: &mut TestVm| vm.pair(0).echo_merged(usize::MAX, |part| Some(part.len()));
    let frames: Vec<_> = (0..5).map(|number| put_in_three(&mut device, number)).collect();
    assert_eq!(echo(&mut vm), 5);
    let last = put_in_three(&mut device, 5);
    assert_eq!(echo(&mut vm), 0, "one buffer of the transmitq is left");
    assert_eq!(device.take(), frames);
    assert_eq!((echo(&mut vm), device.take()), (1, vec![last]));
}
