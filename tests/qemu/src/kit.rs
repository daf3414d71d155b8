//! What this machine has to run guests with.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::initramfs;

/// The programs and files a guest is made of. None of them is ours; `tests/run` installs or fetches them.
#[derive(Clone, Debug)]
pub struct Kit {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
    /// A Linux boot image (bzImage).
    pub kernel: PathBuf,
    /// Directory of that kernel's modules as plain `.ko` files.
    pub modules: PathBuf,
    /// `tshark`, which checks captures with somebody else's idea of NSH.
    pub tshark: PathBuf,
}

impl Kit {
    /// Looks in `PATH`, and for the kernel in `$LIVEPATH_GUEST_KERNEL` or `tests/qemu/cache`: a directory with `vmlinuz`
    /// and `modules/*.ko`.
    ///
    /// # Errors
    /// The list of what is not there.
    pub fn find() -> Result<Kit, Missing> {
        let mut missing = Vec::new();
        let mut program = |name: &str| {
            in_path(name).unwrap_or_else(|| {
                missing.push(name.to_owned());
                PathBuf::new()
            })
        };
        let (qemu, busybox, tshark) = (program("qemu-system-x86_64"), program("busybox"), program("tshark"));
        let cache = std::env::var_os("LIVEPATH_GUEST_KERNEL")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("cache"), PathBuf::from);
        let (kernel, modules) = (cache.join("vmlinuz"), cache.join("modules"));
        for path in [&kernel, &modules] {
            if !path.exists() {
                missing.push(path.display().to_string());
            }
        }
        if missing.is_empty() {
            Ok(Kit { qemu, busybox, kernel, modules, tshark })
        } else {
            Err(Missing(missing))
        }
    }

    /// Writes the initramfs of all guests into `directory`, with `responder` when they are to play service VMs.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn initramfs(&self, directory: &Path, responder: Option<&Path>) -> Result<PathBuf> {
        let path = directory.join("initramfs.cpio");
        let image = initramfs::build(&self.busybox, &self.modules, responder)?;
        std::fs::write(&path, image).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps some of these out of an ordinary user's PATH.
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// What [`Kit::find`] did not find.
#[derive(Clone, Debug)]
pub struct Missing(Vec<String>);

impl Missing {
    /// Skips `test` because of what is missing.
    ///
    /// # Panics
    /// When `$CI` is set: there a skipped test is a failed one.
    pub fn skip(&self, test: &str) {
        skip::skip(test, &self.to_string());
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not found (tests/run fetches what is missing)", self.0.join(", "))
    }
}
