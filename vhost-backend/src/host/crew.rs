//! The workers as the host keeps them.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{WorkerStatus, lock};
use crate::telemetry::WorkerCounters;
use crate::worker::{Command, Common, Obeyed, Share, Wakes, Worker, pin_to};

/// All workers of a host.
#[derive(Debug)]
pub(super) struct Crews {
    crews: Vec<Crew>,
    wakes: Arc<Wakes>,
}

#[derive(Debug)]
struct Crew {
    commands: Mutex<Sender<Command>>,
    counters: Arc<WorkerCounters>,
    cpu: Option<usize>,
    thread: Option<JoinHandle<()>>,
}

impl Crews {
    /// No worker yet.
    pub(super) fn new(wakes: Arc<Wakes>) -> Self {
        Self { crews: Vec::new(), wakes }
    }

    /// Starts the next worker, which is `number`.
    pub(super) fn start(
        &mut self,
        number: usize,
        common: &Arc<Common>,
        shares: Vec<Share>,
        cpu: Option<usize>,
    ) -> io::Result<()> {
        let (commands, inbox) = channel();
        let counters = Arc::new(WorkerCounters::default());
        let worker = Worker::new(number, Arc::clone(common), shares, Arc::clone(&counters), inbox)?;
        let run = move || {
            pin_to(cpu);
            worker.run();
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(run)?;
        self.crews.push(Crew { commands: Mutex::new(commands), counters, cpu, thread: Some(thread) });
        Ok(())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.crews.len()
    }

    /// Every worker as it is now.
    pub(super) fn status(&self) -> Vec<WorkerStatus> {
        let status = |crew: &Crew| WorkerStatus { cpu: crew.cpu, time: crew.counters.read() };
        self.crews.iter().map(status).collect()
    }

    /// Asks one of them for something.
    pub(super) fn command(&self, worker: usize, command: Command) {
        if let (Some(crew), Some(wake)) = (self.crews.get(worker), self.wakes.of(worker)) {
            // A worker ends only when the host does.
            let _ = lock(&crew.commands).send(command);
            wake.wake();
        }
    }

    /// Has them serve these ports by these shares, one for each worker, from now on.
    pub(super) fn serve(&self, common: &Arc<Common>, shares: Vec<Vec<Share>>, obeyed: &Obeyed) {
        for (worker, shares) in shares.into_iter().enumerate() {
            self.command(worker, Command::Serve(Arc::clone(common), shares, obeyed.clone()));
        }
    }

    /// Has them take up what became of the links.
    pub(super) fn follow(&self, obeyed: &Obeyed) {
        for worker in 0..self.crews.len() {
            self.command(worker, Command::Follow(obeyed.clone()));
        }
    }

    /// Has them read no more of what tenants and taps send.
    pub(super) fn drain(&self, obeyed: &Obeyed) {
        for worker in 0..self.crews.len() {
            self.command(worker, Command::Drain(obeyed.clone()));
        }
    }

    /// Ends them.
    pub(super) fn stop(&mut self) {
        for worker in 0..self.crews.len() {
            self.command(worker, Command::Stop);
        }
        for crew in &mut self.crews {
            if let Some(thread) = crew.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// Returns when all workers have obeyed that were `asked`. One that is gone is not waited for: what it was asked is gone
/// with it.
pub(super) fn obeyed(asked: impl FnOnce(Obeyed)) {
    let (obeyed, last): (_, Receiver<()>) = channel();
    asked(obeyed);
    // Nothing is ever sent.
    let _ = last.recv();
}
