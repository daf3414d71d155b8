//! The demo's course of events, and the measuring of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use test_vm::guest::Fault;
use vhost_backend::liveness::{State, Timestamp};
use vhost_backend::port::ServiceStatus;
use vhost_backend::telemetry::PortCounters;
use vhost_backend::worker::monotonic_now;

use super::cast::{GuestKind, SERVICES, Tally, VICTIM};
use super::recording::Recording;
use super::report::{
    DemoReport, Detection, EvidenceLine, Guests, Liveness, Packets, PathLine, Rate, ServiceLine, Steps,
};
use super::stage::Stage;
use super::view::View;
use crate::agent::{Applied, Delivered};
use crate::daemon::{Daemon, Occurrence};

/// What to show.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// What plays the VMs.
    pub guests: GuestKind,
    /// How svm2 fails.
    pub fault: Fault,
    /// How long traffic flows, before and after the fault together.
    pub duration: Duration,
    /// Packets a second.
    pub rate: u64,
    /// Name of the liveness profile.
    pub liveness: String,
    /// What is retained of the frames handed to each service VM, as in the configuration file.
    pub retain: String,
    /// Write the frames of svm2 there.
    pub capture: Option<PathBuf>,
}

/// Plays the demo.
///
/// # Errors
/// The stage cannot be set, or something that must happen does not.
pub fn play(options: &DemoOptions, view: &mut View) -> Result<DemoReport> {
    let mut play = Play { stage: Stage::set(options, view)?, view, fault: options.fault };
    play.view.say("controller, two host daemons and eight VMs are running");
    play.view.say(&format!("the controller's status page is {}/", play.stage.controller()));
    let capture = options
        .capture
        .as_ref()
        .map(|file| Recording::start(&play.stage.admin(), VICTIM, file))
        .transpose()?;
    let (pace, mut calm) = (play.stage.cast.pace(), None);
    play.until("every service VM answers", |stage| {
        let well = |session: ServiceStatus| session.state == State::Up && !session.degraded;
        if !SERVICES.iter().all(|name| stage.session(name).is_some_and(well)) {
            calm = None;
        }
        calm.get_or_insert_with(Instant::now).elapsed() >= pace.calm
    })?;
    play.view.say("every service VM answers its queries; traffic begins, vm5 -> SPI 1 -> vm6");
    play.stage.start_traffic(options.rate)?;
    play.until("traffic arrives", |stage| stage.arrived() > 0)?;
    let before_mpps = play.flow(options.duration / 2);

    let detection = play.fail()?;
    let after_mpps = play.flow(options.duration / 2);
    let (services, paths) = (play.services(), play.paths());

    play.heal()?;
    play.stage.cast.stop_traffic()?;
    play.flow(pace.settle);
    let report = DemoReport {
        packets: play.packets()?,
        detection,
        services,
        paths,
        liveness: play.liveness(),
        rate: Rate { before_mpps, after_mpps },
        guests: play.guests(),
    };
    if let Some(capture) = capture {
        let (file, frames) = capture.finish()?;
        play.view.say(&format!("{frames} frames of {VICTIM} are in {}", file.display()));
    }
    play.view.erase();
    Ok(report)
}

fn micros(from: Timestamp, to: Timestamp) -> u64 {
    whole_micros(to.saturating_since(from))
}

fn whole_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What the controller made of it that svm2 is down: the report, stored, and its table without SPI 1, in force on both hosts.
struct Settled {
    report: Delivered,
    /// As the host of the VMs took the table.
    table: Applied,
    /// When both had it in force.
    all_applied_at: Timestamp,
}

fn settled(stage: &Stage, noticed: Timestamp) -> Option<Settled> {
    let mut delivered = stage.daemon.agent()?.delivered().into_iter();
    let report = delivered.find(|report| report.service == VICTIM && report.noticed_at >= noticed)?;
    let table = without_victim(&stage.daemon, noticed)?;
    let all_applied_at = without_victim(&stage.second, noticed)?.applied_at.max(table.applied_at);
    Some(Settled { report, table, all_applied_at })
}

/// The table without SPI 1 that a host has in force. On a busy machine SPI 1 may have been out before; then no other one comes.
fn without_victim(host: &Daemon, noticed: Timestamp) -> Option<Applied> {
    let applied = host.agent()?.applied();
    let newer = applied.iter().find(|table| table.applied_at >= noticed && table.down.contains(&1));
    let table = newer.or(applied.last().filter(|table| table.down.contains(&1)))?;
    let (came_at, applied_at) = (table.came_at.max(noticed), table.applied_at.max(noticed));
    Some(Applied { came_at, applied_at, ..table.clone() })
}

