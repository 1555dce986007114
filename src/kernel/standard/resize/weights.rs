//! Which elements along an axis make one element of the result, and with what weights.

use smallvec::{SmallVec, smallvec};

use crate::kernel::{BuildError, Node};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Filter {
    Nearest,
    Linear,
    Cubic,
}

/// How a position of the result becomes one of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    HalfPixelForNearest,
    CropAndResize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

/// What a node says of its interpolation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) filter: Filter,
    coordinates: Coordinates,
    rounding: Rounding,
    cubic_a: f64,
    excludes_outside: bool,
    antialias: bool,
}

/// One element of the result.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lane {
    /// Positions in the input and their weights.
    pub(super) taps: SmallVec<[(usize, f64); 4]>,
    /// The position lies beyond the input, where the extrapolation value is.
    pub(super) outside: bool,
}

/// True where the lanes are the elements of an axis of this size as they are.
pub(super) fn is_identity(lanes: &[Lane], size: usize) -> bool {
    lanes.len() == size
        && lanes.iter().enumerate().all(|(i, lane)| {
            !lane.outside && matches!(lane.taps.as_slice(), [(at, weight)] if *at == i && *weight == 1.0)
        })
}

impl Rule {
    pub(super) fn new(node: &Node<'_>) -> Result<Self, BuildError> {
        let unknown =
            |name: &str, found: &str| BuildError::invalid(format!("attribute `{name}`: found `{found}`"));
        let coordinates =
            match node.attributes.string("coordinate_transformation_mode")?.unwrap_or("half_pixel") {
                "half_pixel" => Coordinates::HalfPixel,
                "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
                "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
                "align_corners" => Coordinates::AlignCorners,
                "asymmetric" => Coordinates::Asymmetric,
                "tf_half_pixel_for_nn" => Coordinates::HalfPixelForNearest,
                "tf_crop_and_resize" => Coordinates::CropAndResize,
                other => return Err(unknown("coordinate_transformation_mode", other)),
            };
        let rounding = match node.attributes.string("nearest_mode")?.unwrap_or("round_prefer_floor") {
            "round_prefer_floor" => Rounding::PreferFloor,
            "round_prefer_ceil" => Rounding::PreferCeil,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => return Err(unknown("nearest_mode", other)),
        };
        Ok(Self {
            filter: filter(node)?,
            coordinates,
            rounding,
            cubic_a: f64::from(node.attributes.float("cubic_coeff_a")?.unwrap_or(-0.75)),
            excludes_outside: node.attributes.int("exclude_outside")?.unwrap_or(0) != 0,
            antialias: node.attributes.int("antialias")?.unwrap_or(0) != 0,
        })
    }

    /// The rule of Upsample and of the first version of Resize.
    pub(super) fn asymmetric(node: &Node<'_>) -> Result<Self, BuildError> {
        Ok(Self {
            filter: filter(node)?,
            coordinates: Coordinates::Asymmetric,
            rounding: Rounding::Floor,
            cubic_a: -0.75,
            excludes_outside: false,
            antialias: false,
        })
    }

