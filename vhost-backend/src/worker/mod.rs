//! The poll loop: reads batches, decides, delivers, tends the liveness sessions, sleeps.
//!
//! ```text
//! round: for every port   read ≤ 32 chains (a tap: frames) -> decide each -> deliver by destination -> complete the batch
//!        then             driver evidence, timers, probes -> transitions -> swap tables, then announce
//! offer: four times a millisecond whoever waits for this core has it for a moment
//! idle:  re-arm every ring, look once more, sleep until a kick, a wake or the next liveness deadline
//! doze:  what ended the sleep was a probe that is due, or an answer to one: see to that alone, sleep on
//! ```
//!
//! The clock is read once a round. Each queue pair is served by one worker; what workers share (receive rings, liveness
//! sessions, flows) is behind locks that are taken once a batch and held for microseconds. Tables come as whole
//! snapshots, and the ports as a whole table that a worker is handed between two rounds.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod answers;
mod clock;
mod courtesy;
mod decide;
mod delivery;
mod doze;
mod fitting;
mod hold;
mod patience;
mod ports;
mod presence;
mod salvage;
mod share;
mod sink;
mod sleep;
mod spread;
mod standstill;
mod tables;
mod tend;
mod wake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{CpuSet, sched_setaffinity};

pub use clock::monotonic_now;
pub(crate) use ports::Ports;
pub(crate) use share::{Share, homes, share};
pub(crate) use standstill::Standstill;
pub use tables::Tables;
pub use wake::{Wake, Wakes};

use self::clock::thread_time;
use self::courtesy::Courtesy;
use self::decide::Batch;
use self::patience::Patience;
use self::presence::Presence;
use self::sleep::Sleeper;
use crate::chain::{Counts, Learned, PortId};
use crate::liveness::Timestamp;
use crate::port::Port;
use crate::ring::{BATCH, Frames, Split};
use crate::telemetry::{EventSender, WorkerCounters};

/// Driver evidence and timers are looked at this often while frames keep a worker busy.
const TEND: Duration = Duration::from_micros(100);
/// A round that begins later than this after it could have is a pause of our own, not the service VM's, whatever the time went
/// into.
const PAUSE: Duration = Duration::from_millis(1);
/// So is a shorter one, from this on, as far as the thread was not on its core. What is shorter still goes unnoticed, and is forgiven to
/// every service VM: a query may leave so much later than it is dated.
pub(crate) const UNNOTICED: Duration = Duration::from_micros(100);
/// After the start of the host VMMs come back in this time: QEMU tries every second.
const STARTING: Duration = Duration::from_secs(2);
/// A tenant that attaches then waits in its ring for so long at most, until the service VMs have answered.
const GRACE: Duration = Duration::from_millis(250);
/// The longest sleep, and the longest time that a worker does not look at all its ports.
const LONGEST_DOZE: Duration = Duration::from_secs(1);
/// A queue pair that gave nothing for this many rounds is quiet.
const QUIET: u32 = 64;
/// A quiet one is looked at in one of this many rounds at most: among hundreds of ports, those with traffic should not wait
/// for the others.
const SELDOM: u32 = 8;
/// Of so many pairs a look at each costs less than a frame would wait that came to a quiet one.
const FEW: usize = 4;

/// What the control loop may ask of a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Tell the liveness session of this service port.
    Session(PortId, Act),
    /// Take up what became of the links, then serve these ports' shares from now on. The last word is dropped then.
    Serve(Arc<Common>, Vec<Share>, Obeyed),
    /// Take up what became of the links. The last word is dropped then.
    Follow(Obeyed),
    /// Leave what tenants and taps send where it is from now on. The last word is dropped then.
    Drain(Obeyed),
    /// End.
    Stop,
}

/// Dropped by a worker when it has obeyed, or is gone.
pub(crate) type Obeyed = Sender<()>;

/// What another mechanism than the data plane says of a service VM (¶71 ¶72).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The operator takes it out as failed.
    Fail,
    /// The operator takes it out for maintenance: what it has been handed goes on.
    Maintain,
    /// The operator gives it back.
    Restore,
    /// The control plane sees it up, or not.
    ControlPlane(bool),
}

