//! One JSON object a line, one line for each side of a row.

use serde_json::{Map, Value, json};

use crate::figure::{Figure, Series, Spread, Unit};

/// The lines of one row: the measured thing first. Its `ratio` is the median of the pairs' ratios; the peer's is 1.
pub fn lines(figure: &Figure) -> Vec<String> {
    let ratio = figure.ratio();
    let ours = line(figure, &figure.ours, ratio);
    let one = Spread { min: 1.0, median: 1.0, max: 1.0 };
    let peer = figure.peer.as_ref().map(|peer| line(figure, peer, Some(one)));
    std::iter::once(ours).chain(peer).map(|line| line.to_string()).collect()
}

fn line(figure: &Figure, series: &Series, ratio: Option<Spread>) -> Value {
    let is_ours = std::ptr::eq(series, &raw const figure.ours);
    let mut line = Map::new();
    line.insert("bench".into(), json!(figure.bench));
    line.insert("peer".into(), json!(series.who));
    line.insert("frame".into(), json!(figure.frame));
    line.insert("ring".into(), json!(figure.ring));
    line.insert("runs".into(), json!(series.values.len()));
    if let Some(spread) = Spread::of(&series.values) {
        line.insert(figure.unit.key().into(), rounded(spread));
        match figure.unit {
            Unit::Mpps => line.insert("ns_per_packet".into(), json!(round(1000.0 / spread.median))),
            Unit::NanosPerPacket => line.insert("ns_per_packet".into(), json!(round(spread.median))),
            _ => None,
        };
    }
    if let Some(ratio) = ratio {
        line.insert("ratio".into(), json!(round(ratio.median)));
        line.insert("ratios".into(), rounded(ratio));
        if let Some((low, high)) = figure.interval().filter(|_| is_ours) {
            line.insert("ratio_95".into(), json!([round(low), round(high)]));
        }
    }
    if let Some(trips) = Spread::of(&figure.round_trips) {
        line.insert("round_trip_ns".into(), rounded(trips));
    }
    if let Some([(near, nears), (far, fars)]) = figure.by_distance().filter(|_| is_ours) {
        line.insert("near".into(), json!({ "pairs": nears, "ratio": round(near) }));
        line.insert("far".into(), json!({ "pairs": fars, "ratio": round(far) }));
    }
    if !figure.note.is_empty() {
        line.insert("note".into(), json!(figure.note));
    }
    Value::Object(line)
}

fn rounded(spread: Spread) -> Value {
    json!({ "min": round(spread.min), "median": round(spread.median), "max": round(spread.max) })
}

/// To three digits behind the point: more is noise.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_row_is_a_line_for_each_side_with_the_documented_keys() {
        let figure = Figure { round_trips: vec![57.0, 400.0, 61.5], ..samples::figure() };
        let parsed: Vec<Value> =
            lines(&figure).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = json!({
            "bench": "plain-64", "peer": "livepath", "frame": 64, "ring": 256, "runs": 3,
            "mpps": { "min": 10.0, "median": 11.0, "max": 12.0 }, "ns_per_packet": 90.909, "ratio": 2.0,
            "ratios": { "min": 1.5, "median": 2.0, "max": 2.2 }, "ratio_95": [1.5, 2.2], "round_trip_ns": { "min": 57.0, "median": 61.5, "max": 400.0 },
            "near": { "pairs": 2, "ratio": 2.1 }, "far": { "pairs": 1, "ratio": 1.5 },
        });
        assert_eq!(parsed[0], expected);
        assert_eq!((&parsed[1]["peer"], &parsed[1]["ratio"]), (&json!("testpmd-io"), &json!(1.0)));
        assert_eq!(parsed.len(), 2);
    }
}
