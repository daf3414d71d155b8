//! The classifier of a tenant port: match the flow, pick a path, push the NSH.

use nsh::{Context, Header, NextProtocol, Origin, Ttl};

use super::{Outgoing, To};
use crate::chain::{self, Arrival, PortId, Snapshot, Steering, Stripped, Verdict};
use crate::frame::Frame;
use crate::liveness::Timestamp;
use crate::ring::Chain;
use crate::telemetry::Discard;

/// What the frames of a batch are decided by.
pub(crate) struct Basis<'a> {
    /// This host's number, for the origin field.
    pub(crate) host: u16,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) steering: &'a mut Steering,
    pub(crate) now: Timestamp,
}

/// Gives where a frame of the tenant at `from` goes, and the frame the header for that.
///
/// # Errors
/// Why it goes nowhere.
pub(crate) fn classify(
    basis: &mut Basis<'_>,
    from: PortId,
    chain: &Chain<'_>,
    out: &mut Outgoing,
) -> Result<To, Discard> {
    out.load(chain, 0);
    steer(basis, from, out)
}

/// Steers a plain frame: one that a tenant sent, or one that comes back to its classifier (¶65).
pub(super) fn steer(basis: &mut Basis<'_>, from: PortId, out: &mut Outgoing) -> Result<To, Discard> {
    let frame = Frame::parse(out.head(), out.len()).map_err(|_| Discard::Malformed)?;
    let arrival = Arrival { from, frame: &frame, now: basis.now };
    match chain::classify(basis.snapshot, basis.steering, &arrival) {
        Verdict::Push { to, spi, si } => {
            let context =
                Context { origin: Origin { host: basis.host, port: from.get() }, ..Context::default() };
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
        plain => delivered(plain),
    }
}

/// Delivers the plain frame of a path that ended.
pub(super) fn deliver(basis: &Basis<'_>, out: &Outgoing) -> Result<To, Discard> {
    let frame = Frame::parse(out.head(), out.len()).map_err(|_| Discard::Malformed)?;
    delivered(chain::deliver(basis.snapshot, basis.steering, &Stripped { frame: &frame, now: basis.now }))
}

/// Where a plain frame goes.
fn delivered(verdict: Verdict) -> Result<To, Discard> {
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
