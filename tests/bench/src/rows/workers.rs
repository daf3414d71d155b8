//! Two disjoint chains of one service VM, served by two workers and by one. Each line has a generator of its own, so it takes
//! four cores.

use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

use super::pairs::{again, alternate};
use super::{Effort, Row};
use crate::figure::{Figure, Series, Unit};
use crate::line::{Line, Sockets, Traffic};
use crate::progress::Progress;
use crate::side::livepathd::{self, NAME, colons};
use crate::side::{Bench, Process};

const LINES: [u8; 2] = [0, 1];
const PATIENCE: Duration = Duration::from_secs(20);
/// Attempts at a window in which neither line lost a frame.
const ATTEMPTS: usize = 10;

/// A daemon with two lines.
struct Pair {
    lines: Vec<Line>,
    process: Process,
    /// Windows that were measured again.
    void: usize,
    _folder: TempDir,
}

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let [first, second, .., third, fourth] = bench.cores[..] else {
        let cores = bench.cores.len();
        bail!("needs four cores, two for workers and two for generators; this machine has {cores}");
    };
    let traffic = Traffic::plain(row.frame(), bench.huge_pages);
    let mut two = Pair::start(bench, &[first, second], &traffic)?;
    two.process.halt()?;
    let mut one = Pair::start(bench, &[first], &traffic)?;
    one.process.halt()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut progress = Progress::new(row.name, effort.pairs);
    for pair in 0..effort.pairs {
        let cores = [third, fourth];
        let (both, alone) =
            alternate(pair, || two.mpps(cores, effort.window), || one.mpps(cores, effort.window))?;
        ours.push(both);
        theirs.push(alone);
        progress.show(pair + 1, &format!("{:.3}", ours[pair] / theirs[pair]));
    }
    Ok(vec![Figure {
        bench: row.name.to_owned(),
        frame: row.frame(),
        ring: traffic.ring,
        unit: Unit::Mpps,
        ours: Series { who: format!("{NAME}, two workers"), values: ours },
        peer: Some(Series { who: format!("{NAME}, one worker"), values: theirs }),
        target: row.target,
        note: again(two.void + one.void).unwrap_or_default(),
        round_trips: Vec::new(),
    }])
}

impl Pair {
    fn start(bench: &Bench, workers: &[usize], traffic: &Traffic) -> anyhow::Result<Pair> {
        let folder = tempfile::tempdir()?;
        let process = livepathd::start_daemon(bench, workers, &file(folder.path(), workers), folder.path())?;
        process.prefer();
        let attach = |line| Line::attach(&sockets(folder.path(), line), &Traffic { line, ..*traffic });
        let lines = LINES.into_iter().map(attach).collect::<anyhow::Result<_>>()?;
        Ok(Pair { lines, process, void: 0, _folder: folder })
    }

    /// Both lines at once, their rates added up.
    fn mpps(&mut self, generators: [usize; 2], window: Duration) -> anyhow::Result<f64> {
        self.process.go_on()?;
        let mut void = 0;
        let rate = (0..ATTEMPTS).find_map(|_| {
            let rate = rates(&mut self.lines, generators, window).ok();
            void += usize::from(rate.is_none());
            rate
        });
        self.void += void;
        self.process.halt()?;
        rate.with_context(|| format!("{ATTEMPTS} windows in a row were void\n{}", self.process.last_words()))
    }
}

/// The sum of what the lines reach at the same time, each driven from a core of its own.
fn rates(lines: &mut [Line], generators: [usize; 2], window: Duration) -> anyhow::Result<f64> {
    let barrier = &Barrier::new(LINES.len());
    std::thread::scope(|scope| {
        let threads = lines.iter_mut().zip(generators).map(|(line, core)| {
            scope.spawn(move || {
                let mut own = CpuSet::new();
                own.set(core);
                let pinned = sched_setaffinity(None, &own);
                let settled = line.settle(PATIENCE);
                // Also when this line is not: the other one waits.
                barrier.wait();
                pinned?;
                settled?;
                Ok::<_, anyhow::Error>(line.window(window)?.mpps())
            })
        });
        let threads: Vec<_> = threads.collect();
        let rates =
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a generator panicked"))?);
        rates.sum()
    })
}

fn sockets(folder: &Path, line: u8) -> Sockets {
    let socket = |name: &str| folder.join(format!("{name}{line}"));
    Sockets { source: socket("source"), services: vec![socket("svm")], sink: socket("sink") }
}

fn file(folder: &Path, workers: &[usize]) -> String {
    let folder = folder.display();
    let mut text = format!(
        "[host]\nid = 1\nname = \"bench\"\nworkers = {}\ncpus = {workers:?}\nadmin = \"{folder}/admin\"\n",
        workers.len()
    );
    for line in LINES {
        let service = format!("role = \"service\"\nuuid = \"00000000-0000-4000-8000-00000000000{line}\"");
        for (name, mac, role) in [
            ("source", Line::source_mac(line), "role = \"tenant\""),
            ("sink", Line::sink_mac(line), "role = \"tenant\""),
            ("svm", Line::service_mac(line, 0), service.as_str()),
        ] {
            let mac = colons(mac);
            text += &format!(
                "[[port]]\nname = \"{name}{line}\"\n{role}\nsocket = \"{folder}/{name}{line}\"\nmac = \"{mac}\"\n"
            );
        }
    }
    // Tables of ports end where those of chains begin.
    for line in LINES {
        text += &format!(
            "[[chain]]\nname = \"chain{line}\"\n[[chain.path]]\nspi = {}\nhops = [\"svm{line}\"]\n",
            line + 1
        );
        text += &format!("[[policy]]\nchain = \"chain{line}\"\nfrom = [\"source{line}\"]\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_glue::config::Config;
    use vmm_glue::daemon::Daemon;

    /// All on one core, which shows that both chains work, not how fast.
    #[test]
    fn two_lines_pass_windows_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::parse(&file(folder.path(), &[0]), Path::new("bench.toml")).unwrap();
        let _daemon = Daemon::start(config).unwrap();
        let traffic = Traffic::plain(64, false);
        let attach =
            |line| Line::attach(&sockets(folder.path(), line), &Traffic { line, ..traffic }).unwrap();
        let mut lines: Vec<Line> = LINES.into_iter().map(attach).collect();
        assert!(rates(&mut lines, [0, 0], Duration::from_millis(10)).unwrap() > 0.0);
    }
}
