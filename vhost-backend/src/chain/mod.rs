//! Service chains: which frame takes which path, and where a frame on a path goes next.
//!
//! ```text
//!  TablesSpec --validated--> Tables --Arc--> Snapshot --ArcSwap--> worker
//!                                   usable flags per service ^
//!
//!  tenant frame ----> classify ----> flow table, else policies --> path --> Push | Deliver | Flood | Drop
//!  frame of an SVM -> forward  ----> (SPI, SI) in the path table -------> Forward | Strip | Reflect | Drop
//!  stripped frame --> deliver  ----> destination MAC -------------------> Deliver | Flood | Drop
//! ```
//!
//! Everything here is pure: no I/O and no clock, and nothing is allocated per packet. A [`Snapshot`] is immutable and
//! is swapped whole, so a packet sees one generation of everything; what the workers learn (flows, MAC addresses)
//! lives in [`Learned`], and a worker decides through its [`Steering`].

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod cache;
mod counts;
mod decide;
mod flow;
mod health;
mod id;
mod index;
mod learned;
mod mac;
mod matching;
mod path;
mod policy;
mod ramp;
mod snapshot;
mod spec;
mod steer;
mod tables;
mod trace;
mod verdict;

pub use cache::{Lately, Standing, VerdictCache};
pub use counts::{Counts, PolicyCounts};
pub use decide::{Arrival, Decision, Return, Stripped, classify, deliver, forward};
pub use flow::{FlowTable, Slot};
use id::{ChainIx, PathIx, PolicyIx};
pub use id::{Generation, PortId};
pub use learned::{Learned, Steering};
pub use mac::MacTable;
pub use matching::{Match, MatchError, PortRange, PortRangeError, Prefix, PrefixError};
pub use path::Hop;
pub use snapshot::{ChainMode, ChainState, CutChains, Onward, PathState, Snapshot};
pub use spec::{
    ChainSpec, Egress, Failback, OnFailure, PathSpec, PolicySpec, PortSpec, Role, SiDecrement, SpecError,
    TablesRef, TablesSpec,
};
pub use trace::{Known, Route, Trace};
pub use verdict::{DropReason, Verdict};

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
