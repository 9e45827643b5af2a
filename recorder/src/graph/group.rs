//! Groups events by a key, in order of time within a group, with two `u32` per event and no allocation per group.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::Range;

use crate::event::{Event, EventIndex};

/// The groups, sorted by key: each key with its range of the second vector, which holds the members.
pub(super) type Groups<K> = (Vec<(K, Range<u32>)>, Vec<EventIndex>);

/// Groups the events that have a key, by a counting sort.
pub(super) fn group<K: Copy + Eq + Hash + Ord>(
    events: &[Event],
    key: impl Fn(&Event) -> Option<K>,
) -> Groups<K> {
    const NONE: u32 = u32::MAX;
    let mut index: HashMap<K, u32, BuildHasherDefault<Mix>> = HashMap::default();
    let mut keys: Vec<K> = Vec::new();
    let mut counts: Vec<u32> = Vec::new();
    let mut last: Option<(K, u32)> = None;
    let ids: Vec<u32> = events
        .iter()
        .map(|event| {
            let Some(key) = key(event) else { return NONE };
            let id = match last {
                Some((same, id)) if same == key => id,
                _ => *index.entry(key).or_insert_with(|| {
                    keys.push(key);
                    counts.push(0);
                    (keys.len() - 1) as u32
                }),
            };
            last = Some((key, id));
            counts[id as usize] += 1;
            id
        })
        .collect();
    let mut sorted: Vec<u32> = (0..keys.len() as u32).collect();
    sorted.sort_unstable_by_key(|&id| keys[id as usize]);
    let mut next = vec![0; keys.len()];
    let mut groups = Vec::with_capacity(keys.len());
    let mut total = 0;
    for id in sorted {
        let end = total + counts[id as usize];
        groups.push((keys[id as usize], total..end));
        next[id as usize] = total;
        total = end;
    }
    let mut members = vec![0; total as usize];
    for (event, &id) in ids.iter().enumerate() {
        if id != NONE {
            members[next[id as usize] as usize] = event as EventIndex;
            next[id as usize] += 1;
        }
    }
    (groups, members)
}

/// A hash for small numbers that nobody chooses to collide: a few instructions, since it is paid per event.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
