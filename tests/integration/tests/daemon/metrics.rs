//! The metrics over a real socket: what they say, that strict readers take them, and what a hostile scraper can do.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use integration::PATIENCE;
use test_vm::guest::{Fault, Guest};
use vmm_glue::config::Config;
use vmm_glue::daemon::Daemon;

use super::exposition::{Exposition, Form};
use super::site::{self, CHAIN, Site};

/// Name, type, unit and labels, as promised to dashboards and alerts.
pub(crate) const PROMISED: [(&str, &str, &str, &[&str]); 22] = [
    ("livepath_chain_policy_active", "gauge", "", &["chain", "policy"]),
    ("livepath_chain_policy_packets", "counter", "", &["chain", "policy"]),
    ("livepath_failover_reflected", "counter", "", &[]),
    ("livepath_failover_replayed", "counter", "", &[]),
    ("livepath_failover_salvaged", "counter", "", &[]),
    ("livepath_flows_displaced", "counter", "", &["worker"]),
    ("livepath_liveness_misses", "counter", "", &["service"]),
    ("livepath_liveness_queries", "counter", "", &["kind", "service"]),
    ("livepath_liveness_rejected", "counter", "", &["reason", "service"]),
    ("livepath_liveness_responses", "counter", "", &["service"]),
    ("livepath_liveness_rtt_seconds", "histogram", "seconds", &["service"]),
    ("livepath_path_state", "gauge", "", &["chain", "spi"]),
    ("livepath_port_bytes", "counter", "bytes", &["direction", "port"]),
    ("livepath_port_drops", "counter", "", &["port", "reason"]),
    ("livepath_port_held", "counter", "", &["port"]),
    ("livepath_port_packets", "counter", "", &["direction", "port"]),
    ("livepath_service_degraded", "gauge", "", &["service"]),
    ("livepath_service_evidence", "gauge", "", &["level", "service"]),
    ("livepath_service_state", "gauge", "", &["mechanism", "service"]),
    ("livepath_service_transitions", "counter", "", &["cause", "service", "to"]),
    ("livepath_worker_busy_ratio", "gauge", "ratio", &["worker"]),
    ("livepath_worker_pause_seconds", "histogram", "seconds", &["worker"]),
];

const OPEN: &str = "GET /metrics HTTP/1.1\r\nHost: host-a\r\nAccept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n\r\n";
const TEXT: &str = "GET /metrics HTTP/1.1\r\nHost: host-a\r\nAccept: */*\r\n\r\n";

/// Sends a request and reads until the daemon closes the connection: head and body.
fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("the request goes out");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer that ends");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_ascii_lowercase(), body.to_owned())
}

fn scrape(address: SocketAddr) -> Exposition {
    let (head, body) = ask(address, OPEN);
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    Exposition::parse(&body, Form::OpenMetrics).unwrap_or_else(|fault| panic!("{fault}\n{body}"))
}

/// Scrapes while the guests work, so that none of them is taken for dead meanwhile.
pub(crate) fn scrape_beside(site: &mut Site) -> Exposition {
    let address = site.daemon.metrics().expect("metrics are served");
    let scraper = std::thread::spawn(move || scrape(address));
    joined(site, "the scrape is answered", scraper)
}

fn joined<T>(site: &mut Site, what: &str, thread: JoinHandle<T>) -> T {
    site.until(what, |_| thread.is_finished());
    thread.join().expect("the thread ends well")
}

#[test]
fn a_scrape_tells_what_the_host_does() {
    let mut site = Site::start(false);
    site.until_all_up();
    site.start_traffic();
    site.until_traffic_flows();
    let before = scrape_beside(&mut site);
    assert!(
        before.value("livepath_port_packets_total", &[("port", "vm5"), ("direction", "tx")]).unwrap() > 500.0
    );
    assert!(
        before.value("livepath_port_bytes_total", &[("port", "vm6"), ("direction", "rx")]).unwrap()
            > 64_000.0
    );
    let state = |page: &Exposition, mechanism| {
        page.value("livepath_service_state", &[("service", "svm2"), ("mechanism", mechanism)])
    };
    assert_eq!(state(&before, "data_plane"), Some(1.0));
    assert_eq!(state(&before, "control_plane"), Some(-1.0), "there is no controller that could say");
    assert_eq!(state(&before, "management"), Some(1.0));
    let path =
        |page: &Exposition, spi| page.value("livepath_path_state", &[("chain", "inspect"), ("spi", spi)]);
    assert_eq!(["1", "2", "101"].map(|spi| path(&before, spi)), [Some(1.0), Some(1.0), None]);
    let answers = before.value("livepath_liveness_responses_total", &[("service", "svm1")]);
    assert!(answers.unwrap() > 0.0);
    assert_eq!(before.value("livepath_liveness_rtt_seconds_count", &[("service", "svm1")]), answers);
    let busy = before.value("livepath_worker_busy_ratio", &[("worker", "0")]).unwrap();
    assert!((0.0..=1.0).contains(&busy), "{busy}");

    let now = site.now();
    site.service("svm2").inject(Fault::Hang, now).unwrap();
    site.until("svm2 is down", |site| site::state(&site.daemon.status(), "svm2").0 == "down");
    let down = [("service", "svm2"), ("to", "down"), ("cause", "no-response")];
    let mut after = scrape_beside(&mut site);
    // A page made just before may still be given.
    while after.value("livepath_service_transitions_total", &down).is_none() {
        after = scrape_beside(&mut site);
    }
    assert_eq!(state(&after, "data_plane"), Some(0.0));
    assert_eq!(["1", "2"].map(|spi| path(&after, spi)), [Some(0.0), Some(1.0)]);
    let grown = after.growing();
    for (series, value) in before.growing() {
        assert!(grown.get(&series).is_some_and(|now| *now >= value), "{series:?} was {value}");
    }
}

