//! Ports, chains, paths and policies, resolved and immutable.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use super::counts::PolicyCounters;
use super::index::Index;
use super::path::{ChainPaths, PathTable};
use super::policy::PolicyTable;
use super::spec::{Egress, Failback, OnFailure, Role, SiDecrement, SpecError, TablesRef};
use super::{ChainIx, Generation, PortId};
use crate::frame::Mac;

/// Hashes the keys of tables. They are the operator's, not a guest's, so nothing needs to be secret.
pub(super) type TableHasher = BuildHasherDefault<ahash::AHasher>;

/// A port as the tables know it.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) name: Box<str>,
    pub(super) role: Role,
    pub(super) mac: Option<Mac>,
    pub(super) si_decrement: SiDecrement,
    pub(super) slow_start: Duration,
}

impl Port {
    /// The port of the same number in other tables is the same.
    pub(super) fn is(&self, other: &Port) -> bool {
        self.role == other.role && self.name == other.name
    }
}

/// A chain as the tables know it.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) name: Arc<str>,
    pub(super) on_failure: OnFailure,
    pub(super) failback: Failback,
    pub(super) egress: Egress,
    /// Its paths.
    pub(super) paths: ChainPaths,
    /// Packets that its failure policy decided about. Those of the chain of this name in the tables before go on.
    pub(super) counters: Arc<PolicyCounters>,
}

/// The immutable part of a snapshot, shared by all snapshots that differ only in health.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) generation: Generation,
    ports: Vec<Option<Port>>,
    /// Configured MAC addresses as numbers, to ports.
    macs: Index<16>,
    /// Ports that flooded frames go to: all but service ports.
    pub(super) flood: Vec<PortId>,
    pub(super) chains: Vec<Chain>,
    pub(super) paths: PathTable,
    pub(super) policies: PolicyTable,
}

impl Tables {
    /// `before`: the tables that these replace.
    pub(super) fn new(spec: TablesRef<'_>, before: &Tables) -> Result<Tables, SpecError> {
        let chains_of_policies = spec.resolve()?;
        let mut tables = Tables { generation: spec.generation, ..Tables::default() };
        for port in spec.ports {
            tables.add_port(port);
        }
        tables.flood.sort_unstable();
        let macs = spec.ports.iter().filter_map(|port| Some((number(port.mac?), port.id.get().into())));
        tables.macs = Index::new(macs.collect::<Vec<_>>().into_iter());
        let is_another = |(id, port): (PortId, &Option<Port>)| {
            port.as_ref().is_some_and(|port| !before.port(id).is_some_and(|old| port.is(old)))
        };
        let another: Vec<bool> = (0..).map(PortId::new).zip(&tables.ports).map(is_another).collect();
        let made = PathTable::new(spec.chains, &before.paths, &another);
        let (paths, of_chains) = made.map_err(|(spi, chain)| spec.double(spi, chain))?;
        tables.paths = paths;
        let counted: HashMap<&str, &Chain, TableHasher> =
            before.chains.iter().map(|chain| (&*chain.name, chain)).collect();
        for (chain, paths) in spec.chains.iter().zip(of_chains) {
            tables.chains.push(Chain {
                name: chain.name.as_str().into(),
                on_failure: chain.on_failure,
                failback: chain.failback,
                egress: chain.egress,
                paths,
                counters: counted
                    .get(chain.name.as_str())
                    .map(|before| Arc::clone(&before.counters))
                    .unwrap_or_default(),
            });
        }
        tables.policies = PolicyTable::new(spec.policies.iter().zip(chains_of_policies));
        Ok(tables)
    }

    fn add_port(&mut self, spec: &super::PortSpec) {
        let index = spec.id.index();
        if self.ports.len() <= index {
            self.ports.resize(index + 1, None);
        }
        if let Some(slot) = self.ports.get_mut(index) {
            *slot = Some(Port {
                name: spec.name.as_str().into(),
                role: spec.role,
                mac: spec.mac,
                si_decrement: spec.si_decrement,
                slow_start: spec.slow_start,
            });
        }
        if spec.role != Role::Service {
            self.flood.push(spec.id);
        }
    }

    #[inline]
    pub(super) fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.index()).and_then(Option::as_ref)
    }

    /// One more than the greatest port number.
    pub(super) fn port_numbers(&self) -> usize {
        self.ports.len()
    }

    /// Every port, in order of number.
    pub(super) fn ports(&self) -> impl Iterator<Item = (PortId, &Port)> {
        (0..).map(PortId::new).zip(&self.ports).filter_map(|(id, port)| Some((id, port.as_ref()?)))
    }

    /// The port that this MAC is configured on.
    #[inline]
    pub(super) fn owner(&self, mac: Mac) -> Option<PortId> {
        self.macs.find(number(mac)).and_then(|port| u16::try_from(port).ok()).map(PortId::new)
    }

    #[inline]
    pub(super) fn chain(&self, ix: ChainIx) -> Option<&Chain> {
        self.chains.get(ix.index())
    }
}

/// The address as a number of 48 bits.
#[inline]
fn number(Mac([a, b, c, d, e, f]): Mac) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
