//! livepath-responder.
fn main() {}
