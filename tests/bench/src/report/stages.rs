//! The cycle accounts of our side: where a worker's time goes, stage by stage, as the daemon tells at its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::docs::{self, Store, replaced};
use crate::machine::Machine;

/// The account of one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Frames of a batch, on average: a worker whose batches are not full waits for its drivers.
    pub batch: f64,
    /// Stages in their order, and nanoseconds of each time a frame crosses the forwarder.
    pub stages: Vec<(String, f64)>,
}

impl Account {
    /// What the last account in a daemon's log says; `None` if there is none.
    pub fn parse(log: &str) -> Option<Account> {
        let line = log.lines().rev().find_map(|line| line.split_once("stages frames="))?.1;
        let fields = line.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        let fields = fields.filter(|(name, _)| *name != "worker");
        let mut numbers = fields.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        let (_, batch) = numbers.next().filter(|(name, _)| name == "batch")?;
        let stages: Vec<_> = numbers.collect();
        (!stages.is_empty()).then_some(Account { batch, stages })
    }

    fn sum(&self) -> f64 {
        self.stages.iter().map(|(_, nanos)| nanos).sum()
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "batches of {:.1}, nanoseconds a frame:", self.batch)?;
        self.stages.iter().try_for_each(|(name, nanos)| write!(f, " {name} {nanos:.1}"))
    }
}

/// An account, and where it is from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    command: String,
    machine: Machine,
    account: Account,
}

/// Puts accounts taken by `command` into the documents in `folder`.
///
/// # Errors
/// A file cannot be read or written, or the document has no place for them.
pub fn update_stages(
    folder: &Path,
    accounts: Vec<(&str, Account)>,
    machine: &Machine,
    command: &str,
) -> anyhow::Result<()> {
    let mut store = Store::load(folder)?;
    for (row, account) in accounts {
        let entry = Entry { command: command.to_owned(), machine: machine.clone(), account };
        store.stages.insert(row.to_owned(), entry);
    }
    store.save(folder)?;
    let document = folder.join("performance.md");
    let text =
        fs::read_to_string(&document).with_context(|| format!("cannot read {}", document.display()))?;
    let text = replaced(&text, "stages", &table(&store.stages))?;
    fs::write(&document, text).with_context(|| format!("cannot write {}", document.display()))
}

/// All accounts, in the order of the rows, and the commands that made them.
fn table(entries: &BTreeMap<String, Entry>) -> String {
    let names = entries.values().flat_map(|entry| &entry.account.stages).map(|(name, _)| name.as_str());
    let mut columns: Vec<&str> = Vec::new();
    for name in names {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    let mut text = format!("| row | frames a batch | {} | sum |\n", columns.join(" | "));
    let _ = writeln!(text, "|---|---|{}---|", "---|".repeat(columns.len()));
    let rows = crate::rows::ROWS.iter().filter_map(|row| Some((row.name, entries.get(row.name)?)));
    for (row, Entry { account, .. }) in rows {
        let _ = write!(text, "| {row} | {:.1} |", account.batch);
        for column in &columns {
            match account.stages.iter().find(|(name, _)| name == column) {
                Some((_, nanos)) => {
                    let _ = write!(text, " {nanos:.1} |");
                }
                None => text += " |",
            }
        }
        let _ = writeln!(text, " {:.1} |", account.sum());
    }
    text.push('\n');
    let runs = entries.iter().map(|(row, entry)| (row.as_str(), entry.command.as_str(), &entry.machine));
    text + &docs::runs(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
[INFO] worker=0; stages frames=7 batch=1.0 read=9.0 copy=9.0
[INFO] stages frames=1000 batch=31.5 read=5.9 copy=17.5 worker=0
bye";

    #[test]
    fn the_last_account_of_a_log_counts() {
        let account = Account::parse(LOG).unwrap();
        assert_eq!(account.batch, 31.5);
        assert_eq!(account.stages[..2], [("read".to_owned(), 5.9), ("copy".to_owned(), 17.5)]);
        assert_eq!(Account::parse("nothing"), None);
        assert_eq!(account.to_string(), "batches of 31.5, nanoseconds a frame: read 5.9 copy 17.5");
    }

    #[test]
    fn accounts_are_put_into_the_document_row_by_row() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("performance.md");
        fs::write(&file, "<!-- bench stages -->\nold\n<!-- end -->\n").unwrap();
        let put = |row: &str| {
            let accounts = vec![(row, Account::parse(LOG).unwrap())];
            update_stages(folder.path(), accounts, &Machine::here(), "run --stages").unwrap();
        };
        put("chain-64");
        put("plain-64");
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2..5],
            [
                "| row | frames a batch | read | copy | sum |",
                "|---|---|---|---|---|",
                "| plain-64 | 31.5 | 5.9 | 17.5 | 23.4 |"
            ]
        );
        assert!(lines[5].starts_with("| chain-64 |") && text.contains("`run --stages` on "), "{text}");
    }
}
