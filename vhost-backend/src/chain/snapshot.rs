//! Everything a packet is decided by, immutable and swapped whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nsh::{Si, Spi};

use super::decide::{Next, usable_from};
use super::health::Health;
use super::ramp::Ramp;
use super::spec::{Egress, Failback, OnFailure, Role, SpecError, TablesRef};
use super::tables::{Chain, Tables};
use super::{ChainIx, Generation, Hop, PathIx, PolicyCounts, PortId};
use crate::frame::Mac;
use crate::liveness::Timestamp;

/// Tables and health at one instant. Cheap to clone; a worker loads one per batch and decides every packet of the batch
/// by it.
///
/// One lineage per daemon: start from [`Snapshot::default`] and derive every further one from the one before
/// ([`with_tables`](Snapshot::with_tables), [`with_service`](Snapshot::with_service)), so that revisions never repeat.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) tables: Arc<Tables>,
    pub(super) health: Arc<Health>,
    /// Differs whenever `tables` does: what the flow table checks its indices against.
    pub(super) revision: u32,
    /// Differs whenever anything does: what verdicts are kept under.
    version: u64,
}

/// Counted for all snapshots of the process: a snapshot that is made again from an earlier one is another.
fn next_version() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

/// A path's state, derived from its services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathState<'a> {
    /// Name of its chain.
    pub chain: &'a str,
    /// Its identifier.
    pub spi: Spi,
    /// The path of replies.
    pub reverse_spi: Option<Spi>,
    /// Its services in order.
    pub hops: &'a [PortId],
    /// All of them are usable.
    pub up: bool,
}

/// Where a frame goes on that has left a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// To the service at this port, under this service index.
    Service(PortId, Si),
    /// To its destination: no service is left.
    End,
}

/// What becomes of a chain's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainMode {
    /// A path is up.
    Served,
    /// None is, and they are dropped.
    Blocked,
    /// None is, and they skip the chain.
    Allowed,
    /// None is, and they go past these services, in order of port number.
    Bypassing(Vec<PortId>),
}

/// Chains that have no path up, by name.
pub type CutChains = BTreeMap<Arc<str>, ChainMode>;

impl ChainMode {
    /// The word for it in status, logs and events.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            ChainMode::Served => "served",
            ChainMode::Blocked => "blocked",
            ChainMode::Allowed => "allowed",
            ChainMode::Bypassing(_) => "bypassing",
        }
    }

    /// The services that packets go past.
    #[must_use]
    pub fn bypassed(&self) -> &[PortId] {
        match self {
            ChainMode::Bypassing(services) => services,
            ChainMode::Served | ChainMode::Blocked | ChainMode::Allowed => &[],
        }
    }
}

/// A chain's settings and its state, derived from its services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainState<'a> {
    /// Its name.
    pub name: &'a Arc<str>,
    /// What happens while no path is up.
    pub on_failure: OnFailure,
    /// Which flows take a path that came back.
    pub failback: Failback,
    /// Where frames leave it.
    pub egress: Egress,
    /// What becomes of its packets now.
    pub mode: ChainMode,
    /// How many found no path up, since the chain of this name came into the tables.
    pub packets: PolicyCounts,
}

