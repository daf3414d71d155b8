//! The table for people.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use crate::figure::{Figure, Outcome, Spread};
use crate::rows::Row;

/// Every row with its figures, its target and whether that was reached.
pub fn table(outcomes: &[(Row, Outcome)]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["row", "measured", "", "against", "", "ratio", "95 %", "min … max", "target", ""]);
    for (row, outcome) in outcomes {
        match outcome {
            Outcome::Measured(figures) => figures.iter().for_each(|figure| {
                table.add_row(cells(figure));
            }),
            Outcome::Unavailable(why) => {
                let first = why.lines().next().unwrap_or_default();
                table.add_row([
                    row.name,
                    "",
                    "",
                    "",
                    "",
                    "",
                    "",
                    "",
                    &row.target.to_string(),
                    &format!("unavailable: {first}"),
                ]);
            }
        }
    }
    for column in [1, 3, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// Name, ours, unit and who, theirs, who, ratio, its interval and spread, target, verdict.
fn cells(figure: &Figure) -> [String; 10] {
    let ratio = figure.ratio();
    let peer = figure.peer.as_ref();
    [
        figure.bench.clone(),
        value(&figure.ours.values),
        format!("{} {}", figure.unit.label(), figure.ours.who),
        peer.map_or_else(String::new, |peer| value(&peer.values)),
        peer.map_or_else(String::new, |peer| format!("{} {}", figure.unit.label(), peer.who)),
        ratio.map_or_else(String::new, |ratio| format!("{:.3}", ratio.median)),
        figure.interval().map_or_else(String::new, |(low, high)| format!("{low:.3} … {high:.3}")),
        ratio.map_or_else(String::new, |ratio| format!("{:.3} … {:.3}", ratio.min, ratio.max)),
        figure.target.to_string(),
        verdict(figure),
    ]
}

/// The median, with two digits behind the point.
pub(super) fn value(values: &[f64]) -> String {
    Spread::of(values).map_or_else(String::new, |spread| format!("{:.2}", spread.median))
}

/// Whether the target was reached, and what else there is to say.
pub(super) fn verdict(figure: &Figure) -> String {
    let verdict = match figure.reached() {
        Some(true) => "reached",
        Some(false) => "missed",
        None => "",
    };
    let unsure = (figure.is_resolved() == Some(false)).then_some("the target is within the 95 %");
    let trips = Spread::of(&figure.round_trips);
    let trips = trips.map(|trips| format!("a line there and back: {:.0} … {:.0} ns", trips.min, trips.max));
    let split = figure.by_distance().map(|[(near, nears), (far, fars)]| {
        format!("{near:.2} in {nears} pairs with near cores, {far:.2} in {fars} with far ones")
    });
    let parts = [Some(verdict), unsure, Some(figure.note.as_str()), trips.as_deref(), split.as_deref()];
    parts.into_iter().flatten().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use crate::rows::ROWS;

    #[test]
    fn a_row_says_what_was_measured_against_what_and_whether_it_is_enough() {
        let row = |name: &str| *ROWS.iter().find(|row| row.name == name).unwrap();
        let outcomes = [
            (row("plain-64"), Outcome::Measured(vec![samples::figure()])),
            (row("chain-64"), Outcome::Unavailable("no huge pages\nand more".into())),
        ];
        let text = table(&outcomes);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let words: Vec<&str> = lines[1].split_ascii_whitespace().collect();
        let expected = "plain-64 11.00 Mpps livepath 5.00 Mpps testpmd-io 2.000 1.500 … 2.200 1.500 … 2.200 ≥ 1.6 reached; the target is within the 95 %";
        assert_eq!(words.join(" "), expected);
        assert!(lines[2].contains("chain-64") && lines[2].ends_with("unavailable: no huge pages"), "{text}");
    }
}
