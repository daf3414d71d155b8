//! The device's end of a VM that is not attached, on virtio-queue: for tests that want each step under control.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{Layout, TestVm, VNET_HEADER_LEN};

pub(crate) struct Device {
    pub(crate) rx: Queue,
    pub(crate) tx: Queue,
    memory: GuestMemoryMmap,
}

impl Device {
    pub(crate) fn of(vm: &mut TestVm) -> Device {
        let event_idx = vm.options().event_idx;
        let memory = vm.ram().mapping().clone();
        let pair = vm.pair(0);
        pair.rx.refill();
        Device { rx: queue(pair.rx.layout(), event_idx), tx: queue(pair.tx.layout(), event_idx), memory }
    }

    /// Takes what the driver has sent, without the virtio-net headers, and completes it.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(chain) = self.tx.pop_descriptor_chain(&self.memory) {
            let mut bytes = Vec::new();
            chain.clone().reader(&self.memory).unwrap().read_to_end(&mut bytes).unwrap();
            frames.push(bytes.split_off(VNET_HEADER_LEN));
            self.tx.add_used(&self.memory, chain.head_index(), 0).unwrap();
        }
        frames
    }

    /// Writes `bytes`, a frame with its header or a part of one, into the next RX buffer. False if there is none.
    pub(crate) fn put_raw(&mut self, bytes: &[u8]) -> bool {
        let Some(chain) = self.rx.pop_descriptor_chain(&self.memory) else { return false };
        chain.clone().writer(&self.memory).unwrap().write_all(bytes).unwrap();
        self.rx.add_used(&self.memory, chain.head_index(), bytes.len() as u32).unwrap();
        true
    }

    /// Delivers a frame in one buffer.
    pub(crate) fn put(&mut self, frame: &[u8]) -> bool {
        let mut bytes = vec![0; VNET_HEADER_LEN];
        bytes[10] = 1;
        bytes.extend_from_slice(frame);
        self.put_raw(&bytes)
    }

    /// Writes a used element of its own making into the receiveq.
    pub(crate) fn forge_used(&mut self, id: u32, len: u32) {
        let next = self.rx.next_used();
        let at = GuestAddress(self.rx.used_ring() + 4 + 8 * u64::from(next % self.rx.size()));
        self.memory.write_obj([id, len], at).unwrap();
        self.rx.set_next_used(next.wrapping_add(1));
        let index = GuestAddress(self.rx.used_ring() + 2);
        self.memory.store(next.wrapping_add(1), index, Ordering::Release).unwrap();
    }
}

fn queue(layout: Layout, event_idx: bool) -> Queue {
    let mut queue = Queue::new(layout.size).unwrap();
    queue.try_set_desc_table_address(GuestAddress(layout.desc)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(layout.avail)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(layout.used)).unwrap();
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    queue
}
