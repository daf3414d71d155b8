//! Several queue pairs on stock guests: Linux takes as many as it has CPUs by itself, flows are spread over them, and each of
//! them stays on one and in order, through a service VM that has several too.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_guests::{Daemon, Programs, Progress, Status, poll};
use qemu_vm::traffic::{FLOWS, PORT, read_arrived, read_sent};
use qemu_vm::{Guest, GuestSpec, Kit, Link, Role};
use tempfile::TempDir;

/// Queue pairs of every guest, and its CPUs.
const PAIRS: usize = 2;
const GUESTS: [&str; 3] = ["vm5", "vm6", "svm1"];
const CHAIN: &str = r#"
[[chain]]
name = "inspect"
[[chain.path]]
spi = 1
hops = ["svm1"]
reverse_spi = 101

[[policy]]
chain = "inspect"
from = ["vm5"]
"#;
/// As in the reference scenario: emulated CPUs wait for their turn.
const LIVENESS: &str = r#"{ interval = "100ms", timeout = "100ms", multiplier = 5, idle_interval = "400ms", stall = "500ms", recover = 3, hold_down = "500ms", hold_down_max = "4s" }"#;
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of the file that is moved.
const FILE: u64 = 2 << 20;
/// TCP connections one by one until both queues were used, and at a time.
const ONE_BY_ONE: usize = 24;
const TOGETHER: usize = 6;
/// Datagrams a second, and for how long.
const RATE: u32 = 1_000;
const SENDING: Duration = Duration::from_secs(3);

#[test]
fn flows_over_several_queues_of_stock_guests() {
    let kit = match Kit::find() {
        Ok(kit) => kit,
        Err(missing) => return skip::skip("several queues of stock guests", &missing.to_string()),
    };
    let programs = Programs::build().unwrap();
    let progress = Progress::start();
    let mut site = Site::start(&kit, &programs).unwrap();
    if let Err(error) = scenario(&mut site, &progress) {
        site.dump();
        panic!("{error:#}");
    }
}

fn scenario(site: &mut Site, progress: &Progress) -> Result<()> {
    site.await_health()?;
    // While guests boot, what one sends to all finds others without a driver.
    let in_vain = |status: &Status| GUESTS.map(|name| status.drops(name, "not_attached"));
    let before = in_vain(&site.daemon.status()?);
    for guest in site.guests.values() {
        tell_queues_apart(guest)?;
    }
    progress.step(&format!("guests run, each with {PAIRS} queue pairs; sent in vain meanwhile: {before:?}"));

    site.serve()?;
    let mut used = BTreeMap::from(["vm5", "svm1"].map(|name| (name, [0; PAIRS])));
    let all = |used: &BTreeMap<&str, [usize; PAIRS]>| used.values().flatten().all(|flows| *flows > 0);
    for flow in 0.. {
        ensure!(flow < ONE_BY_ONE, "{flow} connections have used {used:?}");
        if all(&used) {
            break;
        }
        for (name, queue) in site.one_flow().with_context(|| format!("connection {flow}"))? {
            used.entry(name).or_default()[queue] += 1;
        }
    }
    progress.step(&format!("connections one by one, each on one queue: {used:?}"));

    site.flows_together()?;
    progress.step(&format!("{TOGETHER} connections at once, every byte as it was sent"));

    let (counts, queues) = site.datagrams()?;
    progress.step(&format!("{counts}; vm6's queues carried {queues:?}"));

    let after = in_vain(&site.daemon.status()?);
    ensure!(
        after == before,
        "frames went to queues that do not run: {before:?}, then {after:?} of {GUESTS:?}"
    );
    Ok(())
}

/// Has the guest's kernel process what comes by queue n on CPU n, where it is counted.
fn tell_queues_apart(guest: &Guest) -> Result<()> {
    let queues = guest
        .run("ls /sys/class/net/eth0/queues | grep -c rx; ls /sys/class/net/eth0/queues | grep -c tx")?;
    ensure!(queues.split_whitespace().eq(["2", "2"]), "{} has taken {queues} queues", guest.name());
    for queue in 0..PAIRS {
        guest.run(&format!("echo {:x} >/sys/class/net/eth0/queues/rx-{queue}/rps_cpus", 1 << queue))?;
    }
    Ok(())
}

