//! `livepath reload`.

use std::path::PathBuf;

use clap::Args;

use super::Reach;
use super::events::port_changes;
use super::terminal::print;
use crate::admin::{Client, ClientError};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  livepath reload\n  livepath reload --config /etc/livepath/livepathd.toml\n\nThe same as SIGHUP, but it waits for the daemon's answer: it fails, with what is wrong, when the file is not taken.\nNothing has changed then."
)]
pub(super) struct Arguments {
    /// Check this file first, and find the daemon by its `admin`; where nobody listens there, by --admin
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(reach: &Reach, arguments: &Arguments) -> anyhow::Result<()> {
    let mut daemon = match &arguments.config {
        None => reach.daemon()?,
        Some(file) => of_file(reach, &Config::load(file)?)?,
    };
    let (file, taken) = daemon.reload()?;
    let text = if arguments.json {
        serde_json::json!({"file": file, "chains": taken.chains, "ports": taken.ports}).to_string()
    } else {
        let chains = match taken.chains.as_str() {
            "offered" => "offered to the controller",
            _ => "in force",
        };
        format!("{} taken, its chains {chains}{}", file.display(), port_changes(&taken.ports))
    };
    print(&(text + "\n"))?;
    Ok(())
}

/// The daemon that a file is for. If the file names another `admin` than before, it listens where it did.
fn of_file(reach: &Reach, config: &Config) -> Result<Client, ClientError> {
    let named = Client::connect(&config.host.admin);
    named.or_else(|error| Client::connect(&reach.admin).map_err(|_| error))
}
