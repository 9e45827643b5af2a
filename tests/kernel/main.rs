//! The recorder against the running kernel: one module per family of hooks, real programs under load, and
//! what remains when it ends.
//!
//! Needs root, Python 3.9 and the programs that `cargo xtask setup` installs. A test that cannot load
//! probes fails.

mod recorded;

mod confirm;
mod container;
mod daemon;
mod datagram;
mod detach;
mod detail;
mod dropped;
mod family;
mod fault;
mod fault_files;
mod hosts;
mod load;
mod local;
mod memory;
mod names;
mod netns;
mod readme;
mod refused;
mod ring;
mod scope;
mod signal;
mod snapshot;
mod socket;
mod task;
mod tcp;
mod told;
mod unchanged;
mod uring;
