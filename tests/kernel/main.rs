//! The recorder against the running kernel: one module per family of hooks, real programs under load, and
//! what remains when it ends.
//!
//! Needs root, Python 3.9 and the programs that `cargo xtask setup` installs. A test that cannot load
//! probes fails.

mod recorded;

mod detach;
mod load;
mod names;
mod refused;
mod ring;
mod scope;
mod signal;
mod socket;
mod task;
mod tcp;
<<<<<<< HEAD
mod unchanged;
=======
mod uring;

mod readme;
>>>>>>> dbc52e951b8d9ab02059f02e80ee3c1b2813b037
