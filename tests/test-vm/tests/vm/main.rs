//! The test VM against a backend built on the framework's own queue code.

mod driver;
mod echo;
mod guests;
mod scribe;
mod session;
