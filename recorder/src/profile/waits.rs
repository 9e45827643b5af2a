//! How long answers took, in powers of two: a count for each, so that a day of them takes forty numbers.

use serde::{Deserialize, Serialize};

/// Place `i` counts what took `2^i .. 2^(i+1)` ns; the last one also what took longer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Waits(Vec<f64>);

/// The last begins at nine minutes.
const PLACES: usize = 40;
/// A quantile is told where so many lie beyond it: a few odd ones make none.
const BEYOND: f64 = 3.0;

impl Waits {
    pub fn add(&mut self, wait_ns: u64) {
        let place = (wait_ns.max(1).ilog2() as usize).min(PLACES - 1);
        if self.0.len() <= place {
            self.0.resize(place + 1, 0.0);
        }
        self.0[place] += 1.0;
    }

    pub fn add_all(&mut self, others: &Self) {
        let longest = self.0.len().max(others.0.len()).min(PLACES);
        self.0.resize(longest, 0.0);
        self.0.iter_mut().zip(&others.0).for_each(|(own, other)| *own += other);
    }

    pub fn fade(&mut self, factor: f64) {
        self.0.iter_mut().for_each(|count| *count *= factor);
    }

    pub fn count(&self) -> f64 {
        // (The sum of nothing would be -0.)
        self.0.iter().fold(0.0, |sum, count| sum + count)
    }

    /// What a share of all took at most, ns; nothing where too few took longer to say so.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let (count, mut before) = (self.count(), 0.0);
        let wanted = count * share;
        if count - wanted < BEYOND {
            return None;
        }
        for (place, &here) in self.0.iter().enumerate() {
            if here > 0.0 && before + here >= wanted {
                // Evenly spread over the place, on the scale of its bounds.
                return Some((place as f64 + (wanted - before) / here).exp2());
            }
            before += here;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(each: &[(u64, usize)]) -> Waits {
        let mut waits = Waits::default();
        for &(wait_ns, times) in each {
            (0..times).for_each(|_| waits.add(wait_ns));
        }
        waits
    }

    #[test]
    fn a_quantile_is_right_to_a_power_of_two() {
        let waits = waits(&[(1_000_000, 90), (900_000_000, 10)]);
        let (half, most) = (waits.quantile(0.5).expect("50"), waits.quantile(0.95).expect("5"));
        assert!((500_000.0..2_000_000.0).contains(&half), "{half}");
        assert!((450e6..1.8e9).contains(&most), "{most}");
        assert_eq!(waits.quantile(0.99), None, "one of a hundred proves nothing");
    }

    #[test]
    fn of_few_there_is_no_quantile() {
        assert_eq!(waits(&[(1000, 5)]).quantile(0.5), None);
        assert!(waits(&[(1000, 6)]).quantile(0.5).is_some());
        assert_eq!(Waits::default().quantile(0.5), None);
    }

    #[test]
    fn what_is_added_and_faded_is_counted_so() {
        let mut all = waits(&[(5, 4)]);
        all.add_all(&waits(&[(u64::MAX, 2), (0, 1)]));
        assert_eq!((all.count(), all.0.len()), (7.0, PLACES));
        all.fade(0.5);
        assert_eq!(all.count(), 3.5);
    }
}
