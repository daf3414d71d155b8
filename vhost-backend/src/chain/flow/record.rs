//! What the table holds of one flow.

use nsh::Spi;

use super::{Choice, Direction, Tuple};
use crate::chain::{ChainIx, PathIx, PortId};
use crate::frame::FlowKey;
use crate::liveness::Timestamp;

/// A flow's record: a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Record {
    pub(super) key: FlowKey,
    /// Of the snapshot that what was chosen belongs to.
    pub(super) revision: u32,
    /// Low half of that of the snapshot under which `hop` and `si` are true. All of its values do not come by before a flow
    /// is idle.
    pub(super) version: u32,
    pub(super) from: u16,
    pub(super) to: u16,
    /// Where every packet that runs as the first one did goes first; [`NO_PORT`] if that has not been found out.
    pub(super) hop: u16,
    /// The service index there.
    pub(super) si: u8,
    /// The path; [`NO_PATH`] if there is none.
    pub(super) path: U24,
    /// Its SPI; without a path the chain, or [`PLAIN`], or [`PLAIN_BOTH`].
    pub(super) spi: U24,
    /// When it was used last, in ticks.
    pub(super) used: U24,
}

/// A number of 24 bits in as many bytes: an SPI, the index of a path, a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct U24([u8; 3]);

impl U24 {
    pub(super) const MAX: u32 = 0x00FF_FFFF;

    #[inline]
    pub(super) const fn new(value: u32) -> U24 {
        let [a, b, c, _] = value.to_le_bytes();
        U24([a, b, c])
    }

    #[inline]
    pub(super) const fn get(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0])
    }
}

pub(super) const NO_PORT: u16 = u16::MAX;
/// There are fewer paths than SPIs.
const NO_PATH: U24 = U24::new(U24::MAX);
const PLAIN: u32 = 1 << 16;
const PLAIN_BOTH: u32 = PLAIN + 1;
/// Another worker may have read the clock a little later.
const LATER: u32 = U24::MAX - 1024;

/// 2^33 ns: some eight seconds, by a shift. A record in use is written once in that time, so that a table beyond the caches is
/// read from memory but hardly ever written back.
pub(super) const TICK_SHIFT: u32 = 33;

impl Record {
    pub(super) const FREE: Record = Record {
        key: FlowKey::NONE,
        revision: 0,
        version: 0,
        from: NO_PORT,
        to: NO_PORT,
        hop: NO_PORT,
        si: 0,
        path: NO_PATH,
        spi: U24::new(PLAIN),
        used: U24::new(0),
    };

    pub(super) fn new(tuple: &Tuple, choice: Choice, revision: u32, used: U24) -> Record {
        let to = tuple.to.map_or(NO_PORT, PortId::get);
        let mut record = Record { key: tuple.key, used, from: tuple.from.get(), to, ..Record::FREE };
        record.set(choice, revision);
        record
    }

    /// For how many ticks it was not used. They come round after more than four years.
    #[inline]
    pub(super) fn idle(&self, tick: U24) -> u32 {
        let idle = tick.get().wrapping_sub(self.used.get()) & U24::MAX;
        if idle > LATER { 0 } else { idle }
    }

    #[inline]
    pub(super) fn path(&self) -> Option<PathIx> {
        (self.path != NO_PATH).then_some(PathIx(self.path.get()))
    }

    #[inline]
    pub(super) fn direction(&self, tuple: &Tuple) -> Option<Direction> {
        let (from, to) = (tuple.from.get(), tuple.to.map_or(NO_PORT, PortId::get));
        if self.key.is(&tuple.key) && (self.from, self.to) == (from, to) {
            Some(Direction::Forward)
        } else if self.key.is(&tuple.key.reversed())
            && (self.from, self.to) == (to, from)
            && !self.key.is_datagram()
        {
            Some(Direction::Reverse)
        } else {
            None
        }
    }

    #[inline]
    pub(super) fn choice(&self, chain_of: impl FnOnce(PathIx) -> Option<ChainIx>) -> Option<Choice> {
        let Some(path) = self.path() else {
            return Some(match self.spi.get() {
                PLAIN => Choice::Plain { both: false },
                PLAIN_BOTH => Choice::Plain { both: true },
                chain => Choice::Chain { chain: ChainIx(chain as u16), path: None },
            });
        };
        let spi = Spi::new(self.spi.get())?;
        Some(Choice::Chain { chain: chain_of(path)?, path: Some((path, spi)) })
    }

    pub(super) fn set(&mut self, choice: Choice, revision: u32) {
        let (path, spi) = match choice {
            Choice::Plain { both: false } => (NO_PATH, PLAIN),
            Choice::Plain { both: true } => (NO_PATH, PLAIN_BOTH),
            Choice::Chain { chain, path: None } => (NO_PATH, u32::from(chain.0)),
            Choice::Chain { path: Some((path, spi)), .. } => (U24::new(path.0), spi.get()),
        };
        *self = Record { revision, path, spi: U24::new(spi), hop: NO_PORT, ..*self };
    }
}

#[inline]
pub(super) const fn tick(now: Timestamp) -> U24 {
    U24::new((now.as_nanos() >> TICK_SHIFT) as u32)
}
