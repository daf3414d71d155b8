//! `livepath demo`: the main job on an embedded default.
//!
//! ```text
//! set the stage -> every service Up -> traffic over SPI 1 -> svm2 fails -> noticed -> SPI 2 -> healed -> report
//! ```

mod cast;
mod cores;
mod play;
mod qemu_guests;
mod recording;
mod report;
mod stage;
mod test_vms;
mod victim;
mod view;

pub use cast::GuestKind;
pub use play::{DemoOptions, play};
pub use report::{
    DemoReport, Detection, EvidenceLine, Guests, Liveness, Packets, PathLine, Rate, ServiceLine, Steps,
};
pub use view::View;
