//! `livepath service`.

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use controller_stub::api::{self, Name};
use controller_stub::client::{Client, ClientError};
use controller_stub::token::Token;

use super::terminal::print;
use super::{Reach, Usage};
use crate::admin::Action;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  livepath service fail svm2\n  livepath service restore svm2\n  livepath service maintain svm2\n  livepath service maintain svm2 --controller http://127.0.0.1:8300 --token-file /etc/livepath/token\n\nWith --controller the word goes to the controller, which tells every host; without, to the daemon of this host.\nA service that both hold out comes back when both give it back."
)]
pub(super) enum Verb {
    /// Take a service VM out as failed: no traffic goes there until it is restored, what it still returns is discarded
    #[command(
        after_help = "Examples:\n  livepath service fail svm2\n  livepath service fail svm2 --controller http://127.0.0.1:8300"
    )]
    Fail(Arguments),
    /// Give a service VM back; it gets traffic once it answers
    #[command(
        after_help = "Examples:\n  livepath service restore svm2\n  livepath service restore svm2 --json"
    )]
    Restore(Arguments),
    /// Take a service VM out without calling it failed: new traffic goes elsewhere, what it has been handed goes on
    #[command(
        after_help = "Examples:\n  livepath service maintain svm2\n  livepath service maintain svm2 && livepath status"
    )]
    Maintain(Arguments),
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The service's name
    name: String,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(reach: &Reach, verb: &Verb) -> anyhow::Result<()> {
    let (arguments, action) = match verb {
        Verb::Fail(arguments) => (arguments, api::Action::Fail),
        Verb::Restore(arguments) => (arguments, api::Action::Restore),
        Verb::Maintain(arguments) => (arguments, api::Action::Maintain),
    };
    match &reach.controller {
        Some(url) => at_controller(reach, url, arguments, action),
        None => at_daemon(reach, arguments, action),
    }
}

fn at_daemon(reach: &Reach, arguments: &Arguments, action: api::Action) -> anyhow::Result<()> {
    let order = match action {
        api::Action::Fail => Action::Fail,
        api::Action::Restore => Action::Restore,
        api::Action::Maintain => Action::Maintain,
    };
    reach.daemon()?.act(&arguments.name, order)?;
    told(arguments, action, "this host")
}

fn at_controller(reach: &Reach, url: &str, arguments: &Arguments, action: api::Action) -> anyhow::Result<()> {
    let name = Name::new(arguments.name.as_str()).map_err(|error| Usage(error.to_string()))?;
    let mut client = Client::new(url).map_err(|error| Usage(error.to_string()))?;
    if let Some(file) = &reach.token_file {
        let token = Token::read(file).map_err(|error| Usage(format!("{:#}", anyhow::Error::from(error))))?;
        client = client.with_token(token);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the client")?;
    let changed = runtime.block_on(client.act(&name, action)).map_err(in_our_words);
    let changed = changed.with_context(|| format!("controller {url}"))?;
    if arguments.json {
        print(&(serde_json::to_string(&changed)? + "\n"))?;
        return Ok(());
    }
    told(arguments, action, "the controller")
}

/// Whoever has not shown the token is told how to show it here; the controller speaks of requests.
fn in_our_words(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Refused { status: 401, refusal } => {
            anyhow!(
                "{}; name the file with the token with --token-file or LIVEPATH_TOKEN_FILE",
                refusal.detail
            )
        }
        other => other.into(),
    }
}

fn told(arguments: &Arguments, action: api::Action, whom: &str) -> anyhow::Result<()> {
    let text = if arguments.json {
        serde_json::json!({"service": arguments.name, "action": action}).to_string()
    } else {
        format!("{action} {}: told {whom}", arguments.name)
    };
    print(&(text + "\n"))?;
    Ok(())
}
