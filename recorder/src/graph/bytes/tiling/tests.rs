//! Streams whose true places are known, and what the tiling makes of what their calls report.

use proptest::prelude::*;

use super::{Call, Place, Tiling, tile};

/// One call as it was: its thread, its length, how many of the following calls moved the counter on before
/// it was read, and whether the recording has it.
type Made = (u32, u64, usize, bool);

/// The calls as reported, in an order that keeps each thread's, and their true begins.
fn report(made: &[Made]) -> (Vec<Call>, Vec<u64>) {
    let mut ends = Vec::new();
    let mut end = 0;
    for (_, len, _, _) in made {
        end += len;
        ends.push(end);
    }
    let mut calls: Vec<(usize, usize, Call, u64)> = Vec::new();
    for (number, &(thread, len, late, recorded)) in made.iter().enumerate() {
        // A thread reads the counter before it makes its next call.
        let next = made[number + 1..].iter().position(|call| call.0 == thread);
        let until =
            (number + late).min(made.len() - 1).min(number + next.unwrap_or(usize::MAX - number));
        if recorded {
            let call = Call { thread, end: ends[until], len, peek: false };
            calls.push((until, number, call, ends[number] - len));
        }
    }
    // Stamps come in the order in which the counter was read.
    calls.sort_by_key(|&(until, number, ..)| (until, number));
    calls.into_iter().map(|(_, _, call, start)| (call, start)).unzip()
}

fn made(threads: u32, late: usize, recorded: f64) -> impl Strategy<Value = Vec<Made>> {
    let call = (0..threads, 1..5_u64, 0..=late, prop::bool::weighted(recorded));
    prop::collection::vec(call, 1..40)
}

fn holds(tiling: &Tiling, starts: &[u64]) -> bool {
    tiling.places.iter().zip(starts).all(|(place, start)| place.lo <= *start && *start <= place.hi)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_truth_is_among_the_places(made in made(4, 3, 1.0)) {
        let (calls, starts) = report(&made);
        let tiling = tile(&calls);
        prop_assert!(holds(&tiling, &starts), "{calls:?}\n{starts:?}\n{tiling:?}");
        prop_assert_eq!(&tiling.holes, &[]);
    }

    #[test]
    fn the_truth_is_among_the_places_when_calls_are_lost(made in made(4, 3, 0.8)) {
        let (calls, starts) = report(&made);
        let tiling = tile(&calls);
        prop_assert!(holds(&tiling, &starts), "{calls:?}\n{starts:?}\n{tiling:?}");
    }

    #[test]
    fn without_races_every_place_is_exact(made in made(4, 0, 1.0)) {
        let (calls, starts) = report(&made);
        let exact: Vec<Place> = starts.iter().map(|&start| Place { lo: start, hi: start }).collect();
        prop_assert_eq!(tile(&calls).places, exact);
    }

    #[test]
    fn one_thread_is_exact_though_calls_are_lost_elsewhere(made in made(1, 0, 1.0)) {
        let (calls, starts) = report(&made);
        let exact: Vec<Place> = starts.iter().map(|&start| Place { lo: start, hi: start }).collect();
        prop_assert_eq!(tile(&calls).places, exact);
    }

    #[test]
    fn nonsense_does_no_harm(ends in prop::collection::vec((0..3_u32, 0..50_u64, 1..50_u64), 0..30)) {
        let call = |(thread, end, len)| Call { thread, end, len, peek: false };
        let calls: Vec<Call> = ends.into_iter().map(call).collect();
        for place in tile(&calls).places {
            prop_assert!(place.lo <= place.hi);
        }
    }
}

/// Long streams that race all the time must not cost more than their length.
#[test]
fn a_long_race_is_linear() {
    let made: Vec<Made> =
        (0..100_000).map(|n| (n % 3, 1 + u64::from(n * 7919 % 5), n as usize % 3, true)).collect();
    let (calls, starts) = report(&made);
    let tiling = tile(&calls);
    assert!(holds(&tiling, &starts));
    // At any one time three calls of at most five bytes race, so no place is uncertain by much more.
    let widest = tiling.places.iter().map(|place| place.hi - place.lo).max();
    assert!(widest <= Some(25), "{widest:?}");
}
