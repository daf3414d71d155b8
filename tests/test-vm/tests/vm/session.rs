//! Attaching, detaching and everything else on the socket.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use test_vm::{Error, Options, Order, TestVm};
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use crate::echo::{Backend, Manners, attach};
use crate::scribe::{self, Offer};

const EVERYTHING: Offer = Offer { features: u64::MAX, protocol: u64::MAX, queues: 2 };

/// Requests of a whole life (attach, reset, detach) by name, repeats of one name in a row joined.
fn life(order: Order, offer: Offer) -> Vec<(String, u64)> {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let scribe = scribe::serve(&socket, offer);
    let mut vm = TestVm::attach(&socket, Options { order, ..Options::default() }).unwrap();
    vm.reset().unwrap();
    vm.detach().unwrap();
    let requests = scribe.join().unwrap();
    requests.into_iter().map(|(request, first)| (name(request), first)).collect()
}

fn name(request: u32) -> String {
    let names = [
        (1, "GET_FEATURES"),
        (2, "SET_FEATURES"),
        (3, "SET_OWNER"),
        (5, "SET_MEM_TABLE"),
        (8, "NUM"),
        (9, "ADDR"),
        (10, "BASE"),
        (11, "GET_BASE"),
        (12, "KICK"),
        (13, "CALL"),
        (14, "ERR"),
        (15, "GET_PROTOCOL_FEATURES"),
        (16, "SET_PROTOCOL_FEATURES"),
        (17, "GET_QUEUE_NUM"),
        (18, "ENABLE"),
        (37, "ADD_MEM_REG"),
        (38, "REM_MEM_REG"),
    ];
    names
        .iter()
        .find(|(number, _)| *number == request)
        .map_or(format!("{request}"), |(_, name)| (*name).into())
}

#[test]
fn cloud_hypervisors_order_of_messages() {
    let start =
        "SET_FEATURES SET_MEM_TABLE NUM ERR ADDR BASE CALL KICK NUM ERR ADDR BASE CALL KICK ENABLE ENABLE";
    let stop = "ENABLE ENABLE GET_BASE GET_BASE";
    let open = "SET_OWNER GET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM";
    let expected = format!("{open} {start} {stop} {start} {stop}");
    let said: Vec<_> = life(Order::CloudHypervisor, EVERYTHING).into_iter().map(|(name, _)| name).collect();
    assert_eq!(said.join(" "), expected);
}

#[test]
fn qemus_order_of_messages() {
    let start =
        "ENABLE ENABLE SET_FEATURES ADD_MEM_REG NUM ERR BASE ADDR KICK CALL NUM ERR BASE ADDR KICK CALL";
    let stop = "GET_BASE GET_BASE ENABLE ENABLE REM_MEM_REG";
    let open = "GET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM SET_OWNER GET_FEATURES CALL CALL";
    let expected = format!("{open} {start} {stop} {start} {stop}");
    let requests = life(Order::Qemu, EVERYTHING);
    let said: Vec<_> = requests.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(said.join(" "), expected);
    let enables: Vec<_> =
        requests.iter().filter(|(name, _)| name == "ENABLE").map(|(_, first)| *first).collect();
    assert_eq!(enables[..4], [1 << 32, 1 << 32 | 1, 0, 1], "index in the low word, enabled in the high one");
}

#[test]
fn without_protocol_features_nothing_is_enabled_or_acknowledged() {
    let offer = Offer { features: !(1 << 30), ..EVERYTHING };
    let expected = "SET_OWNER GET_FEATURES SET_FEATURES SET_MEM_TABLE NUM ERR ADDR BASE CALL KICK";
    let said: Vec<_> = life(Order::CloudHypervisor, offer).into_iter().map(|(name, _)| name).collect();
    assert!(said.join(" ").starts_with(expected), "{said:?}");
    assert!(!said.iter().any(|name| name == "ENABLE"));
}

