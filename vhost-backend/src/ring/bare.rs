//! The copy of the datapath and what it asks the cache for, without anything around it, for measuring against.

use vm_memory::VolatileSlice;

use super::copy::{self, LINE};

/// Copies, as a frame is copied, as many bytes as both have.
#[inline(always)]
pub fn copy_bare(from: &VolatileSlice<'_>, to: &VolatileSlice<'_>) {
    let len = from.len().min(to.len());
    // SAFETY: a slice's bytes are mapped for as long as it lives, whoever else reads or writes them; `len` is within both.
    unsafe { copy::copy(from.ptr_guard().as_ptr(), to.ptr_guard_mut().as_ptr(), len) };
}

/// Asks for the first two lines of what will be read.
#[inline(always)]
pub fn expect_bare(from: &VolatileSlice<'_>) {
    let from = from.ptr_guard();
    copy::prefetch(from.as_ptr());
    copy::prefetch(from.as_ptr().wrapping_add(LINE));
}

/// Asks for the first two lines of what will be written, or for the rest of them.
#[inline(always)]
pub fn expect_bare_to_write(to: &VolatileSlice<'_>, rest: bool) {
    let lines = if rest { 2 * LINE..to.len() } else { 0..2 * LINE };
    let to = to.ptr_guard();
    for line in lines.step_by(LINE) {
        copy::prefetch_to_write(to.as_ptr().wrapping_add(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_copied_than_both_have() {
        for (from_len, to_len) in [(100, 80), (10, 80)] {
            let (mut from, mut to) = (vec![7; from_len], vec![0; to_len]);
            let [one, other] = [&mut from, &mut to].map(|bytes| VolatileSlice::from(&mut bytes[..]));
            expect_bare(&one);
            expect_bare_to_write(&other, false);
            expect_bare_to_write(&other, true);
            copy_bare(&one, &other);
            let count = from_len.min(to_len);
            assert_eq!((&to[..count], &to[count..]), (&vec![7; count][..], &vec![0; to_len - count][..]));
        }
    }
}
