//! A capture that runs beside the demo, over the daemon's admin socket like any other.

use std::fs::File;
use std::io::BufWriter;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::admin::Client;
use crate::commands::Pcapng;

/// A port's frames on their way into a file.
pub(super) struct Recording {
    file: PathBuf,
    connection: UnixStream,
    thread: JoinHandle<Result<u64>>,
}

impl Recording {
    /// Begins to record `port` of the daemon at `admin`.
    pub(super) fn start(admin: &Path, port: &str, file: &Path) -> Result<Self> {
        let (snaplen, mut capture) = Client::connect(admin)?.capture(port, None)?;
        let out = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        let mut pcapng = Pcapng::new(BufWriter::new(out), port, snaplen)?;
        let connection = capture.connection().try_clone().context("cannot watch the capture")?;
        let thread = std::thread::Builder::new().name("capture".into()).spawn(move || {
            let mut frames = 0;
            // The end of the connection is the end of the recording, in the middle of a record or not.
            while let Ok(Some(record)) = capture.next() {
                pcapng.add(&record)?;
                frames += 1;
            }
            pcapng.finish()?;
            Ok(frames)
        })?;
        Ok(Self { file: file.to_owned(), connection, thread })
    }

    /// Ends the recording; gives the file and how many frames are in it.
    pub(super) fn finish(self) -> Result<(PathBuf, u64)> {
        let _ = self.connection.shutdown(Shutdown::Both);
        let frames = self.thread.join().map_err(|_| anyhow::anyhow!("the capture ended in a panic"))??;
        Ok((self.file, frames))
    }
}
