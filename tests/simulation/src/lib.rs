//! Hosts with classifiers and service VMs, their agents, a controller, and a network that loses, doubles, delays and
//! reorders what they say to each other: on a virtual clock, everything from one seed.
//!
//! ```text
//!            scenario (steps) ◄── seed ──► chance
//!                 │
//!  tenants ──► host: tables, sessions ── transitions ──► agent: queue ──► network ──► controller
//!                 │  ▲ frames                               ▲                            │
//!              service VMs                                  └───────── tables ◄──────────┘
//!                 │
//!              oracle: what became of every packet; what must hold; where everything ends
//! ```
//!
//! Real are what decides: the proxy of every service port with its [`Session`], its fence, its hold, the copies it retains and
//! the order in which a dead service VM's frames are steered again ([`RinglessProxy`]); the frames' bytes between it and the
//! service VM; the tables with `classify`, `forward` and `deliver`, and a worker's cache of verdicts; the file, the plan and its
//! translation for a host, the agent's queue and the controller with its planner.
//!
//! Modelled are the network and the service VMs, which work in order; and what needs their rings' memory: the ring itself, what
//! of it the driver has taken (known here; a host infers it from `used_event` and buffers), and the worker's rounds around
//! both: read, hand over, let in, tend, salvage. What needs sockets and threads is modelled too, the agent's conversation
//! and the leases.
//!
//! A host has two workers, one for its tenants and one for its service VMs. The first may be kept from delivering what it has
//! decided by tables of before, while the other goes on at once: the case in which the standstill of `vhost_backend::worker`
//! has lost its patience. Absent are the standstill itself and service VMs whose pairs are served by different workers: they
//! are threads, and have their tests there.
//!
//! Rules:
//!
//! - no packet is delivered twice, with copies or without;
//! - every packet is delivered, dropped by a named policy, or lost inside a service VM;
//! - of packets that service VMs are handed none is lost inside one while copies of all are retained, unless nobody could
//!   notice: its socket had no room and its service went on, or the host's daemon died with the copies. A packet that its
//!   service let go no further without a word may then be steered again, late as it is, which is counted;
//! - no packet is dropped for want of room in a ring while its hold has room;
//! - no packet arrives after a later one of its flow, unless
//!   - the later one was let through without its chain (`allow`, or `bypass` with nothing left to pass),
//!   - a service of its path failed while it was before or behind that, and its flow's new path has not the same services there,
//!   - it went around a failed service by `bypass` while a path came up again, and later ones take that,
//!   - a service VM on its path failed and came back while it was under way before that, and its flow has another path by now,
//!   - a service of its host was taken out for maintenance, or the controller changed the host's paths, while it was under
//!     way: it may go on by the old way, and later ones by the new;
//! - no frame is handed to a service VM whose session says Down;
//! - `block` drops nothing while a path of the chain is up;
//! - generations never go back, at no host and not at the controller;
//! - when the faults have stopped, everything is up, and every host and the controller agree on it.
//!
//! A seed that breaks one is run again with its story on; [`Story`] prints it with the steps that led there.
//!
//! [`Session`]: vhost_backend::liveness::Session
//! [`RinglessProxy`]: vhost_backend::port::RinglessProxy

#![forbid(unsafe_code)]

mod agent;
mod bug;
mod chance;
mod control;
mod faults;
mod host;
mod ledger;
mod proxy;
mod scenario;
mod service;
mod site;
mod story;
mod tally;
mod wire;
mod world;

pub use bug::Bug;
pub use story::Story;
pub use tally::Tally;

/// What a broken rule says.
pub(crate) type Broken = String;

/// Runs a seed to its end, with a mistake in the code around it if one is named.
///
/// # Errors
/// The story of the seed, when a rule was broken.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Tally, Box<Story>> {
    let quiet = world::World::new(seed, bug, false).run();
    quiet.map_err(|_| match world::World::new(seed, bug, true).run() {
        Err(story) => story,
        Ok(_) => unreachable!("seed {seed} does not do the same again"),
    })
}
