//! livepath.
fn main() {}
