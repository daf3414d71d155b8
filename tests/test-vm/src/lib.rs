//! A rust-vmm test VM: guest memory, a vhost-user frontend on the real socket and a virtio-net driver, in one process.
//!
//! ```text
//! guest::TenantGuest, guest::ServiceGuest      step(now): traffic, answers, faults
//!        │ frames
//! TestVm ┼─ Pair { rx: Receive, tx: Transmit } ── rings in memfd memory ──────┐
//!        └─ session (vhost::vhost_user::Frontend) ── socket ── vhost-user ── backend
//! ```
//!
//! There is no vCPU: the caller's thread is the guest. Nothing here keeps a thread, sleeps or prints, except that
//! attaching and stopping wait for the backend to listen and to answer. One thread can therefore drive many VMs, by calling
//! [`guest::Guest::step`] on each in turn, or drive one as a load generator.
//!
//! ```no_run
//! # fn main() -> Result<(), test_vm::Error> {
//! use test_vm::{Options, TestVm};
//! let mut vm = TestVm::attach("/run/livepath/vm5.sock".as_ref(), Options::default())?;
//! for _ in 0..32 {
//!     vm.send(&[0u8; 60]);
//! }
//! vm.flush();
//! let frames = vm.receive(|frame| assert!(frame.len() >= 14));
//! # let _ = frames;
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

#[cfg(test)]
mod device;
mod driver;
mod error;
pub mod guest;
mod hostile;
mod options;
mod places;
mod session;
#[expect(unsafe_code, reason = "a signal for one thread")]
mod stall;
#[expect(unsafe_code, reason = "memory shared with another process and a borrowed descriptor")]
mod sys;
mod vm;
mod wire;

pub use driver::{BATCH, Layout, Receive, RingCounters, Transmit, VNET_HEADER_LEN};
pub use error::Error;
pub use hostile::{Malformed, RawRing};
pub use options::{ChainShape, Options, Order};
pub use places::Places;
pub use stall::stall;
pub use sys::{DESCRIPTOR_LEN, Descriptor, Event, GuestRam, HUGE_PAGE, RAM_BASE};
pub use vm::{Pair, TestVm};
pub use wire::{MAX_FDS, Message, Wire};
