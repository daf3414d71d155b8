use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

use super::batch::{Arena, NoRoom};
use super::copy;
use super::error::Malformed;
use super::layout::{MAX_SIZE, Rings};
use super::region::{Region, RegionMap};
use super::split::Side;

/// Bytes of one descriptor.
const LEN: usize = 16;

/// A private copy of one descriptor (virtio 1.2 section 2.7.5).
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    flags: u16,
    pub(super) next: u16,
}

impl Descriptor {
    /// From the two 8-byte words of its little-endian memory image.
    #[inline(always)]
    pub(super) fn from_words(addr: u64, rest: u64) -> Descriptor {
        Descriptor { addr, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
    }

    fn from_bytes(bytes: [u8; LEN]) -> Descriptor {
        let image = u128::from_le_bytes(bytes);
        Descriptor::from_words(image as u64, (image >> 64) as u64)
    }

    fn has(self, flag: u32) -> bool {
        u32::from(self.flags) & flag != 0
    }

    /// Neither NEXT nor INDIRECT, and of the direction `side` needs.
    #[inline(always)]
    pub(super) fn ends_chain(self, side: Side) -> bool {
        const SHAPE: u16 = (VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE) as u16;
        self.flags & SHAPE == side.flags()
    }

    /// NEXT without INDIRECT, and of the direction `side` needs.
    #[inline(always)]
    pub(super) fn continues_chain(self, side: Side) -> bool {
        const SHAPE: u16 = (VRING_DESC_F_NEXT | VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE) as u16;
        self.flags & SHAPE == side.flags() | VRING_DESC_F_NEXT as u16
    }
}

/// Where the walk reads descriptors: the ring's own table, or an indirect one in guest memory.
enum Table {
    Ring,
    Indirect { addr: u64, entries: u32 },
}

/// Walks the chain that starts with `first`, appends its pieces to `arena`, and gives its length in bytes.
///
/// This is the general walk: any number of descriptors, an indirect table at the end, ranges that cross regions.
/// It ends after at most ring size + [`MAX_SIZE`] descriptors, whatever the memory says, and uses each descriptor
/// as read once.
pub(super) fn walk(
    rings: &Rings,
    window: &mut Region,
    first: Descriptor,
    side: Side,
    arena: &mut Arena,
) -> Result<u32, WalkError> {
    let mut table = Table::Ring;
    let mut left = u32::from(rings.size());
    let mut desc = first;
    let mut total = 0_u32;
    loop {
        if desc.has(VRING_DESC_F_INDIRECT) {
            if matches!(table, Table::Indirect { .. }) || desc.has(VRING_DESC_F_NEXT) {
                return Err(Malformed::Indirect.into());
            }
            let entries = table_entries(desc.len).ok_or(Malformed::Table)?;
            table = Table::Indirect { addr: desc.addr, entries };
            left = entries;
            desc = read(rings, window, &table, 0)?;
            continue;
        }
        if desc.has(VRING_DESC_F_WRITE) != (side == Side::Write) {
            return Err(Malformed::Direction.into());
        }
        if desc.len == 0 {
            return Err(Malformed::Empty.into());
        }
        total = total.checked_add(desc.len).ok_or(Malformed::TooLong)?;
        translate(rings.map(), window, desc, arena)?;
        if !desc.has(VRING_DESC_F_NEXT) {
            return Ok(total);
        }
        left -= 1;
        if left == 0 {
            return Err(Malformed::Loop.into());
        }
        desc = read(rings, window, &table, desc.next)?;
    }
}

/// Why a walk gave no chain.
pub(super) enum WalkError {
    Malformed(Malformed),
    NoRoom,
}

impl From<Malformed> for WalkError {
    fn from(malformed: Malformed) -> WalkError {
        WalkError::Malformed(malformed)
    }
}

impl From<NoRoom> for WalkError {
    fn from(_: NoRoom) -> WalkError {
        WalkError::NoRoom
    }
}

/// Entries of an indirect table of `len` bytes, if it may have that length.
fn table_entries(len: u32) -> Option<u32> {
    let entries = len / LEN as u32;
    (len.is_multiple_of(LEN as u32) && (1..=u32::from(MAX_SIZE)).contains(&entries)).then_some(entries)
}

fn read(rings: &Rings, window: &mut Region, table: &Table, index: u16) -> Result<Descriptor, Malformed> {
    match *table {
        Table::Ring => rings.descriptor(index).ok_or(Malformed::Next),
        Table::Indirect { entries, .. } if u32::from(index) >= entries => Err(Malformed::Next),
        Table::Indirect { addr, .. } => {
            let addr = addr.checked_add(LEN as u64 * u64::from(index)).ok_or(Malformed::Address)?;
            read_indirect(rings.map(), window, addr).ok_or(Malformed::Address)
        }
    }
}

/// One descriptor of an indirect table. Such tables need no alignment and may even cross regions.
fn read_indirect(map: &RegionMap, window: &mut Region, addr: u64) -> Option<Descriptor> {
    let mut bytes = [0_u8; LEN];
    let mut filled = 0;
    let mut take = |host: *mut u8, len: usize| {
        let Some(space) = bytes.get_mut(filled..filled + len) else { return false };
        // SAFETY: `host` and `len` come from `locate` or `pieces`: that many bytes of a mapping that `map` keeps alive.
        unsafe { copy::read(host, space) };
        filled += len;
        true
    };
    let whole = match locate(map, window, addr, LEN as u64) {
        Some(host) => take(host, LEN),
        None => map.pieces(addr, LEN as u64, |host, len| take(host, len as usize)),
    };
    whole.then(|| Descriptor::from_bytes(bytes))
}

/// Appends the mapped pieces of a descriptor's range to `arena`.
fn translate(
    map: &RegionMap,
    window: &mut Region,
    desc: Descriptor,
    arena: &mut Arena,
) -> Result<(), WalkError> {
    if let Some(host) = locate(map, window, desc.addr, u64::from(desc.len)) {
        return Ok(arena.push(host, desc.len)?);
    }
    let mut room = Ok(());
    let whole = map.pieces(desc.addr, u64::from(desc.len), |host, len| {
        room = arena.push(host, len as u32);
        room.is_ok()
    });
    room?;
    if whole { Ok(()) } else { Err(Malformed::Address.into()) }
}

/// The host address of a range inside one region: the region found last, else (and then remembered) by search.
#[inline(always)]
pub(super) fn locate(map: &RegionMap, window: &mut Region, addr: u64, len: u64) -> Option<*mut u8> {
    if let Some(host) = window.locate(addr, len) {
        return Some(host);
    }
    locate_elsewhere(map, window, addr, len)
}

#[cold]
fn locate_elsewhere(map: &RegionMap, window: &mut Region, addr: u64, len: u64) -> Option<*mut u8> {
    *window = *map.find(addr)?;
    window.locate(addr, len)
}
