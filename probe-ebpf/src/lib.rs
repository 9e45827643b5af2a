//! The wire format between the kernel half and the user half: what a ring slot looks like, how a ring
//! is laid out in memory, and which constants the loader sets.
//!
//! Everything here is plain data with explicit widths. Both halves are built from this one crate, so a
//! change of layout is a change of both.
#![no_std]

pub mod config;
pub mod event;
pub mod fault;
pub mod ring;
pub mod storage;
pub mod syscall;
pub mod watch;