#[test]
fn features_that_are_not_offered_are_an_error_not_a_weaker_test() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let offer = Offer { features: EVERYTHING.features & !(1 << 29 | 1 << 35), ..EVERYTHING };
    let scribe = scribe::serve(&socket, offer);
    let error = TestVm::attach(&socket, Options { in_order: true, ..Options::default() }).unwrap_err();
    scribe.join().unwrap();
    let Error::Features { missing, .. } = error else { panic!("{error}") };
    assert_eq!(missing, 1 << 29 | 1 << 35, "EVENT_IDX and IN_ORDER");
}

#[test]
fn too_few_queues_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let scribe = scribe::serve(&socket, EVERYTHING);
    let error = TestVm::attach(&socket, Options { queue_pairs: 3, ..Options::default() }).unwrap_err();
    scribe.join().unwrap();
    assert!(matches!(error, Error::QueuePairs { wanted: 3, offered: 2 }), "{error}");
}

#[test]
fn every_pair_has_its_own_two_rings() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let scribe = scribe::serve(&socket, Offer { queues: 6, ..EVERYTHING });
    let mut vm = TestVm::attach(&socket, Options { queue_pairs: 3, ..Options::default() }).unwrap();
    let mut used: Vec<_> = vm.pairs().iter().flat_map(|pair| [pair.rx.layout(), pair.tx.layout()]).collect();
    used.dedup();
    assert_eq!(used.len(), 6);
    assert!(vm.pairs().iter_mut().all(|pair| pair.rx.posted() == 256 && pair.tx.send(&[0; 60])));
    vm.detach().unwrap();
    let requests = scribe.join().unwrap();
    let started: Vec<_> =
        requests.iter().filter(|(request, _)| *request == 12).map(|(_, index)| *index).collect();
    assert_eq!(started, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn attaching_waits_for_the_backend_and_gives_up() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let options = Options { connect_timeout: Duration::from_millis(20), ..Options::default() };
    let error = TestVm::attach(&socket, options).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    let late = std::thread::spawn({
        let socket = socket.clone();
        move || {
            std::thread::sleep(Duration::from_millis(50));
            scribe::serve(&socket, EVERYTHING)
        }
    });
    TestVm::attach(&socket, Options::default()).unwrap();
    late.join().unwrap().join().unwrap();
}

#[test]
fn a_backend_that_does_not_answer_is_not_waited_for_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let _silent = UnixListener::bind(&socket).unwrap();
    let options = Options { reply_timeout: Duration::from_millis(50), ..Options::default() };
    let error = TestVm::attach(&socket, options).unwrap_err();
    let Error::Silent { source, .. } = error else { panic!("{error}") };
    assert!(matches!(*source, Error::Request { step: "SET_OWNER" | "GET_FEATURES", .. }), "{source}");
}

#[test]
fn a_vm_that_listens_is_found_by_its_backend() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let client = std::thread::spawn(move || Backend::connect(&socket));
    let mut vm = TestVm::accept(&listener, Options::default()).unwrap();
    assert_comes_back(&mut vm, 1);
    drop(vm);
    client.join().unwrap();
}

/// Sends a frame that is recognised by `mark` and waits until it is back; other frames may come before.
fn assert_comes_back(vm: &mut TestVm, mark: u8) {
    assert!(vm.send(&[mark; 60]));
    vm.flush();
    let mut back = false;
    for _ in 0..100 {
        vm.receive(|frame| back |= frame == [mark; 60]);
        if back {
            return;
        }
        vm.wait(Duration::from_millis(200));
    }
    panic!("frame {mark} did not come back");
}

#[test]
fn attaching_again_and_again_works() {
    let backend = Backend::start(Manners::default());
    for round in 0..20 {
        let mut vm = TestVm::attach(&backend.socket(), Options::default()).unwrap();
        assert_comes_back(&mut vm, round);
        if round % 2 == 0 {
            vm.detach().unwrap();
        }
    }
}

