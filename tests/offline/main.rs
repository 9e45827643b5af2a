//! Tests that need no kernel and no privileges.

mod simulator;
