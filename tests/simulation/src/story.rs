//! What led to a broken rule: enough to run it again and to see why.

use std::collections::VecDeque;
use std::fmt::{self, Display};

use crate::Broken;
use crate::scenario::Scenario;

/// Lines kept: the last ones tell why.
const KEPT: usize = 300;

/// The story of a seed that broke a rule.
#[derive(Debug)]
pub struct Story {
    pub(crate) seed: u64,
    pub(crate) scenario: Scenario,
    pub(crate) lines: Lines,
    pub(crate) at: u64,
    pub(crate) broken: Broken,
}

impl Story {
    /// The rule that was broken, in words.
    #[must_use]
    pub fn broken(&self) -> &str {
        &self.broken
    }
}

impl Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.scenario)?;
        for step in &self.scenario.steps {
            writeln!(f, "  {step}")?;
        }
        writeln!(f, "the last of what happened:")?;
        for line in &self.lines.kept {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "broken at {}: {}", Millis(self.at), self.broken)?;
        write!(f, "again: LIVEPATH_SIM_SEED={} cargo test -p simulation", self.seed)
    }
}

/// What happened, when somebody wants to know.
#[derive(Debug)]
pub(crate) struct Lines {
    kept: VecDeque<String>,
    wanted: bool,
}

impl Lines {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { kept: VecDeque::new(), wanted }
    }

    pub(crate) fn note(&mut self, now: u64, line: impl FnOnce() -> String) {
        if self.wanted {
            if self.kept.len() == KEPT {
                self.kept.pop_front();
            }
            self.kept.push_back(format!("{} {}", Millis(now), line()));
        }
    }
}

/// Nanoseconds of the virtual clock, for people.
pub(crate) struct Millis(pub(crate) u64);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.3} ms", self.0 as f64 / 1e6)
    }
}
