//! The command line of `livepathd`.

use std::path::PathBuf;

use clap::Parser;
use controller_stub::logging::LogFormat;

/// The livepath host daemon: vhost-user ports, service chains, in-band liveness.
#[derive(Debug, Parser)]
#[command(name = "livepathd", version, after_help = EXAMPLES)]
pub struct DaemonArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// Check the file, tell everything that is wrong with it, and exit
    #[arg(long)]
    pub check: bool,

    /// How the log is written to standard error
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

const EXAMPLES: &str = "\
Examples:
  livepathd --config /etc/livepath/livepathd.toml --check
  livepathd --config /etc/livepath/livepathd.toml

SIGHUP, or livepath reload, reads the file again. Chains and policies are replaced; ports that are new get their sockets, ports that are gone
are closed, ports that differ are closed and set up anew, and all others keep their link and every frame. A file that is
wrong, or has another [host] or [controller], changes nothing; livepath status says so. SIGTERM and SIGINT end the
daemon within a second, once service VMs have returned what they had.

Exit codes: 0 ended by a signal or the file is good, 1 failure, 2 usage or a bad file. RUST_LOG sets the log level
(default info).";
