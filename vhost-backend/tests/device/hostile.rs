//! What broken and hostile VMMs do: it costs them their session at most, and the next one is served.

use crate::raw::*;
use crate::recorder::Call;
use crate::vm::Vm;
use crate::{Port, port};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

/// An honest VM is served as if nothing had been.
fn serves(port: &Port) {
    let mut vm = Vm::connect(&port.socket);
    vm.negotiate();
    vm.start(0, 0, 0);
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

fn memory(len: u64) -> File {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(len).unwrap();
    file
}

#[test]
fn garbage_ends_the_connection_only() {
    let port = port();
    for bytes in [
        &[0xff; 64][..],
        &[0; 12],
        &[1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut raw = Raw::connect(&port.socket);
        raw.send_bytes(bytes, &[]);
        raw.expect_closed();
    }
    port.recorder.wait_for(&Call::Disconnect, 4);
    serves(&port);
}

#[test]
fn every_prefix_of_a_message_may_be_the_last() {
    let port = port();
    let message: Vec<u8> =
        [SET_VRING_NUM, NO_REPLY, 8, 0, 256].iter().flat_map(|word| word.to_le_bytes()).collect();
    for len in 0..message.len() {
        let mut raw = Raw::connect(&port.socket);
        raw.send_bytes(&message[..len], &[]);
        raw.0.shutdown(Shutdown::Write).unwrap();
        raw.expect_closed();
    }
    serves(&port);
}

/// The first connection is closed by the deadline while the other has been silent for longer.
#[test]
fn half_a_message_has_a_deadline_and_silence_has_none() {
    let port = port();
    let patient = crate::port();
    let mut idle = Raw::negotiated(&patient.socket);
    let mut raw = Raw::connect(&port.socket);
    raw.send_bytes(&[1, 0, 0, 0], &[]);
    raw.expect_closed();
    assert_ne!(idle.ask(GET_FEATURES, NO_REPLY, &[], &[]), 0, "a VM that is silent between messages");
    serves(&port);
}

#[test]
fn a_message_in_single_bytes_is_a_message() {
    let port = port();
    let mut raw = Raw::negotiated(&port.socket);
    let message: Vec<u8> =
        [NET_SET_MTU, NEED_REPLY, 8, 1500, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    for byte in message {
        raw.0.write_all(&[byte]).unwrap();
    }
    assert_eq!(raw.answer(NET_SET_MTU), 0);
}

#[test]
fn questions_in_a_row_are_answered_in_their_order() {
    let port = port();
    let mut raw = Raw::negotiated(&port.socket);
    let requests =
        [GET_FEATURES, NET_SET_MTU, GET_PROTOCOL_FEATURES, SEND_RARP, GET_MAX_MEM_SLOTS, SET_VRING_NUM];
    for request in requests {
        let body: &[u64] = match request {
            SEND_RARP | NET_SET_MTU => &[1500],
            SET_VRING_NUM => &[3 << 32],
            _ => &[],
        };
        raw.send(request, NEED_REPLY, body, &[]);
    }
    let answers: Vec<u64> = requests.map(|request| raw.answer(request)).to_vec();
    assert_eq!(answers[1..], [0, answers[2], 0, 32, 1]);
}

#[test]
fn bad_rings_are_answered_and_the_session_lives() {
    let port = port();
    let mut raw = Raw::negotiated(&port.socket);
    for size in [0, 3, 100, 1023, 2048, 1 << 20] {
        assert_eq!(raw.ask(SET_VRING_NUM, NEED_REPLY, &[size << 32], &[]), 1, "size {size}");
    }
    for index in [4, 0xffff_ffff] {
        assert_eq!(raw.ask(SET_VRING_NUM, NEED_REPLY, &[256 << 32 | index], &[]), 1);
        assert_eq!(raw.ask(SET_VRING_ENABLE, NEED_REPLY, &[1 << 32 | index], &[]), 1);
    }
    assert_eq!(raw.ask(SET_VRING_NUM, NEED_REPLY, &[256 << 32], &[]), 0);
}

#[test]
fn what_cannot_be_answered_closes_the_connection() {
    let port = port();
    for (request, words) in
        [(SET_VRING_NUM, [3 << 32]), (GET_VRING_BASE, [4]), (SET_LOG_BASE, [0]), (4711, [0])]
    {
        let mut raw = Raw::negotiated(&port.socket);
        raw.send(request, NO_REPLY, &words, &[]);
        raw.expect_closed();
    }
    serves(&port);
}

#[test]
fn wrong_descriptors_are_answered_and_closed() {
    let port = port();
    let mut raw = Raw::negotiated(&port.socket);
    let event = event();
    let file = memory(4096);
    let (reader, writer) = io::pipe().unwrap();
    for fds in [vec![], vec![event.as_fd(); 2], vec![file.as_fd()], vec![writer.as_fd()]] {
        assert_eq!(raw.ask(SET_VRING_CALL, NEED_REPLY, &[0], &fds), 1, "{fds:?}");
        assert_eq!(raw.ask(SET_VRING_KICK, NEED_REPLY, &[0], &fds), 1, "{fds:?}");
    }
    assert_eq!(raw.ask(SET_OWNER, NEED_REPLY, &[], &[writer.as_fd()]), 1);
    drop(writer);
    // The end of the pipe is seen once every copy of its writing end is closed.
    assert_eq!(io::read_to_string(reader).unwrap(), "");
    assert_eq!(raw.ask(SET_VRING_CALL, NEED_REPLY, &[0], &[event.as_fd()]), 0);
}

#[test]
fn more_descriptors_than_any_message_has_end_the_connection() {
    let port = port();
    let mut raw = Raw::negotiated(&port.socket);
    let event = event();
    raw.send(SET_VRING_CALL, NEED_REPLY, &[0], &vec![event.as_fd(); 250]);
    raw.expect_closed();
    serves(&port);
}

#[test]
fn descriptors_within_a_body_are_counted_too() {
    let port = port();
    let mut raw = Raw::negotiated(&port.socket);
    let event = event();
    let header: Vec<u8> =
        [SET_VRING_CALL, NEED_REPLY, 8].iter().flat_map(|word| word.to_le_bytes()).collect();
    raw.send_bytes(&header, &[event.as_fd()]);
    raw.send_bytes(&[0; 4], &[event.as_fd()]);
    raw.send_bytes(&[0; 4], &[]);
    assert_eq!(raw.answer(SET_VRING_CALL), 1);
}

#[test]
fn a_blocking_call_descriptor_stops_blocking() {
    let port = port();
    let mut raw = Raw::negotiated(&port.socket);
    let event = event();
    assert_eq!(raw.ask(SET_VRING_CALL, NEED_REPLY, &[0], &[event.as_fd()]), 0);
    assert_eq!(rustix::io::read(&event, &mut [0; 8]), Err(rustix::io::Errno::AGAIN));
}

#[test]
fn bad_memory_is_answered_and_never_mapped() {
    let port = port();
    let mut raw = Raw::negotiated(&port.socket);
    let file = memory(0x10_0000);
    let sparse = memory(1 << 46);
    let read_only = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
    let (guest, user) = (0x10_0000, 0x7f00_0000_0000u64);
    for (size, offset, file) in [
        (1 << 46, 0, &sparse),
        (1 << 46, 0, &file),
        (0x20_0000, 0, &file),
        (0x10_0000, 0x1000, &file),
        (0x800, 0, &file),
        (0x1000, 0x10, &file),
        (0, 0, &file),
        (u64::MAX, 0, &file),
        (0x1000, 0, &read_only),
    ] {
        let table = [1, guest, size, user, offset];
        assert_eq!(
            raw.ask(SET_MEM_TABLE, NEED_REPLY, &table, &[file.as_fd()]),
            1,
            "{size:#x} at {offset:#x}"
        );
        let region = [0, guest, size, user, offset];
        assert_eq!(raw.ask(ADD_MEM_REG, NEED_REPLY, &region, &[file.as_fd()]), 1, "{size:#x} at {offset:#x}");
    }
    let overlapping = [2, guest, 0x2000, user, 0, guest + 0x1000, 0x2000, user + 0x10_0000, 0];
    assert_eq!(raw.ask(SET_MEM_TABLE, NEED_REPLY, &overlapping, &[file.as_fd(), file.as_fd()]), 1);
    assert!(!port.recorder.calls().contains(&Call::Memory));
    assert_eq!(raw.ask(SET_MEM_TABLE, NEED_REPLY, &[1, guest, 0x10_0000, user, 0], &[file.as_fd()]), 0);
}

#[test]
fn memory_regions_have_an_end() {
    let port = port();
    let mut raw = Raw::negotiated(&port.socket);
    let slots = raw.ask(GET_MAX_MEM_SLOTS, NO_REPLY, &[], &[]);
    let file = memory(4096);
    for slot in 0..2 * slots {
        let at = slot * 4096;
        let region = [0, at, 4096, 0x7f00_0000_0000 + at, 0];
        let answer = raw.ask(ADD_MEM_REG, NEED_REPLY, &region, &[file.as_fd()]);
        assert_eq!(answer, u64::from(slot >= slots), "slot {slot}");
    }
}

#[test]
fn an_enable_before_the_features_is_kept_as_qemu_needs_it() {
    let port = port();
    let raw = Raw::connect(&port.socket);
    raw.send(SET_VRING_ENABLE, NO_REPLY, &[1 << 32], &[]);
    raw.send(SET_VRING_ENABLE, NO_REPLY, &[1 << 32 | 1], &[]);
    let mut vm = Vm::on(raw.0);
    vm.negotiate();
    vm.start(0, 0, 0);
    vm.start(1, 0, 0);
    let enabled: Vec<_> = port
        .recorder
        .calls()
        .iter()
        .filter_map(|call| match call {
            Call::Start { index, enabled, .. } => Some((*index, *enabled)),
            _ => None,
        })
        .collect();
    assert_eq!(enabled, [(0, true), (1, true)]);
}
