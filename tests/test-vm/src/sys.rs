//! Guest memory: one memfd, mapped once here and once more by the backend; and eventfds. The only `unsafe` of this crate.
//!
//! ```text
//! memfd ─┬─ mapped here (GuestMemoryMmap, one region) ── Area (descriptors) ── Ring
//!        │                                            └─ Area (buffers) ────── Transmit, Receive
//!        └─ SET_MEM_TABLE / ADD_MEM_REG (one or more regions) ── backend
//! ```
//!
//! An [`Area`] is a range handed out once, so two of them never overlap and each has one owner in this
//! process. The backend is a third party with its own mapping: what it may write at the same time (the used
//! ring, ring flags) is only touched through atomics, while buffers are touched as slices only when the
//! virtio protocol gives them to the driver.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, madvise};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::Error;

/// Guest physical address of the first byte of memory. Not zero, so that an offset mistaken for an address
/// does not work by chance.
pub const RAM_BASE: u64 = 0x10_0000;

/// Bytes of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// One entry of a descriptor table (virtio 1.2 section 2.7.5); little-endian in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical address of the buffer.
    pub addr: u64,
    /// Length of the buffer in bytes.
    pub len: u32,
    /// `VRING_DESC_F_NEXT` (1), `VRING_DESC_F_WRITE` (2), `VRING_DESC_F_INDIRECT` (4).
    pub flags: u16,
    /// Index of the next descriptor, if `VRING_DESC_F_NEXT` is set.
    pub next: u16,
}

/// Size of a [`Descriptor`] in memory.
pub const DESCRIPTOR_LEN: usize = 16;

/// The memory of a test VM.
#[derive(Debug)]
pub struct GuestRam {
    mapping: GuestMemoryMmap,
    file: Arc<File>,
    host: NonNull<u8>,
    len: usize,
    page: usize,
    taken: AtomicUsize,
}

// SAFETY: `host` points into `mapping`, which lives as long as `self`; all access goes through `Area`s, which
// do not overlap, or through the copying methods below, which make no references.
unsafe impl Send for GuestRam {}
// SAFETY: as above; `&GuestRam` gives out disjoint `Area`s by an atomic counter and otherwise only copies bytes.
unsafe impl Sync for GuestRam {}

impl GuestRam {
    /// Creates `len` bytes (rounded up to whole pages) of zeroed memory that a backend can map.
    pub fn new(len: usize) -> Result<Arc<GuestRam>, Error> {
        GuestRam::of_pages(len, 4096, MemfdFlags::empty())
    }

    /// As [`GuestRam::new`] in pages of 2 MiB, which the machine must have set aside (`vm.nr_hugepages`).
    pub fn in_huge_pages(len: usize) -> Result<Arc<GuestRam>, Error> {
        GuestRam::of_pages(len, HUGE_PAGE, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)
    }