    /// The elements of a result of `out` elements along an axis of `size`.
    pub(super) fn lanes(&self, size: usize, out: usize, scale: f64, roi: (f64, f64)) -> Vec<Lane> {
        (0..out).map(|at| self.lane(at, size, out, scale, roi)).collect()
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes are small")]
    fn lane(&self, at: usize, size: usize, out: usize, scale: f64, roi: (f64, f64)) -> Lane {
        let x = self.source(at, size, out, scale, roi);
        let outside =
            self.coordinates == Coordinates::CropAndResize && !(0.0..=(size as f64 - 1.0)).contains(&x);
        let last = size.saturating_sub(1);
        let clamp = |at: f64| (at.max(0.0) as usize).min(last);
        let shrink = if self.antialias { scale.min(1.0) } else { 1.0 };
        let (reach, weight): (f64, &dyn Fn(f64) -> f64) = match self.filter {
            Filter::Nearest => {
                return Lane { taps: smallvec![(clamp(self.rounded(x)), 1.0)], outside };
            }
            Filter::Linear => (1.0 / shrink, &|d: f64| (1.0 - (d * shrink).abs()).max(0.0)),
            Filter::Cubic => (2.0 / shrink, &|d: f64| cubic((d * shrink).abs(), self.cubic_a)),
        };
        let mut taps: SmallVec<[(usize, f64); 4]> = SmallVec::new();
        let excludes = self.excludes_outside;
        let mut total = 0.0;
        let (from, to) = ((x - reach).floor() as i64, (x + reach).ceil() as i64);
        for i in from..=to {
            let weight = weight(i as f64 - x);
            let inside = (0..size as i64).contains(&i);
            if weight == 0.0 || (excludes && !inside) {
                continue;
            }
            total += weight;
            let place = clamp(i as f64);
            match taps.iter_mut().find(|(at, _)| *at == place) {
                Some((_, sum)) => *sum += weight,
                None => taps.push((place, weight)),
            }
        }
        // A widened filter is sampled, and its samples do not add up to one by themselves.
        if (excludes || self.antialias) && total != 0.0 {
            taps.iter_mut().for_each(|(_, weight)| *weight /= total);
        }
        Lane { taps, outside }
    }

    /// In single precision, as the other implementations compute it: where a position comes out as
    /// a whole number, and where just below, decides which element is the nearest.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "sizes are small")]
    fn source(&self, x: usize, size: usize, out: usize, scale: f64, roi: (f64, f64)) -> f64 {
        let (x, size, length, scale) = (x as f32, size as f32, out as f32, scale as f32);
        let (start, end) = (roi.0 as f32, roi.1 as f32);
        f64::from(match self.coordinates {
            Coordinates::HalfPixel => (x + 0.5) / scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = length / (scale * size);
                let offset = size / 2.0 * (1.0 - adjustment);
                offset + (x + 0.5) / scale - 0.5
            }
            Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if out <= 1 => 0.0,
            Coordinates::PytorchHalfPixel => (x + 0.5) / scale - 0.5,
            Coordinates::AlignCorners => x * (size - 1.0) / (length - 1.0),
            Coordinates::Asymmetric => x / scale,
            Coordinates::HalfPixelForNearest => (x + 0.5) / scale,
            Coordinates::CropAndResize if out <= 1 => 0.5 * (start + end) * (size - 1.0),
            Coordinates::CropAndResize => {
                start * (size - 1.0) + x * (end - start) * (size - 1.0) / (length - 1.0)
            }
        })
    }

    fn rounded(&self, x: f64) -> f64 {
        match self.rounding {
            Rounding::Floor => x.floor(),
            Rounding::Ceil => x.ceil(),
            Rounding::PreferFloor => (x - 0.5).ceil(),
            Rounding::PreferCeil => (x + 0.5).floor(),
        }
    }
}

fn filter(node: &Node<'_>) -> Result<Filter, BuildError> {
    match node.attributes.string("mode")?.unwrap_or("nearest") {
        "nearest" => Ok(Filter::Nearest),
        "linear" | "bilinear" => Ok(Filter::Linear),
        "cubic" => Ok(Filter::Cubic),
        other => Err(BuildError::invalid(format!("attribute `mode`: found `{other}`"))),
    }
}

/// Keys' convolution kernel, IEEE Transactions on Acoustics, Speech and Signal Processing 29(6), 1981.
fn cubic(d: f64, a: f64) -> f64 {
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(filter: Filter, coordinates: Coordinates) -> Rule {
        Rule {
            filter,
            coordinates,
            rounding: Rounding::PreferFloor,
            cubic_a: -0.75,
            excludes_outside: false,
            antialias: false,
        }
    }

    #[test]
    fn a_linear_doubling_lies_between_the_elements_and_stops_at_the_edges() {
        let lanes = rule(Filter::Linear, Coordinates::HalfPixel).lanes(2, 4, 2.0, (0.0, 1.0));
        let value =
            |lane: &Lane| lane.taps.iter().map(|(at, w)| if *at == 0 { 1.0 * w } else { 3.0 * w }).sum();
        let values: Vec<f64> = lanes.iter().map(value).collect();
        assert_eq!(values, [1.0, 1.5, 2.5, 3.0]);
    }

    #[test]
    fn a_half_is_rounded_to_the_lower_one_where_that_is_preferred() {
        let lanes = rule(Filter::Nearest, Coordinates::Asymmetric).lanes(3, 6, 2.0, (0.0, 1.0));
        let places: Vec<usize> = lanes.iter().map(|lane| lane.taps[0].0).collect();
        assert_eq!(places, [0, 0, 1, 1, 2, 2]);
        assert!(is_identity(&rule(Filter::Cubic, Coordinates::HalfPixel).lanes(5, 5, 1.0, (0.0, 1.0)), 5));
    }

    #[test]
    fn a_position_beyond_a_crop_is_outside() {
        let lanes = rule(Filter::Linear, Coordinates::CropAndResize).lanes(4, 2, 0.5, (0.5, 2.0));
        assert_eq!(lanes.iter().map(|lane| lane.outside).collect::<Vec<_>>(), [false, true]);
    }
}
