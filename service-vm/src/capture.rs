//! The tap's copy of the traffic: a pcap stream on standard output.
//!
//! A reader that is slow or gone never holds the service up: frames it has no room for are left out and counted.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Bytes that wait for the reader.
const PENDING_MAX: usize = 4 << 20;
/// A pipe that is writable takes this many bytes without blocking (pipe(7), PIPE_BUF).
const WRITE_MAX: usize = 4096;
const LINKTYPE_ETHERNET: u32 = 1;
/// Longest frame a record may hold.
const SNAP_LEN: u32 = 1 << 18;

/// A pcap stream of inner frames.
pub(crate) struct Capture<W> {
    out: W,
    pending: Vec<u8>,
    /// Of `pending`, what is written already.
    written: usize,
    /// The reader is gone.
    closed: bool,
    left_out: u64,
}

impl<W: Write + AsFd> Capture<W> {
    pub(crate) fn new(out: W) -> Capture<W> {
        let mut pending = Vec::with_capacity(PENDING_MAX);
        for word in [0xA1B2_3C4D, 2 | 4 << 16, 0, 0, SNAP_LEN, LINKTYPE_ETHERNET] {
            pending.extend(u32::to_le_bytes(word));
        }
        Capture { out, pending, written: 0, closed: false, left_out: 0 }
    }

    /// Takes a copy of the frame, if there is room for it.
    pub(crate) fn record(&mut self, at: SystemTime, frame: &[u8]) {
        if self.closed || self.pending.len() + 16 + frame.len() > PENDING_MAX {
            self.left_out += 1;
            return;
        }
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let len = frame.len() as u32;
        for word in [since_epoch.as_secs() as u32, since_epoch.subsec_nanos(), len, len] {
            self.pending.extend(word.to_le_bytes());
        }
        self.pending.extend_from_slice(frame);
    }

    /// Writes what the reader takes without blocking.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.is_pending() && self.is_writable()? {
            let rest = self.pending.get(self.written..).unwrap_or_default();
            match self.out.write(rest.get(..WRITE_MAX).unwrap_or(rest)) {
                Ok(0) => return self.close(io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.written += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return self.close(error),
            }
        }
        if !self.is_pending() {
            self.pending.clear();
            self.written = 0;
        } else if self.written > PENDING_MAX / 2 {
            self.pending.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Whether bytes wait for the reader.
    pub(crate) fn is_pending(&self) -> bool {
        !self.closed && self.written < self.pending.len()
    }

    /// Where the bytes go.
    pub(crate) fn out(&self) -> &W {
        &self.out
    }

    /// Frames there was no room or no reader for.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }

    fn is_writable(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.out, PollFlags::OUT)];
        Ok(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
    }

    fn close(&mut self, error: io::Error) -> io::Result<()> {
        self.closed = true;
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, PipeWriter, Read, pipe};
    use std::time::Duration;

    use super::*;

    fn capture() -> (PipeReader, Capture<PipeWriter>) {
        let (reader, writer) = pipe().unwrap();
        (reader, Capture::new(writer))
    }

    #[test]
    fn the_stream_is_pcap() {
        let mut file = tempfile();
        let mut capture = Capture::new(file.try_clone().unwrap());
        capture.record(UNIX_EPOCH + Duration::new(5, 7), b"frame");
        capture.flush().unwrap();
        assert!(!capture.is_pending());
        let mut bytes = Vec::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let header = [0x4D, 0x3C, 0xB2, 0xA1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
        let record = [5, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0, 5, 0, 0, 0];
        assert_eq!(bytes, [&header[..], &record, b"frame"].concat());
    }

    /// A file without a name.
    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("livepath-capture-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn a_slow_reader_costs_frames_not_time() {
        let (mut reader, mut capture) = capture();
        let frame = [0; 60_000];
        for _ in 0..1000 {
            capture.record(UNIX_EPOCH, &frame);
            capture.flush().unwrap();
        }
        assert!(capture.left_out() > 900 && capture.is_pending());
        let kept = 1000 - capture.left_out();
        let thread = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes.len() as u64
        });
        while capture.is_pending() {
            capture.flush().unwrap();
            std::thread::yield_now();
        }
        drop(capture);
        assert_eq!(thread.join().unwrap(), 24 + kept * (16 + 60_000), "whole records only");
    }

    #[test]
    fn a_reader_that_is_gone_is_noticed_once() {
        let (reader, mut capture) = capture();
        drop(reader);
        assert_eq!(capture.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        capture.record(UNIX_EPOCH, b"frame");
        capture.flush().unwrap();
        assert_eq!((capture.left_out(), capture.is_pending()), (1, false));
    }
}
