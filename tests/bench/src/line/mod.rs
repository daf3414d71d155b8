//! A line: source, service VMs and sink, driven by one thread through the sockets of whatever forwards between them.
//!
//! ```text
//!  one thread, one core                      the forwarder's core
//!  source ── numbered frames ─▶ socket ─▶ ┐
//!  service VMs ◀── echo in place ──▶ sockets ─ forwarder
//!  sink ◀── every byte checked ── socket ◀┘
//! ```
//!
//! Frames under way are limited to a ring less one burst, so no forwarder has to drop for want of a buffer, and every frame of a
//! [`Window`] arrives, or the window is void.

mod latency;
mod offload;
mod template;
mod window;

pub use latency::Latencies;
pub use template::{Kind, MIN_FRAME, Template};
pub use window::{Void, Window};

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use service_vm::{Outcome, Responder};
use test_vm::{Layout, Options, TestVm, VNET_HEADER_LEN};
use vm_memory::GuestMemoryMmap;

/// Bursts in a ring. Of 256 entries a burst is 32 frames, which are queued before the forwarder is shown any of them.
const BURSTS: usize = 8;

/// A service VM's answers.
const RESPONDER: Responder = Responder { mac: None, si_decrement: false };

/// Where a ring lies, and the memory it is in.
pub type Place = (Arc<GuestMemoryMmap>, Layout);

/// Where the VMs of a line attach.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// The source's.
    pub source: PathBuf,
    /// The service VMs', in the order of the chain.
    pub services: Vec<PathBuf>,
    /// The sink's.
    pub sink: PathBuf,
}

/// What goes over a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// What the frames are.
    pub kind: Kind,
    /// Bytes of a frame without FCS.
    pub frame: usize,
    /// Flows, a power of two.
    pub flows: u32,
    /// Entries of every ring.
    pub ring: u16,
    /// Guest memory in pages of 2 MiB.
    pub huge_pages: bool,
    /// Buffers lie in no order, as those of guests that run for a while.
    pub scattered: bool,
    /// Which line of a forwarder this is; it is in all its addresses.
    pub line: u8,
    /// Bytes that each frame's segments are to have; `None`: no offload is asked for.
    pub segment: Option<u16>,
    /// Receive buffers that a frame takes several of; `None`: each holds a frame.
    pub merged: Option<Merged>,
    /// Frames go to a router first, and from there to the sink. Of one flow only.
    pub routed: bool,
}

/// What service VMs and sink post, and service VMs send from: more and shorter buffers than there are frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Bytes of a buffer.
    pub buffer: u32,
    /// Entries of their rings.
    pub ring: u16,
}

impl Traffic {
    /// UDP frames of one flow over rings of 256 entries.
    pub fn plain(frame: usize, huge_pages: bool) -> Traffic {
        Traffic {
            kind: Kind::Udp,
            frame,
            flows: 1,
            ring: 256,
            huge_pages,
            scattered: true,
            line: 0,
            segment: None,
            merged: None,
            routed: false,
        }
    }
}

/// VMs attached to a forwarder, and what was sent and has arrived.
#[derive(Debug)]
pub struct Line {
    source: TestVm,
    services: Vec<TestVm>,
    sink: TestVm,
    template: Template,
    header: [u8; VNET_HEADER_LEN],
    /// Frames sent at a time.
    burst: usize,
    /// Frames under way at most.
    credit: u64,
    /// Frames come in several buffers.
    merged: bool,
    /// TX buffers that hold the template already.
    primed: usize,
    /// In the upper 16 bits of every number: frames of an earlier window are not taken for this one's.
    run: u64,
    sent: u64,
    received: u64,
    wrong: u64,
}

impl Line {
    /// The address of a line's source.
    pub const fn source_mac(line: u8) -> [u8; 6] {
        [0x52, 0x54, 0, line, 0, 5]
    }

    /// The address of a line's sink.
    pub const fn sink_mac(line: u8) -> [u8; 6] {
        [0x52, 0x54, 0, line, 0, 6]
    }

    /// The address of service VM `index` of a line's chain.
    pub const fn service_mac(line: u8, index: usize) -> [u8; 6] {
        [0x52, 0x54, 0, line, 1, index as u8 + 1]
    }

