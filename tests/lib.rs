//! What tests of several crates share.

pub mod documents;
pub mod sim;
