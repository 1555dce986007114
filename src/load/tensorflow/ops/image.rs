//! Resizing of images, and moving depth into space.

use super::super::api::{
    Datum, DatumType, EngineTensor, IntoTValue, OutletId, TDim, TVec, TypedFact, bail, tract_core,
    tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::wiring::{Wired, Wiring, first, input, invalid};
use super::{Handler, WiringError};
use tract_core::ops::array::Gather;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "ResizeBilinear" => |w, n, i| resize(w, n, i, true),
        "ResizeNearestNeighbor" => |w, n, i| resize(w, n, i, false),
        "DepthToSpace" => |w, n, i| depth(w, n, i, true),
        "SpaceToDepth" => |w, n, i| depth(w, n, i, false),
        _ => return None,
    })
}

/// For one place of the result: two places of the input, and how much the second one counts.
type Tap = (usize, usize, f32);

/// Where the places of the result lie in the input, as TensorFlow's three conventions have it.
#[derive(Clone, Copy)]
struct Convention {
    align_corners: bool,
    half_pixel: bool,
    bilinear: bool,
}

impl Convention {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes of images; computed in f32 as TensorFlow does, so that the same pixels are chosen"
    )]
    fn taps(self, from: usize, to: usize) -> Vec<Tap> {
        let scale = if self.align_corners && to > 1 {
            (from - 1) as f32 / (to - 1) as f32
        } else {
            from as f32 / to as f32
        };
        let last = from.saturating_sub(1);
        let tap = |at: usize| {
            let at = at as f32;
            if self.bilinear {
                let place = if self.half_pixel { (at + 0.5) * scale - 0.5 } else { at * scale };
                let floor = place.floor();
                let low = floor.max(0.0) as usize;
                let high = (place.ceil().max(0.0) as usize).min(last);
                (low.min(last), high, place - floor)
            } else {
                let place = if self.half_pixel { (at + 0.5) * scale } else { at * scale };
                let place = if self.align_corners { place.round() } else { place.floor() };
                let place = (place.max(0.0) as usize).min(last);
                (place, place, 0.0)
            }
        };
        (0..to).map(tap).collect()
    }
}

fn resize(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId], bilinear: bool) -> Wired {
    let x = first(inputs)?;
    let sizes = w.konst_ints(input(inputs, 1)?)?;
    let dims = w.dims(x)?;
    let [batch, height, width, channels] = dims.as_slice() else {
        return Err(invalid("an image of four dimensions expected"));
    };
    let known = |d: &TDim| d.as_i64().and_then(|d| usize::try_from(d).ok()).filter(|d| *d > 0);
    let size =
        |at: usize| sizes.get(at).and_then(|s| usize::try_from(*s).ok()).filter(|s| (1..1 << 20).contains(s));
    let (Some(height), Some(width), Some(to_height), Some(to_width)) =
        (known(height), known(width), size(0), size(1))
    else {
        return Err(invalid("the sizes have to be known"));
    };
    let flag = |name: &str| node.attributes.bool(name).unwrap_or(false);
    let convention =
        Convention { align_corners: flag("align_corners"), half_pixel: flag("half_pixel_centers"), bilinear };
    let (rows, columns) = (convention.taps(height, to_height), convention.taps(width, to_width));
    if !bilinear {
        let places = |taps: &[Tap]| taps.iter().map(|t| i64::try_from(t.0).unwrap_or(0)).collect::<Vec<_>>();
        let down = w.tensor(super::super::api::tensor1(&places(&rows)))?;
        let along = w.tensor(super::super::api::tensor1(&places(&columns)))?;
        let x = w.one(Gather { axis: 1, output_type: None }, &[x, down])?;
        return Ok(tvec!(w.one(Gather { axis: 2, output_type: None }, &[x, along])?));
    }
    let x = w.plain(x)?;
    let x = w.cast(x, DatumType::F32)?;
    let out: TVec<TDim> = tvec!(batch.clone(), to_height.into(), to_width.into(), channels.clone());
    let op = Computed::new(
        "ResizeBilinear",
        move |_| Ok(tvec!(TypedFact::dt_shape(f32::datum_type(), &*out))),
        move |values| {
            let [x] = values else { bail!("one input expected") };
            Ok(tvec!(bilinear_of(x, &rows, &columns)?.into_tvalue()))
        },
    );
    Ok(tvec!(w.one(op, &[x])?))
}

