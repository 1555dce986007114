//! Resizing of images by cubic weights, and by the areas that pixels share.

use super::super::api::{
    Datum, DatumType, EngineTensor, IntoTValue, OutletId, TDim, TVec, TypedFact, bail, tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::Handler;
use super::computed::Computed;
use super::wiring::{Wired, Wiring, first, input, invalid};

/// In how many steps TensorFlow tabulates its cubic weights.
const STEPS: f32 = 1024.0;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "ResizeBicubic" => |w, n, i| resize(w, n, i, cubic),
        "ResizeArea" => |w, n, i| resize(w, n, i, area),
        _ => return None,
    })
}

/// For one place of the result, the places that it is made of and what each counts.
type Taps = Vec<(usize, f32)>;

/// How one dimension changes.
#[derive(Clone, Copy)]
struct Change {
    from: usize,
    to: usize,
    align_corners: bool,
    half_pixel: bool,
}

impl Change {
    fn scale(self) -> f32 {
        if self.align_corners && self.to > 1 {
            (self.from - 1) as f32 / (self.to - 1) as f32
        } else {
            self.from as f32 / self.to as f32
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of images; computed in f32 as TensorFlow does"
)]
fn cubic(change: Change, at: usize) -> Taps {
    let at = at as f32;
    let place = if change.half_pixel { (at + 0.5) * change.scale() - 0.5 } else { at * change.scale() };
    let floor = place.floor();
    // Keys's weights where the centres of pixels are meant, else those of the older operator.
    let a = if change.half_pixel { -0.5 } else { -0.75 };
    let step = ((place - floor) * STEPS).round_ties_even() / STEPS;
    let near = |x: f32| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((a * (x + 1.0) - 5.0 * a) * (x + 1.0) + 8.0 * a) * (x + 1.0) - 4.0 * a;
    let weights = [far(step), near(step), near(1.0 - step), far(1.0 - step)];
    let last = change.from.saturating_sub(1);
    let mut taps: Taps = Vec::with_capacity(4);
    for (offset, weight) in [-1.0, 0.0, 1.0, 2.0].into_iter().zip(weights) {
        let wanted = floor + offset;
        let inside = wanted >= 0.0 && wanted <= last as f32;
        if inside || !change.half_pixel {
            taps.push(((wanted.max(0.0) as usize).min(last), weight));
        }
    }
    let sum: f32 = taps.iter().map(|(_, weight)| weight).sum();
    if change.half_pixel && sum.abs() > 1e-3 {
        taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }
    taps
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of images; computed in f32 as TensorFlow does"
)]
fn area(change: Change, at: usize) -> Taps {
    let scale = change.scale();
    let (start, end) = (at as f32 * scale, (at + 1) as f32 * scale);
    let last = change.from.saturating_sub(1);
    let places = start.floor() as usize..end.ceil() as usize;
    let weight = |place: usize| {
        let (left, right) = (place as f32, (place + 1) as f32);
        (right.min(end) - left.max(start)) / scale
    };
    places.map(|place| (place.min(last), weight(place))).collect()
}

fn resize(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId], taps: fn(Change, usize) -> Taps) -> Wired {
    let x = w.plain(first(inputs)?)?;
    let sizes = w.konst_ints(input(inputs, 1)?)?;
    let dims = w.dims(x)?;
    let [batch, height, width, channels] = dims.as_slice() else {
        return Err(invalid("an image of four dimensions expected"));
    };
    let known = |d: &TDim| d.as_i64().and_then(|d| usize::try_from(d).ok()).filter(|d| *d > 0);
    let size =
        |at: usize| sizes.get(at).and_then(|s| usize::try_from(*s).ok()).filter(|s| (1..1 << 16).contains(s));
    let flag = |name: &str| node.attributes.bool(name).unwrap_or(false);
    let change = |from, to| Change {
        from,
        to,
        align_corners: flag("align_corners"),
        half_pixel: flag("half_pixel_centers"),
    };
    let (Some(height), Some(width), Some(rows), Some(columns)) =
        (known(height), known(width), size(0), size(1))
    else {
        return Err(invalid("the sizes have to be known"));
    };
    let all = |change: Change| (0..change.to).map(|at| taps(change, at)).collect::<Vec<Taps>>();
    let (down, along) = (all(change(height, rows)), all(change(width, columns)));
    let x = w.cast(x, DatumType::F32)?;
    let out: TVec<TDim> = tvec!(batch.clone(), rows.into(), columns.into(), channels.clone());
    let op =
        Computed::giving("Resize", tvec!(TypedFact::dt_shape(f32::datum_type(), &*out)), move |values| {
            let [x] = values else { bail!("one input expected") };
            let [batch, height, width, channels] = *x.shape() else { bail!("an image expected") };
            let plain = x.try_as_plain_ram()?;
            let pixels = plain.as_slice::<f32>()?;
            let mut out = Vec::with_capacity(batch * down.len() * along.len() * channels);
            let mut sum = vec![0.0_f32; channels];
            for image in 0..batch {
                for row in &down {
                    for column in &along {
                        sum.fill(0.0);
                        for (y, vertical) in row {
                            for (x, horizontal) in column {
                                let start = ((image * height + y) * width + x) * channels;
                                let pixel = pixels.get(start..start + channels).unwrap_or_default();
                                let weight = vertical * horizontal;
                                sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += weight * value);
                            }
                        }
                        out.extend_from_slice(&sum);
                    }
                }
            }
            let shape = vec![batch, down.len(), along.len(), channels];
            Ok(tvec!(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(shape, out)?).into_tvalue()))
        });
    Ok(tvec!(w.one(op, &[x])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_the_filters() {
        let half = Change { from: 4, to: 8, align_corners: false, half_pixel: true };
        let taps = cubic(half, 4);
        assert_eq!(taps.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
        // Keys's cubic at 0.75.
        let expected = [-0.023_437_5, 0.226_562_5, 0.867_187_5, -0.070_312_5];
        assert!(taps.iter().zip(expected).all(|(tap, weight)| (tap.1 - weight).abs() < 1e-6), "{taps:?}");
        let third = Change { from: 3, to: 2, align_corners: false, half_pixel: false };
        assert_eq!(area(third, 0), [(0, 1.0 / 1.5), (1, 0.5 / 1.5)]);
    }
}
