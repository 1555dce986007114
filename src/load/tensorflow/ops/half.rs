//! Values of half the precision: computed in single, rounded to what half of it can hold.

use super::super::api::tfpb::DataType;
use super::super::api::{DatumType, EngineTensor, IntoTValue, OutletId, TVec, TypedFact, bail, f16, tvec};
use super::super::graph::Node;
use super::computed::Computed;
use super::wiring::{Wired, Wiring};

/// The outputs of an operator as its own type holds them.
pub(super) fn rounded(w: &mut Wiring<'_>, node: &Node, outlets: TVec<OutletId>) -> Wired {
    let attribute = if node.op == "Cast" { "DstT" } else { "T" };
    let round: fn(f32) -> f32 = match node.attributes.data_type(attribute) {
        Some(DataType::DtHalf) => |x| f16::from_f32(x).to_f32(),
        Some(DataType::DtBfloat16) => to_bfloat,
        _ => return Ok(outlets),
    };
    outlets
        .into_iter()
        .map(|outlet| {
            if w.datum(outlet)? != DatumType::F32 {
                return Ok(outlet);
            }
            let fact = TypedFact::dt_shape(DatumType::F32, &*w.dims(outlet)?);
            let op = Computed::giving("Half", tvec!(fact), move |values| {
                let [x] = values else { bail!("one input expected") };
                let x = x.to_plain_array_view::<f32>()?.map(|x| round(*x));
                Ok(tvec!(EngineTensor::from(x).into_tvalue()))
            });
            w.one(op, &[outlet])
        })
        .collect()
}

/// The upper half of a single, rounded to the nearest, to even where two are.
fn to_bfloat(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let bits = x.to_bits();
    let up = 0x7fff + ((bits >> 16) & 1);
    f32::from_bits(bits.wrapping_add(up) & 0xffff_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_is_rounded_to_its_upper_half() {
        // tf.cast(tf.cast(x, tf.bfloat16), tf.float32)
        assert_eq!(to_bfloat(-0.274_137_85), -0.273_437_5);
        assert_eq!(to_bfloat(1.0), 1.0);
        assert_eq!(to_bfloat(f32::MAX), f32::INFINITY);
        assert!(to_bfloat(f32::NAN).is_nan());
    }
}
