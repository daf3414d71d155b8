//! RFC 8300 Network Service Header.
#![no_std]
#![forbid(unsafe_code)]
