use thiserror::Error;

/// Why a virtqueue could not be taken into use: its layout is not one virtio 1.2 section 2.7 allows, or it does
/// not lie in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RingError {
    /// The size is 0, not a power of two, or above [`MAX_SIZE`](super::MAX_SIZE).
    #[error("ring size {0} is not a power of two between 1 and {max}", max = super::MAX_SIZE)]
    Size(u16),
    /// A part does not have the alignment of virtio 1.2 section 2.7, in guest or in host addresses.
    #[error("{part} at {addr:#x} is not aligned to {align} bytes")]
    Alignment {
        /// Which part of the ring.
        part: Part,
        /// Guest physical address of the part.
        addr: u64,
        /// Bytes it has to be aligned to.
        align: usize,
    },
    /// A part is not wholly inside one region of guest memory.
    #[error("{part} at {addr:#x}, {len} bytes, is not inside one region of guest memory")]
    Unmapped {
        /// Which part of the ring.
        part: Part,
        /// Guest physical address of the part.
        addr: u64,
        /// Bytes it takes, event fields included.
        len: usize,
    },
}

/// The three parts of a split virtqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Descriptor table, 16 bytes an entry.
    Descriptors,
    /// Available ring (written by the driver), 6 bytes and 2 an entry.
    Avail,
    /// Used ring (written by the device), 6 bytes and 8 an entry.
    Used,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Descriptors => "descriptor table",
            Part::Avail => "available ring",
            Part::Used => "used ring",
        })
    }
}

/// The driver did something after which no entry of this ring can be trusted. The ring stays broken until it is
/// built anew; the caller signals its error descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Broken {
    /// `avail.idx` went backwards, or more than a ring ahead of the device.
    #[error("avail.idx jumped to {avail}, device at {next}, ring size {size}")]
    AvailIndex {
        /// What the driver wrote.
        avail: u16,
        /// The next entry the device would take.
        next: u16,
        /// Ring size.
        size: u16,
    },
    /// An available entry names a descriptor outside the table.
    #[error("available entry names descriptor {head} of a table of {size}")]
    Head {
        /// The descriptor index in the available ring.
        head: u16,
        /// Ring size.
        size: u16,
    },
    /// The file behind guest memory lost pages under the mapping (see [`RegionMap::lost`](super::RegionMap::lost)).
    #[error("the file behind guest memory was truncated")]
    MemoryLost,
}

/// What is wrong with one chain. The chain is completed with length 0 and the ring goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[repr(u8)]
pub enum Malformed {
    /// More descriptors than the ring (or the indirect table) has: a loop (virtio 1.2 section 2.7.5.2).
    #[error("chain loops or is longer than its table")]
    Loop,
    /// `next` points outside the table.
    #[error("next descriptor outside the table")]
    Next,
    /// Device-writable where the device reads, or the other way round.
    #[error("descriptor of the wrong direction")]
    Direction,
    /// A descriptor of length zero.
    #[error("descriptor of length zero")]
    Empty,
    /// A range that is not wholly in guest memory.
    #[error("address outside guest memory")]
    Address,
    /// INDIRECT inside an indirect table, or together with NEXT (virtio 1.2 section 2.7.5.3.1).
    #[error("indirect descriptor where none may be")]
    Indirect,
    /// An indirect table that is empty, not a multiple of 16 bytes, or longer than [`MAX_SIZE`](super::MAX_SIZE).
    #[error("indirect table of a bad length")]
    Table,
    /// No room for more than the virtio-net header (device reads), or not even for that (device writes).
    #[error("chain shorter than a virtio-net header and its frame")]
    Short,
    /// More bytes than 2^32 - 1, or more pieces than the ring's arena holds.
    #[error("chain too long")]
    TooLong,
}

/// Why a frame was not written into a receive ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The driver has not posted enough buffers; nothing was consumed. Later it may fit.
    #[error("receive ring full")]
    Full,
    /// The frame does not fit what this driver posts, however long one waits; nothing was consumed.
    #[error("frame longer than the posted buffers")]
    TooLong,
    /// The ring cannot be used any more.
    #[error(transparent)]
    Broken(#[from] Broken),
}
