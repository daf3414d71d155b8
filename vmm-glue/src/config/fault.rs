//! What is wrong with a configuration file, said so that it can be put right: file, line, key, value and remedy.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}; give an existing file to --config", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file can be read and says something that cannot be.
    #[error("{}", list(.path, .faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// At least one, in the order of the file.
        faults: Vec<Fault>,
    },
}

fn list(path: &Path, faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}:{fault}", path.display())).collect();
    lines.join("\n")
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1; 0 when the fault is something that is not in the file.
    pub line: usize,
    /// The key and whose it is: `port svm1: mac`.
    pub key: String,
    /// The value as it was written; empty for a key that is missing.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.key)?;
        if !self.value.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        write!(f, ": {}", self.problem)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// The text of a file and the faults found in it so far.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, faults: Vec::new() }
    }

    /// The value at `span` of the key `key` is wrong.
    pub(super) fn add(
        &mut self,
        key: impl Into<String>,
        span: Range<usize>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let fault = Fault {
            line: self.line(span.start),
            key: key.into(),
            value: self.quote(span),
            problem: problem.into(),
            remedy: remedy.into(),
        };
        self.faults.push(fault);
    }

    /// A key is missing from the table that begins near `near`.
    pub(super) fn missing(
        &mut self,
        key: impl Into<String>,
        near: &Range<usize>,
        problem: &str,
        remedy: &str,
    ) {
        let line = self.line(near.start);
        self.faults.push(Fault {
            line,
            key: key.into(),
            value: String::new(),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    /// What the TOML parser or a type of the file says.
    pub(super) fn add_toml(&mut self, error: &toml::de::Error) {
        let span = error.span().unwrap_or(0..0);
        let (problem, remedy) = match error.message().split_once(", expected ") {
            Some((problem, expected)) => (problem.to_owned(), format!("expected {expected}")),
            None => (error.message().to_owned(), String::new()),
        };
        let key = self.key_around(span.start);
        let at_key = problem.starts_with("unknown field") || problem.starts_with("missing field");
        let value = if at_key || span.is_empty() { String::new() } else { self.quote(span.clone()) };
        let problem = problem.replace('\n', " ");
        self.faults.push(Fault { line: self.line(span.start), key, value, problem, remedy });
    }

    /// The faults in the order of the file.
    pub(super) fn into_faults(mut self) -> Vec<Fault> {
        self.faults.sort_by_key(|fault| fault.line);
        self.faults
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The number of the line that holds this byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }

    /// The value as written, on one line and not too long.
    fn quote(&self, span: Range<usize>) -> String {
        let written =
            self.text.get(span).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        match written.char_indices().nth(80) {
            Some((end, _)) => format!("{}…", written.get(..end).unwrap_or_default()),
            None => written,
        }
    }

    /// The table and the key that a place in the file belongs to: `[[port]] mac`.
    fn key_around(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text.get(start..).unwrap_or_default().lines().next().unwrap_or_default().trim();
        let header = |line: &str| {
            line.starts_with('[').then(|| line.split('#').next().unwrap_or(line).trim().to_owned())
        };
        if let Some(table) = header(line) {
            return table;
        }
        let table = before.lines().rev().find_map(|line| header(line.trim_start())).unwrap_or_default();
        let key = line.split('=').next().unwrap_or_default().trim();
        format!("{table} {key}").trim().to_owned()
    }
}
