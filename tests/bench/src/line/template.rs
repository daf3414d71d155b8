//! The frames of a measurement: equal but for a number, which is in two places, and the flow, which follows from it.
//!
//! ```text
//! UDP  0 Ethernet 14 IPv4 34 UDP 42 number 50 pattern …                …  number, inverted
//! TCP  0 Ethernet 14 IPv4 34 TCP           54 number 62 pattern …      …  number, inverted
//! ```
//!
//! A frame is checked byte for byte against what its number says it must be. The second number is at the end of frames
//! of 72 bytes and more, so that a frame joined from two is found out.

/// The shortest frame.
pub const MIN_FRAME: usize = 64;
/// Frames this long end in a second number.
const MIN_MARKED: usize = 72;
const TTL: usize = 22;
/// Where flows differ.
const IPV4_CHECKSUM: usize = 24;
const SOURCE_ADDRESS: usize = 26;
const SOURCE_PORT: usize = 34;
/// Source ports of one source address.
const PORTS: u32 = 1 << 12;
const FIRST_PORT: u16 = 1024;

/// What the frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UDP datagrams without checksum.
    Udp,
    /// TCP segments whose checksum the receiver's driver is to trust or complete.
    Tcp,
}

impl Kind {
    const fn number_at(self) -> usize {
        match self {
            Kind::Udp => 42,
            Kind::Tcp => 54,
        }
    }
}

/// The frames of one line.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    /// The first bytes as they arrive, and which of their bits are the same in every frame.
    head: [u64; MIN_FRAME / 8],
    same: [u64; MIN_FRAME / 8],
    number_at: usize,
    flow_mask: u32,
    /// IPv4 header checksums by the last byte of the source address.
    checksums: Box<[u16; 256]>,
}

impl Template {
    /// Frames of `len` bytes without FCS between two stations, spread in turn over `flows` flows: up to 256 source
    /// addresses `10.1.0.*` with 4096 ports each.
    ///
    /// # Panics
    /// If a frame is shorter than [`MIN_FRAME`] or longer than an IPv4 packet with its Ethernet header, or `flows` is no power of two
    /// up to 2^20.
    pub fn new(kind: Kind, from: [u8; 6], to: [u8; 6], len: usize, flows: u32) -> Template {
        assert!((MIN_FRAME..=14 + 0xffff).contains(&len), "a frame of {len} bytes");
        assert!(flows.is_power_of_two() && flows <= 256 * PORTS, "{flows} flows");
        let mut bytes: Vec<u8> =
            (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
        bytes[..6].copy_from_slice(&to);
        bytes[6..12].copy_from_slice(&from);
        bytes[12..14].copy_from_slice(&[0x08, 0x00]);
        let protocol = if kind == Kind::Tcp { 6 } else { 17 };
        bytes[14..34]
            .copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 1, 0, 0, 10, 2, 0, 1]);
        bytes[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
        bytes[34..38].copy_from_slice(&[0, 0, 0x1b, 0x58]);
        match kind {
            Kind::Udp => {
                bytes[38..40].copy_from_slice(&((len - 34) as u16).to_be_bytes());
                bytes[40..42].fill(0);
            }
            Kind::Tcp => {
                bytes[38..54].fill(0);
                bytes[46..50].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
                let sum = pseudo_header_sum(&bytes);
                bytes[50..52].copy_from_slice(&sum.to_be_bytes());
            }
        }
        let mut checksums = Box::new([0; 256]);
        for (last, checksum) in checksums.iter_mut().enumerate() {
            bytes[SOURCE_ADDRESS + 3] = last as u8;
            *checksum = !ones_sum(&bytes[14..34]);
        }
        bytes[SOURCE_ADDRESS + 3] = 0;
        bytes[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksums[0].to_be_bytes());
        bytes[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&FIRST_PORT.to_be_bytes());
        let mut template = Template {
            bytes,
            head: [0; MIN_FRAME / 8],
            same: [0; MIN_FRAME / 8],
            number_at: kind.number_at(),
            flow_mask: flows - 1,
            checksums,
        };
        let (mut zeros, mut ones) = ([0; MIN_FRAME], [0xff; MIN_FRAME]);
        template.stamp(&mut zeros, 0);
        template.stamp(&mut ones, 0);
        let mut same = [0; MIN_FRAME];
        for ((same, zero), one) in same.iter_mut().zip(zeros).zip(ones) {
            // What stamping does not touch.
            *same = if zero == 0 && one == 0xff { 0xff } else { 0 };
        }
        if let Some(head) = template.bytes.first_chunk() {
            (template.head, template.same) = (words(head), words(&same));
        }
        template
    }

