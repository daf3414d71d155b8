//! Faults for people, as compilers list them: what, where, the line itself with what is meant underlined, and the remedy.

use std::fmt::Write as _;

use super::{ConfigError, Fault};

/// How parts of the listing stand out.
struct Paint {
    error: &'static str,
    frame: &'static str,
    bold: &'static str,
    end: &'static str,
}

const COLOUR: Paint = Paint { error: "\x1b[1;31m", frame: "\x1b[1;34m", bold: "\x1b[1m", end: "\x1b[0m" };
const PLAIN: Paint = Paint { error: "", frame: "", bold: "", end: "" };

impl ConfigError {
    /// Everything that is wrong, several lines for each fault, with the file's own.
    #[must_use]
    pub fn listing(&self, colour: bool) -> String {
        let paint = if colour { COLOUR } else { PLAIN };
        let Paint { error, bold, end, .. } = paint;
        match self {
            ConfigError::Read { source, .. } => format!("{error}error{end}: {bold}{self}: {source}{end}\n"),
            ConfigError::Faults { path, faults } => {
                let file = path.display().to_string();
                let mut text: String = faults.iter().map(|fault| listed(fault, &file, &paint)).collect();
                let count = match faults.len() {
                    1 => "1 fault".to_owned(),
                    many => format!("{many} faults"),
                };
                // Writing to a String does not fail.
                let _ = writeln!(text, "{error}error{end}: {bold}{file} cannot be used: {count}{end}");
                text
            }
        }
    }
}

fn listed(fault: &Fault, file: &str, paint: &Paint) -> String {
    let Paint { error, frame, bold, end } = paint;
    let Fault { place, key, value, problem, remedy } = fault;
    let value = if value.is_empty() { String::new() } else { format!(" = {value}") };
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    // Tabs stay tabs, so that the marks stand below what they mean.
    let before = place.text.chars().take(place.column - 1);
    let indent: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
    let marks = "^".repeat(place.width);
    format!(
        "{error}error{end}: {bold}{key}{value}: {problem}{end}\n\
         {gutter}{frame}-->{end} {file}:{number}:{column}\n\
         {gutter} {frame}|{end}\n\
         {frame}{number} |{end} {line}\n\
         {gutter} {frame}|{end} {indent}{error}{marks} {remedy}{end}\n\n",
        column = place.column,
        line = place.text,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    const TEXT: &str = "[host]\nid = 0\nname = \"host-a\"\nadmin = \"/tmp/admin.sock\"\ncolour = 3\n\
                        [[port]]\nname = \"vm5\"\nrole = \"tenant\"\nsocket = \"/tmp/vm5\"\nmac = \"52:54:00:00:00:05\"\n";

    #[test]
    fn a_fault_is_shown_where_it_is() {
        let error = Config::parse(TEXT, Path::new("t.toml")).unwrap_err();
        let expected = "\
error: host: id = 0: is no host number
 --> t.toml:2:6
  |
2 | id = 0
  |      ^ use 1 to 65535, unique among hosts

error: host: colour = 3: there is no such key
 --> t.toml:5:1
  |
5 | colour = 3
  | ^^^^^^ use one of id, name, workers, cpus, flows, admin, metrics, metrics_names

error: t.toml cannot be used: 2 faults
";
        assert_eq!(error.listing(false), expected);
        assert!(error.listing(true).contains("\x1b[1;31merror\x1b[0m: \x1b[1mhost: id = 0"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = Config::load(Path::new("/nowhere/t.toml")).unwrap_err();
        let listing = error.listing(false);
        assert!(
            listing.starts_with("error: cannot read /nowhere/t.toml; give an existing file"),
            "{listing}"
        );
        assert!(listing.contains("No such file"), "{listing}");
    }
}
