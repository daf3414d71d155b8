//! What runs inside a service VM.
