//! Tap ports, with the stack of this machine's kernel as the peer, in network namespaces of the tests' own.

#![deny(unsafe_code)]

mod namespace;
mod site;
#[expect(unsafe_code, reason = "an ioctl, and a seccomp filter")]
mod sys;
mod vendor;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use integration::{PATIENCE, endpoint};
use test_vm::guest::{Endpoint, Traffic};
use vhost_backend::host::HostError;
use vhost_backend::port::ServiceOffload;
use vhost_backend::ring::Uring;
use vhost_backend::telemetry::{Direction, events};

use namespace::{Elsewhere, alone, alone_and_without_uring, ip, run};
use site::{Plan, SVM1, Site, VM5, WORLD, WORLD_IP, WORLD_MAC, has_uring, make_world, start, tap, vnic};

const ONE: Plan = Plan { workers: 1, queues: 1, away: false, offload: ServiceOffload::Software };
const PORT: u16 = 7000;
/// Headers of a test frame: Ethernet, IPv4, UDP.
const HEADERS: usize = 42;

/// `vm5` sends to the host's stack.
fn start_traffic(site: &mut Site, rate: u64) {
    site.vm5.start(Traffic {
        from: endpoint("vm5", 5),
        to: Endpoint { mac: WORLD_MAC, ip: WORLD_IP.into() },
        flows: 4,
        source_port: 40_000,
        port: PORT,
        rate,
        frame_len: 128,
        patterned: true,
        run: 1,
    });
}

/// A socket of the host's stack that `vm5` sends to.
struct Listener {
    socket: UdpSocket,
    /// The number that comes next, by flow.
    next: BTreeMap<SocketAddr, u32>,
    received: u64,
    answer: bool,
}

impl Listener {
    fn new(answer: bool) -> Listener {
        let socket = UdpSocket::bind((Ipv4Addr::from(WORLD_IP), PORT)).expect("a socket");
        socket.set_nonblocking(true).expect("it need not block");
        Listener { socket, next: BTreeMap::new(), received: 0, answer }
    }

    /// Takes some of what has come; each flow in its order, the payload as long as it was. Not more than what a guest that
    /// waits meanwhile has buffers for.
    fn take(&mut self) {
        let mut payload = [0; 2048];
        for _ in 0..64 {
            let Ok((len, from)) = self.socket.recv_from(&mut payload) else { break };
            assert_eq!(len, 128 - HEADERS);
            let seq = u32::from_be_bytes(payload[8..12].try_into().expect("four bytes"));
            let next = self.next.entry(from).or_insert(seq);
            assert!(seq >= *next, "{from}: {seq} after {next}");
            *next = seq + 1;
            self.received += 1;
            if self.answer {
                self.socket.send_to(&payload[..len], from).expect("an answer is sent");
            }
        }
    }
}

#[test]
fn a_tenant_and_the_hosts_stack_talk_through_a_chain() {
    alone_and_without_uring("a_tenant_and_the_hosts_stack_talk_through_a_chain", || {
        make_world();
        let mut site = Site::new(ONE);
        // The test VM answers no ARP.
        ip("neigh add 10.0.0.5 lladdr 52:54:00:00:00:05 dev lp0 nud permanent");
        let mut listener = Listener::new(true);
        start_traffic(&mut site, 3000);
        site.until("frames arrive and are answered", |site| {
            listener.take();
            listener.received > 3000 && site.port(VM5).counters.rx_packets > 3000
        });
        let capture = site.host.capture(WORLD).expect("a port");
        let (mut received, mut sent) = (0, 0);
        site.until("frames are captured both ways", |_| {
            listener.take();
            while let Ok(Some(frame)) = capture.next(Duration::ZERO) {
                match frame.direction {
                    Direction::Rx => received += 1,
                    Direction::Tx => sent += 1,
                }
            }
            received > 100 && sent > 100
        });
        drop(capture);
        site.vm5.stop();
        let sent = site.vm5.counters().sent;
        // A socket that is not read for long loses some, so what the stack was handed counts.
        site.until("all have arrived", |site| {
            listener.take();
            site.port(WORLD).counters.rx_packets >= sent
        });
        assert_eq!(listener.next.len(), 4, "every flow");
        let through = site.port(SVM1).counters.tx_packets;
        assert!(through >= sent + 3000, "{through} through the service, of {sent} and 3000 answers");
        assert_eq!(has_uring(), Uring::new().is_ok(), "it does not wait for a tap, so it is still there");
    });
}

