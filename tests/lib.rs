//! What tests of several crates share.

pub mod command;
pub mod documents;
pub mod patience;
pub mod sim;
pub mod split;
