//! How a test says that it cannot run here, so that `tests/run` can say it at the end.
#![forbid(unsafe_code)]

use std::env;
use std::fs::OpenOptions;
use std::io::{self, Write};

/// Says that `test` is skipped and why, on standard error and, for `tests/run`, in the file `$LIVEPATH_SKIPPED`.
///
/// # Panics
/// When `$CI` is set: there a skipped test is a failed one.
pub fn skip(test: &str, why: &str) {
    assert!(env::var_os("CI").is_none(), "{test}: {why}");
    let line = format!("{test}: {why}\n");
    let _ = write!(io::stderr(), "skipped: {line}");
    if let Some(path) = env::var_os("LIVEPATH_SKIPPED") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the list of skipped tests can be written");
    }
}
