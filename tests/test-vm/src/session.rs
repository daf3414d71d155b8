//! The control side: what a VMM says to the backend on the socket, in the order of QEMU or of Cloud Hypervisor.

use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{
    FrontendReq, VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::driver::Ring;
use crate::sys::GuestRam;
use crate::wire::{Message, Wire};
use crate::{Error, Options, Order};

const F_PROTOCOL_FEATURES: u64 = 1 << 30;
const CONNECT_PAUSE: Duration = Duration::from_millis(5);

/// One connection to a backend.
pub(crate) struct Session {
    pub(crate) frontend: Frontend,
    pub(crate) wire: Wire,
    pub(crate) features: u64,
    pub(crate) protocol: VhostUserProtocolFeatures,
    order: Order,
    regions: usize,
    patience: Duration,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("features", &self.features).field("protocol", &self.protocol).finish()
    }
}

/// Connects, trying again while nobody listens.
pub(crate) fn connect(socket: &Path, timeout: Duration) -> Result<UnixStream, Error> {
    let begin = Instant::now();
    loop {
        let source = match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(source) => source,
        };
        let absent = matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
        if !absent || begin.elapsed() >= timeout {
            return Err(Error::Connect { path: socket.into(), waited: begin.elapsed(), source });
        }
        std::thread::sleep(CONNECT_PAUSE);
    }
}

/// Feature bits that the options name.
fn demanded(options: &Options) -> u64 {
    let bit = |wanted: bool, bit: u32| u64::from(wanted) << bit;
    options.features
        | 1 << VIRTIO_F_VERSION_1
        | bit(options.event_idx, VIRTIO_RING_F_EVENT_IDX)
        | bit(options.indirect, VIRTIO_RING_F_INDIRECT_DESC)
        | bit(options.in_order, VIRTIO_F_IN_ORDER)
        | bit(options.mergeable, VIRTIO_NET_F_MRG_RXBUF)
}

fn request<T>(step: &'static str, result: vhost::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Request { step, source })
}

impl Session {
    /// Everything before the guest's driver has decided on features: what a VMM does when it starts.
    pub(crate) fn open(stream: UnixStream, options: &Options, rings: &[&Ring]) -> Result<Session, Error> {
        let socket = |step| move |source| Error::Socket { step, source };
        stream.set_read_timeout(Some(options.reply_timeout)).map_err(socket("read timeout"))?;
        stream.set_write_timeout(Some(options.reply_timeout)).map_err(socket("write timeout"))?;
        let wire = Wire::from_stream(stream.try_clone().map_err(socket("second descriptor"))?);
        let mut session = Session {
            frontend: Frontend::from_stream(stream, rings.len() as u64),
            wire,
            features: 0,
            protocol: VhostUserProtocolFeatures::empty(),
            order: options.order,
            regions: options.regions,
            patience: options.reply_timeout,
        };
        session.patiently(|session| match options.order {
            Order::CloudHypervisor => {
                request("SET_OWNER", session.frontend.set_owner())?;
                session.negotiate(options)
            }
            Order::Qemu => {
                session.negotiate(options)?;
                request("SET_OWNER", session.frontend.set_owner())?;
                request("GET_FEATURES", session.frontend.get_features())?;
                for (index, ring) in rings.iter().enumerate() {
                    request("SET_VRING_CALL", session.frontend.set_vring_call(index, ring.call.eventfd()))?;
                }
                Ok(())
            }
        })?;
        Ok(session)
    }

