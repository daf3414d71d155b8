//! Reasons.

use super::filter::Descriptor;
use super::memory::MemoryError;
use thiserror::Error;
use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures};

/// Smallest MTU of IPv4 (RFC 791) and of virtio-net.
pub(crate) const MIN_MTU: u64 = 68;

/// Why a message is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error("unknown request {0}")]
    UnknownRequest(u32),
    #[error("{0:?} is not served")]
    Unserved(FrontendReq),
    #[error("{0:?} without {1:?}")]
    NotNegotiated(FrontendReq, VhostUserProtocolFeatures),
    #[error("SET_VRING_ENABLE without PROTOCOL_FEATURES")]
    EnableNotNegotiated,
    #[error("{0:?} with a body that is not its own")]
    Body(FrontendReq),
    #[error("{request:?} with {got} descriptors, expected {expected}")]
    DescriptorCount { request: FrontendReq, expected: usize, got: usize },
    #[error("{request:?} with a descriptor of the wrong kind ({got:?})")]
    DescriptorKind { request: FrontendReq, got: Descriptor },
    #[error("features {0:#x} were not offered")]
    Features(u64),
    #[error("features change while rings run")]
    FeaturesWhileRunning,
    #[error("the session has an owner")]
    Owned,
    #[error("ring {index}: the port has {rings} rings (queue pairs × 2)")]
    RingIndex { index: u64, rings: u32 },
    #[error("ring {index}: size {size} is not a power of two between 1 and {max}")]
    RingSize { index: u32, size: u32, max: u16 },
    #[error("ring {index}: base {base} is not a 16-bit index")]
    RingBase { index: u32, base: u32 },
    #[error("ring {index}: {what}")]
    RingAddress { index: u32, what: &'static str },
    #[error("ring {0}: changed while it runs")]
    RingRuns(u32),
    #[error("ring {0}: kicked before its size, addresses and memory were set")]
    RingNotSet(u32),
    #[error("ring {0}: a driver that is only polled is not served; a kick descriptor is needed")]
    NoKick(u32),
    #[error("ring {0}: its memory would go while it runs")]
    RingMemory(u32),
    #[error("MTU {mtu} is not between {MIN_MTU} and {max}")]
    Mtu { mtu: u64, max: u16 },
    #[error(transparent)]
    Memory(#[from] MemoryError),
}
