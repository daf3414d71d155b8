//! `livepath attach`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::terminal::print;
use super::{Reach, Usage};
use crate::attach::{Attachment, Vmm};
use crate::config::Config;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  livepath attach vm5 --vmm qemu\n  livepath attach vm5 --vmm libvirt --config /etc/livepath/livepathd.toml"
)]
pub(super) struct Arguments {
    /// The port's name
    port: String,

    /// What runs the VM
    #[arg(long, value_enum)]
    vmm: VmmName,

    /// Take the ports from this file instead of the running daemon
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum VmmName {
    Qemu,
    CloudHypervisor,
    Libvirt,
}

impl From<VmmName> for Vmm {
    fn from(name: VmmName) -> Self {
        match name {
            VmmName::Qemu => Self::Qemu,
            VmmName::CloudHypervisor => Self::CloudHypervisor,
            VmmName::Libvirt => Self::Libvirt,
        }
    }
}

pub(super) fn run(reach: &Reach, arguments: &Arguments) -> anyhow::Result<()> {
    let named = |ports: Vec<(String, Attachment)>| {
        let names: Vec<String> = ports.iter().map(|(name, _)| name.clone()).collect();
        let found = ports.into_iter().find(|(name, _)| *name == arguments.port).map(|(_, port)| port);
        found.ok_or_else(|| {
            Usage(format!("there is no port {}; name one of {}", arguments.port, names.join(", ")))
        })
    };
    let port = match &arguments.config {
        Some(file) => {
            let config = Config::load(file)?;
            named(config.ports.iter().map(|port| (port.name.to_string(), port.into())).collect())?
        }
        None => {
            let status = reach.daemon()?.status()?;
            named(status.ports.iter().map(|port| (port.name.clone(), port.into())).collect())?
        }
    };
    print(&port.text(arguments.vmm.into()))?;
    Ok(())
}
