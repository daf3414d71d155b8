//! Guest memory whose file is truncated under the mapping.
//!
//! A VMM may shrink the file it passed at any time, and the next access beyond its end raises SIGBUS, which would end the
//! process and with it every other guest's network. So each mapped region is watched while a
//! [`RegionMap`](super::RegionMap) uses it: the signal's handler puts private zero pages in its place and marks it lost,
//! the access is repeated and goes on, and the rings in that memory break at their next look at the mark.
//!
//! ```text
//! access ──SIGBUS──▶ address in a watched region? ──yes──▶ mark it lost, map zero pages over it, repeat the access
//!                                  └──no──▶ what was installed before (by default: the process ends)
//! ```
//!
//! The handler reads a list that only ever grows and whose entries are never freed, through atomics alone, and makes
//! one system call; nothing in it allocates or locks.

use std::io;
use std::ptr;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// One watched address range; unused if `len` is 0.
struct Watch {
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
    taken: AtomicBool,
    /// The entry before it in the list; null for the first. Not changed once the entry is in the list.
    next: AtomicPtr<Watch>,
}

/// The list of watches, newest first. Entries are leaked on purpose and used again.
static WATCHES: AtomicPtr<Watch> = AtomicPtr::new(ptr::null_mut());

/// How many regions were lost in the life of the process, so that the usual answer costs one load.
static LOSSES: AtomicUsize = AtomicUsize::new(0);

/// What handled SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Turns SIGBUS in watched guest memory into [`Broken::MemoryLost`](super::Broken::MemoryLost) of its rings. To be called
/// once by a program before it serves guests; later calls do nothing. SIGBUS elsewhere goes to what was installed before.
///
/// # Errors
/// If the signal's action cannot be set.
pub fn catch_lost_memory() -> io::Result<()> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = INSTALLING.lock();
    if BEFORE.get().is_some() {
        return Ok(());
    }
    // SAFETY: all-zero bytes are a valid sigaction: default action, no flags, empty mask.
    let (mut action, mut before): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    // ONSTACK, because this replaces the handler by which the standard library recognises a stack overflow.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both point at live sigactions; the handler has the signature that SA_SIGINFO asks for.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Cannot be taken yet: the lock is held and it was empty.
    let _ = BEFORE.set(before);
    Ok(())
}

/// A region under watch, until dropped. To be dropped before the region is unmapped.
#[derive(Debug)]
pub(super) struct Watched(&'static Watch);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = self.start.load(Ordering::Relaxed);
        write!(f, "{start:#x}+{:#x}", self.len.load(Ordering::Relaxed))
    }
}

impl Watched {
    /// Watches `len` bytes from `start`, a whole mapping.
    pub(super) fn new(start: *mut u8, len: usize) -> Watched {
        // The same mapping can be in an earlier map, and have been lost in its time.
        let lost_before =
            watches().any(|watch| watch.contains(start.addr()) && watch.lost.load(Ordering::Relaxed));
        let watch =
            watches().find(|watch| !watch.taken.swap(true, Ordering::Acquire)).unwrap_or_else(Watch::add);
        watch.lost.store(lost_before, Ordering::Relaxed);
        watch.start.store(start.addr(), Ordering::Relaxed);
        watch.len.store(len, Ordering::Release);
        Watched(watch)
    }

    /// Whether one of the regions was lost.
    #[inline]
    pub(super) fn any_lost(regions: &[Watched]) -> bool {
        LOSSES.load(Ordering::Relaxed) != 0
            && regions.iter().any(|region| region.0.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.len.store(0, Ordering::Relaxed);
        self.0.taken.store(false, Ordering::Release);
    }
}

impl Watch {
    /// A new entry of the list, taken.
    fn add() -> &'static Watch {
        let watch: &'static Watch = Box::leak(Box::new(Watch {
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            taken: AtomicBool::new(true),
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        let link = |head| {
            watch.next.store(head, Ordering::Relaxed);
            Some(ptr::from_ref(watch).cast_mut())
        };
        // Cannot fail: `link` always gives a value.
        let _ = WATCHES.fetch_update(Ordering::Release, Ordering::Relaxed, link);
        watch
    }

    fn contains(&self, addr: usize) -> bool {
        let len = self.len.load(Ordering::Acquire);
        addr.wrapping_sub(self.start.load(Ordering::Relaxed)) < len
    }
}

/// All entries of the list.
fn watches() -> impl Iterator<Item = &'static Watch> {
    let mut at = WATCHES.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: the list holds null or pointers to entries that `Watch::add` leaked, so they live for ever, are only
        // ever shared, and were complete before the release that put them here.
        let watch: &'static Watch = unsafe { at.as_ref() }?;
        at = watch.next.load(Ordering::Relaxed);
        Some(watch)
    })
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: gives the address of this thread's errno, which lives as long as the thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; the interrupted code may be about to read its errno, so it is put back below.
    let saved = unsafe { *errno };
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO.
    let cause = unsafe { &*info };
    // SAFETY: a SIGBUS by the kernel has an address; of any other the value is not used.
    let addr = unsafe { cause.si_addr() }.addr();
    if cause.si_code != libc::BUS_ADRERR || !replace(addr) {
        pass_on(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// Marks the watched region at `addr` lost and maps zero pages over it. False if there is none.
fn replace(addr: usize) -> bool {
    let mut region = None;
    // Several maps may share a mapping; all of them have lost it.
    for watch in watches().filter(|watch| watch.contains(addr)) {
        watch.lost.store(true, Ordering::Relaxed);
        region = Some((watch.start.load(Ordering::Relaxed), watch.len.load(Ordering::Relaxed)));
    }
    let Some((start, len)) = region else { return false };
    LOSSES.fetch_add(1, Ordering::Relaxed);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the range is one whole mapping of guest memory: it is watched, hence mapped, and the code that faulted in
    // it keeps it so. Pages of the same size and protection take its place, reached only as the old ones were.
    let mapped = unsafe { libc::mmap(ptr::without_provenance_mut(start), len, protection, flags, -1, 0) };
    mapped != libc::MAP_FAILED
}

/// Does what would have been done without this module.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.get().map_or((libc::SIG_DFL, 0), |before| (before.sa_sigaction, before.sa_flags));
    match before {
        (libc::SIG_IGN | libc::SIG_DFL, _) => {
            // SAFETY: sets the default action, which any program may.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            // An access that faulted is repeated now and ends the process; a signal that was sent would be lost.
            // SAFETY: reads siginfo as above.
            if unsafe { (*info).si_code } <= 0 {
                // SAFETY: raising a signal has no requirements.
                unsafe { libc::raise(signal) };
            }
        }
        (action, flags) if flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the action was installed with SA_SIGINFO, so it is a function of this signature.
            let action: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(action) };
            action(signal, info, context);
        }
        (action, _) => {
            // SAFETY: the action was installed without SA_SIGINFO, so it is a function of this signature.
            let action: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(action) };
            action(signal);
        }
    }
}
