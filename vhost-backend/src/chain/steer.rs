//! Which path a packet takes: the flow table first, the policies for what it does not know.

use super::flow::{Choice, Direction, First, Slot, Tuple};
use super::spec::Failback;
use super::{ChainIx, PathIx, Snapshot, Steering};
use crate::frame::FlowHash;
use crate::liveness::Timestamp;

/// The way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To its destination.
    Plain {
        /// And so is every packet of the flow, in either direction, under these tables.
        lasting: bool,
    },
    /// To the first hop of a path that is up, as every packet of the flow in this direction, under these tables.
    First(First),
    /// Along a path that is up.
    Path {
        /// The path.
        path: PathIx,
        /// And so does every packet of the flow in this direction, under these tables.
        lasting: bool,
        /// The flow's record, if this packet runs as its first one did.
        record: Option<Slot>,
    },
    /// No path is up: along this one, past the services that are out.
    Around(ChainIx, PathIx),
    /// No path is up and none is to be taken.
    Cut(ChainIx),
}

/// The way of a packet. `likely`: where its flow's record may be. `datagram`: it is the first fragment of this one, whose further fragments shall follow it.
#[inline]
pub(super) fn steer(
    snapshot: &Snapshot,
    steering: &mut Steering<'_>,
    tuple: &Tuple,
    (hash, likely): (FlowHash, Option<Slot>),
    datagram: Option<u32>,
    now: Timestamp,
) -> Way {
    let found = steering.flows(hash).and_then(|flows| flows.find(hash, likely, tuple, now));
    if let (Some((slot, Direction::Forward)), None) = (found, datagram)
        && let Some(flows) = steering.flows(hash)
        && let Some(first) = flows.first(slot, snapshot.version())
    {
        steering.counts.pinned_forward += 1;
        return Way::First(first);
    }
    let (choice, direction) = match found {
        Some((slot, direction)) => known(snapshot, steering, tuple, hash, slot, direction, now),
        None => {
            let choice = first_choice(snapshot, tuple, hash, now);
            enter(snapshot, steering, tuple, hash, choice, now);
            (choice, Direction::Forward)
        }
    };
    if let Some(id) = datagram {
        follow(snapshot, steering, tuple, id, (choice, direction), now);
    }
    // A slot is good until another flow is entered.
    let record =
        found.filter(|_| direction == Direction::Forward && datagram.is_none()).map(|(slot, _)| slot);
    way(snapshot, choice, direction, record, now)
}

fn way(
    snapshot: &Snapshot,
    choice: Choice,
    direction: Direction,
    record: Option<Slot>,
    now: Timestamp,
) -> Way {
    match choice {
        Choice::Plain { both } => Way::Plain { lasting: both },
        Choice::Chain { chain, path: None } => Way::Cut(chain),
        Choice::Chain { chain, path: Some((path, _)) } => {
            let taken = match direction {
                Direction::Forward => Some(path),
                Direction::Reverse => snapshot.tables.paths.get(path).and_then(|path| path.reverse),
            };
            match taken {
                None => Way::Plain { lasting: false },
                Some(taken) if !snapshot.health.is_up(path) => Way::Around(chain, taken),
                Some(path) => {
                    let lasting = !moves_back(snapshot, chain) || snapshot.health.is_settled(now);
                    Way::Path { path, lasting, record }
                }
            }
        }
    }
}

/// Flows of this chain do not stay on a path when one that is better comes back.
pub(super) fn moves_back(snapshot: &Snapshot, chain: ChainIx) -> bool {
    snapshot.tables.chain(chain).is_some_and(|chain| chain.failback == Failback::All)
}

/// The choice for a flow in the table, brought up to date: sticky while its path is usable, chosen anew once it is not,
/// or each time if the chain says so.
fn known(
    snapshot: &Snapshot,
    steering: &mut Steering<'_>,
    tuple: &Tuple,
    hash: FlowHash,
    slot: Slot,
    direction: Direction,
    now: Timestamp,
) -> (Choice, Direction) {
    let chain_of = |path: PathIx| snapshot.tables.paths.get(path).map(|path| path.chain);
    let choice = steering.flows(hash).and_then(|flows| flows.choice(slot, snapshot.revision, chain_of));
    let choice = match choice {
        Some(choice) => choice,
        None => {
            let renewed = renewed(snapshot, steering, hash, slot);
            set(snapshot, steering, hash, slot, renewed);
            renewed
        }
    };
    match choice {
        Choice::Chain { chain, path } => {
            let up = path.is_some_and(|(ix, _)| snapshot.health.is_up(ix));
            let chosen = if up && !moves_back(snapshot, chain) {
                choice
            } else {
                chosen_anew(snapshot, chain, hash, path.map(|(ix, _)| ix), now)
            };
            if chosen == choice {
                let pinned = match direction {
                    Direction::Forward => &mut steering.counts.pinned_forward,
                    Direction::Reverse => &mut steering.counts.pinned_reverse,
                };
                *pinned += u64::from(up);
            } else if let Choice::Chain { path: Some(_), .. } = chosen {
                steering.counts.resteered += u64::from(path.is_some());
                set(snapshot, steering, hash, slot, chosen);
            }
            (chosen, direction)
        }
        Choice::Plain { both: false } if direction == Direction::Reverse => {
            // The policies did not chain the first direction; this is the first packet of the other one.
            let own = first_choice(snapshot, tuple, hash, now);
            if let Choice::Plain { .. } = own {
                set(snapshot, steering, hash, slot, Choice::Plain { both: true });
                return (own, direction);
            }
            if let Some(flows) = steering.flows(hash) {
                flows.turn(slot, tuple, own, snapshot.revision);
            }
            (own, Direction::Forward)
        }
        Choice::Plain { .. } => (choice, direction),
    }
}

