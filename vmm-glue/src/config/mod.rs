//! The configuration file: read once, checked whole, then held in types that cannot be wrong.
//!
//! ```text
//! text ── reading.rs ──► file::File ── host.rs, ports.rs, chains.rs, overlap.rs ──► Config
//!             └── wrong keys and types ──┐        └── wrong values ──┐
//!                                        └──► Findings ◄─────────────┘
//!                                                └──► ConfigError: every fault, in the order of the file
//! ```

mod chains;
mod fault;
mod file;
mod folder;
mod host;
mod listing;
mod overlap;
mod ports;
mod reading;
mod size;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use controller_stub::api::{Chain, HostId, Name};
use controller_stub::client::Client;
use controller_stub::server::HostName;
use controller_stub::token::Token;
use vhost_backend::chain::{Generation, PortId};
use vhost_backend::host::{HostSpec, Intent};
use vhost_backend::port::PortSpec;

use self::fault::Findings;
pub use self::fault::{ConfigError, Fault, Place};

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// This host.
    pub host: HostConfig,
    /// Where the controller is; without one the file's chains are in force.
    pub controller: Option<ControllerConfig>,
    /// Its ports, in the order of the file.
    pub ports: Vec<PortConfig>,
    /// The file's chains and policies, of generation 0. The file's port `i` is [`PortId`] `i` there, which it is on a host
    /// that starts with this file.
    pub intent: Intent,
    /// The same chains in the controller's words, for it to adopt.
    pub offer: BTreeMap<Name, Chain>,
}

/// `[host]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// Unique among hosts.
    pub id: HostId,
    /// For people.
    pub name: Name,
    /// Datapath threads.
    pub workers: usize,
    /// The core of each worker; empty when they are not pinned.
    pub cpus: Vec<usize>,
    /// Flows that keep their path, at a time.
    pub flows: usize,
    /// Socket of the command line.
    pub admin: PathBuf,
    /// Where Prometheus scrapes, if anywhere; port 0 is any free one.
    pub metrics: Option<SocketAddr>,
    /// Names that Prometheus asks by, besides addresses, `localhost` and the host's own.
    pub metrics_names: Vec<HostName>,
}

impl HostConfig {
    /// What the backend needs to know.
    #[must_use]
    pub fn spec(&self) -> HostSpec {
        HostSpec { id: self.id.get(), workers: self.workers, cpus: self.cpus.clone(), flows: self.flows }
    }
}

/// `[controller]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerConfig {
    /// `http://HOST:PORT`; [`Client::new`] takes it.
    pub url: String,
    /// The file with the token it wants to be shown; [`Token::read`] takes it.
    pub token: Option<PathBuf>,
}

/// `[[port]]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct PortConfig {
    /// Its name, also that of the service behind it.
    pub name: Name,
    /// Identity of the service VM; every service port has one.
    pub uuid: Option<String>,
    /// What the backend needs to know.
    pub spec: PortSpec,
}

impl Config {
    /// The file's chains and policies on a host whose ports have these numbers, by place.
    #[must_use]
    pub fn intent_on(&self, numbers: &[PortId], generation: Generation) -> Intent {
        let mut intent = Intent { generation, ..self.intent.clone() };
        let hops =
            intent.chains.iter_mut().flat_map(|chain| &mut chain.paths).flat_map(|path| &mut path.hops);
        let from = intent.policies.iter_mut().filter_map(|policy| policy.from.as_mut()).flatten();
        for port in hops.chain(from) {
            // Every place that the file names is one of its ports.
            *port = numbers.get(port.index()).copied().unwrap_or(*port);
        }
        intent
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks the text of the file `path`.
    ///
    /// # Errors
    /// [`ConfigError::Faults`]: everything that is wrong, or, if it is not TOML at all, why not.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut findings = Findings::new(text);
        let checked = reading::read(text, &mut findings).and_then(|file| check(&file, &mut findings));
        match checked {
            Some(config) if findings.count() == 0 => Ok(config),
            _ => Err(ConfigError::Faults { path: path.to_owned(), faults: findings.into_faults() }),
        }
    }
}

fn check(file: &file::File, findings: &mut Findings<'_>) -> Option<Config> {
    let host = match &file.host {
        Some(host) => host::check(host, findings),
        None => {
            findings.missing(
                "host",
                &(0..0),
                "is missing",
                "begin the file with [host], its id and its name",
            );
            None
        }
    };
    let controller = file.controller.as_ref().and_then(|controller| check_controller(controller, findings));
    let admin = file.host.as_ref().map(|host| host.get_ref().admin.get_ref().as_path());
    let ports = ports::check(&file.ports, admin, findings);
    let chains = chains::check(file, &ports, findings);
    Some(Config { host: host?, controller, ports, intent: chains.intent, offer: chains.offer })
}

fn check_controller(
    controller: &toml::Spanned<file::Controller>,
    findings: &mut Findings<'_>,
) -> Option<ControllerConfig> {
    const EXAMPLE: &str = "e.g. url = \"http://127.0.0.1:8300\"";
    let Some(given) = &controller.get_ref().url else {
        let remedy = format!("say where the controller is, {EXAMPLE}");
        findings.missing("controller: url", &controller.span(), "is missing", &remedy);
        return None;
    };
    let url = given.get_ref().clone();
    if let Err(error) = Client::new(&url) {
        findings.add("controller: url", given.span(), error.to_string(), EXAMPLE);
        return None;
    }
    let token = controller.get_ref().token.as_ref();
    if let Some(token) = token
        && let Err(error) = Token::read(token.get_ref())
    {
        let remedy = "name the file that the controller's --token-file names, or a copy of it";
        findings.add("controller: token", token.span(), error.to_string(), remedy);
    }
    Some(ControllerConfig { url, token: token.map(|token| token.get_ref().clone()) })
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