/// Bytes that tell a wrong place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).flat_map(|word| (word.wrapping_mul(2_654_435_761)).to_le_bytes()).take(len).collect()
}

/// Two kernel stacks, each behind a tap, with a chain between them.
fn two_stacks(plan: Plan) {
    const LEN: usize = 4 << 20;
    make_world();
    ip("tuntap add dev lp1 mode tap multi_queue");
    let mut site = Site::new(Plan { away: true, ..plan });
    let elsewhere = Elsewhere::new();
    elsewhere.take("lp1");
    let done = Arc::new(AtomicBool::new(false));
    let far = {
        let (listening, ready) = std::sync::mpsc::channel();
        let echo = thread::spawn(move || {
            elsewhere.enter();
            ip("link set lo up");
            ip("link set lp1 up");
            ip("addr add 10.0.0.202/24 dev lp1");
            let listener = TcpListener::bind("10.0.0.202:80").expect("a socket");
            listening.send(()).expect("the test waits");
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut received = vec![0; LEN];
                stream.read_exact(&mut received).expect("the whole of it");
                stream.write_all(&received).expect("back again");
            }
            // Keeps the namespace until both are through.
            elsewhere
        });
        ready.recv().expect("it listens");
        echo
    };
    let near = {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            run(Command::new("busybox").args(["ping", "-c", "3", "-W", "5", "10.0.0.202"]));
            let clients: Vec<_> = (0..2).map(|_| thread::spawn(transfer)).collect();
            clients.into_iter().for_each(|client| client.join().expect("a transfer"));
            done.store(true, Ordering::Release);
        })
    };
    fn transfer() {
        let mut stream = TcpStream::connect("10.0.0.202:80").expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let sent = pattern(LEN);
        let mut other = stream.try_clone().expect("two ends");
        let bytes = sent.clone();
        let writer = thread::spawn(move || other.write_all(&bytes).expect("all is taken"));
        let mut received = vec![0; LEN];
        stream.read_exact(&mut received).expect("all comes back");
        writer.join().expect("the writer");
        assert!(received == sent, "not what was sent");
    }
    site.until("both transfers are done", |_| done.load(Ordering::Acquire) || near.is_finished());
    near.join().expect("pings and transfers");
    drop(far.join().expect("the far end"));
    // Two connections, both ways.
    let carried = 2 * 2 * LEN as u64;
    let through = site.port(SVM1).counters;
    assert!(through.tx_bytes > carried, "{} bytes through the service", through.tx_bytes);
    let world = site.port(WORLD).counters;
    let longer = world.tx_bytes / world.tx_packets > 1600;
    assert!(longer, "the stack sent super-frames: {} in {}", world.tx_bytes, world.tx_packets);
    assert_eq!(site.drops(WORLD, "vnet_header"), 0);
    match plan.offload {
        ServiceOffload::Software => assert!(through.rx_bytes / through.rx_packets < 1600, "{through:?}"),
        // They went through it, and reached the other stack, as they were.
        ServiceOffload::Metadata => {
            assert!(through.rx_bytes / through.rx_packets > 1600, "{through:?}");
            assert!(world.rx_bytes / world.rx_packets > 1600, "{world:?}");
        }
    }
}

#[test]
fn two_stacks_ping_and_talk_tcp_through_a_chain() {
    alone_and_without_uring("two_stacks_ping_and_talk_tcp_through_a_chain", || two_stacks(ONE));
}

#[test]
fn taps_of_two_queues_are_served_by_two_workers() {
    alone_and_without_uring("taps_of_two_queues_are_served_by_two_workers", || {
        two_stacks(Plan { workers: 2, queues: 2, ..ONE });
    });
}

