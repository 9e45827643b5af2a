//! What kind of history a seed makes: sizes, and which difficulties occur in it.

use crate::sim::Random;

/// How events are lost between the probes and the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    None,
    /// Rings that overwrote their oldest events before anybody read them.
    Overwritten,
    /// Stretches that a reader who followed was too slow for.
    Gaps,
}

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub hosts: usize,
    /// The last host is not recorded: connections to it are half-seen.
    pub outside: bool,
    /// Some processes are out of scope.
    pub scoped: bool,
    pub cpus: usize,
    /// Several threads may use one socket in one direction at a time.
    pub races: bool,
    /// Some readers take bytes in a way that no hook shows.
    pub splices: bool,
    /// Connections within a host may be Unix sockets.
    pub unix: bool,
    pub loss: Loss,
    /// Recorders attach after the start.
    pub late: bool,
    /// Connections that stand when all begins.
    pub old_connections: usize,
    /// Bytes that a socket holds before a writer blocks.
    pub capacity: u64,
    /// Ends of stamps are cut to multiples of this many ns.
    pub granule: u64,
    /// Rates, in percent of a thread's acts.
    pub kills: u64,
    /// The model stops after so many events.
    pub events: usize,
}

impl Shape {
    pub fn draw(r: &mut Random) -> Self {
        let hosts = [1, 1, 2, 3][r.index(4)];
        Self {
            hosts,
            outside: hosts > 1 && r.percent(25),
            scoped: r.percent(15),
            cpus: r.between(1, 5) as usize,
            races: r.percent(45),
            splices: r.percent(10),
            unix: r.percent(50),
            loss: [Loss::None, Loss::None, Loss::Overwritten, Loss::Gaps][r.index(4)],
            late: r.percent(20),
            old_connections: r.index(4),
            capacity: [64, 300, 4_000, 1 << 32][r.index(4)],
            granule: if r.percent(20) { 64 } else { 1 },
            kills: [0, 2, 6][r.index(3)],
            events: r.between(30, 200) as usize,
        }
    }
}