#[test]
fn names_types_units_and_labels_are_as_promised_in_both_forms() {
    let mut site = Site::start(false);
    site.until_all_up();
    let page = scrape_beside(&mut site);
    let families = page.0.iter().map(|(name, family)| {
        let unit = family.unit.as_deref().unwrap_or_default();
        (name.as_str(), family.kind.as_str(), unit)
    });
    assert!(families.eq(PROMISED.iter().map(|(name, kind, unit, _)| (*name, *kind, *unit))), "{:#?}", page.0);
    for (name, _, _, promised) in PROMISED {
        for (_, labels, _) in &page.0[name].samples {
            let labels: BTreeSet<&str> =
                labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
            assert!(labels.iter().eq(promised), "{name}: {labels:?}");
        }
    }

    let address = site.daemon.metrics().unwrap();
    let (head, body) = ask(address, TEXT);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let text = Exposition::parse(&body, Form::Text).unwrap_or_else(|fault| panic!("{fault}\n{body}"));
    let name =
        |name: &str, kind: &str| if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
    assert!(
        text.0.keys().eq(PROMISED
            .iter()
            .map(|(plain, kind, ..)| name(plain, kind))
            .collect::<BTreeSet<_>>()
            .iter())
    );
    let series = |page: &Exposition| page.0.values().flat_map(|family| &family.samples).count();
    assert_eq!(series(&text), series(&page));
}

#[test]
fn the_document_has_every_metric() {
    let document = include_str!("../../../../docs/metrics.md");
    let rows = document.lines().filter(|line| line.starts_with("| `livepath_"));
    let mut documented: Vec<[String; 3]> = rows
        .map(|row| {
            let mut cells = row.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).skip(1);
            [(); 3].map(|()| cells.next().expect("a cell"))
        })
        .collect();
    documented.sort();
    let promised = PROMISED.map(|(name, kind, _, labels)| {
        let suffix = if kind == "counter" { "_total" } else { "" };
        [format!("{name}{suffix}"), kind.to_owned(), labels.join(", ")]
    });
    assert_eq!(documented, promised);
}

#[test]
fn what_is_no_scrape_is_answered_and_closed() {
    let mut site = Site::start(false);
    let address = site.daemon.metrics().unwrap();
    let long = format!("GET /metrics HTTP/1.1\r\nHost: host-a\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: host-a\r\n\r\n", "404"),
        ("GET /metrics/ HTTP/1.1\r\nHost: host-a\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: host-a\r\nContent-Length: 99999999999\r\n\r\n", "405"),
        ("HEAD /metrics HTTP/1.1\r\nHost: host-a\r\n\r\n", "200"),
        ("GET /metrics HTTP/1.0\r\n\r\n", "200"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{0}\r\n\r\n", "400"),
        (&*many, "431"),
        ("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"),
        ("GET /metrics HTTP/1.1\r\nHost: {.evil.example\r\n\r\n", "421"),
        ("GET http://evil.example/metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "421"),
        ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9300\r\n\r\n", "200"),
        ("GET /metrics HTTP/1.1\r\nHost: prometheus.example:9300\r\n\r\n", "200"),
    ] {
        let (head, body) = ask(address, request);
        assert!(head.split(' ').nth(1) == Some(status), "{request:?}: {head}");
        assert!(body.is_empty() || !request.starts_with("HEAD"), "{body}");
    }
    // A head that is too long may be cut off before it was sent.
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    site.until_all_up();
    scrape_beside(&mut site);
}

/// Connections that say nothing, say it slowly or do not read take their slots for a while, and nothing else.
#[test]
fn slow_scrapers_hurt_neither_the_traffic_nor_for_long_each_other() {
    let mut site = Site::start(false);
    site.until_all_up();
    site.start_traffic();
    site.until_traffic_flows();
    let address = site.daemon.metrics().unwrap();
    let slow: Vec<_> = (0..100)
        .map(|number| {
            let mut stream = TcpStream::connect(address).expect("the kernel takes it");
            let said =
                [&b""[..], b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: host-a\r\nX: ", TEXT.as_bytes()];
            stream.write_all(said[number % said.len()]).expect("a few bytes fit");
            stream
        })
        .collect();
    site.until_traffic_flows();
    scrape_beside(&mut site);
    site.until_traffic_flows();
    let status = site.daemon.status();
    assert!(status.services.iter().all(|service| service.flaps == 0), "{status:#?}");
    // The daemon ends although they are still there.
    drop(site);
    assert!(TcpStream::connect(address).is_err());
    drop(slow);
}

#[test]
fn an_address_that_cannot_be_listened_on_is_named_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = site::configuration(&folder, None, CHAIN).replace("127.0.0.1:0", &address);
    let error = Daemon::start(Config::parse(&text, "t.toml".as_ref()).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {address}, which is metrics in [host]"));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
