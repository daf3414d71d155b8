//! A VMM's side of the protocol, as the vhost crate speaks it (and Cloud Hypervisor with it).

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost_backend::ring::Layout;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub(crate) const GUEST: u64 = 0x10_0000;
const MEMORY: usize = 0x10_0000;
pub(crate) const SIZE: u16 = 256;

/// Guest memory and a connection.
pub(crate) struct Vm {
    pub(crate) frontend: Frontend,
    pub(crate) features: u64,
    memory: GuestMemoryMmap,
    event: EventFd,
}

impl Vm {
    pub(crate) fn connect(path: &Path) -> Vm {
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(_) => sleep(Duration::from_millis(5)),
            }
        };
        Vm::on(stream)
    }

    /// On a connection already made; `Frontend::connect` tries for as long as a minute.
    pub(crate) fn on(stream: UnixStream) -> Vm {
        let file = File::from(rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(MEMORY as u64).unwrap();
        let ranges = [(GuestAddress(GUEST), MEMORY, Some(FileOffset::new(file, 0)))];
        Vm {
            frontend: Frontend::from_stream(stream, 4),
            features: 0,
            memory: GuestMemoryMmap::from_ranges_with_files(ranges).unwrap(),
            event: EventFd::new(EFD_NONBLOCK).unwrap(),
        }
    }

    /// All features, and an answer to everything from here on.
    pub(crate) fn negotiate(&mut self) {
        self.frontend.set_owner().unwrap();
        self.features = self.frontend.get_features().unwrap();
        let protocol = self.frontend.get_protocol_features().unwrap();
        self.frontend.set_protocol_features(protocol).unwrap();
        assert!(protocol.contains(VhostUserProtocolFeatures::REPLY_ACK));
        self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        self.frontend.set_features(self.features).unwrap();
        self.frontend.set_mem_table(&[self.region()]).unwrap();
    }

    pub(crate) fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo::from_guest_region(self.memory.iter().next().unwrap()).unwrap()
    }

    /// Where a ring lies in guest memory.
    pub(crate) fn layout(index: usize) -> Layout {
        let at = GUEST + 0x1_0000 * index as u64;
        Layout { size: SIZE, desc: at, avail: at + 0x4000, used: at + 0x6000 }
    }

    /// Sets up and starts a ring whose used index stands at `used`.
    pub(crate) fn start(&mut self, index: usize, base: u16, used: u16) {
        let layout = Vm::layout(index);
        self.memory.write_obj(used, GuestAddress(layout.used + 2)).unwrap();
        self.frontend.set_vring_num(index, SIZE).unwrap();
        self.frontend.set_vring_addr(index, &self.address(layout)).unwrap();
        self.frontend.set_vring_base(index, base).unwrap();
        self.frontend.set_vring_call(index, &self.event).unwrap();
        self.frontend.set_vring_kick(index, &self.event).unwrap();
    }

    pub(crate) fn rekick(&self, index: usize) {
        self.frontend.set_vring_kick(index, &self.event).unwrap();
        self.frontend.set_vring_call(index, &self.event).unwrap();
        self.frontend.set_vring_err(index, &self.event).unwrap();
    }

    fn address(&self, layout: Layout) -> VringConfigData {
        let region = self.memory.iter().next().unwrap();
        let user = |guest| region.as_ptr() as u64 + (guest - region.start_addr().0);
        VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: user(layout.desc),
            used_ring_addr: user(layout.used),
            avail_ring_addr: user(layout.avail),
            log_addr: None,
        }
    }
}
