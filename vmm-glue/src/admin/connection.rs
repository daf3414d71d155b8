//! One connection of the admin socket: bounded buffers on a socket that never blocks.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use super::MAX_LINE;

/// Answers that may wait for a slow reader, in bytes; it is cut off above.
const MAX_WAITING: usize = 8 << 20;
/// Above this a follower waits in the history instead of in memory.
const FULL: usize = 256 << 10;

/// What is read and not answered, answered and not written.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    read: Vec<u8>,
    waiting: Vec<u8>,
    /// Id of the last event sent to one that follows.
    pub(super) follows: Option<u64>,
}

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Whole lines, perhaps none.
    Lines(Vec<Vec<u8>>),
    /// The other side is done, or sends what no line is that long.
    End,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, read: Vec::new(), waiting: Vec::new(), follows: None })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads what is there.
    pub(super) fn hear(&mut self) -> Heard {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Heard::End,
                Ok(count) => self.read.extend(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Heard::End,
            }
            if self.read.len() > MAX_LINE {
                break;
            }
        }
        let mut lines = Vec::new();
        while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
            let rest = self.read.split_off(end + 1);
            lines.push(std::mem::replace(&mut self.read, rest));
        }
        if self.read.len() > MAX_LINE { Heard::End } else { Heard::Lines(lines) }
    }

    /// Adds a line to what waits.
    pub(super) fn say(&mut self, line: &[u8]) {
        self.waiting.extend(line);
        self.waiting.push(b'\n');
    }

    /// Writes what fits. False when there is nobody to write to, or nobody who reads.
    pub(super) fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match self.stream.write(&self.waiting) {
                Ok(0) => return false,
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.waiting.len() <= MAX_WAITING
    }

    /// Something waits to be written.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// There is room for more events.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < FULL
    }

    /// The socket and what was not written to it.
    pub(super) fn into_parts(self) -> (UnixStream, Vec<u8>) {
        (self.stream, self.waiting)
    }
}
