//! More than `flow`: what is recorded only while it is asked for.

mod calls;
mod raised;
mod wakes;