    /// Does `work`, and hangs up if that takes too long: the crate's frontend waits for a reply for ever, whatever timeout its
    /// socket has.
    fn patiently<T>(&mut self, work: impl FnOnce(&mut Session) -> Result<T, Error>) -> Result<T, Error> {
        let patience = self.patience;
        let stream = self
            .wire
            .stream()
            .try_clone()
            .map_err(|source| Error::Socket { step: "second descriptor", source })?;
        std::thread::scope(|scope| {
            let (done, is_done) = mpsc::channel::<()>();
            let watch = scope.spawn(move || {
                let late = is_done.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
                if late {
                    // The frontend then reads the end of the stream.
                    let _ = stream.shutdown(Shutdown::Both);
                }
                late
            });
            let result = work(self);
            drop(done);
            let late = watch.join().unwrap_or(false);
            result.map_err(|error| {
                if late { Error::Silent { waited: patience, source: Box::new(error) } } else { error }
            })
        })
    }

    fn negotiate(&mut self, options: &Options) -> Result<(), Error> {
        let offered = request("GET_FEATURES", self.frontend.get_features())?;
        let demanded = demanded(options);
        let missing = demanded & !offered;
        if missing != 0 {
            return Err(Error::Features { offered, missing });
        }
        self.features = demanded | (options.optional_features | F_PROTOCOL_FEATURES) & offered;
        if offered & F_PROTOCOL_FEATURES != 0 {
            let offered = request("GET_PROTOCOL_FEATURES", self.frontend.get_protocol_features())?;
            self.protocol = offered & options.protocol_features;
            request("SET_PROTOCOL_FEATURES", self.frontend.set_protocol_features(self.protocol))?;
        }
        if self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        if self.protocol.contains(VhostUserProtocolFeatures::MQ) {
            // Not through the frontend, which would take the answer for the number of rings; some backends count pairs.
            let reply = self.raw("GET_QUEUE_NUM", FrontendReq::GET_QUEUE_NUM, false, &[])?;
            let offered = reply.value().unwrap_or(0);
            if offered < options.queue_pairs as u64 {
                return Err(Error::QueuePairs { wanted: options.queue_pairs, offered });
            }
        }
        Ok(())
    }

    fn raw(
        &self,
        step: &'static str,
        code: FrontendReq,
        need_reply: bool,
        body: &[u8],
    ) -> Result<Message, Error> {
        self.wire.request(code.into(), need_reply, body, &[]).map_err(|source| Error::Socket { step, source })
    }

    /// Everything after the guest's driver is ready: features, memory, rings. `bases` are the first avail indices the
    /// device shall look at.
    pub(crate) fn start(&mut self, ram: &GuestRam, rings: &[&Ring], bases: &[u16]) -> Result<(), Error> {
        self.patiently(|session| {
            if session.order == Order::Qemu {
                session.enable(0..rings.len(), true)?;
            }
            request("SET_FEATURES", session.frontend.set_features(session.features))?;
            session.tell_memory(ram)?;
            for (index, (ring, base)) in rings.iter().zip(bases).enumerate() {
                session.start_ring(ram, index, ring, *base)?;
            }
            if session.order == Order::CloudHypervisor {
                session.enable(0..rings.len(), true)?;
            }
            Ok(())
        })
    }

    /// Tells the backend where guest memory is, once more.
    pub(crate) fn announce_memory(&mut self, ram: &GuestRam) -> Result<(), Error> {
        self.patiently(|session| {
            session.withdraw_memory(ram)?;
            session.tell_memory(ram)
        })
    }

    /// ADD_MEM_REG as QEMU does where it can, else SET_MEM_TABLE.
    fn tell_memory(&mut self, ram: &GuestRam) -> Result<(), Error> {
        let regions = ram.regions(self.regions);
        let by_slots = self.order == Order::Qemu
            && self.protocol.contains(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);
        if by_slots {
            for region in &regions {
                request("ADD_MEM_REG", self.frontend.add_mem_region(region))?;
            }
        } else {
            request("SET_MEM_TABLE", self.frontend.set_mem_table(&regions))?;
        }
        Ok(())
    }

