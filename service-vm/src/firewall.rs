//! A stateless packet filter: the first rule that matches decides.

use crate::{Action, Flow, Inner, Outcome, Rule};

/// Rules in order; what matches none goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    rules: Vec<Rule>,
}

impl Firewall {
    /// Rules are tried in the order given.
    pub fn new(rules: Vec<Rule>) -> Firewall {
        Firewall { rules }
    }

    /// What becomes of the packet.
    pub fn outcome(&self, inner: &Inner<'_>) -> Outcome {
        let flow = Flow::of(inner.next_protocol(), inner.bytes());
        match self.rules.iter().find(|rule| rule.matches(flow.as_ref())).map(Rule::action) {
            Some(Action::Drop) => Outcome::Drop,
            Some(Action::Allow) | None => Outcome::Forward,
        }
    }
}