/// How the proxy noticed, and what it did at once.
struct Noticed {
    cause: String,
    at: Timestamp,
    swapped_after_us: u64,
    first_after_us: Option<u64>,
    done_after_us: u64,
}

/// When the new path carried its first frames.
#[derive(Clone, Copy)]
struct Arrival {
    stood_in: Timestamp,
    arrived: Timestamp,
}

/// Looks out for them, from before the fault on: some faults are being made for longer than it takes to notice them.
#[derive(Default)]
struct Watch {
    /// When the stand-in was first seen to forward, and what had arrived by then.
    stands_in: Option<(Timestamp, u64)>,
    arrival: Option<Arrival>,
}

impl Watch {
    fn look(&mut self, stage: &Stage) -> Option<Arrival> {
        let arrived = stage.arrived();
        match self.stands_in {
            Some((stood_in, then)) if self.arrival.is_none() && arrived > then => {
                self.arrival = Some(Arrival { stood_in, arrived: monotonic_now() });
            }
            Some(_) => {}
            None => self.stands_in = stage.stood_in().then(|| (monotonic_now(), arrived)),
        }
        self.arrival
    }
}

/// What the daemon's events tell of it, once what svm2 left is steered again.
fn noticed(stage: &Stage, fault: Timestamp) -> Option<Noticed> {
    let mut down = None;
    let events = stage.daemon.events(0).into_iter();
    for entry in events.filter(|entry| entry.at_ns >= fault.as_nanos()) {
        match (entry.occurrence, &down) {
            (Occurrence::Service { service, to, cause, .. }, None) if service == VICTIM && to == "down" => {
                down = Some((cause, entry.at_ns));
            }
            (
                Occurrence::Salvaged { service, swapped_after_us, first_after_us, done_after_us, .. },
                Some((cause, at)),
            ) if service == VICTIM => {
                let (cause, at) = (cause.clone(), Timestamp::from_nanos(*at));
                return Some(Noticed { cause, at, swapped_after_us, first_after_us, done_after_us });
            }
            _ => {}
        }
    }
    None
}

struct Play<'a> {
    stage: Stage,
    view: &'a mut View,
    fault: Fault,
}