    fn of_pages(len: usize, page: usize, flags: MemfdFlags) -> Result<Arc<GuestRam>, Error> {
        let len = len.next_multiple_of(page);
        let memory = |source: io::Error| Error::Memory { len, source };
        let fd = memfd_create("test-vm", MemfdFlags::CLOEXEC | flags).map_err(|e| memory(e.into()))?;
        ftruncate(&fd, len as u64).map_err(|e| memory(e.into()))?;
        let file = Arc::new(File::from(fd));
        let range = (GuestAddress(RAM_BASE), len, Some(FileOffset::from_arc(file.clone(), 0)));
        let mapping =
            GuestMemoryMmap::from_ranges_with_files([range]).map_err(|e| memory(io::Error::other(e)))?;
        let host = mapping
            .get_host_address(GuestAddress(RAM_BASE))
            .ok()
            .and_then(NonNull::new)
            .ok_or_else(|| memory(io::ErrorKind::AddrNotAvailable.into()))?;
        Ok(Arc::new(GuestRam { mapping, file, host, len, page, taken: AtomicUsize::new(4096) }))
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a memory without bytes, which `new` does not make.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file behind the memory.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The same memory as rust-vmm's type, for oracles.
    pub fn mapping(&self) -> &GuestMemoryMmap {
        &self.mapping
    }

    /// The memory cut into `count` adjacent regions for SET_MEM_TABLE, or fewer if it has not that many pages. A buffer
    /// may then lie in two of them.
    pub fn regions(&self, count: usize) -> Vec<VhostUserMemoryRegionInfo> {
        let pages = self.len / self.page;
        let each = pages.div_ceil(count.max(1)) * self.page;
        (0..self.len)
            .step_by(each)
            .map(|start| VhostUserMemoryRegionInfo {
                guest_phys_addr: RAM_BASE + start as u64,
                memory_size: each.min(self.len - start) as u64,
                userspace_addr: self.host.as_ptr() as u64 + start as u64,
                mmap_offset: start as u64,
                mmap_handle: self.file.as_raw_fd(),
            })
            .collect()
    }

    /// The address by which vhost-user messages name guest physical address `gpa` (SET_VRING_ADDR).
    pub fn user_address(&self, gpa: u64) -> u64 {
        (self.host.as_ptr() as u64).wrapping_add(gpa.wrapping_sub(RAM_BASE))
    }

    /// Hands out `len` bytes that nobody else has.
    pub(crate) fn reserve(self: &Arc<Self>, len: usize, align: usize) -> Result<Area, Error> {
        let mut start = 0;
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                start = taken.next_multiple_of(align);
                start.checked_add(len).filter(|end| *end <= self.len)
            })
            .map_err(|_| Error::MemoryTooSmall { have: self.len, need: start.saturating_add(len) })?;
        // SAFETY: start + len <= self.len was checked above, so the pointer stays inside the mapping.
        let host = unsafe { self.host.add(start) };
        self.map_in(start, len);
        Ok(Area { ram: Arc::clone(self), host, gpa: RAM_BASE + start as u64, len })
    }

    /// Maps memory in, as a VMM does that sets its guest's aside (QEMU: `prealloc=on`): a guest's driver does not wait for the host
    /// at each page that it uses for the first time. Linux before 5.14 refuses this, and the driver waits.
    fn map_in(&self, start: usize, len: usize) {
        let ahead = start % self.page;
        // SAFETY: start - ahead is within the mapping too, whose pages are of this size.
        let page = unsafe { self.host.add(start - ahead) };
        // SAFETY: the range is inside the mapping, and of what is there no byte changes.
        let _ = unsafe { madvise(page.as_ptr().cast(), ahead + len, Advice::LinuxPopulateWrite) };
    }

    /// Copies bytes into guest memory, wherever that is: rings, tables and buffers in use alike.
    ///
    /// # Panics
    /// If the range is not inside this memory.
    pub fn write(&self, gpa: u64, bytes: &[u8]) {
        let to = self.at(gpa, bytes.len());
        // SAFETY: `at` gave a pointer into the mapping with room for all bytes; the source is a slice outside of it.
        // No reference to guest memory is made; whoever reads it meanwhile sees old or new bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Copies bytes out of guest memory.
    ///
    /// # Panics
    /// If the range is not inside this memory.
    pub fn read(&self, gpa: u64, bytes: &mut [u8]) {
        let from = self.at(gpa, bytes.len());
        // SAFETY: as in `write`, in the other direction.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    }

    fn at(&self, gpa: u64, len: usize) -> *mut u8 {
        let offset = usize::try_from(gpa.wrapping_sub(RAM_BASE)).unwrap_or(usize::MAX);
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(fits, "{len} bytes at {gpa:#x} are outside the guest memory");
        // SAFETY: the assertion keeps the pointer inside the mapping.
        unsafe { self.host.as_ptr().add(offset) }
    }
}

/// A range of guest memory with one owner in this process. Offsets count from its start and are checked.
#[derive(Debug)]
pub(crate) struct Area {
    ram: Arc<GuestRam>,
    host: NonNull<u8>,
    gpa: u64,
    len: usize,
}

// SAFETY: `host` points into `ram`, which the area keeps alive; ranges of areas do not overlap.
unsafe impl Send for Area {}

impl Area {
    pub(crate) fn gpa(&self) -> u64 {
        self.gpa
    }

    pub(crate) fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// The area in pieces of `each` bytes, each with an owner of its own; what is left over nobody gets.
    pub(crate) fn cut(self, each: usize) -> Vec<Area> {
        (0..self.len / each)
            .map(|index| {
                let host = self.at(index * each, each);
                // SAFETY: `at` gave a pointer into a mapping, which is not null.
                let host = unsafe { NonNull::new_unchecked(host) };
                Area { ram: Arc::clone(&self.ram), host, gpa: self.gpa + (index * each) as u64, len: each }
            })
            .collect()
    }

    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len && len <= self.len - offset, "access outside the area");
        // SAFETY: the assertion keeps the pointer inside the area, which is inside the mapping.
        unsafe { self.host.as_ptr().add(offset) }
    }

    #[inline(always)]
    fn u16_at(&self, offset: usize) -> &AtomicU16 {
        debug_assert!(offset.is_multiple_of(2));
        // SAFETY: in range by `at`; areas of rings are 64-byte aligned and offsets even; the memory is mapped for
        // as long as `self` lives and is only accessed atomically here.
        unsafe { AtomicU16::from_ptr(self.at(offset, 2).cast()) }
    }

    #[inline(always)]
    fn u32_at(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset.is_multiple_of(4));
        // SAFETY: as in `u16_at`, with offsets that are multiples of four.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }

    #[inline(always)]
    fn u64_at(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8));
        // SAFETY: as in `u16_at`, with offsets that are multiples of eight.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    #[inline(always)]
    pub(crate) fn load16(&self, offset: usize, order: Ordering) -> u16 {
        u16::from_le(self.u16_at(offset).load(order))
    }

    #[inline(always)]
    pub(crate) fn store16(&self, offset: usize, value: u16, order: Ordering) {
        self.u16_at(offset).store(value.to_le(), order);
    }

    /// Two adjacent little-endian words: a used element.
    #[inline(always)]
    pub(crate) fn load32_pair(&self, offset: usize) -> (u32, u32) {
        // The used ring is only 4-byte aligned.
        let first = u32::from_le(self.u32_at(offset).load(Ordering::Relaxed));
        (first, u32::from_le(self.u32_at(offset + 4).load(Ordering::Relaxed)))
    }

    #[inline(always)]
    pub(crate) fn write_descriptor(&self, offset: usize, descriptor: Descriptor) {
        let Descriptor { addr, len, flags, next } = descriptor;
        let low = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.u64_at(offset).store(addr.to_le(), Ordering::Relaxed);
        self.u64_at(offset + 8).store(low.to_le(), Ordering::Relaxed);
    }

    /// Bytes that the protocol has given to the driver.
    #[inline(always)]
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: in range by `at`. Callers pass buffers the device has returned (used) or never had, which it may
        // not write any more (virtio 1.2 section 2.7); no `&mut` to them exists, since that needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.at(offset, len), len) }
    }

    /// Bytes that the protocol has given to the driver, for writing.
    #[inline(always)]
    pub(crate) fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes this the only reference in this process.
        unsafe { std::slice::from_raw_parts_mut(self.at(offset, len), len) }
    }

    /// Zeroes the whole area with plain stores.
    pub(crate) fn clear(&mut self) {
        let len = self.len;
        self.bytes_mut(0, len).fill(0);
    }

    /// Asks for the cache line at `offset`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, offset: usize) {
        let at = self.at(offset, 1).cast::<i8>();
        // SAFETY: a prefetch has no effect on memory and the pointer is in range anyway.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at);
        }
    }

    /// Asks for the cache line at `offset` to be taken from whoever has it: it will be written.
    #[inline(always)]
    pub(crate) fn prefetch_to_write(&self, offset: usize) {
        let at = self.at(offset, 1);
        // SAFETY: as in `prefetch`; every 64-bit processor takes this instruction, if only to do nothing. The intrinsic
        // for it becomes a plain prefetch unless the build names a newer processor.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            core::arch::asm!("prefetchw byte ptr [{}]", in(reg) at, options(nostack, preserves_flags));
        }
    }
}

/// A non-blocking eventfd that can be lent as a [`BorrowedFd`], which vmm-sys-util's type cannot.
#[derive(Debug)]
pub struct Event(EventFd);

impl Event {
    pub(crate) fn new() -> Result<Event, Error> {
        EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(Event).map_err(Error::EventFd)
    }

    /// Adds one. A full counter means that a signal is pending anyway.
    pub fn signal(&self) {
        let _ = self.0.write(1);
    }

    /// Signals since the last look.
    pub fn take(&self) -> u64 {
        self.0.read().unwrap_or(0)
    }

    pub(crate) fn eventfd(&self) -> &EventFd {
        &self.0
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self.0` lives, which the returned lifetime is tied to.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
