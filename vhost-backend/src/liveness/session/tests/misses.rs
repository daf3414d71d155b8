//! Silence: misses, suspicion, Down.

use super::*;

#[test]
fn a_query_unanswered_after_timeout_is_a_miss_and_the_first_makes_suspect() {
    let mut b = Bench::up();
    b.at(10.0).query().expect("due");
    assert_eq!(b.session.deadline(), at(20.0));
    b.at(19.999_999).poll();
    assert_eq!(b.state(), (State::Up, Cause::None));
    b.at(20.0).poll();
    assert_eq!(b.state(), (State::Suspect, Cause::None));
    assert!(b.session.usable());
    assert_eq!(b.session.counters().misses, 1);
}

#[test]
fn multiplier_misses_in_a_row_make_down_within_multiplier_plus_one_intervals() {
    let mut b = Bench::up();
    b.at(10.0).query().expect("due");
    b.sleep(39.999_999, |_| false);
    assert_eq!(b.state().0, State::Suspect);
    b.sleep(40.0, |_| false);
    assert_eq!(b.state(), (State::Down, Cause::NoResponse), "the last answer came at 0");
    assert_eq!(b.went(), [(State::Suspect, Cause::None), (State::Down, Cause::NoResponse)]);
    assert_eq!(b.session.counters().misses, 3);
    assert_eq!(b.session.counters().flaps, 1);
}

#[test]
fn an_idle_path_is_down_within_an_idle_interval_and_multiplier_intervals() {
    let mut b = Bench::up();
    b.sleep(129.999_999, |_| false);
    assert_eq!(b.state().0, State::Suspect);
    b.sleep(130.0, |_| false);
    assert_eq!(b.state(), (State::Down, Cause::NoResponse));
}

#[test]
fn a_suspect_is_probed_at_once_and_often_without_being_down_any_sooner() {
    let mut b = Bench::up();
    b.at(10.0).query().expect("due");
    let probes = b.sleep(39.9, |_| false);
    assert_eq!(probes, [20.0, 22.5, 25.0, 27.5, 30.0, 32.5, 35.0, 37.5]);
    assert_eq!(b.session.counters().misses, 2);
}

#[test]
fn an_answer_to_any_query_on_its_way_clears_the_misses() {
    for answered in 0..4 {
        let mut b = Bench::up();
        let mut queries = vec![b.at(10.0).query().expect("due")];
        queries.push(b.at(20.0).poll().expect("prompt"));
        queries.push(b.at(22.5).poll().expect("often"));
        b.sleep(30.0 - 1e-6, |_| false);
        queries.push(b.at(30.0).poll().expect("often"));
        assert_eq!(b.session.counters().misses, 2);
        let answer = b.at(39.0).answer(queries[answered]);
        assert!(matches!(answer, Answer::Accepted { .. }), "query {answered}");
        assert_eq!(b.went(), [(State::Suspect, Cause::None), (State::Up, Cause::None)]);
    }
}

#[test]
fn after_an_answer_it_takes_all_misses_again() {
    let mut b = Bench::up();
    b.at(10.0).query().expect("due");
    let probe = b.at(20.0).poll().expect("prompt");
    b.sleep(39.0, |_| false);
    b.answer(probe);
    let down = |b: &mut Bench| {
        while b.session.usable() {
            let deadline = b.session.deadline().as_nanos() as f64 / 1e6;
            b.sleep(deadline, |_| false);
        }
        b.now
    };
    // Of what went before 39 only the query of 30 still counts, and it is missed at 40.
    assert!(down(&mut b) >= at(40.0 + 20.0));
}

#[test]
fn an_overloaded_service_may_answer_only_the_newest() {
    let mut b = Bench::up();
    for n in 1..200 {
        let query = b.at(f64::from(n) * 10.0).query();
        let query = b.poll().or(query).expect("due");
        if n % 3 == 0 {
            b.answer(query);
        }
        assert!(b.session.usable(), "at {n}0 ms");
    }
    assert_eq!(b.session.counters().flaps, 0);
}

