//! The `livepath` command line: each command asks the daemon or the controller and prints what it hears.

mod attach;
mod capture;
mod daemon;
mod demo;
#[cfg(test)]
mod document;
mod events;
mod reload;
#[cfg(test)]
mod sample;
mod service;
mod shell;
mod status;
mod terminal;
mod top;
mod trace;

pub(crate) use self::capture::Pcapng;
pub use self::daemon::DaemonArguments;
pub use self::terminal::wants_colour;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::admin::{self, Client};
use crate::config::ConfigError;

/// Look at and operate livepath: service chains with in-band liveness.
#[derive(Debug, Parser)]
#[command(name = "livepath", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// What is logged unless `RUST_LOG` says otherwise. The demo's daemon warns of what the demo lets happen, and the
    /// demo tells of it itself.
    #[must_use]
    pub fn log_filter(&self) -> &'static str {
        if matches!(self.command, Command::Demo(_)) { "error" } else { "warn" }
    }
}

/// Where to find whom.
#[derive(Debug, Clone, Args)]
pub struct Reach {
    /// The daemon's admin socket
    #[arg(
        long,
        global = true,
        help_heading = "Where",
        env = "LIVEPATH_ADMIN",
        hide_env_values = true,
        value_name = "SOCKET",
        default_value = admin::DEFAULT_SOCKET
    )]
    admin: PathBuf,

    /// The controller, for commands that go to it
    #[arg(
        long,
        global = true,
        help_heading = "Where",
        env = "LIVEPATH_CONTROLLER",
        hide_env_values = true,
        value_name = "URL"
    )]
    controller: Option<String>,

    /// File with the token that the controller wants to be shown for changes
    #[arg(
        long,
        global = true,
        help_heading = "Where",
        env = "LIVEPATH_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE"
    )]
    token_file: Option<PathBuf>,
}

impl Reach {
    fn daemon(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.admin)?)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the host's ports, services and paths
    Status(status::Arguments),
    /// Show what a VM must be started with to be on a port
    Attach(attach::Arguments),
    /// Take a service VM out, or give it back
    #[command(subcommand)]
    Service(service::Verb),
    /// Have the daemon read its configuration file again
    Reload(reload::Arguments),
    /// Show what happened
    Events(events::Arguments),
    /// Watch ports, services and paths live, with rates
    Top(top::Arguments),
    /// Tell what becomes of a flow, and why
    Trace(trace::Arguments),
    /// Copy a port's frames to a pcapng file
    Capture(capture::Arguments),
    Demo(demo::Arguments),
    /// Print a completion script for a shell
    Completions(shell::CompletionsArguments),
    /// Print or write the man pages
    Man(shell::ManArguments),
}

const EXAMPLES: &str = "\
Examples:
  livepath demo
  livepath status
  livepath attach vm5 --vmm qemu
  livepath service fail svm2
  livepath reload
  livepath events --follow
  livepath trace --from vm5 --flow 'tcp 10.0.0.5:1234 10.0.0.6:80'
  livepath capture svm2 -w svm2.pcapng

Exit codes: 0 success, 1 failure, 2 usage.";

/// What went wrong decides the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Runs one command; errors go to standard error.
pub fn run(cli: Cli) -> ExitCode {
    let Cli { reach, command } = cli;
    let done = match command {
        Command::Status(arguments) => status::run(&reach, &arguments),
        Command::Attach(arguments) => attach::run(&reach, &arguments),
        Command::Service(verb) => service::run(&reach, &verb),
        Command::Reload(arguments) => reload::run(&reach, &arguments),
        Command::Events(arguments) => events::run(&reach, &arguments),
        Command::Capture(arguments) => capture::run(&reach, &arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Top(arguments) => top::run(&reach, &arguments),
        Command::Trace(arguments) => trace::run(&reach, &arguments),
        Command::Completions(arguments) => shell::completions(&arguments),
        Command::Man(arguments) => shell::man(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if terminal::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<ConfigError>() {
            Some(faults) => {
                eprint!("{}", faults.listing(wants_colour(&std::io::stderr())));
                ExitCode::from(2)
            }
            None => {
                eprintln!("error: {error:#}");
                ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
            }
        },
    }
}
