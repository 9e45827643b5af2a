//! Faults: what to do to which event, and how.
//!
//! A fault file ([`parse`]), or one line of text ([`line`]), becomes [`Fault`]s: values in which nothing is
//! wrong by itself, since all that was wrong has been told with its place.

pub mod ability;
pub mod act;
mod action;
pub mod arm;
pub mod armed;
pub mod error;
pub mod form;
pub mod guardian;
pub mod line;
mod never;
pub mod parse;
pub mod plan;
pub mod print;
pub mod sock_diag;
pub mod spec;
#[cfg(test)]
mod tests;
pub mod witness;
