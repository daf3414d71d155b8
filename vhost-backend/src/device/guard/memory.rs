//! Guest memory as announced by the front-end, checked before anything is mapped.
//!
//! The vhost crate maps what it is told: a region of 2^46 bytes, a region beyond the end of its file (SIGBUS on first
//! touch), more regions than it advertised. Here every table is checked as a whole, and the accepted one is kept, so that
//! ring addresses can be checked against it.
//!
//! QEMU before 8.0 announces its memory once for each queue pair, one region at a time, and takes it back as often. Such
//! a region is counted, and the device sees it once.

use super::message::Region;
use thiserror::Error;

/// Regions one front-end may have: what the vhost crate takes in one message, and what GET_MAX_MEM_SLOTS answers.
pub(crate) const MAX_SLOTS: usize = 32;
/// Bytes of guest memory one front-end may have (1 TiB); a process has 128 TiB to map.
pub(crate) const MAX_BYTES: u64 = 1 << 40;
/// Times one region may be announced: once for each queue pair.
const MAX_SHARES: u16 = crate::device::MAX_QUEUE_PAIRS;
const PAGE: u64 = 4096;

/// The file behind a region, as fstat and fcntl see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backing {
    /// Length in bytes.
    pub(crate) len: u64,
    /// Open for reading and writing.
    pub(crate) writable: bool,
    /// Device and inode: which file it is.
    pub(crate) identity: (u64, u64),
}

/// Why a table or region is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum MemoryError {
    #[error("more than {MAX_SLOTS} memory regions")]
    Slots,
    #[error("more than {MAX_BYTES} bytes of memory")]
    Size,
    #[error("memory region at {guest:#x} of {size:#x} bytes, offset {offset:#x}, is not made of whole pages")]
    Unaligned { guest: u64, size: u64, offset: u64 },
    #[error("memory region at {guest:#x} of {size:#x} bytes wraps around")]
    Wraps { guest: u64, size: u64 },
    #[error("memory region at {guest:#x} ends at {end:#x} in a file of {len:#x} bytes")]
    BeyondFile { guest: u64, end: u64, len: u64 },
    #[error("the file of the memory region at {0:#x} is not open for reading and writing")]
    ReadOnly(u64),
    #[error("memory region at {0:#x} overlaps another")]
    Overlap(u64),
    #[error("no such memory region at {0:#x}")]
    Unknown(u64),
}

/// A region and how often it was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    region: Region,
    file: (u64, u64),
    shares: u16,
}

/// The accepted regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots(Vec<Slot>);

impl Slots {
    /// A table that replaces what was there.
    pub(crate) fn table(regions: &[(Region, Backing)]) -> Result<Slots, MemoryError> {
        let mut slots = Slots::default();
        for (region, backing) in regions {
            slots = slots.with(*region, *backing)?;
        }
        Ok(slots)
    }

    /// These regions and one more.
    pub(crate) fn with(&self, region: Region, backing: Backing) -> Result<Slots, MemoryError> {
        let Region { guest, size, user, offset } = region;
        if self.0.len() >= MAX_SLOTS {
            return Err(MemoryError::Slots);
        }
        if size == 0 || [guest, size, offset].iter().any(|value| !value.is_multiple_of(PAGE)) {
            return Err(MemoryError::Unaligned { guest, size, offset });
        }
        let wraps = MemoryError::Wraps { guest, size };
        let (Some(_), Some(_), Some(end)) =
            (guest.checked_add(size), user.checked_add(size), offset.checked_add(size))
        else {
            return Err(wraps);
        };
        if self.regions().map(|other| other.size).sum::<u64>().saturating_add(size) > MAX_BYTES {
            return Err(MemoryError::Size);
        }
        if end > backing.len {
            return Err(MemoryError::BeyondFile { guest, end, len: backing.len });
        }
        if !backing.writable {
            return Err(MemoryError::ReadOnly(guest));
        }
        let overlaps = |other: &Region| {
            overlap(other.guest, other.size, guest, size) || overlap(other.user, other.size, user, size)
        };
        if self.regions().any(overlaps) {
            return Err(MemoryError::Overlap(guest));
        }
        let mut slots = self.clone();
        slots.0.push(Slot { region, file: backing.identity, shares: 1 });
        Ok(slots)
    }

