//! Why bytes were not accepted: which layer, where, what was needed and what was there.

use core::fmt;

/// The part of a frame an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Outer Ethernet header.
    Ethernet,
    /// NSH base header (RFC 8300 section 2.2).
    Base,
    /// NSH service path header (RFC 8300 section 2.3).
    ServicePath,
    /// Everything of the NSH after the service path header.
    Metadata,
    /// One variable-length context header of MD type 2 (RFC 8300 section 2.5.1).
    Tlv,
    /// The livepath context in the fixed-length context header of MD type 1.
    Context,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Ethernet => "ethernet",
            Layer::Base => "nsh base header",
            Layer::ServicePath => "nsh service path header",
            Layer::Metadata => "nsh metadata",
            Layer::Tlv => "nsh metadata tlv",
            Layer::Context => "livepath context",
        })
    }
}

/// What is wrong. It gives the unit of [`NshError::needed`] and [`NshError::got`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The frame ends inside the layer. Bytes from the error's offset.
    Truncated,
    /// The frame is long enough, but the header reaches beyond the prefix that was given. Bytes from the
    /// error's offset.
    OutsidePrefix,
    /// NSH version other than 0. Version numbers.
    Version,
    /// The length field is shorter than the two mandatory headers. Bytes.
    HeaderLength,
    /// MD type 1 with a length other than 24. Bytes.
    Md1Length,
    /// A TLV's value reaches beyond the NSH. Bytes of value.
    TlvLength,
    /// More NSH within NSH than [`MAX_NESTING`](crate::MAX_NESTING). Headers.
    Nesting,
    /// Livepath context of an unknown version. Version numbers.
    ContextVersion,
    /// Livepath context that is query and response at once. Flags set.
    PingAndResp,
    /// There is no fixed-length context to write to. MD types.
    NotMd1,
}

impl Reason {
    /// Every reason, in the order of [`Reason::index`].
    pub const ALL: [Reason; 10] = [
        Reason::Truncated,
        Reason::OutsidePrefix,
        Reason::Version,
        Reason::HeaderLength,
        Reason::Md1Length,
        Reason::TlvLength,
        Reason::Nesting,
        Reason::ContextVersion,
        Reason::PingAndResp,
        Reason::NotMd1,
    ];

    /// Position in [`Reason::ALL`], for one counter per reason.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Stable name in lower case, for metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Truncated => "nsh-truncated",
            Reason::OutsidePrefix => "nsh-outside-prefix",
            Reason::Version => "nsh-version",
            Reason::HeaderLength => "nsh-header-length",
            Reason::Md1Length => "nsh-md1-length",
            Reason::TlvLength => "nsh-tlv-length",
            Reason::Nesting => "nsh-nesting",
            Reason::ContextVersion => "nsh-context-version",
            Reason::PingAndResp => "nsh-ping-and-resp",
            Reason::NotMd1 => "nsh-not-md1",
        }
    }

    const fn text(self) -> (&'static str, &'static str) {
        match self {
            Reason::Truncated => ("frame ends", "bytes"),
            Reason::OutsidePrefix => ("header reaches beyond the bytes at hand", "bytes"),
            Reason::Version | Reason::ContextVersion => ("unknown version", ""),
            Reason::HeaderLength => ("length shorter than the mandatory headers", "bytes"),
            Reason::Md1Length => ("wrong length for MD type 1", "bytes"),
            Reason::TlvLength => ("value reaches beyond the header", "bytes"),
            Reason::Nesting => ("nested too deep", "headers"),
            Reason::PingAndResp => ("both PING and RESP", "flags"),
            Reason::NotMd1 => ("no fixed-length context", "as MD type"),
        }
    }
}

/// Bytes that are not what they claim to be.
///
/// Offsets count from the first byte of the NSH base header, except in [`Layer::Ethernet`], where they count
/// from the first byte of the frame, and in [`Nested`](crate::Nested), where they count from the outermost
/// NSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NshError {
    /// What is wrong.
    pub reason: Reason,
    /// Where in the stack of headers.
    pub layer: Layer,
    /// Where in bytes.
    pub offset: usize,
    /// What would have been right, in the unit of `reason` (for limits: the limit).
    pub needed: usize,
    /// What was there, in the unit of `reason`.
    pub got: usize,
}

impl NshError {
    pub(crate) const fn new(reason: Reason, layer: Layer, offset: usize, needed: usize, got: usize) -> Self {
        NshError { reason, layer, offset, needed, got }
    }

    /// `have` counts what is left of the frame at `offset`, `at_hand` what is left of the prefix.
    pub(crate) const fn short(
        layer: Layer,
        offset: usize,
        needed: usize,
        have: usize,
        at_hand: usize,
    ) -> Self {
        if have < needed {
            NshError::new(Reason::Truncated, layer, offset, needed, have)
        } else {
            NshError::new(Reason::OutsidePrefix, layer, offset, needed, at_hand)
        }
    }

    pub(crate) const fn shifted(mut self, by: usize) -> Self {
        self.offset = self.offset.saturating_add(by);
        self
    }
}

impl fmt::Display for NshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, unit) = self.reason.text();
        let NshError { layer, offset, needed, got, .. } = self;
        let space = if unit.is_empty() { "" } else { " " };
        write!(f, "{layer} at offset {offset}: {what}: needed {needed}{space}{unit}, got {got}")
    }
}

impl core::error::Error for NshError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn reasons_are_indexed_in_order_and_named_apart() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), i);
            assert_eq!(Reason::ALL.iter().filter(|r| r.name() == reason.name()).count(), 1);
        }
    }

    #[test]
    fn display_says_layer_offset_needed_and_got() {
        let error = NshError::short(Layer::ServicePath, 4, 4, 2, 2);
        assert_eq!(
            error.to_string(),
            "nsh service path header at offset 4: frame ends: needed 4 bytes, got 2"
        );
        let error = NshError::new(Reason::Version, Layer::Base, 0, 0, 1);
        assert_eq!(error.to_string(), "nsh base header at offset 0: unknown version: needed 0, got 1");
    }
}
