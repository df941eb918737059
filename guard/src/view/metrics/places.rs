//! Bounded memory for what comes and goes: so many keys have a place of their own, the rest shares one. A key that was not
//! seen for long gives its place up.

use std::collections::HashMap;
use std::hash::Hash;

/// A key that was not seen for this long gives its place up, s of observed time.
const FORGOTTEN_AFTER_S: f64 = 600.0;

/// Values by key, at most so many.
pub(super) struct Places<K, V> {
    limit: usize,
    by_key: HashMap<K, Place<V>>,
    /// What all keys without a place share; `None` when there never was one.
    pub(super) other: Option<V>,
    /// Keys that shared it in this interval; counted by the caller.
    pub(super) in_other: u64,
}

struct Place<V> {
    value: V,
    seen_s: f64,
    /// Whether it may not be taken away for another key.
    fixed: bool,
}

impl<K: Eq + Hash + Ord + Clone, V: Default> Places<K, V> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, by_key: HashMap::new(), other: None, in_other: 0 }
    }

    /// How many keys may have a place.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Begins an interval that ends at `now_s`.
    pub(super) fn begin(&mut self, now_s: f64) {
        self.in_other = 0;
        self.by_key.retain(|_, place| now_s - place.seen_s < FORGOTTEN_AFTER_S);
    }

    /// The value to count a key in, and whether it is its own. A key that `matters` takes the place of the one that does
    /// not and was last seen the longest ago.
    pub(super) fn of(&mut self, key: &K, matters: bool, now_s: f64) -> (&mut V, bool) {
        if !self.by_key.contains_key(key) {
            if self.by_key.len() >= self.limit && matters {
                self.make_room();
            }
            if self.by_key.len() >= self.limit {
                return (self.other(), false);
            }
        }
        let place = self.by_key.entry(key.clone()).or_insert_with(|| Place {
            value: V::default(),
            seen_s: now_s,
            fixed: matters,
        });
        place.seen_s = now_s;
        place.fixed = matters;
        (&mut place.value, true)
    }

    /// The value that keys without a place share.
    pub(super) fn other(&mut self) -> &mut V {
        self.other.get_or_insert_default()
    }

    fn make_room(&mut self) {
        let oldest = |(a, x): &(&K, &Place<V>), (b, y): &(&K, &Place<V>)| x.seen_s.total_cmp(&y.seen_s).then(a.cmp(b));
        let gives_way = self.by_key.iter().filter(|(_, place)| !place.fixed).min_by(oldest).map(|(key, _)| key.clone());
        if let Some(key) = gives_way {
            self.by_key.remove(&key);
        }
    }

    /// All that have a place, in the order of their keys.
    pub(super) fn sorted(&self) -> Vec<(&K, &V)> {
        let mut all: Vec<_> = self.by_key.iter().map(|(key, place)| (key, &place.value)).collect();
        all.sort_by_key(|(key, _)| *key);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(places: &mut Places<&'static str, u64>, key: &'static str, matters: bool, now_s: f64) -> bool {
        let (value, own) = places.of(&key, matters, now_s);
        *value += 1;
        places.in_other += u64::from(!own);
        own
    }

    #[test]
    fn those_without_a_place_share_one() {
        let mut places = Places::new(2);
        places.begin(1.0);
        let own = ["a", "b", "c", "d", "a"].map(|key| count(&mut places, key, false, 1.0));
        assert_eq!(own, [true, true, false, false, true]);
        assert_eq!((places.other, places.in_other), (Some(2), 2));
        places.begin(2.0);
        assert_eq!(places.in_other, 0);
        assert_eq!(places.sorted(), [(&"a", &2), (&"b", &1)]);
    }

    #[test]
    fn what_matters_takes_the_place_of_what_was_not_seen_for_longest() {
        let mut places = Places::new(2);
        count(&mut places, "a", false, 1.0);
        count(&mut places, "b", false, 2.0);
        assert!(count(&mut places, "plc", true, 3.0));
        assert!(!count(&mut places, "a", false, 4.0));
        assert!(count(&mut places, "plc2", true, 5.0));
        assert!(!count(&mut places, "plc3", true, 6.0), "no place is left that may be taken");
    }

    #[test]
    fn a_place_comes_free_when_its_key_is_forgotten() {
        let mut places = Places::new(1);
        count(&mut places, "a", true, 0.0);
        places.begin(FORGOTTEN_AFTER_S - 1.0);
        assert!(!count(&mut places, "b", false, FORGOTTEN_AFTER_S - 1.0));
        places.begin(FORGOTTEN_AFTER_S + 1.0);
        assert!(count(&mut places, "b", false, FORGOTTEN_AFTER_S + 1.0));
    }
}
