//! Tables of 16 000 paths and 10 000 policies replaced while frames go by them, on a host of 256 ports that knows 2^20 flows: how
//! long it takes, and what they weigh.
//!
//! The worker has its core to itself. Whoever replaces the tables shares the other one with the generator, which sends a burst
//! and sleeps, and with the service VMs that carry no traffic, which sleep until they are asked whether they are well. How much of the
//! time the thread had the core is told.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use nsh::Spi;
use rustix::time::{ClockId, clock_gettime};
use test_vm::{Options, TestVm};
use vhost_backend::chain::{
    ChainSpec, Egress, Failback, Generation, Match, OnFailure, PathSpec, PolicySpec, PortId, Prefix,
    SiDecrement,
};
use vhost_backend::device::Mode;
use vhost_backend::host::{Host, HostSpec, Intent};
use vhost_backend::liveness::Profile;
use vhost_backend::port::{Carrier, Keeps, PortSpec, Role, ServiceOffload, ServiceSpec};
use vhost_backend::telemetry::{EventReceiver, events};

use super::idle::{Services, memory};
use super::{Effort, Row};
use crate::figure::{Figure, Series, Target, Unit};
use crate::line::{Line, Sockets, Traffic};
use crate::side::Bench;
use crate::side::livepathd::NAME;
use vmm_glue::daemon::{keep_freed_memory, take_all_descriptors};

/// Ports of the host, each with a VM: source and sink, the service VMs between them, and those that have no traffic.
const PORTS: u16 = 256;
/// Hops of every path, and the service VMs that have traffic.
const HOPS: u16 = 3;
const IDLE_SERVICES: u16 = 51;
const IDLE_TENANTS: u16 = PORTS - 2 - HOPS - IDLE_SERVICES;
const CHAINS: u32 = 100;
const PATHS: u32 = 16_000;
const POLICIES: u32 = 10_000;
/// Flows that are pinned, to the paths of one chain.
const FLOWS: u32 = 1 << 20;
/// Between two bursts.
const PAUSE: Duration = Duration::from_micros(200);
/// Between two replacements.
const REST: Duration = Duration::from_millis(15);
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the time goes, and what was tried.
pub(super) const ACCOUNT: &str = "\
Checking 32 000 SPIs for doubles, their index, the lists of paths by service, 10 000 policies and the state of every path are some milliseconds of one core; the worker waits for none of it. \
Tables are indexed by number and hashed without a secret, names are looked up once, and memory is taken in few pieces and kept for the next tables: taken from the system anew, a page of it costs some microseconds on a virtual machine, which doubled the time. What did not change is not shared between tables yet. \
Nothing is done for a flow before its next frame.";

pub(super) fn measure(row: &Row, bench: &Bench, effort: Effort) -> anyhow::Result<Vec<Figure>> {
    let generations = [intent(1, PATHS, POLICIES), intent(2, PATHS, POLICIES)];
    let folder = tempfile::tempdir()?;
    let traffic = Traffic { flows: FLOWS, ..Traffic::plain(row.frame(), bench.huge_pages) };
    let mut bed = Bed::new(folder.path(), bench.core, &traffic)?;
    bed.line.settle(PATIENCE)?;
    bed.line.pass(2 * u64::from(FLOWS), PATIENCE)?;
    let before = memory("self")?;
    let run = bed.swap(&generations, effort.pairs)?;
    let weight = memory("self")? - before;
    let longest = run.took.iter().copied().fold(0.0, f64::max);
    let late = run
        .took
        .iter()
        .filter(|took| matches!(row.target, Target::ValueAtMost(most) if **took > most))
        .count();
    let own = run.own.iter().copied().fold(0.0, f64::max);
    let ports = bed.host.status().len();
    let note = format!(
        "{longest:.1} ms at most, in {late} of {} times more than wanted; of that the thread's own time {own:.1} ms at most; {ports} ports with \
         a VM each; of 2^20 flows {} not pinned; of {} frames meanwhile none lost or out of order",
        run.took.len(),
        bed.host.workers().iter().map(|worker| worker.time.flows_displaced).sum::<u64>(),
        run.frames
    );
    let figure = |name: &str, unit, values, target, note| Figure {
        bench: name.to_owned(),
        frame: row.frame(),
        ring: traffic.ring,
        unit,
        ours: Series { who: NAME.to_owned(), values },
        peer: None,
        target,
        note,
        round_trips: Vec::new(),
    };
    let kept =
        "the tables in force, the paths before them that still carry frames, and what a swap needs".into();
    Ok(vec![
        figure(row.name, Unit::Millis, run.took, row.target, note),
        figure("swap-memory", Unit::Mebibytes, vec![weight], Target::Reported, kept),
    ])
}

