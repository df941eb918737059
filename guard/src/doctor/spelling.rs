//! Which word of a list somebody meant who wrote another that is almost it. Pure.

/// Shorter words are too near to each other for a slip of the pen to be told from another word.
const SHORTEST: usize = 7;
/// Slips that are believed.
const MOST_SLIPS: usize = 2;

/// The word of a list that is almost this one; `None` when this one is in the list, or like none of it.
pub(super) fn meant(word: &str, list: &[&'static str]) -> Option<&'static str> {
    if list.contains(&word) {
        return None;
    }
    let near = list.iter().filter(|known| known.len() >= SHORTEST).map(|known| (slips(word, known), *known));
    near.filter(|(slips, _)| *slips <= MOST_SLIPS).min().map(|(_, known)| known)
}

/// How many letters are wrong, missing, too many, or swapped with their neighbour.
fn slips(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    // Rows of the table of distances between the beginnings of both.
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for i in 1..=one.len() {
        let mut next = vec![i; other.len() + 1];
        for j in 1..=other.len() {
            let changed = row[j - 1] + usize::from(one[i - 1] != other[j - 1]);
            next[j] = changed.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                next[j] = next[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIST: [&str; 5] = ["threadirqs", "hugepages", "hugepagesz", "skew_tick", "idle"];

    #[test]
    fn a_slip_of_the_pen_is_told_from_another_word() {
        for (word, wanted) in [
            ("threadirq", Some("threadirqs")),
            ("thraedirqs", Some("threadirqs")),
            ("threadirqsx", Some("threadirqs")),
            ("skewtick", Some("skew_tick")),
            ("skew_tikc", Some("skew_tick")),
            ("hugepagez", Some("hugepages")),
            ("hugepagesz", None),
            ("idel", None),
            ("quiet", None),
            ("", None),
        ] {
            assert_eq!(meant(word, &LIST), wanted, "{word}");
        }
        assert_eq!((slips("skew", "skew"), slips("", "abc"), slips("ab", "ba"), slips("abc", "cab")), (0, 3, 1, 2));
    }

    proptest! {
        #[test]
        fn slips_count_the_same_from_both_sides(one in "[a-d]{0,8}", other in "[a-d]{0,8}") {
            prop_assert_eq!(slips(&one, &other), slips(&other, &one));
            prop_assert_eq!(slips(&one, &other) == 0, one == other);
        }
    }
}
