//! Samples as JSON.

use serde_json::{Value, json};

use crate::load::samples::Samples;
use crate::tensor::{DataView, Tensor, TensorView};

pub(in crate::load::samples) fn write(samples: &Samples) -> String {
    let side = |tensors: &[(String, Tensor)]| {
        let columns = tensors.iter().map(|(name, tensor)| (name.clone(), nested(tensor.view())));
        Value::Object(columns.collect())
    };
    json!({"inputs": side(&samples.inputs), "outputs": side(&samples.outputs)}).to_string()
}

fn nested(tensor: TensorView<'_>) -> Value {
    fn level(dims: &[usize], leaves: &mut impl Iterator<Item = Value>) -> Value {
        match dims.split_first() {
            Some((dim, rest)) => (0..*dim).map(|_| level(rest, leaves)).collect(),
            None => leaves.next().unwrap_or(Value::Null),
        }
    }
    fn all<T>(dims: &[usize], values: &[T], leaf: impl Fn(&T) -> Value) -> Value {
        level(dims, &mut values.iter().map(leaf))
    }
    let dims = tensor.dims();
    match tensor.data() {
        // Through the shortest decimal that reads back as the same f32, not its 17 digits as f64.
        DataView::F32(values) => {
            all(dims, values, |v| number(v.to_string().parse().unwrap_or(f64::from(*v))))
        }
        DataView::F64(values) => all(dims, values, |v| number(*v)),
        DataView::I8(values) => all(dims, values, |v| (*v).into()),
        DataView::I16(values) => all(dims, values, |v| (*v).into()),
        DataView::I32(values) => all(dims, values, |v| (*v).into()),
        DataView::I64(values) => all(dims, values, |v| (*v).into()),
        DataView::U8(values) => all(dims, values, |v| (*v).into()),
        DataView::U16(values) => all(dims, values, |v| (*v).into()),
        DataView::U32(values) => all(dims, values, |v| (*v).into()),
        DataView::U64(values) => all(dims, values, |v| (*v).into()),
        DataView::Bool(values) => all(dims, values, |v| (*v).into()),
        DataView::String(values) => all(dims, values, |v| v.as_str().into()),
    }
}

fn number(value: f64) -> Value {
    match value {
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        // NaN becomes null.
        _ => value.into(),
    }
}
