//! Numbers, durations, times of day and addresses as they are written in a pattern.

use std::net::{IpAddr, Ipv6Addr};

use super::value::{AddressTest, TimeOfDay, masked};

/// Whether it is digits only, which `parse` is not content with: it takes a `+`, too.
pub fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// What a 64-bit column can hold, signed or not.
pub fn number(text: &str) -> Option<i128> {
    let number = match text.strip_prefix('-') {
        Some(rest) if digits(rest) => i128::from(text.parse::<i64>().ok()?),
        _ if digits(text) => i128::from(text.parse::<u64>().ok()?),
        _ => return None,
    };
    Some(number)
}

/// `1.5ms` in nanoseconds; nothing if it is no whole number of them.
pub fn duration_ns(text: &str) -> Option<i128> {
    let split = text.find(|c: char| c.is_alphabetic())?;
    let (amount, unit) = text.split_at(split);
    let unit_digits = match unit {
        "ns" => 0,
        "us" | "µs" | "μs" => 3,
        "ms" => 6,
        "s" => 9,
        _ => return None,
    };
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, "0"));
    // `1.5ms` is 15 with one digit fewer to fill up; a fraction of a nanosecond is not.
    let fraction_kept = fraction.trim_end_matches('0');
    if !digits(whole) || !digits(fraction) || fraction_kept.len() > unit_digits {
        return None;
    }
    let padded = format!("{whole}{fraction_kept:0<unit_digits$}");
    Some(i128::from(padded.parse::<u64>().ok()?))
}

/// `12:00`, `12:00:01` or `12:00:01.204`.
pub fn time_of_day(text: &str) -> Option<TimeOfDay> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (text, None),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let two = |text: &str, limit: u64| {
        let number = (text.len() == 2 && digits(text)).then(|| text.parse::<u64>().ok())??;
        (number < limit).then_some(number)
    };
    let (hours, minutes, seconds, mut length_ns) = match (&parts[..], fraction) {
        ([h, m], None) => (two(h, 24)?, two(m, 60)?, 0, 60_000_000_000),
        ([h, m, s], _) => (two(h, 24)?, two(m, 60)?, two(s, 60)?, 1_000_000_000),
        _ => return None,
    };
    let mut start_ns = (hours * 3600 + minutes * 60 + seconds) * 1_000_000_000;
    if let Some(fraction) = fraction {
        if !digits(fraction) || fraction.len() > 9 {
            return None;
        }
        length_ns = 10u64.pow(9 - fraction.len() as u32);
        start_ns += fraction.parse::<u64>().ok()? * length_ns;
    }
    Some(TimeOfDay { start_ns, length_ns })
}

/// An IPv6 address is tried before a port, since both may begin with a colon.
pub fn address(text: &str) -> Option<AddressTest> {
    if let Some(block) = block(text) {
        return Some(AddressTest { block: Some(block), port: None });
    }
    let (ip, port) = text.rsplit_once(':')?;
    let port = Some(digits(port).then(|| port.parse::<u16>().ok())??);
    if ip.is_empty() || ip == "*" {
        return Some(AddressTest { block: None, port });
    }
    let block = match ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
        Some(ip) => block(ip).filter(|(ip, _)| ip.is_ipv6())?,
        None => block(ip).filter(|(ip, _)| ip.is_ipv4())?,
    };
    Some(AddressTest { block: Some(block), port })
}

fn block(text: &str) -> Option<(IpAddr, u8)> {
    let bare = text.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    if let Some(ip) = bare {
        return Some((IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), 128));
    }
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.parse().ok()?;
    let all = if ip.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(bits) => digits(bits).then(|| bits.parse::<u8>().ok())??,
        None => all,
    };
    Some((masked(ip, bits)?, bits))
}
