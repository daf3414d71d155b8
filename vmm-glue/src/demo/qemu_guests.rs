//! The cast of the demo as stock Linux guests in QEMU: service VMs run `livepath-responder`, vm5 sends numbered datagrams
//! and vm6 counts them.
//!
//! ```text
//! vm5 vm6 svm1 svm3 svm4 svm7 svm8: a QEMU each      a thread of its own waits for svm2, which fails
//! ```
//!
//! The guests' clocks are not this machine's, so what happens when is read off the ports' counters.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use qemu_vm::traffic::{PORT, read_arrived, read_sent};
use qemu_vm::{Guest, GuestPrograms, GuestSpec, Kit, Link, Role};
use test_vm::guest::Fault;
use vhost_backend::host::Host;
use vhost_backend::liveness::Timestamp;
use vhost_backend::telemetry::PortCounters;
use vhost_backend::worker::monotonic_now;

use super::cast::{Cast, Pace, SERVICES, STAND_IN, Tally, VICTIM};
use super::stage::socket;
use super::victim::{Injection, Order, Victim};
use super::view::View;

/// From one look at the ports to the next: what is measured is exact to as much.
const LOOK: Duration = Duration::from_micros(500);
/// How long guests may take to boot, many times what it takes on idle cores.
const BOOT: Duration = Duration::from_secs(180);
/// An answer that carries no frame is not as long; one that carries a tenant's is longer.
const ANSWER: u64 = 64;
/// Traffic ends when this file is there, in vm5 and in vm6.
const END: &str = "/tmp/end";
/// Where the counts are then.
const COUNTS: &str = "/tmp/counts";
/// Announcements of IPv6 would count as tenants' frames.
const NO_IPV6: &str = "f=/proc/sys/net/ipv6/conf/all/disable_ipv6; [ ! -e $f ] || echo 1 >$f";

/// What guests are made of.
pub(super) struct Makings {
    kit: Kit,
    programs: GuestPrograms,
}

impl Makings {
    /// Looks for what is needed, and builds the programs that run in guests.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
    pub(super) fn get(view: &mut View) -> Result<Self> {
        let kit = Kit::find().context("guests in QEMU cannot be had")?;
        view.say("building what runs in the guests, which takes a minute the first time");
        Ok(Self { kit, programs: GuestPrograms::build()? })
    }
}

/// The guests, and what the ports had counted before.
pub(super) struct QemuGuests {
    vm5: Guest,
    vm6: Guest,
    /// The service VMs that do not fail.
    _services: Vec<Guest>,
    victim: Victim,
    /// Frames handed to vm6 before traffic began.
    before: u64,
    /// What came from svm4 before svm2 failed.
    stand_in: PortCounters,
    sent: u64,
}

impl QemuGuests {
    /// Boots every guest on its socket in `folder`.
    pub(super) fn attach(makings: &Makings, folder: &Path, view: &mut View) -> Result<Self> {
        let Makings { kit, programs } = makings;
        let initramfs = kit.initramfs(folder, &[&programs.responder, &programs.traffic])?;
        let start = |name: &str| Guest::start(kit, &initramfs, folder, spec(name, socket(folder, name)));
        let mut guests: Vec<Guest> =
            ["vm5", "vm6"].into_iter().chain(SERVICES).map(start).collect::<Result<_>>()?;
        view.say("eight guests are booting, all at once");
        await_boots(&guests, view)?;
        for guest in &guests {
            guest.run(NO_IPV6)?;
        }
        let mut take = |name: &str| {
            let index = guests.iter().position(|guest| guest.name() == name);
            index.map(|index| guests.swap_remove(index)).with_context(|| format!("there is no {name}"))
        };
        let (vm5, vm6, victim) = (take("vm5")?, take("vm6")?, take(VICTIM)?);
        Ok(Self {
            vm5,
            vm6,
            _services: guests,
            victim: Victim::new(move |orders| live(victim, orders)).context("svm2 gets no thread")?,
            before: 0,
            stand_in: PortCounters::default(),
            sent: 0,
        })
    }
}

