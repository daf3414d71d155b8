//! The decisions: what happens to a frame, given the snapshot and what the worker has learned.

use nsh::{Si, Spi, Ttl};

use super::flow::{First, Tuple};
use super::path::{Hop, Path};
use super::spec::{OnFailure, Role};
use super::steer::{Way, steer};
use super::{ChainIx, DropReason, PathIx, PortId, Slot, Snapshot, Steering, Verdict};
use crate::frame::{Content, ETHERNET_LEN, FlowHash, Frame, Mac, is_tag};
use crate::liveness::Timestamp;

/// A frame that arrived at a tenant, tap or uplink port.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The port.
    pub from: PortId,
    /// The frame.
    pub frame: &'a Frame,
    /// Of its flow; of no meaning when it has none.
    pub hash: FlowHash,
    /// Where the flow's record may be; see [`Steering::expect_record`].
    pub likely: Option<Slot>,
    /// When.
    pub now: Timestamp,
}

impl<'a> Arrival<'a> {
    /// The arrival of a frame whose flow has not been hashed yet.
    pub fn new(from: PortId, frame: &'a Frame, steering: &Steering<'_>, now: Timestamp) -> Arrival<'a> {
        let hash = frame.flow().map(|key| steering.hash(key)).unwrap_or_default();
        Arrival { from, frame, hash, likely: None, now }
    }
}

/// A frame of NSH that a service VM sent back.
#[derive(Clone, Copy, Debug)]
pub struct Return {
    /// The service port.
    pub from: PortId,
    /// The SPI it carries.
    pub spi: Spi,
    /// The SI it carries.
    pub si: Si,
    /// The TTL it carries.
    pub ttl: Ttl,
}

/// The inner frame at the end of its path.
#[derive(Clone, Copy, Debug)]
pub struct Stripped<'a> {
    /// The inner frame.
    pub frame: &'a Frame,
    /// When.
    pub now: Timestamp,
}

/// What was decided about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to happen to it.
    pub verdict: Verdict,
    /// It follows from the snapshot, the flow's record and the frame's [`Imprint`](crate::frame::Imprint) alone, so
    /// frames alike can be spared the look-up.
    pub lasting: bool,
}

impl Decision {
    const fn once(verdict: Verdict) -> Decision {
        Decision { verdict, lasting: false }
    }
}

/// Decides about a frame of a tenant, tap or uplink: the classifier.
///
/// Verdicts: `Push`, `Deliver`, `Flood`, `Drop`.
#[inline]
pub fn classify(snapshot: &Snapshot, steering: &mut Steering<'_>, arrival: &Arrival<'_>) -> Decision {
    let Arrival { from, frame, hash, likely, now } = *arrival;
    let Ends { to, plain, configured } = match ends(snapshot, steering, arrival) {
        Ok(ends) => ends,
        Err(reason) => return Decision::once(Verdict::Drop(reason)),
    };
    // What cannot be delivered need not be inspected, and shall not burden a service.
    let (Content::Flow { key, datagram }, Verdict::Deliver(_) | Verdict::Flood { .. }) =
        (frame.content, plain)
    else {
        return Decision::once(plain);
    };
    match steer(snapshot, steering, &Tuple { key, from, to }, (hash, likely), datagram, now) {
        Way::Plain { lasting } => Decision { verdict: plain, lasting: lasting && configured },
        Way::First(First { to, spi, si }) => {
            Decision { verdict: Verdict::Push { to, spi, si }, lasting: configured }
        }
        Way::Path { path, lasting, record } => {
            let first = first_hop(snapshot, path);
            let Some(Verdict::Push { to, spi, si }) = first.filter(|_| lasting) else {
                return Decision::once(first.unwrap_or(plain));
            };
            if let (Some(record), Some(flows)) = (record, steering.flows(hash)) {
                flows.keep_first(record, snapshot.version(), First { to, spi, si });
            }
            Decision { verdict: Verdict::Push { to, spi, si }, lasting: configured }
        }
        Way::Around(chain, path) => {
            count(snapshot, chain, OnFailure::Bypass);
            Decision::once(first_hop(snapshot, path).unwrap_or(plain))
        }
        Way::Cut(chain) => Decision::once(cut(snapshot, chain, plain)),
    }
}