    /// Counts a region that is there already, exactly so; false if it is not, or too often.
    pub(crate) fn share(&mut self, region: Region, backing: Backing) -> bool {
        let same = |slot: &&mut Slot| slot.region == region && slot.file == backing.identity;
        match self.0.iter_mut().find(same) {
            Some(slot) if slot.shares < MAX_SHARES => {
                slot.shares += 1;
                true
            }
            _ => false,
        }
    }

    /// Takes one announcement of a region back; false if it was the last, which [`without`](Slots::without) takes.
    pub(crate) fn unshare(&mut self, region: Region) -> bool {
        match self.0.iter_mut().find(|slot| slot.is_at(region)) {
            Some(slot) if slot.shares > 1 => {
                slot.shares -= 1;
                true
            }
            _ => false,
        }
    }

    /// These regions without one. Guest address, front-end address and size must be those it was added with.
    pub(crate) fn without(&self, region: Region) -> Result<Slots, MemoryError> {
        let kept: Vec<Slot> = self.0.iter().filter(|slot| !slot.is_at(region)).copied().collect();
        if kept.len() == self.0.len() {
            return Err(MemoryError::Unknown(region.guest));
        }
        Ok(Slots(kept))
    }

    /// The guest address of a front-end address.
    pub(crate) fn to_guest(&self, user: u64) -> Option<u64> {
        self.regions().find_map(|region| {
            let within = user.checked_sub(region.user).filter(|within| *within < region.size)?;
            region.guest.checked_add(within)
        })
    }

    /// Whether `len` bytes from a guest address lie in one region.
    pub(crate) fn holds(&self, guest: u64, len: u64) -> bool {
        self.regions().any(|region| {
            let within = guest.checked_sub(region.guest).and_then(|within| within.checked_add(len));
            within.is_some_and(|end| end <= region.size)
        })
    }

    fn regions(&self) -> impl Iterator<Item = &Region> {
        self.0.iter().map(|slot| &slot.region)
    }
}

impl Slot {
    fn is_at(&self, region: Region) -> bool {
        (self.region.guest, self.region.size, self.region.user) == (region.guest, region.size, region.user)
    }
}

