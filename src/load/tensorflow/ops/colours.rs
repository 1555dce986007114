//! Colours of pictures: contrast, hue and saturation, and other ways to write colours.

use super::super::api::{
    DatumType, EngineTensor, IntoTValue, OutletId, TypedFact, bail, tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::wiring::{Wired, Wiring, first, invalid, two};
use super::{Handler, WiringError};

type Colour = [f32; 3];

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "RGBToHSV" => |w, _, i| each(w, &[first(i)?], |rgb, _| hsv_of(rgb)),
        "HSVToRGB" => |w, _, i| each(w, &[first(i)?], |hsv, _| rgb_of(hsv)),
        "AdjustHue" => |w, _, i| each(w, i, |rgb, delta| turned(rgb, delta)),
        "AdjustSaturation" => |w, _, i| {
            each(w, i, |rgb, scale| {
                let [hue, saturation, value] = hsv_of(rgb);
                rgb_of([hue, (saturation * scale).max(0.0).min(1.0), value])
            })
        },
        "AdjustContrastv2" => contrast,
        _ => return None,
    })
}

/// A function of each colour, and of the number that there may be beside the picture.
fn each(w: &mut Wiring<'_>, inputs: &[OutletId], of: fn(Colour, f32) -> Colour) -> Wired {
    let x = first(inputs)?;
    if w.datum(x)? != DatumType::F32 {
        return Err(WiringError::Unsupported);
    }
    let dims = w.dims(x)?;
    match dims.last().map(|d| d.as_i64()) {
        Some(Some(3) | None) => {}
        _ => return Err(invalid("expected colours of three numbers")),
    }
    let op = Computed::giving("Colours", tvec!(TypedFact::dt_shape(DatumType::F32, &*dims)), move |values| {
        let Some(x) = values.first() else { bail!("a picture expected") };
        let number = values.get(1).map_or(Ok(0.0), |number| number.cast_to_scalar::<f32>())?;
        let plain = x.try_as_plain_ram()?;
        let (colours, rest) = plain.as_slice::<f32>()?.as_chunks::<3>();
        if !rest.is_empty() || x.shape().last() != Some(&3) {
            bail!("expected colours of three numbers");
        }
        let out: Vec<f32> = colours.iter().flat_map(|colour| of(*colour, number)).collect();
        Ok(tvec!(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(x.shape(), out)?).into_tvalue()))
    });
    Ok(tvec!(w.one(op, inputs)?))
}

/// What differs from the mean of its channel in the picture, so many times.
fn contrast(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let (x, factor) = two(inputs)?;
    if w.datum(x)? != DatumType::F32 || w.rank(x)? < 3 {
        return Err(WiringError::Unsupported);
    }
    let fact = TypedFact::dt_shape(DatumType::F32, &*w.dims(x)?);
    let op = Computed::giving("AdjustContrast", tvec!(fact), move |values| {
        let [x, factor] = values else { bail!("two inputs expected") };
        let factor = factor.cast_to_scalar::<f32>()?;
        let Some([height, width, channels]) = x.shape().last_chunk::<3>().copied() else {
            bail!("a picture expected")
        };
        let mut out = x.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        for picture in out.chunks_exact_mut((height * width * channels).max(1)) {
            let mut sums = vec![0.0_f64; channels];
            for pixel in picture.chunks_exact(channels) {
                sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            #[expect(clippy::cast_possible_truncation, reason = "a mean of such numbers")]
            let means: Vec<f32> = sums.iter().map(|sum| (sum / (height * width) as f64) as f32).collect();
            for pixel in picture.chunks_exact_mut(channels) {
                pixel
                    .iter_mut()
                    .zip(&means)
                    .for_each(|(value, mean)| *value = (*value - mean) * factor + mean);
            }
        }
        Ok(tvec!(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(x.shape(), out)?).into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x, factor])?))
}

/// The hue turned by a part of the circle.
fn turned(rgb: Colour, delta: f32) -> Colour {
    let [hue, saturation, value] = hsv_of(rgb);
    let hue = (hue + delta).rem_euclid(1.0);
    rgb_of([hue, saturation, value])
}

/// Hue, saturation and value, each from 0 to 1.
fn hsv_of([red, green, blue]: Colour) -> Colour {
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    let saturation = if value > 0.0 { range / value } else { 0.0 };
    if range <= 0.0 {
        return [0.0, saturation, value];
    }
    let sixth = 1.0 / (6.0 * range);
    let hue = if red == value {
        sixth * (green - blue)
    } else if green == value {
        sixth * (blue - red) + 2.0 / 6.0
    } else {
        sixth * (red - green) + 4.0 / 6.0
    };
    [if hue < 0.0 { hue + 1.0 } else { hue }, saturation, value]
}

fn rgb_of([hue, saturation, value]: Colour) -> Colour {
    let sixths = hue * 6.0;
    let part = |up: f32| up.max(0.0).min(1.0);
    let pure = [
        part((sixths - 3.0).abs() - 1.0),
        part(2.0 - (sixths - 2.0).abs()),
        part(2.0 - (sixths - 4.0).abs()),
    ];
    pure.map(|part| ((1.0 - saturation) + saturation * part) * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_there_and_back() {
        for rgb in [[0.2, 0.4, 0.9], [0.9, 0.1, 0.5], [0.3, 0.8, 0.2], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0]] {
            let back = rgb_of(hsv_of(rgb));
            assert!(rgb.iter().zip(back).all(|(a, b)| (a - b).abs() < 1e-6), "{rgb:?} {back:?}");
        }
        // tf.image.rgb_to_hsv([0.2, 0.4, 0.9])
        let hsv = hsv_of([0.2, 0.4, 0.9]);
        assert!(
            hsv.iter().zip([0.619_047_6, 0.777_777_8, 0.9]).all(|(a, b)| (a - b).abs() < 1e-6),
            "{hsv:?}"
        );
    }
}
