//! Mistakes that the rules must find: a rule that never breaks is no rule.

/// A mistake in what the simulation stands in for, or in how it uses the real parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A host takes whatever table arrives.
    GenerationIgnored,
    /// A frame that comes back from an earlier life of its service VM goes on.
    FenceForgotten,
    /// The tables are not swapped when a service VM goes down.
    SwapForgotten,
    /// A worker goes by verdicts of before the tables were swapped.
    VerdictKept,
    /// A report is given up when its answer is lost.
    ReportGivenUp,
    /// Frames that wait for a dead service VM are steered anew and forgotten.
    SalvageDropped,
    /// They are steered anew, but after others.
    SalvageLate,
    /// A frame is handed over though others wait for room in the ring.
    HoldOvertaken,
    /// No frame waits for room in the ring.
    HoldUnused,
    /// What was decided before a service VM went down is put into its ring after it.
    LateHanded,
    /// Copies of what a service VM was handed are not steered again when it dies.
    CopiesForgotten,
    /// Copies of what came back are kept and steered again.
    AnswerForgotten,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::GenerationIgnored,
        Self::FenceForgotten,
        Self::SwapForgotten,
        Self::VerdictKept,
        Self::ReportGivenUp,
        Self::SalvageDropped,
        Self::SalvageLate,
        Self::HoldOvertaken,
        Self::HoldUnused,
        Self::LateHanded,
        Self::CopiesForgotten,
        Self::AnswerForgotten,
    ];

    /// Words of the rule that it breaks.
    #[must_use]
    pub fn breaks(self) -> &'static str {
        match self {
            Self::GenerationIgnored => "went back",
            Self::FenceForgotten | Self::AnswerForgotten => "twice",
            Self::SwapForgotten | Self::VerdictKept | Self::LateHanded => "which is down",
            Self::ReportGivenUp => "in the end",
            Self::SalvageDropped => "vanished",
            Self::SalvageLate | Self::HoldOvertaken => "was overtaken by",
            Self::HoldUnused => "of the hold free",
            Self::CopiesForgotten => "though copies are kept",
        }
    }
}
