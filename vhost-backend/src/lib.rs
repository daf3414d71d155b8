//! The vhost-user-net device and the service chain datapath of livepath.

pub mod chain;
pub mod frame;
pub mod liveness;
pub mod ring;
