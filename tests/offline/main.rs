//! Tests that need no kernel and no privileges.

mod named;
mod properties;
mod readme;
mod recording;
mod simulator;
mod written;
