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
    /// Frames go to a router first, and from there to the sink. Of one flow only.
    pub routed: bool,
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
        let services = sockets.services.iter().enumerate().map(|(index, socket)| {
            // A service VM asks for no offload of its own.
            attach(
                socket,
                Options { mac: Line::service_mac(traffic.line, index), features: 0, ..options(traffic) },
            )
        });
        let services = services.collect::<anyhow::Result<_>>()?;
        let source =
            attach(&sockets.source, Options { mac: Line::source_mac(traffic.line), ..options(traffic) })?;
        let sink = attach(&sockets.sink, Options { mac: Line::sink_mac(traffic.line), ..options(traffic) })?;
        Ok(Line::of(source, services, sink, traffic))
    }

    /// Source and sink of a forwarder in this process, which gets at their rings by [`Line::ends`].
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn detached(traffic: &Traffic) -> anyhow::Result<Line> {
        let mut sink = TestVm::new(options(traffic))?;
        sink.pair(0).rx.refill();
        Ok(Line::of(TestVm::new(options(traffic))?, Vec::new(), sink, traffic))
    }

    fn of(source: TestVm, services: Vec<TestVm>, sink: TestVm, traffic: &Traffic) -> Line {
        let (from, to) = (Line::source_mac(traffic.line), Line::sink_mac(traffic.line));
        let template = if traffic.routed {
            let router = Line::router_mac(traffic.line);
            Template::new(traffic.kind, from, router, traffic.frame, traffic.flows).routed(router, to)
        } else {
            Template::new(traffic.kind, from, to, traffic.frame, traffic.flows)
        };
        let burst = burst(traffic.ring);
        Line {
            source,
            services,
            sink,
            template,
            header: offload::header(traffic),
            burst,
            credit: (usize::from(traffic.ring) - burst) as u64,
            primed: 0,
            run: 0,
            sent: 0,
            received: 0,
            wrong: 0,
        }
    }

    /// Memory and place of the source's transmitq and of the sink's receiveq.
    pub fn ends(&mut self) -> [(Arc<GuestMemoryMmap>, Layout); 2] {
        let memory = |vm: &TestVm| Arc::new(vm.ram().mapping().clone());
        let (from, to) = (memory(&self.source), memory(&self.sink));
        [(from, self.source.pair(0).tx.layout()), (to, self.sink.pair(0).rx.layout())]
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
        const RESPONDER: Responder = Responder { mac: None, si_decrement: false };
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
