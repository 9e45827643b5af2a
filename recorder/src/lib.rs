//! `wherefore`: records what the processes of a system said to each other, and explains why something
//! happened.
//!
//! The modules stand in the order in which an event passes through them. `event`, `pattern`, `graph`, `clocks`
//! and `slice` are pure: no clock, no I/O. Nothing imports `cli`.

pub mod capture;
pub mod recording;

pub mod container;
pub mod event;
pub mod hide;
pub mod netns;
pub mod pattern;
pub mod state;

pub mod fault;

pub mod graph;

pub mod clocks;
pub mod slice;

pub mod describe;
pub mod export;

pub mod confirm;
pub mod explain;
pub mod incident;
pub mod lookback;
pub mod profile;

pub mod doctor;

pub mod quantity;
pub mod trigger;

pub mod daemon;

pub mod cli;
