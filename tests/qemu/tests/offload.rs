//! TCP between two stock guests through three service VMs on stock guests, with and without offloads: who negotiated them
//! sends and gets 64 KiB frames, through services that see these and services that see segments; who did not, gets none. Over IPv4,
//! and with all offloads over IPv6 with ECN too.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_guests::{Daemon, Process, Programs, Progress, poll};
use qemu_vm::{Guest, GuestSpec, Kit, Link, Role, program};
use rustix::process::Signal;
use tempfile::TempDir;

const TENANTS: [(&str, u8); 2] = [("vm5", 5), ("vm6", 6)];
/// Service VMs and their `offload`.
const SERVICES: [(&str, &str); 4] =
    [("svm1", "metadata"), ("svm2", "metadata"), ("svm3", "metadata"), ("svm4", "software")];
/// Port 80 goes through three services that are handed super-frames, port 81 through one between them that is not.
const CHAINS: &str = r#"
[[chain]]
name = "whole"
[[chain.path]]
spi = 1
hops = ["svm1", "svm2", "svm3"]
reverse_spi = 101

[[chain]]
name = "mixed"
[[chain.path]]
spi = 2
hops = ["svm1", "svm4", "svm3"]
reverse_spi = 102

[[policy]]
chain = "whole"
priority = 200
from = ["vm5"]
match = { proto = "tcp", dport = "80" }

[[policy]]
chain = "mixed"
priority = 100
from = ["vm5"]
match = { proto = "tcp", dport = "81" }
"#;
/// As in the reference scenario: emulated CPUs wait for their turn.
const LIVENESS: &str = r#"{ interval = "100ms", timeout = "100ms", multiplier = 5, idle_interval = "400ms", stall = "500ms", recover = 3, hold_down = "500ms", hold_down_max = "4s" }"#;
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of the file that is moved.
const FILE: u64 = 4 << 20;
/// A frame of a link with MTU 1500 behind an NSH.
const LONGEST_SEGMENT: u64 = 1514 + 38;

/// Every offload off, as QEMU names them.
const NONE: &str = ",csum=off,gso=off,guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,\
                    host_tso4=off,host_tso6=off,host_ecn=off,host_ufo=off";

#[test]
fn tcp_with_and_without_offloads() {
    let kit = match Kit::find().and_then(|kit| program("tshark").map(|_| kit)) {
        Ok(kit) => kit,
        Err(missing) => return skip::skip("TCP with and without offloads", &missing.to_string()),
    };
    let programs = Programs::build().unwrap();
    let progress = Progress::start();
    let mut site = Site::start(kit, &programs).unwrap();
    if let Err(error) = scenario(&mut site, &progress) {
        site.dump();
        panic!("{error:#}");
    }
}

fn scenario(site: &mut Site, progress: &Progress) -> Result<()> {
    for (name, _) in SERVICES {
        // svm1 is told its MTU by its device, as `livepath attach` has it; in the others the responder raises it.
        site.boot(name, if name == "svm1" { ",host_mtu=65535" } else { "" })?;
    }
    for (receiver, sender, what) in
        [("", "", "both"), (NONE, "", "the sender"), ("", NONE, "the receiver"), (NONE, NONE, "nobody")]
    {
        site.boot("vm5", receiver)?;
        site.boot("vm6", sender)?;
        site.await_health()?;
        progress.step(&format!("guests run; offloads: {what}"));
        site.serve()?;
        for (port, middle) in [(80, "svm2"), (81, "svm4")] {
            let [sent, seen, got] = site.transfer("10.0.0.6", port, middle, "tcp")?;
            progress.step(&format!(
                "through {middle}: the longest frames are {sent} bytes at vm6, {seen} at {middle}, {got} at vm5"
            ));
            let whole = |longest: u64| longest > LONGEST_SEGMENT;
            ensure!(whole(sent) == sender.is_empty(), "vm6 sent frames of {sent} bytes");
            ensure!(whole(seen) == (sender.is_empty() && port == 80), "{middle} got frames of {seen} bytes");
            ensure!(
                whole(got) == (sender.is_empty() && receiver.is_empty() && port == 80),
                "vm5 got frames of {got} bytes"
            );
        }
        if receiver.is_empty() && sender.is_empty() {
            site.take_up_ipv6_and_ecn()?;
            // Marked as capable of ECN by their sender, which does that if both ends have agreed on it.
            let frames = site.transfer("[fd00::6]", 80, "svm2", "ipv6.tclass.ecn == 2 && tcp")?;
            progress.step(&format!("over IPv6 with ECN the longest frames are {frames:?} bytes"));
            ensure!(
                frames.iter().all(|longest| *longest > LONGEST_SEGMENT),
                "over IPv6 frames of {frames:?} bytes"
            );
        }
    }
    let drops = site.daemon.status()?;
    for (port, _) in TENANTS {
        ensure!(drops.drops(port, "vnet_header") == 0, "{port} asked for what it may not");
    }
    Ok(())
}

struct Site {
    // Before the directory with their sockets.
    guests: BTreeMap<&'static str, Guest>,
    daemon: Daemon,
    kit: Kit,
    initramfs: PathBuf,
    directory: TempDir,
}

impl Site {
    fn start(kit: Kit, programs: &Programs) -> Result<Site> {
        let directory = tempfile::Builder::new().prefix("livepath-").tempdir()?;
        let initramfs = kit.initramfs(directory.path(), &[&programs.responder])?;
        let daemon = Daemon::start(programs, directory.path(), &configuration(directory.path()))?;
        Ok(Site { guests: BTreeMap::new(), daemon, kit, initramfs, directory })
    }