/// Decides about a frame that a service VM returned: the proxy's forwarding (RFC 8300 section 2.2 and 2.3).
///
/// The frame must carry an (SPI, SI) whose hop is the very port it came from; else it is dropped, so that an SVM cannot
/// put frames on paths it is not part of, nor skip a service. Verdicts: `Forward`, `Strip`, `Reflect`, `Drop`.
#[inline]
pub fn forward(snapshot: &Snapshot, returned: &Return) -> Decision {
    let Return { from, spi, si, ttl } = *returned;
    let Some(port) = snapshot.tables.port(from).filter(|port| port.role == Role::Service) else {
        return Decision::once(Verdict::Drop(DropReason::UnknownPort));
    };
    let Some(path) = snapshot.tables.paths.find(spi).and_then(|ix| snapshot.tables.paths.get(ix)) else {
        return Decision::once(Verdict::Drop(DropReason::NoPath));
    };
    let Some(received) = port.si_decrement.received(si) else {
        return Decision::once(Verdict::Drop(DropReason::NoPath));
    };
    match snapshot.tables.paths.hop(path, received) {
        None => return Decision::once(Verdict::Drop(DropReason::NoPath)),
        Some(Hop::Service(port)) if port == from => {}
        Some(_) => return Decision::once(Verdict::Drop(DropReason::ForeignPath)),
    }
    let Some(ttl) = ttl.forwarded() else { return Decision::once(Verdict::Drop(DropReason::TtlExpired)) };
    let Some(next) = received.decrement() else { return Decision::once(Verdict::Drop(DropReason::NoPath)) };
    match usable_from(snapshot, path, next) {
        Next::Service(to, si) => Decision { verdict: Verdict::Forward { to, si, ttl }, lasting: true },
        Next::Terminal => Decision { verdict: Verdict::Strip, lasting: true },
        Next::Broken(failed) => Decision::once(Verdict::Reflect { failed, si: next }),
    }
}

/// Decides about an inner frame at the end of its path: delivery by destination MAC.
///
/// Nothing is learned from it, since a service VM sent it last. Verdicts: `Deliver`, `Flood`, `Drop`.
#[inline]
pub fn deliver(snapshot: &Snapshot, steering: &Steering<'_>, stripped: &Stripped<'_>) -> Decision {
    let Stripped { frame, now } = *stripped;
    if frame.ethertype == nsh::ETHERTYPE {
        return Decision::once(Verdict::Drop(DropReason::ForgedNsh));
    }
    let [to, from] = [frame.dst, frame.src].map(|mac| station(snapshot, steering, mac, now));
    let port = |station: Option<Station>| station.map(|station| station.port);
    let verdict = plain(snapshot, frame.dst, port(to), port(from));
    let configured = [to, from].iter().all(|station| station.is_some_and(|station| station.configured));
    Decision { verdict, lasting: configured && matches!(verdict, Verdict::Deliver(_)) }
}

/// From where to where a frame runs.
struct Ends {
    /// The port of its destination, if that is one station whose place is known.
    to: Option<PortId>,
    /// What happens to it if it is not chained.
    plain: Verdict,
    /// Both addresses are configured, so that the same holds for all frames between them under this snapshot.
    configured: bool,
}

/// Two stations, as a frame from a port names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Between {
    version: u64,
    from: PortId,
    src: Mac,
    dst: Mac,
}

/// The ends of a frame that arrived; frames of a batch mostly have those of the one before.
#[inline]
fn ends(snapshot: &Snapshot, steering: &mut Steering<'_>, arrival: &Arrival<'_>) -> Result<Ends, DropReason> {
    let Arrival { from, frame, .. } = *arrival;
    let between = Between { version: snapshot.version(), from, src: frame.src, dst: frame.dst };
    match steering.between {
        Some((last, to)) if last == between && frame.ethertype != nsh::ETHERTYPE => {
            Ok(Ends { to: Some(to), plain: Verdict::Deliver(to), configured: true })
        }
        _ => find_ends(snapshot, steering, arrival, between),
    }
}

#[inline(never)]
fn find_ends(
    snapshot: &Snapshot,
    steering: &mut Steering<'_>,
    arrival: &Arrival<'_>,
    between: Between,
) -> Result<Ends, DropReason> {
    let Arrival { from, frame, now, .. } = *arrival;
    if let Some(reason) = refused(snapshot, from, frame) {
        return Err(reason);
    }
    learn(snapshot, steering, arrival);
    let station = station(snapshot, steering, frame.dst, now);
    let to = station.map(|station| station.port);
    let plain = plain(snapshot, frame.dst, to, Some(from));
    let configured = snapshot.mac(from) == Some(frame.src) && station.is_some_and(|to| to.configured);
    if let (true, Verdict::Deliver(to)) = (configured, plain) {
        steering.between = Some((between, to));
    }
    Ok(Ends { to, plain, configured })
}

/// The Ethernet header of a frame that leaves its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inner {
    version: u64,
    header: [u8; ETHERNET_LEN],
}

impl Steering<'_> {
    /// Keeps what was decided about the frame that begins with `head` and left its path, if it lasts.
    pub fn keep_delivered(&mut self, snapshot: &Snapshot, head: &[u8], verdict: Verdict) {
        if let (Some(inner), Verdict::Deliver(to)) = (Inner::of(snapshot, head), verdict) {
            self.inner = Some((inner, to));
        }
    }

    /// What [`deliver`] says about a frame that begins with `head` and leaves its path, if it said so about the last one
    /// that was like it.
    #[inline]
    pub fn delivered(&self, snapshot: &Snapshot, head: &[u8]) -> Option<Verdict> {
        let (last, to) = self.inner?;
        (Inner::of(snapshot, head)? == last).then_some(Verdict::Deliver(to))
    }
}

