//! Samples in TensorFlow Serving's columnar JSON form.

use std::borrow::Cow;

use super::convert::convert;
use super::{Samples, SamplesError, find};
use crate::load::json as text;
use crate::signature::{Labels, Signature, TensorSpec};
use crate::tensor::{Element, ElementType, MAX_RANK, Shape, Tensor};

mod write;
pub(super) use write::write;

/// A value of a sample file. Numbers stay text until their type is known.
#[derive(Debug, PartialEq)]
enum Json<'a> {
    Null,
    Truth(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl<'a> text::Value<'a> for Json<'a> {
    type List = Vec<Self>;
    type Room = ();

    fn take((): &(), _: usize, _: usize) -> Result<(), String> {
        Ok(())
    }
    fn null() -> Self {
        Self::Null
    }
    fn truth(truth: bool) -> Self {
        Self::Truth(truth)
    }
    fn number(text: &'a str) -> Self {
        Self::Number(text)
    }
    fn text(text: Cow<'a, str>) -> Self {
        Self::Text(text)
    }
    fn push(list: &mut Vec<Self>, item: Self, (): &()) -> Result<(), String> {
        list.push(item);
        Ok(())
    }
    fn list(list: Vec<Self>) -> Self {
        Self::List(list)
    }
    fn object(members: Vec<(Cow<'a, str>, Self)>) -> Self {
        Self::Object(members)
    }
}

pub(super) fn read(bytes: &[u8], signature: &Signature) -> Result<Samples, SamplesError> {
    let document: Json<'_> = text::read(bytes, &()).map_err(SamplesError::Malformed)?;
    let Json::Object(document) = document else {
        return Err(SamplesError::Malformed("expected an object with `inputs` and `outputs`".into()));
    };
    let (mut inputs, mut outputs) = (None, None);
    for (name, value) in document {
        match &*name {
            "inputs" => inputs = Some(value),
            "outputs" => outputs = Some(value),
            _ => {}
        }
    }
    let inputs = inputs.ok_or_else(|| SamplesError::Malformed("there is no field `inputs`".into()))?;
    let inputs = columns("input", inputs, signature.inputs())?;
    let outputs = match outputs {
        None | Some(Json::Null) => Vec::new(),
        Some(outputs) => columns("output", outputs, signature.outputs())?,
    };
    for (name, tensor) in &inputs {
        let spec = find("input", signature.inputs(), name)?;
        if tensor.element_type() != spec.element_type() || !spec.accepts(tensor.shape()) {
            return Err(SamplesError::Mismatch {
                name: name.clone(),
                expected: spec.to_string(),
                found: format!("{}{}", tensor.element_type(), tensor.shape()),
            });
        }
    }
    Samples::new(inputs, outputs).ordered(signature)
}

/// Tensors by name; a bare list stands for the only tensor of a side that has one.
fn columns(
    side: &'static str,
    value: Json<'_>,
    specs: &[TensorSpec],
) -> Result<Vec<(String, Tensor)>, SamplesError> {
    let columns = match (value, specs) {
        (Json::Object(columns), _) => columns,
        (list @ Json::List(_), [only]) => vec![(Cow::Owned(only.name().to_string()), list)],
        _ => {
            return Err(SamplesError::Malformed(format!(
                "`{side}s` has to be an object of nested lists by name"
            )));
        }
    };
    let mut tensors: Vec<(String, Tensor)> = Vec::with_capacity(columns.len());
    for (name, list) in columns {
        if tensors.iter().any(|(known, _)| *known == name) {
            return Err(SamplesError::Malformed(format!("`{side}s` has `{name}` twice")));
        }
        let spec = find(side, specs, &name)?;
        let list = match spec.labels() {
            Some(labels) if side == "input" => dense(list, labels),
            _ => list,
        };
        let tensor = match tensor(spec, &list) {
            // What a model should have answered may be of another type; the comparison will say so.
            Err(mismatch) if side == "output" => as_it_stands(spec, &list).ok_or(mismatch)?,
            other => other?,
        };
        tensors.push((name.into_owned(), tensor));
    }
    Ok(tensors)
}

/// Maps as rows with a number for each label: zero where a map does not have it.
fn dense<'a>(value: Json<'a>, labels: &Labels) -> Json<'a> {
    match value {
        Json::List(items) => Json::List(items.into_iter().map(|item| dense(item, labels)).collect()),
        Json::Object(mut members) => {
            let mut of = |label: &str| {
                let at = members.iter().position(|(name, _)| name == label);
                at.map_or(Json::Number("0"), |at| members.swap_remove(at).1)
            };
            Json::List(match labels {
                Labels::Ints(labels) => labels.iter().map(|label| of(&label.to_string())).collect(),
                Labels::Strings(labels) => labels.iter().map(|label| of(label)).collect(),
            })
        }
        leaf => leaf,
    }
}