/// The choice for a flow whose record is of other tables: by the policies of now, but on the path it had if that still
/// belongs to the chain.
fn renewed(snapshot: &Snapshot, steering: &mut Steering<'_>, hash: FlowHash, slot: Slot) -> Choice {
    let origin = steering.flows(hash).and_then(|flows| flows.origin(slot));
    let Some((origin, spi)) = origin else { return Choice::Plain { both: false } };
    let Some(chain) = chain_of(snapshot, &origin) else { return plain(snapshot, &origin) };
    let kept = spi.and_then(|spi| {
        let ix = snapshot.tables.paths.find(spi)?;
        let path = snapshot.tables.paths.get(ix)?;
        (path.chain == chain && !path.is_reverse).then_some((ix, spi))
    });
    steering.counts.resteered += u64::from(spi.is_some() && kept.is_none());
    Choice::Chain { chain, path: kept }
}

/// The choice for a flow that had this path, or none.
fn chosen_anew(
    snapshot: &Snapshot,
    chain: ChainIx,
    hash: FlowHash,
    had: Option<PathIx>,
    now: Timestamp,
) -> Choice {
    let path = had.and_then(|ix| snapshot.tables.paths.get(ix));
    match path.filter(|path| path.is_reverse) {
        // A reply's later fragments, entered with the reverse path.
        Some(path) => reversed(snapshot, choose(snapshot, chain, hash, path.reverse, now)),
        None => choose(snapshot, chain, hash, had, now),
    }
}

fn first_choice(snapshot: &Snapshot, tuple: &Tuple, hash: FlowHash, now: Timestamp) -> Choice {
    match chain_of(snapshot, tuple) {
        Some(chain) => choose(snapshot, chain, hash, None, now),
        None => plain(snapshot, tuple),
    }
}

/// The choice for a flow whose first direction no policy chains.
fn plain(snapshot: &Snapshot, tuple: &Tuple) -> Choice {
    let back = tuple.to.map(|to| Tuple { key: tuple.key.reversed(), from: to, to: Some(tuple.from) });
    Choice::Plain { both: back.is_some_and(|back| chain_of(snapshot, &back).is_none()) }
}

fn chain_of(snapshot: &Snapshot, tuple: &Tuple) -> Option<ChainIx> {
    let tenant = snapshot.role(tuple.from) == Some(super::Role::Tenant);
    snapshot.tables.policies.find(tuple.from, tenant, &tuple.key).map(|(_, chain)| chain)
}

/// The path of the chain that is the flow's: one that is up, else, if the chain says `bypass`, one past what is out.
pub(super) fn choose(
    snapshot: &Snapshot,
    chain: ChainIx,
    hash: FlowHash,
    had: Option<PathIx>,
    now: Timestamp,
) -> Choice {
    let Snapshot { tables, health, .. } = snapshot;
    let up = health.choose(tables, chain, hash, now);
    let path = up.or_else(|| health.around(tables, chain, hash, had));
    let path = path.and_then(|ix| Some((ix, snapshot.tables.paths.get(ix)?.spi)));
    Choice::Chain { chain, path }
}

fn set(snapshot: &Snapshot, steering: &mut Steering<'_>, hash: FlowHash, slot: Slot, choice: Choice) {
    if let Some(flows) = steering.flows(hash) {
        flows.set(slot, choice, snapshot.revision);
    }
}

fn enter(
    snapshot: &Snapshot,
    steering: &mut Steering<'_>,
    tuple: &Tuple,
    hash: FlowHash,
    choice: Choice,
    now: Timestamp,
) {
    let Some(flows) = steering.flows(hash) else { return };
    let displaced = flows.enter(hash, tuple, choice, snapshot.revision, now);
    steering.counts.flows_entered += 1;
    steering.counts.flows_displaced += u64::from(displaced);
}

/// Has a datagram's later fragments, which show no ports, take the way of the first.
fn follow(
    snapshot: &Snapshot,
    steering: &mut Steering<'_>,
    first: &Tuple,
    id: u32,
    (choice, direction): (Choice, Direction),
    now: Timestamp,
) {
    let choice = match direction {
        Direction::Forward => choice,
        Direction::Reverse => reversed(snapshot, choice),
    };
    let tuple = Tuple { key: first.key.datagram(id), ..*first };
    let hash = steering.hash(&tuple.key);
    match steering.flows(hash).and_then(|flows| flows.find(hash, None, &tuple, now)) {
        Some((slot, _)) => set(snapshot, steering, hash, slot, choice),
        None => enter(snapshot, steering, &tuple, hash, choice, now),
    }
}

/// The same choice for packets of the other direction.
fn reversed(snapshot: &Snapshot, choice: Choice) -> Choice {
    let Choice::Chain { chain, path: Some((path, _)) } = choice else { return choice };
    let paths = &snapshot.tables.paths;
    let reverse = paths.get(path).and_then(|path| path.reverse);
    match reverse.and_then(|ix| Some((ix, paths.get(ix)?.spi))) {
        Some(reverse) => Choice::Chain { chain, path: Some(reverse) },
        None => Choice::Plain { both: false },
    }
}
