//! Our own programs, built by cargo when a test asks for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Paths of the built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The host daemon.
    pub livepathd: PathBuf,
    /// The command line.
    pub livepath: PathBuf,
    /// The controller.
    pub controller: PathBuf,
    /// The responder, statically linked so that it runs in a guest without a C library.
    pub responder: PathBuf,
}

impl Programs {
    /// Builds what is not up to date. The first time takes minutes; cargo shows its progress.
    ///
    /// # Errors
    /// A build that fails.
    pub fn build() -> Result<Programs> {
        let mut build = cargo()?;
        build.args(["--package", "vmm-glue", "--package", "controller-stub", "--bins"]);
        let built = executables(build)?;
        Ok(Programs {
            livepathd: executable(&built, "livepathd")?,
            livepath: executable(&built, "livepath")?,
            controller: executable(&built, "livepath-controller")?,
            responder: Programs::build_responder()?,
        })
    }

    /// Builds the responder only.
    ///
    /// # Errors
    /// A build that fails.
    pub fn build_responder() -> Result<PathBuf> {
        let mut build = cargo()?;
        // A directory of its own: other flags in the common one would rebuild everything each time.
        build
            .args(["--package", "service-vm", "--bins", "--release", "--target", "x86_64-unknown-linux-gnu"])
            .args(["--target-dir", "target/guest"])
            .env("RUSTFLAGS", "-C target-feature=+crt-static");
        executable(&executables(build)?, "livepath-responder")
    }
}

fn cargo() -> Result<Command> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("no workspace")?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace).args(["build", "--message-format", "json-render-diagnostics"]);
    Ok(command)
}

/// Runs a build and gives the executables it made, by name.
fn executables(mut command: Command) -> Result<BTreeMap<String, PathBuf>> {
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the build of our own programs failed");
    let mut found = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).with_context(|| format!("cargo said {line}"))?;
        if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            found.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    Ok(found)
}

fn executable(built: &BTreeMap<String, PathBuf>, name: &str) -> Result<PathBuf> {
    built.get(name).cloned().with_context(|| format!("cargo built no {name}"))
}