impl Play<'_> {
    /// Lets the VMs work for `time`; gives the packets that arrived per microsecond.
    fn flow(&mut self, time: Duration) -> f64 {
        let (begin, arrived) = (Instant::now(), self.stage.arrived());
        while begin.elapsed() < time {
            self.step();
        }
        (self.stage.arrived() - arrived) as f64 / begin.elapsed().as_micros() as f64
    }

    fn step(&mut self) {
        for _ in 0..32 {
            self.stage.cast.step();
        }
        self.view.show(&self.stage);
    }

    /// Lets the VMs work until `done`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Stage) -> bool) -> Result<()> {
        let begin = Instant::now();
        while !done(&mut self.stage) {
            let patience = self.stage.cast.pace().patience;
            if begin.elapsed() > patience {
                bail!("waited {patience:?} in vain until {what}");
            }
            self.step();
        }
        Ok(())
    }

    /// Whether the service VM is to be taken down for this fault.
    fn must_be_noticed(&self) -> bool {
        !matches!(self.fault, Fault::None | Fault::DropAll | Fault::Duplicate | Fault::Swap)
    }

    /// Lets svm2 fail and measures what follows.
    fn fail(&mut self) -> Result<Option<Detection>> {
        if self.fault == Fault::None {
            return Ok(None);
        }
        self.view.say(&format!("{VICTIM} fails: {}", self.fault));
        let mut watch = Watch::default();
        let fault = self.inject(self.fault, &mut watch)?;
        if !self.must_be_noticed() {
            self.view.say(&format!(
                "{VICTIM} still answers, so it stays up: dropping packets is a service's right"
            ));
            return Ok(None);
        }
        let arrival = self.first_arrival(watch)?;
        let noticed = self.noticed(fault)?;
        let detected_after_us = micros(fault, noticed.at);
        let switched_after_us = micros(fault, arrival.arrived);
        self.view.say(&format!(
            "noticed after {:.3} ms ({}); packets arrive over SPI 2 after {:.3} ms",
            detected_after_us as f64 / 1000.0,
            noticed.cause,
            switched_after_us as f64 / 1000.0,
        ));
        self.until("the controller knows and its table is in force", |stage| {
            settled(stage, noticed.at).is_some()
        })?;
        let settled = settled(&self.stage, noticed.at).context("it was there a moment ago")?;
        let Settled { report, table, all_applied_at } = settled;
        self.view.say("the controller has stored the report and invalidated every path through svm2");
        let steps = Steps {
            swapped_after_us: detected_after_us + noticed.swapped_after_us,
            first_salvaged_after_us: noticed.first_after_us.map(|first| detected_after_us + first),
            stood_in_after_us: micros(fault, arrival.stood_in),
            stood_still_us: self
                .stage
                .cast
                .stood_still_between(noticed.at, arrival.arrived)
                .map(whole_micros),
            salvaged_after_us: detected_after_us + noticed.done_after_us,
            heard_after_us: micros(fault, report.heard_at),
            sent_after_us: micros(fault, report.sent_at),
            storing_us: whole_micros(report.storing),
            table_after_us: micros(fault, table.came_at),
        };
        Ok(Some(Detection {
            cause: noticed.cause,
            detected_after_us,
            switched_after_us,
            reported_after_us: micros(fault, report.stored_at),
            all_hosts_after_us: micros(fault, all_applied_at),
            steps,
        }))
    }

    /// Lets svm2 fail, or heals it; gives the instant.
    fn inject(&mut self, fault: Fault, watch: &mut Watch) -> Result<Timestamp> {
        let injection = self.stage.inject(fault);
        loop {
            watch.look(&self.stage);
            if let Some(made) = injection.made() {
                return made.with_context(|| format!("cannot let {VICTIM} fail"));
            }
            self.stage.cast.step();
        }
    }

    /// Waits for the first packet that arrives at vm6 after the stand-in had begun to forward.
    fn first_arrival(&mut self, mut watch: Watch) -> Result<Arrival> {
        let (begin, patience) = (Instant::now(), self.stage.cast.pace().patience);
        loop {
            if let Some(arrival) = watch.look(&self.stage) {
                return Ok(arrival);
            }
            if begin.elapsed() > patience {
                bail!("no packet arrived over SPI 2 within {patience:?} of the fault");
            }
            self.stage.cast.step();
        }
    }

    /// The cause for which svm2 was taken down, and when. It may be on its way back already.
    fn noticed(&mut self, fault: Timestamp) -> Result<Noticed> {
        let mut found = None;
        self.until("svm2 is reported down", |stage| {
            found = noticed(stage, fault);
            found.is_some()
        })?;
        found.context("it was there a moment ago")
    }

    fn heal(&mut self) -> Result<()> {
        if self.fault == Fault::None {
            return Ok(());
        }
        self.inject(Fault::None, &mut Watch::default())?;
        self.view.say(&format!("{VICTIM} is healed"));
        self.until("svm2 is up again", |stage| {
            stage.session(VICTIM).is_some_and(|session| session.state == State::Up)
        })?;
        self.view.say(&format!("{VICTIM} has proved itself and is up again"));
        Ok(())
    }

    fn services(&self) -> Vec<ServiceLine> {
        SERVICES
            .iter()
            .filter_map(|name| Some((name, self.stage.session(name)?)))
            .map(|(name, session)| ServiceLine {
                name: (*name).to_owned(),
                state: session.state.to_string(),
                cause: session.cause.to_string(),
                evidence: EvidenceLine {
                    attached: session.evidence.attached,
                    driver: session.evidence.driver,
                    service: session.evidence.service,
                    forwarding: session.evidence.forwarding,
                },
            })
            .collect()
    }

    fn paths(&self) -> Vec<PathLine> {
        let tables = self.stage.host().tables();
        let forth = tables.paths().filter(|path| path.reverse_spi.is_some());
        forth
            .map(|path| PathLine {
                spi: path.spi.get(),
                state: if path.up { "up" } else { "down" }.to_owned(),
            })
            .collect()
    }

    fn guests(&self) -> Guests {
        let cast = &self.stage.cast;
        Guests { stood_still_us: cast.stood_still().map(whole_micros), swallowed: cast.swallowed() }
    }

    fn packets(&mut self) -> Result<Packets> {
        let Tally { sent, arrived, duplicated, reordered } = self.stage.cast.tally()?;
        let ports = self.stage.host().status();
        let sum = |of: fn(&PortCounters) -> u64| ports.iter().map(|port| of(&port.counters)).sum();
        Ok(Packets {
            sent,
            delivered: arrived,
            lost: sent.saturating_sub(arrived),
            duplicated,
            reordered,
            salvaged: sum(|port| port.salvaged),
            reflected: sum(|port| port.reflected),
        })
    }

    fn liveness(&self) -> Liveness {
        let mut sum = Liveness::default();
        for name in SERVICES {
            let Some(session) = self.stage.session(name) else { continue };
            let counters = session.counters;
            sum.in_band += counters.in_band;
            sum.probes += counters.probes;
            sum.responses += counters.responses;
            if name != VICTIM || !self.must_be_noticed() {
                sum.false_down += counters.flaps;
            }
        }
        sum.queries = sum.in_band + sum.probes;
        sum
    }
}
