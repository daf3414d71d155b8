//! What is to happen to a frame.

use nsh::{Si, Spi, Ttl};

use super::PortId;

/// What is to happen to a frame. The worker carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Drop it and count the reason at the port it came from.
    Drop(DropReason),
    /// Hand the plain frame to this port.
    Deliver(PortId),
    /// Hand the plain frame to each of [`Snapshot::flood_ports`](super::Snapshot::flood_ports) except this one.
    Flood {
        /// The port the frame came from, as far as that is known.
        except: Option<PortId>,
    },
    /// Push Ethernet and NSH with this SPI and SI and [`Ttl::ORIGIN`], and hand it to the proxy of this service port.
    Push {
        /// The port of the first service.
        to: PortId,
        /// The path.
        spi: Spi,
        /// The service index of that hop.
        si: Si,
    },
    /// Rewrite SI and TTL, and hand the encapsulated frame to the proxy of this service port.
    Forward {
        /// The port of the next service.
        to: PortId,
        /// The service index of that hop.
        si: Si,
        /// The time to live behind this forwarder.
        ttl: Ttl,
    },
    /// The path ends here: take Ethernet and NSH off and ask [`deliver`](super::deliver) about the inner frame.
    Strip,
    /// The next service is not usable: give the inner frame back to the classifier in the NSH origin field, which
    /// steers it again (¶65). Where that cannot be done the frame is dropped for [`DropReason::ServiceDown`].
    Reflect {
        /// The service that is not usable.
        failed: PortId,
        /// The service index of its hop: what lies above it on the path has been passed.
        si: Si,
    },
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)+) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)+
        }

        impl DropReason {
            /// All of them, in the order of their indices.
            pub const ALL: &[DropReason] = &[$(DropReason::$name,)+];
            /// How many there are.
            pub const COUNT: usize = DropReason::ALL.len();

            /// The name in metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(DropReason::$name => $text,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The port is not in the tables, or plays another role than the question assumes.
    UnknownPort => "unknown_port",
    /// Shorter than an Ethernet header, or an IP packet no receiver would take.
    Malformed => "malformed",
    /// A tenant, tap or uplink sent NSH itself.
    ForgedNsh => "forged_nsh",
    /// The source MAC is configured on another port.
    ForgedSource => "forged_source",
    /// The source MAC is zero or a group address.
    InvalidSource => "invalid_source",
    /// The destination is an address that bridges never forward.
    LinkConstrained => "link_constrained",
    /// Addressed to a service VM's own MAC from outside its chains.
    ToService => "to_service",
    /// Addressed to the port it came from.
    Hairpin => "hairpin",
    /// No path of the chain is up and its policy is `block`.
    Blocked => "blocked",
    /// (SPI, SI) has no entry in the path table.
    NoPath => "no_path",
    /// (SPI, SI) has an entry, but not one this service port may send.
    ForeignPath => "foreign_path",
    /// The NSH time to live ran out (RFC 8300 section 2.2).
    TtlExpired => "ttl_expired",
    /// The next service is not usable and the frame cannot be reflected.
    ServiceDown => "service_down",
}

impl DropReason {
    /// Index into arrays with an entry per reason.
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_dense_and_names_differ() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), i);
            assert_eq!(DropReason::ALL.iter().filter(|r| r.as_str() == reason.as_str()).count(), 1);
        }
    }
}
