//! A VM: memory, queue pairs and, while attached, a session.

use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::Frontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;

use crate::driver::{Geometry, Ring};
use crate::hostile::RawRing;
use crate::session::{self, Session};
use crate::sys::GuestRam;
use crate::wire::Wire;
use crate::{Error, Options, Receive, Transmit};

/// The two rings of one queue pair: ring index `2i` is receiveq `i`, `2i + 1` is transmitq `i` (virtio 1.2 section 5.1.2).
#[derive(Debug)]
pub struct Pair {
    /// From the device.
    pub rx: Receive,
    /// To the device.
    pub tx: Transmit,
}

/// A VM with one vNIC on a vhost-user socket. Dropping it closes the socket, as if its VMM had been killed.
#[derive(Debug)]
pub struct TestVm {
    options: Options,
    ram: Arc<GuestRam>,
    pairs: Vec<Pair>,
    session: Option<Session>,
    /// The device's rings are started.
    running: bool,
}

impl TestVm {
    /// Makes a VM and attaches it to the backend that listens, or will listen soon, on `socket`.
    pub fn attach(socket: &Path, options: Options) -> Result<TestVm, Error> {
        let mut vm = TestVm::new(options)?;
        vm.reattach(socket)?;
        Ok(vm)
    }

    /// Makes a VM that listens itself, for a backend in client mode. Waits for one connection.
    pub fn accept(listener: &UnixListener, options: Options) -> Result<TestVm, Error> {
        let (stream, _) = listener.accept().map_err(|source| Error::Socket { step: "accept", source })?;
        let mut vm = TestVm::new(options)?;
        vm.reattach_stream(stream)?;
        Ok(vm)
    }

    /// Makes a VM that is not attached: memory and rings only.
    pub fn new(options: Options) -> Result<TestVm, Error> {
        check(&options)?;
        let per_pair = 2 * Ring::memory(options.ring_size)
            + Geometry::receive(&options).memory()
            + Geometry::transmit(&options).memory();
        let need = 2 * 4096 + options.queue_pairs * (per_pair + 8 * 64);
        let memory = options.memory.max(need);
        let ram = if options.huge_pages { GuestRam::in_huge_pages(memory)? } else { GuestRam::new(memory)? };
        let mut pairs = Vec::with_capacity(options.queue_pairs);
        for _ in 0..options.queue_pairs {
            pairs.push(Pair { rx: Receive::new(&ram, &options)?, tx: Transmit::new(&ram, &options)? });
        }
        Ok(TestVm { options, ram, pairs, session: None, running: false })
    }

    /// Attaches again after the connection was lost, keeping the guest's memory, rings and frames in flight, as a VMM does
    /// when its backend returns. The device resumes where the used index says, which is right if it completes in order.
    pub fn reattach(&mut self, socket: &Path) -> Result<(), Error> {
        let stream = session::connect(socket, self.options.connect_timeout)?;
        self.reattach_stream(stream)
    }

    /// As [`TestVm::reattach`] on a connection that exists.
    pub fn reattach_stream(&mut self, stream: UnixStream) -> Result<(), Error> {
        self.kill();
        let rings = self.rings();
        let mut session = Session::open(stream, &self.options, &rings)?;
        // Now that the backend has answered, it is done with the connection before.
        let bases: Vec<u16> = rings.iter().map(|ring| ring.used_index()).collect();
        session.start(&self.ram, &rings, &bases)?;
        self.session = Some(session);
        self.set_running();
        Ok(())
    }

    fn set_running(&mut self) {
        self.running = true;
        for pair in &mut self.pairs {
            pair.rx.refill();
            pair.tx.flush();
            // What was published before the device was there has been kicked into the void.
            pair.rx.ring.kick();
            pair.tx.ring.kick();
        }
    }

    fn rings(&self) -> Vec<&Ring> {
        self.pairs.iter().flat_map(|pair| [&pair.rx.ring, &pair.tx.ring]).collect()
    }

