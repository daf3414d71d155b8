//! A program of ours as a child process with its log in a file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its standard output and error are appended to `log`.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn start(command: &mut Command, log: &Path) -> Result<Process> {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = File::options().append(true).create(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        Ok(Process { name, child, log: log.to_owned() })
    }

    /// What the program has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Checks that the program still runs.
    ///
    /// # Errors
    /// It ended; the message shows its log.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Ended { name: self.name.clone(), status, log: self.log() }.into()),
        }
    }

    /// Ends the program with SIGKILL: no farewell, no clean-up.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Asks the program to end (`SIGTERM`, or `SIGINT` as Ctrl-C does) and waits for it.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn end(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        kill_process(Pid::from_child(&self.child), signal)?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "{} still runs {} s after {signal:?}",
                self.name,
                limit.as_secs()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// CPU time spent so far by all threads of the program, user and system, in steps of 10 ms.
    ///
    /// # Errors
    /// The program is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let ticks = user_and_system_ticks(&stat).with_context(|| format!("odd stat line: {stat}"))?;
        // USER_HZ is 100 on x86-64 whatever the kernel's own tick.
        Ok(Duration::from_millis(ticks * 10))
    }
}

/// A program ended that should not have; [`poll`](crate::poll) does not wait any longer then.
#[derive(Debug)]
pub(crate) struct Ended {
    name: String,
    status: ExitStatus,
    log: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ended by itself ({}):\n{}", self.name, self.status, self.log)
    }
}

impl std::error::Error for Ended {}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody left to tell.
        let _ = self.kill();
    }
}

/// Fields 14 and 15 of `/proc/PID/stat` (proc(5)), counted after the program's name, which may contain anything.
fn user_and_system_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_an_odd_name() {
        let stat = "42 (odd ) name 1) S 1 42 42 0 -1 4194304 600 0 0 0 17 25 3 4 20 0 3 0 1000 1 2";
        assert_eq!(user_and_system_ticks(stat), Some(42));
    }
}