    /// The same frames, but that they arrive as an IPv4 router leaves them that sends them on to `to`.
    ///
    /// # Panics
    /// If they are of more than one flow.
    #[must_use]
    pub fn routed(mut self, router: [u8; 6], to: [u8; 6]) -> Template {
        assert_eq!(self.flow_mask, 0, "routed frames of one flow");
        if let Some(mut head) = self.bytes.first_chunk().copied() {
            head[..6].copy_from_slice(&to);
            head[6..12].copy_from_slice(&router);
            head[TTL] -= 1;
            head[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].fill(0);
            let checksum = !ones_sum(&head[14..34]);
            head[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
            self.head = words(&head);
        }
        self
    }

    /// Bytes of a frame.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// There are no frames without bytes.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes frame `number` as a whole. `frame` has the right length.
    pub fn write(&self, frame: &mut [u8], number: u64) {
        frame.copy_from_slice(&self.bytes);
        self.renumber(frame, number);
    }

    /// Makes any frame of this template frame `number`.
    #[inline(always)]
    pub fn renumber(&self, frame: &mut [u8], number: u64) {
        if let Some((head, rest)) = frame.split_first_chunk_mut::<MIN_FRAME>() {
            self.stamp(head, number);
            if let Some(mark) = rest.last_chunk_mut::<8>() {
                *mark = (!number).to_le_bytes();
            }
        }
    }

    #[inline(always)]
    fn stamp(&self, head: &mut [u8; MIN_FRAME], number: u64) {
        if self.flow_mask > 0 {
            let (last, port, checksum) = self.flow(number);
            head[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum);
            head[SOURCE_ADDRESS + 3] = last;
            head[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port);
        }
        head[self.number_at..self.number_at + 8].copy_from_slice(&number.to_le_bytes());
    }

    /// Whether a frame's first bytes hold what `stamp` writes.
    #[inline(always)]
    fn is_stamped(&self, head: &[u8; MIN_FRAME], number: u64) -> bool {
        let (last, port, checksum) = self.flow(number);
        let flow = self.flow_mask == 0
            || head[SOURCE_ADDRESS + 3] == last
                && head[SOURCE_PORT..SOURCE_PORT + 2] == port
                && head[IPV4_CHECKSUM..IPV4_CHECKSUM + 2] == checksum;
        flow && head[self.number_at..self.number_at + 8] == number.to_le_bytes()
    }

    /// The last byte of the source address, the source port and the IPv4 checksum of frame `number`.
    #[inline(always)]
    fn flow(&self, number: u64) -> (u8, [u8; 2], [u8; 2]) {
        let flow = number as u32 & self.flow_mask;
        let last = (flow / PORTS) as u8;
        let port = FIRST_PORT + (flow % PORTS) as u16;
        (last, port.to_be_bytes(), self.checksums[usize::from(last)].to_be_bytes())
    }

    /// The number a frame of this template has; `None` for a frame that is too short to have one.
    #[inline(always)]
    pub fn number(&self, frame: &[u8]) -> Option<u64> {
        let number = frame.get(self.number_at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*number))
    }

    /// Whether `frame` is frame `number`, in every byte.
    #[inline(always)]
    pub fn is(&self, frame: &[u8], number: u64) -> bool {
        // Field by field: loading as a whole what has just been stored in parts would have to wait for it.
        let Some((head, rest)) = frame.split_first_chunk::<MIN_FRAME>() else { return false };
        let differs =
            |difference: u64, ((word, head), same): ((u64, u64), u64)| difference | (word ^ head) & same;
        let difference = words(head).into_iter().zip(self.head).zip(self.same).fold(0, differs);
        if difference != 0 || !self.is_stamped(head, number) || frame.len() != self.bytes.len() {
            return false;
        }
        let end = if self.bytes.len() < MIN_MARKED { rest.len() } else { rest.len() - 8 };
        let marked = end == rest.len() || rest[end..] == (!number).to_le_bytes();
        marked && rest[..end] == self.bytes[MIN_FRAME..MIN_FRAME + end]
    }

    /// The same for a frame that lies in pieces, the first of which has [`MIN_FRAME`] bytes or more; only for frames that end in
    /// a second number.
    pub fn is_in(&self, pieces: &[&[u8]], number: u64) -> bool {
        let Some(head) = pieces.first().and_then(|first| first.first_chunk::<MIN_FRAME>()) else {
            return false;
        };
        let stamped = self.is_stamped(head, number);
        let (mark, end) = ((!number).to_le_bytes(), self.bytes.len().saturating_sub(8).max(MIN_FRAME));
        let mut at = 0;
        let same = pieces.iter().all(|piece| {
            // What is stamped has been looked at.
            let from = MIN_FRAME.saturating_sub(at).min(piece.len());
            let plain = end.saturating_sub(at).clamp(from, piece.len());
            let expected = self.bytes.get(at + from..at + plain);
            let marked = mark.get((at + plain).saturating_sub(end)..).unwrap_or_default();
            at += piece.len();
            expected == Some(&piece[from..plain]) && marked.starts_with(&piece[plain..])
        });
        let differs =
            |difference: u64, ((word, head), same): ((u64, u64), u64)| difference | (word ^ head) & same;
        let difference = words(head).into_iter().zip(self.head).zip(self.same).fold(0, differs);
        difference == 0 && stamped && same && at == self.bytes.len()
    }
}

