//! The admin socket in the control loop. Nothing here blocks, and what one client can take is bounded.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use vhost_backend::telemetry::SNAPLEN;

use super::connection::{Connection, Heard};
use super::{Answer, Question, Refusal, Request, VERSION, stream};
use crate::daemon::Shared;

/// Connections at a time; one more is closed at once.
const MAX_CONNECTIONS: usize = 64;
/// Events in one line.
const EVENTS_A_LINE: usize = 256;

/// The socket and everyone connected to it.
#[derive(Debug)]
pub(crate) struct AdminServer {
    listener: UnixListener,
    path: PathBuf,
    connections: BTreeMap<RawFd, Connection>,
    shared: Arc<Shared>,
}

/// Listens on `path`, mode 0600. A socket that nobody listens on any more is replaced.
///
/// # Errors
/// Another daemon listens there, or the socket cannot be made.
pub(crate) fn listen_on(path: &Path) -> io::Result<UnixListener> {
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another livepathd listens on it")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Before anyone can connect.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listen(&socket, 16)?;
    Ok(UnixListener::from(socket))
}

impl AdminServer {
    pub(crate) fn new(listener: UnixListener, path: PathBuf, shared: Arc<Shared>) -> Self {
        Self { listener, path, connections: BTreeMap::new(), shared }
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() >= MAX_CONNECTIONS {
                log::warn!(limit = MAX_CONNECTIONS; "too many connections on the admin socket");
                continue;
            }
            let fd = stream.as_raw_fd();
            if let Ok(connection) = Connection::new(stream)
                && ops.add(Events::new(connection.stream(), EventSet::IN)).is_ok()
            {
                self.connections.insert(fd, connection);
            }
        }
    }

    fn serve(&mut self, fd: RawFd, ops: &mut EventOps<'_>) {
        let Some(connection) = self.connections.get_mut(&fd) else { return };
        let Heard::Lines(lines) = connection.hear() else { return self.close(fd, ops) };
        for line in lines {
            let Some(connection) = self.connections.get_mut(&fd) else { return };
            match serde_json::from_slice::<Question>(&line) {
                Ok(Question { v: VERSION, request: Request::Capture { port, direction } }) => {
                    if let Err(refusal) = self.capture(fd, &port, direction, ops) {
                        self.answer(fd, &Answer::Refused(refusal));
                    }
                }
                Ok(Question { v: VERSION, request: Request::Events { since, follow } }) => {
                    if follow {
                        connection.follows = Some(since);
                    } else {
                        let events = self.shared.events_after(since, usize::MAX);
                        self.answer(fd, &Answer::Events { events });
                    }
                }
                Ok(Question { v: VERSION, request }) => {
                    let answer = self.shared.answer(request);
                    self.answer(fd, &answer);
                }
                Ok(Question { v, .. }) => {
                    let problem = format!("this livepathd speaks version {VERSION} of the protocol, not {v}");
                    self.answer(
                        fd,
                        &Answer::Refused(Refusal::new(problem, "use the livepath of its version")),
                    );
                }
                Err(error) => {
                    let problem = format!("not understood: {error}");
                    let remedy = "send {\"v\":1,\"request\":\"status\"} or another request as one line";
                    self.answer(fd, &Answer::Refused(Refusal::new(problem, remedy)));
                }
            }
        }
        self.write(fd, ops);
    }

    fn answer(&mut self, fd: RawFd, answer: &Answer) {
        let Some(connection) = self.connections.get_mut(&fd) else { return };
        match serde_json::to_vec(answer) {
            Ok(line) => connection.say(&line),
            Err(error) => log::error!(error:%; "an answer cannot be written"),
        }
    }

    /// Hands the connection to a thread that copies the port's frames to it.
    fn capture(
        &mut self,
        fd: RawFd,
        port: &str,
        direction: Option<super::Direction>,
        ops: &mut EventOps<'_>,
    ) -> Result<(), Refusal> {
        let id = self.shared.host.port(port).ok_or_else(|| self.shared.no_port(port))?;
        let frames = self.shared.host.capture(id).ok_or_else(|| self.shared.no_port(port))?;
        self.answer(fd, &Answer::Capture { snaplen: u32::try_from(SNAPLEN).unwrap_or(u32::MAX) });
        let Some(connection) = self.connections.remove(&fd) else { return Ok(()) };
        let _ = ops.remove(Events::empty(connection.stream()));
        let (connection, pending) = connection.into_parts();
        if let Err(error) = stream(connection, pending, frames, direction, &self.shared) {
            log::error!(port, error:%; "no thread for a capture");
        }
        Ok(())
    }

    /// Sends what waits and, to followers, what happened since; waits for room only while it is needed.
    fn write(&mut self, fd: RawFd, ops: &mut EventOps<'_>) {
        let Some(connection) = self.connections.get_mut(&fd) else { return };
        let mut alive = connection.flush();
        while let Some(since) = connection.follows.filter(|_| alive && connection.has_room()) {
            let events = self.shared.events_after(since, EVENTS_A_LINE);
            let Some(newest) = events.last().map(|event| event.id) else { break };
            connection.follows = Some(newest);
            if let Ok(line) = serde_json::to_vec(&Answer::Events { events }) {
                connection.say(&line);
            }
            alive = connection.flush();
        }
        let wanted = if connection.is_behind() { EventSet::IN | EventSet::OUT } else { EventSet::IN };
        if !alive || ops.modify(Events::new(connection.stream(), wanted)).is_err() {
            self.close(fd, ops);
        }
    }

    fn close(&mut self, fd: RawFd, ops: &mut EventOps<'_>) {
        if let Some(connection) = self.connections.remove(&fd) {
            let _ = ops.remove(Events::empty(connection.stream()));
        }
    }
}

impl MutEventSubscriber for AdminServer {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let (fd, set) = (events.fd(), events.event_set());
        if fd == self.listener.as_raw_fd() {
            self.accept(ops);
        } else if fd == self.shared.bell.as_raw_fd() {
            let _ = self.shared.bell.read();
            let followers: Vec<RawFd> =
                self.connections.iter().filter(|(_, one)| one.follows.is_some()).map(|(fd, _)| *fd).collect();
            for fd in followers {
                self.write(fd, ops);
            }
        } else if set.contains(EventSet::IN) {
            self.serve(fd, ops);
        } else if set.contains(EventSet::OUT) {
            self.write(fd, ops);
        } else {
            self.close(fd, ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for events in
            [Events::new(&self.listener, EventSet::IN), Events::new(&self.shared.bell, EventSet::IN)]
        {
            if let Err(error) = ops.add(events) {
                log::error!(error:%; "the admin socket is not served");
            }
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
