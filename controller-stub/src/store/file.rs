//! The store's file on the disk.

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};
use std::fs::File;
use std::io;
use std::ops::Bound;

/// Bytes that are written at once where the file grows.
const CHUNK: usize = 64 << 10;

/// A file whose room is written when it is added. A commit then changes blocks that the file system knows already: it waits
/// for the disk once, and not for the file system's journal and its thread as well.
#[derive(Debug)]
pub(super) struct WrittenFile(FileBackend);

impl WrittenFile {
    /// This file, as it is.
    pub(super) fn new(file: File) -> Result<WrittenFile, DatabaseError> {
        FileBackend::new(file).map(WrittenFile)
    }
}

impl StorageBackend for WrittenFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.0.len()?;
        self.0.set_len(len)?;
        let zeros = [0; CHUNK];
        while written < len {
            let count = usize::try_from(len - written).map_or(CHUNK, |rest| rest.min(CHUNK));
            self.0.write(written, &zeros[..count])?;
            written += count as u64;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_added_is_zeros_that_have_blocks() {
        let file = tempfile::tempfile().unwrap();
        let written = WrittenFile::new(file.try_clone().unwrap()).unwrap();
        for len in [1, 4096, 3 * CHUNK as u64 + 5] {
            written.set_len(len).unwrap();
            let mut all = vec![1; len as usize];
            written.read(0, &mut all).unwrap();
            assert!(all.iter().all(|byte| *byte == 0));
            written.sync_data().unwrap();
            assert!(file.metadata().unwrap().blocks() * 512 >= len);
        }
        written.write(7, &[9; 8]).unwrap();
        written.set_len(10).unwrap();
        let mut all = [0; 10];
        written.read(0, &mut all).unwrap();
        assert_eq!((written.len().unwrap(), all), (10, [0, 0, 0, 0, 0, 0, 0, 9, 9, 9]));
    }
}