impl Inner {
    /// `None` if there is more to look at than the header.
    #[inline]
    fn of(snapshot: &Snapshot, head: &[u8]) -> Option<Inner> {
        let header: &[u8; ETHERNET_LEN] = head.first_chunk()?;
        let [.., high, low] = *header;
        let tagged = is_tag(u16::from_be_bytes([high, low]));
        (!tagged).then_some(Inner { version: snapshot.version(), header: *header })
    }
}

fn refused(snapshot: &Snapshot, from: PortId, frame: &Frame) -> Option<DropReason> {
    let reason = match snapshot.role(from) {
        None | Some(Role::Service) => DropReason::UnknownPort,
        Some(_) if frame.ethertype == nsh::ETHERTYPE => DropReason::ForgedNsh,
        Some(_) if !frame.src.is_station() => DropReason::InvalidSource,
        Some(_) => match snapshot.owner(frame.src) {
            Some(owner) if owner != from => DropReason::ForgedSource,
            _ => return None,
        },
    };
    Some(reason)
}

fn learn(snapshot: &Snapshot, steering: &mut Steering<'_>, arrival: &Arrival<'_>) {
    let Arrival { from, frame, now, .. } = *arrival;
    let Some(port) = snapshot.tables.port(from) else { return };
    if port.mac == Some(frame.src) {
        return;
    }
    // Infrastructure is believed when an address moves; a tenant could otherwise take over the gateway's.
    let may_move = matches!(port.role, Role::Tap | Role::Uplink);
    steering.learn(frame.src, from, may_move, now);
}

/// Where one address is.
#[derive(Clone, Copy)]
struct Station {
    port: PortId,
    /// Rather than learned.
    configured: bool,
}

/// The place of one station: configured addresses win over learned ones.
fn station(snapshot: &Snapshot, steering: &Steering<'_>, mac: Mac, now: Timestamp) -> Option<Station> {
    if mac.is_group() {
        return None;
    }
    let configured = snapshot.owner(mac).map(|port| Station { port, configured: true });
    configured.or_else(|| Some(Station { port: steering.heard(mac, now)?, configured: false }))
}

/// Delivery by destination MAC.
fn plain(snapshot: &Snapshot, dst: Mac, to: Option<PortId>, from: Option<PortId>) -> Verdict {
    match to {
        Some(to) if Some(to) == from => Verdict::Drop(DropReason::Hairpin),
        Some(to) => match snapshot.role(to) {
            Some(Role::Service) => Verdict::Drop(DropReason::ToService),
            Some(_) => Verdict::Deliver(to),
            // Learned at a port that has left the tables since.
            None => Verdict::Flood { except: from },
        },
        None if dst.is_link_constrained() => Verdict::Drop(DropReason::LinkConstrained),
        None => Verdict::Flood { except: from },
    }
}

/// The failure policy of a chain that has no path up, and none that leads past what is out.
fn cut(snapshot: &Snapshot, chain: ChainIx, plain: Verdict) -> Verdict {
    let on_failure = snapshot.tables.chain(chain).map(|chain| chain.on_failure).unwrap_or_default();
    count(snapshot, chain, on_failure);
    match on_failure {
        OnFailure::Block => Verdict::Drop(DropReason::Blocked),
        OnFailure::Allow | OnFailure::Bypass => plain,
    }
}

/// Counts a packet of a chain that has no path up.
fn count(snapshot: &Snapshot, chain: ChainIx, policy: OnFailure) {
    if let Some(chain) = snapshot.tables.chain(chain) {
        chain.counters.count(policy);
    }
}

/// Pushes for the first usable hop of a path; `None` if it has none.
fn first_hop(snapshot: &Snapshot, path: PathIx) -> Option<Verdict> {
    let path = snapshot.tables.paths.get(path)?;
    match usable_from(snapshot, path, path.first_si()) {
        Next::Service(to, si) => Some(Verdict::Push { to, spi: path.spi, si }),
        Next::Terminal => None,
        Next::Broken(_) => Some(Verdict::Drop(DropReason::ServiceDown)),
    }
}

/// Where a frame goes from a service index on.
pub(super) enum Next {
    Service(PortId, Si),
    Terminal,
    /// To a service that is not usable and may not be skipped.
    Broken(PortId),
}

/// The first usable hop from `si` on. Services are skipped only by a chain that says `bypass`, only while none of its paths is
/// up, and only on those that lack the fewest: a frame on another has a better one.
#[inline]
pub(super) fn usable_from(snapshot: &Snapshot, path: &Path, mut si: Si) -> Next {
    loop {
        let Some(Hop::Service(to)) = snapshot.tables.paths.hop(path, si) else { return Next::Terminal };
        if snapshot.health.is_usable(to) {
            return Next::Service(to, si);
        }
        if !skips(snapshot, path) {
            return Next::Broken(to);
        }
        // At most 255 rounds: SI 0 is the terminal entry.
        si = match si.decrement() {
            Some(next) => next,
            None => return Next::Terminal,
        };
    }
}

fn skips(snapshot: &Snapshot, path: &Path) -> bool {
    snapshot.tables.paths.find(path.spi).is_some_and(|ix| snapshot.health.goes_around(path.chain, ix))
}
