//! Tables and plots of `docs/performance.md`, from figures kept beside it, so that a run of some rows replaces those.
//!
//! A table of the document is what stands between `<!-- bench NAME -->` and `<!-- end -->`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::plot;
use super::stages;
use super::table::{value, verdict};
use crate::figure::{Figure, Outcome, Spread};
use crate::machine::Machine;
use crate::rows::{ROWS, Row, Table};
use crate::side::{ovs, testpmd};

/// With a greater load average before the first row, somebody else was at work.
const QUIET: f64 = 0.5;

/// What was measured last, row by row.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Store {
    rows: BTreeMap<String, Entry>,
    #[serde(default)]
    pub(super) stages: BTreeMap<String, stages::Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    command: String,
    machine: Machine,
    outcome: Outcome,
}

/// Puts what was measured by `command` into the documents in `folder`.
///
/// # Errors
/// A file cannot be read or written, or the document has no place for a table.
pub fn update(
    folder: &Path,
    outcomes: &[(Row, Outcome)],
    machine: &Machine,
    command: &str,
) -> anyhow::Result<()> {
    let mut store = Store::load(folder)?;
    for (row, outcome) in outcomes {
        let entry = Entry { command: command.to_owned(), machine: machine.clone(), outcome: outcome.clone() };
        store.rows.insert(row.name.to_owned(), entry);
    }
    store.save(folder)?;

    let document = folder.join("performance.md");
    let mut text =
        fs::read_to_string(&document).with_context(|| format!("cannot read {}", document.display()))?;
    for table in Table::ALL {
        let figures = store.figures(table);
        let picture = format!("performance-{}.svg", table.name());
        let plot = plot::draw(table.name(), &figures, &folder.join(&picture))?;
        let mut part = store.table(table);
        if plot {
            let _ = write!(part, "\n![{}]({picture})\n", table.title());
        }
        text = replaced(&text, table.name(), &part)?;
    }
    text = replaced(&text, "machine", &store.machines())?;
    text = replaced(&text, "commands", &commands())?;
    text = replaced(&text, "missed", &store.missed())?;
    fs::write(&document, text).with_context(|| format!("cannot write {}", document.display()))
}

/// What was started of others, as it was started.
fn commands() -> String {
    format!("```\n{}\n{}```\n", testpmd::command(), ovs::commands())
}

impl Store {
    pub(super) fn load(folder: &Path) -> anyhow::Result<Store> {
        let file = folder.join("performance.json");
        match fs::read_to_string(&file) {
            Ok(text) => {
                serde_json::from_str(&text).with_context(|| format!("{} is not ours", file.display()))
            }
            Err(_) => Ok(Store::default()),
        }
    }

    pub(super) fn save(&self, folder: &Path) -> anyhow::Result<()> {
        Ok(fs::write(folder.join("performance.json"), serde_json::to_string_pretty(self)? + "\n")?)
    }

    fn entries(&self, table: Table) -> impl Iterator<Item = (&Row, &Entry)> {
        let rows = ROWS.iter().filter(move |row| row.table == table);
        rows.filter_map(|row| Some((row, self.rows.get(row.name)?)))
    }

    fn figures(&self, table: Table) -> Vec<&Figure> {
        let outcomes = self.entries(table).map(|(_, entry)| &entry.outcome);
        let measured = outcomes.filter_map(|outcome| match outcome {
            Outcome::Measured(figures) => Some(figures),
            Outcome::Unavailable(_) => None,
        });
        measured.flatten().collect()
    }

    fn table(&self, table: Table) -> String {
        let mut text = String::from(
            "| row | work | measured | against | ratio (95 %; all) | target | |\n|---|---|---|---|---|---|---|\n",
        );
        for (row, entry) in self.entries(table) {
            match &entry.outcome {
                Outcome::Measured(figures) => figures.iter().for_each(|figure| text += &line(row, figure)),
                Outcome::Unavailable(why) => {
                    let why = why.lines().next().unwrap_or_default();
                    let _ = writeln!(
                        text,
                        "| {} | {} | | | | {} | unavailable: {why} |",
                        row.name, row.work, row.target
                    );
                }
            }
        }
        text
    }

    /// Every figure that misses its target: by how much, where the time goes, what was tried.
    fn missed(&self) -> String {
        let mut by_account: Vec<(&str, Vec<String>)> = Vec::new();
        for (row, entry) in Table::ALL.into_iter().flat_map(|table| self.entries(table)) {
            let Outcome::Measured(figures) = &entry.outcome else { continue };
            for figure in figures {
                let Some(percent) = figure.short_by() else { continue };
                let name = format!("**{}** ({percent:.0} % from {})", figure.bench, figure.target);
                match by_account.iter_mut().find(|(account, _)| *account == row.account()) {
                    Some((_, names)) => names.push(name),
                    None => by_account.push((row.account(), vec![name])),
                }
            }
        }
        if by_account.is_empty() {
            return "None.\n".to_owned();
        }
        by_account.iter().map(|(account, names)| format!("- {}: {account}\n", names.join(", "))).collect()
    }

    /// The machines and commands, each once.
    fn machines(&self) -> String {
        runs(self.rows.iter().map(|(name, entry)| (name.as_str(), entry.command.as_str(), &entry.machine)))
    }
}

