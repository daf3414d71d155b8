//! What a seed stands for.

use super::prng::SplitMix64;
use crate::liveness::Profile;
use std::ops::Range;
use std::time::Duration;

/// What a seed is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything stays within the stated tolerance: no service VM may be Down.
    Tolerable,
    /// One service VM fails in one way: noticed within the bound, with the right cause, and it comes back.
    Fault,
    /// Anything goes: nothing false may happen, and it all comes back.
    Chaos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The service process stops; its kernel lives and keeps what arrives in a socket buffer.
    Hang,
    /// The vCPU stands still.
    Freeze,
    /// The VMM dies and is started again.
    Kill,
    /// The rings are stopped and started.
    RingStop,
    /// The control plane says down, then up.
    Control,
    /// An operator says fail, then restore.
    Operator,
}

impl FaultKind {
    pub(super) const ALL: [Self; 6] =
        [Self::Hang, Self::Freeze, Self::Kill, Self::RingStop, Self::Control, Self::Operator];
}

#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) hop: usize,
    pub(super) kind: FaultKind,
    pub(super) when: Range<u64>,
}

/// What a service does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Forward,
    Drop,
    Copy,
}

/// How frames fare between proxy and service, and back.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    /// From the driver taking a frame to the answer lying in the transmit ring.
    pub(super) latency: Range<u64>,
    /// Of a thousand frames, in either direction.
    pub(super) lost: u64,
    /// Of a thousand answers.
    pub(super) doubled: u64,
    /// Of a thousand answers: another one with a number out of the air.
    pub(super) forged: u64,
}

/// Everything that happens from outside, in nanoseconds since the start.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) kind: Kind,
    pub(super) profile: Profile,
    pub(super) services: Vec<Service>,
    /// Receive ring of each service VM.
    pub(super) ring: usize,
    /// Frames that wait in the socket of a hung service.
    pub(super) socket: usize,
    /// Distance of the tenant's packets, and when there are any.
    pub(super) gap: Range<u64>,
    pub(super) traffic: Vec<Range<u64>>,
    /// Lateness of the worker's timer, and time from a kick to its round.
    pub(super) lateness: u64,
    pub(super) conditions: Conditions,
    pub(super) faults: Vec<Fault>,
    /// The worker does not run.
    pub(super) pauses: Vec<Range<u64>>,
    /// It tells its sessions so.
    pub(super) told: bool,
    /// Nothing on the host runs while the worker does not.
    pub(super) host_wide: bool,
    /// From here on nothing is wrong any more.
    pub(super) calm: u64,
    pub(super) end: u64,
}

impl Scenario {
    pub(super) fn new(seed: u64) -> Self {
        let rng = &mut SplitMix64::new(seed);
        let kind = [Kind::Tolerable, Kind::Fault, Kind::Chaos][(seed % 3) as usize];
        let profile = profile(rng);
        let unit = nanos(profile.interval);
        let hops = rng.pick(&[1, 2, 2, 3]);
        let services = (0..hops)
            .map(|_| match rng.within(0..10) {
                0 => Service::Drop,
                1 => Service::Copy,
                _ => Service::Forward,
            })
            .collect();
        let calm = unit * rng.within(80..130);
        let mut scenario = Self {
            kind,
            profile,
            services,
            ring: rng.pick(&[8, 32, 128]),
            socket: rng.pick(&[0, 16, 64]),
            gap: gap(rng, unit),
            traffic: Vec::new(),
            lateness: unit / 100 * rng.pick(&[1, 1, 5, 10]),
            conditions: Conditions {
                latency: unit / 100..unit / 10,
                lost: 0,
                doubled: rng.pick(&[0, 20, 200]),
                forged: 0,
            },
            faults: Vec::new(),
            pauses: Vec::new(),
            told: rng.chance(500),
            host_wide: false,
            calm,
            end: calm + return_time(&profile),
        };
        scenario.traffic = traffic(rng, unit, scenario.end);
        match kind {
            Kind::Tolerable => scenario.tolerable(rng),
            Kind::Fault => scenario.fault(rng),
            Kind::Chaos => scenario.chaos(rng),
        }
        scenario
    }

    pub(super) fn unit(&self) -> u64 {
        nanos(self.profile.interval)
    }

    /// Longest time from a frame in the ring to its answer in the worker's hands.
    pub(super) fn slowest(&self) -> u64 {
        self.conditions.latency.end + 3 * self.lateness
    }

