//! Buffers of a guest without a ring, for measuring what bringing frames over costs at least.

use std::sync::Arc;

use crate::Error;
use crate::driver::{Geometry, scatter};
use crate::sys::{Area, GuestRam};

/// Places of one length in a guest's memory, which lie as the buffers of a ring do. Whoever else has the memory mapped has to be
/// told by other means when it may touch a place.
#[derive(Debug)]
pub struct Places {
    places: Vec<Area>,
}

impl Places {
    /// Bytes that `count` places of `len` bytes take.
    pub fn memory(count: usize, len: usize) -> usize {
        count * Geometry::stride(len)
    }

    /// Takes `count` places of `len` bytes from the memory, in no order if `scattered`, the same every time.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(ram: &Arc<GuestRam>, count: usize, len: usize, scattered: bool) -> Result<Places, Error> {
        let stride = Geometry::stride(len);
        let mut places = ram.reserve(count * stride, 64)?.cut(stride);
        if scattered {
            scatter(&mut places);
        }
        Ok(Places { places })
    }

    /// Guest physical address of a place.
    ///
    /// # Panics
    /// As all of them, if there is no such place.
    #[inline(always)]
    pub fn address(&self, place: usize) -> u64 {
        self.places[place].gpa()
    }

    /// The first `len` bytes of a place.
    #[inline(always)]
    pub fn bytes(&self, place: usize, len: usize) -> &[u8] {
        self.places[place].bytes(0, len)
    }

    /// The same, for writing.
    #[inline(always)]
    pub fn bytes_mut(&mut self, place: usize, len: usize) -> &mut [u8] {
        self.places[place].bytes_mut(0, len)
    }

    /// Asks for the first cache lines of a place, as a driver does for a frame of `len` bytes it is about to take.
    #[inline(always)]
    pub fn expect(&self, place: usize, len: usize) {
        let place = &self.places[place];
        place.prefetch(0);
        if len > 64 {
            place.prefetch(64);
        }
    }

    /// The same, to be written.
    #[inline(always)]
    pub fn expect_to_write(&self, place: usize) {
        self.places[place].prefetch_to_write(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap_however_they_lie() {
        for scattered in [false, true] {
            let ram = GuestRam::new(1 << 16).unwrap();
            let mut places = Places::new(&ram, 16, 100, scattered).unwrap();
            for place in 0..16 {
                places.bytes_mut(place, 100).fill(place as u8);
            }
            assert!((0..16).all(|place| places.bytes(place, 100) == [place as u8; 100]));
            let ascending = (1..16).all(|place| places.address(place - 1) < places.address(place));
            assert_eq!(ascending, !scattered);
        }
        assert!(Places::new(&GuestRam::new(4096).unwrap(), 1 << 20, 100, false).is_err());
    }
}
