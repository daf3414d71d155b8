//! What happened, for the report of a seed that failed.

use std::fmt::{self, Display};

/// Lines kept: the last ones tell why.
const KEPT: usize = 120;

pub(super) struct Trace {
    lines: Option<std::collections::VecDeque<String>>,
}

impl Trace {
    /// Keeps nothing: the ten thousand seeds that pass need no story.
    pub(super) fn off() -> Self {
        Self { lines: None }
    }

    pub(super) fn on() -> Self {
        Self { lines: Some(std::collections::VecDeque::new()) }
    }

    pub(super) fn note(&mut self, now: u64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if lines.len() == KEPT {
                lines.pop_front();
            }
            lines.push_back(format!("{:>14.3} ms  {}", now as f64 / 1e6, line()));
        }
    }
}

impl Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().flatten().try_for_each(|line| writeln!(f, "{line}"))
    }
}