    /// The address of the router that a line's frames go to, if they are routed.
    pub const fn router_mac(line: u8) -> [u8; 6] {
        [0x52, 0x54, 0, line, 2, 1]
    }

    /// Attaches all VMs.
    ///
    /// # Errors
    /// A forwarder does not listen, or does not offer what the traffic needs.
    pub fn attach(sockets: &Sockets, traffic: &Traffic) -> anyhow::Result<Line> {
        let attach = |socket: &PathBuf, options: Options| {
            TestVm::attach(socket, options).with_context(|| format!("cannot attach to {}", socket.display()))
        };
        let services = sockets.services.iter().enumerate();
        let services = services.map(|(index, socket)| attach(socket, service_options(traffic, index)));
        let services = services.collect::<anyhow::Result<_>>()?;
        let source =
            attach(&sockets.source, Options { mac: Line::source_mac(traffic.line), ..options(traffic) })?;
        let sink = attach(&sockets.sink, sink_options(traffic))?;
        Ok(Line::of(source, services, sink, traffic))
    }

    /// The VMs of a forwarder in this process, which gets at their rings by [`Line::ways`].
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn detached(traffic: &Traffic, services: usize) -> anyhow::Result<Line> {
        let receiver = |options: Options| -> anyhow::Result<TestVm> {
            let mut vm = TestVm::new(options)?;
            vm.pair(0).rx.refill();
            Ok(vm)
        };
        let services = (0..services).map(|index| receiver(service_options(traffic, index)));
        let services = services.collect::<anyhow::Result<_>>()?;
        let sink = receiver(sink_options(traffic))?;
        Ok(Line::of(TestVm::new(options(traffic))?, services, sink, traffic))
    }

    fn of(source: TestVm, services: Vec<TestVm>, sink: TestVm, traffic: &Traffic) -> Line {
        let (from, to) = (Line::source_mac(traffic.line), Line::sink_mac(traffic.line));
        let template = if traffic.routed {
            let router = Line::router_mac(traffic.line);
            Template::new(traffic.kind, from, router, traffic.frame, traffic.flows).routed(router, to)
        } else {
            Template::new(traffic.kind, from, to, traffic.frame, traffic.flows)
        };
        let room =
            traffic.merged.map_or(traffic.ring, |merged| merged.frames(traffic.frame)).min(traffic.ring);
        let burst = burst(room);
        Line {
            source,
            services,
            sink,
            template,
            header: offload::header(traffic),
            burst,
            credit: (usize::from(room) - burst) as u64,
            merged: traffic.merged.is_some(),
            primed: 0,
            run: 0,
            sent: 0,
            received: 0,
            wrong: 0,
        }
    }

    /// The rings between which a forwarder brings frames, way by way from the source to the sink: a transmitq, and the receiveq
    /// of the next VM.
    pub fn ways(&mut self) -> Vec<[Place; 2]> {
        let place = |vm: &TestVm, layout| (Arc::new(vm.ram().mapping().clone()), layout);
        let mut vms: Vec<&mut TestVm> = [&mut self.source].into_iter().chain(&mut self.services).collect();
        vms.push(&mut self.sink);
        let mut ways = Vec::new();
        for next in 1..vms.len() {
            let (from, to) = (vms[next - 1].pair(0).tx.layout(), vms[next].pair(0).rx.layout());
            ways.push([place(&*vms[next - 1], from), place(&*vms[next], to)]);
        }
        ways
    }

    /// Bytes of a frame.
    pub fn frame(&self) -> usize {
        self.template.len()
    }

    /// Entries of every ring.
    pub fn ring(&self) -> u16 {
        self.source.options().ring_size
    }

    /// Forgets what is under way and begins to count anew.
    fn begin(&mut self) {
        self.run = (self.run + 1) & 0xffff;
        (self.sent, self.received, self.wrong) = (0, 0, 0);
    }

    /// Queues a burst of `count` frames and shows it to the forwarder.
    #[inline]
    fn send(&mut self, count: usize) {
        let Line { source, template, header, primed, run, sent, .. } = self;
        let slots = usize::from(source.options().ring_size);
        let first = *run << 48 | *sent;
        let tx = &mut source.pair(0).tx;
        tx.prepare(count);
        let mut queued = 0;
        // Slots are used in turn, so after a round of the ring all hold the template.
        if *primed < slots {
            while queued < count
                && tx.send_with_header(header, template.len(), |frame| {
                    template.write(frame, first + queued as u64);
                })
            {
                queued += 1;
            }
            *primed += queued;
        } else {
            while queued < count
                && tx.send_with_header(header, template.len(), |frame| {
                    template.renumber(frame, first + queued as u64);
                })
            {
                queued += 1;
            }
        }
        *sent += queued as u64;
        tx.flush();
    }

