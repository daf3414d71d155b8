//! Driver and device in two threads: nobody sleeps for ever, and nothing arrives before it is whole.

use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use super::driver::{Driver, PAYLOAD, memory};
use crate::ring::VNET_LEN;

const FRAMES: u64 = 30_000;

/// Waits to be woken. Nothing is measured here: that long means for ever.
fn sleep(wake: &Receiver<()>) {
    wake.recv_timeout(Duration::from_secs(60)).expect("a wake-up was lost");
}

/// Each side sleeps whenever it has nothing to do, having asked to be woken and looked once more; indices wrap over a
/// ring of 8. That the fences order the asking before the looking on every processor is proven in the comments of
/// `notify`, not here: the window is a few nanoseconds wide.
#[test]
fn no_wake_up_is_lost_and_no_frame_is_torn() {
    for event_idx in [true, false] {
        let (kick, kicked) = channel();
        let (call, called) = channel();
        let mut driver = Driver::new(&memory(), 8, 50_000);
        let mut ring = driver.split(event_idx);
        let guest = thread::spawn(move || {
            let mut sent = 0;
            while driver.reaped != 50_000_u16.wrapping_add(FRAMES as u16) || sent < FRAMES {
                let before = driver.avail;
                while sent < FRAMES && driver.avail.wrapping_sub(driver.reaped) < 8 {
                    let slot = driver.avail % 8;
                    let addr = PAYLOAD + 0x100 * u64::from(slot);
                    driver.fill(addr + VNET_LEN as u64, &sent.to_le_bytes().repeat(20));
                    driver.offer_one(slot, addr, 12 + 160, 0);
                    sent += 1;
                }
                fence(Ordering::SeqCst);
                let moved = driver.avail.wrapping_sub(before);
                let passes = driver.avail.wrapping_sub(driver.avail_event()).wrapping_sub(1) < moved;
                if moved > 0 && if event_idx { passes } else { driver.used_flags() == 0 } {
                    kick.send(()).unwrap();
                }
                driver.reap();
                driver.set_used_event(driver.reaped);
                fence(Ordering::SeqCst);
                let full = driver.avail.wrapping_sub(driver.reaped) == 8 || sent == FRAMES;
                if full && driver.reaped != driver.avail && driver.used_idx() == driver.reaped {
                    sleep(&called);
                    while called.try_recv().is_ok() {}
                }
            }
        });
        let mut next = 0_u64;
        while next < FRAMES {
            let read = ring.read_batch(5).unwrap();
            for i in 0..read {
                let mut bytes = [0; 160];
                assert_eq!(ring.chain(i).map(|chain| chain.copy_to(0, &mut bytes)), Some(160));
                assert_eq!(bytes[..], next.to_le_bytes().repeat(20));
                next += 1;
            }
            if ring.complete_batch() {
                // The driver may be through and gone.
                let _ = call.send(());
            }
            if read == 0 {
                ring.disarm();
                if !ring.arm() {
                    sleep(&kicked);
                    while kicked.try_recv().is_ok() {}
                }
            }
        }
        guest.join().unwrap();
    }
}
