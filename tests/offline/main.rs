//! Tests that need no kernel and no privileges.

mod properties;
mod simulator;
