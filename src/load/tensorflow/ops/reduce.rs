//! Reductions over axes.

use std::collections::BTreeSet;

use super::super::api::{AxisOp, Datum, DatumType, OutletId, TDim, TVec, ToDim, tensor0, tract_core, tvec};
use super::super::graph::Node;
use super::wiring::{One, Wired, Wiring, axis_of, first, input, two};
use super::{Handler, WiringError};
use crate::load::tract::nan::KeepNan;
use tract_core::ops::nn::{Reduce, Reducer};
use tract_core::ops::{array, math};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Sum" => |w, n, i| reduce(w, n, i, |w, x, axes| w.reduced(x, axes, Reducer::Sum)),
        "Prod" => |w, n, i| reduce(w, n, i, |w, x, axes| w.reduced(x, axes, Reducer::Prod)),
        "Max" => |w, n, i| reduce(w, n, i, |w, x, axes| w.extreme(x, axes, Reducer::Max)),
        "Min" => |w, n, i| reduce(w, n, i, |w, x, axes| w.extreme(x, axes, Reducer::Min)),
        "Mean" => |w, n, i| reduce(w, n, i, mean),
        "All" => |w, n, i| reduce(w, n, i, |w, x, axes| w.truth(x, axes, Reducer::Min)),
        "Any" => |w, n, i| reduce(w, n, i, |w, x, axes| w.truth(x, axes, Reducer::Max)),
        "EuclideanNorm" => |w, n, i| {
            reduce(w, n, i, |w, x, axes| {
                let square = w.binary(math::mul(), x, x)?;
                let sum = w.reduced(square, axes, Reducer::Sum)?;
                w.one(math::sqrt(), &[sum])
            })
        },
        "ArgMax" => |w, n, i| arg(w, n, i, Reducer::ArgMax(false)),
        "ArgMin" => |w, n, i| arg(w, n, i, Reducer::ArgMin(false)),
        "Cumsum" => |w, n, i| {
            let (x, axis) = two(i)?;
            let axis = axis_of(w.konst_scalar::<i64>(axis)?, w.rank(x)?)?;
            let exclusive = n.attributes.bool("exclusive").unwrap_or(false);
            let reverse = n.attributes.bool("reverse").unwrap_or(false);
            Ok(tvec!(w.one(array::CumSum { axis, exclusive, reverse }, &[x])?))
        },
        _ => return None,
    })
}

impl Wiring<'_> {
    /// Reduces over axes, which stay with size one.
    pub(super) fn reduced(&mut self, x: OutletId, axes: &[usize], reducer: Reducer) -> One {
        if axes.is_empty() {
            return Ok(x);
        }
        self.one(Reduce { axes: axes.iter().copied().collect(), reducer }, &[x])
    }

    fn extreme(&mut self, x: OutletId, axes: &[usize], reducer: Reducer) -> One {
        let y = self.reduced(x, axes, reducer)?;
        if axes.is_empty() || !self.datum(x)?.is_float() {
            return Ok(y);
        }
        let spread = Reduce { axes: axes.iter().copied().collect(), reducer: Reducer::Max };
        self.one(KeepNan { spread: Some(Box::new(spread)) }, &[x, y])
    }

    fn truth(&mut self, x: OutletId, axes: &[usize], reducer: Reducer) -> One {
        let numbers = self.cast(x, DatumType::I32)?;
        let reduced = self.reduced(numbers, axes, reducer)?;
        self.cast(reduced, bool::datum_type())
    }
}

