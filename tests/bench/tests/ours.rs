//! The rows of ours work without peers and without huge pages: every file is accepted, and frames pass.

use std::path::Path;
use std::time::Duration;

use bench::line::{Kind, Line, Merged, Traffic};
use bench::side::livepathd::{Liveness, Plan};
use vmm_glue::config::Config;
use vmm_glue::daemon::Daemon;

const PATIENCE: Duration = Duration::from_secs(20);

fn parse(plan: &Plan, folder: &Path) -> Config {
    let text = plan.file(folder, 0);
    Config::parse(&text, Path::new("bench.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn every_file_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    for liveness in [Liveness::Default, Liveness::Fast, Liveness::Off] {
        let config = parse(&Plan { liveness, ..Plan::chain(3) }, folder.path());
        assert_eq!((config.ports.len(), config.intent.chains.len()), (5, 1));
    }
    assert_eq!(parse(&Plan::PLAIN, folder.path()).intent.chains.len(), 0);
    assert_eq!(parse(&Plan::TAP, folder.path()).ports.len(), 3);
    let large = parse(&Plan { paths: 300, policies: 1000, ..Plan::chain(1) }, folder.path());
    // One more policy takes what the others leave.
    assert_eq!((large.intent.chains[0].paths.len(), large.intent.policies.len()), (300, 1001));
}

/// A window over the real sockets, with the daemon in this process.
fn passes(plan: &Plan, traffic: &Traffic) {
    let folder = tempfile::tempdir().unwrap();
    // Held, or the daemon ends.
    let _daemon = Daemon::start(parse(plan, folder.path())).unwrap();
    let mut line = Line::attach(&plan.sockets(folder.path()), traffic).unwrap();
    line.settle(PATIENCE).unwrap();
    let window = line.window(Duration::from_millis(20)).unwrap();
    assert!(window.packets > 0);
}

#[test]
fn plain_frames_pass_a_window_whole() {
    passes(&Plan::PLAIN, &Traffic::plain(64, false));
}

#[test]
fn chained_frames_of_many_flows_pass_a_window_whole() {
    let plan = Plan { paths: 20, policies: 300, ..Plan::chain(2) };
    passes(&plan, &Traffic { flows: 4096, ..Traffic::plain(1500, false) });
}

#[test]
fn super_frames_pass_a_window_whole_in_one_buffer_or_in_many() {
    let plan = Plan { offload: true, ..Plan::chain(2) };
    let traffic = Traffic { kind: Kind::Tcp, segment: Some(1448), ring: 32, ..Traffic::plain(65_214, false) };
    for merged in [None, Some(Merged { buffer: 4096, ring: 512 }), Some(Merged { buffer: 1536, ring: 256 })] {
        passes(&plan, &Traffic { merged, ..traffic });
    }
}

#[test]
fn frames_one_by_one_are_timed() {
    let folder = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(parse(&Plan::PLAIN, folder.path())).unwrap();
    let mut line = Line::attach(&Plan::PLAIN.sockets(folder.path()), &Traffic::plain(64, false)).unwrap();
    line.settle(PATIENCE).unwrap();
    let latencies = line.latencies(Duration::from_millis(20), Duration::from_micros(100)).unwrap();
    assert!(!latencies.is_empty() && latencies.max() > 0);
}
