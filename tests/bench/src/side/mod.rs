//! What is measured: a forwarder of ours or of somebody else on one core, and the line attached to it.

pub mod livepathd;
mod namespace;
pub mod ovs;
mod process;
pub mod testpmd;

pub use namespace::{Namespace, ip};
pub use process::{Process, find, prefer};

use tempfile::TempDir;

use crate::line::Line;

/// Where things run and what they run on.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The core of the forwarder; the generator has another one.
    pub core: usize,
    /// All cores there are, the forwarder's first and the generator's last.
    pub cores: Vec<usize>,
    /// Pages of 2 MiB are there.
    pub huge_pages: bool,
    /// The daemon under test.
    pub livepathd: std::path::PathBuf,
}

/// A forwarder with its line.
#[derive(Debug)]
pub struct Side {
    /// Who it is, in figures.
    pub name: String,
    /// VMs on its sockets. Before the processes, so that they see them go.
    pub line: Line,
    processes: Vec<Process>,
    _folder: TempDir,
}

impl Side {
    /// A running forwarder, whose last process is the one that forwards.
    pub fn new(name: &str, line: Line, processes: Vec<Process>, folder: TempDir) -> Side {
        processes.iter().for_each(Process::prefer);
        Side { name: name.to_owned(), line, processes, _folder: folder }
    }

    /// Leaves the core to somebody else.
    ///
    /// # Errors
    /// The forwarder is gone.
    pub fn halt(&self) -> anyhow::Result<()> {
        self.processes.iter().rev().try_for_each(Process::halt)
    }

    /// Takes the core.
    ///
    /// # Errors
    /// The forwarder is gone.
    pub fn go_on(&self) -> anyhow::Result<()> {
        self.processes.iter().try_for_each(Process::go_on)
    }

    /// Ends the process that forwards; what it printed.
    pub fn end(&mut self) -> Option<String> {
        self.processes.last_mut()?.end()
    }

    /// The process that forwards.
    pub fn process(&self) -> Option<&Process> {
        self.processes.last()
    }
}
