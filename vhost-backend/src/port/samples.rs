//! Chains of a guest for tests.

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use crate::ring::tests::driver::{Driver, PAYLOAD, memory};
use crate::ring::{Chain, Split, VNET_LEN};

/// A transmit ring with one frame in it.
pub(crate) struct Sent {
    split: Split,
    _memory: Arc<GuestMemoryMmap>,
}

impl Sent {
    /// A guest that has sent `frame`.
    pub(crate) fn new(frame: &[u8]) -> Sent {
        let memory = memory();
        let mut driver = Driver::new(&memory, 8, 0);
        driver.fill(PAYLOAD + VNET_LEN as u64, frame);
        driver.offer_one(0, PAYLOAD, (VNET_LEN + frame.len()) as u32, 0);
        let mut split = driver.split(false);
        assert_eq!(split.read_batch(1), Ok(1));
        Sent { split, _memory: memory }
    }

    /// The frame as the worker has it.
    pub(crate) fn chain(&self) -> Chain<'_> {
        self.split.chain(0).expect("one was read")
    }
}
