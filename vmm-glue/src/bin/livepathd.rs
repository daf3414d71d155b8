//! `livepathd`: serves the vhost-user ports of one host.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use controller_stub::logging;
use vmm_glue::commands::{DaemonArguments, wants_colour};
use vmm_glue::config::{Config, ConfigError};
use vmm_glue::daemon::{Daemon, Signals, keep_freed_memory, take_all_descriptors};

fn main() -> ExitCode {
    let arguments = DaemonArguments::parse();
    logging::start(arguments.log_format, "info");
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<ConfigError>() {
            Some(faults) => {
                eprint!("{}", faults.listing(wants_colour(&std::io::stderr())));
                ExitCode::from(2)
            }
            None => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run(arguments: &DaemonArguments) -> anyhow::Result<()> {
    // Threads inherit the mask: before the first one.
    let signals = Signals::block().context("cannot watch for signals")?;
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        let (ports, chains) = (config.ports.len(), config.intent.chains.len());
        _ = writeln!(
            std::io::stdout(),
            "{}: good, {ports} ports, {chains} chains",
            arguments.config.display()
        );
        return Ok(());
    }
    take_all_descriptors();
    let daemon = Daemon::start_with_signals(config, signals, arguments.config.clone())?;
    // Not before: what is set aside for ports takes no memory until it is used, if it comes from the system.
    keep_freed_memory();
    daemon.wait();
    Ok(())
}
