use super::VNET_LEN;
use super::batch::Segment;
use super::chain::Chain;
use super::copy;
use super::error::WriteError;
use super::split::{Side, Split};

/// A frame about to be written into a receive ring, in three parts that are joined during the one copy.
#[derive(Clone, Copy)]
pub struct Gather<'a> {
    /// The virtio-net header; `num_buffers` (its last two bytes) is filled in by the ring.
    pub vnet: VnetHeader,
    /// The frame's first bytes: headers pushed, and the private copy of what was inspected.
    pub head: &'a [u8],
    /// The rest: a chain of another ring, and the offset in its frame (after the virtio-net header) to begin at.
    pub tail: Option<(Chain<'a>, usize)>,
}

/// A frame as it lies in memory of our own behind its virtio-net header, to be written as it is.
#[derive(Clone, Copy)]
pub struct Ready<'a> {
    /// The virtio-net header, `num_buffers` 1, and the frame's first bytes.
    pub front: &'a [u8],
    /// The rest, as in [`Gather`].
    pub tail: Option<(Chain<'a>, usize)>,
}

impl Ready<'_> {
    /// Bytes with the virtio-net header.
    #[inline(always)]
    fn len(&self) -> usize {
        match &self.tail {
            Some((chain, offset)) => self.front.len() + chain.len().saturating_sub(*offset),
            None => self.front.len(),
        }
    }
}

/// What [`Split::write_ready`] has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Frames.
    pub frames: usize,
    /// Their bytes, without virtio-net headers.
    pub bytes: u64,
}

impl Gather<'_> {
    /// Bytes of the frame, without the virtio-net header.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "an empty frame is not special")]
    pub fn len(&self) -> usize {
        // By reference: a copy of what was just put together would be read before its stores are done.
        match &self.tail {
            Some((chain, offset)) => self.head.len() + chain.len().saturating_sub(*offset),
            None => self.head.len(),
        }
    }

    /// Copies the frame, without the virtio-net header, as far as there is room.
    pub fn copy_to(&self, into: &mut [u8]) {
        let (head, rest) = into.split_at_mut(self.head.len().min(into.len()));
        head.copy_from_slice(self.head.get(..head.len()).unwrap_or_default());
        if let Some((chain, offset)) = &self.tail {
            chain.copy_to(*offset, rest);
        }
    }

    /// Joins the parts in memory of our own, `num_buffers` as it is; `None` if they do not fit.
    #[must_use]
    pub fn join<'b>(&self, into: &'b mut [u8]) -> Option<&'b [u8]> {
        let whole = into.get_mut(..VNET_LEN + self.len())?;
        let (vnet, frame) = whole.split_first_chunk_mut()?;
        *vnet = self.vnet.to_bytes();
        self.copy_to(frame);
        Some(whole)
    }
}

impl Split {
    /// Writes one frame into the next chain the driver posted, or, with `mergeable` (VIRTIO_NET_F_MRG_RXBUF), into as
    /// many as it takes; `num_buffers` says how many. The driver sees it after [`publish`](Split::publish).
    ///
    /// Malformed chains on the way are completed with length 0, at most a ring of them per call.
    ///
    /// # Errors
    /// [`WriteError::Full`] and [`WriteError::TooLong`] write nothing and use up no well-formed chain, save one that
    /// lies between malformed ones.
    #[inline(always)]
    pub fn write_frame(&mut self, frame: &Gather<'_>, mergeable: bool) -> Result<(), WriteError> {
        self.turn(Side::Write);
        let need = VNET_LEN + frame.len();
        let chains = match self.batch.open().first() {
            Some(slot) if need <= slot.len as usize => 1,
            _ => self.plan(need, mergeable)?,
        };
        self.place(frame, need, chains);
        Ok(())
    }