/// Frames that came by each queue of a guest so far: in the first column of `softnet_stat`, a line for each CPU.
fn came(guest: &Guest) -> Result<[u64; PAIRS]> {
    let text = guest.run("cat /proc/net/softnet_stat")?;
    let mut counts =
        text.lines().filter_map(|line| u64::from_str_radix(line.split_whitespace().next()?, 16).ok());
    let mut next = || counts.next().with_context(|| format!("{}'s CPUs: {text}", guest.name()));
    Ok([next()?, next()?])
}

fn since(before: [u64; PAIRS], guest: &Guest) -> Result<[u64; PAIRS]> {
    let now = came(guest)?;
    Ok(std::array::from_fn(|queue| now[queue] - before[queue]))
}

struct Site {
    // Before the directory with their sockets.
    guests: BTreeMap<&'static str, Guest>,
    daemon: Daemon,
    _directory: TempDir,
}

impl Site {
    fn start(kit: &Kit, programs: &Programs) -> Result<Site> {
        let directory = tempfile::Builder::new().prefix("livepath-").tempdir()?;
        let folder = directory.path();
        let initramfs = kit.initramfs(folder, &[&programs.responder, &programs.traffic])?;
        let daemon = Daemon::start(programs, folder, &configuration(folder))?;
        let mut guests = BTreeMap::new();
        for name in GUESTS {
            guests.insert(name, Guest::start(kit, &initramfs, folder, spec(name, folder))?);
        }
        Ok(Site { guests, daemon, _directory: directory })
    }

    fn await_health(&mut self) -> Result<()> {
        for guest in self.guests.values() {
            guest.await_boot()?;
        }
        let up = || {
            self.daemon.alive()?;
            let status = self.daemon.status()?;
            let attached = GUESTS.iter().all(|name| status.attached(name));
            ensure!(attached && status.path(1) == "up", "{}", status.summary());
            Ok(())
        };
        poll("everything up", PATIENCE, up).map(drop)
    }

    /// Lets vm6 serve a random file.
    fn serve(&self) -> Result<()> {
        let make = format!("mkdir -p /tmp/www && head -c {FILE} /dev/urandom >/tmp/www/file");
        self.guests["vm6"].run(&format!("{make} && httpd -p 80 -h /tmp/www")).map(drop)
    }

    /// One TCP connection on its own: by which queue its frames came to vm5, and by which to svm1. What else comes, queries for
    /// one, is little.
    fn one_flow(&self) -> Result<Vec<(&'static str, usize)>> {
        let mut before = Vec::new();
        for name in ["vm5", "svm1"] {
            before.push((name, came(&self.guests[name])?));
        }
        let fetch = "wget -q -O /dev/null http://10.0.0.6/file";
        ensure!(self.guests["vm5"].output(fetch, PATIENCE)?.status == 0, "{fetch} failed");
        let queue = |(name, before)| {
            let frames = since(before, &self.guests[name])?;
            let queue = usize::from(frames[1] > frames[0]);
            let (most, rest) = (frames[queue], frames[1 - queue]);
            ensure!(
                most > 50 && 10 * rest < most,
                "the frames of one flow came to {name} by queues: {frames:?}"
            );
            Ok((name, queue))
        };
        before.into_iter().map(queue).collect()
    }

    /// Several at once, each compared with what was sent.
    fn flows_together(&self) -> Result<()> {
        let fetch = "wget -q -O - http://10.0.0.6/file | sha256sum";
        let all =
            format!("for i in $(seq {TOGETHER}); do ({fetch} >/tmp/sum.$i) & done; wait; cat /tmp/sum.*");
        let fetched = self.guests["vm5"].output(&all, PATIENCE)?.text;
        let served = self.guests["vm6"].run("sha256sum </tmp/www/file")?;
        let sums: Vec<&str> = fetched.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let good = sums.len() == TOGETHER && sums.iter().all(|sum| *sum == served.trim());
        ensure!(good, "fetched {fetched}, served {served}");
        Ok(())
    }