/// Eight bytes each, in this machine's order.
#[inline(always)]
fn words(bytes: &[u8; MIN_FRAME]) -> [u64; MIN_FRAME / 8] {
    let (chunks, _) = bytes.as_chunks();
    std::array::from_fn(|at| u64::from_ne_bytes(chunks[at]))
}

/// The sum that a TCP checksum begins with, which is what a driver leaves in the field when it asks the device to complete it.
fn pseudo_header_sum(frame: &[u8]) -> u16 {
    let mut pseudo = [0; 12];
    pseudo[..8].copy_from_slice(&frame[26..34]);
    pseudo[9] = frame[23];
    pseudo[10..].copy_from_slice(&((frame.len() - 34) as u16).to_be_bytes());
    ones_sum(&pseudo)
}

/// The ones' complement sum of 16-bit words.
fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn template(kind: Kind, len: usize, flows: u32) -> Template {
        Template::new(kind, [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], len, flows)
    }

    #[test]
    fn a_frame_is_itself_and_no_other() {
        for kind in [Kind::Udp, Kind::Tcp] {
            for len in [64, 65, 71, 72, 73, 1500, 65535] {
                let template = template(kind, len, 1 << 20);
                let mut frame = vec![0; len];
                template.write(&mut frame, 7);
                template.renumber(&mut frame, 0x1234_5678_9abc);
                assert_eq!(template.number(&frame), Some(0x1234_5678_9abc));
                assert!(template.is(&frame, 0x1234_5678_9abc), "{kind:?} {len}");
                assert!(!template.is(&frame, 0x1234_5678_9abd));
                assert!(!template.is(&frame[..len - 1], 0x1234_5678_9abc));
            }
        }
    }

    #[test]
    fn a_frame_in_pieces_is_the_same_frame() {
        let template = template(Kind::Tcp, 1000, 4);
        let mut frame = vec![0; 1000];
        template.write(&mut frame, 5);
        for cuts in [&[1000][..], &[64, 1000], &[500, 995, 1000], &[300, 600, 999, 1000], &[100, 992, 1000]] {
            let pieces = |frame: &[u8]| {
                let mut at = 0;
                let piece = |end: &usize| frame[std::mem::replace(&mut at, *end)..*end].to_vec();
                cuts.iter().map(piece).collect::<Vec<_>>()
            };
            let is = |pieces: &[Vec<u8>], number| {
                template.is_in(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>(), number)
            };
            let whole = pieces(&frame);
            assert!(is(&whole, 5) && !is(&whole, 6) && !is(&whole[1..], 5), "{cuts:?}");
            assert!(cuts.len() == 1 || !is(&whole[..cuts.len() - 1], 5), "{cuts:?} without its end");
            assert!(!is(&[&whole[..], &[vec![0]]].concat(), 5), "{cuts:?} and a byte more");
            for at in 0..1000 {
                let mut changed = frame.clone();
                changed[at] ^= 1;
                assert!(!is(&pieces(&changed), 5), "byte {at} of {cuts:?}");
            }
        }
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        for len in [64, 200] {
            let template = template(Kind::Udp, len, 4);
            let mut frame = vec![0; len];
            template.write(&mut frame, 5);
            for at in 0..len {
                frame[at] ^= 1;
                assert!(!template.is(&frame, 5), "byte {at} of {len}");
                frame[at] ^= 1;
            }
        }
    }

    #[test]
    fn a_routed_frame_arrives_with_other_addresses_and_a_smaller_ttl() {
        let (router, sink) = ([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 3]);
        for len in [64, 1500] {
            let template = template(Kind::Udp, len, 1).routed(router, sink);
            let mut frame = vec![0; len];
            template.write(&mut frame, 5);
            assert!(!template.is(&frame, 5), "as it was sent");
            frame[..12].copy_from_slice(&[sink, router].concat());
            frame[TTL] = 63;
            frame[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].fill(0);
            let checksum = !ones_sum(&frame[14..34]);
            frame[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
            assert!(template.is(&frame, 5) && !template.is(&frame, 6));
            frame[len - 1] ^= 1;
            assert!(!template.is(&frame, 5));
        }
    }

    #[test]
    fn every_flow_has_ports_and_addresses_of_its_own_and_a_good_checksum() {
        let template = template(Kind::Udp, 64, 1 << 20);
        let mut frame = vec![0; 64];
        template.write(&mut frame, 0);
        let mut seen = HashSet::new();
        for number in 0..1 << 20 {
            template.renumber(&mut frame, number);
            assert_eq!(ones_sum(&frame[14..34]), 0xffff);
            seen.insert([frame[26], frame[27], frame[28], frame[29], frame[34], frame[35]]);
        }
        assert_eq!(seen.len(), 1 << 20);
    }
}
