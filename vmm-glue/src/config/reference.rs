//! `docs/configuration.md` against the types that read the file: its keys, the words its values may be, its defaults.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::value::Error;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use super::{Config, file};

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// One row of a table of keys.
#[derive(Debug)]
struct Row<'a> {
    key: &'a str,
    value: &'a str,
    default: &'a str,
}

impl Row<'_> {
    /// The default as it may be written in a file; `None` if there is none.
    fn written(&self) -> Option<&str> {
        self.default.strip_prefix('`')?.strip_suffix('`')
    }
}

/// The tables of the page by the heading above them.
fn tables() -> BTreeMap<&'static str, Vec<Row<'static>>> {
    let mut tables = BTreeMap::<_, Vec<_>>::new();
    let mut heading = "";
    for line in PAGE.lines() {
        if let Some(text) = line.trim_start_matches('#').strip_prefix(" `") {
            heading = text.trim_end_matches('`');
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [key, value, default, what] = cells[..]
            && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
        {
            assert!(!what.is_empty(), "{key} has no explanation");
            tables.entry(heading).or_default().push(Row { key, value, default });
        }
    }
    tables
}

/// Takes down which fields or variants a type asks for, and gives nothing.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("neither a table nor one of several words"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = variants;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

/// The keys of a table, or the words of a value.
fn names<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
    let mut names: &'static [&'static str] = &[];
    assert!(T::deserialize(Names(&mut names)).is_err(), "nothing was given");
    assert!(!names.is_empty(), "{} has no names", std::any::type_name::<T>());
    names.to_vec()
}

#[test]
fn the_keys_on_the_page_are_those_that_the_file_may_have() {
    let of_types = [
        ("[host]", names::<file::Host>()),
        ("[controller]", names::<file::Controller>()),
        ("[[port]]", names::<file::Port>()),
        ("liveness", names::<file::Timers>()),
        ("[[chain]]", names::<file::Chain>()),
        ("[[chain.path]]", names::<file::Path>()),
        ("[[policy]]", names::<file::Policy>()),
        ("match", names::<file::Match>()),
    ];
    let on_page: BTreeMap<&str, Vec<&str>> =
        tables().into_iter().map(|(table, rows)| (table, rows.iter().map(|row| row.key).collect())).collect();
    assert_eq!(on_page, BTreeMap::from(of_types));
    // And no table is missing.
    let top: Vec<String> = names::<file::File>().iter().map(|key| format!("[{key}]")).collect();
    assert!(top.iter().all(|table| on_page.keys().any(|heading| heading.contains(&**table))), "{top:?}");
}

#[test]
fn the_words_on_the_page_are_those_that_a_value_may_be() {
    let of_types = [
        ("[[port]]", "role", names::<file::Role>()),
        ("[[port]]", "mode", names::<file::Mode>()),
        ("[[port]]", "carrier", names::<file::Carrier>()),
        ("[[port]]", "si_decrement", names::<file::SiDecrement>()),
        ("[[port]]", "offload", names::<file::Offload>()),
        ("[[chain]]", "on_failure", names::<file::OnFailure>()),
        ("[[chain]]", "failback", names::<file::Failback>()),
        ("[[chain]]", "egress", names::<file::Egress>()),
    ];
    let tables = tables();
    for (table, key, words) in of_types {
        let row = tables[table].iter().find(|row| row.key == key).expect("a row");
        let on_page: Vec<&str> = row.value.split('"').skip(1).step_by(2).collect();
        assert_eq!(on_page, words, "{table} {key}");
    }
}

/// A file with every table; `# NAME` is where a key of that table goes.
const FILE: &str = r##"[host]
id = 1
name = "host-a"
admin = "/tmp/admin.sock"
# [host]
[[port]]
name = "vm5"
role = "tenant"
socket = "/tmp/vm5.sock"
mac = "52:54:00:00:00:05"
[[port]]
name = "svm1"
role = "service"
uuid = "0d1a7e6a-6d0c-4f0b-9f5e-000000000001"
socket = "/tmp/svm1.sock"
mac = "52:54:00:00:01:01"
# [[port]]
# liveness
[[chain]]
name = "inspect"
# [[chain]]
[[chain.path]]
spi = 1
hops = ["svm1"]
# [[chain.path]]
[[policy]]
chain = "inspect"
# [[policy]]
"##;

fn parsed(text: &str) -> String {
    let config = Config::parse(text, Path::new("t.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"));
    format!("{config:?}")
}

#[test]
fn the_defaults_on_the_page_change_nothing() {
    let without = parsed(FILE);
    let mut tried = 0;
    for (table, rows) in tables() {
        for row in rows {
            let Some(default) = row.written() else { continue };
            if row.key == "admin" {
                assert_eq!(default, format!("\"{}\"", crate::admin::DEFAULT_SOCKET));
                continue;
            }
            let line = match table {
                "liveness" => format!("liveness = {{ {} = {default} }}", row.key),
                _ => format!("{} = {default}", row.key),
            };
            let place = format!("\n# {table}\n");
            assert_eq!(FILE.matches(&place).count(), 1, "{table}");
            assert_eq!(parsed(&FILE.replace(&place, &format!("\n{line}\n"))), without, "{table} {line}");
            tried += 1;
        }
    }
    assert!(tried >= 20, "only {tried} defaults were found on the page");
}

#[test]
fn the_example_with_every_key_has_every_key() {
    let example = include_str!("../../../docs/example.toml");
    for (table, rows) in tables() {
        for Row { key, .. } in rows {
            let given = [format!("{key} = "), format!(".{key}]]")];
            assert!(
                given.iter().any(|given| example.contains(given)),
                "{table} {key} is not in docs/example.toml"
            );
        }
    }
}

/// Every `docs/example*.toml`, with its sockets where this test may have them.
#[test]
fn the_examples_are_good_files() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(documents).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !(name.starts_with("example") && name.ends_with(".toml")) {
            continue;
        }
        let mut text = std::fs::read_to_string(&path).unwrap();
        if !text.contains("admin = ") {
            text = text.replace("[host]\n", "[host]\nadmin = \"/run/livepath/admin.sock\"\n");
        }
        Config::parse(&text.replace("/run/livepath", &place), &path)
            .unwrap_or_else(|error| panic!("{error}"));
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["example-minimal.toml", "example-reference.toml", "example-tap.toml", "example.toml"]);
}
