//! Every state change the datapath announces, declared once.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::chain::{ChainMode, Generation, PortId};
use crate::liveness::{Timestamp, Transition};
use crate::ring::Broken;
use crate::worker::Wake;

/// Events that wait for the control loop. A full channel loses the newest and counts it.
const PENDING: usize = 1024;

/// Something an operator may want to know, with the instant it was noticed.
#[derive(Debug, Clone)]
pub struct Event {
    /// When, on the monotonic clock.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What a service VM left when it went down, and when it was steered again: the steps of a failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salvage {
    /// Frames that it never took.
    pub salvaged: u64,
    /// Copies of frames that it took and did not answer.
    pub replayed: u64,
    /// When no table sent anything to it any more and every worker had heard of it.
    pub swapped: Timestamp,
    /// When the first of them had been given to who is next on its new path; `None` if there were none.
    pub first: Option<Timestamp>,
    /// When all of them had.
    pub done: Timestamp,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// A driver runs both rings of the port.
    PortUp(PortId),
    /// The port's rings stopped or its VMM is gone.
    PortDown(PortId),
    /// The driver broke the rules of the ring; the port is out until it is set up anew.
    RingBroken(PortId, Broken),
    /// A service VM changed state.
    Service(PortId, Transition),
    /// What it left has been steered again.
    Salvaged(PortId, Salvage),
    /// Another thing becomes of the packets of the chain of this name: its last path went down, or a path came back.
    Chain(Arc<str>, ChainMode),
    /// A service VM answers too slowly from now on, or in time again.
    Degraded(PortId, bool),
    /// A new snapshot is in force on every worker.
    Tables(Generation),
}

impl EventKind {
    /// The port it is about, if it is about one.
    #[must_use]
    pub fn port(&self) -> Option<PortId> {
        match self {
            Self::PortUp(port)
            | Self::PortDown(port)
            | Self::RingBroken(port, _)
            | Self::Service(port, _)
            | Self::Salvaged(port, _)
            | Self::Degraded(port, _) => Some(*port),
            Self::Chain(..) | Self::Tables(_) => None,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortUp(_) => f.write_str("port up"),
            Self::PortDown(_) => f.write_str("port down"),
            Self::RingBroken(_, why) => write!(f, "ring broken: {why}"),
            Self::Service(_, t) => write!(f, "service {} -> {}: {}", t.from, t.to, t.cause),
            Self::Salvaged(_, left) => {
                write!(f, "{} frames salvaged, {} replayed", left.salvaged, left.replayed)
            }
            Self::Chain(name, mode) => write!(f, "chain {name}: {}", mode.as_str()),
            Self::Degraded(_, true) => f.write_str("service degraded"),
            Self::Degraded(_, false) => f.write_str("service no longer degraded"),
            Self::Tables(generation) => write!(f, "tables of generation {generation}"),
        }
    }
}

/// A bounded channel from the workers to the control loop.
///
/// # Errors
/// The process is out of file descriptors.
pub fn events() -> std::io::Result<(EventSender, EventReceiver)> {
    let (sender, receiver) = sync_channel(PENDING);
    let wake = Arc::new(Wake::new()?);
    let lost = Arc::new(AtomicU64::new(0));
    Ok((
        EventSender { sender, wake: Arc::clone(&wake), lost: Arc::clone(&lost) },
        EventReceiver { receiver, wake, lost },
    ))
}

/// The workers' end.
#[derive(Debug, Clone)]
pub struct EventSender {
    sender: SyncSender<Event>,
    wake: Arc<Wake>,
    lost: Arc<AtomicU64>,
}

impl EventSender {
    /// Announces an event; never blocks.
    pub fn send(&self, at: Timestamp, kind: EventKind) {
        self.queue(at, kind);
        self.wake();
    }

    /// Announces an event to a control loop that need not hear of it before [`wake`](Self::wake); never blocks.
    pub(crate) fn queue(&self, at: Timestamp, kind: EventKind) {
        if self.sender.try_send(Event { at, kind }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events wait for the control loop.
    pub(crate) fn wake(&self) {
        self.wake.wake();
    }
}

/// The control loop's end. Its descriptor is readable when events wait.
#[derive(Debug)]
pub struct EventReceiver {
    receiver: Receiver<Event>,
    wake: Arc<Wake>,
    lost: Arc<AtomicU64>,
}

impl EventReceiver {
    /// The next event, if one waits.
    #[must_use]
    pub fn try_next(&self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// Forgets the signals so far. Call it before draining with [`try_next`](Self::try_next), so that an event
    /// sent meanwhile signals again.
    pub fn clear(&self) {
        self.wake.clear();
    }

    /// Events lost because the control loop did not keep up.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl AsFd for EventReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::liveness::{Cause, Evidence, State};

    fn readable(receiver: &EventReceiver) -> bool {
        let mut polled = [PollFd::new(receiver, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn events_come_in_order_and_the_descriptor_says_when() {
        let (sender, receiver) = events().unwrap();
        assert!(!readable(&receiver));
        for at in 1..=2 {
            sender.send(Timestamp::from_nanos(at), EventKind::PortUp(PortId::new(7)));
        }
        assert!(readable(&receiver));
        receiver.clear();
        let times: Vec<_> =
            std::iter::from_fn(|| receiver.try_next()).map(|event| event.at.as_nanos()).collect();
        assert_eq!(times, [1, 2]);
        assert!(!readable(&receiver));
    }

    #[test]
    fn a_control_loop_that_does_not_keep_up_loses_the_newest_and_knows() {
        let (sender, receiver) = events().unwrap();
        for at in 0..PENDING as u64 + 3 {
            sender.send(Timestamp::from_nanos(at), EventKind::PortDown(PortId::new(1)));
        }
        assert_eq!(receiver.lost(), 3);
        assert_eq!(receiver.try_next().unwrap().at.as_nanos(), 0);
        drop(receiver);
        // Nobody listens any more: still no reason to block or fail.
        sender.send(Timestamp::from_nanos(9), EventKind::PortDown(PortId::new(1)));
    }

    #[test]
    fn every_kind_says_what_happened_and_where() {
        let port = PortId::new(4);
        let transition = Transition {
            from: State::Suspect,
            to: State::Down,
            cause: Cause::NoResponse,
            evidence: Evidence::default(),
            at: Timestamp::from_nanos(1),
        };
        let why = Broken::Head { head: 9, size: 8 };
        let (swapped, done) = (Timestamp::from_nanos(2), Timestamp::from_nanos(3));
        let left = Salvage { salvaged: 7, replayed: 2, swapped, first: Some(done), done };
        let kinds = [
            (EventKind::PortUp(port), Some(port), "port up"),
            (EventKind::PortDown(port), Some(port), "port down"),
            (
                EventKind::RingBroken(port, why),
                Some(port),
                "ring broken: available entry names descriptor 9 of a table of 8",
            ),
            (EventKind::Service(port, transition), Some(port), "service suspect -> down: no-response"),
            (EventKind::Salvaged(port, left), Some(port), "7 frames salvaged, 2 replayed"),
            (EventKind::Chain("inspect".into(), ChainMode::Blocked), None, "chain inspect: blocked"),
            (EventKind::Degraded(port, true), Some(port), "service degraded"),
            (EventKind::Degraded(port, false), Some(port), "service no longer degraded"),
            (EventKind::Tables(Generation(3)), None, "tables of generation 3"),
        ];
        for (kind, about, words) in kinds {
            assert_eq!((kind.port(), kind.to_string().as_str()), (about, words));
        }
    }
}
