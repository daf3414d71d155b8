//! The rows of the table: what is measured, against what, and what is to be reached.

mod bound;
mod chain;
mod idle;
mod latency;
mod offload;
mod pairs;
mod plain;
mod ring;
mod round_trip;
mod scale;
mod swap;
mod tap;
mod workers;

use std::time::Duration;

use anyhow::Context as _;

use crate::figure::{Figure, Target};
use crate::side::{Bench, Side};

pub use pairs::settle;
pub use ring::generator;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Windows of each side, in turn.
    pub pairs: usize,
    /// One window.
    pub window: Duration,
}

impl Effort {
    /// For a look.
    pub const QUICK: Effort = Effort { pairs: 15, window: Duration::from_millis(30) };
    /// For figures.
    pub const FULL: Effort = Effort { pairs: 75, window: Duration::from_millis(40) };
}

/// Before what is measured between threads of this process.
const WARM: Duration = Duration::from_millis(20);

/// Rows that stand together in the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Against other forwarders.
    Peers,
    /// Against itself.
    Itself,
    /// The ring against its bound.
    Ring,
    /// One frame at a time.
    Latency,
    /// Tables replaced.
    Swap,
    /// Nothing to do.
    Idle,
}

impl Table {
    /// In the order of the document.
    pub const ALL: [Table; 6] =
        [Table::Peers, Table::Itself, Table::Ring, Table::Latency, Table::Swap, Table::Idle];

    /// Its name in the document's marks and in the names of pictures.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Peers => "peers",
            Table::Itself => "itself",
            Table::Ring => "ring",
            Table::Latency => "latency",
            Table::Swap => "swap",
            Table::Idle => "idle",
        }
    }

    /// What its picture shows.
    pub const fn title(self) -> &'static str {
        match self {
            Table::Peers => "Rates against testpmd and Open vSwitch",
            Table::Itself => "Rates against livepath itself",
            Table::Ring => "Ring forward against one copy and one counter",
            Table::Latency => "One-way latency against testpmd",
            Table::Swap => "Tables replaced under traffic",
            Table::Idle => "Idle ports",
        }
    }
}

/// One row.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its name on the command line and in figures.
    pub name: &'static str,
    /// What is done, for people.
    pub work: &'static str,
    /// What is to be reached.
    pub target: Target,
    /// Where it stands in the documents.
    pub table: Table,
    measure: Measure,
    /// Our side alone, where it forwards frames.
    ours: Option<Ours>,
    /// Where the time goes and what was tried, for when the target is missed.
    account: &'static str,
}

impl Row {
    /// Measures the row.
    ///
    /// # Errors
    /// Somebody does not start, or loses frames in window after window.
    pub fn measure(&self, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
        let before = round_trip::round_trip(bench.core)?;
        let figures = (self.measure)(self, bench, effort)?;
        let trips = vec![before, round_trip::round_trip(bench.core)?];
        let counted = figures.into_iter().map(|mut figure| {
            if figure.round_trips.is_empty() {
                figure.round_trips.clone_from(&trips);
            }
            figure.counted()
        });
        counted.collect::<Option<_>>().context("every pair was void")
    }

    /// Our side of the row alone; `None` where it is no forwarding.
    pub fn ours(&self, bench: &Bench) -> Option<anyhow::Result<Side>> {
        self.ours.map(|ours| ours(self, bench))
    }

    /// Where the time goes and what was tried, in Markdown; for people who see the target missed.
    pub const fn account(&self) -> &'static str {
        self.account
    }

    const fn explained(self, account: &'static str) -> Row {
        Row { account, ..self }
    }

    /// The bytes of a frame, which the name ends in.
    fn frame(&self) -> usize {
        self.name.rsplit('-').next().and_then(|frame| frame.parse().ok()).unwrap_or(64)
    }
}

/// Measures a row.
type Measure = fn(&Row, &Bench, Effort) -> anyhow::Result<Vec<Figure>>;
/// Starts our side of a row.
type Ours = fn(&Row, &Bench) -> anyhow::Result<Side>;

const fn row(
    name: &'static str,
    work: &'static str,
    target: Target,
    table: Table,
    measure: Measure,
    ours: Option<Ours>,
) -> Row {
    Row { name, work, target, table, measure, ours, account: "" }
}

