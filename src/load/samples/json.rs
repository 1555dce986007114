//! Samples in TensorFlow Serving's columnar JSON form.

use serde_json::{Map, Value, json};

use super::{Samples, SamplesError, find};
use crate::signature::{Signature, TensorSpec};
use crate::tensor::{DataView, Element, ElementType, MAX_RANK, Shape, Tensor, TensorView};

pub(super) fn read(text: &[u8], signature: &Signature) -> Result<Samples, SamplesError> {
    let document: Value = serde_json::from_slice(text).map_err(|e| SamplesError::Malformed(e.to_string()))?;
    let Value::Object(mut document) = document else {
        return Err(SamplesError::Malformed("expected an object with `inputs` and `outputs`".into()));
    };
    let inputs = document
        .remove("inputs")
        .ok_or_else(|| SamplesError::Malformed("there is no field `inputs`".into()))?;
    let inputs = columns("input", inputs, signature.inputs())?;
    let outputs = match document.remove("outputs") {
        Some(outputs) => columns("output", outputs, signature.outputs())?,
        None => Vec::new(),
    };
    for (name, tensor) in &inputs {
        let spec = find("input", signature.inputs(), name)?;
        if !spec.accepts(tensor.shape()) {
            return Err(SamplesError::Mismatch {
                name: name.clone(),
                expected: spec.to_string(),
                found: format!("{}{}", tensor.element_type(), tensor.shape()),
            });
        }
    }
    Samples::new(inputs, outputs).ordered(signature)
}

pub(super) fn write(samples: &Samples) -> String {
    let side = |tensors: &[(String, Tensor)]| {
        let columns = tensors.iter().map(|(name, tensor)| (name.clone(), nested(tensor.view())));
        Value::Object(columns.collect())
    };
    json!({"inputs": side(&samples.inputs), "outputs": side(&samples.outputs)}).to_string()
}

/// Tensors by name; a bare list stands for the only tensor of a side that has one.
fn columns(
    side: &'static str,
    value: Value,
    specs: &[TensorSpec],
) -> Result<Vec<(String, Tensor)>, SamplesError> {
    let columns = match (value, specs) {
        (Value::Object(columns), _) => columns,
        (list @ Value::Array(_), [only]) => Map::from_iter([(only.name().to_string(), list)]),
        _ => {
            return Err(SamplesError::Malformed(format!(
                "`{side}s` has to be an object of nested lists by name"
            )));
        }
    };
    columns
        .into_iter()
        .map(|(name, list)| {
            let tensor = tensor(find(side, specs, &name)?, &list)?;
            Ok((name, tensor))
        })
        .collect()
}

fn tensor(spec: &TensorSpec, list: &Value) -> Result<Tensor, SamplesError> {
    let ragged = |found: &str| SamplesError::Mismatch {
        name: spec.name().to_string(),
        expected: "a nested list with as many elements in each list of one level".into(),
        found: found.into(),
    };
    let mut dims = Vec::new();
    let mut level = list;
    while let Value::Array(items) = level {
        if dims.len() == MAX_RANK {
            return Err(ragged(&format!("more than {MAX_RANK} levels")));
        }
        dims.push(items.len());
        match items.first() {
            Some(first) => level = first,
            None => break,
        }
    }
    let shape = Shape::new(&dims).ok_or_else(|| ragged("too many elements"))?;
    let mut leaves = Vec::new();
    flatten(list, shape.dims(), &mut leaves).ok_or_else(|| ragged("lists of different lengths"))?;
    // A list that leaves out dimensions of one takes the shape that the signature gives.
    let shape = if spec.accepts(shape) {
        shape
    } else {
        spec.shape_of(shape.rows(), shape.elements()).unwrap_or(shape)
    };
    match spec.element_type() {
        ElementType::F32 => typed(spec, shape, &leaves, |v| {
            #[expect(clippy::cast_possible_truncation, reason = "the model takes f32")]
            float(v).map(|v| v as f32)
        }),
        ElementType::F64 => typed(spec, shape, &leaves, float),
        ElementType::I8 => typed(spec, shape, &leaves, int::<i8>),
        ElementType::I16 => typed(spec, shape, &leaves, int::<i16>),
        ElementType::I32 => typed(spec, shape, &leaves, int::<i32>),
        ElementType::I64 => typed(spec, shape, &leaves, int::<i64>),
        ElementType::U8 => typed(spec, shape, &leaves, int::<u8>),
        ElementType::U16 => typed(spec, shape, &leaves, int::<u16>),
        ElementType::U32 => typed(spec, shape, &leaves, int::<u32>),
        ElementType::U64 => typed(spec, shape, &leaves, int::<u64>),
        ElementType::Bool => typed(spec, shape, &leaves, Value::as_bool),
        ElementType::String => typed(spec, shape, &leaves, |v| v.as_str().map(str::to_owned)),
    }
}

