//! From the words of the control plane, names, to those of the datapath, port numbers.
//!
//! ```text
//! the file's chains ──┐
//!                     ├──► Plan ──► intent() ──► Intent ──► Host::set_intent
//! the controller ─────┘                └──► Skipped: what this host cannot carry out
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use controller_stub::api::{self, Name, Plan, TableChain, TablePath, TablePolicy};
use nsh::Spi;
use vhost_backend::chain::{
    ChainSpec, Egress, Failback, Generation, Match, OnFailure, PathSpec, PolicySpec, PortId, PortRange,
    Prefix,
};
use vhost_backend::frame::Protocol;
use vhost_backend::host::Intent;
use vhost_backend::port::{Carrier, Role};

use crate::config::PortConfig;

/// The ports of this host by name and by number.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    services: BTreeMap<Name, PortId>,
    tenants: BTreeMap<Name, PortId>,
    /// Those that are gone too: what happened to them may be told later.
    names: BTreeMap<PortId, Name>,
    /// Services that know nothing of NSH.
    unaware: BTreeSet<Name>,
}

impl Directory {
    /// Port `i` of `ports` is [`PortId`] `i`.
    #[must_use]
    pub fn new(ports: &[PortConfig]) -> Self {
        let numbers: Vec<PortId> = ports.iter().zip(0..).map(|(_, number)| PortId::new(number)).collect();
        Self::default().succeeded_by(ports, &numbers)
    }

    /// That of other ports, with their numbers by place.
    #[must_use]
    pub fn succeeded_by(&self, ports: &[PortConfig], numbers: &[PortId]) -> Self {
        let mut directory = Self { names: self.names.clone(), ..Self::default() };
        for (port, number) in ports.iter().zip(numbers) {
            directory.names.insert(*number, port.name.clone());
            let of_role = match &port.spec.role {
                Role::Service(service) => {
                    if service.carrier == Carrier::None {
                        directory.unaware.insert(port.name.clone());
                    }
                    &mut directory.services
                }
                Role::Tenant | Role::Tap(_) => &mut directory.tenants,
            };
            of_role.insert(port.name.clone(), *number);
        }
        directory
    }

    /// The service port of that name.
    #[must_use]
    pub fn service(&self, name: &Name) -> Option<PortId> {
        self.services.get(name).copied()
    }

    /// The tenant or tap port of that name.
    #[must_use]
    pub fn tenant(&self, name: &Name) -> Option<PortId> {
        self.tenants.get(name).copied()
    }

    /// The name of the port that has that number, or had it last.
    #[must_use]
    pub fn name(&self, port: PortId) -> Option<&Name> {
        self.names.get(&port)
    }

    /// The name of the service port that has that number now.
    #[must_use]
    pub fn service_at(&self, port: PortId) -> Option<&Name> {
        self.name(port).filter(|name| self.service(name) == Some(port))
    }

    /// The service that these hops pass twice although it knows nothing of NSH: what comes out of it could be on its first
    /// passage or on its second.
    #[must_use]
    pub fn ambiguous<'a>(&self, hops: &'a [Name]) -> Option<&'a Name> {
        let again = hops.iter().enumerate().find(|(place, hop)| {
            self.unaware.contains(*hop) && hops.iter().take(*place).any(|before| before == *hop)
        });
        again.map(|(_, hop)| hop)
    }

    /// Every service port.
    pub fn services(&self) -> impl Iterator<Item = (&Name, PortId)> {
        self.services.iter().map(|(name, port)| (name, *port))
    }
}

/// A part of a plan that this host cannot carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skipped {
    /// A hop is no service port of this host.
    Path {
        /// Its identifier.
        spi: api::Spi,
        /// The hop.
        hop: Name,
    },
    /// It passes a service twice that knows nothing of NSH.
    Ambiguous {
        /// Its identifier.
        spi: api::Spi,
        /// The service.
        hop: Name,
    },
    /// None of its paths can be carried out, so its policies are not in force here.
    Chain {
        /// Its name.
        chain: Name,
    },
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { spi, hop } => write!(f, "path {spi}: hop {hop} is no service port of this host"),
            Self::Ambiguous { spi, hop } => {
                write!(f, "path {spi}: service {hop} knows nothing of NSH, so a path cannot pass it twice")
            }
            Self::Chain { chain } => {
                write!(f, "chain {chain}: no path lies on this host, its traffic is not chained here")
            }
        }
    }
}

/// Whether a host that works with the table of generation `current` takes one of generation `offered`: it never goes
/// back, and takes nothing twice.
#[must_use]
pub fn is_newer(offered: u64, current: u64) -> bool {
    offered > current
}

/// The plan as this host carries it out, and what it leaves out of chains that its ports have policies for.
#[must_use]
pub fn intent(generation: u64, plan: &Plan, ports: &Directory) -> (Intent, Vec<Skipped>) {
    let mut policies: Vec<PolicySpec> =
        plan.policies.iter().filter_map(|policy| policy_spec(policy, ports)).collect();
    let wanted: BTreeSet<&str> = policies.iter().map(|policy| policy.chain.as_str()).collect();
    let mut skipped = Vec::new();
    let chain_here = |chain: &TableChain| {
        let mut left_out = Vec::new();
        let spec = chain_spec(chain, ports, &mut left_out);
        if wanted.contains(chain.name.as_str()) {
            skipped.append(&mut left_out);
        }
        spec
    };
    let chains: Vec<ChainSpec> = plan.chains.iter().filter_map(chain_here).collect();
    let here: BTreeSet<&str> = chains.iter().map(|chain| chain.name.as_str()).collect();
    policies.retain(|policy| here.contains(policy.chain.as_str()));
    (Intent { generation: Generation(generation), chains, policies }, skipped)
}