    fn session(&mut self) -> Result<&mut Session, Error> {
        self.session.as_mut().ok_or(Error::Detached)
    }

    /// Closes the socket without a word, as a killed VMM does. Memory and rings stay as they are.
    pub fn kill(&mut self) {
        self.session = None;
        self.running = false;
    }

    /// Stops the rings (GET_VRING_BASE) and closes the socket, as a VMM does that shuts down in good order.
    pub fn detach(mut self) -> Result<(), Error> {
        self.pause().map(drop)
    }

    /// Stops the rings; the guest keeps its frames in flight. Returns the avail index of each ring at which the device stopped.
    pub fn pause(&mut self) -> Result<Vec<u16>, Error> {
        let rings = 2 * self.pairs.len();
        let ram = Arc::clone(&self.ram);
        let bases = self.session()?.stop(&ram, rings)?;
        self.running = false;
        Ok(bases)
    }

    /// Starts the rings at the indices that [`TestVm::pause`] returned.
    pub fn resume(&mut self, bases: &[u16]) -> Result<(), Error> {
        let mut session = self.session.take().ok_or(Error::Detached)?;
        let started = session.start(&self.ram, &self.rings(), bases);
        self.session = Some(session);
        started?;
        self.set_running();
        Ok(())
    }

    /// The guest resets the device and sets it up again: rings stopped, zeroed and started from index 0; frames in flight are
    /// forgotten.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.unload()?;
        self.load()
    }

    /// The VM is started anew: the socket closes, memory and rings are new ones. Attach it again with [`TestVm::reattach`].
    /// The old memory is not used again, since the backend may still be at work in it.
    pub fn reboot(&mut self) -> Result<(), Error> {
        *self = TestVm::new(self.options.clone())?;
        Ok(())
    }

    fn clear_rings(&mut self) {
        for pair in &mut self.pairs {
            pair.rx.reset();
            pair.tx.reset();
        }
    }

    /// First half of a reset: the driver is gone, the socket stays.
    pub fn unload(&mut self) -> Result<(), Error> {
        self.pause()?;
        self.clear_rings();
        Ok(())
    }

    /// Second half of a reset: the driver is loaded and starts the rings.
    pub fn load(&mut self) -> Result<(), Error> {
        self.resume(&vec![0; 2 * self.pairs.len()])
    }

    /// True while there is a connection whose other end has not hung up. A system call; not for every frame.
    pub fn is_attached(&self) -> bool {
        let Some(session) = &self.session else { return false };
        let mut fds = [PollFd::new(session.wire.stream(), PollFlags::IN)];
        let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP;
        poll(&mut fds, Some(&nothing)).is_ok() && !fds[0].revents().intersects(gone)
    }

    /// True while the device's rings are started.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Queue pair `index`.
    ///
    /// # Panics
    /// If there is no such pair.
    pub fn pair(&mut self, index: usize) -> &mut Pair {
        &mut self.pairs[index]
    }

    /// All queue pairs, e.g. to give each to a thread of its own.
    pub fn pairs(&mut self) -> &mut [Pair] {
        &mut self.pairs
    }

    /// Queues a frame on the first pair; see [`Transmit::send`].
    #[inline]
    pub fn send(&mut self, frame: &[u8]) -> bool {
        self.pairs[0].tx.send(frame)
    }

    /// Queues a frame on the first pair; see [`Transmit::send_with`].
    #[inline]
    pub fn send_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        self.pairs[0].tx.send_with(len, fill)
    }

    /// Shows the device what was queued on the first pair; see [`Transmit::flush`].
    #[inline]
    pub fn flush(&mut self) -> bool {
        self.pairs[0].tx.flush()
    }

    /// Takes back sent frames of the first pair; see [`Transmit::reap`].
    #[inline]
    pub fn reap(&mut self) -> usize {
        self.pairs[0].tx.reap()
    }

    /// Takes a batch of received frames of the first pair; see [`Receive::receive`].
    #[inline]
    pub fn receive(&mut self, take: impl FnMut(&[u8])) -> usize {
        self.pairs[0].rx.receive(take)
    }

    /// Sleeps until the device has received something on any pair, for `timeout` at most. True if it has.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let mut ready = false;
        for pair in &mut self.pairs {
            ready |= pair.rx.arm();
        }
        if !ready {
            let mut fds: Vec<_> = self
                .pairs
                .iter()
                .map(|pair| PollFd::from_borrowed_fd(pair.rx.call_fd(), PollFlags::IN))
                .collect();
            let timeout = Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos().into() };
            ready = poll(&mut fds, Some(&timeout)).is_ok_and(|count| count > 0);
        }
        for pair in &mut self.pairs {
            pair.rx.disarm();
        }
        ready
    }

    /// What the VM was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Feature bits in force; 0 while detached.
    pub fn features(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.features)
    }

    /// Protocol features in force.
    pub fn protocol_features(&self) -> VhostUserProtocolFeatures {
        self.session.as_ref().map_or(VhostUserProtocolFeatures::empty(), |session| session.protocol)
    }

    /// Guest memory.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Bytes of the device's configuration space (GET_CONFIG).
    pub fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>, Error> {
        self.session()?.config(offset, len)
    }

    /// SET_VRING_ENABLE for every ring.
    pub fn enable(&mut self, enabled: bool) -> Result<(), Error> {
        let rings = 2 * self.pairs.len();
        self.session()?.enable(0..rings, enabled)
    }

    /// SET_VRING_ENABLE for the rings of some pairs, as QEMU sends it when its guest changes how many it uses.
    pub fn enable_pairs(&mut self, pairs: Range<usize>, enabled: bool) -> Result<(), Error> {
        self.session()?.enable(2 * pairs.start..2 * pairs.end, enabled)
    }

    /// Announces the same memory once more while the rings run, as a VMM does after hotplug.
    pub fn announce_memory(&mut self) -> Result<(), Error> {
        let ram = Arc::clone(&self.ram);
        self.session()?.announce_memory(&ram)
    }

    /// The vhost-user frontend, for requests this type does not make.
    pub fn frontend(&self) -> Option<&Frontend> {
        self.session.as_ref().map(|session| &session.frontend)
    }

    /// The socket for any bytes. Requests sent here must be answered before the frontend is used again.
    pub fn wire(&self) -> Option<&Wire> {
        self.session.as_ref().map(|session| &session.wire)
    }

    /// Ring `index` for writing anything into it; even indices are receiveqs, odd ones transmitqs.
    ///
    /// # Panics
    /// If there is no such ring.
    pub fn raw(&mut self, index: usize) -> RawRing<'_> {
        let pair = &mut self.pairs[index / 2];
        if index.is_multiple_of(2) { RawRing::receive(&mut pair.rx) } else { RawRing::transmit(&mut pair.tx) }
    }

    /// The eventfd the device calls when it has received something on the first pair.
    pub fn call_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pairs[0].rx.ring.call.as_fd()
    }
}

fn check(options: &Options) -> Result<(), Error> {
    let fail = |name, why: String| Err(Error::Option { name, why });
    let size = options.ring_size;
    if !size.is_power_of_two() || size > 1 << 15 {
        return fail("ring_size", format!("{size} is not a power of two up to 32768"));
    }
    if !(1..=8).contains(&options.regions) {
        return fail("regions", format!("{} is not in 1..=8", options.regions));
    }
    if options.queue_pairs == 0 {
        return fail("queue_pairs", "at least one".into());
    }
    for (name, shape) in [("tx_shape", options.tx_shape), ("rx_shape", options.rx_shape)] {
        if shape.max_pieces() > size {
            return fail(name, format!("{} descriptors do not fit a ring of {size}", shape.max_pieces()));
        }
    }
    for (name, len) in [("rx_buffer_len", options.rx_buffer_len), ("tx_buffer_len", options.tx_buffer_len)] {
        if !(60..=1 << 20).contains(&len) {
            return fail(name, format!("{len} is not in 60..=1048576"));
        }
    }
    Ok(())
}