/// What came of the replacements.
struct Run {
    /// From the call that brings the tables to its return, when they have been checked and compiled and are in force;
    /// milliseconds.
    took: Vec<f64>,
    /// How long of that the thread had a core; milliseconds.
    own: Vec<f64>,
    /// Frames sent meanwhile, all of which arrived.
    frames: u64,
}

/// A host in this process with a VM on each of its ports.
struct Bed {
    line: Line,
    host: Host,
    _services: Services,
    _tenants: Vec<TestVm>,
    _events: EventReceiver,
}

impl Bed {
    fn new(folder: &Path, core: usize, traffic: &Traffic) -> anyhow::Result<Bed> {
        take_all_descriptors();
        let service = Role::Service(ServiceSpec {
            profile: Profile::RELAXED,
            si_decrement: SiDecrement::Proxy,
            slow_start: Duration::ZERO,
            offload: ServiceOffload::Software,
            keeps: Keeps::default(),
            carrier: Carrier::default(),
        });
        // In the order of their numbers.
        let mut ports = vec![
            port(folder, "source", Line::source_mac(0), Role::Tenant),
            port(folder, "sink", Line::sink_mac(0), Role::Tenant),
        ];
        let services = 0..HOPS + IDLE_SERVICES;
        ports.extend(services.map(|index| {
            port(folder, &format!("svm{index}"), Line::service_mac(0, index.into()), service.clone())
        }));
        let first_idle = 2 + HOPS;
        ports.extend((0..IDLE_TENANTS).map(|index| {
            port(folder, &format!("vm{index}"), [0x52, 0x54, 0, 0, 2, index as u8], Role::Tenant)
        }));
        let idle = &ports[first_idle.into()..];
        let idle: Vec<(PathBuf, [u8; 6])> = idle.iter().map(|port| (port.socket.clone(), port.mac)).collect();
        let line = &ports[2..first_idle.into()];
        let sockets = Sockets {
            source: ports[0].socket.clone(),
            services: line.iter().map(|port| port.socket.clone()).collect(),
            sink: ports[1].socket.clone(),
        };
        let (sender, events) = events()?;
        let spec = HostSpec {
            cpus: vec![core],
            flows: HostSpec::FLOWS.max(traffic.flows as usize),
            ..HostSpec::new(1)
        };
        let host = Host::start(&spec, ports, &intent(0, CHAINS, 1), sender)?;
        // As `livepathd` does.
        keep_freed_memory();
        let line = Line::attach(&sockets, traffic).context("the host does not take its line")?;
        let attach = |(socket, mac): &(PathBuf, [u8; 6])| {
            TestVm::attach(socket, Options { mac: *mac, ..Options::default() })
        };
        let (services, tenants) = idle.split_at(IDLE_SERVICES.into());
        let services = services.iter().map(attach).collect::<Result<_, _>>()?;
        let tenants = tenants.iter().map(attach).collect::<Result<_, _>>()?;
        Ok(Bed { line, host, _services: Services::start(services), _tenants: tenants, _events: events })
    }

