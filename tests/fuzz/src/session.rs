use core::time::Duration;

use nsh::{Epoch, Seq};
use vhost_backend::liveness::{
    Answer, Cause, DriverSample, Profile, Query, Session, State, Timestamp, Transition,
};

use crate::program::Program;

/// What happens to a service VM, and when: a program of events and pauses.
///
/// # Panics
/// If a promise of `vhost_backend::liveness` is broken.
pub fn session(data: &[u8]) {
    let mut program = Program::new(data);
    let mut watch = Watch::new(profile(&mut program), Epoch::new(program.byte()));
    while let Some(operation) = program.operation() {
        watch.apply(operation, &mut program);
        watch.check();
    }
}

fn profile(program: &mut Program<'_>) -> Profile {
    let mut time = |unit: u64| Duration::from_micros(u64::from(program.word()) * unit);
    match time(1).as_micros() % 4 {
        0 => Profile::DEFAULT,
        1 => Profile::FAST,
        2 => Profile::RELAXED,
        _ => Profile {
            interval: time(1),
            timeout: time(1),
            idle_interval: time(10),
            stall: time(1),
            hold_down: time(100),
            hold_down_max: time(1000),
            multiplier: time(1).as_micros() as u32 % 40,
            recover: time(1).as_micros() as u32 % 8,
        },
    }
}

/// A query as it was asked, in this life.
struct Asked {
    seq: Seq,
    at: Timestamp,
    answered: bool,
    refused: bool,
}

struct Watch {
    session: Session,
    now: Timestamp,
    state: State,
    epoch: Epoch,
    asked: Vec<Asked>,
    /// The first query after the newest that was answered.
    unsettled: usize,
    attached: bool,
    control: bool,
    failed: bool,
    accepted: u64,
}

impl Watch {
    fn new(profile: Profile, epoch: Epoch) -> Watch {
        let now = Timestamp::from_nanos(1_000_000_000);
        Watch {
            session: Session::new(profile, epoch, now),
            now,
            state: State::Init,
            epoch,
            asked: Vec::new(),
            unsettled: 0,
            attached: false,
            control: true,
            failed: false,
            accepted: 0,
        }
    }

    fn apply(&mut self, operation: u8, program: &mut Program<'_>) {
        let (now, argument) = (self.now, operation >> 4);
        match operation % 16 {
            0 => self.now = now + Duration::from_nanos(u64::from(program.word()) << (argument + 4)),
            1 => self.frame(argument & 1 != 0),
            2 => self.answer_own(program.byte(), argument & 1 != 0),
            3 => self.answer(Epoch::new(program.byte()), program.byte(), argument & 1 != 0),
            4 => self.answer(self.epoch, program.byte(), argument & 1 != 0),
            5 => self.session.data(now),
            6 => {
                let mark = program.byte().into();
                let sample = DriverSample { mark, full: argument & 1 != 0, pending: argument & 2 != 0 };
                self.session.driver(now, sample);
            }
            7 => self.serve(),
            8 => {
                let gap = Duration::from_nanos(u64::from(program.word()) << (argument + 4));
                self.now = now + gap;
                self.session.paused(self.now, gap);
            }
            9 => {
                self.session.attached(now);
                self.attached = true;
            }
            10 => {
                self.session.detached(now);
                self.attached = false;
            }
            11 => {
                self.session.rings_stopped(now);
                self.attached = false;
            }
            12 => {
                self.session.fail(now);
                self.failed = true;
            }
            13 => {
                self.session.restore(now);
                self.failed = false;
            }
            14 => {
                self.control = argument & 1 != 0;
                self.session.control_plane(now, self.control);
            }
            // Sleeps as the worker does: until the deadline, and serves.
            _ => {
                if self.session.deadline() != Timestamp::NEVER {
                    self.now = self.now.max(self.session.deadline());
                }
                self.serve();
            }
        }
        self.drain(false);
    }

