//! What was decided lately: in front of every table, so that a packet of a known flow costs one hash and one cache line.
//!
//! Only verdicts are kept that follow from the snapshot, the flow's record and the frame's [`Imprint`] alone, for as
//! long as the snapshot stands, and no longer than some 70 ms: then the flow is looked up once, so that the flow table knows
//! it is in use and a flood of new flows does not displace it. A worker has its own cache; nothing in it is shared.
//!
//! Where flows are so many that nearly none is found, asking costs more than it is worth: then only some batches ask, to
//! notice when that changes.

use super::{PortId, Verdict};
use crate::frame::Imprint;
use crate::liveness::Timestamp;

/// Entries: 256 KiB, half of a common second-level cache.
const ENTRIES: usize = 4096;
/// 2^26 ns: 67 ms, by a shift.
const TICK_SHIFT: u32 = 26;
/// An entry in use gives way to every so many newcomers only: a flood of flows that are seen once would otherwise cost
/// more to enter than it is worth.
const RELUCTANCE: u32 = 8;
/// So many batches in a row in which less than a quarter of the frames were found: the next ones are not asked about.
const VAIN: u8 = 4;
/// How many then are not.
const PASSED_OVER: u8 = 127;
/// Ports that are told apart in that; of two that are not, each decides for the other too.
const PORTS: usize = 256;

/// The verdicts of one worker.
#[derive(Debug)]
pub struct VerdictCache {
    entries: Box<[Entry]>,
    seed: u64,
    newcomers: u32,
    /// By port number.
    luck: [Luck; PORTS],
}

/// The cache as the frames of one batch are looked up in it. All of them came from one port.
#[derive(Debug)]
pub struct Lately<'a> {
    cache: &'a mut VerdictCache,
    from: PortId,
    standing: Standing,
    /// What was found last: most frames are of the flow of the one before.
    last: Option<(Imprint, Verdict)>,
    count: usize,
    found: usize,
}

/// How asking about the frames of a port went lately.
#[derive(Debug, Clone, Copy, Default)]
struct Luck {
    /// Batches asked about in vain, in a row.
    vain: u8,
    /// Batches that are still not to be asked about.
    passed_over: u8,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Entry {
    imprint: Imprint,
    version: u64,
    tick: u32,
    from: PortId,
    verdict: Verdict,
}

/// Under what a verdict is valid.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    version: u64,
    tick: u32,
}

impl Standing {
    /// Under the snapshot of this version, at this time.
    #[inline]
    pub fn new(version: u64, now: Timestamp) -> Standing {
        Standing { version, tick: (now.as_nanos() >> TICK_SHIFT) as u32 }
    }
}

impl VerdictCache {
    /// An empty one. `seed` is secret from guests.
    pub fn new(seed: u64) -> VerdictCache {
        let none = Entry {
            imprint: Imprint::default(),
            // No snapshot has it.
            version: u64::MAX,
            tick: 0,
            from: PortId::new(0),
            verdict: Verdict::Strip,
        };
        VerdictCache {
            entries: vec![none; ENTRIES].into(),
            seed,
            newcomers: 0,
            luck: [Luck::default(); PORTS],
        }
    }

    /// The cache, if it is worth asking about the `count` frames of the next batch from this port.
    #[inline]
    pub fn for_batch(&mut self, from: PortId, standing: Standing, count: usize) -> Option<Lately<'_>> {
        let luck = self.luck.get_mut(from.index() % PORTS)?;
        if let Some(left) = luck.passed_over.checked_sub(1) {
            luck.passed_over = left;
            return None;
        }
        Some(Lately { cache: self, from, standing, last: None, count, found: 0 })
    }

    /// Keeps what was decided.
    pub fn keep(&mut self, imprint: &Imprint, from: PortId, standing: Standing, verdict: Verdict) {
        let place = self.place(imprint);
        let Some(entry) = self.entries.get_mut(place) else { return };
        let Standing { version, tick } = standing;
        let in_use = entry.version == version && entry.tick == tick;
        self.newcomers = self.newcomers.wrapping_add(1);
        if !in_use || self.newcomers.is_multiple_of(RELUCTANCE) {
            *entry = Entry { imprint: *imprint, version, tick, from, verdict };
        }
    }

    #[inline]
    fn place(&self, imprint: &Imprint) -> usize {
        // The high bits: the low ones of a folded product are the weaker.
        (imprint.hash(self.seed) >> 40) as usize % ENTRIES
    }
}

