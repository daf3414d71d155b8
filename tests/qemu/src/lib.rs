//! QEMU guests end to end.
