//! The read side against `virtio-queue`, on the same bytes in two memories.

use proptest::prelude::*;
use virtio_queue::QueueT;

use super::chains::{SIZE, Seen, Tables, pop, queue, tables};
use super::driver::{Driver, memory};
use crate::ring::{Chain, VNET_LEN};

/// What the driver does before the device looks: new tables, heads made available, and where it wants to be woken.
#[derive(Debug, Clone)]
struct Round {
    tables: Tables,
    heads: Vec<u16>,
    used_event_ahead: u16,
    max: usize,
}

fn round() -> impl Strategy<Value = Round> {
    let heads = prop::collection::vec(0..SIZE, 1..=usize::from(SIZE));
    // Behind, at, and ahead of what this round uses.
    let used_event_ahead = prop_oneof![0..20_u16, (0..20_u16).prop_map(u16::wrapping_neg), any::<u16>()];
    (tables(false), heads, used_event_ahead, 1..40_usize)
        .prop_map(|(tables, heads, used_event_ahead, max)| Round { tables, heads, used_event_ahead, max })
}

/// Ring positions, most of them shortly before indices wrap.
fn start() -> impl Strategy<Value = u16> {
    prop_oneof![3 => 65_480..=u16::MAX, 1 => any::<u16>(), 1 => Just(0)]
}

fn check_chain(chain: Chain<'_>, seen: &Seen, oracle: &Driver) {
    let Some(buffers) = &seen.buffers else {
        assert!(chain.malformed().is_some(), "accepted what the oracle does not: {seen:?}");
        assert_eq!((chain.len(), chain.vnet_header()), (0, [0; VNET_LEN]));
        return;
    };
    assert_eq!(chain.malformed(), None, "refused {seen:?}");
    let pieces: Vec<_> = buffers.iter().map(|&(addr, len)| oracle.bytes(addr, len as usize)).collect();
    let bytes = pieces.concat();
    assert_eq!(chain.len(), bytes.len() - VNET_LEN);
    assert_eq!(chain.vnet_header(), bytes[..VNET_LEN]);
    let mut frame = vec![0; bytes.len()];
    assert_eq!(chain.copy_to(0, &mut frame), chain.len());
    assert_eq!(frame[..chain.len()], bytes[VNET_LEN..]);
    let offset = chain.len() / 2;
    let some = 7.min(chain.len() - offset);
    assert_eq!(chain.copy_to(offset, &mut frame[..7]), some);
    assert_eq!(frame[..some], bytes[VNET_LEN + offset..][..some]);
    assert_eq!(chain.copy_to(chain.len(), &mut frame), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn reads_what_virtio_queue_reads(
        start in start(),
        event_idx: bool,
        rounds in prop::collection::vec(round(), 1..8),
    ) {
        let (ours, theirs) = (memory(), memory());
        let mut drivers = [Driver::new(&ours, SIZE, start), Driver::new(&theirs, SIZE, start)];
        for driver in &drivers {
            driver.fill_payload();
        }
        let mut ring = drivers[0].split(event_idx);
        let mut oracle = queue(&drivers[1], event_idx);
        for round in rounds {
            for driver in &mut drivers {
                round.tables.store(driver);
                round.heads.iter().for_each(|&head| driver.put(head));
                driver.expose();
                driver.set_used_event(driver.reaped.wrapping_add(round.used_event_ahead));
            }
            let mut left = round.heads.len();
            while left > 0 {
                let read = ring.read_batch(round.max).unwrap();
                prop_assert!(read > 0 && read <= left.min(round.max));
                left -= read;
                for i in 0..read {
                    let seen = pop(&mut oracle, &theirs, false).unwrap();
                    check_chain(ring.chain(i).unwrap(), &seen, &drivers[1]);
                    oracle.add_used(&*theirs, seen.head, 0).unwrap();
                }
                prop_assert!(ring.chain(read).is_none());
                prop_assert_eq!(ring.next_avail(), oracle.next_avail());
                prop_assert_eq!(ring.complete_batch(), oracle.needs_notification(&*theirs).unwrap());
                prop_assert_eq!(ring.next_used(), oracle.next_used());
            }
            prop_assert_eq!(ring.read_batch(32), Ok(0));
            prop_assert_eq!(ring.arm(), oracle.enable_notification(&*theirs).unwrap());
            ring.disarm();
            oracle.disable_notification(&*theirs).unwrap();
            let used = drivers[0].layout.used;
            let len = 6 + 8 * usize::from(SIZE);
            prop_assert_eq!(drivers[0].bytes(used, len), drivers[1].bytes(used, len));
            let heads: Vec<_> = round.heads.iter().map(|&head| (u32::from(head), 0)).collect();
            prop_assert_eq!(drivers[0].reap(), heads.clone());
            drivers[1].reap();
        }
    }
}