/// What all workers of a host share. The ports are those of one time, and all the rest is the same for good.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    /// The host's number, which travels in the NSH origin.
    pub(crate) host: u16,
    pub(crate) ports: Ports,
    pub(crate) tables: Arc<Tables>,
    pub(crate) learned: Arc<Learned>,
    pub(crate) events: EventSender,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) standstill: Arc<Standstill>,
}

/// One datapath thread and the queue pairs it serves.
pub(crate) struct Worker {
    number: usize,
    common: Arc<Common>,
    duties: Vec<Duty>,
    /// Links have changed this often when the worker last looked.
    seen_changes: u64,
    counts: Counts,
    counters: Arc<WorkerCounters>,
    commands: Receiver<Command>,
    sleeper: Sleeper,
    patience: Patience,
    presence: Presence,
    courtesy: Courtesy,
    batch: Box<Batch>,
    /// The batch last read from a tap.
    frames: Frames,
    rounds: u32,
    /// The host's start is over then.
    started: Timestamp,
    /// When the next round should begin at the latest, for telling our own pauses.
    due: Timestamp,
    /// When sessions are tended next.
    tend_at: Timestamp,
    /// When the control loop is to hear at the latest that a service VM is down.
    news_at: Timestamp,
}

/// A share of a port as its worker keeps it.
struct Duty {
    share: Share,
    /// The attachment's change count when the worker last looked.
    seen_changes: u64,
    /// Its transmit rings are left alone until then.
    waits: Timestamp,
    /// Rounds since the last frame.
    idle: u32,
    /// The port is a tap.
    tap: bool,
    /// While the worker dozes: when its session is tended next.
    deadline: Timestamp,
}

impl Duty {
    fn new(share: Share, tap: bool) -> Duty {
        let waits = Timestamp::from_nanos(0);
        Duty { share, seen_changes: 0, waits, idle: 0, tap, deadline: Timestamp::NEVER }
    }
}