fn reduce(
    w: &mut Wiring<'_>,
    node: &Node,
    inputs: &[OutletId],
    op: fn(&mut Wiring<'_>, OutletId, &[usize]) -> One,
) -> Wired {
    let (x, axes) = two(inputs)?;
    let rank = w.rank(x)?;
    let axes = w.konst_ints(axes)?.into_iter().map(|a| axis_of(a, rank));
    // The file has them in any order; tract wants each once, from the first on.
    let axes: BTreeSet<usize> = axes.collect::<Result<_, _>>()?;
    let axes: Vec<usize> = axes.into_iter().collect();
    // Shapes are multiplied as shapes: their product may be needed as one.
    if w.datum(x)? == DatumType::TDim {
        return reduce_dims(w, node, x);
    }
    let mut out = op(w, x, &axes)?;
    if !node.attributes.bool("keep_dims").or_else(|| node.attributes.bool("keepdims")).unwrap_or(false) {
        for axis in axes.into_iter().rev() {
            out = w.one(AxisOp::Rm(axis), &[out])?;
        }
    }
    Ok(tvec!(out))
}

fn reduce_dims(w: &mut Wiring<'_>, node: &Node, x: OutletId) -> Wired {
    let dims = w.konst_dims(x)?;
    let out = match node.op.as_str() {
        "Prod" => dims.iter().product::<TDim>(),
        "Sum" => dims.iter().sum::<TDim>(),
        "Max" if dims.len() == 1 => dims.first().cloned().unwrap_or_default(),
        _ => return Err(WiringError::Unsupported),
    };
    Ok(tvec!(w.tensor(tensor0(out))?))
}

fn mean(w: &mut Wiring<'_>, x: OutletId, axes: &[usize]) -> One {
    let sum = w.reduced(x, axes, Reducer::Sum)?;
    let dims = w.dims(x)?;
    let count: TDim = axes.iter().filter_map(|a| dims.get(*a)).product();
    let datum = w.datum(x)?;
    if !datum.is_float() {
        return Err(WiringError::Unsupported);
    }
    if let Some(count) = count.as_i64() {
        let factor = w.scalar_like(1.0 / count as f64, sum)?;
        return w.binary(math::mul(), sum, factor);
    }
    let count = w.tensor(tensor0(count.to_dim()))?;
    let count = w.plain(count)?;
    let count = w.cast(count, datum)?;
    w.binary(math::div(), sum, count)
}

fn arg(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId], reducer: Reducer) -> Wired {
    let x = first(inputs)?;
    let rank = w.rank(x)?;
    let axis = match inputs.get(1) {
        Some(_) => axis_of(w.konst_scalar::<i64>(input(inputs, 1)?)?, rank)?,
        None => 0,
    };
    let places = w.reduced(x, &[axis], reducer)?;
    let places = w.one(AxisOp::Rm(axis), &[places])?;
    let wanted = node.attributes.datum("output_type").unwrap_or(DatumType::I64);
    Ok(TVec::from_elem(w.cast(places, wanted)?, 1))
}

#[cfg(test)]
mod tests {
    use crate::load::{Formats, LoadOptions, Payload};
    use crate::tensor::Tensor;

    #[test]
    fn axes_may_be_named_in_any_order() {
        // As tf.image.per_image_standardization has them.
        let graph = r#"
            node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
                attr { key: "shape" value { shape { dim { size: -1 } dim { size: 2 } dim { size: 2 } } } } }
            node { name: "axes" op: "Const" attr { key: "dtype" value { type: DT_INT32 } } attr { key: "value"
                value { tensor { dtype: DT_INT32 tensor_shape { dim { size: 2 } } int_val: [-1, -2] } } } }
            node { name: "y" op: "Mean" input: "x" input: "axes" }
            versions { producer: 1395 }"#;
        let payload = Payload::from(graph.as_bytes().to_vec());
        let model = Formats::default().load(None, payload, &LoadOptions::default()).unwrap();
        let x = Tensor::new(&[1, 2, 2], vec![1.0_f32, 2.0, 3.0, 6.0]).unwrap();
        let mut y = [Tensor::default()];
        model.run(&[x.view()], &mut y).unwrap();
        assert_eq!(y[0].values::<f32>(), Some(&[3.0][..]));
    }
}
