//! How long tests wait for what has to happen: longer on a machine that is slower than most.

use std::env;
use std::time::Duration;

/// How many times slower than usual this machine is, for those who know: an emulated one computes twenty times slower.
pub const VARIABLE: &str = "WHEREFORE_TEST_SLOWNESS";

/// The factor by which every limit of time is stretched.
///
/// # Panics
/// When the variable is set to something else than a number.
pub fn slowness() -> u32 {
    env::var(VARIABLE).map_or(1, |text| text.parse().expect("WHEREFORE_TEST_SLOWNESS is a number"))
}

/// A limit of time, in seconds of an ordinary machine.
pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count) * slowness()
}
