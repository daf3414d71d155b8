//! The tables as an operator or the controller states them, and what can be wrong with them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use nsh::{Si, Spi};

use super::matching::{Match, MatchError};
use super::tables::TableHasher;
use super::{ChainIx, Generation, PortId};
use crate::frame::Mac;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A tenant VM's vNIC: its frames are classified.
    Tenant,
    /// A service VM's vNIC: its frames carry NSH.
    Service,
    /// A Linux tap.
    Tap,
    /// The way to other hosts.
    Uplink,
}

/// Who decrements the service index after a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SiDecrement {
    /// The proxy: the SVM returns the SI as it came.
    #[default]
    Proxy,
    /// The SVM: what it returns carries the next SI.
    Service,
}

impl SiDecrement {
    /// The SI that an SVM was handed with a frame that it returns with `returned`. `None`: no SI decrements to it.
    pub(super) const fn received(self, returned: Si) -> Option<Si> {
        match self {
            SiDecrement::Proxy => Some(returned),
            SiDecrement::Service => match returned.get().checked_add(1) {
                Some(si) => Some(Si::new(si)),
                None => None,
            },
        }
    }
}

/// What happens to a chain's packets while none of its paths is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They are dropped.
    #[default]
    Block,
    /// They skip the chain.
    Allow,
    /// They skip the services that failed, on the path that has the fewest of them.
    Bypass,
}

impl OnFailure {
    /// All of them.
    pub const ALL: [OnFailure; 3] = [OnFailure::Block, OnFailure::Allow, OnFailure::Bypass];

    /// The word for it in the file, in metrics and in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            OnFailure::Block => "block",
            OnFailure::Allow => "allow",
            OnFailure::Bypass => "bypass",
        }
    }
}

/// Which flows take a path that came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// New ones. The others stay where they went, for the services there know them.
    #[default]
    New,
    /// All of them move back to the path they would be given if they began now.
    All,
}

impl Failback {
    /// The word for it in the file and in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Failback::New => "new",
            Failback::All => "all",
        }
    }
}

/// Where a frame leaves the chain. On one host both are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Egress {
    /// At the destination.
    #[default]
    Direct,
    /// Back at the source's host (¶31 ¶54).
    Source,
}

/// One port.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// Its number; those of all ports are small, arrays are as long as the greatest.
    pub id: PortId,
    /// Its name, unique.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The MAC of the vNIC, unique; frames to it go here whatever else was learned.
    pub mac: Option<Mac>,
    /// Of a service port: who decrements SI.
    pub si_decrement: SiDecrement,
    /// Of a service port: for how long, once it has recovered, the share of new flows that it is given grows. Zero: it
    /// is given its whole share at once.
    pub slow_start: Duration,
}

/// One embedding of a chain in SVMs.
#[derive(Clone, Debug)]
pub struct PathSpec {
    /// Its identifier, unique among all paths and reverse paths.
    pub spi: Spi,
    /// Service ports in order, 1 to 255 of them; the first has the highest SI, the last has 1.
    pub hops: Vec<PortId>,
    /// The path of replies: the same hops in reverse order. `None`: replies are not chained.
    pub reverse_spi: Option<Spi>,
    /// New flows are spread over the paths of the lowest number that has a path up. All 0: over all that are up.
    pub preference: u8,
}

/// A chain and its paths.
#[derive(Clone, Debug)]
pub struct ChainSpec {
    /// Its name, unique.
    pub name: String,
    /// What happens while no path is up.
    pub on_failure: OnFailure,
    /// Which flows take a path that came back.
    pub failback: Failback,
    /// Where frames leave it.
    pub egress: Egress,
    /// At least one.
    pub paths: Vec<PathSpec>,
}

/// Which packets take which chain.
#[derive(Clone, Debug)]
pub struct PolicySpec {
    /// The chain's name.
    pub chain: String,
    /// The lowest number is looked at first; among equal ones, the order in the list decides.
    pub priority: u32,
    /// Ports whose frames it is about. `None`: every tenant port.
    pub from: Option<Vec<PortId>>,
    /// The packets.
    pub matches: Match,
}

