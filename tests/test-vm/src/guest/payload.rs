//! Test frames: Ethernet, IPv4, UDP and a payload that proves where it comes from.
//!
//! ```text
//! 0         14      34     42      46     48      50     54       62
//! Ethernet | IPv4  | UDP  | check | run  | flow  | seq  | time   | pattern …
//! ```
//!
//! All fields big-endian. `check` covers the headers and the fields, the pattern follows from flow and sequence number, so a
//! frame that is cut, spliced or changed anywhere is found out. The UDP checksum is 0 (none), as IPv4 allows.

use super::Endpoint;

/// Bytes of the three headers.
pub(super) const HEADERS: usize = 42;
/// The shortest test frame.
pub(super) const MIN_FRAME: usize = HEADERS + 20;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const UDP: u8 = 17;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a test frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) run: u16,
    pub(super) flow: u16,
    pub(super) seq: u32,
    /// Nanoseconds on the guests' clock.
    pub(super) time: u64,
}

/// Why a frame is no good test frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Not IPv4/UDP, or too short: somebody else's.
    Foreign,
    /// One of ours, changed on the way.
    Corrupt,
}

/// The headers of one flow's frames.
pub(super) fn headers(from: Endpoint, to: Endpoint, ports: (u16, u16), frame_len: usize) -> [u8; HEADERS] {
    let mut bytes = [0; HEADERS];
    bytes[0..6].copy_from_slice(&to.mac);
    bytes[6..12].copy_from_slice(&from.mac);
    bytes[12..14].copy_from_slice(&ETHERTYPE_IPV4);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&((frame_len - 14) as u16).to_be_bytes());
    bytes[20] = 0x40;
    bytes[22] = 64;
    bytes[23] = UDP;
    bytes[26..30].copy_from_slice(&from.ip.octets());
    bytes[30..34].copy_from_slice(&to.ip.octets());
    let sum = ipv4_checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes[34..36].copy_from_slice(&ports.0.to_be_bytes());
    bytes[36..38].copy_from_slice(&ports.1.to_be_bytes());
    bytes[38..40].copy_from_slice(&((frame_len - 34) as u16).to_be_bytes());
    bytes
}

fn ipv4_checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Writes a frame. `frame` is at least [`MIN_FRAME`] long; without `patterned` the bytes after the fields stay as they are.
#[inline]
pub(super) fn write(frame: &mut [u8], headers: &[u8; HEADERS], stamp: Stamp, patterned: bool) {
    frame[..HEADERS].copy_from_slice(headers);
    frame[46..48].copy_from_slice(&stamp.run.to_be_bytes());
    frame[48..50].copy_from_slice(&stamp.flow.to_be_bytes());
    frame[50..54].copy_from_slice(&stamp.seq.to_be_bytes());
    frame[54..62].copy_from_slice(&stamp.time.to_be_bytes());
    let check = check(frame);
    frame[42..46].copy_from_slice(&check.to_be_bytes());
    if patterned {
        let mut word = first_word(stamp);
        for chunk in frame[MIN_FRAME..].chunks_mut(8) {
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
            word = word.wrapping_add(ODD);
        }
    }
}

/// Reads a frame and checks all of it; the pattern only if `patterned`.
#[inline]
pub(super) fn read(frame: &[u8], patterned: bool) -> Result<Stamp, Wrong> {
    if frame.len() < MIN_FRAME || frame[12..14] != ETHERTYPE_IPV4 || frame[23] != UDP {
        return Err(Wrong::Foreign);
    }
    let field = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    if field(42) != check(frame) || usize::from(field(14) as u16) + 14 != frame.len() {
        return Err(Wrong::Corrupt);
    }
    let stamp = Stamp {
        run: (field(46) >> 16) as u16,
        flow: field(46) as u16,
        seq: field(50),
        time: u64::from(field(54)) << 32 | u64::from(field(58)),
    };
    if patterned {
        let mut word = first_word(stamp);
        for chunk in frame[MIN_FRAME..].chunks(8) {
            if *chunk != word.to_le_bytes()[..chunk.len()] {
                return Err(Wrong::Corrupt);
            }
            word = word.wrapping_add(ODD);
        }
    }
    Ok(stamp)
}

/// Turns a test frame round: the answer to it carries the same stamp and pattern back to its sender.
pub(super) fn turn(frame: &mut [u8]) {
    for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        for at in 0..len {
            frame.swap(a + at, b + at);
        }
    }
    let check = check(frame);
    frame[42..46].copy_from_slice(&check.to_be_bytes());
}

#[inline]
fn first_word(stamp: Stamp) -> u64 {
    mix(u64::from(stamp.flow) << 32 | u64::from(stamp.seq), ODD)
}

/// Covers bytes 0..42 and 46..62.
#[inline]
fn check(frame: &[u8]) -> u32 {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&frame[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let headers = mix(word(0), word(8)) ^ mix(word(16) ^ ODD, word(24)) ^ mix(word(32), word(34) ^ ODD);
    let fields = mix(word(46) ^ ODD, word(54));
    let both = mix(headers ^ ODD, fields);
    (both ^ both >> 32) as u32
}

#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x2545_f491_4f6c_dd1d) * u128::from(b ^ 0xd6e8_feb8_6659_fd93);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const FROM: Endpoint = Endpoint { mac: [0x52, 0x54, 0, 0, 0, 5], ip: Ipv4Addr::new(10, 0, 0, 5) };
    const TO: Endpoint = Endpoint { mac: [0x52, 0x54, 0, 0, 0, 6], ip: Ipv4Addr::new(10, 0, 0, 6) };
    const STAMP: Stamp = Stamp { run: 7, flow: 300, seq: 0x0102_0304, time: 0x1122_3344_5566_7788 };

    fn frame(len: usize) -> Vec<u8> {
        let mut frame = vec![0xee; len];
        write(&mut frame, &headers(FROM, TO, (1234, 80), len), STAMP, true);
        frame
    }

    #[test]
    fn a_frame_says_what_was_written() {
        for len in [62, 63, 64, 70, 600, 1514] {
            assert_eq!(read(&frame(len), true), Ok(STAMP));
        }
    }

    #[test]
    fn any_changed_byte_and_any_cut_is_noticed() {
        let good = frame(200);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(read(&bad, true).is_err(), "byte {at} bit {bit}");
            }
        }
        for len in 0..good.len() {
            assert!(read(&good[..len], true).is_err(), "cut to {len}");
        }
        let mut longer = good;
        longer.push(0);
        assert_eq!(read(&longer, true), Err(Wrong::Corrupt));
    }

    #[test]
    fn a_turned_frame_goes_back_with_its_stamp() {
        let mut turned = frame(100);
        turn(&mut turned);
        assert_eq!(turned[..6], FROM.mac);
        assert_eq!(turned[6..12], TO.mac);
        assert_eq!((&turned[26..30], &turned[30..34]), (&TO.ip.octets()[..], &FROM.ip.octets()[..]));
        assert_eq!(
            (&turned[34..36], &turned[36..38]),
            (&80u16.to_be_bytes()[..], &1234u16.to_be_bytes()[..])
        );
        assert_eq!(read(&turned, true), Ok(STAMP));
    }

    #[test]
    fn the_ipv4_header_checks() {
        let frame = frame(100);
        assert_eq!(ipv4_checksum(&frame[14..34]), 0, "a header with its checksum sums to zero");
        assert_eq!(frame[16..18], 86u16.to_be_bytes());
        assert_eq!(frame[38..40], 66u16.to_be_bytes());
    }
}
