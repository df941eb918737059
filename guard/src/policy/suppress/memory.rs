//! Remembers at which allowance best-effort work did harm, so that the allowance does not run into it again and again:
//! it grows to a share of that and no further, until that is forgotten. Each time forgetting proves wrong, it is
//! remembered for twice as long. What swings is thus bounded: so many cuts in an hour as the time doubles in it.

use super::settings::SuppressSettings;

/// What is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// The allowance at which best-effort work last did harm, in thousandths of a CPU, until it is forgotten.
    harmful: Option<u64>,
    /// Until it is forgotten, s.
    left_s: f64,
    /// What `left_s` started from.
    from_s: f64,
    /// Since then, s.
    since_s: f64,
}

impl Memory {
    pub(super) fn pass(&mut self, seconds: f64) {
        self.since_s += seconds;
        self.left_s -= seconds;
        if self.left_s <= 0.0 {
            self.harmful = None;
        }
    }

    /// Best-effort work did harm at this allowance.
    pub(super) fn harm(&mut self, level: u64, settings: &SuppressSettings) {
        if self.harmful.is_none() {
            // Climbing back takes a while too, so "soon" is a few times what it was remembered for.
            let soon = self.from_s > 0.0 && self.since_s < 3.0 * self.from_s;
            self.from_s = if soon { (2.0 * self.from_s).min(settings.forget_max_s) } else { settings.forget_s };
        }
        self.harmful = Some(level);
        self.left_s = self.from_s;
        self.since_s = 0.0;
    }

    /// How far the allowance may grow; `None` for all the way.
    pub(super) fn most(&self, settings: &SuppressSettings) -> Option<u64> {
        self.harmful.map(|level| level.saturating_mul(settings.settle_percent) / 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_soon_is_remembered_for_longer_up_to_a_bound() {
        let settings =
            SuppressSettings { forget_s: 10.0, forget_max_s: 50.0, settle_percent: 80, ..SuppressSettings::default() };
        let mut memory = Memory::default();
        assert_eq!(memory.most(&settings), None);
        for remembered_s in [10.0, 20.0, 40.0, 50.0, 50.0] {
            memory.harm(1000, &settings);
            memory.pass(remembered_s - 1.0);
            assert_eq!(memory.most(&settings), Some(800), "{remembered_s} s");
            // Worse while it is remembered does not double it.
            memory.harm(500, &settings);
            memory.pass(remembered_s - 1.0);
            assert_eq!(memory.most(&settings), Some(400), "{remembered_s} s");
            memory.pass(1.0);
            assert_eq!(memory.most(&settings), None, "{remembered_s} s");
            memory.pass(1.0);
        }
        memory.pass(200.0);
        memory.harm(1000, &settings);
        memory.pass(10.0);
        assert_eq!(memory.most(&settings), None, "a new reason starts anew");
    }
}
