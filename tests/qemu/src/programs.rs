//! Our own programs, built by cargo when a test asks for them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use qemu_vm::{GuestPrograms, built};

/// Paths of the built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The host daemon.
    pub livepathd: PathBuf,
    /// The command line.
    pub livepath: PathBuf,
    /// The controller.
    pub controller: PathBuf,
    /// The responder for guests.
    pub responder: PathBuf,
    /// What tenants in guests send and count.
    pub traffic: PathBuf,
}

impl Programs {
    /// Builds what is not up to date. The first time takes minutes; cargo shows its progress.
    ///
    /// # Errors
    /// A build that fails.
    pub fn build() -> Result<Programs> {
        let mut built = built(&["--package", "vmm-glue", "--package", "controller-stub", "--bins"])?;
        let mut take = |name: &str| built.remove(name).with_context(|| format!("cargo built no {name}"));
        let GuestPrograms { responder, traffic } = GuestPrograms::build()?;
        Ok(Programs {
            livepathd: take("livepathd")?,
            livepath: take("livepath")?,
            controller: take("livepath-controller")?,
            responder,
            traffic,
        })
    }
}
