//! What became of every packet, and in which order.

use std::cmp::Ordering;

use nsh::{Si, Spi};

use crate::Broken;
use crate::tally::Tally;

/// A packet's number: later ones of a flow have higher ones.
pub(crate) type PacketId = usize;

/// Why a packet went no further that its service let go no further.
const BY_THE_SERVICE: &str = "by_the_service";
/// Hosts, and flows of each with both directions told apart.
const HOSTS: usize = 3;
pub(crate) const FLOWS: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Fate {
    host: usize,
    flow: usize,
    /// The place on a path that it was handed on to last.
    at: Option<(Spi, Si)>,
    delivered: bool,
    dropped: Option<&'static str>,
    inside: bool,
    /// A copy of it was steered again.
    replayed: bool,
    /// Later packets of its flow may pass it.
    may_be_passed: bool,
    /// Nobody could tell that it was lost, or who could have is gone.
    unnoticed: bool,
}

/// Where a service stands on a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) spi: Spi,
    pub(crate) si: Si,
    /// Another path has not the same services before it.
    pub(crate) parts_before: bool,
    /// Or behind it.
    pub(crate) parts_behind: bool,
}

impl Fate {
    /// Nobody can say yet what becomes of it.
    fn is_open(&self) -> bool {
        !self.delivered && self.dropped.is_none()
    }
}

/// The fate of every packet that was sent.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    fates: Vec<Fate>,
    /// Of each flow the newest packet that came by its chain.
    newest: [[Option<PacketId>; FLOWS]; HOSTS],
    /// Of each host's packets, those before this one may be passed.
    passable: [PacketId; HOSTS],
}

impl Ledger {
    pub(crate) fn sent(&mut self, host: usize, flow: usize) -> PacketId {
        self.fates.push(Fate {
            host,
            flow,
            at: None,
            delivered: false,
            dropped: None,
            inside: false,
            replayed: false,
            may_be_passed: false,
            unnoticed: false,
        });
        self.fates.len() - 1
    }

    /// The number of the next packet.
    pub(crate) fn next(&self) -> PacketId {
        self.fates.len()
    }

    /// The flow of a packet.
    pub(crate) fn flow(&self, packet: PacketId) -> usize {
        self.fates[packet].flow
    }

    /// The same in words.
    pub(crate) fn name(&self, packet: PacketId) -> String {
        let Fate { host, flow, .. } = self.fates[packet];
        format!("host {} flow {flow}", host + 1)
    }

    /// It is on its way to the service at this place.
    pub(crate) fn handed(&mut self, packet: PacketId, spi: Spi, si: Si) {
        self.fates[packet].at = Some((spi, si));
    }

    // ---- what becomes of it

    /// It arrived, its chain behind it.
    pub(crate) fn delivered(&mut self, packet: PacketId, tally: &mut Tally) -> Result<(), Broken> {
        self.let_through(packet, tally)?;
        let Fate { host, flow, may_be_passed, .. } = self.fates[packet];
        let newest = &mut self.newest[host][flow];
        match *newest {
            Some(later) if later > packet && !may_be_passed && packet >= self.passable[host] => {
                Err(format!("packet {packet} was overtaken by packet {later} of its flow"))
            }
            Some(later) if later > packet => {
                tally.overtaken += 1;
                Ok(())
            }
            _ => {
                *newest = Some(packet);
                Ok(())
            }
        }
    }

    /// It arrived without its chain: it waited for no service, so it may have passed others.
    pub(crate) fn let_through(&mut self, packet: PacketId, tally: &mut Tally) -> Result<(), Broken> {
        let fate = &mut self.fates[packet];
        if fate.delivered {
            return Err(format!("packet {packet} was delivered twice"));
        }
        fate.delivered = true;
        match fate.dropped {
            Some(_) if fate.replayed => tally.twice += 1,
            Some(reason) => {
                return Err(format!("packet {packet} was dropped ({reason}) and delivered all the same"));
            }
            None => {}
        }
        Ok(())
    }