fn bilinear_of(
    x: &EngineTensor,
    rows: &[Tap],
    columns: &[Tap],
) -> super::super::api::TractResult<EngineTensor> {
    let [batch, height, width, channels] = *x.shape() else { bail!("an image expected") };
    let plain = x.try_as_plain_ram()?;
    let values = plain.as_slice::<f32>()?;
    let mut out = Vec::with_capacity(batch * rows.len() * columns.len() * channels);
    let pixel = |image: usize, row: usize, column: usize| {
        let start = ((image * height + row) * width + column) * channels;
        values.get(start..start + channels).unwrap_or(&[])
    };
    for image in 0..batch {
        for (top, bottom, down) in rows {
            for (left, right, along) in columns {
                let above = pixel(image, *top, *left).iter().zip(pixel(image, *top, *right));
                let below = pixel(image, *bottom, *left).iter().zip(pixel(image, *bottom, *right));
                for ((a, b), (c, d)) in above.zip(below) {
                    let (upper, lower) = (a + (b - a) * along, c + (d - c) * along);
                    out.push(upper + (lower - upper) * down);
                }
            }
        }
    }
    Ok(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(
        vec![batch, rows.len(), columns.len(), channels],
        out,
    )?))
}

/// Blocks of space out of depth, or into it.
fn depth(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId], to_space: bool) -> Wired {
    let x = first(inputs)?;
    if node.attributes.text("data_format").is_some_and(|f| f != "NHWC") {
        return Err(WiringError::Unsupported);
    }
    let block = node.attributes.int("block_size").filter(|b| (1..1 << 12).contains(b));
    let block = block.ok_or_else(|| invalid("the block size is malformed"))?;
    let dims = w.dims(x)?;
    let [n, h, v, c] = dims.as_slice() else { return Err(invalid("an image of four dimensions expected")) };
    let (n, h, v, c, b) = (n.clone(), h.clone(), v.clone(), c.clone(), TDim::from(block));
    let (split, permutation, merged): (TVec<TDim>, [usize; 6], TVec<TDim>) = if to_space {
        let inner = c / (block * block);
        let merged = tvec!(n.clone(), h.clone() * block, v.clone() * block, inner.clone());
        (tvec!(n, h, v, b.clone(), b, inner), [0, 1, 3, 2, 4, 5], merged)
    } else {
        let (rows, columns) = (h / block, v / block);
        let merged = tvec!(n.clone(), rows.clone(), columns.clone(), c.clone() * (block * block));
        (tvec!(n, rows, b.clone(), columns, b, c), [0, 1, 3, 2, 4, 5], merged)
    };
    let x = w.reshape(x, &split)?;
    let x = w.transpose(x, &permutation)?;
    Ok(tvec!(w.reshape(x, &merged)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_chosen_as_tensorflow_does() {
        let legacy = Convention { align_corners: false, half_pixel: false, bilinear: true };
        assert_eq!(legacy.taps(2, 4), [(0, 0, 0.0), (0, 1, 0.5), (1, 1, 0.0), (1, 1, 0.5)]);
        let half = Convention { half_pixel: true, ..legacy };
        assert_eq!(half.taps(2, 4), [(0, 0, 0.75), (0, 1, 0.25), (0, 1, 0.75), (1, 1, 0.25)]);
        let corners = Convention { align_corners: true, bilinear: false, ..legacy };
        assert_eq!(corners.taps(3, 5).iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1, 1, 2, 2]);
    }
}