    /// Starts a guest, in place of the one of that name, with these properties of its vNIC.
    fn boot(&mut self, name: &'static str, properties: &'static str) -> Result<()> {
        self.guests.remove(name);
        let tenant = TENANTS.iter().find(|(tenant, _)| *tenant == name);
        let role = match tenant {
            Some((_, host)) => Role::Tenant(format!("10.0.0.{host}/24")),
            None => Role::Service("--service forward".into()),
        };
        let spec = GuestSpec {
            name: name.into(),
            mac: mac(name),
            role,
            link: Link::VhostUser(self.directory.path().join(format!("{name}.sock"))),
            queue_pairs: 1,
            properties,
        };
        let guest = Guest::start(&self.kit, &self.initramfs, self.directory.path(), spec)?;
        self.guests.insert(name, guest);
        Ok(())
    }

    fn await_health(&mut self) -> Result<()> {
        for guest in self.guests.values() {
            guest.await_boot()?;
        }
        poll("everything up", PATIENCE, || {
            self.daemon.alive()?;
            let status = self.daemon.status()?;
            let up = SERVICES.iter().all(|(name, _)| status.state(name) == "up")
                && TENANTS.iter().all(|(name, _)| status.attached(name));
            ensure!(up, "{}", status.summary());
            Ok(())
        })?;
        Ok(())
    }

    /// Lets vm6 serve a random file at both ports.
    fn serve(&self) -> Result<()> {
        let vm6 = &self.guests["vm6"];
        vm6.run(&format!("mkdir -p /tmp/www && head -c {FILE} /dev/urandom >/tmp/www/file"))?;
        vm6.run("httpd -p 80 -h /tmp/www && httpd -p 81 -h /tmp/www").map(drop)
    }

    fn take_up_ipv6_and_ecn(&self) -> Result<()> {
        for (name, host) in TENANTS {
            // Nobody else has the address, so it need not be asked for first.
            self.guests[name].run("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad")?;
            self.guests[name].run(&format!("ip -6 addr add fd00::{host}/64 dev eth0"))?;
            self.guests[name].run("echo 1 >/proc/sys/net/ipv4/tcp_ecn")?;
        }
        Ok(())
    }

    /// Fetches vm6's file from vm5 by this address of vm6's and compares checksums; gives the longest frame, of those that tshark's
    /// filter `which` picks, that crossed the ports of vm6, `middle` and vm5 meanwhile.
    fn transfer(&self, host: &str, port: u16, middle: &str, which: &str) -> Result<[u64; 3]> {
        let captures = ["vm6", middle, "vm5"].map(|port| self.capture(port));
        let fetch = format!("wget -q -O - http://{host}:{port}/file | sha256sum");
        let fetched = self.guests["vm5"].output(&fetch, PATIENCE)?.text;
        let served = self.guests["vm6"].run("sha256sum </tmp/www/file")?;
        ensure!(fetched.trim() == served.trim(), "fetched {fetched}, served {served}");
        let mut longest = [0; 3];
        for (longest, capture) in longest.iter_mut().zip(captures) {
            *longest = self.longest(capture?, which)?;
        }
        Ok(longest)
    }

    /// A running `livepath capture` of a port, and its file.
    fn capture(&self, port: &str) -> Result<(Process, PathBuf)> {
        let file = self.directory.path().join(format!("{port}.pcapng"));
        // A file of the transfer before would pass for the new one.
        let _ = std::fs::remove_file(&file);
        let mut command = self.daemon.livepath();
        command.args(["capture", port, "-w"]).arg(&file);
        let process = Process::start(&mut command, &self.directory.path().join("capture.log"))?;
        poll("the capture's file", PATIENCE, || Ok(std::fs::metadata(&file)?))?;
        Ok((process, file))
    }

    /// Ends the capture as Ctrl-C does; the longest of those frames in it, as tshark reads it.
    fn longest(&self, (mut process, file): (Process, PathBuf), which: &str) -> Result<u64> {
        process.alive()?;
        process.end(Signal::INT, Duration::from_secs(10))?;
        let mut tshark = Command::new(program("tshark")?);
        let output =
            tshark.arg("-r").arg(file).args(["-Y", which, "-T", "fields", "-e", "frame.len"]).output()?;
        ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().filter_map(|line| line.parse().ok()).max().context("nothing was captured")
    }

    fn dump(&self) {
        eprintln!("--- livepathd:\n{}", self.daemon.log());
        for guest in self.guests.values() {
            let command =
                "ip -s link show eth0; cat /tmp/responder.log 2>/dev/null | tail -n 20; dmesg | tail -n 20";
            let told = guest.output(command, Duration::from_secs(5)).map(|output| output.text);
            eprintln!("--- {} says:\n{}", guest.name(), told.unwrap_or_else(|error| format!("{error:#}")));
        }
    }
}

fn mac(name: &str) -> String {
    let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    format!("52:54:00:00:0{}:0{number}", u8::from(name.starts_with("svm")))
}

fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    let mut text = String::new();
    let mut port = |name: &str, rest: &str| {
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nsocket = \"{directory}/{name}.sock\"\nmac = \"{}\"\n{rest}\n",
            mac(name)
        );
    };
    for (name, _) in TENANTS {
        port(name, "role = \"tenant\"");
    }
    for (index, (name, offload)) in SERVICES.iter().enumerate() {
        let uuid = format!("0d1a7e6a-6d0c-4f0b-9f5e-{index:012}");
        port(
            name,
            &format!("role = \"service\"\nuuid = \"{uuid}\"\noffload = \"{offload}\"\nliveness = {LIVENESS}"),
        );
    }
    text + CHAINS
}
