//! By which of its receiver's queues a frame goes.

use crate::chain::Learned;
use crate::port::Outgoing;

/// By which of so many queues of its receiver a frame goes: by the one that its flow's hash says, so that a flow's frames stay
/// in order; what is no flow goes by the first.
pub(super) fn spread(learned: &Learned, out: &Outgoing, queues: usize) -> usize {
    let flow = out.inner().and_then(|frame| frame.flow().map(|key| learned.hash(key))).unwrap_or_default();
    // Lower bits choose the shard of the flow table.
    ((flow.get() >> 32) as usize).checked_rem(queues).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use nsh::{Context, Header, NextProtocol, Si, Spi, Ttl, encap};
    use proptest::prelude::*;

    use super::*;
    use crate::frame::Mac;
    use crate::frame::samples::{Ipv4, ethernet, ipv6, tcp, udp};
    use crate::port::samples::Sent;

    const SEED: u64 = 42;

    fn learned(seed: u64) -> Learned {
        Learned::new(16, 8, 2, seed)
    }

    /// A flow as its sender sees it.
    #[derive(Clone, Copy, Debug)]
    struct Flow {
        ends: [(IpAddr, u16); 2],
        is_tcp: bool,
        vlan: Option<u16>,
    }

    impl Flow {
        fn reply(self) -> Flow {
            let [from, to] = self.ends;
            Flow { ends: [to, from], ..self }
        }

        /// One of its frames; they differ in their payload and their number.
        fn frame(self, number: u16) -> Vec<u8> {
            let [(src, src_port), (dst, dst_port)] = self.ends;
            let (protocol, mut segment) = if self.is_tcp {
                (6, tcp(src_port, dst_port))
            } else {
                (17, udp(src_port, dst_port, number % 200))
            };
            segment.extend(number.to_be_bytes());
            let (ethertype, packet) = match (src, dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    let ip = Ipv4 { id: number, ..Ipv4::between(src.octets(), dst.octets(), protocol) };
                    (Ipv4::ETHERTYPE, ip.bytes(&segment))
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    (0x86DD, ipv6(src, dst, protocol, number as u8, &segment))
                }
                _ => unreachable!("both ends are of one family"),
            };
            let tags: Vec<_> = self.vlan.iter().map(|id| (0x8100, *id)).collect();
            ethernet(Mac([2, 0, 0, 0, 0, 6]), Mac([2, 0, 0, 0, 0, 5]), &tags, ethertype, &packet)
        }
    }

    fn flow_v4(client: u16) -> Flow {
        let ends = [(IpAddr::from([10, 0, 0, 5]), client), (IpAddr::from([10, 0, 0, 6]), 80)];
        Flow { ends, is_tcp: true, vlan: None }
    }

    fn any_flow() -> impl Strategy<Value = Flow> {
        let ends = prop_oneof![
            any::<[[u8; 4]; 2]>().prop_map(|ends| ends.map(IpAddr::from)),
            any::<[u128; 2]>().prop_map(|ends| ends.map(|end| Ipv6Addr::from_bits(end).into())),
        ];
        let parts = (ends, any::<[u16; 2]>(), any::<bool>(), prop::option::of(0..4095_u16));
        parts.prop_map(|([src, dst], ports, is_tcp, vlan)| Flow {
            ends: [(src, ports[0]), (dst, ports[1])],
            is_tcp,
            vlan,
        })
    }

    fn loaded(frame: &[u8]) -> Outgoing {
        let mut out = Outgoing::new();
        out.load(&Sent::new(frame).chain(), 0);
        out
    }

    /// As it goes to a service VM.
    fn pushed(frame: &[u8], spi: u32, si: u8) -> Outgoing {
        let (spi, si) = (Spi::new(spi).unwrap(), Si::new(si));
        let next_protocol = NextProtocol::ETHERNET;
        let context = Context::default().to_bytes();
        let header = Header { oam: false, ttl: Ttl::ORIGIN, next_protocol, spi, si, context };
        let mut out = loaded(frame);
        out.push(&encap([2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2], &header));
        out
    }

    proptest! {
        /// Whatever else differs from frame to frame, whatever path they are on, and for those that answer them too: at a port
        /// with as many queues they have the same place.
        #[test]
        fn a_flow_has_one_queue(
            flow in any_flow(),
            queues in 1..=64_usize,
            numbers in any::<[u16; 4]>(),
            (spi, si) in (1..1_u32 << 24, 1..=255_u8),
        ) {
            let learned = learned(SEED);
            let queue = spread(&learned, &loaded(&flow.frame(0)), queues);
            prop_assert!(queue < queues);
            for number in numbers {
                let (frame, reply) = (flow.frame(number), flow.reply().frame(number));
                prop_assert_eq!(spread(&learned, &loaded(&frame), queues), queue);
                prop_assert_eq!(spread(&learned, &pushed(&frame, spi, si), queues), queue);
                prop_assert_eq!(spread(&learned, &loaded(&reply), queues), queue);
            }
        }

        /// Nor is there a way out of the queues for what is no frame at all.
        #[test]
        fn any_bytes_have_a_queue(bytes in prop::collection::vec(any::<u8>(), 1..200), queues in 1..=64_usize) {
            prop_assert!(spread(&learned(SEED), &loaded(&bytes), queues) < queues);
        }
    }

    #[test]
    fn many_flows_are_spread_over_all_queues() {
        let learned = learned(SEED);
        let flows: Vec<Outgoing> = (0..4096).map(|client| loaded(&flow_v4(client).frame(0))).collect();
        for queues in [1, 2, 3, 4, 7, 16, 64] {
            let mut counts = vec![0; queues];
            flows.iter().for_each(|out| counts[spread(&learned, out, queues)] += 1);
            let share = flows.len() / queues;
            assert!(counts.iter().all(|count| (share / 2..=2 * share).contains(count)), "{counts:?}");
        }
    }

    /// A guest that knows which flows share a queue at one host knows nothing about another.
    #[test]
    fn which_flows_share_a_queue_is_different_at_every_host() {
        let [one, other] = [SEED, SEED + 1].map(learned);
        let flows = (0..256).map(|client| loaded(&flow_v4(client).frame(0)));
        let moved = flows.filter(|out| spread(&one, out, 4) != spread(&other, out, 4)).count();
        assert!((128..=224).contains(&moved), "{moved} of 256, of which three quarters were expected");
    }

    #[test]
    fn what_is_no_flow_goes_by_the_first_queue() {
        let learned = learned(SEED);
        let arp = ethernet(Mac([0xff; 6]), Mac([2, 0, 0, 0, 0, 5]), &[], 0x0806, &[0; 28]);
        for frame in [&arp[..], &arp[..13]] {
            assert_eq!(spread(&learned, &loaded(frame), 4), 0);
        }
        assert_eq!(spread(&learned, &pushed(&arp, 1, 3), 4), 0);
        // Of a port whose last queue has just stopped.
        assert_eq!(spread(&learned, &loaded(&flow_v4(1).frame(0)), 0), 0);
    }
}
