//! livepathd.
fn main() {}
