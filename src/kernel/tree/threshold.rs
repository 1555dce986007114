//! Exact rewriting of comparisons, so that `f32` and `f64` meet without rounding an answer.

/// The largest `f32` that is not above `value`; NaN for NaN.
pub(crate) fn floor_single(value: f64) -> f32 {
    let near = nearest(value);
    if f64::from(near) > value { near.next_down() } else { near }
}

/// The smallest `f32` that is not below `value`; NaN for NaN.
pub(crate) fn ceil_single(value: f64) -> f32 {
    let near = nearest(value);
    if f64::from(near) < value { near.next_up() } else { near }
}

/// True where the value is an `f32`.
pub(crate) fn is_single(value: f64) -> bool {
    value.is_nan() || f64::from(nearest(value)).to_bits() == value.to_bits()
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is what is wanted")]
const fn nearest(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_and_ceil_enclose_the_value() {
        for value in [0.1, -0.1, 1e-50, -1e-50, 1e300, -1e300, 16_777_217.0, 0.5, f64::INFINITY] {
            let (floor, ceil) = (floor_single(value), ceil_single(value));
            assert!(f64::from(floor) <= value && value <= f64::from(ceil), "{value}");
            assert!(floor == ceil || floor.next_up() == ceil || floor == 0.0 || ceil == 0.0, "{value}");
        }
        assert_eq!(floor_single(1e300), f32::MAX);
        assert!(floor_single(f64::NAN).is_nan());
        assert!(is_single(0.5) && !is_single(0.1));
    }
}