impl Cast for QemuGuests {
    fn pace(&self) -> Pace {
        // svm2 alone boots within the first.
        Pace {
            patience: Duration::from_secs(90),
            settle: Duration::from_secs(1),
            calm: Duration::from_secs(1),
        }
    }

    /// They work by themselves.
    fn step(&mut self) {
        std::thread::sleep(LOOK);
    }

    fn start_traffic(&mut self, rate: u64, host: &Host) -> Result<()> {
        self.vm6.run(&format!(
            "livepath-traffic receive {END} >{COUNTS} 2>&1 & until netstat -lnu | grep -q ':{PORT} '; do usleep 50000; done"
        ))?;
        // Nobody has to ask for it while traffic flows.
        self.vm5.run(&format!("arp -s {} {}", address(6), mac("vm6")))?;
        self.before = counters(host, "vm6").rx_packets;
        let send = format!("livepath-traffic send {} {rate} {END} >{COUNTS} 2>&1 &", address(6));
        self.vm5.run(&send).map(drop)
    }

    fn stop_traffic(&mut self) -> Result<()> {
        self.sent = read_sent(&counted(&self.vm5)?).context("vm5")?;
        Ok(())
    }

    fn inject(&mut self, fault: Fault, host: &Host) -> Injection {
        self.stand_in = counters(host, STAND_IN);
        self.victim.inject(fault)
    }

    fn stood_in(&self, host: &Host) -> bool {
        has_forwarded(&self.stand_in, &counters(host, STAND_IN))
    }

    fn arrived(&self, host: &Host) -> u64 {
        counters(host, "vm6").rx_packets.saturating_sub(self.before)
    }

    fn tally(&mut self) -> Result<Tally> {
        let arrived = read_arrived(&counted(&self.vm6)?).context("vm6")?;
        Ok(Tally {
            sent: self.sent,
            arrived: arrived.unique,
            duplicated: arrived.duplicated,
            reordered: arrived.reordered,
        })
    }

    /// A guest cannot tell.
    fn stood_still(&self) -> Option<Duration> {
        None
    }

    fn stood_still_between(&self, _: Timestamp, _: Timestamp) -> Option<Duration> {
        None
    }

    fn swallowed(&self) -> Option<u64> {
        None
    }
}

/// A port's counters; none for a port that there is not.
fn counters(host: &Host, name: &str) -> PortCounters {
    host.status().into_iter().find(|port| port.name == name).map(|port| port.counters).unwrap_or_default()
}

/// Whether a service VM has sent more than answers that carry no frame: more bytes than these have, and than one more has, as
/// packets and bytes are not counted in one stroke.
fn has_forwarded(before: &PortCounters, now: &PortCounters) -> bool {
    let packets = now.tx_packets.saturating_sub(before.tx_packets);
    now.tx_bytes.saturating_sub(before.tx_bytes) > ANSWER * (packets + 1)
}

/// Ends a tenant's traffic; gives the line with its counts.
fn counted(tenant: &Guest) -> Result<String> {
    let ended = format!("while pidof livepath-traffic >/dev/null; do usleep 50000; done; cat {COUNTS}");
    tenant.run(&format!("touch {END}; {ended}"))
}

/// The last byte of a VM's address: its number.
fn number(name: &str) -> u8 {
    name.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse().unwrap_or(0)
}

fn address(number: u8) -> String {
    format!("10.0.0.{number}")
}

fn mac(name: &str) -> String {
    let kind = u8::from(name.starts_with("svm"));
    format!("52:54:00:00:{kind:02x}:{:02x}", number(name))
}

fn spec(name: &str, socket: PathBuf) -> GuestSpec {
    let role = if SERVICES.contains(&name) {
        Role::Service("--service forward".to_owned())
    } else {
        Role::Tenant(format!("{}/24", address(number(name))))
    };
    let link = Link::VhostUser(socket);
    GuestSpec { name: name.to_owned(), mac: mac(name), role, link, queue_pairs: 1, properties: "" }
}