/// What was measured by which command on which machine, each once.
pub(super) fn runs<'a>(rows: impl Iterator<Item = (&'a str, &'a str, &'a Machine)>) -> String {
    let mut by_run: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, command, machine) in rows {
        let Machine { cpu, cores, kernel, load, page, generator_mpps: [short, long], peers } = machine;
        let load = if *load > QUIET {
            format!("**load {load} before: the machine was not quiet, which moves every figure**")
        } else {
            format!("load {load} before")
        };
        let facts = format!(
            "`{command}` on {cpu}, {cores} cores, Linux {kernel}, {load}, guest memory in pages of {} KiB, {}; \
             the generator alone: {short:.1} Mpps at 64 B, {long:.1} Mpps at 1500 B",
            page / 1024,
            peers.join(", ")
        );
        by_run.entry(facts).or_default().push(name);
    }
    by_run.iter().map(|(facts, rows)| format!("- {}: {facts}\n", rows.join(", "))).collect()
}

fn line(row: &Row, figure: &Figure) -> String {
    let Figure { bench, unit, ours, peer, target, .. } = figure;
    let unit = unit.label();
    let peer =
        peer.as_ref().map_or_else(String::new, |peer| format!("{} {unit} {}", value(&peer.values), peer.who));
    let ratio = figure.ratio().map_or_else(String::new, |ratio| {
        let (low, high) = figure.interval().unwrap_or((ratio.min, ratio.max));
        let Spread { min, median, max } = ratio;
        format!("**{median:.2}** ({low:.2} … {high:.2}; {min:.2} … {max:.2})")
    });
    let measured = format!("{} {unit} {}", value(&ours.values), ours.who);
    format!("| {bench} | {} | {measured} | {peer} | {ratio} | {target} | {} |\n", row.work, verdict(figure))
}

/// The document with another text between the marks of `name`.
pub(crate) fn replaced(document: &str, name: &str, text: &str) -> anyhow::Result<String> {
    let begin = format!("<!-- bench {name} -->\n");
    let (before, rest) = document
        .split_once(&begin)
        .with_context(|| format!("the document has no mark {}", begin.trim_end()))?;
    let (_, after) =
        rest.split_once("<!-- end -->").with_context(|| format!("nothing ends {}", begin.trim_end()))?;
    Ok(format!("{before}{begin}\n{text}\n<!-- end -->{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Target;
    use crate::report::samples;

    fn machine() -> Machine {
        Machine { load: 0.25, ..Machine::here() }
    }

    fn document() -> String {
        let marks = Table::ALL.iter().map(|table| table.name()).chain(["machine", "missed", "commands"]);
        marks.map(|name| format!("## {name}\n\n<!-- bench {name} -->\nold\n<!-- end -->\n")).collect()
    }

    #[test]
    fn a_run_replaces_its_rows_and_keeps_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("performance.md");
        fs::write(&file, document()).unwrap();
        let row = |name: &str| *ROWS.iter().find(|row| row.name == name).unwrap();
        let measured = Outcome::Measured(vec![samples::figure()]);
        update(folder.path(), &[(row("plain-64"), measured)], &machine(), "run --full").unwrap();
        let refused = Outcome::Unavailable("no peer".into());
        update(folder.path(), &[(row("chain-64"), refused)], &machine(), "run --only chain-64").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let line = "| plain-64 | plain forward between two tenant ports | 11.00 Mpps livepath | 5.00 Mpps testpmd-io \
                    | **2.00** (1.50 … 2.20; 1.50 … 2.20) | ≥ 1.6 | reached; the target is within the 95 % |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("| ≥ 3 | unavailable: no peer |") && !text.contains("old"), "{text}");
        let short = Figure { target: Target::AtLeast(2.5), ..samples::figure() };
        assert!(!text.contains("**plain-64** ("), "{text}");
        assert!(text.contains("- plain-64: `run --full` on ") && text.contains("load 0.25 before"), "{text}");
        assert!(!text.contains("not quiet") && text.contains("dpdk-testpmd --lcores"), "{text}");
        let busy = Machine { load: 2.21, ..machine() };
        update(folder.path(), &[(row("ring-64"), Outcome::Unavailable("no".into()))], &busy, "run").unwrap();
        let warned = fs::read_to_string(&file).unwrap();
        assert!(warned.contains("**load 2.21 before: the machine was not quiet"), "{warned}");
        update(folder.path(), &[(row("plain-64"), Outcome::Measured(vec![short]))], &machine(), "run")
            .unwrap();
        let missed = fs::read_to_string(&file).unwrap();
        let account = row("plain-64").account();
        assert!(missed.contains(&format!("- **plain-64** (20 % from ≥ 2.5): {account}\n")), "{missed}");
        let picture = fs::read_to_string(folder.path().join("performance-peers.svg")).unwrap();
        assert!(picture.contains("plain-64") && picture.contains("<svg"), "{picture}");
    }

    #[test]
    fn the_document_has_a_place_for_every_table() {
        let text = include_str!("../../../../docs/performance.md");
        for name in
            Table::ALL.iter().map(|table| table.name()).chain(["machine", "missed", "commands", "stages"])
        {
            assert!(replaced(text, name, "x").is_ok(), "{name}");
        }
    }
}
