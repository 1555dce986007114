//! Sets of values for membership tests.

/// A set of feature values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Set {
    /// Whole numbers from 0; a value is cut to a whole number before it is looked up, negative
    /// ones are in no set. So the tree libraries treat categories.
    Categories(Vec<u32>),
    /// Exact values, sorted.
    Exact(Vec<f64>),
}

/// Categories from here on would make the bits of a set large; the libraries stay below, too.
pub(crate) const MAX_CATEGORY: u32 = 1 << 24;

impl Set {
    /// A set of categories from the bits of 32-bit words, lowest first.
    pub(crate) const fn from_words(words: Vec<u32>) -> Self {
        Self::Categories(words)
    }

    /// A set of categories, each below [`MAX_CATEGORY`]; larger ones are left out, no value
    /// reaches them.
    pub(crate) fn from_categories(categories: impl IntoIterator<Item = u32>) -> Self {
        let mut words = Vec::new();
        for category in categories.into_iter().filter(|c| *c < MAX_CATEGORY) {
            let word = category as usize / 32;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            if let Some(word) = words.get_mut(word) {
                *word |= 1 << (category % 32);
            }
        }
        Self::Categories(words)
    }

    /// A set of exact values; NaN is left out.
    pub(crate) fn from_values(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().filter(|v| !v.is_nan()).map(|v| v + 0.0).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        Self::Exact(values)
    }

    /// True where the value is in the set; never for NaN.
    pub(crate) fn contains(&self, value: f64) -> bool {
        match self {
            Self::Categories(words) => {
                // Above -1, so that -0.5 is cut to category 0.
                if !(value > -1.0 && value < f64::from(u32::MAX)) {
                    return false;
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
                let category = value as u32;
                words.get(category as usize / 32).is_some_and(|word| word >> (category % 32) & 1 == 1)
            }
            Self::Exact(values) => {
                !value.is_nan() && values.binary_search_by(|v| v.total_cmp(&(value + 0.0))).is_ok()
            }
        }
    }

    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Categories(words) => words.len() * size_of::<u32>(),
            Self::Exact(values) => values.len() * size_of::<f64>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_category_is_cut_to_a_whole_number() {
        let set = Set::from_categories([0, 3, 40]);
        for member in [0.0, -0.0, 0.9, 3.0, 3.99, 40.5] {
            assert!(set.contains(member), "{member}");
        }
        for other in [1.0, -1.0, 4.0, 41.0, 1e9, 1e300, f64::NAN, f64::INFINITY] {
            assert!(!set.contains(other), "{other}");
        }
    }

    #[test]
    fn an_exact_set_has_its_values_and_no_other() {
        let set = Set::from_values([2.5, -1.0, 0.0, f64::NAN, 2.5]);
        assert!(set.contains(2.5) && set.contains(-1.0) && set.contains(-0.0));
        assert!(!set.contains(2.0) && !set.contains(f64::NAN));
    }

    #[test]
    fn a_huge_category_takes_no_memory() {
        assert_eq!(Set::from_categories([u32::MAX]).memory(), 0);
    }
}
