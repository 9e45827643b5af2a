//! Tests that need no kernel and no privileges.

mod cli;
mod hosts;
mod lazy;
mod named;
mod properties;
mod readme;
mod recording;
mod simulator;
mod why;
mod written;