/// Neither range wraps.
fn overlap(a: u64, a_len: u64, b: u64, b_len: u64) -> bool {
    a < b.saturating_add(b_len) && b < a.saturating_add(a_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const FILE: Backing = Backing { len: 0x10_0000, writable: true, identity: (1, 2) };

    fn region(guest: u64, size: u64) -> Region {
        Region { guest, size, user: 0x7f00_0000_0000 + guest, offset: 0 }
    }

    #[rstest]
    #[case::empty(region(0, 0))]
    #[case::address(region(0x800, 0x1000))]
    #[case::size(region(0, 0x1800))]
    #[case::offset(Region { offset: 0x200, ..region(0, 0x1000) })]
    fn whole_pages_only(#[case] region: Region) {
        assert!(matches!(Slots::default().with(region, FILE), Err(MemoryError::Unaligned { .. })));
    }

    #[rstest]
    #[case::guest(Region { guest: u64::MAX - 0xfff, ..region(0, 0x1000) })]
    #[case::user(Region { user: u64::MAX - 0xfff, ..region(0, 0x1000) })]
    #[case::offset(Region { offset: u64::MAX - 0xfff, ..region(0, 0x1000) })]
    fn no_range_wraps(#[case] region: Region) {
        assert!(matches!(Slots::default().with(region, FILE), Err(MemoryError::Wraps { .. })));
    }

    #[test]
    fn a_region_ends_within_its_file() {
        let last = Region { offset: FILE.len - 0x1000, ..region(0, 0x1000) };
        assert!(Slots::default().with(last, FILE).is_ok());
        let beyond = Region { size: 0x2000, ..last };
        assert_eq!(
            Slots::default().with(beyond, FILE),
            Err(MemoryError::BeyondFile { guest: 0, end: FILE.len + 0x1000, len: FILE.len })
        );
    }

    #[test]
    fn a_region_of_2_to_the_46_is_refused_even_with_such_a_file() {
        let sparse = Backing { len: 1 << 46, ..FILE };
        assert_eq!(Slots::default().with(region(0, 1 << 46), sparse), Err(MemoryError::Size));
        let half = Slots::default().with(region(0, MAX_BYTES), sparse).expect("the limit itself is allowed");
        assert_eq!(half.with(region(MAX_BYTES, 0x1000), sparse), Err(MemoryError::Size));
    }

    #[test]
    fn a_read_only_file_is_refused() {
        let read_only = Backing { writable: false, ..FILE };
        assert_eq!(Slots::default().with(region(0, 0x1000), read_only), Err(MemoryError::ReadOnly(0)));
    }

    #[test]
    fn overlap_in_either_address_space_is_refused() {
        let slots = Slots::default().with(region(0x4000, 0x2000), FILE).expect("first");
        for guest in [0x3000, 0x4000, 0x5000] {
            let other = Region { user: 0x1000, ..region(guest, 0x2000) };
            assert_eq!(slots.with(other, FILE), Err(MemoryError::Overlap(guest)));
        }
        let same_user = Region { guest: 0x10_0000, ..region(0x4000, 0x1000) };
        assert_eq!(slots.with(same_user, FILE), Err(MemoryError::Overlap(0x10_0000)));
        for guest in [0x2000, 0x6000] {
            assert!(slots.with(region(guest, 0x2000), FILE).is_ok());
        }
    }

    #[test]
    fn slots_are_bounded() {
        let mut slots = Slots::default();
        for slot in 0..MAX_SLOTS as u64 {
            slots = slots.with(region(slot * 0x1000, 0x1000), FILE).expect("within the bound");
        }
        assert_eq!(slots.with(region(0x10_0000, 0x1000), FILE), Err(MemoryError::Slots));
    }

    #[test]
    fn only_a_region_that_is_there_is_removed() {
        let slots = Slots::default().with(region(0x4000, 0x2000), FILE).expect("first");
        assert_eq!(slots.without(region(0x4000, 0x1000)), Err(MemoryError::Unknown(0x4000)));
        assert_eq!(slots.without(region(0x4000, 0x2000)), Ok(Slots::default()));
    }

    #[test]
    fn a_region_announced_again_is_counted() {
        let first = region(0x4000, 0x2000);
        let mut slots = Slots::default().with(first, FILE).expect("first");
        assert!(slots.share(first, FILE));
        for other in [Region { offset: 0x1000, ..first }, Region { size: 0x1000, ..first }] {
            assert!(!slots.share(other, FILE));
        }
        assert!(!slots.share(first, Backing { identity: (1, 3), ..FILE }), "another file");
        assert!(slots.unshare(first));
        assert!(!slots.unshare(first), "the last one");
        let shares = (1..=100).take_while(|_| slots.share(first, FILE)).count();
        assert_eq!(shares, usize::from(MAX_SHARES) - 1);
    }

    #[test]
    fn ring_addresses_translate_within_one_region() {
        let slots = Slots::default().with(region(0x4000, 0x2000), FILE).expect("first");
        assert_eq!(slots.to_guest(0x7f00_0000_5fff), Some(0x5fff));
        assert_eq!(slots.to_guest(0x7f00_0000_6000), None);
        assert!(slots.holds(0x4000, 0x2000));
        assert!(!slots.holds(0x4001, 0x2000));
        assert!(!slots.holds(0x3fff, 1));
        assert!(!slots.holds(0x4000, u64::MAX));
    }
}
