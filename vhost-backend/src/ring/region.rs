use std::sync::Arc;

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::fault::Watched;

/// One contiguous piece of guest memory and where it is mapped in this process.
///
/// Invariant (kept by [`RegionMap::new`], the only constructor of a non-empty one): `len` bytes from `host` are
/// one mapping, readable and writable, alive as long as the [`RegionMap`] this region came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Region {
    guest: u64,
    len: u64,
    host: *mut u8,
}

// SAFETY: a Region is an address range; the mapping behind it is not tied to a thread, and every access to it is
// an access to memory shared with a guest anyway, made by the functions of this module with that in mind.
unsafe impl Send for Region {}
// SAFETY: as above; a shared Region gives nothing but its numbers.
unsafe impl Sync for Region {}

impl Region {
    /// A region that contains no address.
    pub(super) const NONE: Region = Region { guest: 0, len: 0, host: std::ptr::null_mut() };

    /// The host address of `addr` if the whole range `addr .. addr + len` is inside this region.
    #[inline(always)]
    pub(super) fn locate(&self, addr: u64, len: u64) -> Option<*mut u8> {
        let offset = addr.wrapping_sub(self.guest);
        // Neither comparison can be fooled by wrapping: an address below `guest` gives an offset above any length.
        (offset < self.len && len <= self.len - offset).then(|| self.host.wrapping_add(offset as usize))
    }

    /// The host address of `addr` and how many bytes of this region follow it.
    fn rest(&self, addr: u64) -> Option<(*mut u8, u64)> {
        let offset = addr.checked_sub(self.guest).filter(|&offset| offset < self.len)?;
        Some((self.host.wrapping_add(offset as usize), self.len - offset))
    }
}

/// The regions of one guest's memory, sorted, immutable, with the mapping kept alive.
///
/// A memory table change makes a new map; rings move over with [`Split::remap`](super::Split::remap), and the old
/// mapping goes when its last ring has.
#[derive(Debug)]
pub struct RegionMap {
    regions: Box<[Region]>,
    watched: Box<[Watched]>,
    /// Owns the mappings that `regions` points into and `watched` watches; dropped last.
    _memory: Option<Arc<GuestMemoryMmap>>,
}

impl RegionMap {
    /// The map of `mem`. Regions not mapped readable and writable are left out.
    pub fn new(mem: Arc<GuestMemoryMmap>) -> Arc<RegionMap> {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let mut regions: Vec<Region> = mem
            .iter()
            .filter(|region| region.prot() & both == both)
            .map(|region| Region { guest: region.start_addr().0, len: region.len(), host: region.as_ptr() })
            .collect();
        regions.sort_by_key(|region| region.guest);
        Arc::new(RegionMap {
            watched: regions.iter().map(|region| Watched::new(region.host, region.len as usize)).collect(),
            regions: regions.into_boxed_slice(),
            _memory: Some(mem),
        })
    }

    /// A map without memory: every address is outside it.
    pub fn empty() -> Arc<RegionMap> {
        Arc::new(RegionMap { regions: Box::default(), watched: Box::default(), _memory: None })
    }

    /// Whether the file behind this memory was truncated under the mapping (see
    /// [`catch_lost_memory`](super::catch_lost_memory)).
    #[inline]
    pub fn lost(&self) -> bool {
        Watched::any_lost(&self.watched)
    }

    /// The region that contains `addr`.
    pub(super) fn find(&self, addr: u64) -> Option<&Region> {
        let above = self.regions.partition_point(|region| region.guest <= addr);
        self.regions.get(above.checked_sub(1)?).filter(|region| region.rest(addr).is_some())
    }

    /// Calls `piece` with the host address and length of each mapped piece of `addr .. addr + len`, in order; a
    /// range inside one region is one piece. False if a byte of it is unmapped or `piece` gave up.
    pub(super) fn pieces(
        &self,
        mut addr: u64,
        mut len: u64,
        mut piece: impl FnMut(*mut u8, u64) -> bool,
    ) -> bool {
        while len > 0 {
            let Some((host, rest)) = self.find(addr).and_then(|region| region.rest(addr)) else {
                return false;
            };
            let step = rest.min(len);
            if !piece(host, step) {
                return false;
            }
            len -= step;
            match addr.checked_add(step) {
                Some(next) => addr = next,
                None => return len == 0,
            }
        }
        true
    }
}