impl Snapshot {
    /// The snapshot with other tables. Services that are in both, by number and name, keep their usability; new ones
    /// are not usable until [`with_service`](Snapshot::with_service) says so.
    ///
    /// Generations are not compared here; who takes tables from outside refuses lower ones.
    ///
    /// # Errors
    /// What is wrong with the tables.
    pub fn with_tables<'a>(&self, spec: impl Into<TablesRef<'a>>) -> Result<Snapshot, SpecError> {
        let tables = Tables::new(spec.into(), &self.tables)?;
        let usable = self.usable_in(&tables);
        let ramps = self.growing_in(&usable);
        let health = Health::new(&tables, usable, ramps);
        let revision = self.revision.wrapping_add(1);
        Ok(Snapshot { tables: Arc::new(tables), health: Arc::new(health), revision, version: next_version() })
    }

    /// By port number of `tables`: the services that are usable here, and are the same there.
    fn usable_in(&self, tables: &Tables) -> Vec<bool> {
        let mut usable = vec![false; tables.port_numbers()];
        for (id, port) in tables.ports() {
            let same = self.tables.port(id).is_some_and(|old| old.role == Role::Service && port.is(old));
            if let Some(flag) = usable.get_mut(id.index()) {
                *flag = same && self.health.is_usable(id);
            }
        }
        usable
    }

    /// The shares that grow, of services that are usable in other tables too.
    fn growing_in(&self, usable: &[bool]) -> Vec<Ramp> {
        let goes_on = |ramp: &&Ramp| usable.get(ramp.service.index()).copied().unwrap_or(false);
        self.health.ramps().iter().filter(goes_on).copied().collect()
    }

    /// The snapshot with one service usable or not. Tables are shared; what is derived anew are the paths through the
    /// service, some microseconds among 16 000 paths. A port that is no service changes nothing.
    #[must_use]
    pub fn with_service(&self, service: PortId, usable: bool) -> Snapshot {
        let known = self.role(service) == Some(Role::Service);
        if !known || self.health.is_usable(service) == usable {
            return self.clone();
        }
        let health = Arc::new(self.health.with(&self.tables, service, usable));
        Snapshot { health, version: next_version(), ..self.clone() }
    }

    /// The snapshot with a service that recovered: usable, and given its share of new flows little by little if its port
    /// says so (`slow_start`).
    #[must_use]
    pub fn with_recovered(&self, service: PortId, now: Timestamp) -> Snapshot {
        let snapshot = self.with_service(service, true);
        let slow_start = self.tables.port(service).map(|port| port.slow_start).unwrap_or_default();
        if slow_start.is_zero() || !snapshot.is_usable(service) {
            return snapshot;
        }
        let ramp = Ramp { service, since: now, until: now + slow_start };
        let health = Arc::new(Health::clone(&snapshot.health).with_ramp(ramp));
        Snapshot { health, version: next_version(), ..snapshot }
    }

    /// This snapshot, made from an earlier state of `current`, with what became of the services meanwhile.
    #[must_use]
    pub fn caught_up(self, current: &Snapshot) -> Snapshot {
        let usable = current.usable_in(&self.tables);
        let ramps = current.growing_in(&usable);
        let caught_up = (0..).map(PortId::new).zip(usable).fold(self, |caught_up, (service, usable)| {
            if caught_up.is_usable(service) == usable {
                caught_up
            } else {
                caught_up.with_service(service, usable)
            }
        });
        let health = Health::clone(&caught_up.health).with_ramps(ramps);
        Snapshot { health: Arc::new(health), ..caught_up }
    }

    /// What becomes of the packets of every chain that has no path up.
    #[must_use]
    pub fn cut_chains(&self) -> CutChains {
        let chains = (0..).map(ChainIx).zip(&self.tables.chains);
        let cut = chains.filter(|(ix, _)| !self.health.has_path(*ix));
        cut.map(|(ix, chain)| (Arc::clone(&chain.name), self.mode(ix, chain))).collect()
    }

    /// The chains of which another thing becomes than when these were cut.
    #[must_use]
    pub fn modes_changed_since(&self, before: &CutChains) -> Vec<(Arc<str>, ChainMode)> {
        let now = self.cut_chains();
        let here = |name: &str| self.tables.chains.iter().any(|chain| &*chain.name == name);
        let mended = before.keys().filter(|name| !now.contains_key(*name) && here(name));
        let mended: Vec<_> = mended.map(|name| (Arc::clone(name), ChainMode::Served)).collect();
        now.into_iter().filter(|(name, mode)| before.get(name) != Some(mode)).chain(mended).collect()
    }

    fn mode(&self, ix: ChainIx, chain: &Chain) -> ChainMode {
        match chain.on_failure {
            _ if self.health.has_path(ix) => ChainMode::Served,
            OnFailure::Block => ChainMode::Blocked,
            OnFailure::Allow => ChainMode::Allowed,
            OnFailure::Bypass => ChainMode::Bypassing(self.bypassed(ix)),
        }
    }

    /// The services that packets of this chain go past.
    fn bypassed(&self, ix: ChainIx) -> Vec<PortId> {
        let hops = |ix: PathIx| self.tables.paths.get(ix).map(|path| self.tables.paths.hops(path));
        let paths = self.health.least_broken(ix, &self.tables);
        let out = paths.filter_map(hops).flatten().copied().filter(|hop| !self.is_usable(*hop));
        let mut out: Vec<PortId> = out.collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// No other snapshot shares the tables of this one: with it, they go.
    #[must_use]
    pub fn is_last_of_its_tables(&self) -> bool {
        Arc::strong_count(&self.tables) == 1
    }

    /// A number that no other state of any snapshot has.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The same as another: nothing that was kept under this one is good under that.
    #[cfg(test)]
    pub(super) fn renumbered(&self) -> Snapshot {
        Snapshot { version: next_version(), ..self.clone() }
    }

    /// The generation of the tables.
    pub fn generation(&self) -> Generation {
        self.tables.generation
    }

    /// Whether the service takes tenant packets.
    pub fn is_usable(&self, service: PortId) -> bool {
        self.health.is_usable(service)
    }

    /// Every path and reverse path with its state, chain after chain.
    pub fn paths(&self) -> impl Iterator<Item = PathState<'_>> {
        self.tables.paths.iter().map(|(ix, path)| PathState {
            chain: self.tables.chain(path.chain).map_or("", |chain| &chain.name),
            spi: path.spi,
            reverse_spi: path
                .reverse
                .filter(|_| !path.is_reverse)
                .and_then(|reverse| self.tables.paths.get(reverse))
                .map(|reverse| reverse.spi),
            hops: self.tables.paths.hops(path),
            up: self.health.is_up(ix),
        })
    }

    /// Whether new flows would be given other paths, or any at all, if these services, in the order of their numbers, were usable:
    /// one is on a path of the best preference, or of a lower one while no better path is up. Of tables without chains that is not
    /// known, so they wait.
    pub(crate) fn waits_for(&self, services: &[PortId]) -> bool {
        let Tables { chains, paths, .. } = &*self.tables;
        let waits = |path: PathIx| {
            let hops = paths.get(path).map(|path| paths.hops(path)).unwrap_or_default();
            hops.iter().any(|hop| services.binary_search(hop).is_ok())
        };
        let may_change = |chain: &Chain| {
            for level in chain.paths.levels() {
                if level.clone().map(PathIx).any(waits) {
                    return true;
                }
                if level.map(PathIx).any(|path| self.health.is_up(path)) {
                    break;
                }
            }
            false
        };
        !services.is_empty() && (chains.is_empty() || chains.iter().any(may_change))
    }

    /// Whether all services of this path are usable; `None` if there is no such path.
    pub fn path_is_up(&self, spi: Spi) -> Option<bool> {
        let paths = &self.tables.paths;
        let ix =
            paths.find(spi).filter(|ix| paths.get(*ix).is_some_and(|path| path.chain != ChainIx::NONE))?;
        Some(self.health.is_up(ix))
    }

    /// Every chain with its state.
    pub fn chains(&self) -> impl Iterator<Item = ChainState<'_>> {
        (0..).map(ChainIx).zip(&self.tables.chains).map(|(ix, chain)| ChainState {
            name: &chain.name,
            on_failure: chain.on_failure,
            failback: chain.failback,
            egress: chain.egress,
            mode: self.mode(ix, chain),
            packets: chain.counters.read(),
        })
    }

    /// How many policies there are.
    pub fn policies(&self) -> usize {
        self.tables.policies.len()
    }

    /// The port's name.
    pub fn port_name(&self, port: PortId) -> Option<&str> {
        self.tables.port(port).map(|port| &*port.name)
    }

    /// The port's role.
    pub fn role(&self, port: PortId) -> Option<Role> {
        self.tables.port(port).map(|port| port.role)
    }

    /// The MAC configured on the port.
    pub fn mac(&self, port: PortId) -> Option<Mac> {
        self.tables.port(port)?.mac
    }

    /// The port this MAC is configured on.
    pub fn owner(&self, mac: Mac) -> Option<PortId> {
        self.tables.owner(mac)
    }

    /// Where flooded frames go: every port but services'.
    pub fn flood_ports(&self) -> &[PortId] {
        &self.tables.flood
    }

    /// The path table's entry for (SPI, SI), also of a path that has left the tables and has frames on it yet.
    pub fn hop(&self, spi: Spi, si: Si) -> Option<Hop> {
        let paths = &self.tables.paths;
        paths.hop(paths.get(paths.find(spi)?)?, si)
    }

    /// Asks the cache for what the path table reads first about this SPI.
    #[inline]
    pub fn expect(&self, spi: Spi) {
        self.tables.paths.prefetch_index(spi);
    }

    /// Asks the cache for what it reads then. Between the two some time should pass, and some before the decision.
    #[inline]
    pub fn expect_path(&self, spi: Spi) {
        if let Some(ix) = self.tables.paths.find(spi) {
            self.tables.paths.prefetch_record(ix);
        }
    }

    /// Where a frame goes on that has passed the hops of path `left` above `si` and was steered onto path `onto`: past
    /// those of them with which both paths begin, so that no such service sees it twice, and past those that its chain skips
    /// now. `None` when the next service is not usable either: then it begins at the first hop.
    pub fn resume(&self, left: Spi, si: Si, onto: Spi) -> Option<Onward> {
        let paths = &self.tables.paths;
        let (left, onto) = (paths.get(paths.find(left)?)?, paths.get(paths.find(onto)?)?);
        if si == Si::TERMINAL {
            return None;
        }
        let passed = left.first_si().get().checked_sub(si.get())?;
        let passed = paths.hops(left).get(..usize::from(passed))?;
        let common = passed.iter().zip(paths.hops(onto)).take_while(|(one, other)| one == other).count();
        let si = Si::new(onto.first_si().get().checked_sub(u8::try_from(common).ok()?)?);
        match usable_from(self, onto, si) {
            Next::Service(to, si) => Some(Onward::Service(to, si)),
            Next::Terminal => Some(Onward::End),
            Next::Broken(_) => None,
        }
    }

    /// The place of the same service on the path of the other direction; `None` if there is no such path.
    pub fn opposite(&self, spi: Spi, si: Si) -> Option<(Spi, Si)> {
        let paths = &self.tables.paths;
        let path = paths.get(paths.find(spi)?)?;
        let opposite = paths.get(path.reverse?)?;
        // The same hops in reverse order: the last, with SI 1, comes first.
        let si = path.first_si().get().checked_sub(si.get())?.checked_add(1)?;
        Some((opposite.spi, Si::new(si)))
    }

    /// The (SPI, SI) under which this service port was handed what it now returns as (`spi`, `si`): the same, or one
    /// more if the SVM decrements. `None` if the path table has no such entry or it is another port's.
    pub fn received_as(&self, service: PortId, spi: Spi, si: Si) -> Option<Si> {
        let received = self.tables.port(service)?.si_decrement.received(si)?;
        (self.hop(spi, received) == Some(Hop::Service(service))).then_some(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::samples::*;
    use crate::chain::{DropReason, PathSpec, PortSpec, Return, TablesSpec, Verdict, decide, forward};

    fn states(snapshot: &Snapshot) -> Vec<(u32, bool)> {
        snapshot.paths().map(|path| (path.spi.get(), path.up)).collect()
    }

    #[test]
    fn the_path_table_has_an_entry_for_every_hop_and_the_end() {
        let snapshot = snapshot(&reference(OnFailure::Block));
        let hops =
            |number: u32| (0..=5).map(|index| snapshot.hop(spi(number), si(index))).collect::<Vec<_>>();
        let service = |port| Some(Hop::Service(port));
        let end = Some(Hop::Terminal);
        assert_eq!(hops(1), [end, service(SVM3), service(SVM2), service(SVM1), None, None]);
        assert_eq!(hops(3), [end, service(SVM3), service(SVM8), service(SVM7), service(SVM1), None]);
        assert_eq!(hops(103), [end, service(SVM1), service(SVM7), service(SVM8), service(SVM3), None]);
        assert_eq!(hops(4), [None; 6]);
    }

    #[test]
    fn a_service_takes_its_paths_with_it() {
        let all = snapshot(&reference(OnFailure::Block));
        assert!(states(&all).iter().all(|(_, up)| *up));
        assert_eq!(states(&all).iter().map(|(spi, _)| *spi).collect::<Vec<_>>(), [1, 2, 3, 101, 102, 103]);
        let without = all.with_service(SVM2, false);
        let up = [(1, false), (2, true), (3, true), (101, false), (102, true), (103, true)];
        assert_eq!(states(&without), up);
        assert!(states(&all).iter().all(|(_, up)| *up), "the old snapshot is as it was");
        assert_eq!(states(&without.with_service(SVM2, true)), states(&all));
        assert!(Arc::ptr_eq(&all.tables, &without.tables), "tables are shared");
        assert_eq!(without.path_is_up(spi(1)), Some(false));
        assert_eq!(without.path_is_up(spi(77)), None);
    }

    #[test]
    fn a_port_that_is_no_service_has_no_health() {
        let all = snapshot(&reference(OnFailure::Block));
        for port in [VM5, UPLINK, PortId::new(999)] {
            assert!(!all.with_service(port, true).is_usable(port));
        }
    }

    #[test]
    fn a_service_is_not_usable_before_it_is_said_to_be() {
        let spec = reference(OnFailure::Block);
        let fresh = Snapshot::default().with_tables(&spec).unwrap();
        assert!(states(&fresh).iter().all(|(_, up)| !up));
    }

    #[test]
    fn a_service_is_waited_for_if_flows_would_go_another_way_with_it() {
        let spec = reference(OnFailure::Block);
        let out = |snapshot: Snapshot, services: &[PortId]| {
            services.iter().fold(snapshot, |snapshot, service| snapshot.with_service(*service, false))
        };
        let all = snapshot(&spec);
        assert!(!all.waits_for(&[]));
        assert!(out(all.clone(), &SERVICES).waits_for(&SERVICES));
        for service in [SVM1, SVM2, SVM3] {
            assert!(out(all.clone(), &[service]).waits_for(&[service]), "on SPI 1");
        }
        let stand_by = [SVM4, SVM7, SVM8];
        assert!(!out(all.clone(), &stand_by).waits_for(&stand_by), "SPI 1 is up");
        let down = out(all.clone(), &[SVM2]);
        assert!(!out(down.clone(), &[SVM7]).waits_for(&[SVM7]), "SPI 2 is up");
        assert!(out(down, &[SVM4]).waits_for(&[SVM4]), "SPI 2 would be taken");
        assert!(Snapshot::default().waits_for(&[SVM2]), "chains may come yet");
    }

    #[test]
    fn services_keep_their_health_when_tables_change() {
        let spec = reference(OnFailure::Block);
        let old = snapshot(&spec).with_service(SVM2, false);
        let mut next = spec.clone();
        next.generation = Generation(2);
        // Another VM at svm4's number is another service.
        next.ports.iter_mut().find(|port| port.id == SVM4).unwrap().name = "replaced".into();
        let new = old.with_tables(&next).unwrap();
        assert_eq!([SVM1, SVM2, SVM4].map(|service| new.is_usable(service)), [true, false, false]);
        assert_eq!((old.generation(), new.generation()), (Generation(1), Generation(2)));
    }

    #[test]
    fn new_tables_catch_up_with_what_became_of_services_meanwhile() {
        let spec = reference(OnFailure::Block);
        let before = snapshot(&spec).with_service(SVM4, false);
        let mut next = spec.clone();
        next.ports.iter_mut().find(|port| port.id == SVM8).unwrap().name = "replaced".into();
        let made = before.with_tables(&next).unwrap();
        let now = before.with_service(SVM2, false).with_service(SVM4, true);
        let caught_up = made.caught_up(&now);
        let usable = [SVM1, SVM2, SVM4, SVM8].map(|service| caught_up.is_usable(service));
        assert_eq!(usable, [true, false, true, false]);
        assert_eq!(caught_up.path_is_up(spi(1)), Some(false));
        assert_eq!(caught_up.path_is_up(spi(2)), Some(true));
    }

    #[test]
    fn another_service_of_the_same_number_inherits_nothing() {
        let spec = reference(OnFailure::Block);
        let mut without = spec.clone();
        without.chains.truncate(0);
        without.policies.clear();
        let down = snapshot(&spec).with_service(SVM2, false);
        let slowly = |port: &mut PortSpec| port.slow_start = std::time::Duration::from_secs(60);
        let mut slow = spec.clone();
        slow.ports.iter_mut().for_each(slowly);
        let ramping = down.with_tables(&slow).unwrap().with_recovered(SVM2, seconds(1));
        assert!(!ramping.health.is_settled(seconds(2)));

        without.ports.retain(|port| port.id != SVM2);
        let gone = ramping.with_tables(&without).unwrap();
        assert!(gone.health.is_settled(seconds(2)), "its share grows no more");
        assert_eq!(gone.hop(spi(1), si(2)), Some(Hop::Service(SVM2)), "for the frames on it");
        let returned = Return { from: SVM1, spi: spi(1), si: si(3), ttl: nsh::Ttl::ORIGIN };
        let verdict = forward(&gone, &returned).verdict;
        assert_eq!(verdict, Verdict::Reflect { failed: SVM2, si: si(2) }, "they are steered again");

        let other = PortSpec { name: "other".into(), mac: None, ..port(SVM2, Role::Service) };
        without.ports.push(other);
        let taken = gone.with_tables(&without).unwrap();
        assert!(!taken.is_usable(SVM2));
        assert_eq!(taken.hop(spi(1), si(2)), None, "a frame on the old path does not get there");
        assert_eq!(
            taken.hop(spi(2), si(3)),
            Some(Hop::Service(SVM1)),
            "a path that was not through it stays"
        );
    }

    #[test]
    fn the_last_of_its_tables_says_so() {
        let first = snapshot(&reference(OnFailure::Block));
        let derived = first.with_service(SVM2, false);
        assert!(!first.is_last_of_its_tables());
        let next = derived.with_tables(&reference(OnFailure::Block)).unwrap();
        drop(derived);
        assert!(first.is_last_of_its_tables() && next.is_last_of_its_tables());
    }

    #[test]
    fn wrong_tables_change_nothing() {
        let old = snapshot(&reference(OnFailure::Block));
        let mut wrong = reference(OnFailure::Block);
        wrong.chains[0].paths[0].hops.clear();
        assert!(matches!(old.with_tables(&wrong), Err(SpecError::NoHops { .. })));
        assert_eq!(old.generation(), Generation(1));
    }

    #[test]
    fn names_for_reports() {
        let snapshot = snapshot(&reference(OnFailure::Allow));
        let first = snapshot.paths().next().unwrap();
        assert_eq!(
            (first.chain, first.reverse_spi, first.hops),
            ("inspect", Some(spi(101)), &[SVM1, SVM2, SVM3][..])
        );
        assert_eq!(snapshot.paths().last().unwrap().reverse_spi, None, "a reverse path has none itself");
        let chains: Vec<_> =
            snapshot.chains().map(|chain| (&**chain.name, chain.on_failure, chain.egress)).collect();
        assert_eq!(chains, [("inspect", OnFailure::Allow, Egress::Direct)]);
        assert_eq!((snapshot.port_name(SVM1), snapshot.policies()), (Some("Service11"), 1));
        assert_eq!((snapshot.mac(VM5), snapshot.owner(mac(VM5))), (Some(mac(VM5)), Some(VM5)));
    }

    /// 16 000 paths and their reverses over 200 services, 200 chains: every path is where its SPI says, and a service
    /// takes exactly the paths through it.
    #[test]
    fn sixteen_thousand_paths() {
        let service = |i: u32| PortId::new(u16::try_from(10 + i % 200).unwrap());
        let ports = (0..200).map(|i| PortSpec { mac: None, ..port(service(i), Role::Service) });
        let chains = (0..200).map(|c: u32| {
            let path = |p: u32| {
                let number = c * 80 + p;
                let hops =
                    [service(number), service(number * 7 + 1), service(number / 80 + 3), service(p * 3 + 2)];
                PathSpec {
                    reverse_spi: Some(spi(1_000_000 + number)),
                    ..path(number * 37 % 0xFF_FFFF, &hops, 0)
                }
            };
            chain(&format!("c{c}"), OnFailure::Block, (0..80).map(path).collect())
        });
        let spec = TablesSpec { ports: ports.collect(), chains: chains.collect(), ..TablesSpec::default() };
        let all = snapshot(&spec);
        assert_eq!(all.paths().count(), 32_000);
        assert!(all.paths().all(|path| path.up));
        for path in spec.chains.iter().flat_map(|chain| &chain.paths) {
            for (index, hop) in (1..).zip(path.hops.iter().rev()) {
                assert_eq!(all.hop(path.spi, si(index)), Some(Hop::Service(*hop)));
                assert_eq!(all.hop(path.reverse_spi.unwrap(), si(5 - index)), Some(Hop::Service(*hop)));
            }
        }
        let lost = service(5);
        let without = all.with_service(lost, false);
        assert!(without.paths().all(|path| path.up != path.hops.contains(&lost)));
        assert!(without.paths().any(|path| !path.up));
    }

    #[test]
    fn the_empty_snapshot_knows_no_port() {
        let frame = datagram(VM5, VM6, 1, 2);
        let arrival = decide::Arrival::new(VM5, &frame, &steering(), seconds(1));
        let verdict = decide::classify(&Snapshot::default(), &mut steering(), &arrival).verdict;
        assert_eq!(verdict, Verdict::Drop(DropReason::UnknownPort));
    }
}
