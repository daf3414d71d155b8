//! Bytes read as a program: operations and their operands, until there is none left.

/// What is left of a program. At its end every operand is 0.
pub(crate) struct Program<'a>(&'a [u8]);

impl<'a> Program<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Program<'a> {
        Program(bytes)
    }

    /// The next operation; `None` at the end.
    pub(crate) fn operation(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.operation().unwrap_or_default()
    }

    /// Little-endian.
    pub(crate) fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }
}