/// A whole set of tables.
#[derive(Clone, Debug, Default)]
pub struct TablesSpec {
    /// Counted up by whoever made them.
    pub generation: Generation,
    /// The ports of this host.
    pub ports: Vec<PortSpec>,
    /// The chains.
    pub chains: Vec<ChainSpec>,
    /// The policies.
    pub policies: Vec<PolicySpec>,
}

/// A whole set of tables that others keep.
#[derive(Clone, Copy, Debug)]
pub struct TablesRef<'a> {
    /// Counted up by whoever made them.
    pub generation: Generation,
    /// The ports of this host.
    pub ports: &'a [PortSpec],
    /// The chains.
    pub chains: &'a [ChainSpec],
    /// The policies.
    pub policies: &'a [PolicySpec],
}

impl<'a> From<&'a TablesSpec> for TablesRef<'a> {
    fn from(spec: &'a TablesSpec) -> Self {
        let TablesSpec { generation, ports, chains, policies } = spec;
        TablesRef { generation: *generation, ports, chains, policies }
    }
}

/// What is wrong with a set of tables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Two ports with one number.
    #[error("ports \"{first}\" and \"{second}\" have the same number {id}", id = .id.get())]
    DuplicatePort {
        /// The number.
        id: PortId,
        /// Name of the first.
        first: String,
        /// Name of the second.
        second: String,
    },
    /// Two ports, or two chains, with one name.
    #[error("{what} \"{name}\" is declared twice")]
    DuplicateName {
        /// "port" or "chain".
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two ports with one MAC.
    #[error("ports \"{first}\" and \"{second}\" have the same mac {mac}")]
    DuplicateMac {
        /// The address.
        mac: Mac,
        /// Name of the first.
        first: String,
        /// Name of the second.
        second: String,
    },
    /// A MAC no vNIC can have.
    #[error("port \"{port}\": mac {mac} is zero or a group address; a vNIC has an individual one")]
    InvalidMac {
        /// The port's name.
        port: String,
        /// The address.
        mac: Mac,
    },
    /// A path without services.
    #[error("chain \"{chain}\": spi {spi} has no hops; give 1 to 255", spi = .spi.get())]
    NoHops {
        /// The chain's name.
        chain: String,
        /// The path.
        spi: Spi,
    },
    /// More services than an 8-bit SI counts.
    #[error("chain \"{chain}\": spi {spi} has {hops} hops; the service index counts 255", spi = .spi.get())]
    TooManyHops {
        /// The chain's name.
        chain: String,
        /// The path.
        spi: Spi,
        /// How many.
        hops: usize,
    },
    /// A hop that is not in the tables.
    #[error("chain \"{chain}\": spi {spi}: hop {hop} does not exist", spi = .spi.get())]
    UnknownHop {
        /// The chain's name.
        chain: String,
        /// The path.
        spi: Spi,
        /// The hop.
        hop: PortId,
    },
    /// A hop that is no service.
    #[error("chain \"{chain}\": spi {spi}: hop \"{hop}\" is not a service port", spi = .spi.get())]
    HopNotService {
        /// The chain's name.
        chain: String,
        /// The path.
        spi: Spi,
        /// The port's name.
        hop: String,
    },
    /// One SPI for two paths.
    #[error("spi {spi} is used twice, the second time in chain \"{chain}\"", spi = .spi.get())]
    DuplicateSpi {
        /// The path.
        spi: Spi,
        /// The chain of the second use.
        chain: String,
    },
    /// A chain without paths.
    #[error("chain \"{0}\" has no path; give at least one [[chain.path]]")]
    NoPaths(
        /// The chain's name.
        String,
    ),
    /// More chains, or paths, than the tables index.
    #[error("{count} {what} are more than the {max} that fit")]
    TooMany {
        /// "chains", "paths" or "policies".
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A policy for a chain that is not there.
    #[error("policy {policy}: chain \"{chain}\" does not exist")]
    UnknownChain {
        /// Place in the list, from 0.
        policy: usize,
        /// The chain's name.
        chain: String,
    },
    /// A policy from a port that is not there.
    #[error("policy {policy}: from {port}, which does not exist")]
    UnknownFrom {
        /// Place in the list, from 0.
        policy: usize,
        /// The port.
        port: PortId,
    },
    /// A policy from a service port, whose frames are not classified.
    #[error("policy {policy}: from \"{port}\", a service port, whose frames are not classified")]
    FromService {
        /// Place in the list, from 0.
        policy: usize,
        /// The port's name.
        port: String,
    },
    /// A policy that no packet can match.
    #[error("policy {policy}: {source}")]
    Match {
        /// Place in the list, from 0.
        policy: usize,
        /// What is wrong.
        source: MatchError,
    },
}

/// Chains, paths with their reverses, and policies are numbered in 16, 24 and 32 bits, less a value that means none.
const MAX_CHAINS: usize = u16::MAX as usize;
const MAX_PATHS: usize = 0x00FF_FFFF;
const MAX_POLICIES: usize = u32::MAX as usize;

impl TablesSpec {
    /// Checks everything that can be wrong with the tables.
    ///
    /// # Errors
    /// The first fault found, in the order ports, chains, policies, SPIs.
    pub fn check(&self) -> Result<(), SpecError> {
        TablesRef::from(self).check()
    }
}

impl<'a> TablesRef<'a> {
    /// See [`TablesSpec::check`].
    ///
    /// # Errors
    /// The first fault found, in the order ports, chains, policies, SPIs.
    pub fn check(self) -> Result<(), SpecError> {
        self.resolve()?;
        self.check_spis()
    }

    /// Checks everything but that no SPI is used twice, and gives the chain of each policy.
    pub(super) fn resolve(self) -> Result<Vec<ChainIx>, SpecError> {
        let ports = self.check_ports()?;
        self.check_chains(&ports)?;
        self.resolve_policies(&ports)
    }

    fn check_ports(self) -> Result<PortsById<'a>, SpecError> {
        let mut by_id = PortsById::default();
        let mut by_mac: HashMap<Mac, &PortSpec, TableHasher> = HashMap::default();
        let mut names: HashSet<&str, TableHasher> = HashSet::default();
        for port in self.ports {
            if let Some(first) = by_id.put(port) {
                let (first, second) = (first.name.clone(), port.name.clone());
                return Err(SpecError::DuplicatePort { id: port.id, first, second });
            }
            if !names.insert(&port.name) {
                return Err(SpecError::DuplicateName { what: "port", name: port.name.clone() });
            }
            let Some(mac) = port.mac else { continue };
            if !mac.is_station() {
                return Err(SpecError::InvalidMac { port: port.name.clone(), mac });
            }
            if let Some(first) = by_mac.insert(mac, port) {
                let (first, second) = (first.name.clone(), port.name.clone());
                return Err(SpecError::DuplicateMac { mac, first, second });
            }
        }
        Ok(by_id)
    }

    fn check_chains(self, ports: &PortsById<'_>) -> Result<(), SpecError> {
        check_count("chains", self.chains.len(), MAX_CHAINS)?;
        let paths = self.chains.iter().flat_map(|chain| &chain.paths);
        let count = paths.map(|path| 1 + usize::from(path.reverse_spi.is_some())).sum();
        check_count("paths", count, MAX_PATHS)?;
        let mut names: HashSet<&str, TableHasher> = HashSet::default();
        for chain in self.chains {
            if !names.insert(&chain.name) {
                return Err(SpecError::DuplicateName { what: "chain", name: chain.name.clone() });
            }
            if chain.paths.is_empty() {
                return Err(SpecError::NoPaths(chain.name.clone()));
            }
            for path in &chain.paths {
                path.check_hops(&chain.name, ports)?;
            }
        }
        Ok(())
    }

    fn check_spis(self) -> Result<(), SpecError> {
        let mut spis: HashSet<Spi, TableHasher> = HashSet::default();
        for (chain, ix) in self.chains.iter().zip((0..).map(ChainIx)) {
            for path in &chain.paths {
                let mut both = [Some(path.spi), path.reverse_spi].into_iter().flatten();
                if let Some(spi) = both.find(|spi| !spis.insert(*spi)) {
                    return Err(self.double(spi, ix));
                }
            }
        }
        Ok(())
    }

    /// What is wrong when an SPI is used in this chain that was used before.
    pub(super) fn double(self, spi: Spi, chain: ChainIx) -> SpecError {
        let chain = self.chains.get(chain.index()).map(|chain| chain.name.clone()).unwrap_or_default();
        SpecError::DuplicateSpi { spi, chain }
    }

    fn resolve_policies(self, ports: &PortsById<'_>) -> Result<Vec<ChainIx>, SpecError> {
        check_count("policies", self.policies.len(), MAX_POLICIES)?;
        let names = self.chains.iter().map(|chain| &*chain.name);
        let chains: HashMap<&str, ChainIx, TableHasher> = names.zip((0..).map(ChainIx)).collect();
        let mut resolved = Vec::with_capacity(self.policies.len());
        for (policy, spec) in self.policies.iter().enumerate() {
            match chains.get(&*spec.chain) {
                Some(chain) => resolved.push(*chain),
                None => return Err(SpecError::UnknownChain { policy, chain: spec.chain.clone() }),
            }
            for &port in spec.from.iter().flatten() {
                match ports.get(port) {
                    None => return Err(SpecError::UnknownFrom { policy, port }),
                    Some(named) if named.role == Role::Service => {
                        return Err(SpecError::FromService { policy, port: named.name.clone() });
                    }
                    Some(_) => {}
                }
            }
            spec.matches.check().map_err(|source| SpecError::Match { policy, source })?;
        }
        Ok(resolved)
    }
}