    /// Replaces the tables so many times, in turn by those of two generations, while frames go by them.
    fn swap(&mut self, generations: &[Intent; 2], times: usize) -> anyhow::Result<Run> {
        let Bed { line, host, .. } = self;
        std::thread::scope(|scope| {
            let swaps = scope.spawn(|| {
                let mut next = generations.clone();
                let (mut took, mut own) = (Vec::with_capacity(times), Vec::with_capacity(times));
                for time in 0..times {
                    std::thread::sleep(REST);
                    let intent = &mut next[time % 2];
                    intent.generation = Generation(time as u64 + 1);
                    let (before, begin) = (own_time(), Instant::now());
                    host.set_intent(intent)?;
                    took.push(begin.elapsed().as_secs_f64() * 1e3);
                    own.push((own_time() - before).as_secs_f64() * 1e3);
                }
                std::thread::sleep(REST);
                anyhow::Ok((took, own))
            });
            let window = line.trickle(PAUSE, || swaps.is_finished());
            let (took, own) = swaps.join().map_err(|_| anyhow!("a swap panicked"))??;
            Ok(Run { took, own, frames: window?.packets })
        })
    }
}

/// For how long this thread has had a core so far.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn port(folder: &Path, name: &str, mac: [u8; 6], role: Role) -> PortSpec {
    let mtu = if role == Role::Tenant { 1500 } else { 2000 };
    let (name, socket) = (name.to_owned(), folder.join(name));
    PortSpec { name, socket, mode: Mode::Server, mac, mtu, queue_pairs: 1, role }
}

/// Tables that have no path in common with those of the number before or after. All traffic takes the paths of the first
/// chain, which lead through the same services in every generation, so that frames stay in order and each is missed.
fn intent(number: u64, paths: u32, policies: u32) -> Intent {
    let side = (number % 2) as u32;
    let service = |index: u32| PortId::new(2 + (index % u32::from(HOPS + IDLE_SERVICES)) as u16);
    let path = |chain: u32, number: u32| {
        let spi = 1 + side * 2 * paths + number;
        let first = if chain == 0 { 0 } else { number };
        PathSpec {
            spi: Spi::new(spi).unwrap_or(Spi::MAX),
            hops: (0..u32::from(HOPS)).map(|hop| service(first + hop * (1 + chain % 2))).collect(),
            reverse_spi: Spi::new(spi + paths),
            preference: 0,
        }
    };
    let each = paths / CHAINS;
    let chain = |chain: u32| ChainSpec {
        name: format!("chain{chain}"),
        on_failure: OnFailure::Block,
        failback: Failback::New,
        egress: Egress::Direct,
        paths: (0..each).map(|i| path(chain, chain * each + i)).collect(),
    };
    let policy = |priority: u32| {
        // The last one is for the traffic; the others are there to be told apart from.
        let last = priority + 1 == policies;
        let other = Prefix::new(Ipv4Addr::from_bits(0x0B00_0000 + priority).into(), 32).ok();
        PolicySpec {
            chain: format!("chain{}", if last { 0 } else { priority % CHAINS }),
            priority,
            from: last.then(|| vec![PortId::new(0)]),
            matches: Match { dst: other.filter(|_| !last), ..Match::default() },
        }
    };
    Intent {
        generation: Generation(number),
        chains: (0..CHAINS).map(chain).collect(),
        policies: (0..policies).map(policy).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_replaced_and_every_frame_arrives() {
        let folder = tempfile::tempdir().unwrap();
        let traffic = Traffic { flows: 64, ..Traffic::plain(64, false) };
        let mut bed = Bed::new(folder.path(), 0, &traffic).unwrap();
        bed.line.settle(PATIENCE).unwrap();
        let run = bed.swap(&[intent(1, 1000, 200), intent(2, 1000, 200)], 4).unwrap();
        assert_eq!((run.took.len(), run.own.len(), bed.host.tables().generation()), (4, 4, Generation(4)));
        assert_eq!(bed.host.status().len(), usize::from(PORTS));
        assert_eq!(bed.host.tables().paths().count(), 2000);
        assert!(run.frames > 0);
    }
}
