//! vhost-user messages byte by byte, for what `vhost::vhost_user::Frontend` will not send.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const VERSION: u32 = 1;
const FLAG_REPLY: u32 = 4;
const FLAG_NEED_REPLY: u32 = 8;
/// Descriptors that one message can carry here; vhost-user needs 8 at most.
pub const MAX_FDS: usize = 28;
/// Longest body accepted from a backend.
const MAX_BODY: usize = 4096;

/// A vhost-user message as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Request number, e.g. 1 for GET_FEATURES.
    pub request: u32,
    /// Version (bits 0–1), reply (bit 2), need-reply (bit 3).
    pub flags: u32,
    /// Everything after the 12-byte header.
    pub body: Vec<u8>,
}

impl Message {
    /// The first eight bytes of the body as a number: features, acknowledgements (0 = success).
    pub fn value(&self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.body.first_chunk()?))
    }

    /// True if this is a reply.
    pub fn is_reply(&self) -> bool {
        self.flags & FLAG_REPLY != 0
    }
}

/// One end of a vhost-user socket on which any bytes can be sent.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
}

impl Wire {
    /// Connects to a backend without negotiating anything.
    pub fn connect(socket: &Path) -> io::Result<Wire> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(Wire { stream })
    }

    pub(crate) fn from_stream(stream: UnixStream) -> Wire {
        Wire { stream }
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends a well-formed message with any request number, body and descriptors.
    pub fn send(
        &self,
        request: u32,
        need_reply: bool,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let flags = VERSION | if need_reply { FLAG_NEED_REPLY } else { 0 };
        let mut bytes = Vec::with_capacity(12 + body.len());
        bytes.extend_from_slice(&request.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(body);
        self.send_bytes(&bytes, fds)
    }

    /// Sends bytes as they are, with at most [`MAX_FDS`] descriptors attached to the first of them.
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds));
        if fds.len() > MAX_FDS || !fits {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("more than {MAX_FDS} descriptors"),
            ));
        }
        let mut sent = 0;
        while sent < bytes.len() {
            let part = [IoSlice::new(&bytes[sent..])];
            sent += sendmsg(self.stream.as_fd(), &part, &mut control, SendFlags::NOSIGNAL)?;
            control.clear();
        }
        Ok(())
    }

    /// Waits for one message of the backend. Descriptors attached to it are dropped.
    pub fn receive(&self) -> io::Result<Message> {
        let mut header = [0; 12];
        (&self.stream).read_exact(&mut header)?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let len = word(8) as usize;
        if len > MAX_BODY {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a body of {len} bytes")));
        }
        let mut body = vec![0; len];
        (&self.stream).read_exact(&mut body)?;
        Ok(Message { request: word(0), flags: word(4), body })
    }

    /// Sends a request and waits for the reply to it (or, with `need_reply`, for the acknowledgement).
    pub fn request(
        &self,
        request: u32,
        need_reply: bool,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Message> {
        self.send(request, need_reply, body, fds)?;
        let reply = self.receive()?;
        if reply.request == request && reply.is_reply() {
            return Ok(reply);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not the reply to request {request}: {reply:?}"),
        ))
    }
}
