//! Guest memory as a model: plain bytes, and the walk of a descriptor chain by the letter of virtio 1.2 section 2.7.

use std::ops::Range;

/// Guest memory: two adjacent regions, a hole, and a third that a memory table may leave out.
pub(super) const REGIONS: [Range<usize>; 3] = [0..0x3000, 0x3000..0x4000, 0x5000..0x6000];
/// The rings lie below.
pub(super) const RINGS_END: u64 = 0x400;
pub(super) const SIZE: u16 = 8;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// Descriptors above which the model does not follow a chain: what the ring does then depends on its memory.
const CLEAR: usize = 100;

/// A range of guest memory.
pub(super) type Piece = (usize, usize);

/// What a chain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    Sound(Vec<Piece>),
    Malformed,
    /// The model does not know: very long, or with a table inside the rings.
    Unclear,
}

pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Image {
    pub(super) fn new() -> Image {
        Image { bytes: vec![0; REGIONS[2].end] }
    }

    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn u16(&self, at: u64) -> u16 {
        u16::from_le_bytes([self.bytes[at as usize], self.bytes[at as usize + 1]])
    }

    pub(super) fn gather(&self, pieces: &[Piece]) -> Vec<u8> {
        pieces.iter().flat_map(|&(at, len)| self.bytes[at..at + len].iter().copied()).collect()
    }

    /// Writes `bytes` over `pieces` as far as they go.
    pub(super) fn scatter(&mut self, pieces: &[Piece], bytes: &[u8]) {
        let mut rest = bytes;
        for &(at, len) in pieces {
            let (now, later) = rest.split_at(len.min(rest.len()));
            self.bytes[at..at + now.len()].copy_from_slice(now);
            rest = later;
        }
    }

    /// The range, if all of it is in memory. `third`: the third region is in the memory table.
    fn mapped(addr: u64, len: u64, third: bool) -> Option<Piece> {
        let end = usize::try_from(addr.checked_add(len)?).ok()?;
        let at = usize::try_from(addr).ok()?;
        let low = end <= REGIONS[1].end;
        let high = third && at >= REGIONS[2].start && end <= REGIONS[2].end;
        (low || high).then_some((at, end - at))
    }

    fn descriptor(&self, at: usize) -> Descriptor {
        let bytes: [u8; 16] = self.bytes[at..at + 16].try_into().expect("16 bytes");
        let image = u128::from_le_bytes(bytes);
        Descriptor {
            addr: image as u64,
            len: (image >> 64) as u32,
            flags: (image >> 96) as u16,
            next: (image >> 112) as u16,
        }
    }

    /// The chain of `head` in the table at `table`; `head` is below [`SIZE`].
    pub(super) fn walk(&self, table: usize, head: u16, write: bool, third: bool) -> Walk {
        let walked = self.follow(table, head, write, third);
        let least = if write { 12 } else { 13 };
        match walked {
            Walk::Sound(pieces) if pieces.iter().map(|piece| piece.1).sum::<usize>() < least => {
                Walk::Malformed
            }
            walked => walked,
        }
    }

    fn follow(&self, table: usize, head: u16, write: bool, third: bool) -> Walk {
        let mut desc = self.descriptor(table + 16 * usize::from(head));
        let (mut at, mut entries, mut indirect) = (table as u64, u64::from(SIZE), false);
        let (mut pieces, mut total, mut taken) = (Vec::new(), 0_u64, 0);
        loop {
            if desc.flags & INDIRECT != 0 {
                let count = u64::from(desc.len / 16);
                if indirect
                    || desc.flags & NEXT != 0
                    || !desc.len.is_multiple_of(16)
                    || !(1..=1024).contains(&count)
                {
                    return Walk::Malformed;
                }
                (at, entries, indirect, taken) = (desc.addr, count, true, 0);
                let Some((first, _)) = Image::mapped(at, 16, third) else { return Walk::Malformed };
                if at < RINGS_END {
                    return Walk::Unclear;
                }
                desc = self.descriptor(first);
                continue;
            }
            total += u64::from(desc.len);
            let piece = Image::mapped(desc.addr, desc.len.into(), third);
            let right = (desc.flags & WRITE != 0) == write && desc.len != 0 && total <= u32::MAX.into();
            let (Some(piece), true) = (piece, right) else { return Walk::Malformed };
            pieces.push(piece);
            if desc.flags & NEXT == 0 {
                return Walk::Sound(pieces);
            }
            taken += 1;
            if taken == entries || u64::from(desc.next) >= entries {
                return Walk::Malformed;
            }
            if pieces.len() > CLEAR {
                return Walk::Unclear;
            }
            let next = at.checked_add(16 * u64::from(desc.next));
            let Some((next, _)) = next.and_then(|next| Image::mapped(next, 16, third)) else {
                return Walk::Malformed;
            };
            desc = self.descriptor(next);
        }
    }
}
