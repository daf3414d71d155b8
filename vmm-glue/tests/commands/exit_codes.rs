//! 0 success, 1 failure, 2 usage: everywhere.

use std::process::Command;

use crate::site::{Site, livepath};

/// The exit code and what was said on standard error.
fn ended(command: &mut Command) -> (i32, String) {
    let output = command.output().expect("it runs");
    (output.status.code().expect("it ends by itself"), String::from_utf8(output.stderr).expect("text"))
}

#[track_caller]
fn ends(command: &mut Command, code: i32, said: &str) {
    let (ended, error) = ended(command);
    assert_eq!(ended, code, "{command:?}: {error}");
    assert!(error.contains(said), "{command:?}: not \"{said}\" but: {error}");
}

#[test]
fn help_and_version_are_no_faults() {
    for arguments in [&["--help"][..], &["--version"], &["status", "--help"], &["service", "fail", "--help"]]
    {
        ends(livepath().args(arguments), 0, "");
    }
    ends(Command::new(env!("CARGO_BIN_EXE_livepathd")).arg("--help"), 0, "");
}

#[test]
fn what_cannot_be_asked_is_a_matter_of_usage() {
    for (arguments, said) in [
        (&[][..], "Usage:"),
        (&["dance"], "unrecognized subcommand"),
        (&["status", "--colour"], "unexpected argument"),
        (&["attach", "vm5"], "--vmm"),
        (&["attach", "vm5", "--vmm", "xen"], "possible values: qemu, cloud-hypervisor, libvirt"),
        (&["attach", "vm5", "--vmm", "libvirt", "--", "-m", "2G"], "libvirt is given XML"),
        (&["attach", "vm5", "--vmm", "cloud-hypervisor", "--emulate"], "only QEMU emulates a processor"),
        (&["attach", "vm5", "--vmm", "qemu", "--config", "/nowhere/t.toml"], "cannot read /nowhere/t.toml"),
        (&["trace", "--from", "vm5"], "--flow"),
        (
            &["trace", "--from", "vm5", "--flow", "tcp 10.0.0.5 10.0.0.6:80"],
            "10.0.0.5 is no ADDRESS:PORT; write e.g.",
        ),
        (&["top"], "use livepath status --watch"),
        (&["reload", "--config", "/nowhere/t.toml"], "cannot read /nowhere/t.toml"),
        (&["service", "mend", "svm1"], "unrecognized subcommand"),
        (&["service", "fail", "svm1", "--controller", "ftp://c"], "http://"),
        (&["completions", "dos"], "possible values"),
        (&["demo", "--fault", "sneeze"], "sneeze"),
        (
            &["demo", "--guests", "qemu", "--fault", "mute"],
            "cannot be made to fail by mute; use one of none, freeze",
        ),
        (&["demo", "--guests", "people"], "possible values: test, qemu"),
        (&["capture", "vm5", "--rx", "--tx"], "cannot be used with"),
    ] {
        ends(livepath().args(arguments), 2, said);
    }
    ends(&mut Command::new(env!("CARGO_BIN_EXE_livepathd")), 2, "--config");
}

#[test]
fn what_cannot_be_done_is_a_failure() {
    for arguments in [
        &["status"][..],
        &["status", "--watch"],
        &["events"],
        &["events", "--follow"],
        &["attach", "vm5", "--vmm", "qemu"],
        &["service", "fail", "svm1"],
        &["reload"],
        &["capture", "vm5"],
        &["trace", "--from", "vm5", "--flow", "icmp 10.0.0.5 10.0.0.6"],
    ] {
        let said = "cannot reach livepathd at /nowhere/admin.sock; is it running? name its socket with --admin or LIVEPATH_ADMIN";
        ends(livepath().args(arguments), 1, said);
    }
    let nobody = ["service", "fail", "svm1", "--controller", "http://127.0.0.1:1"];
    ends(livepath().args(nobody), 1, "127.0.0.1:1");
    ends(livepath().args(["man", "/proc/nowhere"]), 1, "cannot make /proc/nowhere");
    let mut demo = livepath();
    demo.args(["demo", "--guests", "qemu"]).env("PATH", "/nowhere").env("LIVEPATH_GUEST_KERNEL", "/nowhere");
    ends(&mut demo, 1, "a guest kernel's vmlinuz in /nowhere (LIVEPATH_GUEST_KERNEL)");
    ends(&mut demo, 1, "`tests/run --fetch` in livepath's repository");
}

#[test]
fn a_daemon_that_says_no_says_what_would_be_right() {
    let site = Site::start();
    for (arguments, code, said) in [
        (
            &["service", "fail", "svm9"][..],
            1,
            "there is no service svm9 on this host; name one of svm1, svm2",
        ),
        (&["capture", "svm9"], 1, "there is no port svm9 on this host; name one of vm5, vm6, svm1, svm2"),
        (&["attach", "svm9", "--vmm", "qemu"], 2, "there is no port svm9; name one of vm5, vm6, svm1, svm2"),
        (
            &["trace", "--from", "svm1", "--flow", "icmp 10.0.0.5 10.0.0.6"],
            1,
            "svm1 is a service port, and flows begin at tenant or tap ports; name one of vm5, vm6",
        ),
    ] {
        ends(site.livepath().args(arguments), code, said);
    }
}
