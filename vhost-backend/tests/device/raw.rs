//! A VMM's side of the protocol as bytes, for what no honest VMM sends.

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub(crate) const GET_FEATURES: u32 = 1;
pub(crate) const SET_FEATURES: u32 = 2;
pub(crate) const SET_OWNER: u32 = 3;
pub(crate) const SET_MEM_TABLE: u32 = 5;
pub(crate) const SET_LOG_BASE: u32 = 6;
pub(crate) const SET_VRING_NUM: u32 = 8;
pub(crate) const GET_VRING_BASE: u32 = 11;
pub(crate) const SET_VRING_KICK: u32 = 12;
pub(crate) const SET_VRING_CALL: u32 = 13;
pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
pub(crate) const SET_VRING_ENABLE: u32 = 18;
pub(crate) const SEND_RARP: u32 = 19;
pub(crate) const NET_SET_MTU: u32 = 20;
pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
pub(crate) const ADD_MEM_REG: u32 = 37;
pub(crate) const NEED_REPLY: u32 = 9;
pub(crate) const NO_REPLY: u32 = 1;

pub(crate) struct Raw(pub(crate) UnixStream);

impl Raw {
    pub(crate) fn connect(path: &Path) -> Raw {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Raw(stream)
    }

    /// With REPLY_ACK and everything else that is offered.
    pub(crate) fn negotiated(path: &Path) -> Raw {
        let mut raw = Raw::connect(path);
        let features = raw.ask(GET_FEATURES, NO_REPLY, &[], &[]);
        let protocol = raw.ask(GET_PROTOCOL_FEATURES, NO_REPLY, &[], &[]);
        raw.send(SET_PROTOCOL_FEATURES, NO_REPLY, &[protocol], &[]);
        assert_eq!(raw.ask(SET_OWNER, NEED_REPLY, &[], &[]), 0);
        assert_eq!(raw.ask(SET_FEATURES, NEED_REPLY, &[features], &[]), 0);
        raw
    }

    pub(crate) fn send(&self, request: u32, flags: u32, words: &[u64], fds: &[BorrowedFd<'_>]) {
        let mut bytes = Vec::new();
        for word in [request, flags, 8 * words.len() as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for word in words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        self.send_bytes(&bytes, fds);
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(250))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        // The other side may have closed already; what matters is what it did.
        let _ = sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
    }

    /// Sends and returns the answer.
    pub(crate) fn ask(&mut self, request: u32, flags: u32, words: &[u64], fds: &[BorrowedFd<'_>]) -> u64 {
        self.send(request, flags, words, fds);
        self.answer(request)
    }

    /// The next answer, which must be to this request and 8 bytes long.
    pub(crate) fn answer(&mut self, request: u32) -> u64 {
        let mut answer = [0; 20];
        self.0
            .read_exact(&mut answer)
            .unwrap_or_else(|error| panic!("no answer to request {request}: {error}"));
        let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(8)), (request, 5, 8));
        u64::from_le_bytes(answer[12..].try_into().unwrap())
    }

    /// Reads until the other side closes.
    pub(crate) fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
        assert_eq!(rest, []);
    }
}
