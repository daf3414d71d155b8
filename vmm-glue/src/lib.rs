//! Configuration, VMM attachment, agent and demo of livepath.
