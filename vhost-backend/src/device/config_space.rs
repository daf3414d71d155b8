//! The virtio-net configuration space (virtio 1.2, section 5.1.4), little-endian.
//!
//! ```text
//! 0  mac: 6 | 6  status: 2 | 8  max_virtqueue_pairs: 2 | 10  mtu: 2 | 12  speed: 4 | 16  duplex: 1 | 17  zero
//! ```

const LINK_UP: u16 = 1;
const SPEED_UNKNOWN: u32 = u32::MAX;
const DUPLEX_UNKNOWN: u8 = u8::MAX;

/// The bytes a driver sees. Read only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigSpace([u8; Self::LEN]);

impl ConfigSpace {
    const LEN: usize = 17;

    /// `mtu` in bytes, without the Ethernet header.
    pub fn new(mac: [u8; 6], queue_pairs: u16, mtu: u16) -> ConfigSpace {
        let fields = mac
            .into_iter()
            .chain(LINK_UP.to_le_bytes())
            .chain(queue_pairs.to_le_bytes())
            .chain(mtu.to_le_bytes())
            .chain(SPEED_UNKNOWN.to_le_bytes())
            .chain([DUPLEX_UNKNOWN]);
        let mut bytes = [0; Self::LEN];
        for (byte, field) in bytes.iter_mut().zip(fields) {
            *byte = field;
        }
        ConfigSpace(bytes)
    }

    /// `len` bytes from `offset`. What lies beyond the known fields reads as zero, since VMMs differ in how much they
    /// read (Cloud Hypervisor 17 bytes, others the 24 bytes of newer structures) and an answer of another length than
    /// asked for is an error in vhost-user.
    pub fn read(&self, offset: u32, len: u32) -> Vec<u8> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let len = usize::try_from(len).unwrap_or(0);
        self.0.iter().copied().skip(offset).chain(std::iter::repeat(0)).take(len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: [u8; 17] = [0x52, 0x54, 0, 0, 0, 5, 1, 0, 2, 0, 0xdc, 5, 0xff, 0xff, 0xff, 0xff, 0xff];

    fn space() -> ConfigSpace {
        ConfigSpace::new([0x52, 0x54, 0, 0, 0, 5], 2, 1500)
    }

    #[test]
    fn cloud_hypervisor_reads_17_bytes() {
        assert_eq!(space().read(0, 17), SPACE);
    }

    #[test]
    fn every_window_has_the_length_asked_for() {
        for offset in 0..40 {
            for len in 0..40 {
                let expected: Vec<u8> =
                    (offset..offset + len).map(|i| SPACE.get(i).copied().unwrap_or(0)).collect();
                assert_eq!(space().read(offset as u32, len as u32), expected);
            }
        }
        assert_eq!(space().read(u32::MAX, 4), [0; 4]);
    }
}