/// The leaves of a nested list of these dimensions, or `None` where it is not of them.
fn flatten<'v>(value: &'v Value, dims: &[usize], leaves: &mut Vec<&'v Value>) -> Option<()> {
    match (value, dims.split_first()) {
        (Value::Array(items), Some((dim, rest))) if items.len() == *dim => {
            items.iter().try_for_each(|item| flatten(item, rest, leaves))
        }
        (Value::Array(_), _) | (_, Some(_)) => None,
        (leaf, None) => {
            leaves.push(leaf);
            Some(())
        }
    }
}

fn typed<T: Element>(
    spec: &TensorSpec,
    shape: Shape,
    leaves: &[&Value],
    convert: impl Fn(&Value) -> Option<T>,
) -> Result<Tensor, SamplesError> {
    let mismatch = |expected: String, found: String| SamplesError::Mismatch {
        name: spec.name().to_string(),
        expected,
        found,
    };
    let values = leaves
        .iter()
        .map(|leaf| convert(leaf).ok_or_else(|| mismatch(spec.element_type().to_string(), leaf.to_string())))
        .collect::<Result<Vec<T>, _>>()?;
    let found = values.len();
    Tensor::new(shape.dims(), values).map_err(|_| mismatch(shape.to_string(), format!("{found} elements")))
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(f64::NAN),
        Value::Number(number) => number.as_f64(),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn int<T: TryFrom<i128>>(value: &Value) -> Option<T> {
    let number = match value {
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => i128::from(int),
            (_, Some(int), _) => i128::from(int),
            // `3.0`, as languages without an integer type write it.
            #[expect(clippy::cast_possible_truncation, reason = "checked to be a whole number of 53 bits")]
            (.., Some(float)) if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 => {
                float as i128
            }
            _ => return None,
        },
        Value::Bool(truth) => i128::from(*truth),
        _ => return None,
    };
    T::try_from(number).ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Dim;

    fn signature() -> Signature {
        Signature::new(
            vec![
                TensorSpec::new("age", ElementType::F32, &[Dim::Any, Dim::Fixed(1)]),
                TensorSpec::new("city", ElementType::String, &[Dim::Any, Dim::Fixed(1)]),
            ],
            vec![
                TensorSpec::new("label", ElementType::I64, &[Dim::Any]),
                TensorSpec::new("score", ElementType::F64, &[Dim::Any, Dim::Fixed(2)]),
            ],
        )
    }

    #[test]
    fn samples_survive_the_way_through_json() {
        let text = br#"{"inputs": {"city": [["Oslo"], ["Rome"]], "age": [[0.1], [null]]},
                        "outputs": {"score": [[0.25, 1], ["-Infinity", 0]], "label": [1, 2.0]}}"#;
        let samples = Samples::from_json(text, &signature()).unwrap();
        let names: Vec<&str> = samples.inputs().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["age", "city"]);
        assert_eq!(samples.outputs()[0].1, Tensor::vector(vec![1_i64, 2]));
        let again = samples.to_json();
        assert!(again.contains("[[0.1],[null]]"), "{again}");
        let back = Samples::from_json(again.as_bytes(), &signature()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{samples:?}"));
    }

    #[test]
    fn a_flat_list_takes_the_shape_of_the_input() {
        let text = br#"{"inputs": {"city": ["Oslo", "Rome"], "age": [1, 2]}}"#;
        let samples = Samples::from_json(text, &signature()).unwrap();
        assert_eq!(samples.inputs()[0].1.dims(), [2, 1]);
        assert!(samples.outputs().is_empty());
    }

    #[test]
    fn what_is_wrong_with_samples_is_named() {
        let refused = |text: &str| Samples::from_json(text.as_bytes(), &signature()).unwrap_err().to_string();
        assert_eq!(refused(r#"{"inputs": {"age": [[1]]}}"#), "the samples have no input `city`");
        assert_eq!(
            refused(r#"{"inputs": {"size": [[1]]}}"#),
            "the samples have an input `size`; the model has: age, city"
        );
        assert_eq!(
            refused(r#"{"inputs": {"age": [["x"]], "city": [["a"]]}}"#),
            r#"`age`: expected f32, found "x""#
        );
        assert_eq!(
            refused(r#"{"inputs": {"age": [[1, 2]], "city": [["a"]]}}"#),
            "`age`: expected f32[?,1], found f32[1,2]"
        );
        assert!(
            refused(r#"{"inputs": {"age": [[1], [2, 3]], "city": [["a"]]}}"#).contains("different lengths")
        );
        assert!(refused("[]").contains("expected an object"));
        assert!(refused("{").starts_with("malformed samples"));
    }
}
