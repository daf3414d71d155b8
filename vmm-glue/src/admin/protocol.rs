//! What can be asked of a daemon, and what it answers.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Flow, Status, TraceView};
use crate::daemon::{Entry, Taken};

/// Version of the protocol. A daemon refuses a question of another one.
pub const VERSION: u32 = 1;

/// Longest question, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// One line to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// [`VERSION`].
    pub v: u32,
    /// What is asked.
    #[serde(flatten)]
    pub request: Request,
}

impl Question {
    /// The request in this version's words.
    #[must_use]
    pub fn new(request: Request) -> Self {
        Self { v: VERSION, request }
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Everything as it is now.
    Status,
    /// Take a service VM out, or give it back.
    Service {
        /// Its port's name.
        name: String,
        /// What to do.
        action: Action,
    },
    /// The history.
    Events {
        /// Only what has a larger id.
        #[serde(default)]
        since: u64,
        /// Then what happens from now on, as it happens.
        #[serde(default)]
        follow: bool,
    },
    /// Read the configuration file again.
    Reload,
    /// What becomes of a flow.
    Trace {
        /// The port it comes from.
        from: String,
        /// The flow.
        flow: Flow,
    },
    /// A copy of a port's frames.
    Capture {
        /// Its name.
        port: String,
        /// One way only.
        #[serde(default)]
        direction: Option<Direction>,
    },
}

/// What an operator does to a service VM on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// No tenant traffic goes there any more, and what it still returns is discarded.
    Fail,
    /// No new tenant traffic goes there, and what it has been handed goes on; it is not called failed.
    Maintain,
    /// It may come back, once it answers.
    Restore,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fail => "fail",
            Self::Maintain => "maintain",
            Self::Restore => "restore",
        })
    }
}

/// Which way a frame passed, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Handed to the guest.
    Rx,
    /// Taken from the guest.
    Tx,
}

/// One line from the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Service`]: the order is given to the datapath.
    Service {
        /// The service.
        name: String,
        /// What is done.
        action: Action,
    },
    /// To [`Request::Events`]; more of them follow if that was asked.
    Events {
        /// In the order of their ids.
        events: Vec<Entry>,
    },
    /// To [`Request::Reload`]: the file is in force.
    Reloaded {
        /// The file.
        file: PathBuf,
        /// What came of it.
        #[serde(flatten)]
        taken: Taken,
    },
    /// To [`Request::Trace`].
    Trace(Box<TraceView>),
    /// To [`Request::Capture`]: records follow instead of lines.
    Capture {
        /// Bytes kept of each frame.
        snaplen: u32,
    },
    /// To anything that is not done.
    Refused(Refusal),
}

/// Why something is not done, and what would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct Refusal {
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

impl Refusal {
    pub(crate) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}
