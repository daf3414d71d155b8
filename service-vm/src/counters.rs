//! What became of the frames, counted.

use core::fmt;

use crate::{Answer, Ignored};

/// Totals since the start. `received` is the sum of all `ignored_*`, `probes`, `forwarded`, `dropped` and `kept`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field counts what its name says")]
pub struct Counters {
    pub received: u64,
    pub responses: u64,
    pub probes: u64,
    pub forwarded: u64,
    pub dropped: u64,
    pub kept: u64,
    pub ignored_not_nsh: u64,
    pub ignored_not_for_us: u64,
    pub ignored_malformed: u64,
    pub ignored_md_type: u64,
    pub ignored_oam: u64,
    pub ignored_path_ended: u64,
}

impl Counters {
    /// Counts one answered or ignored frame.
    pub fn count(&mut self, answer: &Answer) {
        self.received += 1;
        self.responses += u64::from(answer.is_response());
        *match answer {
            Answer::Forwarded { .. } => &mut self.forwarded,
            Answer::ProbeResponse { .. } => &mut self.probes,
            Answer::BareResponse { dropped: true, .. } | Answer::Silent { dropped: true } => {
                &mut self.dropped
            }
            Answer::BareResponse { dropped: false, .. } | Answer::Silent { dropped: false } => &mut self.kept,
            Answer::Ignored(Ignored::NotNsh) => &mut self.ignored_not_nsh,
            Answer::Ignored(Ignored::NotForUs) => &mut self.ignored_not_for_us,
            Answer::Ignored(Ignored::Malformed(_)) => &mut self.ignored_malformed,
            Answer::Ignored(Ignored::MdType) => &mut self.ignored_md_type,
            Answer::Ignored(Ignored::NotAProbe) => &mut self.ignored_oam,
            Answer::Ignored(Ignored::PathEnded) => &mut self.ignored_path_ended,
        } += 1;
    }

    /// Names and values, in the order they are printed.
    pub fn fields(&self) -> [(&'static str, u64); 12] {
        [
            ("received", self.received),
            ("responses", self.responses),
            ("probes", self.probes),
            ("forwarded", self.forwarded),
            ("dropped", self.dropped),
            ("kept", self.kept),
            ("ignored-not-nsh", self.ignored_not_nsh),
            ("ignored-not-for-us", self.ignored_not_for_us),
            ("ignored-malformed", self.ignored_malformed),
            ("ignored-md-type", self.ignored_md_type),
            ("ignored-oam", self.ignored_oam),
            ("ignored-path-ended", self.ignored_path_ended),
        ]
    }
}

impl fmt::Display for Counters {
    /// `name=value`, separated by spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.fields().into_iter().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_counted_once_and_every_response() {
        let answers = [
            Answer::Forwarded { len: 60, response: true },
            Answer::Forwarded { len: 60, response: false },
            Answer::ProbeResponse { len: 38 },
            Answer::BareResponse { len: 38, dropped: true },
            Answer::BareResponse { len: 38, dropped: false },
            Answer::Silent { dropped: true },
            Answer::Silent { dropped: false },
            Answer::Ignored(Ignored::NotNsh),
            Answer::Ignored(Ignored::PathEnded),
        ];
        let mut counters = Counters::default();
        for answer in &answers {
            counters.count(answer);
        }
        assert_eq!(
            counters.to_string(),
            "received=9 responses=4 probes=1 forwarded=2 dropped=2 kept=2 ignored-not-nsh=1 ignored-not-for-us=0 \
             ignored-malformed=0 ignored-md-type=0 ignored-oam=0 ignored-path-ended=1"
        );
        let total: u64 = counters.fields()[2..].iter().map(|(_, value)| value).sum();
        assert_eq!(total, counters.received);
    }
}