impl Worker {
    /// Worker `number` of those that share `common`.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub(crate) fn new(
        number: usize,
        common: Arc<Common>,
        shares: Vec<Share>,
        counters: Arc<WorkerCounters>,
        commands: Receiver<Command>,
    ) -> std::io::Result<Self> {
        let now = monotonic_now();
        let sleeper = Sleeper::new(Arc::clone(&common.wakes), number)?;
        let mut worker = Self {
            number,
            common,
            duties: Vec::new(),
            seen_changes: 0,
            counts: Counts::default(),
            counters,
            commands,
            sleeper,
            patience: Patience::new(now),
            presence: Presence::default(),
            courtesy: Courtesy::new(now),
            batch: Batch::new(),
            frames: warm(Frames::new()),
            rounds: 0,
            started: now + STARTING,
            due: now,
            tend_at: now,
            news_at: Timestamp::NEVER,
        };
        worker.take_up(Arc::clone(&worker.common), shares);
        Ok(worker)
    }

    /// Runs until [`Command::Stop`] or until the host is gone.
    pub(crate) fn run(mut self) {
        let mut now = monotonic_now();
        loop {
            let back = self.offer_core(now);
            if back > now {
                self.counters.stirred(back.saturating_since(now), false);
                now = back;
            }
            self.excuse_pause(now);
            if self.obey(now) == Flow::Stop {
                self.common.events.wake();
                return self.batch.account.tell(self.number);
            }
            let served = self.round(now);
            let after = monotonic_now();
            let took = after.saturating_since(now);
            if served > 0 {
                self.counters.busy(took);
                if self.batch.traffic {
                    self.patience.served(now);
                }
            } else {
                self.counters.idle(took);
                if self.patience.exhausted(now) {
                    // What ended the sleep need not be frames; only those are worth polling on.
                    now = self.rest(after);
                    continue;
                }
            }
            now = after;
        }
    }

    /// Serves these shares from now on, and no others. What it serves already goes on as if nothing had happened.
    fn take_up(&mut self, common: Arc<Common>, shares: Vec<Share>) {
        let mut before: BTreeMap<usize, Duty> =
            self.duties.drain(..).map(|duty| (duty.share.port, duty)).collect();
        let ports = &common.ports;
        let mut fresh = Vec::with_capacity(shares.len());
        for share in shares {
            let stays = self.common.ports.is_same(ports, share.port);
            let stays = stays && before.get(&share.port).is_some_and(|duty| duty.share == share);
            let duty = if stays { before.remove(&share.port) } else { None };
            let tap = ports.get(share.port).is_some_and(|port| port.tap.is_some());
            fresh.push(duty.unwrap_or_else(|| Duty::new(share, tap)));
        }
        let gives_up = !before.is_empty();
        for (port, duty) in before {
            self.sleeper.watch(port, Vec::new());
            let port = self.common.ports.get(port);
            for queue in port.into_iter().flat_map(|port| port.open_queues(&duty.share.pairs)) {
                queue.descriptor().into_iter().for_each(|queue| self.sleeper.ignore(queue));
            }
        }
        self.duties = fresh;
        self.common = common;
        self.prepare_for_taps();
        // Whoever served them before may not have seen the last change.
        self.seen_changes = self.common.wakes.changes().wrapping_sub(1);
        if gives_up {
            // Waking up, this worker may have asked for no kicks on a ring that its new worker sleeps on.
            self.common.wakes.wake_all();
        }
    }

    /// Has what frames of taps come and go by, if there are taps.
    fn prepare_for_taps(&mut self) {
        if !self.common.ports.iter().any(|port| port.tap.is_some()) {
            return;
        }
        if let Err(error) = self.batch.exchange.use_uring() {
            let worker = self.number;
            log::info!(worker, error:%; "no io_uring; each frame of a tap takes a system call");
        }
    }

    /// One round over all shares; gives the number of frames served.
    fn round(&mut self, now: Timestamp) -> usize {
        self.follow_links(now);
        self.rounds = self.rounds.wrapping_add(1);
        self.common.standstill.begin_round(self.number);
        self.batch.traffic = false;
        let mut served = 0;
        let seldom = ((self.duties.len() / FEW) as u32).clamp(1, SELDOM);
        for index in 0..self.duties.len() {
            let Some(duty) = self.duties.get(index) else { break };
            // Each quiet one in another round.
            if duty.idle >= QUIET && !self.rounds.wrapping_add(index as u32).is_multiple_of(seldom) {
                continue;
            }
            if now < duty.waits {
                continue;
            }
            if self.common.standstill.is_wanted() {
                break;
            }
            let frames = self.serve(index, now);
            served += frames;
            self.steer_late(now);
            if let Some(duty) = self.duties.get_mut(index) {
                // A look at a tap is a system call, so one in vain is enough.
                let step = if duty.tap { QUIET } else { 1 };
                duty.idle = if frames > 0 { 0 } else { duty.idle.saturating_add(step) };
            }
        }
        self.common.standstill.end_round(self.number);
        if now >= self.tend_at {
            self.tend(now);
            self.counters.flows_displaced(self.counts.flows_displaced);
        }
        self.due = now;
        served
    }

    /// Lets who waits for this core have it for a moment, if it is time for that; gives the time then. While first frames are awaited
    /// they go before everybody.
    fn offer_core(&mut self, now: Timestamp) -> Timestamp {
        if self.news_at != Timestamp::NEVER || !self.courtesy.is_due(now) {
            return now;
        }
        std::thread::yield_now();
        let back = monotonic_now();
        self.courtesy.offered(back, back.saturating_since(now));
        back
    }

    /// The same in the course of a salvage, for which other workers stand still: for those alone who carry its news.
    fn offer_core_for_news(&mut self, now: Timestamp) {
        if self.courtesy.has_news(now) {
            self.offer_core(now);
        }
    }

    /// Whatever kept this thread from its rounds kept it from hearing answers too.
    fn excuse_pause(&mut self, now: Timestamp) {
        let gap = now.saturating_since(self.due);
        self.counters.paused(gap);
        if gap <= UNNOTICED {
            return self.presence.came();
        }
        let absent = self.presence.absent(now, gap, thread_time());
        let pause = if gap > PAUSE { gap } else { absent };
        if pause > Duration::ZERO {
            for mut proxy in self.services().filter_map(Port::proxy) {
                proxy.session.paused(now, pause);
            }
        }
    }

    /// Sleeps, unless a frame came while the rings were being armed; gives the time, which is accounted for until then.
    #[inline(never)]
    fn rest(&mut self, now: Timestamp) -> Timestamp {
        // Unless the round that found nothing did it.
        if self.tend_at != self.due + TEND {
            self.tend(now);
        }
        // While there is news first frames may be under way, in the hands of VMs, and are waited for.
        if self.arm() || self.news_at != Timestamp::NEVER {
            self.disarm();
            let after = monotonic_now();
            self.counters.idle(after.saturating_since(now));
            return after;
        }
        self.doze(now)
    }

    /// Asks every driver for a kick; true when one has something already, or could not be asked.
    fn arm(&mut self) -> bool {
        let waiting = self.duties.iter().any(|duty| self.arm_rings_of(duty));
        if waiting {
            self.duties.iter_mut().for_each(|duty| duty.idle = 0);
        }
        waiting
    }

    /// The same for the rings of one share.
    fn arm_rings_of(&self, duty: &Duty) -> bool {
        let mut waiting = false;
        let all = self.each_ring_of(duty, |ring| waiting |= ring.arm());
        waiting || !all
    }

    fn disarm(&mut self) {
        self.duties.iter().for_each(|duty| _ = self.each_ring_of(duty, Split::disarm));
    }

    /// Each transmit ring of a share; false when a control thread had one of them.
    fn each_ring_of(&self, duty: &Duty, mut act: impl FnMut(&mut Split)) -> bool {
        let Some(port) = self.common.ports.get(duty.share.port).filter(|_| !duty.tap) else { return true };
        let mut all = true;
        for pair in &duty.share.pairs {
            match port.attachment.transmit(*pair) {
                Some(mut slot) => _ = slot.split().map(&mut act),
                None => all = false,
            }
        }
        all
    }

    /// Before ports go: what became of their links, and what came for them since.
    fn part(&mut self, now: Timestamp) {
        self.follow_links(now);
        self.tend(now);
    }

    /// Before the end: only service VMs are heard any more.
    fn take_nothing_new(&mut self) {
        let ports = &self.common.ports;
        let is_service = |duty: &Duty| ports.get(duty.share.port).is_some_and(Port::is_service);
        let others = self.duties.iter_mut().filter(|duty| !is_service(duty));
        others.for_each(|duty| duty.waits = Timestamp::NEVER);
        // Nor does the end of the host's start let them in.
        self.started = Timestamp::from_nanos(0);
    }

    fn obey(&mut self, now: Timestamp) -> Flow {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Flow::Stop,
                Err(TryRecvError::Empty) => return Flow::Go,
                Ok(Command::Serve(common, shares, _obeyed)) => {
                    if !Arc::ptr_eq(&common, &self.common) {
                        self.part(now);
                    }
                    self.take_up(common, shares);
                }
                Ok(Command::Follow(_obeyed)) => self.part(now),
                Ok(Command::Drain(_obeyed)) => self.take_nothing_new(),
                Ok(Command::Session(port, act)) => {
                    let common = Arc::clone(&self.common);
                    let Some(port) = common.ports.get(port.index()) else { continue };
                    if let Some(mut proxy) = port.proxy() {
                        match act {
                            Act::Fail => proxy.session.fail(now),
                            Act::Maintain => proxy.session.maintain(now),
                            Act::Restore => proxy.session.restore(now),
                            Act::ControlPlane(up) => proxy.session.control_plane(now, up),
                        }
                    }
                    self.announce(&common, port, now);
                }
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

/// The same frames, with a page of memory under each: they are needed when a service VM is down and there is no time to get it.
fn warm(mut frames: Frames) -> Frames {
    frames.fill(BATCH, |place| {
        place.first_mut().map(|first| *first = 0)?;
        Some(1)
    });
    frames
}

/// A number no guest can guess: it seeds hash tables, so that none can aim at a bucket.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    if getrandom(&mut bytes, GetRandomFlags::empty()).is_err() {
        // Only a kernel without the system call refuses; tables then work with a seed that can be guessed.
        return monotonic_now().as_nanos();
    }
    u64::from_ne_bytes(bytes)
}

/// Pins the calling thread to a core; not being able to costs speed only.
pub(crate) fn pin_to(cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return log::warn!(cpu; "no such core; a worker is not pinned");
    }
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        log::warn!(cpu, error:%; "cannot pin a worker to its core");
    }
}
