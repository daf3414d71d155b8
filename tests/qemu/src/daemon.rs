//! `livepathd` with a file of the test's own, and `livepath` to ask it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{Process, Programs, Status, poll};

/// How long it may take until it answers: many times what it takes.
const START: Duration = Duration::from_secs(60);

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    livepath: PathBuf,
    admin: PathBuf,
}

impl Daemon {
    /// Starts host 1, `host-a`, with what else its file has: `rest` goes on with the keys of `[host]`. Its admin socket, its
    /// file and its log are in `directory`. Returns when it takes commands.
    ///
    /// # Errors
    /// It does not start; the message shows its log.
    pub fn start(programs: &Programs, directory: &Path, rest: &str) -> Result<Daemon> {
        let admin = directory.join("admin.sock");
        let text = format!("[host]\nid = 1\nname = \"host-a\"\nadmin = \"{}\"\n{rest}", admin.display());
        let file = directory.join("livepathd.toml");
        std::fs::write(&file, text)?;
        let mut command = Command::new(&programs.livepathd);
        command.arg("--config").arg(file).env("RUST_LOG", "info");
        let process = Process::start(&mut command, &directory.join("livepathd.log"))?;
        let mut daemon = Daemon { process, livepath: programs.livepath.clone(), admin };
        poll("livepathd takes commands", START, || {
            daemon.alive()?;
            daemon.status()
        })?;
        Ok(daemon)
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    /// It ended; the message shows its log.
    pub fn alive(&mut self) -> Result<()> {
        self.process.alive()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// `livepath` for this daemon, without arguments.
    pub fn livepath(&self) -> Command {
        let mut command = Command::new(&self.livepath);
        command.env("LIVEPATH_ADMIN", &self.admin);
        command
    }

    /// What `livepath status --json` says.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn status(&self) -> Result<Status> {
        let output = self.livepath().args(["status", "--json"]).output()?;
        ensure!(output.status.success(), "livepath status: {}", String::from_utf8_lossy(&output.stderr));
        Status::parse(&String::from_utf8_lossy(&output.stdout))
    }
}
