//! Seeds by the thousand. `LIVEPATH_SIM_SEED=n` runs one alone, `LIVEPATH_SIM_SEEDS=n` as many as a night has room for.

use simulation::{Bug, Tally, run};

/// Seeds of every run of the tests.
const SEEDS: u64 = 10_000;

fn environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: a number")))
}

#[test]
fn no_seed_breaks_a_rule() {
    let seeds = match environment("LIVEPATH_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..environment("LIVEPATH_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    let (mut tally, mut broken) = (Tally::default(), Vec::new());
    for seed in seeds {
        match run(seed, None) {
            Ok(one) => tally.add(&one),
            Err(story) => broken.push((seed, story)),
        }
    }
    if let [(_, story), others @ ..] = &broken[..] {
        let others = others.iter().map(|(seed, story)| format!("seed {seed}: {}\n", story.broken()));
        panic!("{story}\n{} others:\n{}", others.len(), others.collect::<String>());
    }
    println!("{tally:#?}");
    if many {
        everything_happened(&tally);
    }
}

/// Rules that nothing tries prove nothing.
fn everything_happened(tally: &Tally) {
    let Tally { packets, delivered, inside, resteered, replayed, held, .. } = tally;
    assert!(delivered * 10 > packets * 7, "most of them arrive: {tally:#?}");
    for count in
        [inside, resteered, replayed, held, &tally.known, &tally.fenced, &tally.tables, &tally.tables_refused]
    {
        assert!(*count > 1000, "{tally:#?}");
    }
    for count in [tally.twice, tally.late, tally.reports_known, tally.messages_lost, tally.hosts_lost] {
        assert!(count > 50, "{tally:#?}");
    }
    assert!(tally.overtaken > 5, "{tally:#?}");
    for cause in [
        "no-response",
        "driver-stalled",
        "detached",
        "ring-stopped",
        "control-plane",
        "operator",
        "maintenance",
    ] {
        assert!(tally.downs.get(cause).is_some_and(|count| *count > 50), "{cause}: {tally:#?}");
    }
    for reason in ["blocked", "ring_full", "hold_full", "by_the_service"] {
        assert!(tally.dropped.get(reason).is_some_and(|count| *count > 50), "{reason}: {tally:#?}");
    }
}

/// A seed that fails can be run again: everything comes from it.
#[test]
fn a_seed_does_the_same_again() {
    for seed in 0..50 {
        assert_eq!(run(seed, None).unwrap(), run(seed, None).unwrap(), "seed {seed}");
    }
}

/// The rules find mistakes, and their story says how to see it again.
#[test]
fn every_mistake_breaks_its_rule() {
    for bug in Bug::ALL {
        let breaks_it =
            |seed| run(seed, Some(bug)).err().filter(|story| story.broken().contains(bug.breaks()));
        let story = (0..2000).find_map(breaks_it);
        let story = story.unwrap_or_else(|| panic!("{bug:?} was not found"));
        let told = story.to_string();
        assert!(told.contains("LIVEPATH_SIM_SEED=") && told.contains("calm from"), "{told}");
    }
}
