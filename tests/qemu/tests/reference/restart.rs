//! The daemon dies without a farewell and is started again under traffic: no guest boots anew, and frames flow as soon as
//! their VMMs are back. A VMM that listens is back at once, one that connects when its own timer says so.

use std::time::Instant;

use anyhow::{Result, ensure};
use qemu_guests::{Progress, Status};
use qemu_vm::Guest;

use crate::site::{CONNECTS, Site};
use crate::traffic::{self, Flow};

type Come = fn(&Status) -> bool;

pub(crate) fn run(site: &mut Site, progress: &Progress) -> Result<()> {
    let boots = |site: &Site| -> Result<Vec<String>> {
        site.guests().map(|guest| guest.run("cat /proc/sys/kernel/random/boot_id")).collect()
    };
    let before = boots(site)?;
    let links = |site: &Site| -> Result<Vec<u32>> {
        let changes = |guest: &Guest| guest.run("cat /sys/class/net/eth0/carrier_changes");
        site.guests().map(|guest| Ok(changes(guest)?.trim().parse()?)).collect()
    };
    let links_before = links(site)?;
    let flow = Flow::open(site, 9004)?;
    // Unlike the connection it does not slow down when nothing comes back.
    site.guest("vm5").run("ping -q -i 0.01 10.0.0.6 >/dev/null 2>&1 &")?;
    site.restart_daemon()?;
    let started = Instant::now();
    let moments: [(&str, Come); 3] = [
        ("first packet handed to vm6", |status| status.handed("vm6") > 0),
        ("every service VM of SPI 1 up", |status| status.path(1) == "up"),
        ("the VMM that connects is back", |status| status.attached(CONNECTS)),
    ];
    for (what, come) in moments {
        site.await_moment(what, come)?;
        progress.step(&format!("{what} {} ms after livepathd was started", started.elapsed().as_millis()));
    }
    site.guest("vm5").run("kill $(pidof ping)")?;
    site.await_health()?;
    flow.close(site)?;
    ensure!(boots(site)? == before, "a guest booted anew");
    // QEMU's own doing: it takes the link down while nobody is at the socket.
    let seen: Vec<u32> = links(site)?.iter().zip(&links_before).map(|(now, before)| now - before).collect();
    progress.step(&format!("changes of the link that the guests have seen: {seen:?}"));
    traffic::transfer_through(site, "svm2")?;
    progress.step("the connection went on, and SPI 1 is in use again");
    Ok(())
}
