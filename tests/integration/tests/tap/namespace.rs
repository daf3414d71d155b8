//! Private network namespaces: each test has the host's own stack to itself, and nothing of it outlives the test.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use integration::PATIENCE;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use vhost_backend::ring::Uring;

use super::sys::refuse_uring;

const INSIDE: &str = "LIVEPATH_TEST_NAMESPACE";
/// Whether the kernel refuses io_uring there.
const REFUSED: &str = "LIVEPATH_TEST_REFUSED";
const TUN: &str = "/dev/net/tun";

/// Runs `body`, the test of that name, in a process and a network namespace of its own.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    run_alone(test, body, &[false]);
}

/// The same, and then once more where the kernel refuses io_uring.
pub(crate) fn alone_and_without_uring(test: &str, body: impl FnOnce()) {
    run_alone(test, body, &[false, true]);
}

fn run_alone(test: &str, body: impl FnOnce(), refusals: &[bool]) {
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        if std::env::var_os(REFUSED).is_some() {
            refuse_uring().expect("a filter is set");
            assert!(Uring::new().is_err(), "io_uring is refused");
        }
        return body();
    }
    if let Err(error) = File::options().read(true).write(true).open(TUN) {
        return skip::skip(test, &format!("{TUN}: {error}"));
    }
    let exe = std::env::current_exe().expect("this program");
    for refused in refusals {
        let mut inside = unshare();
        inside.arg(&exe).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
        if *refused {
            inside.env(REFUSED, "1");
        }
        let status = inside.status().expect("unshare starts");
        assert!(status.success(), "the test failed in its namespace, io_uring refused: {refused}");
    }
}

/// Root needs no user namespace, which some systems forbid; others get one in which they are root.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--net");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) {
    run(Command::new("ip").args(words.split(' ')));
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Another network namespace, kept by a process in it.
pub(crate) struct Elsewhere(Child);

impl Elsewhere {
    pub(crate) fn new() -> Elsewhere {
        let mut child =
            Command::new("unshare").args(["--net", "sleep", "120"]).spawn().expect("unshare starts");
        let ours = std::fs::read_link("/proc/self/ns/net").expect("our namespace");
        let end = Instant::now() + PATIENCE;
        while std::fs::read_link(link(child.id())).is_ok_and(|theirs| theirs == ours) {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none() && Instant::now() < end, "no second namespace: {ended:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        Elsewhere(child)
    }

    /// Takes an interface there.
    pub(crate) fn take(&self, interface: &str) {
        ip(&format!("link set {interface} netns {}", self.0.id()));
    }

    /// Moves the calling thread, and what it starts, there.
    pub(crate) fn enter(&self) {
        let link = File::open(link(self.0.id())).expect("the namespace");
        move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("the namespace is entered");
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn link(process: u32) -> PathBuf {
    format!("/proc/{process}/ns/net").into()
}