#[test]
fn a_slow_service_that_answers_within_the_tolerance_stays_usable() {
    let mut b = Bench::up();
    let mut due: Vec<(Timestamp, Query)> = Vec::new();
    for half in 1..4_000 {
        b.at(f64::from(half) * 0.5);
        while due.first().is_some_and(|(when, _)| *when <= b.now) {
            let (_, query) = due.remove(0);
            b.answer(query);
        }
        for query in [b.query(), b.poll()].into_iter().flatten() {
            due.push((b.now + ms(29), query));
        }
        assert!(b.session.usable(), "at {:?}", b.now);
    }
    assert!(b.session.counters().late > 100);
}

#[test]
fn the_proxys_own_pause_is_not_a_miss() {
    let mut b = Bench::up();
    let query = b.at(10.0).query().expect("due");
    b.at(60.0);
    b.session.paused(b.now, ms(49));
    assert_eq!(b.session.deadline(), at(69.0), "9 of its 10 ms are left");
    b.poll();
    assert_eq!(b.state().0, State::Up);
    assert!(matches!(b.at(60.1).answer(query), Answer::Accepted { .. }));
    assert_eq!(b.session.counters().misses, 0);
}

#[test]
fn a_late_poll_is_a_pause_even_if_nobody_says_so() {
    let mut b = Bench::up();
    let query = b.at(10.0).query().expect("due");
    b.at(500.0).poll();
    assert_eq!(b.state().0, State::Up, "the service VM may have stood still as well");
    assert_eq!(b.session.deadline(), at(505.0));
    assert!(matches!(b.at(504.0).answer(query), Answer::Accepted { .. }));
    assert_eq!(b.session.counters().misses, 0);
}

#[test]
fn a_late_poll_judges_one_query_at_most() {
    let mut b = Bench::up_with(Profile { timeout: ms(25), ..Profile::DEFAULT });
    for n in 1..=3 {
        b.at(f64::from(n) * 10.0).query().expect("due");
    }
    b.at(500.0).poll();
    assert_eq!(b.session.counters().misses, 0);
    b.at(600.0).poll();
    assert_eq!(b.session.counters().misses, 1);
}

#[test]
fn a_worker_that_is_always_late_still_finds_out() {
    let mut b = Bench::up();
    b.at(10.0).query().expect("due");
    let mut polls = 0;
    while b.session.usable() {
        let late = b.session.deadline() + ms(6);
        b.now = late;
        b.poll();
        polls += 1;
        assert!(polls < 30);
    }
    assert!(b.now <= at(150.0), "{:?}", b.now);
}

#[test]
fn a_pause_moves_the_silence_not_just_one_query() {
    let mut b = Bench::up();
    b.at(10.0).query().expect("due");
    b.sleep(31.0, |_| false);
    assert_eq!(b.session.counters().misses, 2);
    b.at(81.0);
    b.session.paused(b.now, ms(50));
    b.sleep(89.9, |_| false);
    assert_eq!(b.state().0, State::Suspect);
    b.sleep(90.0, |_| false);
    assert_eq!(b.state().0, State::Down, "40, moved by 50");
}

#[test]
fn a_longer_timeout_than_interval_is_waited_for() {
    let profile = Profile { timeout: ms(25), ..Profile::DEFAULT };
    let mut b = Bench::up_with(profile);
    for n in 1..=3 {
        b.at(f64::from(n) * 10.0).query().expect("due");
        b.poll();
    }
    b.sleep(34.9, |_| false);
    assert_eq!(b.state().0, State::Up);
    b.sleep(54.9, |_| false);
    assert_eq!(b.state().0, State::Suspect);
    b.sleep(55.0, |_| false);
    assert_eq!(b.state().0, State::Down);
    assert!(at(55.0) <= at(0.0) + profile.detection());
}

#[test]
fn an_answer_after_down_is_of_an_old_epoch() {
    let mut b = Bench::up();
    let query = b.at(10.0).query().expect("due");
    b.sleep(40.0, |_| false);
    assert_eq!(b.state().0, State::Down);
    assert_eq!(b.at(41.0).answer(query), Answer::Stale);
    assert_eq!(b.state(), (State::Down, Cause::NoResponse));
}

#[test]
fn a_service_vm_that_never_answered_stays_init() {
    let mut b = Bench::attached(Profile::DEFAULT);
    b.sleep(10_000.0, |_| false);
    assert_eq!(b.state(), (State::Init, Cause::None));
    assert!(!b.session.usable());
    assert_eq!(b.went(), []);
}
