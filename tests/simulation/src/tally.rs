//! What a run came to.

use std::collections::BTreeMap;

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that tenants sent.
    pub packets: u64,
    /// Packets that arrived.
    pub delivered: u64,
    /// Packets that were dropped, by the name of the reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Packets lost inside a service VM.
    pub inside: u64,
    /// Packets about which the worker knew the verdict.
    pub known: u64,
    /// Frames steered anew, from a ring or at a hop that was down.
    pub resteered: u64,
    /// Copies of frames that a service VM had taken, steered again.
    pub replayed: u64,
    /// Of the packets of such copies, those that the service VM had let go no further.
    pub twice: u64,
    /// Frames that waited for room in a ring.
    pub held: u64,
    /// Packets that their worker delivered later than it should.
    pub late: u64,
    /// Packets that arrived after later ones of their flow, and may.
    pub overtaken: u64,
    /// Frames of an earlier life that were fenced.
    pub fenced: u64,
    /// Times a service VM went down, by cause.
    pub downs: BTreeMap<&'static str, u64>,
    /// Tables put in force.
    pub tables: u64,
    /// Tables that were not newer.
    pub tables_refused: u64,
    /// Reports that the controller knew already.
    pub reports_known: u64,
    /// Messages that the network lost.
    pub messages_lost: u64,
    /// Hosts that were declared lost.
    pub hosts_lost: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        self.packets += other.packets;
        self.delivered += other.delivered;
        self.inside += other.inside;
        self.known += other.known;
        self.resteered += other.resteered;
        self.replayed += other.replayed;
        self.twice += other.twice;
        self.held += other.held;
        self.late += other.late;
        self.overtaken += other.overtaken;
        self.fenced += other.fenced;
        self.tables += other.tables;
        self.tables_refused += other.tables_refused;
        self.reports_known += other.reports_known;
        self.messages_lost += other.messages_lost;
        self.hosts_lost += other.hosts_lost;
        for (sums, of) in [(&mut self.dropped, &other.dropped), (&mut self.downs, &other.downs)] {
            for (name, count) in of {
                *sums.entry(name).or_default() += count;
            }
        }
    }
}
