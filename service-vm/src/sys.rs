//! The system calls that take pointers: packet sockets in batches, interface flags and MTU, signals as a file.
//!
//! Everything else of this program is safe code; every pointer below points to a local or to a slice that outlives
//! the call it is passed to.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Frames received or sent with one system call, at most.
pub(crate) const BATCH: usize = 32;
/// Room for one frame in bytes: a 64 KiB IP packet in tagged Ethernet behind the longest NSH, in whole pages.
pub(crate) const FRAME_MAX: usize = 68 * 1024;

/// Lets the socket receive frames of one ethertype from one interface, which must exist.
pub(crate) fn bind(socket: BorrowedFd<'_>, ifindex: u32, ethertype: u16) -> io::Result<()> {
    let mut address = link_address();
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` is a live sockaddr_ll of `len` bytes; the kernel only reads it.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
}

/// The Ethernet address of the interface the socket is bound to; `None` if it is not an Ethernet interface.
pub(crate) fn ethernet_address(socket: BorrowedFd<'_>) -> io::Result<Option<[u8; 6]>> {
    let mut address = link_address();
    let mut len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` has room for `len` bytes, and any bytes are a valid sockaddr_ll.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut len) })?;
    let ethernet = address.sll_hatype == libc::ARPHRD_ETHER && address.sll_halen == 6;
    Ok(address.sll_addr.first_chunk().copied().filter(|_| ethernet))
}

fn link_address() -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll is made of integers, so all zero is a value of it.
    unsafe { mem::zeroed() }
}

/// Receives what is there, at most [`BATCH`] frames: frame `i` begins at `i * FRAME_MAX` of `slab` and is `lens[i]`
/// bytes long; a length above [`FRAME_MAX`] means the frame was longer than its room and is cut. Gives the number of
/// frames; [`io::ErrorKind::WouldBlock`] if there is none.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    slab: &mut [u8],
    lens: &mut [usize; BATCH],
) -> io::Result<usize> {
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    let rooms = slab.chunks_exact_mut(FRAME_MAX).zip(&mut parts);
    let count = rooms
        .map(|(room, part)| (part.iov_base, part.iov_len) = (room.as_mut_ptr().cast(), room.len()))
        .count();
    let mut messages = one_part_each(&mut parts);
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: the first `count` messages each point to one live iovec, which points to `iov_len` writable bytes of
    // `slab`; the rooms do not overlap; all other pointers are null with length 0, and nothing else is written to.
    let received = check(unsafe {
        libc::recvmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count as u32, flags, ptr::null_mut())
    })?;
    for (len, message) in lens.iter_mut().zip(&messages) {
        *len = message.msg_len as usize;
    }
    Ok(received as usize)
}

/// Sends the frames in order, at most [`BATCH`], without blocking. Gives how many were taken, at least one; the error
/// is the first frame's.
pub(crate) fn send(socket: BorrowedFd<'_>, frames: &[&[u8]]) -> io::Result<usize> {
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    let filled = frames.iter().zip(&mut parts);
    let count = filled
        .map(|(frame, part)| (part.iov_base, part.iov_len) = (frame.as_ptr().cast_mut().cast(), frame.len()))
        .count();
    let mut messages = one_part_each(&mut parts);
    // SAFETY: the first `count` messages each point to one live iovec, which points to `iov_len` readable bytes of a
    // frame; sending does not write through them.
    let sent = check(unsafe {
        libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT)
    })?;
    Ok(sent as usize)
}

/// Messages without address and control data; message `i` points to `parts[i]`, so `parts` must outlive their use.
fn one_part_each(parts: &mut [libc::iovec; BATCH]) -> [libc::mmsghdr; BATCH] {
    // SAFETY: mmsghdr is made of integers and raw pointers, so all zero is a value of it.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    for (message, part) in messages.iter_mut().zip(parts) {
        message.msg_hdr.msg_iov = part;
        message.msg_hdr.msg_iovlen = 1;
    }
    messages
}

/// Whether the interface is up, as it was set.
pub(crate) fn is_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    Ok(flags(socket, name)? & libc::IFF_UP as libc::c_short != 0)
}

/// Brings the interface up.
pub(crate) fn bring_up(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let up = flags(socket, name)? | libc::IFF_UP as libc::c_short;
    let request = libc::ifreq { ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: up }, ..request(name)? };
    interface_call(socket, libc::SIOCSIFFLAGS, request).map(drop)
}

fn flags(socket: BorrowedFd<'_>, name: &str) -> io::Result<libc::c_short> {
    let answer = interface_call(socket, libc::SIOCGIFFLAGS, request(name)?)?;
    // SAFETY: SIOCGIFFLAGS has filled in `ifru_flags`, and any bytes are a valid c_short.
    Ok(unsafe { answer.ifr_ifru.ifru_flags })
}

/// The interface's MTU in bytes.
pub(crate) fn mtu(socket: BorrowedFd<'_>, name: &str) -> io::Result<i32> {
    let answer = interface_call(socket, libc::SIOCGIFMTU, request(name)?)?;
    // SAFETY: SIOCGIFMTU has filled in `ifru_mtu`, and any bytes are a valid c_int.
    Ok(unsafe { answer.ifr_ifru.ifru_mtu })
}

/// Sets the interface's MTU in bytes.
pub(crate) fn set_mtu(socket: BorrowedFd<'_>, name: &str, mtu: i32) -> io::Result<()> {
    let request = libc::ifreq { ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: mtu }, ..request(name)? };
    interface_call(socket, libc::SIOCSIFMTU, request).map(drop)
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is made of integers and raw pointers, so all zero is a value of it.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Only for the calls above, which read and write an ifreq and nothing it points to.
fn interface_call(
    socket: BorrowedFd<'_>,
    call: libc::c_ulong,
    mut request: libc::ifreq,
) -> io::Result<libc::ifreq> {
    // SAFETY: `request` is a live ifreq with a name that ends in NUL; the calls used touch nothing else.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), call as _, &raw mut request) })?;
    Ok(request)
}

/// SIGTERM and SIGINT as a file that becomes readable, instead of killing the process. Call it before any thread is
/// started.
pub(crate) fn termination_signals() -> io::Result<OwnedFd> {
    let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `signals` has room for a sigset_t; the call initialises it.
    check(unsafe { libc::sigemptyset(signals.as_mut_ptr()) })?;
    // SAFETY: sigemptyset has succeeded, so it is initialised.
    let mut signals = unsafe { signals.assume_init() };
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: `signals` is an initialised sigset_t.
        check(unsafe { libc::sigaddset(&raw mut signals, signal) })?;
    }
    // SAFETY: `signals` is an initialised sigset_t that is only read; no old set is asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, ptr::null_mut()) })?;
    // SAFETY: `signals` is an initialised sigset_t that is only read.
    let fd =
        check(unsafe { libc::signalfd(-1, &raw const signals, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) })?;
    // SAFETY: the descriptor was just made for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
