//! `docs/grafana.json` and the alarms of `docs/operations.md` against a real scrape: every metric they name is there, with every
//! label they use.

use std::collections::BTreeSet;

use serde_json::Value;
use test_vm::guest::{Fault, Guest};

use super::exposition::Exposition;
use super::metrics::{PROMISED, scrape_beside};
use super::site::{Site, state};

const DASHBOARD: &str = include_str!("../../../../docs/grafana.json");

/// What Prometheus adds to every sample.
const ADDED: [&str; 2] = ["instance", "job"];

/// Left out of a page until a ring is full, which takes more traffic than there is here; and its label.
const HELD: (&str, &str) = ("livepath_port_held_total", "port");

/// A query of the dashboard.
#[derive(Debug)]
struct Query {
    metrics: BTreeSet<String>,
    labels: BTreeSet<String>,
}

impl Query {
    /// Metrics are the words that begin with our prefix; labels stand before a matcher, or in the parentheses of `by`.
    fn new(expression: &str, legend: &str) -> Self {
        let word = |text: &str| {
            let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
            text[..end].to_owned()
        };
        let metrics = expression.match_indices("livepath_").map(|(at, _)| word(&expression[at..])).collect();
        let inside = |open: &'static str, close: char| {
            expression
                .split(open)
                .skip(1)
                .flat_map(move |rest| rest.split(close).next().unwrap_or("").split(','))
        };
        let matched = inside("{", '}').map(|matcher| word(matcher.trim()));
        let grouped = inside("by (", ')').map(|label| label.trim().to_owned());
        let shown = legend.split("{{").skip(1).map(word);
        Self { metrics, labels: matched.chain(grouped).chain(shown).collect() }
    }
}

fn queries(dashboard: &Value) -> Vec<Query> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut queries: Vec<Query> =
        targets.map(|target| Query::new(&text(&target["expr"]), &text(&target["legendFormat"]))).collect();
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if variable["type"] == "query" {
            queries.push(Query::new(&text(&variable["query"]["query"]), ""));
        }
    }
    queries
}

/// The alarms that the operations guide proposes: `| alarm | expression |`.
fn alarms() -> Vec<Query> {
    let page = include_str!("../../../../docs/operations.md");
    let rows = page.lines().skip_while(|line| !line.contains("| alarm | expression |")).skip(2);
    let rows = rows.map(str::trim).take_while(|row| row.starts_with('|'));
    rows.filter_map(|row| Some(Query::new(row.split('`').nth(1)?, ""))).collect()
}

/// The names of the labels that samples of this name have.
fn labels_of(page: &Exposition, metric: &str) -> BTreeSet<String> {
    let samples = page.0.values().flat_map(|family| &family.samples);
    samples.filter(|(name, ..)| name == metric).flat_map(|(_, labels, _)| labels.keys().cloned()).collect()
}

fn has(page: &Exposition, metric: &str) -> bool {
    page.0.values().flat_map(|family| &family.samples).any(|(name, ..)| name == metric)
}

#[test]
fn the_dashboard_asks_for_what_is_there() {
    let mut site = Site::start(false);
    site.until_all_up();
    site.start_traffic();
    site.until_traffic_flows();
    // Both paths need it: what comes is dropped, and everything that may be left out of a page is in it.
    let now = site.now();
    site.service("svm1").inject(Fault::Hang, now).unwrap();
    site.until("svm1 is down", |site| state(&site.daemon.status(), "svm1") == ("down", "no-response"));
    site.until("packets are dropped", |site| {
        site.daemon.status().ports.iter().any(|port| port.name == "vm5" && port.dropped > 100)
    });
    let page = scrape_beside(&mut site);

    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let (queries, alarms) = (queries(&dashboard), alarms());
    assert!(queries.len() > 15 && alarms.len() > 4, "{queries:?} {alarms:?}");
    assert!(queries.iter().all(|query| !query.metrics.is_empty()), "{queries:?}");
    for query in queries.iter().chain(&alarms) {
        let mut known: BTreeSet<String> = ADDED.map(str::to_owned).into();
        for metric in &query.metrics {
            if metric == HELD.0 {
                known.insert(HELD.1.to_owned());
                continue;
            }
            assert!(has(&page, metric), "no sample of {metric}");
            known.extend(labels_of(&page, metric));
        }
        assert!(query.labels.is_subset(&known), "{query:?} has only {known:?}");
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let asked: BTreeSet<String> = queries(&dashboard).into_iter().flat_map(|query| query.metrics).collect();
    for (name, kind, ..) in PROMISED {
        let series = match kind {
            "counter" => format!("{name}_total"),
            "histogram" => format!("{name}_bucket"),
            _ => name.to_owned(),
        };
        assert!(asked.contains(&series), "no panel shows {series}");
    }
}

/// What Grafana takes for granted in a file that is imported, as `@grafana/schema` has it.
#[test]
fn the_dashboard_is_one_that_grafana_imports() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(
        dashboard["schemaVersion"].is_u64() && dashboard["uid"].is_string() && dashboard["title"].is_string()
    );
    assert!(dashboard["id"].is_null(), "a number of another Grafana");
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let mut names: BTreeSet<&str> = variables.map(|variable| variable["name"].as_str().unwrap()).collect();
    // Grafana's own.
    names.extend(["__rate_interval", "__all"]);
    for used in DASHBOARD.split('$').skip(1).map(|rest| rest.trim_start_matches('{')) {
        let end = used.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(used.len());
        assert!(names.contains(&used[..end]), "there is no variable {}", &used[..end]);
    }

    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another's");
        assert!(["timeseries", "state-timeline"].contains(&panel["type"].as_str().unwrap()), "{title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} is beside the page");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{title} lies over another panel");
        }
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert!(
                letters.insert(target["refId"].as_str().unwrap()),
                "{title}: a query has another's letter"
            );
            for source in [&target["datasource"], &panel["datasource"]] {
                assert_eq!(
                    (&source["type"], &source["uid"]),
                    (&"prometheus".into(), &"${datasource}".into())
                );
            }
        }
    }
}

#[test]
fn a_wrong_query_is_found_out() {
    let query =
        Query::new("sum by (le, host) (rate(livepath_rtt_bucket{kind=~\"$a\",role=\"b\"}[5m]))", "{{port}}!");
    assert_eq!(query.metrics.iter().collect::<Vec<_>>(), ["livepath_rtt_bucket"]);
    assert_eq!(query.labels.iter().collect::<Vec<_>>(), ["host", "kind", "le", "port", "role"]);
}
