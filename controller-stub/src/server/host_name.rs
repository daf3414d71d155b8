//! Names that a server is asked by. The controller and the metrics of `livepathd` answer to those of their own only: a
//! page in a browser may give their address a name of its own (DNS rebinding), and would be of the same origin then.
//! Addresses are nobody's to give.

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Longest name of a host, in characters (RFC 1035, section 2.3.4).
const MAX_LENGTH: usize = 253;

/// The name of a host as it stands in a URL, without scheme and port: letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// This is no name of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host's name has letters, digits, '-', '_' and '.', and no scheme or port")]
pub struct NoHostName;

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = NoHostName;

    fn from_str(text: &str) -> Result<HostName, NoHostName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let good = (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(allowed);
        good.then(|| HostName(text.to_owned())).ok_or(NoHostName)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom a request believes to ask: the host and port of its URL. `None` if it does not say, as no browser does.
///
/// # Errors
/// What it says is no host.
pub fn asked_as(headers: &HeaderMap, uri: &Uri) -> Result<Option<Authority>, NoHostName> {
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.clone()));
    }
    let Some(host) = headers.get(HOST) else { return Ok(None) };
    host.to_str().ok().and_then(|host| host.parse().ok()).map(Some).ok_or(NoHostName)
}

/// Whether this is an address, `localhost` or one of the names.
pub fn is_own(asked: &Authority, names: &[HostName]) -> bool {
    let host = asked.host().trim_matches(['[', ']']);
    let is = |name: &str| host.eq_ignore_ascii_case(name);
    is("localhost") || host.parse::<IpAddr>().is_ok() || names.iter().any(|name| is(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::HostName;
    use rstest::rstest;

    #[rstest]
    #[case("controller", true)]
    #[case("Controller-1.example.org", true)]
    #[case("", false)]
    #[case("controller:8300", false)]
    #[case("http://controller", false)]
    #[case("*", false)]
    fn names(#[case] text: &str, #[case] good: bool) {
        assert_eq!(text.parse::<HostName>().is_ok(), good);
    }
}