    /// Numbered datagrams of many flows from vm5 to vm6: what was counted, and how many came to vm6 by each queue.
    fn datagrams(&self) -> Result<(String, [u64; PAIRS])> {
        let [vm5, vm6] = ["vm5", "vm6"].map(|name| &self.guests[name]);
        vm6.run("livepath-traffic receive /tmp/end >/tmp/arrived 2>&1 &")?;
        let listening = format!("netstat -lnu | grep -q ':{PORT} '");
        poll("somebody listens at vm6", PATIENCE, || vm6.run(&listening))?;
        let before = came(vm6)?;
        vm5.run(&format!("livepath-traffic send 10.0.0.6 {RATE} /tmp/end >/tmp/sent 2>&1 &"))?;
        std::thread::sleep(SENDING);
        vm5.run("touch /tmp/end")?;
        let line = |guest: &Guest, file: &str| guest.run(&format!("cat {file}"));
        let (sent, _) = poll("vm5's count", PATIENCE, || read_sent(&line(vm5, "/tmp/sent")?))?;
        vm6.run("touch /tmp/end")?;
        let (arrived, _) = poll("vm6's count", PATIENCE, || read_arrived(&line(vm6, "/tmp/arrived")?))?;
        let queues = since(before, vm6)?;
        let counts = format!("of {sent} datagrams of {FLOWS} flows {arrived:?}");
        // Emulated guests may lose some.
        ensure!(sent > 500 && arrived.unique > sent / 2, "{counts}");
        ensure!((arrived.duplicated, arrived.reordered) == (0, 0), "{counts}");
        let least = arrived.unique / (2 * u64::from(FLOWS));
        ensure!(queues.iter().all(|frames| *frames > least), "they came by vm6's queues: {queues:?}");
        Ok((counts, queues))
    }

    fn dump(&self) {
        eprintln!("--- livepathd:\n{}", self.daemon.log());
        for guest in self.guests.values() {
            let command = "ip -s link show eth0; cat /proc/net/softnet_stat; tail -n 20 /tmp/responder.log";
            let told = guest.output(command, Duration::from_secs(5)).map(|output| output.text);
            eprintln!("--- {} says:\n{}", guest.name(), told.unwrap_or_else(|error| format!("{error:#}")));
        }
    }
}

fn spec(name: &str, folder: &Path) -> GuestSpec {
    let role = match name.strip_prefix("vm") {
        Some(host) => Role::Tenant(format!("10.0.0.{host}/24")),
        None => Role::Service("--service forward".into()),
    };
    GuestSpec {
        name: name.into(),
        mac: mac(name),
        role,
        link: Link::VhostUser(folder.join(format!("{name}.sock"))),
        queue_pairs: PAIRS as u16,
        properties: "",
    }
}

fn mac(name: &str) -> String {
    let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    format!("52:54:00:00:0{}:0{number}", u8::from(name.starts_with("svm")))
}

/// Two workers, each of which has a pair of every port.
fn configuration(folder: &Path) -> String {
    let mut text = String::from("workers = 2\n");
    for name in GUESTS {
        let (socket, mac) = (folder.join(format!("{name}.sock")), mac(name));
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nsocket = \"{}\"\nmac = \"{mac}\"\nqueues = {PAIRS}\n",
            socket.display()
        );
        text += &if name.starts_with("svm") {
            format!(
                "role = \"service\"\nuuid = \"0d1a7e6a-6d0c-4f0b-9f5e-000000000001\"\nliveness = {LIVENESS}\n"
            )
        } else {
            "role = \"tenant\"\n".to_owned()
        };
    }
    text + CHAIN
}
