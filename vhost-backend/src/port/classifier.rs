//! The classifier of a tenant port: match the flow, pick a path, push the NSH.

use nsh::{Context, Header, NextProtocol, Origin, Ttl};

use super::{Outgoing, To};
use crate::chain::{self, Arrival, PortId, Slot, Snapshot, Steering, Stripped, Verdict};
use crate::frame::{FlowHash, Frame, Imprint};
use crate::liveness::Timestamp;
use crate::telemetry::Discard;

/// What the frames of a batch are decided by.
pub(crate) struct Basis<'a, 'l> {
    /// This host's number, for the origin field.
    pub(crate) host: u16,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) steering: &'a mut Steering<'l>,
    pub(crate) now: Timestamp,
}

/// A plain frame that has been read but not decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    frame: Frame,
    /// Of its flow, if it has one.
    hash: Option<FlowHash>,
    /// Where the flow's record may be.
    likely: Option<Slot>,
    /// By which a lasting verdict about it can be kept.
    pub(crate) imprint: Option<Imprint>,
}

impl Seen {
    /// The frame that `out` holds. `imprint`: its, if it was asked for.
    ///
    /// # Errors
    /// It is malformed.
    #[inline(always)]
    pub(crate) fn parse(
        steering: &Steering<'_>,
        out: &Outgoing,
        imprint: Option<Imprint>,
        seen: &mut Option<Self>,
    ) -> Result<(), Discard> {
        // Each is made where it is to lie: moved at once, it would be read before its stores are done.
        let Some(frame) = Frame::parse_usual(out.head(), out.len()) else {
            return Self::parse_any(steering, out, seen);
        };
        let hash = frame.flow().map(|key| steering.hash(key));
        *seen = Some(Self { frame, hash, likely: None, imprint });
        Ok(())
    }

    /// The same for a frame that no imprint is of.
    #[inline(never)]
    fn parse_any(steering: &Steering<'_>, out: &Outgoing, seen: &mut Option<Self>) -> Result<(), Discard> {
        let frame = Frame::parse_any(out.head(), out.len()).map_err(|_| Discard::Malformed)?;
        let hash = frame.flow().map(|key| steering.hash(key));
        *seen = Some(Self { frame, hash, likely: None, imprint: None });
        Ok(())
    }

    /// Asks the cache for the flow's record.
    #[inline]
    pub(crate) fn expect_record(&mut self, steering: &mut Steering<'_>) {
        self.likely = self.hash.and_then(|hash| steering.expect_record(hash));
    }

    /// Asks the cache for what will be read of the tables about this frame of the tenant at `from`.
    #[inline]
    pub(crate) fn expect_path(&self, basis: &mut Basis<'_, '_>, from: PortId) {
        if let (Some(hash), Some(record)) = (self.hash, self.likely) {
            basis.steering.expect_path(basis.snapshot, hash, from, record);
        }
    }

    /// Its flow's hash, if it has a flow.
    pub(crate) fn hash(&self) -> Option<FlowHash> {
        self.hash
    }
}

/// Steers a plain frame that came back to its classifier (¶65).
pub(super) fn steer(basis: &mut Basis<'_, '_>, from: PortId, out: &mut Outgoing) -> Result<To, Discard> {
    let mut seen = None;
    Seen::parse(basis.steering, out, None, &mut seen)?;
    match seen {
        Some(seen) => classify(basis, from, &seen, out),
        None => Err(Discard::Malformed),
    }
}

/// Gives where a frame of the tenant at `from` goes, and the frame the header for that.
///
/// # Errors
/// Why it goes nowhere.
#[inline]
pub(crate) fn classify(
    basis: &mut Basis<'_, '_>,
    from: PortId,
    seen: &Seen,
    out: &mut Outgoing,
) -> Result<To, Discard> {
    let Seen { frame, hash, likely, .. } = seen;
    let arrival = Arrival { from, frame, hash: hash.unwrap_or_default(), likely: *likely, now: basis.now };
    let decision = chain::classify(basis.snapshot, basis.steering, &arrival);
    let to = carry_out(basis.host, from, decision.verdict, out);
    out.lasting = decision.lasting.then_some(decision.verdict);
    to
}

/// Does to a plain frame of the tenant at `from` what was decided.
///
/// # Errors
/// It goes nowhere.
#[inline]
pub(crate) fn carry_out(
    host: u16,
    from: PortId,
    verdict: Verdict,
    out: &mut Outgoing,
) -> Result<To, Discard> {
    out.origin = Some(from);
    let Verdict::Push { to, spi, si } = verdict else { return delivered(verdict) };
    let context = Context { origin: Origin { host, port: from.get() }, ..Context::default() };
    let header = Header {
        oam: false,
        ttl: Ttl::ORIGIN,
        next_protocol: NextProtocol::ETHERNET,
        spi,
        si,
        context: context.to_bytes(),
    };
    // The proxy of the service VM writes the addresses and the rest of the context.
    out.push(&nsh::encap([0; 6], [0; 6], &header));
    Ok(To::Service(to))
}

/// Delivers the plain frame of a path that ended.
pub(super) fn deliver(basis: &Basis<'_, '_>, out: &mut Outgoing) -> Result<To, Discard> {
    let frame = Frame::parse(out.head(), out.len()).map_err(|_| Discard::Malformed)?;
    let stripped = Stripped { frame: &frame, now: basis.now };
    let decision = chain::deliver(basis.snapshot, basis.steering, &stripped);
    out.lasting = decision.lasting.then_some(decision.verdict);
    delivered(decision.verdict)
}

/// Where a plain frame goes.
pub(super) fn delivered(verdict: Verdict) -> Result<To, Discard> {
    match verdict {
        Verdict::Deliver(port) => Ok(To::Port(port)),
        Verdict::Flood { except } => Ok(To::Flood { except }),
        Verdict::Drop(reason) => Err(Discard::Chain(reason)),
        // The chain says these about frames with an NSH only.
        Verdict::Push { .. } | Verdict::Forward { .. } | Verdict::Strip | Verdict::Reflect { .. } => {
            Err(Discard::Malformed)
        }
    }
}