    pub(crate) fn dropped(
        &mut self,
        packet: PacketId,
        reason: &'static str,
        tally: &mut Tally,
    ) -> Result<(), Broken> {
        let fate = &mut self.fates[packet];
        match fate.dropped {
            // The service VM that the copy was made for may still have it.
            _ if fate.delivered && fate.replayed && reason == BY_THE_SERVICE => tally.twice += 1,
            _ if fate.delivered => {
                return Err(format!("packet {packet} was delivered and a copy of it dropped ({reason})"));
            }
            Some(_) if fate.replayed => tally.twice += 1,
            Some(before) => return Err(format!("packet {packet} was dropped twice: {before}, {reason}")),
            None => fate.dropped = Some(reason),
        }
        Ok(())
    }

    /// Its service let it go no further.
    pub(crate) fn dropped_by_the_service(
        &mut self,
        packet: PacketId,
        tally: &mut Tally,
    ) -> Result<(), Broken> {
        self.dropped(packet, BY_THE_SERVICE, tally)
    }

    /// A service VM has it, or had, and it is seen no more; a copy that was steered anew has its own fate.
    pub(crate) fn inside(&mut self, packet: PacketId) {
        self.fates[packet].inside = true;
    }

    /// A copy of it is steered again. If its service had let it go no further without a word, that may be long ago.
    pub(crate) fn replayed(&mut self, packet: PacketId) {
        let fate = &mut self.fates[packet];
        fate.replayed = true;
        fate.may_be_passed |= fate.dropped.is_some();
    }

    // ---- what it is not held to

    /// Later packets of its flow may go another way, and pass it.
    pub(crate) fn may_be_passed(&mut self, packet: PacketId) {
        self.fates[packet].may_be_passed = true;
    }

    /// The same of all that is under way on a host before or behind one of these places, where other paths part there.
    pub(crate) fn ways_part_at(&mut self, host: usize, places: &[Place]) {
        for fate in self.fates.iter_mut().filter(|fate| fate.host == host && fate.is_open()) {
            let Some((on, at)) = fate.at else { continue };
            fate.may_be_passed |= places.iter().any(|place| {
                place.spi == on
                    && match at.get().cmp(&place.si.get()) {
                        Ordering::Greater => place.parts_before,
                        Ordering::Less => place.parts_behind,
                        // What it leaves is steered again before all else.
                        Ordering::Equal => false,
                    }
            });
        }
    }

    /// What a host steers from now on may take other ways than what is under way, though all its services are well.
    pub(crate) fn ways_part(&mut self, host: usize) {
        self.passable[host] = self.fates.len();
    }

    /// Its service VM lost it and went on, and answered for later ones.
    pub(crate) fn went_unnoticed(&mut self, packet: PacketId) {
        self.fates[packet].unnoticed = true;
    }

    /// Whoever had copies of a host's packets is gone.
    pub(crate) fn forgotten(&mut self, host: usize) {
        let open = self.fates.iter_mut().filter(|fate| fate.host == host && fate.is_open());
        open.for_each(|fate| fate.unnoticed = true);
    }

    /// Every packet has a fate; if copies are `kept` of all that service VMs are handed, it is none inside them that somebody
    /// could have noticed.
    pub(crate) fn close(&self, kept: bool, tally: &mut Tally) -> Result<(), Broken> {
        for (packet, fate) in self.fates.iter().enumerate() {
            tally.packets += 1;
            match fate {
                Fate { delivered: true, .. } => tally.delivered += 1,
                Fate { dropped: Some(reason), .. } => *tally.dropped.entry(reason).or_default() += 1,
                Fate { inside: true, unnoticed, .. } => {
                    if kept && !unnoticed {
                        return Err(format!(
                            "packet {packet} was lost inside a service VM though copies are kept"
                        ));
                    }
                    tally.inside += 1;
                }
                Fate { .. } => return Err(format!("packet {packet} vanished")),
            }
        }
        Ok(())
    }
}
