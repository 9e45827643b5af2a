//! How far one clock is from another, in words.

/// `1.20 .. 1.35 ms ahead of`, `at most 3.10 ms behind`, `0.05 ms behind to 0.10 ms ahead of`: an interval, rounded
/// outward to two digits of its width. `None` at both ends: nothing is known.
pub fn ahead(low_ns: Option<i128>, high_ns: Option<i128>) -> Option<String> {
    let told = match (low_ns, high_ns) {
        (None, None) => return None,
        (Some(low), None) if low >= 0 => format!("at least {} ahead of", one(low)),
        (Some(low), None) => format!("at most {} behind", one(low)),
        (None, Some(high)) if high >= 0 => format!("at most {} ahead of", one(high)),
        (None, Some(high)) => format!("at least {} behind", one(high)),
        (Some(low), Some(high)) => both(low, high),
    };
    Some(told)
}

fn both(low: i128, high: i128) -> String {
    let digits = (high - low).max(1).ilog10().saturating_sub(1);
    let step = 10_i128.pow(digits);
    let (low, high) = (low.div_euclid(step) * step, -(-high).div_euclid(step) * step);
    let unit = Unit::of(low.abs().max(high.abs()));
    let told = |ns: i128| unit.told(ns.abs(), digits);
    match () {
        () if low >= 0 => format!("{} .. {} {} ahead of", told(low), told(high), unit.name),
        () if high <= 0 => format!("{} .. {} {} behind", told(high), told(low), unit.name),
        () => {
            let name = unit.name;
            format!("{} {name} behind to {} {name} ahead of", told(low), told(high))
        }
    }
}

/// Three digits of a bound's size.
fn one(ns: i128) -> String {
    let ns = ns.abs();
    let digits = ns.max(1).ilog10().saturating_sub(2);
    let unit = Unit::of(ns);
    format!("{} {}", unit.told(ns, digits), unit.name)
}

struct Unit {
    name: &'static str,
    /// Digits that it has more than a nanosecond.
    digits: u32,
}

impl Unit {
    const fn of(ns: i128) -> Self {
        let (name, digits) = match ns {
            0..1_000 => ("ns", 0),
            1_000..1_000_000 => ("µs", 3),
            1_000_000..1_000_000_000 => ("ms", 6),
            _ => ("s", 9),
        };
        Self { name, digits }
    }

    /// In this unit, without digits that mean nothing.
    fn told(&self, ns: i128, meaningless: u32) -> String {
        let whole = ns / 10_i128.pow(self.digits);
        let decimals = self.digits.saturating_sub(meaningless) as usize;
        if decimals == 0 {
            return whole.to_string();
        }
        let rest = ns % 10_i128.pow(self.digits) / 10_i128.pow(meaningless);
        format!("{whole}.{rest:0decimals$}")
    }
}

#[cfg(test)]
mod tests {
    use super::ahead;

    #[test]
    fn intervals_in_words() {
        for (low, high, told) in [
            (Some(1_203_456), Some(1_351_234), "1.20 .. 1.36 ms ahead of"),
            (Some(-1_351_234), Some(-1_203_456), "1.20 .. 1.36 ms behind"),
            (Some(-48_000), Some(101_000), "50 µs behind to 110 µs ahead of"),
            (Some(-48), Some(101), "50 ns behind to 110 ns ahead of"),
            (Some(5), Some(5), "5 .. 5 ns ahead of"),
            (Some(0), Some(7), "0 .. 7 ns ahead of"),
            (
                Some(631_152_000_000_123_456),
                Some(631_152_000_000_217_001),
                "631152000.000123 .. 631152000.000218 s ahead of",
            ),
            (Some(2_000_000_000), Some(90_000_000_000), "2 .. 90 s ahead of"),
            (Some(1_234_567), None, "at least 1.23 ms ahead of"),
            (Some(-1_234_567), None, "at most 1.23 ms behind"),
            (None, Some(12_345), "at most 12.3 µs ahead of"),
            (None, Some(-12_345), "at least 12.3 µs behind"),
        ] {
            assert_eq!(ahead(low, high).as_deref(), Some(told));
        }
        assert_eq!(ahead(None, None), None);
        let most = i128::from(u64::MAX) * 2;
        assert!(ahead(Some(-most), Some(most)).is_some());
    }
}
