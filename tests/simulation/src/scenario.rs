//! What a seed stands for: the steps of a run, all known before it begins.

use std::fmt::{self, Display};
use std::ops::Range;

use vhost_backend::chain::OnFailure;
use vhost_backend::port::Keeps;

use crate::chance::Chance;
use crate::story::Millis;

/// A microsecond and a millisecond of the virtual clock.
pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000 * US;

/// Bytes in which copies of all frames fit that a service VM can have.
pub(crate) const ALL: usize = 1 << 16;

/// How many services hosts 1, 2 and 3 have.
const SERVICES: [u64; 3] = [4, 3, 0];

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The service process stops; its kernel lives and keeps what arrives in a socket.
    Hang { host: usize, service: usize },
    /// The vCPU stands still.
    Freeze { host: usize, service: usize },
    /// The VMM dies and is started again.
    Kill { host: usize, service: usize },
    /// The rings are stopped and started.
    RingStop { host: usize, service: usize },
    /// An operator fails the service at the controller, and restores it.
    Operator { host: usize, service: usize },
    /// An operator maintains it at the controller, and restores it.
    Maintain { host: usize, service: usize },
    /// A VM manager reports the interface down, then up.
    Interface { host: usize, service: usize },
    /// The host and the controller do not hear each other.
    Partition { host: usize },
    /// The host's daemon dies and is started again.
    Restart { host: usize },
    /// The host's workers do not run.
    Pause { host: usize },
    /// The worker of its tenants does not run: it has decided a batch and not delivered it.
    Late { host: usize },
    /// The controller dies and is started again.
    Controller,
    /// The same, with a store from an old backup.
    Backup,
}

/// A fault from its beginning to its end, in nanoseconds since the start.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) fault: Fault,
    pub(crate) when: Range<u64>,
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} {:?}", Millis(self.when.start), Millis(self.when.end), self.fault)
    }
}

/// Everything that happens from outside.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) on_failure: OnFailure,
    pub(crate) steps: Vec<Step>,
    /// Between a tenant's packets.
    pub(crate) gap: Range<u64>,
    /// How many come at a time.
    pub(crate) burst: Range<u64>,
    /// Queue pairs of a service VM.
    pub(crate) pairs: usize,
    /// Frames that fit into the ring of each, and into the socket of its service.
    pub(crate) ring: usize,
    pub(crate) socket: usize,
    /// Bytes of frames that wait for its ring, and of copies of those it was handed.
    pub(crate) keeps: Keeps,
    /// Of a thousand packets, those that a service drops, which is its right.
    pub(crate) refused: u64,
    /// Of a thousand messages to or from the controller, until `calm`.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// How long a message takes; those that take different times overtake each other.
    pub(crate) latency: Range<u64>,
    /// From here on nothing goes wrong any more; from `last` on no packet is sent.
    pub(crate) calm: u64,
    pub(crate) last: u64,
    pub(crate) end: u64,
}

impl Scenario {
    pub(crate) fn new(chance: &mut Chance) -> Self {
        let calm = MS * chance.within(30..60);
        let steps = chance.pick(&[1, 2, 3, 5, 8]);
        let longest = chance.pick(&[2, 10, 25]);
        let steps = (0..steps).map(|_| step(chance, calm, longest)).collect();
        Self {
            on_failure: chance.pick(&[OnFailure::Block, OnFailure::Allow, OnFailure::Bypass]),
            steps,
            gap: chance.pick(&[100 * US, 400 * US, 2 * MS])..3 * MS,
            burst: 1..chance.pick(&[3, 3, 3, 10]),
            pairs: chance.pick(&[1, 1, 2, 3]),
            ring: chance.pick(&[2, 8, 32]),
            socket: chance.pick(&[0, 4, 32]),
            keeps: Keeps {
                hold: chance.pick(&[0, 150, 600, 1 << 14]),
                retain: chance.pick(&[0, 0, 400, ALL, ALL]),
            },
            refused: chance.pick(&[0, 0, 50]),
            lost: chance.pick(&[0, 20, 200]),
            doubled: chance.pick(&[0, 20, 200]),
            latency: 50 * US..chance.pick(&[100 * US, MS, 5 * MS]),
            calm,
            last: calm + 60 * MS,
            end: calm + 80 * MS,
        }
    }
}

impl Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            on_failure,
            burst,
            pairs,
            ring,
            socket,
            keeps: Keeps { hold, retain },
            refused,
            lost,
            doubled,
            ..
        } = self;
        write!(
            f,
            "{on_failure:?}, {burst:?} packets every {:?} us, {pairs} pairs, ring {ring}, socket {socket}, hold {hold}, retain {retain}, {refused} of 1000 \
             refused; messages {lost} lost, {doubled} doubled of 1000, {:?} us; calm from {}, end {}",
            self.gap.start / US..self.gap.end / US,
            self.latency.start / US..self.latency.end / US,
            Millis(self.calm),
            Millis(self.end)
        )
    }
}

fn step(chance: &mut Chance, calm: u64, longest: u64) -> Step {
    let host = chance.pick(&[0, 0, 1]);
    let service = chance.within(0..SERVICES[host]) as usize;
    let any = chance.pick(&[0, 1, 2]);
    let fault = match chance.within(0..16) {
        0 | 1 => Fault::Hang { host, service },
        2..5 => Fault::Freeze { host, service },
        5 | 6 => Fault::Kill { host, service },
        7 => Fault::RingStop { host, service },
        8 => chance.pick(&[Fault::Operator { host, service }, Fault::Maintain { host, service }]),
        9 | 10 => Fault::Interface { host, service },
        11 | 12 => Fault::Partition { host: any },
        13 => Fault::Restart { host: any },
        14 => chance.pick(&[Fault::Pause { host }, Fault::Late { host }]),
        _ => chance.pick(&[Fault::Controller, Fault::Backup]),
    };
    let start = chance.within(MS..calm - MS);
    let end = (start + chance.within(100 * US..longest * MS)).min(calm);
    Step { fault, when: start..end }
}
