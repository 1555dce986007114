//! Dilation of pictures: in each window the largest sum of the picture and the filter.

use super::super::api::{
    DatumType, EngineTensor, IntoTValue, OutletId, TDim, TypedFact, bail, tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::wiring::{Wired, Wiring, invalid, two};
use super::{Handler, WiringError};

pub(super) fn handler(op: &str) -> Option<Handler> {
    (op == "Dilation2D").then_some(dilation as Handler)
}

/// One axis of the picture.
#[derive(Clone, Copy)]
struct Axis {
    stride: usize,
    /// How far the taps of the filter lie apart.
    rate: usize,
    taps: usize,
    is_padded: bool,
}

impl Axis {
    /// How many places there are for so many pixels, and how many pixels are missing before the first.
    const fn places(self, size: usize) -> (usize, usize) {
        let extent = (self.taps.saturating_sub(1)).saturating_mul(self.rate).saturating_add(1);
        if !self.is_padded {
            return ((size + self.stride).saturating_sub(extent) / self.stride, 0);
        }
        let places = size.div_ceil(self.stride);
        let needed = places.saturating_sub(1).saturating_mul(self.stride).saturating_add(extent);
        (places, needed.saturating_sub(size) / 2)
    }

    /// The pixel at a tap of a place, where there is one.
    fn pixel(self, place: usize, tap: usize, before: usize, size: usize) -> Option<usize> {
        (place * self.stride + tap * self.rate).checked_sub(before).filter(|at| *at < size)
    }
}

fn dilation(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (x, filter) = two(inputs)?;
    let (dims, window) = (w.dims(x)?, w.concrete_dims(filter)?);
    let ([batch, height, width, channels], [rows, columns, _]) = (dims.as_slice(), window.as_slice()) else {
        return Err(invalid("a picture of four dimensions and a filter of three expected"));
    };
    if w.datum(x)? != DatumType::F32 {
        return Err(WiringError::Unsupported);
    }
    let steps = |name: &str, axis: usize| {
        let step = node.attributes.ints(name).and_then(|steps| steps.get(axis).copied()).unwrap_or(1);
        let step = usize::try_from(step).ok().filter(|step| (1..1 << 16).contains(step));
        step.ok_or_else(|| invalid(format!("{name} are out of range")))
    };
    let is_padded = node.attributes.text("padding") == Some("SAME");
    let axis = |at: usize, taps: usize| -> Result<Axis, WiringError> {
        Ok(Axis { stride: steps("strides", at)?, rate: steps("rates", at)?, taps, is_padded })
    };
    let axes = [axis(1, *rows)?, axis(2, *columns)?];
    let size = |dim: &TDim, axis: Axis| {
        let size = dim.as_i64().and_then(|d| usize::try_from(d).ok()).ok_or(WiringError::Unsupported)?;
        Ok::<_, WiringError>(TDim::from(axis.places(size).0))
    };
    let out = [batch.clone(), size(height, axes[0])?, size(width, axes[1])?, channels.clone()];
    let op =
        Computed::giving("Dilation2D", tvec!(TypedFact::dt_shape(DatumType::F32, &out)), move |values| {
            let [x, filter] = values else { bail!("two inputs expected") };
            let out = dilated(x, filter, axes)?;
            Ok(tvec!(out.into_tvalue()))
        });
    Ok(tvec!(w.one(op, &[x, filter])?))
}

fn dilated(
    x: &EngineTensor,
    filter: &EngineTensor,
    [down, right]: [Axis; 2],
) -> super::super::api::TractResult<EngineTensor> {
    let [batch, height, width, channels] = *x.shape() else { bail!("a picture expected") };
    let (plain, plain_filter) = (x.try_as_plain_ram()?, filter.try_as_plain_ram()?);
    let (pixels, taps) = (plain.as_slice::<f32>()?, plain_filter.as_slice::<f32>()?);
    let ((rows, above), (columns, left)) = (down.places(height), right.places(width));
    let mut out = Vec::with_capacity(batch * rows * columns * channels);
    for place in 0..batch * rows * columns {
        let (image, row, column) = (place / (rows * columns), place / columns % rows, place % columns);
        let mut best = vec![f32::MIN; channels];
        for tap in 0..down.taps * right.taps {
            let y = down.pixel(row, tap / right.taps, above, height);
            let x = right.pixel(column, tap % right.taps, left, width);
            let (Some(y), Some(x)) = (y, x) else { continue };
            let from = ((image * height + y) * width + x) * channels;
            let pixel = pixels.get(from..from + channels).unwrap_or_default();
            let tap = taps.get(tap * channels..(tap + 1) * channels).unwrap_or_default();
            for ((best, pixel), tap) in best.iter_mut().zip(pixel).zip(tap) {
                if pixel + tap > *best {
                    *best = pixel + tap;
                }
            }
        }
        out.extend(best);
    }
    Ok(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(&[batch, rows, columns, channels][..], out)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_sum_of_each_window_is_taken() {
        // tf.nn.dilation2d of 0..9 as 3 by 3, with [[0, 1], [0, 0]], SAME, stride 1
        let x: Vec<f32> = (0..9_u8).map(f32::from).collect();
        let x = EngineTensor::from_shape(&[1, 3, 3, 1], &x).unwrap();
        let filter = EngineTensor::from_shape(&[2, 2, 1], &[0.0_f32, 1.0, 0.0, 0.0]).unwrap();
        let axis = Axis { stride: 1, rate: 1, taps: 2, is_padded: true };
        let out = dilated(&x, &filter, [axis; 2]).unwrap();
        let values = out.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec();
        assert_eq!(values, [4.0, 5.0, 5.0, 7.0, 8.0, 8.0, 8.0, 9.0, 8.0]);
    }
}
