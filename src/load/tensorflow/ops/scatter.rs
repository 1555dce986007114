//! Values put into a tensor by their places.

use super::super::api::{
    Datum, DatumType, EngineTensor, IntoTValue, OutletId, TDim, TValue, TractResult, TypedFact, bail,
    dispatch_datum, f16, tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::ragged::{integers, size};
use super::sparse::{elements, flat};
use super::wiring::{Wired, Wiring, first, input, two};
use super::{Handler, WiringError};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "ScatterNd" => scatter_nd,
        "TensorScatterUpdate"
        | "TensorScatterAdd"
        | "TensorScatterSub"
        | "TensorScatterMax"
        | "TensorScatterMin" => |w, n, i| {
            let x = w.plain(first(i)?)?;
            scatter(w, &n.op, x, input(i, 1)?, input(i, 2)?)
        },
        _ => return None,
    })
}

/// Into zeros; what falls on one place is added.
fn scatter_nd(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let (places, values, shape) = (first(inputs)?, input(inputs, 1)?, input(inputs, 2)?);
    let dims = w.sizes(shape)?;
    let values = w.plain(values)?;
    let datum = w.datum(values)?;
    let zero = w.tensor(EngineTensor::zero_scalar_dt(datum)?)?;
    let zeros = w.broadcast_to(zero, &dims)?;
    scatter(w, "TensorScatterAdd", zeros, places, values)
}

fn scatter(w: &mut Wiring<'_>, op: &str, x: OutletId, places: OutletId, values: OutletId) -> Wired {
    let both = w.same_type(&[x, values])?;
    let (x, values) = two(&both)?;
    let (x, values) = (w.plain(x)?, w.plain(values)?);
    let places = w.plain(places)?;
    let datum = w.datum(x)?;
    let fact = TypedFact::dt_shape(datum, &*w.dims(x)?);
    if op == "TensorScatterUpdate" {
        let op = Computed::giving("ScatterUpdate", tvec!(fact), |inputs| {
            let [x, places, values] = inputs else { bail!("three inputs expected") };
            let put = Put::new(x, places)?;
            Ok(tvec!(dispatch_datum!(updated(x.datum_type())(x, &put, values))?.into_tvalue()))
        });
        return Ok(tvec!(w.one(op, &[x, places, values])?));
    }
    let join: fn(f64, f64) -> f64 = match op {
        "TensorScatterAdd" => |a, b| a + b,
        "TensorScatterSub" => |a, b| a - b,
        "TensorScatterMax" => |a, b| if b.is_nan() || b > a { b } else { a },
        _ => |a, b| if b.is_nan() || b < a { b } else { a },
    };
    if !matches!(datum, DatumType::F32 | DatumType::F64 | DatumType::I32 | DatumType::I64 | DatumType::Bool) {
        return Err(WiringError::Unsupported);
    }
    let op = Computed::giving("ScatterJoin", tvec!(fact), move |inputs| {
        let [x, places, values] = inputs else { bail!("three inputs expected") };
        let put = Put::new(x, places)?;
        let (x, values) = (x.cast_to::<f64>()?, values.cast_to::<f64>()?);
        let plain = values.try_as_plain_ram()?;
        let values = plain.as_slice::<f64>()?;
        let mut out = x.try_as_plain_ram()?.as_slice::<f64>()?.to_vec();
        put.each(&mut out, values, |slot, value| *slot = join(*slot, *value))?;
        let out = EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(x.shape(), out)?);
        Ok(tvec!(out.cast_to_dt(datum)?.into_owned().into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x, places, values])?))
}

fn updated<T: Datum>(x: &EngineTensor, put: &Put, values: &EngineTensor) -> TractResult<EngineTensor> {
    let plain = values.try_as_plain_ram()?;
    let mut out = x.try_as_plain_ram()?.as_slice::<T>()?.to_vec();
    put.each(&mut out, plain.as_slice::<T>()?, |slot, value| slot.clone_from(value))?;
    Ok(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(x.shape(), out)?))
}

/// Where each part of the values goes.
struct Put {
    /// The first element of each part.
    starts: Vec<usize>,
    /// How many elements a part has.
    width: usize,
}

impl Put {
    fn new(x: &TValue, places: &TValue) -> TractResult<Self> {
        let depth = places.shape().last().copied().unwrap_or(0);
        let (Some(outer), Some(inner)) = (x.shape().get(..depth), x.shape().get(depth..)) else {
            bail!("the places have more parts than the tensor has dimensions")
        };
        let width = elements(inner)?;
        let parts = size(i64::try_from(places.len() / depth.max(1))?)?;
        let places = integers(places)?;
        let starts = { places.chunks(depth.max(1)).take(parts) }.map(|place| Ok(flat(place, outer)? * width));
        Ok(Self { starts: starts.collect::<TractResult<_>>()?, width })
    }

    fn each<T>(&self, out: &mut [T], values: &[T], mut put: impl FnMut(&mut T, &T)) -> TractResult<()> {
        if values.len() != self.starts.len() * self.width {
            bail!("{} values for {} places of {}", values.len(), self.starts.len(), self.width);
        }
        for (start, values) in self.starts.iter().zip(values.chunks(self.width.max(1))) {
            let slots = out.get_mut(*start..start + self.width).unwrap_or_default();
            slots.iter_mut().zip(values).for_each(|(slot, value)| put(slot, value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_on_one_place_is_put_there_in_turn() {
        let vector = |v: &[i64]| EngineTensor::from(tract_ndarray::arr1(v).into_dyn());
        let places = vector(&[1, 1]).into_shape(&[2, 1]).unwrap().into_tvalue();
        let put = Put::new(&vector(&[0, 0, 0]).into_tvalue(), &places).unwrap();
        let mut out = [0, 0, 0];
        put.each(&mut out, &[5, 6], |slot, value| *slot += value).unwrap();
        assert_eq!(out, [0, 11, 0]);
        let outside = vector(&[3]).into_shape(&[1, 1]).unwrap().into_tvalue();
        assert!(Put::new(&vector(&[0, 0, 0]).into_tvalue(), &outside).is_err());
    }
}
