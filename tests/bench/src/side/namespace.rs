//! Network namespaces, in which the host's stack is ours alone.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, bail};

/// A network namespace with a name. Dropping it takes the name away; the namespace goes when nobody is in it any more.
#[derive(Debug)]
pub struct Namespace(&'static str);

impl Namespace {
    /// Makes it, in place of what a run that was killed has left.
    ///
    /// # Errors
    /// iproute2 is not installed, or the process may not.
    pub fn new(name: &'static str) -> anyhow::Result<Namespace> {
        if ip(&["netns", "add", name]).is_err() {
            let _ = ip(&["netns", "del", name]);
            ip(&["netns", "add", name])?;
        }
        Ok(Namespace(name))
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.0
    }

    /// Runs `ip` there with these words.
    ///
    /// # Errors
    /// As it says.
    pub fn ip(&self, words: &str) -> anyhow::Result<()> {
        let words: Vec<&str> = ["-n", self.0].into_iter().chain(words.split(' ')).collect();
        ip(&words)
    }

    /// Sets something of its stack: `key` is a path below `/proc/sys/net`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set(&self, key: &str, value: &str) -> anyhow::Result<()> {
        ip(&["netns", "exec", self.0, "sh", "-c", &format!("echo {value} >/proc/sys/net/{key}")])
    }

    /// A command that runs `program` there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.0]).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", self.0]);
    }
}

/// Runs `ip` with these words.
///
/// # Errors
/// It is not installed, or says why not.
pub fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words).output().context("iproute2 is not installed")?;
    if !output.status.success() {
        bail!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
