//! The program itself: killed at any moment it loses nothing it acknowledged.

#![forbid(unsafe_code)]

use controller_stub::api::{
    Cause, Chain, Evidence, HostId, Liveness, Name, Registration, Report, Reports, ServicePort, State,
};
use controller_stub::client::Client;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_livepath-controller");

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // SIGKILL: nothing is flushed, nothing is closed.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn spawn(store: &Path) -> Killed {
    let mut command = Command::new(PROGRAM);
    command.args(["--listen", "127.0.0.1:0", "--store"]).arg(store);
    Killed(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
}

fn start(store: &Path) -> (Killed, Client) {
    let mut process = spawn(store);
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url =
        line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("it did not start: {line:?}"));
    (process, Client::new(url).unwrap().with_deadline(Duration::from_secs(60)))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn report(id: u64) -> Reports {
    let (state, cause) =
        if id.is_multiple_of(2) { (Liveness::Up, Cause::NONE) } else { (Liveness::Down, Cause::NO_RESPONSE) };
    let evidence = Evidence::default();
    let report = Report {
        id,
        service: name("svm2"),
        state,
        cause,
        evidence,
        epoch: 1,
        at: 0,
        detected_after_us: None,
    };
    Reports { incarnation: 1, reports: vec![report] }
}

#[tokio::test]
async fn acknowledged_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let host = HostId::new(1).unwrap();
    let chain: Chain = serde_json::from_value(json!({"paths": [{"spi": 1, "hops": ["svm2"]}]})).unwrap();
    let registration = Registration {
        name: name("host-a"),
        incarnation: 1,
        generation: 0,
        services: vec![ServicePort { name: name("svm2"), uuid: None }],
        chains: [].into(),
    };

    let (process, client) = start(&store);
    client.put_chain(&name("inspect"), &chain).await.unwrap();
    client.register(host, &registration).await.unwrap();
    drop(process);

    let (mut id, mut generation, mut history) = (0, 0, Vec::new());
    for _ in 0..12 {
        let (process, client) = start(&store);
        let status = client.status().await.unwrap();
        assert!(status.generation >= generation);
        assert_eq!(status.chains.len(), 1);
        let kept = client.events(0, 10_000).await.unwrap().events;
        assert!(kept.starts_with(&history), "history is kept");
        if id > 0 {
            let expected = if u64::is_multiple_of(id, 2) { State::Up } else { State::Down };
            assert_eq!(status.services[0].data_plane.state, expected);
            assert_eq!(client.report(host, &report(id)).await.unwrap().known, 1);
        }
        id += 1;
        let told = client.report(host, &report(id)).await.unwrap();
        assert_eq!(told.stored, 1);
        generation = told.generation;
        history = kept;
        drop(process);
    }
}

#[tokio::test]
async fn killed_while_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    for step in 0..12 {
        let process = spawn(&store);
        tokio::time::sleep(Duration::from_millis(step)).await;
        drop(process);
    }
    let (_process, client) = start(&store);
    assert_eq!(client.status().await.unwrap().generation, 0);
}

#[test]
fn usage() {
    let code = |arguments: &[&str]| Command::new(PROGRAM).args(arguments).output().unwrap();
    let help = code(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
    let etcd = code(&["--store", "etcd://127.0.0.1:2379"]);
    assert_eq!(etcd.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&etcd.stderr).contains("not built in"));
    assert_eq!(code(&[]).status.code(), Some(2));
    let nowhere = code(&["--listen", "127.0.0.1:0", "--store", "/no/such/folder/store"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/no/such/folder/store"));
}
