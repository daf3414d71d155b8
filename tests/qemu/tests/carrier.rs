//! A stock Linux guest behind a port with `carrier = "vnet-header"`: its driver does not show the header to anybody, and takes
//! every frame whose header carries a query as it takes any other.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_guests::{Daemon, Programs, Progress, poll};
use qemu_vm::{Guest, GuestSpec, Kit, Link, Role};

const MAC: &str = "52:54:00:00:01:01";
const PATIENCE: Duration = Duration::from_secs(120);
/// Queries that the guest is sent.
const QUERIES: u64 = 200;

#[test]
fn a_stock_guest_is_not_disturbed_by_queries_in_the_virtio_net_header() {
    match Kit::find() {
        Ok(kit) => scenario(&kit).unwrap(),
        Err(missing) => skip::skip("queries in the virtio-net header of a stock guest", &missing.to_string()),
    }
}

fn scenario(kit: &Kit) -> Result<()> {
    let programs = Programs::build()?;
    let progress = Progress::start();
    let directory = tempfile::Builder::new().prefix("livepath-").tempdir()?;
    let initramfs = kit.initramfs(directory.path(), &[&programs.responder])?;
    let mut daemon = Daemon::start(&programs, directory.path(), &configuration(directory.path()))?;
    let spec = GuestSpec {
        name: "svm1".into(),
        mac: MAC.into(),
        role: Role::Service("--service forward".into()),
        link: Link::VhostUser(directory.path().join("svm1.sock")),
        queue_pairs: 1,
        properties: "",
    };
    let guest = Guest::start(kit, &initramfs, directory.path(), spec)?;
    progress.step(&format!("svm1 booted, {:.2} s by its own clock", guest.await_boot()?));
    let handed = |daemon: &Daemon, more: u64| -> Result<u64> {
        let now = daemon.status()?.received("svm1");
        ensure!(now >= more, "{now} frames, not {more}");
        Ok(now)
    };
    poll("the guest takes frames", PATIENCE, || {
        daemon.alive()?;
        handed(&daemon, 1)?;
        ensure!(Taken::read(&guest)?.packets > 0, "none so far");
        Ok(())
    })?;

    // What is on its way when the guest is asked counts for neither side.
    let before = Taken::read(&guest)?;
    let (first, _) = poll("the count of frames", PATIENCE, || handed(&daemon, 1))?;
    let (last, _) = poll("queries", PATIENCE, || handed(&daemon, first + QUERIES))?;
    let after = Taken::read(&guest)?;
    progress.step(&format!("{} of {} frames taken", after.packets - before.packets, last - first));
    ensure!(after.packets - before.packets >= last - first, "frames are missing: {before:?} {after:?}");
    ensure!((after.errors, after.dropped) == (before.errors, before.dropped), "{before:?} {after:?}");

    let said = guest.run("kill $(pidof livepath-responder); sleep 1; tail -n 1 /tmp/responder.log")?;
    let count = |name: &str| -> Result<u64> {
        let value = said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Ok(value.with_context(|| format!("no {name} in: {said}"))?.parse()?)
    };
    ensure!(count("ignored-oam")? >= last - first, "{said}");
    ensure!(count("ignored-malformed")? + count("ignored-not-nsh")? + count("responses")? == 0, "{said}");
    progress.step("each of them a well-formed probe that asks nothing");
    ensure!(daemon.status()?.state("svm1") == "init", "it never answered, so it gets no traffic");
    Ok(())
}

/// What the guest's kernel counts on `eth0`.
#[derive(Debug)]
struct Taken {
    packets: u64,
    errors: u64,
    dropped: u64,
}

impl Taken {
    fn read(guest: &Guest) -> Result<Taken> {
        let text = guest.run("cd /sys/class/net/eth0/statistics && cat rx_packets rx_errors rx_dropped")?;
        let mut values = text.split_whitespace().map(str::parse);
        let mut next = || values.next().with_context(|| format!("too few counters: {text}"));
        Ok(Taken { packets: next()??, errors: next()??, dropped: next()?? })
    }
}

fn configuration(directory: &Path) -> String {
    format!(
        r#"
[[port]]
name = "svm1"
role = "service"
uuid = "0d1a7e6a-6d0c-4f0b-9f5e-000000000001"
socket = "{}/svm1.sock"
mac = "{MAC}"
carrier = "vnet-header"
"#,
        directory.display()
    )
}