const PLAIN: &str = "plain forward between two tenant ports";
const ORDERED: &str = "plain forward, the guests' buffers one behind the other";
const CHAIN: &str = "chain of one service VM, end to end";
const WATCHED: &str = "chain with liveness at 1 ms, against liveness off";
const RING: &str = "ring forward, against one copy and one counter";
const RING_CHAIN: &str = "ring forward to a service VM and back, against two copies and one counter";
const SCALE: &str = "chain with 16 000 paths, 10 000 policies, 2^20 flows, against one of each";
const WORKERS: &str = "two disjoint chains on two workers, against one worker";
const OFFLOAD: &str = "64 KiB TSO frames through a chain of three, against 1500 B frames";
const MERGED: &str = "64 KiB TSO frames through a chain of three, into buffers of 4 KiB that are merged";
const TAP: &str =
    "from tenant to tenant by way of the host's IP stack, through a tap: io_uring against read and write";
const LATENCY: &str = "one-way latency through plain forward at 100 kpps";
const SWAP: &str = "tables of 16 000 paths and their reverses, 10 000 policies, replaced while frames go by them: 256 ports, 2^20 flows";
const WAKE: &str = "one-way latency through plain forward at 200 pps: the worker sleeps and is woken";
const IDLE: &str =
    "64 attached idle ports, half of them service VMs that answer probes: share of a core, memory of a port";

/// Rows of ours whose cycle account is in the documents.
pub const STAGED: &[&str] =
    &["plain-64", "plain-1500", "chain-64", "chain-1500", "scale-64", "offload", "offload-merged"];

/// All rows, in the order of the tables; the ring's first, against which others are held.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("ring-64", RING, Target::AtMost(1.6), Table::Ring, ring::measure, None).explained(ring::ACCOUNT),
    row("ring-1500", RING, Target::AtMost(1.6), Table::Ring, ring::measure, None).explained(ring::ACCOUNT),
    row("ring-chain-64", RING_CHAIN, Target::Reported, Table::Ring, ring::chain, None),
    row("plain-64", PLAIN, Target::AtLeast(1.6), Table::Peers, plain::measure, Some(plain::ours)).explained(plain::ACCOUNT),
    row("plain-1500", PLAIN, Target::AtLeast(1.3), Table::Peers, plain::measure, Some(plain::ours)).explained(plain::ACCOUNT),
    row("chain-64", CHAIN, Target::AtLeast(3.0), Table::Peers, chain::measure, Some(chain::ours)).explained(chain::ACCOUNT),
    row("chain-1500", CHAIN, Target::AtLeast(2.0), Table::Peers, chain::measure, Some(chain::ours)).explained(chain::ACCOUNT),
    row("plain-ovs-64", PLAIN, Target::Reported, Table::Peers, plain::against_ovs, Some(plain::ours)),
    row("plain-ovs-1500", PLAIN, Target::Reported, Table::Peers, plain::against_ovs, Some(plain::ours)),
    row("ordered-64", ORDERED, Target::AtLeast(1.6), Table::Peers, plain::in_order, None).explained(plain::ACCOUNT_ORDERED),
    row("ordered-1500", ORDERED, Target::AtLeast(1.3), Table::Peers, plain::in_order, None).explained(plain::ACCOUNT_ORDERED),
    row("liveness-64", WATCHED, Target::AtLeast(0.99), Table::Itself, chain::watched, Some(chain::ours_watched)).explained(chain::ACCOUNT_WATCHED),
    row("liveness-1500", WATCHED, Target::AtLeast(0.99), Table::Itself, chain::watched, Some(chain::ours_watched)).explained(chain::ACCOUNT_WATCHED),
    row("scale-64", SCALE, Target::AtLeast(0.7), Table::Itself, scale::measure, Some(scale::ours)).explained(scale::ACCOUNT),
    row("workers-64", WORKERS, Target::Reported, Table::Itself, workers::measure, None),
    row("offload", OFFLOAD, Target::AtLeast(5.0), Table::Itself, offload::measure, Some(offload::ours)).explained(offload::ACCOUNT),
    row("offload-merged", MERGED, Target::Reported, Table::Itself, offload::measure_merged, Some(offload::ours_merged)),
    row("tap-64", TAP, Target::AtMost(1.0), Table::Itself, tap::measure, Some(tap::ours)).explained(tap::ACCOUNT),
    row("tap-1500", TAP, Target::AtMost(1.0), Table::Itself, tap::measure, Some(tap::ours)).explained(tap::ACCOUNT),
    row("latency-64", LATENCY, Target::AtMost(1.0), Table::Latency, latency::measure, None).explained(latency::ACCOUNT),
    row("wake-64", WAKE, Target::Reported, Table::Latency, latency::asleep, None),
    row("swap-64", SWAP, Target::ValueAtMost(5.0), Table::Swap, swap::measure, None).explained(swap::ACCOUNT),
    row("idle", IDLE, Target::Below(1.0), Table::Idle, idle::measure, None),
];
