//! Who holds a service VM out: an operator at this host, one at the controller, or both. It comes back only when
//! neither does (¶72).

use std::collections::BTreeMap;

use vhost_backend::chain::PortId;
use vhost_backend::worker::Act;

/// The words that stand.
#[derive(Debug, Default)]
pub(crate) struct Holds(BTreeMap<PortId, Hold>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Hold {
    local: bool,
    controller: bool,
}

impl Hold {
    fn is_held(self) -> bool {
        self.local || self.controller
    }
}

impl Holds {
    /// An operator at this host. Gives what the liveness session must be told, if anything.
    pub(crate) fn local(&mut self, service: PortId, held: bool) -> Option<Act> {
        self.change(service, |hold| hold.local = held)
    }

    /// The controller's operator.
    pub(crate) fn controller(&mut self, service: PortId, held: bool) -> Option<Act> {
        self.change(service, |hold| hold.controller = held)
    }

    /// Anyone holds it out.
    pub(crate) fn is_held(&self, service: PortId) -> bool {
        self.0.get(&service).is_some_and(|hold| hold.is_held())
    }

    fn change(&mut self, service: PortId, change: impl FnOnce(&mut Hold)) -> Option<Act> {
        let hold = self.0.entry(service).or_default();
        let before = hold.is_held();
        change(hold);
        match (before, hold.is_held()) {
            (false, true) => Some(Act::Fail),
            (true, false) => Some(Act::Restore),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_when_neither_holds_it() {
        let (mut holds, svm) = (Holds::default(), PortId::new(3));
        assert_eq!(holds.controller(svm, false), None);
        assert_eq!(holds.local(svm, true), Some(Act::Fail));
        assert_eq!(holds.local(svm, true), None);
        assert_eq!(holds.controller(svm, true), None);
        assert_eq!(holds.local(svm, false), None);
        assert!(holds.is_held(svm));
        assert_eq!(holds.controller(svm, false), Some(Act::Restore));
        assert!(!holds.is_held(svm));
    }
}
