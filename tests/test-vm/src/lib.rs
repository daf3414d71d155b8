//! A rust-vmm test VM.
