//! Descriptors and threads over many connections. Alone in its process, since it counts them.

use integration::{Bed, Plan, STEADY, mac};
use test_vm::Options;
use test_vm::guest::{Guest, TenantGuest};

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).expect("proc is mounted").count()
}

#[test]
fn fifty_connections_leave_nothing_behind() {
    let mut bed = Bed::new(&Plan { profile: STEADY, ..Plan::default() });
    bed.until_all_up();
    let mut counted = None;
    for round in 0..50 {
        let options = Options { mac: mac("vm6"), ..Options::default() };
        bed.tenants[1].vm().kill();
        bed.tenants[1] = TenantGuest::attach(&bed.socket("vm6"), options, 1, true).expect("vm6 attaches");
        bed.start_traffic(20_000, 2);
        bed.until_arrived("vm6 is served", 20);
        if round == 5 {
            counted = Some((entries("/proc/self/fd"), entries("/proc/self/task")));
        }
    }
    bed.drain();
    // A connection's own threads may take a moment to end.
    let mut now = None;
    bed.until("all is as it was", |_| {
        now = Some((entries("/proc/self/fd"), entries("/proc/self/task")));
        now == counted
    });
    assert_eq!(now, counted);
}