#[test]
fn super_frames_cross_a_service_that_takes_them() {
    alone("super_frames_cross_a_service_that_takes_them", || {
        two_stacks(Plan { offload: ServiceOffload::Metadata, ..ONE });
    });
}

#[test]
fn frames_to_an_interface_that_is_down_are_counted_and_pass_again_when_it_is_up() {
    alone_and_without_uring(
        "frames_to_an_interface_that_is_down_are_counted_and_pass_again_when_it_is_up",
        || {
            make_world();
            let mut site = Site::new(ONE);
            let mut listener = Listener::new(false);
            start_traffic(&mut site, 3000);
            let flows = |site: &mut Site, listener: &mut Listener| {
                let goal = listener.received + 500;
                site.until("frames arrive", |_| {
                    listener.take();
                    listener.received > goal
                });
            };
            flows(&mut site, &mut listener);
            ip("link set lp0 down");
            site.until("frames are dropped", |site| site.drops(WORLD, "interface_down") > 500);
            ip("link set lp0 up");
            flows(&mut site, &mut listener);
            assert_eq!(site.ups_and_downs(WORLD), (1, 0), "it was attached all the time");
        },
    );
}

#[test]
fn an_interface_that_is_deleted_is_taken_up_again_when_it_is_made_anew() {
    alone_and_without_uring("an_interface_that_is_deleted_is_taken_up_again_when_it_is_made_anew", || {
        // Not there yet when the backend starts.
        let mut site = Site::new(ONE);
        assert!(!site.port(WORLD).attached);
        start_traffic(&mut site, 3000);
        for times in 1..=3 {
            make_world();
            let mut listener = Listener::new(false);
            site.until("frames arrive", |_| {
                listener.take();
                listener.received > 500
            });
            assert!(site.port(WORLD).attached);
            let dropped = site.drops(WORLD, "not_attached");
            ip("link delete lp0");
            site.until("its port is down", |site| site.ups_and_downs(WORLD) == (times, times));
            site.until("frames are dropped", |site| site.drops(WORLD, "not_attached") > dropped + 500);
            assert!(!site.port(WORLD).attached);
        }
    });
}

/// Also when nobody sends, so that no write tells of it.
#[test]
fn a_deleted_interface_is_noticed_without_traffic() {
    alone("a_deleted_interface_is_noticed_without_traffic", || {
        make_world();
        let mut site = Site::new(ONE);
        site.until("it is attached", |site| site.ups_and_downs(WORLD) == (1, 0));
        ip("link delete lp0");
        site.until("its port is down", |site| site.ups_and_downs(WORLD) == (1, 1));
    });
}

#[test]
fn an_interface_that_is_no_tap_is_refused_with_a_remedy() {
    alone("an_interface_that_is_no_tap_is_refused_with_a_remedy", || {
        let (sender, _events) = events().expect("an event channel");
        let folder = tempfile::tempdir().expect("a folder for the sockets");
        let ports = vec![
            vnic("vm5", folder.path(), ONE.offload),
            vnic("svm1", folder.path(), ONE.offload),
            tap("world", "lo", 1),
        ];
        let error = start(1, ports, sender).expect_err("lo is no tap");
        let HostError::Interface { port, source } = error else { panic!("{error}") };
        assert_eq!(port, "world");
        assert!(source.to_string().contains("ip tuntap add dev lo mode tap"), "{source}");
    });
}

#[test]
fn a_tap_that_is_in_use_is_taken_when_it_is_free() {
    alone("a_tap_that_is_in_use_is_taken_when_it_is_free", || {
        // Of one queue, so only one can have it.
        ip("tuntap add dev lp0 mode tap");
        let mut first = Site::new(ONE);
        first.until("it is attached", |site| site.port(WORLD).attached);
        let mut second = Site::new(ONE);
        assert!(!second.port(WORLD).attached);
        drop(first);
        second.until("it is free", |site| site.port(WORLD).attached);
    });
}
