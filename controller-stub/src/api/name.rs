//! Names of hosts, services and chains.

use super::BadValue;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// The name of a host, a port, a service or a chain: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first one a letter or digit.
///
/// Names travel in URL paths, metric labels and log lines, so this set needs no escaping in any of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The checked name.
    ///
    /// # Errors
    /// The text is empty, too long, or holds another character.
    pub fn new(text: impl Into<String>) -> Result<Name, BadValue> {
        let text = text.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if first && text.len() <= Name::MAX_LEN && text.chars().all(allowed) {
            Ok(Name(text))
        } else {
            Err(BadValue::new(
                "name",
                text,
                "use 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit",
            ))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadValue;
    fn from_str(text: &str) -> Result<Name, BadValue> {
        Name::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = BadValue;
    fn try_from(text: String) -> Result<Name, BadValue> {
        Name::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Name;
    use rstest::rstest;

    #[rstest]
    #[case("svm2", true)]
    #[case("0-a_b.c", true)]
    #[case("", false)]
    #[case(".", false)]
    #[case("-x", false)]
    #[case("a/b", false)]
    #[case("a b", false)]
    #[case("é", false)]
    fn characters(#[case] text: &str, #[case] good: bool) {
        assert_eq!(Name::new(text).is_ok(), good);
    }

    #[test]
    fn length() {
        assert!(Name::new("a".repeat(64)).is_ok());
        assert!(Name::new("a".repeat(65)).is_err());
    }

    #[test]
    fn json_is_checked() {
        assert_eq!(serde_json::from_str::<Name>("\"svm2\"").unwrap(), "svm2");
        assert!(serde_json::from_str::<Name>("\"../x\"").is_err());
    }
}
