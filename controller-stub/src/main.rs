//! livepath-controller.
fn main() {}
