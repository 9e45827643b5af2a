//! A map of what the kernel numbers, bounded: it forgets what has not been used for long.

use std::collections::HashMap;

/// Asked several times for every event; the keys are the kernel's own numbers.
pub type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Two generations, of which the older one is dropped when the newer one is full.
pub struct Generations<T> {
    new: FastMap<u64, T>,
    old: FastMap<u64, T>,
    size: usize,
}

impl<T> Generations<T> {
    /// Remembers at least the `size` values that were used last, and at most twice as many.
    pub fn new(size: usize) -> Self {
        Self { new: FastMap::default(), old: FastMap::default(), size }
    }

    pub fn get(&mut self, key: u64) -> Option<&mut T> {
        if !self.new.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.put(key, value);
        }
        self.new.get_mut(&key)
    }

    pub fn put(&mut self, key: u64, value: T) {
        self.old.remove(&key);
        if self.new.len() >= self.size && !self.new.contains_key(&key) {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays() {
        let mut map = Generations::new(4);
        for key in 0..100 {
            map.put(key, key);
            assert_eq!(map.get(0), Some(&mut 0), "{key}");
            assert!(map.new.len() <= 4 && map.old.len() <= 4);
        }
        assert_eq!(map.get(1), None);
        assert_eq!(map.get(99), Some(&mut 99));
    }
}