    /// Lets every service VM answer and the sink take what is there; how many frames the sink took.
    #[inline]
    fn serve(&mut self) -> usize {
        if self.merged {
            return self.serve_merged();
        }
        for service in &mut self.services {
            service
                .pair(0)
                .echo(usize::MAX, |frame| RESPONDER.answer(frame, |_| Outcome::Forward).len_to_send());
        }
        let Line { sink, template, run, received, wrong, .. } = self;
        sink.receive(|frame| {
            let expected = *run << 48 | *received;
            if template.is(frame, expected) {
                *received += 1;
            } else if template.number(frame).is_none_or(|number| number >> 48 == *run) {
                *wrong += 1;
            }
        })
    }

    /// The same where frames lie in several buffers.
    fn serve_merged(&mut self) -> usize {
        for service in &mut self.services {
            // What is decided about a frame, its first buffer says.
            service
                .pair(0)
                .echo_merged(usize::MAX, |part| RESPONDER.answer(part, |_| Outcome::Forward).len_to_send());
        }
        let Line { sink, template, run, received, wrong, .. } = self;
        sink.pair(0).rx.receive_pieces(|pieces| {
            let expected = *run << 48 | *received;
            if template.is_in(pieces, expected) {
                *received += 1;
            } else {
                let number = pieces.first().and_then(|first| template.number(first));
                *wrong += u64::from(number.is_none_or(|number| number >> 48 == *run));
            }
        })
    }

    /// A burst may be sent.
    #[inline]
    fn has_room(&self) -> bool {
        self.sent - self.received + self.burst as u64 <= self.credit
    }

    /// One round: a burst if there is room for one, answers, arrivals. What the latter two read is asked for first, so that it
    /// comes meanwhile.
    #[inline]
    fn step(&mut self, sending: bool) -> usize {
        for service in &mut self.services {
            service.pair(0).expect_to_echo();
        }
        self.sink.pair(0).rx.expect();
        if sending && self.has_room() {
            self.send(self.burst);
        }
        self.serve()
    }
}

/// Frames that are sent at a time over rings of so many entries.
pub(crate) fn burst(ring: u16) -> usize {
    (usize::from(ring) / BURSTS).max(1)
}

/// Bytes of a buffer for frames of so many: with the headers pushed and the virtio-net header, in whole cache lines.
pub(crate) fn buffer_len(frame: usize) -> usize {
    (frame + VNET_HEADER_LEN + 64).next_multiple_of(64).max(2048)
}

impl Merged {
    /// Frames of so many bytes that a ring has room for.
    fn frames(self, frame: usize) -> u16 {
        let buffers = (frame + VNET_HEADER_LEN + nsh::ENCAP_LEN).div_ceil(self.buffer as usize);
        self.ring / buffers as u16
    }
}

fn options(traffic: &Traffic) -> Options {
    let buffer = buffer_len(traffic.frame) as u32;
    Options {
        ring_size: traffic.ring,
        huge_pages: traffic.huge_pages,
        scattered: traffic.scattered,
        rx_buffer_len: buffer,
        tx_buffer_len: buffer,
        features: offload::features(traffic),
        ..Options::default()
    }
}

/// The same for those that receive.
fn receiver_options(traffic: &Traffic) -> Options {
    let options = options(traffic);
    match traffic.merged {
        Some(Merged { buffer, ring }) => {
            Options { ring_size: ring, rx_buffer_len: buffer, tx_buffer_len: buffer, ..options }
        }
        None => options,
    }
}

fn sink_options(traffic: &Traffic) -> Options {
    Options { mac: Line::sink_mac(traffic.line), ..receiver_options(traffic) }
}

/// A service VM asks for no offload of its own.
fn service_options(traffic: &Traffic, index: usize) -> Options {
    Options { mac: Line::service_mac(traffic.line, index), features: 0, ..receiver_options(traffic) }
}
