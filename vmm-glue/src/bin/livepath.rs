//! `livepath`: looks at and operates livepath.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use vmm_glue::commands::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(cli.log_filter())).init();
    commands::run(cli)
}