    /// A frame is handed over; with `refuse`, its ring turns out to be full.
    fn frame(&mut self, refuse: bool) {
        let Some(query) = self.session.query(self.now) else { return };
        self.note(query);
        if refuse {
            self.session.refused(query);
            self.asked.last_mut().expect("noted").refused = true;
        }
        // One more comparison gives nothing new: a query has just left, or a refused one is made up for once.
        let again = self.session.query(self.now);
        assert!(refuse || again.is_none(), "two queries at once");
        if let Some(query) = again {
            self.note(query);
        }
    }

    fn serve(&mut self) {
        if let Some(probe) = self.session.poll(self.now) {
            self.drain(false);
            self.note(probe);
        }
        // A stall that a frame has put off since is looked at once more.
        for _ in 0..2 {
            assert_eq!(self.session.poll(self.now), None, "two probes at once");
        }
        assert!(self.session.deadline() > self.now, "the worker would spin");
    }

    fn note(&mut self, query: Query) {
        assert!(self.attached, "asks through rings that do not run");
        self.life();
        assert_eq!(query.epoch, self.epoch);
        // A number that never left may be given to the next.
        self.asked.pop_if(|last| last.refused && last.seq == query.seq);
        let recent = self.asked.iter().rev().take(31).any(|asked| asked.seq == query.seq);
        assert!(!recent, "a number on its way is used again");
        self.asked.push(Asked { seq: query.seq, at: self.now, answered: false, refused: false });
    }

    /// Answers one of the newest queries.
    fn answer_own(&mut self, back: u8, dropped: bool) {
        let Some(asked) = self.asked.iter().rev().nth(usize::from(back) % 40) else { return };
        self.answer(self.epoch, asked.seq.get(), dropped);
    }

    fn answer(&mut self, epoch: Epoch, seq: u8, dropped: bool) {
        let seq = Seq::new(seq % Seq::COUNT).expect("six bits");
        let answer = self.session.response(self.now, epoch, seq, dropped);
        assert_eq!(answer == Answer::Stale, epoch != self.epoch, "{answer:?}");
        if epoch != self.epoch {
            return;
        }
        // The newest may be one whose number was given back: then one more is known.
        let place = self.asked.iter().rposition(|asked| asked.seq == seq && !asked.refused);
        let within =
            |most: usize| place.filter(|&at| self.asked.len() - at <= most && !self.asked[at].answered);
        if let Answer::Accepted { rtt } = answer {
            let at = within(33).expect("accepted what is not on its way");
            assert!(rtt <= self.now.saturating_since(self.asked[at].at), "an answer before its query");
            self.asked[at].answered = true;
            self.unsettled = self.unsettled.max(at + 1);
            self.accepted += 1;
        } else {
            assert_eq!(within(32), None, "does not know what is on its way: {answer:?}");
        }
        self.drain(matches!(answer, Answer::Accepted { .. }));
    }

    /// Takes the transitions; `accepted`: they are those of a valid answer.
    fn drain(&mut self, accepted: bool) {
        while let Some(transition) = self.session.transition() {
            self.went(&transition, accepted);
        }
        assert_eq!(self.state, self.session.state(), "a state nobody was told of");
        self.life();
    }

    fn went(&mut self, transition: &Transition, accepted: bool) {
        assert_eq!(transition.from, self.state);
        assert!(transition.to != State::Up || accepted, "Up without an answer");
        self.state = transition.to;
        if transition.from.usable() && transition.cause == Cause::NoResponse {
            let first = self.asked.get(self.unsettled).expect("Down without a query");
            let silent = self.now.saturating_since(first.at);
            assert!(silent >= self.session.profile().tolerance(), "Down after {silent:?}");
        }
    }

    /// Notices a new life.
    fn life(&mut self) {
        if self.session.epoch() != self.epoch {
            self.epoch = self.session.epoch();
            self.asked.clear();
            self.unsettled = 0;
        }
    }

    fn check(&self) {
        let session = &self.session;
        assert_eq!(session.evidence().attached, self.attached);
        assert!(self.attached || session.deadline() == Timestamp::NEVER, "waits for nothing");
        let agreed = self.attached && self.control && !self.failed;
        assert!(agreed || !session.usable(), "usable although a mechanism says no");
        assert_eq!(session.counters().responses, self.accepted);
        assert_eq!(session.state() == State::Failed, self.failed);
    }
}
