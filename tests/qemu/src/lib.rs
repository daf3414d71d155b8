//! What end-to-end tests with QEMU guests need besides the guests themselves ([`qemu_vm`]).
//!
//! ```text
//!  Programs (livepathd, livepath, …, built by cargo)
//!         │
//!  qemu_vm::Guest ══ vhost-user ══ livepathd (Daemon) ── livepath status --json (Status)
//! ```
#![forbid(unsafe_code)]

mod daemon;
mod process;
mod programs;
mod progress;
mod status;

pub use daemon::Daemon;
pub use process::Process;
pub use programs::Programs;
pub use progress::{Progress, poll};
pub use status::Status;
