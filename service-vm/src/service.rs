//! The services `livepath-responder` performs.

use crate::{Firewall, Inner, Outcome};

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Returns every packet.
    Forward,
    /// Drops every packet.
    Drop,
    /// Returns what its rules let through.
    Firewall(Firewall),
    /// Receives copies of packets: keeps every packet, returns none.
    Copy,
}

impl Service {
    /// What becomes of the packet.
    pub fn outcome(&self, inner: &Inner<'_>) -> Outcome {
        match self {
            Service::Forward => Outcome::Forward,
            Service::Drop => Outcome::Drop,
            Service::Firewall(firewall) => firewall.outcome(inner),
            Service::Copy => Outcome::Copy,
        }
    }
}

#[cfg(test)]
mod tests {
    use nsh::{Header, NextProtocol, Si, Spi, Ttl};

    use super::*;
    use crate::flow::tests::{ipv4, ipv6};
    use crate::{Answer, Responder};

    fn answer(service: &Service, inner: &[u8]) -> Answer {
        let header = Header {
            oam: false,
            ttl: Ttl::ORIGIN,
            next_protocol: NextProtocol::ETHERNET,
            spi: Spi::MAX,
            si: Si::new(1),
            context: [0; 16],
        };
        let mut frame = [&nsh::encap([2; 6], [4; 6], &header)[..], inner].concat();
        Responder::default().answer(&mut frame, |inner| service.outcome(inner))
    }

    #[test]
    fn forward_drop_and_copy_treat_all_alike() {
        let inner = ipv4(&[], 17, 0, [10, 0, 0, 6], 53);
        assert!(matches!(answer(&Service::Forward, &inner), Answer::Forwarded { .. }));
        assert_eq!(answer(&Service::Drop, &inner), Answer::Silent { dropped: true });
        assert_eq!(answer(&Service::Copy, &inner), Answer::Silent { dropped: false });
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = [
            "allow udp dst 10.0.0.6 dport 53",
            "drop udp dport 53",
            "drop icmp",
            "drop tcp dst 10.0.0.0/24 dport 80-443",
        ];
        let firewall = Service::Firewall(Firewall::new(rules.map(|rule| rule.parse().unwrap()).to_vec()));
        let dropped = |inner: &[u8]| answer(&firewall, inner) == Answer::Silent { dropped: true };
        assert!(!dropped(&ipv4(&[], 17, 0, [10, 0, 0, 6], 53)));
        assert!(dropped(&ipv4(&[], 17, 0, [10, 0, 0, 7], 53)));
        assert!(dropped(&ipv4(&[42], 17, 0, [10, 0, 0, 7], 53)), "tagged");
        assert!(dropped(&ipv6(17, &[], 53)));
        assert!(!dropped(&ipv6(17, &[], 54)));
        assert!(dropped(&ipv4(&[], 1, 0, [10, 0, 0, 6], 0)));
        assert!(dropped(&ipv4(&[], 6, 0, [10, 0, 0, 6], 80)));
        assert!(!dropped(&ipv4(&[], 6, 0, [10, 0, 1, 6], 80)));
        assert!(!dropped(b"not IP at all, and not dropped"));
    }
}