impl PathSpec {
    fn check_hops(&self, chain: &str, ports: &PortsById<'_>) -> Result<(), SpecError> {
        let (spi, hops) = (self.spi, self.hops.len());
        if hops == 0 {
            return Err(SpecError::NoHops { chain: chain.to_owned(), spi });
        }
        if hops > usize::from(u8::MAX) {
            return Err(SpecError::TooManyHops { chain: chain.to_owned(), spi, hops });
        }
        for &hop in &self.hops {
            let chain = || chain.to_owned();
            match ports.get(hop) {
                None => return Err(SpecError::UnknownHop { chain: chain(), spi, hop }),
                Some(port) if port.role != Role::Service => {
                    return Err(SpecError::HopNotService { chain: chain(), spi, hop: port.name.clone() });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Ports by number.
#[derive(Default)]
struct PortsById<'a>(Vec<Option<&'a PortSpec>>);

impl<'a> PortsById<'a> {
    /// Gives the port that had the number before.
    fn put(&mut self, port: &'a PortSpec) -> Option<&'a PortSpec> {
        if self.0.len() <= port.id.index() {
            self.0.resize(port.id.index().saturating_add(1), None);
        }
        self.0.get_mut(port.id.index())?.replace(port)
    }

    fn get(&self, id: PortId) -> Option<&'a PortSpec> {
        self.0.get(id.index()).copied().flatten()
    }
}

fn check_count(what: &'static str, count: usize, max: usize) -> Result<(), SpecError> {
    if count > max { Err(SpecError::TooMany { what, count, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::samples::{SVM1, VM5, VM6, chain, path, policy, port, reference, spi};

    /// What is said about the reference tables after a change.
    fn error(change: impl FnOnce(&mut TablesSpec)) -> String {
        let mut spec = reference(OnFailure::Block);
        spec.check().unwrap();
        change(&mut spec);
        spec.check().unwrap_err().to_string()
    }

    #[test]
    fn ports() {
        let twice = error(|spec| spec.ports.push(PortSpec { name: "other".into(), ..port(VM5, Role::Tap) }));
        assert_eq!(twice, "ports \"Tenant5\" and \"other\" have the same number 5");
        let name = error(|spec| spec.ports[1].name = "Tenant5".into());
        assert_eq!(name, "port \"Tenant5\" is declared twice");
        let mac = error(|spec| spec.ports[1].mac = spec.ports[0].mac);
        assert_eq!(mac, "ports \"Tenant5\" and \"Tenant6\" have the same mac 52:54:00:00:00:05");
        let group = error(|spec| spec.ports[0].mac = Some(Mac::BROADCAST));
        let wanted = "port \"Tenant5\": mac ff:ff:ff:ff:ff:ff is zero or a group address; a vNIC has an individual one";
        assert_eq!(group, wanted);
    }

    #[test]
    fn hops() {
        let hops = |hops: Vec<PortId>| error(|spec| spec.chains[0].paths[0].hops = hops);
        assert_eq!(hops(vec![]), "chain \"inspect\": spi 1 has no hops; give 1 to 255");
        let many = hops(vec![SVM1; 256]);
        assert_eq!(many, "chain \"inspect\": spi 1 has 256 hops; the service index counts 255");
        let tenant = hops(vec![SVM1, VM6]);
        assert_eq!(tenant, "chain \"inspect\": spi 1: hop \"Tenant6\" is not a service port");
        let nobody = hops(vec![PortId::new(99)]);
        assert_eq!(nobody, "chain \"inspect\": spi 1: hop port 99 does not exist");
    }

    #[test]
    fn chains() {
        let spi_twice =
            error(|spec| spec.chains.push(chain("two", OnFailure::Block, vec![path(1, &[SVM1], 0)])));
        assert_eq!(spi_twice, "spi 1 is used twice, the second time in chain \"two\"");
        let reverse = error(|spec| spec.chains[0].paths[0].reverse_spi = Some(spi(2)));
        assert_eq!(reverse, "spi 2 is used twice, the second time in chain \"inspect\"");
        let name = error(|spec| spec.chains.push(spec.chains[0].clone()));
        assert_eq!(name, "chain \"inspect\" is declared twice");
        let empty = error(|spec| spec.chains[0].paths.clear());
        assert_eq!(empty, "chain \"inspect\" has no path; give at least one [[chain.path]]");
    }

    #[test]
    fn policies() {
        let more = |more| error(|spec| spec.policies.push(more));
        let unknown = more(policy("nope", 1, None, Match::default()));
        assert_eq!(unknown, "policy 1: chain \"nope\" does not exist");
        let from = more(policy("inspect", 1, Some(&[VM5, PortId::new(99)]), Match::default()));
        assert_eq!(from, "policy 1: from port 99, which does not exist");
        let service = more(policy("inspect", 1, Some(&[SVM1]), Match::default()));
        assert_eq!(service, "policy 1: from \"Service11\", a service port, whose frames are not classified");
        let ports = super::super::PortRange::new(53, 53);
        let icmp =
            Match { protocol: Some(crate::frame::Protocol::ICMP), dst_ports: ports, ..Match::default() };
        let matches = more(policy("inspect", 1, None, icmp));
        assert_eq!(
            matches,
            "policy 1: protocol 1 has no ports; ports go with tcp, udp, sctp, dccp and udplite"
        );
    }

    #[test]
    fn a_path_of_255_hops_is_the_longest() {
        let mut spec = reference(OnFailure::Block);
        spec.chains[0].paths[0].hops = vec![SVM1; 255];
        assert_eq!(spec.check(), Ok(()));
    }
}