#[test]
fn a_reset_begins_from_nothing() {
    let (_backend, mut vm) = attach(Options { ring_size: 64, ..Options::default() });
    for round in 0..30 {
        assert_comes_back(&mut vm, round);
        vm.reset().unwrap();
        assert_eq!(vm.pair(0).tx.in_flight(), 0);
        assert_eq!(vm.pair(0).rx.posted(), 64);
    }
    assert_comes_back(&mut vm, 99);
}

#[test]
fn a_pause_loses_nothing() {
    let (_backend, mut vm) = attach(Options::default());
    for round in 0..30 {
        assert_comes_back(&mut vm, 2 * round);
        let bases = vm.pause().unwrap();
        assert!(!vm.is_running());
        assert!(vm.send(&[2 * round + 1; 60]));
        vm.flush();
        vm.resume(&bases).unwrap();
        let mut back = false;
        while !back {
            vm.receive(|frame| back = frame == [2 * round + 1; 60]);
            vm.wait(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_backend_that_returns_finds_the_frames_that_were_sent_meanwhile() {
    let (backend, mut vm) = attach(Options::default());
    for round in 0..10 {
        assert_comes_back(&mut vm, round);
        assert!(vm.is_attached());
        backend.hang_up();
        while vm.is_attached() {
            std::thread::yield_now();
        }
        assert!(vm.send(&[100 + round; 60]));
        vm.flush();
        vm.reattach(&backend.socket()).unwrap();
        let mut back = false;
        while !back {
            vm.receive(|frame| back = frame == [100 + round; 60]);
            vm.wait(Duration::from_millis(10));
        }
        assert_eq!(vm.pair(0).rx.counters().violations + vm.pair(0).tx.counters().violations, 0);
    }
}

#[test]
fn a_killed_vm_is_detached_until_it_attaches_again() {
    let (backend, mut vm) = attach(Options::default());
    vm.kill();
    assert!(!vm.is_attached() && !vm.is_running());
    assert!(matches!(vm.pause(), Err(Error::Detached)));
    assert!(vm.wire().is_none() && vm.frontend().is_none());
    vm.reboot().unwrap();
    vm.reattach(&backend.socket()).unwrap();
    assert_comes_back(&mut vm, 1);
}

#[test]
fn memory_may_be_announced_again_while_rings_run() {
    let (_backend, mut vm) = attach(Options { regions: 8, ..Options::default() });
    for round in 0..10 {
        assert_comes_back(&mut vm, round);
        vm.announce_memory().unwrap();
    }
}

#[test]
fn the_configuration_space_is_read() {
    let (_backend, mut vm) = attach(Options::default());
    assert_eq!(vm.config(2, 4).unwrap(), [2, 3, 4, 5]);
    assert!(vm.protocol_features().contains(VhostUserProtocolFeatures::CONFIG));
    assert_ne!(vm.features() & 1 << 32, 0, "VERSION_1");
}

#[test]
fn any_bytes_can_be_sent_on_the_wire() {
    let (_backend, vm) = attach(Options::default());
    let wire = vm.wire().unwrap();
    let reply = wire.request(1, false, &[], &[]).unwrap();
    assert_ne!(reply.value().unwrap() & 1 << 32, 0, "GET_FEATURES answers");
    // A request nobody knows: the crate ends the connection.
    wire.send_bytes(&[0xff, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], &[]).unwrap();
    assert!(wire.receive().is_err());
    let too_many = vec![stdin(); test_vm::MAX_FDS + 1];
    assert_eq!(wire.send_bytes(&[0], &too_many).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

fn stdin() -> std::os::fd::BorrowedFd<'static> {
    use std::os::fd::AsFd;
    static STDIN: std::sync::OnceLock<std::io::Stdin> = std::sync::OnceLock::new();
    STDIN.get_or_init(std::io::stdin).as_fd()
}
