//! Down at the queue, and which level was lost.

use super::super::super::Evidence;
use super::*;

#[test]
fn a_hang_up_is_down_at_once() {
    let mut b = Bench::up();
    b.at(3.0).session.detached(at(3.0));
    let transitions = b.transitions();
    assert_eq!(transitions.len(), 1);
    assert_eq!((transitions[0].to, transitions[0].cause), (State::Down, Cause::Detached));
    assert_eq!(transitions[0].at, at(3.0));
    assert_eq!(transitions[0].evidence, Evidence::default());
}

#[test]
fn a_stopped_ring_is_down_at_once_and_a_hang_up_after_it_changes_the_cause() {
    let mut b = Bench::up();
    b.at(3.0).session.rings_stopped(at(3.0));
    b.at(4.0).session.detached(at(4.0));
    b.at(5.0).session.rings_stopped(at(5.0));
    assert_eq!(b.went(), [(State::Down, Cause::RingStopped), (State::Down, Cause::Detached)]);
    assert_eq!(b.session.counters().flaps, 1);
}

#[test]
fn a_hang_up_after_silence_changes_the_cause() {
    let mut b = Bench::silenced();
    b.session.detached(b.now);
    assert_eq!(b.went(), [(State::Down, Cause::Detached)]);
}

#[test]
fn a_full_ring_its_driver_leaves_alone_for_stall_is_down_at_once() {
    let profile = Profile { stall: ms(5), ..Profile::DEFAULT };
    let mut b = Bench::up_with(profile);
    b.at(1.0).look(7, false, true);
    b.at(2.0).look(7, true, true);
    assert_eq!(b.session.deadline(), at(7.0));
    b.at(6.999_999).look(7, true, true).poll();
    assert_eq!(b.state().0, State::Up);
    b.at(7.0).look(7, true, true).poll();
    let transitions = b.transitions();
    assert_eq!(transitions.len(), 1, "without suspicion");
    assert_eq!((transitions[0].to, transitions[0].cause), (State::Down, Cause::DriverStalled));
    let lost = Evidence { attached: true, driver: false, service: false, forwarding: false };
    assert_eq!(transitions[0].evidence, lost);
}

#[test]
fn a_full_ring_that_moves_is_not_down() {
    let profile = Profile { stall: ms(5), ..Profile::DEFAULT };
    let mut b = Bench::up_with(profile);
    for n in 1..90u32 {
        b.at(f64::from(n)).look(n / 4, true, true);
        if let Some(query) = b.query() {
            b.answer(query);
        }
        b.poll();
        assert_eq!(b.state().0, State::Up);
    }
}

#[test]
fn the_proxys_pause_does_not_count_for_stall() {
    let mut b = Bench::up();
    b.at(1.0).look(7, true, true);
    b.at(51.0);
    b.session.paused(b.now, ms(50));
    b.look(7, true, true).poll();
    assert_eq!(b.state().0, State::Up);
    assert_eq!(b.session.deadline(), at(81.0));
}

#[test]
fn a_pause_of_the_whole_host_nobody_told_is_not_a_stall() {
    let mut b = Bench::up();
    b.at(1.0).look(7, true, true);
    b.at(51.0).look(7, true, true).poll();
    assert_eq!(b.state().0, State::Up);
    assert_eq!(b.session.deadline(), at(56.0));
    b.at(55.0).look(8, false, false).poll();
    b.at(56.0).poll();
    assert_eq!(b.state().0, State::Up);
}

#[test]
fn silence_with_the_driver_at_work_is_no_response() {
    let mut b = Bench::up();
    b.at(10.0).query().expect("due");
    b.at(11.0).look(1, false, false);
    b.sleep(25.0, |_| false);
    b.look(2, false, true);
    b.sleep(40.0, |_| false);
    assert_eq!(b.state(), (State::Down, Cause::NoResponse));
    let evidence = b.session.evidence();
    assert!(evidence.attached && evidence.driver && !evidence.service);
}

#[test]
fn silence_with_frames_left_in_the_ring_is_driver_stalled() {
    let mut b = Bench::up();
    b.at(10.0).look(1, false, false).query().expect("due");
    // The driver took one more frame before it froze.
    b.at(10.1).look(2, false, true);
    for n in 1..=30 {
        b.sleep(10.1 + f64::from(n), |_| false);
        b.look(2, false, true);
    }
    assert_eq!(b.went(), [(State::Suspect, Cause::None), (State::Down, Cause::DriverStalled)]);
    let evidence = b.session.evidence();
    assert!(evidence.attached && !evidence.driver && !evidence.service);
}

#[test]
fn an_answer_shows_the_driver_at_work() {
    let mut b = Bench::up();
    b.at(1.0).look(1, false, true);
    b.at(40.0).look(1, false, true);
    assert!(!b.session.evidence().driver);
    let query = b.query().expect("due");
    b.answer(query);
    assert!(b.session.evidence().driver);
}

#[test]
fn frames_that_come_back_are_evidence_of_forwarding() {
    let mut b = Bench::up();
    assert!(!b.session.evidence().forwarding);
    for n in 0..10u32 {
        b.at(10.0 * f64::from(n + 1));
        let query = b.query().expect("due");
        b.session.data(b.now);
        b.answer(query);
    }
    assert!(b.session.evidence().forwarding);
}

#[test]
fn a_service_that_keeps_every_frame_stays_up_without_forwarding() {
    let mut b = Bench::up();
    b.session.data(at(0.0));
    for n in 0..100u32 {
        b.at(10.0 * f64::from(n + 1));
        let query = b.query().expect("due");
        let answer = b.session.response(b.now, query.epoch, query.seq, true);
        assert!(matches!(answer, Answer::Accepted { .. }));
    }
    assert_eq!(b.state(), (State::Up, Cause::None));
    let evidence = b.session.evidence();
    assert!(evidence.attached && evidence.driver && evidence.service && !evidence.forwarding);
    assert_eq!(b.session.counters().dropped, 100);
}

#[test]
fn evidence_of_an_earlier_attachment_does_not_carry_over() {
    let mut b = Bench::up();
    b.session.data(at(0.0));
    b.at(1.0).session.rings_stopped(at(1.0));
    b.at(2.0).session.attached(at(2.0));
    let evidence = b.session.evidence();
    assert!(evidence.attached && evidence.driver && !evidence.service && !evidence.forwarding);
}