    /// Takes back what `tell_memory` told by ADD_MEM_REG; a later SET_MEM_TABLE replaces the old table by itself.
    fn withdraw_memory(&mut self, ram: &GuestRam) -> Result<(), Error> {
        if self.order == Order::Qemu && self.protocol.contains(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
        {
            for region in &ram.regions(self.regions) {
                request("REM_MEM_REG", self.frontend.remove_mem_region(region))?;
            }
        }
        Ok(())
    }

    fn start_ring(&mut self, ram: &GuestRam, index: usize, ring: &Ring, base: u16) -> Result<(), Error> {
        let layout = ring.layout();
        let address = VringConfigData {
            queue_max_size: layout.size,
            queue_size: layout.size,
            flags: 0,
            desc_table_addr: ram.user_address(layout.desc),
            avail_ring_addr: ram.user_address(layout.avail),
            used_ring_addr: ram.user_address(layout.used),
            log_addr: None,
        };
        let frontend = &self.frontend;
        let set_address = || request("SET_VRING_ADDR", frontend.set_vring_addr(index, &address));
        let set_base = || request("SET_VRING_BASE", frontend.set_vring_base(index, base));
        let set_call = || request("SET_VRING_CALL", frontend.set_vring_call(index, ring.call.eventfd()));
        let set_kick = || request("SET_VRING_KICK", frontend.set_vring_kick(index, ring.kick.eventfd()));
        request("SET_VRING_NUM", frontend.set_vring_num(index, layout.size))?;
        request("SET_VRING_ERR", frontend.set_vring_err(index, ring.err.eventfd()))?;
        match self.order {
            Order::CloudHypervisor => {
                set_address()?;
                set_base()?;
                set_call()?;
                set_kick()
            }
            Order::Qemu => {
                set_base()?;
                set_address()?;
                set_kick()?;
                set_call()
            }
        }
    }

    /// SET_VRING_ENABLE for each of these rings, also before SET_FEATURES, when the crate's frontend refuses to send it.
    pub(crate) fn enable(&mut self, rings: Range<usize>, enabled: bool) -> Result<(), Error> {
        const STEP: &str = "SET_VRING_ENABLE";
        if self.features & F_PROTOCOL_FEATURES == 0 {
            return Ok(());
        }
        let acknowledged = self.protocol.contains(VhostUserProtocolFeatures::REPLY_ACK);
        for index in rings {
            let mut body = [0; 8];
            body[..4].copy_from_slice(&(index as u32).to_le_bytes());
            body[4..].copy_from_slice(&u32::from(enabled).to_le_bytes());
            if !acknowledged {
                let sent = self.wire.send(FrontendReq::SET_VRING_ENABLE.into(), false, &body, &[]);
                sent.map_err(|source| Error::Socket { step: STEP, source })?;
                continue;
            }
            let reply = self.raw(STEP, FrontendReq::SET_VRING_ENABLE, true, &body)?;
            if reply.value() != Some(0) {
                return Err(Error::Reply { step: STEP, got: format!("{reply:?}") });
            }
        }
        Ok(())
    }

    /// Stops every ring as a VMM does when the guest resets the device or is paused. Returns the avail indices at which the
    /// device stopped.
    pub(crate) fn stop(&mut self, ram: &GuestRam, rings: usize) -> Result<Vec<u16>, Error> {
        self.patiently(|session| {
            if session.order == Order::CloudHypervisor {
                session.enable(0..rings, false)?;
            }
            let mut bases = Vec::with_capacity(rings);
            for index in 0..rings {
                bases.push(request("GET_VRING_BASE", session.frontend.get_vring_base(index))? as u16);
            }
            if session.order == Order::Qemu {
                session.enable(0..rings, false)?;
            }
            session.withdraw_memory(ram)?;
            Ok(bases)
        })
    }

    pub(crate) fn config(&mut self, offset: u32, len: u32) -> Result<Vec<u8>, Error> {
        let space = vec![0; len as usize];
        self.patiently(|session| {
            let reply = session.frontend.get_config(offset, len, VhostUserConfigFlags::WRITABLE, &space);
            Ok(request("GET_CONFIG", reply)?.1)
        })
    }
}
