//! What a descriptor from a front-end is, found out without reading from it or writing to it.

use super::filter::Descriptor;
use super::memory::Backing;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat, readlink};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd};

/// The kind of a descriptor; [`Descriptor::Other`] also when the system does not say.
pub(crate) fn kind(fd: &OwnedFd) -> Descriptor {
    if is_event(fd) {
        return Descriptor::Event;
    }
    let Ok(stat) = fstat(fd) else { return Descriptor::Other };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let writable = fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR);
            let len = u64::try_from(stat.st_size).unwrap_or(0);
            Descriptor::File(Backing { len, writable, identity: (stat.st_dev, stat.st_ino) })
        }
        FileType::Fifo | FileType::Socket => Descriptor::Stream,
        _ => Descriptor::Other,
    }
}

/// Makes an eventfd safe to use: a worker that signals a full one, or reads an empty one, must not sleep in it.
pub(crate) fn prepare(fd: &OwnedFd) -> Result<(), Errno> {
    if !is_event(fd) {
        return Ok(());
    }
    let flags = fcntl_getfl(fd)?;
    if flags.contains(OFlags::NONBLOCK) {
        return Ok(());
    }
    fcntl_setfl(fd, flags | OFlags::NONBLOCK)
}

/// eventfds have no file type of their own; the kernel names them in /proc. No file can have this name, since paths begin
/// with a slash.
fn is_event(fd: &OwnedFd) -> bool {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    readlink(path, Vec::new()).is_ok_and(|name| name.as_bytes() == b"anon_inode:[eventfd]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::fs::File;

    #[test]
    fn each_kind_is_told_apart() {
        let memory = memfd_create("memory", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&memory, 8192).expect("size");
        let (reader, _writer) = std::io::pipe().expect("pipe");
        let (socket, _) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .expect("socket pair");
        let timer = rustix::time::timerfd_create(
            rustix::time::TimerfdClockId::Monotonic,
            rustix::time::TimerfdFlags::CLOEXEC,
        );
        assert_eq!(kind(&eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd")), Descriptor::Event);
        assert!(matches!(kind(&memory), Descriptor::File(Backing { len: 8192, writable: true, .. })));
        assert_eq!(kind(&reader.into()), Descriptor::Stream);
        assert_eq!(kind(&socket), Descriptor::Stream);
        assert_eq!(kind(&timer.expect("timerfd")), Descriptor::Other);
        assert_eq!(kind(&File::open("/dev/null").expect("device").into()), Descriptor::Other);
    }

    #[test]
    fn a_file_open_for_reading_is_not_writable() {
        let path = tempfile::NamedTempFile::new().expect("file");
        let file = File::open(path.path()).expect("open");
        assert!(matches!(kind(&file.into()), Descriptor::File(Backing { len: 0, writable: false, .. })));
    }

    #[test]
    fn a_blocking_eventfd_stops_blocking() {
        let event = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
        prepare(&event).expect("prepared");
        assert_eq!(rustix::io::read(&event, &mut [0; 8]), Err(Errno::AGAIN));
    }
}