    /// Writes frames, each into the first piece of the next chain that was looked ahead, until one does not fit there or no
    /// chain is left: that one and those behind it are for [`write_frame`](Split::write_frame).
    ///
    /// Nearly every frame goes this way. What it stores beside the frames is next to nothing, since a core has a fixed
    /// number of stores under way, in order, and each frame's first waits for the line that the driver had last.
    #[inline(always)]
    pub fn write_ready<'f>(&mut self, frames: impl Iterator<Item = Ready<'f>>) -> Written {
        self.turn(Side::Write);
        let Split { rings, batch, handed, expected, .. } = self;
        let mut written = Written::default();
        let mut at = self.next_used;
        for (frame, slot) in frames.zip(batch.open()) {
            let need = frame.len();
            let Some(segment) = batch.first_segment(slot) else { break };
            if need > segment.len as usize || need > slot.len as usize || frame.front.len() < VNET_LEN {
                break;
            }
            batch.expect(written.frames + *expected);
            // SAFETY: the segment is mapped (see Segment) and holds `need` bytes.
            unsafe { copy::write(frame.front, segment.host) };
            if let Some(tail) = &frame.tail {
                batch.expect_long(written.frames + 1, need);
                // SAFETY: as above, and the front's bytes are among them.
                unsafe { write_tail(segment.host, frame.front.len(), tail, need) };
            }
            rings.put_used(at, slot.head, need as u32);
            if let Some(handed) = handed {
                handed.note(at, slot.head, need as u32);
            }
            at = at.wrapping_add(1);
            written.frames += 1;
            written.bytes += (need - VNET_LEN) as u64;
        }
        self.next_used = at;
        self.consume(written.frames);
        written
    }

    /// Chains the driver has posted and the device not used, malformed ones included; 0 for a broken ring.
    pub fn free_chains(&mut self) -> u16 {
        self.available().unwrap_or(0)
    }

    /// How many of the next chains hold `need` bytes. All of them are then in the look-ahead and well-formed.
    #[inline(never)]
    fn plan(&mut self, need: usize, mergeable: bool) -> Result<usize, WriteError> {
        // Without a bound a driver could keep us here by posting malformed chains as fast as they are skipped.
        let mut patience = usize::from(self.rings.size());
        let (mut chains, mut room) = (0, 0);
        loop {
            match self.batch.open().get(chains) {
                Some(slot) if slot.malformed.is_some() => {
                    // A frame's chains have to be used one after another, so it can only begin behind this one.
                    chains += 1;
                    patience = patience.checked_sub(chains).ok_or(WriteError::Full)?;
                    self.skip(chains);
                    (chains, room) = (0, 0);
                }
                Some(slot) => {
                    chains += 1;
                    room += slot.len as usize;
                    if room >= need {
                        return Ok(chains);
                    }
                    if !mergeable {
                        return Err(WriteError::TooLong);
                    }
                }
                None => self.look_ahead()?,
            }
        }
    }

    /// Translates more of the posted chains.
    fn look_ahead(&mut self) -> Result<(), WriteError> {
        let ahead = self.batch.open().len() as u16;
        if ahead == 0 {
            self.batch.clear();
        }
        let at = self.next_avail.wrapping_add(ahead);
        if self.seen_avail == at {
            self.available()?;
        }
        // No underflow: avail.idx never goes back behind what was seen, or `available` breaks the ring.
        let fresh = usize::from(self.seen_avail.wrapping_sub(at));
        if fresh == 0 {
            let everything = ahead == self.rings.size();
            return Err(if everything { WriteError::TooLong } else { WriteError::Full });
        }
        if self.append(at, fresh)? == 0 {
            self.batch.compact();
            if self.append(at, fresh)? == 0 {
                return Err(WriteError::TooLong);
            }
        }
        Ok(())
    }

    /// Completes the next `chains` chains with length 0.
    fn skip(&mut self, chains: usize) {
        for slot in self.batch.open().iter().take(chains) {
            self.rings.put_used(self.next_used, slot.head, 0);
            if let Some(handed) = &mut self.handed {
                handed.note(self.next_used, slot.head, 0);
            }
            self.next_used = self.next_used.wrapping_add(1);
        }
        self.consume(chains);
    }

    /// Writes `frame`, `need` bytes with its header, into the next `chains` chains, which hold that many.
    #[inline(always)]
    fn place(&mut self, frame: &Gather<'_>, need: usize, chains: usize) {
        self.batch.expect(self.expected);
        let vnet = frame.vnet.with_buffers(chains as u16);
        let Some(first) = self.batch.open().first() else { return };
        match self.batch.segments_from(first) {
            [segment, ..] if segment.len as usize >= need => {
                // SAFETY: the segment is mapped (see Segment) and holds `need` bytes.
                unsafe { write_whole(segment.host, vnet, frame, need) };
            }
            segments => write_spread(segments, vnet, frame, need),
        }
        let (mut left, mut whole) = (need, need as u32);
        for slot in self.batch.open().iter().take(chains) {
            let len = left.min(slot.len as usize);
            left -= len;
            self.rings.put_used(self.next_used, slot.head, len as u32);
            if let Some(handed) = &mut self.handed {
                handed.note(self.next_used, slot.head, whole);
                whole = 0;
            }
            self.next_used = self.next_used.wrapping_add(1);
        }
        self.consume(chains);
    }

    #[inline(always)]
    fn consume(&mut self, chains: usize) {
        self.batch.take(chains);
        self.next_avail = self.next_avail.wrapping_add(chains as u16);
    }
}

