//! The command line's end of the socket. Blocks; each answer has a deadline.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::{Action, Answer, CaptureRecord, Direction, Flow, Question, Refusal, Request, Status, TraceView};
use crate::daemon::{Entry, Taken};

/// How long a daemon may think about an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a daemon was not asked or did not answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there, or not for this user.
    #[error("cannot reach livepathd at {}; {}", .socket.display(), way_to_reach(.source))]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or the daemon was silent for too long.
    #[error("livepathd did not answer")]
    Broken(#[from] io::Error),
    /// The daemon said something else than was asked: it is of another version.
    #[error("livepathd's answer cannot be understood; use the livepath of its version")]
    Answer(#[source] Option<serde_json::Error>),
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

fn way_to_reach(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "ask as root or as the user it runs as, whose alone the socket is",
        _ => "is it running? name its socket with --admin or LIVEPATH_ADMIN",
    }
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the daemon that listens on `socket`.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let connect = || -> io::Result<UnixStream> {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        match connect() {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(source) => Err(ClientError::Connect { socket: socket.to_owned(), source }),
        }
    }

    /// Everything as it is now.
    ///
    /// # Errors
    /// Any [`ClientError`]; so for every call below.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.ask(Request::Status)? {
            Answer::Status(status) => Ok(*status),
            _ => Err(ClientError::Answer(None)),
        }
    }

    /// Takes a service VM out, or gives it back.
    ///
    /// # Errors
    /// There is no such service, or another [`ClientError`].
    pub fn act(&mut self, service: &str, action: Action) -> Result<(), ClientError> {
        match self.ask(Request::Service { name: service.to_owned(), action })? {
            Answer::Service { .. } => Ok(()),
            _ => Err(ClientError::Answer(None)),
        }
    }

    /// Has the daemon read its file again; gives the file and what came of it.
    ///
    /// # Errors
    /// The file is not taken, and nothing changed; or another [`ClientError`].
    pub fn reload(&mut self) -> Result<(PathBuf, Taken), ClientError> {
        match self.ask(Request::Reload)? {
            Answer::Reloaded { file, taken } => Ok((file, taken)),
            _ => Err(ClientError::Answer(None)),
        }
    }

    /// What becomes of a flow that comes from a port.
    ///
    /// # Errors
    /// There is no such port, or no tenant behind it, or another [`ClientError`].
    pub fn trace(&mut self, from: &str, flow: Flow) -> Result<TraceView, ClientError> {
        match self.ask(Request::Trace { from: from.to_owned(), flow })? {
            Answer::Trace(view) => Ok(*view),
            _ => Err(ClientError::Answer(None)),
        }
    }

    /// The history above `since`.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub fn events(&mut self, since: u64) -> Result<Vec<Entry>, ClientError> {
        match self.ask(Request::Events { since, follow: false })? {
            Answer::Events { events } => Ok(events),
            _ => Err(ClientError::Answer(None)),
        }
    }

    /// Hands the history above `since` to `each`, then what happens, until `each` says false or the daemon ends.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub fn follow(mut self, since: u64, mut each: impl FnMut(Entry) -> bool) -> Result<(), ClientError> {
        self.send(Request::Events { since, follow: true })?;
        self.stream.get_ref().set_read_timeout(None)?;
        while let Some(answer) = self.receive()? {
            let Answer::Events { events } = answer else { return Err(ClientError::Answer(None)) };
            if !events.into_iter().all(&mut each) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Starts a copy of a port's frames; gives the bytes kept of each and the records.
    ///
    /// # Errors
    /// There is no such port, or another [`ClientError`].
    pub fn capture(
        mut self,
        port: &str,
        direction: Option<Direction>,
    ) -> Result<(u32, Capture), ClientError> {
        match self.ask(Request::Capture { port: port.to_owned(), direction })? {
            Answer::Capture { snaplen } => {
                self.stream.get_ref().set_read_timeout(None)?;
                Ok((snaplen, Capture { stream: self.stream }))
            }
            _ => Err(ClientError::Answer(None)),
        }
    }

    fn ask(&mut self, request: Request) -> Result<Answer, ClientError> {
        self.send(request)?;
        match self.receive()? {
            Some(Answer::Refused(refusal)) => Err(refusal.into()),
            Some(answer) => Ok(answer),
            None => Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn send(&mut self, request: Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(&Question::new(request)).map_err(io::Error::from)?;
        line.push(b'\n');
        Ok(self.stream.get_mut().write_all(&line)?)
    }

    fn receive(&mut self) -> Result<Option<Answer>, ClientError> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).map_err(|error| ClientError::Answer(Some(error)))
    }
}

/// The frames of a port as they pass.
#[derive(Debug)]
pub struct Capture {
    stream: BufReader<UnixStream>,
}

impl Capture {
    /// The connection, for waiting on it and for closing it from another thread.
    #[must_use]
    pub fn connection(&self) -> &UnixStream {
        self.stream.get_ref()
    }

    /// The next frame; `None` when the daemon ended the capture.
    ///
    /// # Errors
    /// The connection broke.
    pub fn next(&mut self) -> Result<Option<CaptureRecord>, ClientError> {
        Ok(CaptureRecord::read(&mut self.stream)?)
    }
}
