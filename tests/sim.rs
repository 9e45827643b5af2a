//! Histories made from a seed, with their true order beside them.
//!
//! A small discrete-event model of hosts, processes, threads, sockets and the network between them
//! moves bytes, FINs, resets and signals about, and notes two things: what probes would have recorded
//! of it ([`History`]), and what really caused what ([`Truth`]). The truth comes from the model's own
//! queues, never from the rules that are tested against it. No clock, no kernel: a seed says it all.

mod act;
mod network;
mod order;
mod random;
mod record;
mod shape;
mod signal;
mod socket;
mod task;
mod world;

use recorder::event::History;

pub use order::{Pairs, Seen, Truth};
pub use random::Random;
pub use record::Clock;
pub use shape::{Loss, Shape};

/// What was recorded, and what really happened.
pub struct Simulated {
    pub shape: Shape,
    pub history: History,
    pub truth: Truth,
    /// Of each recorded host; and the true time at which all ended.
    pub clocks: Vec<Clock>,
    pub until_ns: u64,
}

/// The one history of a seed.
pub fn simulate(seed: u64) -> Simulated {
    let mut random = Random::new(seed);
    let shape = Shape::draw(&mut random);
    simulate_shape(shape, random)
}

/// A history of a given shape.
pub fn simulate_shape(shape: Shape, random: Random) -> Simulated {
    let mut world = world::World::new(shape, random);
    world.run();
    record::record(world)
}
