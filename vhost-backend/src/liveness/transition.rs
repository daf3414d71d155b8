//! State changes on their way to telemetry, the path table and the controller.

use super::{Cause, Evidence, State, Timestamp};

/// Transitions kept until they are drained.
const KEPT: usize = 8;

/// One change of a session's state or cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after. Down to Down means that another cause holds it down from now on.
    pub to: State,
    /// Why, for a state that gets no traffic.
    pub cause: Cause,
    /// What was known of the service VM at that moment.
    pub evidence: Evidence,
    /// When.
    pub at: Timestamp,
}

/// First in, first out, bounded. When nobody drains it the newest entries merge into one, so that it
/// always ends in the present state.
#[derive(Clone, Debug, Default)]
pub(super) struct Transitions {
    kept: [Option<Transition>; KEPT],
}

impl Transitions {
    pub(super) fn push(&mut self, transition: Transition) {
        if let Some(free) = self.kept.iter_mut().find(|entry| entry.is_none()) {
            *free = Some(transition);
        } else if let Some(Some(last)) = self.kept.last_mut() {
            *last = Transition { from: last.from, ..transition };
        }
    }

    pub(super) fn pop(&mut self) -> Option<Transition> {
        let oldest = self.kept.first_mut()?.take()?;
        self.kept.rotate_left(1);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: State, to: State, at: u64) -> Transition {
        let (cause, evidence) = (Cause::None, Evidence::default());
        Transition { from, to, cause, evidence, at: Timestamp::from_nanos(at) }
    }

    #[test]
    fn oldest_first() {
        let mut transitions = Transitions::default();
        transitions.push(step(State::Init, State::Up, 1));
        transitions.push(step(State::Up, State::Suspect, 2));
        assert_eq!(transitions.pop(), Some(step(State::Init, State::Up, 1)));
        transitions.push(step(State::Suspect, State::Down, 3));
        assert_eq!(transitions.pop(), Some(step(State::Up, State::Suspect, 2)));
        assert_eq!(transitions.pop(), Some(step(State::Suspect, State::Down, 3)));
        assert_eq!(transitions.pop(), None);
    }

    #[test]
    fn overflow_merges_and_keeps_the_present() {
        let mut transitions = Transitions::default();
        for n in 0..100 {
            let (from, to) =
                if n % 2 == 0 { (State::Up, State::Suspect) } else { (State::Suspect, State::Up) };
            transitions.push(step(from, to, n));
        }
        let drained: Vec<_> = core::iter::from_fn(|| transitions.pop()).collect();
        assert_eq!(drained.len(), KEPT);
        assert_eq!(drained.last().unwrap().to, State::Up);
        assert_eq!(drained.last().unwrap().at, Timestamp::from_nanos(99));
        assert!(drained.windows(2).all(|pair| pair[0].to == pair[1].from));
    }
}
