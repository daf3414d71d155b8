//! The livepath controller.
