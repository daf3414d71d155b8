//! SIGHUP: the file is read again. Chains and policies are replaced as a whole; flows keep their path where it still
//! exists, and ports are not touched. What cannot change while the daemon runs is said.

use thiserror::Error;
use vhost_backend::chain::Generation;
use vhost_backend::host::HostError;
use vhost_backend::worker::monotonic_now;

use super::history::Occurrence;
use super::{Loaded, Shared};
use crate::config::Config;

/// Why a configuration is not taken. Nothing changed.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// This part cannot change while the daemon runs.
    #[error(
        "{0} differ from those in force and cannot change while livepathd runs; restart it, guests keep their links"
    )]
    NeedsRestart(&'static str),
    /// The chains are not valid.
    #[error("the chains cannot be put in force")]
    Host(#[from] HostError),
}

impl Shared {
    /// Takes chains and policies of another configuration.
    pub(crate) fn reload(&self, new: Config) -> Result<(), ReloadError> {
        let mut intent = new.intent.clone();
        let chains = {
            let mut config = self.config();
            for (same, part) in [
                (config.host == new.host, "the settings of [host]"),
                (config.controller == new.controller, "the settings of [controller]"),
                (config.ports == new.ports, "the ports"),
            ] {
                if !same {
                    return Err(ReloadError::NeedsRestart(part));
                }
            }
            if let Some(link) = self.link.as_ref() {
                link.offer(new.offer.clone());
            }
            let steered = self.link.as_ref().is_some_and(|link| link.generation() > 0);
            if !steered {
                let current = self.host.tables().generation();
                // Without a controller nobody else counts.
                intent.generation = if self.link.is_none() { Generation(current.0 + 1) } else { current };
                self.host.set_intent(&intent)?;
            }
            *config = new;
            if steered { "offered" } else { "in-force" }
        };
        self.record(monotonic_now(), Occurrence::Reloaded { chains: chains.to_owned() });
        Ok(())
    }

    /// Takes what came of reading a file; a fault is logged and recorded.
    pub(crate) fn reload_from(&self, loaded: Loaded) {
        let reason = match loaded {
            Err(error) => error.to_string(),
            Ok(config) => match self.reload(config) {
                Ok(()) => return,
                Err(error @ ReloadError::NeedsRestart(_)) => error.to_string(),
                Err(ReloadError::Host(error)) => format!("the chains cannot be put in force: {error}"),
            },
        };
        self.record(monotonic_now(), Occurrence::ReloadRefused { reason });
    }
}