fn chain_spec(chain: &TableChain, ports: &Directory, skipped: &mut Vec<Skipped>) -> Option<ChainSpec> {
    let paths: Vec<PathSpec> =
        chain.paths.iter().filter_map(|path| path_spec(path, ports, skipped)).collect();
    if paths.is_empty() {
        skipped.push(Skipped::Chain { chain: chain.name.clone() });
        return None;
    }
    let on_failure = match chain.on_failure {
        api::OnFailure::Block => OnFailure::Block,
        api::OnFailure::Allow => OnFailure::Allow,
        api::OnFailure::Bypass => OnFailure::Bypass,
    };
    let failback = match chain.failback {
        api::Failback::New => Failback::New,
        api::Failback::All => Failback::All,
    };
    let egress = match chain.egress {
        api::Egress::Direct => Egress::Direct,
        api::Egress::Source => Egress::Source,
    };
    Some(ChainSpec { name: chain.name.to_string(), on_failure, failback, egress, paths })
}

fn path_spec(path: &TablePath, ports: &Directory, skipped: &mut Vec<Skipped>) -> Option<PathSpec> {
    let mut hops = Vec::with_capacity(path.hops.len());
    for hop in &path.hops {
        let Some(port) = ports.service(hop) else {
            skipped.push(Skipped::Path { spi: path.spi, hop: hop.clone() });
            return None;
        };
        hops.push(port);
    }
    if let Some(hop) = ports.ambiguous(&path.hops) {
        skipped.push(Skipped::Ambiguous { spi: path.spi, hop: hop.clone() });
        return None;
    }
    Some(PathSpec {
        spi: Spi::new(path.spi.get())?,
        hops,
        reverse_spi: path.reverse_spi.and_then(|spi| Spi::new(spi.get())),
        preference: u8::try_from(path.preference).unwrap_or(u8::MAX),
    })
}

/// `None` for a policy about ports of other hosts only.
fn policy_spec(policy: &TablePolicy, ports: &Directory) -> Option<PolicySpec> {
    let named: Vec<PortId> = policy.policy.from.iter().filter_map(|name| ports.tenant(name)).collect();
    let from = if policy.policy.from.is_empty() { None } else { Some(named) };
    if from.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    let matches = match_spec(&policy.policy.matches);
    Some(PolicySpec { chain: policy.chain.to_string(), priority: policy.policy.priority, from, matches })
}

/// What a packet must be, in the datapath's words.
#[must_use]
pub fn match_spec(matches: &api::Match) -> Match {
    // Both sides check the same: an address with its host bits clear, a range in order.
    let prefix = |prefix: api::Prefix| Prefix::new(prefix.address(), prefix.length()).ok();
    let range = |range: api::PortRange| PortRange::new(range.first(), range.last());
    Match {
        src: matches.src.and_then(prefix),
        dst: matches.dst.and_then(prefix),
        protocol: matches.proto.map(|protocol| Protocol(protocol.get())),
        src_ports: matches.sport.and_then(range),
        dst_ports: matches.dport.and_then(range),
        vlan: None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// Two chains with a path each: `web` over svm1, of this host, and `mail` over svm9, of another.
    fn plan(from: &str) -> Plan {
        let path = |spi: u32, hop: &str| serde_json::json!({"spi": spi, "hops": [hop], "preference": 0, "state": "up"});
        let chain = |name: &str, path| serde_json::json!({"name": name, "on_failure": "block", "egress": "direct", "paths": [path]});
        let policy =
            |chain: &str| serde_json::json!({"chain": chain, "priority": 1, "from": [from], "match": {}});
        let plan = serde_json::json!({
            "chains": [chain("web", path(1, "svm1")), chain("mail", path(2, "svm9"))],
            "services": [],
            "policies": [policy("web"), policy("mail")],
        });
        serde_json::from_value(plan).unwrap()
    }

    fn directory() -> Directory {
        let file = "[host]\nid = 1\nname = \"a\"\nadmin = \"/tmp/admin\"\n\
            [[port]]\nname = \"vm5\"\nrole = \"tenant\"\nsocket = \"/tmp/vm5\"\nmac = \"52:54:00:00:00:05\"\n\
            [[port]]\nname = \"svm1\"\nrole = \"service\"\nuuid = \"0d1a7e6a-6d0c-4f0b-9f5e-000000000001\"\n\
            socket = \"/tmp/svm1\"\nmac = \"52:54:00:00:01:01\"\n";
        Directory::new(&Config::parse(file, Path::new("test.toml")).unwrap().ports)
    }

    #[test]
    fn what_the_ports_of_a_host_need_and_it_has_not_is_told() {
        let (intent, skipped) = intent(3, &plan("vm5"), &directory());
        let names = |chains: &[ChainSpec]| chains.iter().map(|chain| chain.name.clone()).collect::<Vec<_>>();
        assert_eq!((intent.generation, names(&intent.chains)), (Generation(3), vec!["web".to_owned()]));
        assert_eq!(intent.policies.len(), 1);
        let told: Vec<String> = skipped.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "path 2: hop svm9 is no service port of this host",
                "chain mail: no path lies on this host, its traffic is not chained here"
            ]
        );
    }

    #[test]
    fn chains_of_other_hosts_are_not_worth_a_word() {
        let (intent, skipped) = intent(3, &plan("vm9"), &directory());
        assert_eq!((intent.policies.len(), skipped), (0, Vec::new()), "vm9 is a port of another host");
    }
}
