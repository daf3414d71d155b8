//! Two guests on a wire of QEMU's own: kernel, initramfs, console, monitor and faults work without livepath, so that a
//! failure of the reference scenario is livepath's.

use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_guests::{Progress, poll};
use qemu_vm::{Guest, GuestSpec, Kit, Link, Role};

#[test]
fn two_guests_on_a_wire() {
    match Kit::find() {
        Ok(kit) => scenario(&kit).unwrap(),
        Err(missing) => skip::skip("two guests on a wire", &missing.to_string()),
    }
}

fn scenario(kit: &Kit) -> Result<()> {
    let progress = Progress::start();
    let directory = tempfile::tempdir()?;
    let initramfs = kit.initramfs(directory.path(), &[])?;
    let wire = directory.path().join("wire");
    let guest = |name: &str, host: u8, link| {
        let spec = GuestSpec {
            name: name.into(),
            mac: format!("52:54:00:00:00:{host:02x}"),
            role: Role::Tenant(format!("10.0.0.{host}/24")),
            link,
            queue_pairs: 1,
            properties: "",
        };
        Guest::start(kit, &initramfs, directory.path(), spec)
    };
    let vm5 = guest("vm5", 5, Link::Listen(wire.clone()))?;
    poll("the wire", Duration::from_secs(30), || Ok(std::fs::metadata(&wire)?))?;
    let mut vm6 = guest("vm6", 6, Link::Connect(wire))?;
    for guest in [&vm5, &vm6] {
        progress.step(&format!("{} booted, {:.2} s by its own clock", guest.name(), guest.await_boot()?));
    }

    let output = vm5.output("echo one; echo two >&2; exit 7", Duration::from_secs(5))?;
    ensure!((output.status, output.text.as_str()) == (7, "one\ntwo\n"), "{output:?}");
    let output = vm5.output("sleep 60", Duration::from_secs(1))?;
    ensure!(output.status == 137, "a command outlived its limit: {output:?}");
    ensure!(vm5.run("hostname")?.trim() == "vm5", "wrong name");
    vm5.run("ping -c 3 -W 5 10.0.0.6")?;
    progress.step("ping");

    let deaf = |vm5: &Guest| -> Result<()> {
        let output = vm5.output("ping -c 1 -W 1 10.0.0.6", Duration::from_secs(20))?;
        ensure!(output.status != 0, "a frozen guest answered");
        Ok(())
    };
    let pings = || vm5.run("ping -c 1 -W 1 10.0.0.6");
    let minute = Duration::from_secs(60);
    vm6.freeze()?;
    deaf(&vm5)?;
    vm6.thaw()?;
    poll("ping after the thaw", minute, pings)?;
    vm6.pause()?;
    deaf(&vm5)?;
    vm6.resume()?;
    poll("ping after the pause", minute, pings)?;
    progress.step("frozen and paused, and back");

    vm6.panic()?;
    poll("a dead kernel", minute, || deaf(&vm5))?;
    vm6.reset()?;
    vm6.await_boot()?;
    poll("ping after the reset", minute, pings)?;
    progress.step("kernel panic, and back by a reset");
    Ok(())
}
