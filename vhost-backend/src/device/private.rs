//! A connection to the vhost crate that nobody else can make.
//!
//! `VhostUserDaemon` takes its socket from a listener only. The listener here is nameless to the file system and takes one
//! pending connection; ours is made before anyone accepts, and the kernel refuses a connection that does not fit the
//! backlog. So if ours was accepted into it, it is the only one, and the one the daemon gets.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use vhost::vhost_user::Listener;

/// Attempts, each with a name of its own, against someone who connects first.
const ATTEMPTS: usize = 8;

/// Our end, and the listener from which the daemon takes its own.
pub(crate) fn connection() -> io::Result<(UnixStream, Listener)> {
    for _ in 0..ATTEMPTS {
        let listener = stream_socket(SocketFlags::CLOEXEC)?;
        // The kernel chooses an abstract name.
        bind(&listener, &SocketAddrUnix::new_unnamed())?;
        // One more than this may be pending (unix(7), the queue is full when it is longer).
        listen(&listener, 0)?;
        let name = getsockname(&listener)?;
        let stream = stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        match connect(&stream, &name) {
            Ok(()) => return Ok((stream.into(), Listener::from(UnixListener::from(listener)))),
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "others connect to the private socket first"))
}

pub(crate) fn stream_socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn the_listener_gives_our_connection_and_takes_no_other() {
        let (mut ours, listener) = connection().expect("connection");
        let stranger = stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).expect("socket");
        let name = rustix::net::getpeername(ours.as_fd()).expect("bound").expect("name");
        assert_eq!(connect(&stranger, &name), Err(Errno::AGAIN));
        let mut theirs = listener.accept().expect("accepted").expect("pending");
        ours.write_all(b"ours").expect("written");
        let mut bytes = [0; 4];
        theirs.read_exact(&mut bytes).expect("read");
        assert_eq!(&bytes, b"ours");
    }
}