/// Waits until every guest takes commands, and tells of each.
fn await_boots(guests: &[Guest], view: &mut View) -> Result<()> {
    let began = Instant::now();
    let mut booting: Vec<&Guest> = guests.iter().collect();
    while let Some(slow) = booting.first() {
        ensure!(began.elapsed() < BOOT, "{} did not boot in {BOOT:?}", slow.name());
        let mut left = Vec::new();
        for guest in booting {
            match guest.booted()? {
                Some(_) => view.say(&format!("{} has booted", guest.name())),
                None => left.push(guest),
            }
        }
        booting = left;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What svm2's thread does.
fn live(mut guest: Guest, orders: &Receiver<Order>) {
    let mut in_force = Fault::None;
    for order in orders {
        let at = monotonic_now();
        let done = if order.fault == Fault::None {
            heal(&mut guest, in_force)
        } else {
            fail(&mut guest, order.fault)
        };
        in_force = order.fault;
        order.made(done.map(|()| at));
    }
}

/// A service is told to hang over the guest's console, and not waited for: the times that are measured begin when it is told.
fn fail(guest: &mut Guest, fault: Fault) -> Result<()> {
    match fault {
        Fault::Freeze => guest.freeze(),
        Fault::Kill => guest.kill().map(drop),
        Fault::Hang => guest.order("kill -STOP $(pidof livepath-responder)"),
        Fault::DropAll => replace_service(guest, "drop"),
        Fault::Reset => guest.reset(),
        other => bail!("a guest in QEMU cannot be made to fail like this: {other}"),
    }
}

fn heal(guest: &mut Guest, fault: Fault) -> Result<()> {
    match fault {
        Fault::Freeze => guest.thaw(),
        Fault::Kill => {
            guest.start_again()?;
            guest.await_boot().map(drop)
        }
        Fault::Hang => guest.continue_process("livepath-responder"),
        Fault::DropAll => replace_service(guest, "forward"),
        // It boots by itself.
        Fault::Reset => guest.await_boot().map(drop),
        _ => Ok(()),
    }
}

/// Puts another service in the place of the one that runs; there is always one that answers.
fn replace_service(guest: &Guest, service: &str) -> Result<()> {
    let log = format!("/tmp/{service}.log");
    guest
        .run(&format!(
            "old=$(pidof livepath-responder); livepath-responder --interface eth0 --service {service} >{log} 2>&1 & \
             until grep -q listening {log}; do usleep 20000; done; kill $old"
        ))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_alone_are_not_taken_for_tenants_frames() {
        let sent = |tx_packets, tx_bytes| PortCounters { tx_packets, tx_bytes, ..PortCounters::default() };
        let before = sent(10, 380);
        // A bare answer has 38 bytes, one that carries a tenant's datagram 166.
        assert!(!has_forwarded(&before, &before));
        assert!(!has_forwarded(&before, &sent(11, 418)));
        assert!(!has_forwarded(&before, &sent(10, 418)), "bytes that were counted before their packet");
        assert!(!has_forwarded(&before, &sent(110, 4_180)));
        assert!(has_forwarded(&before, &sent(11, 546)));
        assert!(has_forwarded(&before, &sent(14, 380 + 2 * 38 + 2 * 166)));
    }

    #[test]
    fn guests_are_what_the_reference_scenario_says() {
        let reference = include_str!("reference.toml");
        for name in ["vm5", "vm6"].into_iter().chain(SERVICES) {
            let spec = spec(name, PathBuf::new());
            assert!(reference.contains(&format!("name = \"{name}\"")), "{name}");
            assert!(reference.contains(&format!("mac = \"{}\"", spec.mac)), "{name}: {}", spec.mac);
            assert_eq!(matches!(spec.role, Role::Service(_)), name.starts_with("svm"), "{name}");
        }
    }
}