/// A virtio-net header (virtio 1.2 section 5.1.6), kept in two registers: put together in memory, it would be read back
/// before the stores are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    front: u64,
    back: u32,
}

impl VnetHeader {
    /// One that asks for nothing.
    pub const NONE: VnetHeader = VnetHeader { front: 0, back: 0 };

    /// With `num_buffers` in its last two bytes.
    #[inline(always)]
    #[must_use]
    pub fn with_buffers(self, num_buffers: u16) -> VnetHeader {
        VnetHeader { back: u32::from_le(self.back.to_le() & 0xFFFF | u32::from(num_buffers) << 16), ..self }
    }

    /// Its little-endian memory image.
    #[must_use]
    pub fn to_bytes(self) -> [u8; VNET_LEN] {
        let ([a, b, c, d, e, f, g, h], [i, j, k, l]) = (self.front.to_ne_bytes(), self.back.to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

impl From<[u8; VNET_LEN]> for VnetHeader {
    /// From its little-endian memory image.
    fn from([a, b, c, d, e, f, g, h, i, j, k, l]: [u8; VNET_LEN]) -> VnetHeader {
        VnetHeader {
            front: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            back: u32::from_ne_bytes([i, j, k, l]),
        }
    }
}

/// Writes header, head and tail to one piece of memory.
///
/// # Safety
/// `need` bytes are writable at `to`.
#[inline(always)]
unsafe fn write_whole(to: *mut u8, vnet: VnetHeader, frame: &Gather<'_>, need: usize) {
    debug_assert_eq!(need, VNET_LEN + frame.len());
    // SAFETY: `need` is at least VNET_LEN, which is the 12 bytes of the two stores.
    unsafe { copy::store_8(vnet.front, to) };
    // SAFETY: as above.
    unsafe { copy::store_4(vnet.back, to.wrapping_add(8)) };
    // SAFETY: `need` is at least VNET_LEN + head.len().
    unsafe { copy::write(frame.head, to.wrapping_add(VNET_LEN)) };
    let Some(tail) = &frame.tail else { return };
    // SAFETY: as above.
    unsafe { write_tail(to, VNET_LEN + frame.head.len(), tail, need) };
}

/// Writes what a chain holds behind the `done` bytes that are there.
///
/// # Safety
/// `need` bytes are writable at `to`, and `done` is no more.
#[inline(always)]
unsafe fn write_tail(to: *mut u8, mut done: usize, (chain, offset): &(Chain<'_>, usize), need: usize) {
    for (from, len) in chain.pieces(offset.saturating_add(VNET_LEN)) {
        let len = len.min(need - done);
        // SAFETY: `from` and its length are of a segment that the chain's Split keeps mapped, or Frames own; `done + len <= need`.
        unsafe { copy::copy(from, to.wrapping_add(done), len) };
        done += len;
    }
}

/// Writes header, head and tail over several segments.
#[cold]
fn write_spread(segments: &[Segment], vnet: VnetHeader, frame: &Gather<'_>, need: usize) {
    let vnet = vnet.to_bytes();
    let mut into = Spread { segments: segments.iter(), to: std::ptr::null_mut(), room: 0, left: need };
    // SAFETY: a live array of that length.
    unsafe { into.put(vnet.as_ptr(), vnet.len()) };
    // SAFETY: a live slice of that length.
    unsafe { into.put(frame.head.as_ptr(), frame.head.len()) };
    let Some((chain, offset)) = &frame.tail else { return };
    for (from, len) in chain.pieces(offset.saturating_add(VNET_LEN)) {
        // SAFETY: `from` and its length are of a segment that the chain's Split keeps mapped, or Frames own.
        unsafe { into.put(from, len) };
    }
}

/// A position in a list of segments; never goes past their end nor past `left` bytes.
struct Spread<'a> {
    segments: std::slice::Iter<'a, Segment>,
    to: *mut u8,
    room: usize,
    left: usize,
}

impl Spread<'_> {
    /// # Safety
    /// `len` bytes are readable at `from`.
    unsafe fn put(&mut self, mut from: *const u8, len: usize) {
        let mut len = len.min(self.left);
        self.left -= len;
        while len > 0 {
            if self.room == 0 {
                let Some(segment) = self.segments.next() else { return };
                (self.to, self.room) = (segment.host, segment.len as usize);
            }
            let step = len.min(self.room);
            // SAFETY: readable by the caller's promise; writable because `to` has `room` bytes left in a segment.
            unsafe { copy::copy(from, self.to, step) };
            from = from.wrapping_add(step);
            self.to = self.to.wrapping_add(step);
            self.room -= step;
            len -= step;
        }
    }
}