impl Lately<'_> {
    /// What was decided about such a frame.
    #[inline]
    pub fn find(&mut self, imprint: &Imprint) -> Option<Verdict> {
        if let Some((last, verdict)) = &self.last
            && last == imprint
        {
            self.found += 1;
            return Some(*verdict);
        }
        let entry = self.cache.entries.get(self.cache.place(imprint))?;
        let known = entry.imprint == *imprint
            && entry.from == self.from
            && entry.version == self.standing.version
            && entry.tick == self.standing.tick;
        if !known {
            return None;
        }
        self.found += 1;
        self.last = Some((*imprint, entry.verdict));
        Some(entry.verdict)
    }

    /// Keeps what was decided.
    pub fn keep(&mut self, imprint: &Imprint, verdict: Verdict) {
        self.cache.keep(imprint, self.from, self.standing, verdict);
    }
}

impl Drop for Lately<'_> {
    /// Whether asking about this port's frames was worth it.
    #[inline]
    fn drop(&mut self) {
        let Some(luck) = self.cache.luck.get_mut(self.from.index() % PORTS) else { return };
        let in_vain = self.found.saturating_mul(4) < self.count;
        luck.vain = if in_vain { luck.vain.saturating_add(1).min(VAIN) } else { 0 };
        luck.passed_over = if luck.vain == VAIN { PASSED_OVER } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::samples::{VM5, VM6, seconds};
    use crate::frame::Mac;
    use crate::frame::samples::{Ipv4, ethernet, udp};

    fn imprint(port: u16) -> Imprint {
        let packet = Ipv4::between([10, 0, 0, 5], [10, 0, 0, 6], 17).bytes(&udp(port, 80, 4));
        let bytes = ethernet(Mac([2; 6]), Mac([4; 6]), &[], Ipv4::ETHERTYPE, &packet);
        Imprint::plain(&bytes, bytes.len()).unwrap()
    }

    const VERDICT: Verdict = Verdict::Deliver(VM6);

    #[test]
    fn an_entry_is_a_cache_line() {
        assert_eq!(size_of::<Entry>(), 64);
    }

    #[test]
    fn a_verdict_is_found_until_the_tables_change_or_a_while_has_passed() {
        let mut cache = VerdictCache::new(42);
        let then = Standing::new(7, seconds(5));
        let find = |cache: &mut VerdictCache, flow, from, standing| {
            cache.for_batch(from, standing, 1).and_then(|mut lately| lately.find(&imprint(flow)))
        };
        assert_eq!(find(&mut cache, 1, VM5, then), None);
        cache.keep(&imprint(1), VM5, then, VERDICT);
        assert_eq!(find(&mut cache, 1, VM5, then), Some(VERDICT));
        assert_eq!(find(&mut cache, 2, VM5, then), None);
        assert_eq!(find(&mut cache, 1, VM6, then), None, "from another port");
        assert_eq!(find(&mut cache, 1, VM5, Standing::new(8, seconds(5))), None, "under other tables");
        assert_eq!(find(&mut cache, 1, VM5, Standing::new(7, seconds(7))), None, "later");
    }

    #[test]
    fn a_port_whose_flows_are_never_found_is_hardly_asked_about_until_they_are() {
        let mut cache = VerdictCache::new(42);
        let now = Standing::new(1, seconds(1));
        cache.keep(&imprint(1), VM5, now, VERDICT);
        // Of 32 frames so many are of that flow.
        let asked = |cache: &mut VerdictCache, batches, known| {
            let asked = (0..batches).filter(|_| {
                let Some(mut lately) = cache.for_batch(VM5, now, 32) else { return false };
                (0..known).for_each(|_| assert!(lately.find(&imprint(1)).is_some()));
                true
            });
            asked.count()
        };
        assert_eq!(asked(&mut cache, 320, 7), 6);
        assert!(cache.for_batch(VM6, now, 32).is_some(), "of another port nothing is known");
        assert!(asked(&mut cache, 320, 8) >= 320 - 127);
        assert_eq!(asked(&mut cache, 320, 32), 320);
    }

    #[test]
    fn most_of_as_many_flows_as_a_quarter_of_the_entries_are_kept() {
        let mut cache = VerdictCache::new(42);
        let now = Standing::new(1, seconds(1));
        for port in 0..1024 {
            cache.keep(&imprint(port), VM5, now, VERDICT);
        }
        let mut lately = cache.for_batch(VM5, now, 1024).unwrap();
        let kept = (0..1024).filter(|port| lately.find(&imprint(*port)).is_some()).count();
        drop(lately);
        assert!(kept > 800, "{kept}");
    }
}