    /// Loss at random, latency and short freezes that leave an interval of the tolerance, and pauses of the
    /// worker, or of all the host, of any length.
    fn tolerable(&mut self, rng: &mut SplitMix64) {
        let unit = self.unit();
        self.conditions.lost = rng.pick(&[0, 10, 20]);
        let tolerance = nanos(self.profile.tolerance()).min(nanos(self.profile.stall));
        let slack = (tolerance - unit).saturating_sub(6 * self.lateness);
        self.host_wide = rng.chance(300);
        if rng.chance(300) {
            self.conditions.latency = slack / 10..slack / 2;
        }
        let longest = slack.saturating_sub(self.conditions.latency.end);
        let mut from = unit * rng.within(5..30);
        while rng.chance(700) && from + longest < self.calm {
            let when = from..from + rng.within(1..longest.max(2));
            from = when.end + 3 * tolerance;
            let hop = rng.within(0..self.services.len() as u64) as usize;
            self.faults.push(Fault { hop, kind: FaultKind::Freeze, when });
        }
        self.pause(rng, 1);
    }

    fn fault(&mut self, rng: &mut SplitMix64) {
        let unit = self.unit();
        self.conditions.lost = rng.pick(&[0, 0, 10]);
        let from = unit * rng.within(20..40) + rng.within(0..unit);
        let until = from + unit * rng.within(1..60);
        self.faults.push(Fault {
            hop: rng.within(0..self.services.len() as u64) as usize,
            kind: rng.pick(&FaultKind::ALL),
            when: from..until.min(self.calm),
        });
        if rng.chance(200) {
            self.pause(rng, 1);
        }
    }

    fn chaos(&mut self, rng: &mut SplitMix64) {
        let unit = self.unit();
        self.conditions.lost = rng.pick(&[0, 50, 200, 600]);
        self.conditions.forged = rng.pick(&[0, 0, 300]);
        self.conditions.latency = 0..unit / 10 * rng.pick(&[1, 10, 60]);
        self.host_wide = rng.chance(300);
        for hop in 0..self.services.len() {
            let mut from = unit * rng.within(1..20);
            while rng.chance(850) {
                let longest = unit * rng.pick(&[2, 10, 40]);
                let when = from..from + rng.within(1..longest);
                if when.end >= self.calm {
                    break;
                }
                from = when.end + rng.within(0..unit * 20);
                self.faults.push(Fault { hop, kind: rng.pick(&FaultKind::ALL), when });
            }
        }
        self.pause(rng, 3);
    }

    fn pause(&mut self, rng: &mut SplitMix64, most: u64) {
        let unit = self.unit();
        let mut from = unit * rng.within(2..40);
        while rng.chance(600) {
            let when = from..from + rng.within(0..unit * 6 * most);
            from = when.end + unit * rng.within(3..40);
            if when.end >= self.calm {
                break;
            }
            self.pauses.push(when);
        }
    }
}

fn profile(rng: &mut SplitMix64) -> Profile {
    let named = rng.pick(&[Profile::DEFAULT, Profile::DEFAULT, Profile::FAST, Profile::RELAXED]);
    let interval = named.interval;
    let multiplier = rng.pick(&[3, 3, 3, 2, 4, 8]);
    let hold_down = interval * rng.within(5..15) as u32;
    let profile = Profile {
        timeout: interval / 2 * rng.pick(&[2, 2, 2, 1, 3, 4]),
        multiplier,
        stall: interval * multiplier,
        recover: rng.within(1..6) as u32,
        hold_down,
        hold_down_max: hold_down * rng.pick(&[1, 2, 4]),
        ..named
    };
    assert_eq!(profile.check(), Ok(()));
    profile
}

fn gap(rng: &mut SplitMix64, unit: u64) -> Range<u64> {
    let shortest = unit / 10 * rng.pick(&[2, 5, 10]);
    shortest..shortest * rng.pick(&[1, 2, 3])
}

/// All the time, now and then, or never.
fn traffic(rng: &mut SplitMix64, unit: u64, end: u64) -> Vec<Range<u64>> {
    match rng.within(0..5) {
        0 => Vec::new(),
        1 | 2 => std::iter::once(0..end).collect(),
        _ => {
            let mut bursts = Vec::new();
            let mut from = 0;
            while from < end {
                let when = from..from + unit * rng.within(1..40);
                from = when.end + unit * rng.within(1..40);
                bursts.push(when);
            }
            bursts
        }
    }
}

/// Everything is Up this long after the last fault: the next probe, a row of answers, the longest hold-down, and
/// as much again as a lost row costs.
fn return_time(profile: &Profile) -> u64 {
    nanos(profile.hold_down_max)
        + 3 * nanos(profile.idle_interval)
        + nanos(profile.interval) * (u64::from(profile.recover) + 10)
        + 2 * nanos(profile.tolerance())
}

pub(super) fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}