fn tensor(spec: &TensorSpec, list: &Json<'_>) -> Result<Tensor, SamplesError> {
    let ragged = |found: &str| SamplesError::Mismatch {
        name: spec.name().to_string(),
        expected: "a nested list with as many elements in each list of one level".into(),
        found: found.into(),
    };
    let mut dims = Vec::new();
    let mut level = list;
    loop {
        let (length, first) = match level {
            Json::List(items) => (items.len(), items.first()),
            // A map of each class to its score, as ZipMap gives it.
            Json::Object(members) if spec.labels().is_some() => {
                (members.len(), members.first().map(|(_, v)| v))
            }
            _ => break,
        };
        if dims.len() == MAX_RANK {
            return Err(ragged(&format!("more than {MAX_RANK} levels")));
        }
        dims.push(length);
        match first {
            Some(first) => level = first,
            None => break,
        }
    }
    let shape = Shape::new(&dims).ok_or_else(|| ragged("too many elements"))?;
    let mut leaves = Vec::new();
    flatten(list, shape.dims(), spec.labels(), &mut leaves)
        .ok_or_else(|| ragged("lists of different lengths"))?;
    // A list that leaves out dimensions of one takes the shape that the signature gives; so does one
    // row without the list around it.
    let shape = if spec.accepts(shape) {
        shape
    } else {
        let rows = spec.shape_of(shape.rows(), shape.elements());
        rows.or_else(|| spec.shape_of(1, shape.elements())).unwrap_or(shape)
    };
    match spec.element_type() {
        ElementType::F32 => typed(spec, shape, &leaves, |v| {
            // Straight from the text: by way of f64 a number could be rounded twice.
            if let Json::Number(text) = v { text.parse().ok() } else { float(v).map(single) }
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
        ElementType::Bool => typed(spec, shape, &leaves, truth),
        ElementType::String => typed(spec, shape, &leaves, string),
    }
}

/// The list as text or as numbers, whatever the signature says.
fn as_it_stands(spec: &TensorSpec, list: &Json<'_>) -> Option<Tensor> {
    let of = |element| {
        let spec = TensorSpec::of_any_shape(spec.name(), element);
        tensor(&spec, list).ok()
    };
    let tensor = of(ElementType::I64).or_else(|| of(ElementType::F64)).or_else(|| of(ElementType::String))?;
    Some(convert(tensor, spec.element_type()))
}

/// The leaves of a nested list of these dimensions, or `None` where it is not of them.
fn flatten<'v, 'a>(
    value: &'v Json<'a>,
    dims: &[usize],
    labels: Option<&Labels>,
    leaves: &mut Vec<&'v Json<'a>>,
) -> Option<()> {
    match (value, dims.split_first()) {
        (Json::List(items), Some((dim, rest))) if items.len() == *dim => {
            items.iter().try_for_each(|item| flatten(item, rest, labels, leaves))
        }
        (Json::Object(members), Some((dim, rest))) if members.len() == *dim => {
            let of = |label: &str| members.iter().find(|(name, _)| name == label).map(|(_, value)| value);
            match labels? {
                Labels::Ints(all) if all.len() == *dim => {
                    all.iter().try_for_each(|l| flatten(of(&l.to_string())?, rest, labels, leaves))
                }
                Labels::Strings(all) if all.len() == *dim => {
                    all.iter().try_for_each(|l| flatten(of(l)?, rest, labels, leaves))
                }
                _ => None,
            }
        }
        (Json::List(_) | Json::Object(_), _) | (_, Some(_)) => None,
        (leaf, None) => {
            leaves.push(leaf);
            Some(())
        }
    }
}

fn typed<T: Element>(
    spec: &TensorSpec,
    shape: Shape,
    leaves: &[&Json<'_>],
    convert: impl Fn(&Json<'_>) -> Option<T>,
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

impl std::fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Truth(truth) => truth.fmt(f),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Object(_) => f.write_str("an object"),
        }
    }
}

/// `null` is a missing value, and numbers that are not finite may be text.
fn float(value: &Json<'_>) -> Option<f64> {
    match value {
        Json::Null => Some(f64::NAN),
        Json::Number(text) => text.parse().ok(),
        Json::Truth(truth) => Some(f64::from(u8::from(*truth))),
        Json::Text(text) => text.trim().parse().ok().filter(|number: &f64| !number.is_finite()),
        Json::List(_) | Json::Object(_) => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the model takes f32")]
const fn single(value: f64) -> f32 {
    value as f32
}

fn int<T: TryFrom<i128>>(value: &Json<'_>) -> Option<T> {
    let number = match value {
        Json::Number(text) => match text.parse::<i128>() {
            Ok(int) => int,
            // `3.0`, as languages without an integer type write it.
            Err(_) => {
                let float: f64 = text.parse().ok()?;
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "checked to be a whole number of 53 bits"
                )]
                let whole = float as i128;
                (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(whole)?
            }
        },
        Json::Truth(truth) => i128::from(*truth),
        _ => return None,
    };
    T::try_from(number).ok()
}

fn truth(value: &Json<'_>) -> Option<bool> {
    match value {
        Json::Truth(truth) => Some(*truth),
        Json::Number(_) => int::<i64>(value).filter(|int| matches!(int, 0 | 1)).map(|int| int == 1),
        _ => None,
    }
}

/// Text; a whole number stands for its digits, as codes of categories do.
fn string(value: &Json<'_>) -> Option<String> {
    match value {
        Json::Text(text) => Some(text.to_string()),
        Json::Number(_) => int::<i64>(value).map(|int| int.to_string()),
        _ => None,
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
    fn a_map_for_an_input_is_a_row_with_zero_where_it_has_no_entry() {
        let labels = Labels::Strings(vec!["age".to_owned(), "amount".to_owned()]);
        let dims = [Dim::Any, Dim::Fixed(2)];
        let input = TensorSpec::new("d", ElementType::F32, &dims).with_labels(labels);
        let signature = Signature::new(vec![input], vec![]);
        let text = br#"{"inputs": {"d": [{"amount": 3.5, "other": 9}, {"age": 20, "amount": 1}]}}"#;
        let samples = read(text, &signature).unwrap();
        let expected = Tensor::new(&[2, 2], vec![0.0_f32, 3.5, 20.0, 1.0]).unwrap();
        assert_eq!(samples.inputs()[0].1, expected);
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
