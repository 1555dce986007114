//! `LabelEncoder` from version 2 on: each element becomes the value that stands beside it in a table.

use std::collections::HashMap;
use std::hash::Hash;

use smallvec::{SmallVec, smallvec};

use super::category_mapper::CategoryMapper;
use super::common::{first_fact, input, same_shape};
use crate::kernel::{Attributes, BuildError, Fact, Kernel, Node, RunContext, longest_text};
use crate::load::RunError;
use crate::tensor::{DataView, Element, ElementType, Tensor, TensorView};

const OPERATOR: &str = "LabelEncoder";

/// The kernel of a `LabelEncoder` of any version.
pub(super) fn build(node: &Node<'_>) -> Result<Box<dyn Kernel>, BuildError> {
    if node.version < 2 || node.attributes.contains("classes_strings") {
        return Ok(Box::new(CategoryMapper::of_classes(node.attributes)?));
    }
    Ok(Box::new(LabelEncoder::new(node.attributes, node.version)?))
}

/// An element that is no key becomes the default. From version 4 on NaN is an element like others: it
/// becomes the value of the key NaN, where there is one, and the default else; before, it is no key,
/// as in onnxruntime. Of a key that is listed twice the first counts, as there too.
#[derive(Debug)]
pub(super) struct LabelEncoder {
    keys: Keys,
    /// The type that the input has to have.
    key_type: ElementType,
    /// The values, at the positions of their keys.
    values: Tensor,
    default: Tensor,
    /// The bytes of the longest text that it can answer.
    longest: u64,
}

/// Where in the table a key stands. Narrow keys are looked up as the widest of their kind.
#[derive(Debug)]
enum Keys {
    Ints(HashMap<i64, usize>),
    Floats(HashMap<u64, usize>),
    Strings(HashMap<String, usize>),
}

impl LabelEncoder {
    fn new(attributes: &Attributes, version: i64) -> Result<Self, BuildError> {
        let keys = column(attributes, "keys")?;
        let values = column(attributes, "values")?;
        let (key_count, value_count) = (keys.shape().elements(), values.shape().elements());
        if key_count != value_count {
            return Err(BuildError::invalid(format!(
                "expected as many values as keys, found {value_count} and {key_count}"
            )));
        }
        let default = default(attributes, values.element_type())?;
        let key_type = keys.element_type();
        let mut keys = match keys.view().data() {
            DataView::I64(keys) => Keys::Ints(first_positions(keys.iter().copied())),
            DataView::I32(keys) => Keys::Ints(first_positions(keys.iter().copied().map(i64::from))),
            DataView::I16(keys) => Keys::Ints(first_positions(keys.iter().copied().map(i64::from))),
            DataView::F64(keys) => Keys::Floats(first_positions(keys.iter().copied().map(bits))),
            DataView::F32(keys) => {
                Keys::Floats(first_positions(keys.iter().map(|key| bits(f64::from(*key)))))
            }
            DataView::String(keys) => Keys::Strings(first_positions(keys.iter().cloned())),
            other => return Err(unsupported("keys_tensor", other.element_type())),
        };
        if let Keys::Floats(positions) = &mut keys
            && version < 4
        {
            positions.remove(&bits(f64::NAN));
        }
        let texts = [&values, &default].map(|t| longest_text(t.values::<String>().unwrap_or(&[])));
        let longest = texts.into_iter().max().unwrap_or(0);
        Ok(Self { keys, key_type, values, default, longest })
    }

    fn encode<T: Element>(
        &self,
        x: TensorView<'_>,
        out: &mut Tensor,
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let (Some(values), Some([default])) = (self.values.values::<T>(), self.default.values::<T>()) else {
            return Err(RunError::Operator { operator: OPERATOR, expected: "a default of the values' type" });
        };
        cx.room_for_text(self.longest.saturating_mul(x.shape().elements() as u64))?;
        let out = cx.reset::<T>(out, x.dims())?.iter_mut();
        let set = |out: &mut T, position: Option<&usize>| {
            out.clone_from(position.and_then(|p| values.get(*p)).unwrap_or(default));
        };
        match (&self.keys, x.data()) {
            (Keys::Ints(map), DataView::I64(x)) => out.zip(x).for_each(|(o, x)| set(o, map.get(x))),
            (Keys::Ints(map), DataView::I32(x)) => {
                out.zip(x).for_each(|(o, x)| set(o, map.get(&i64::from(*x))));
            }
            (Keys::Ints(map), DataView::I16(x)) => {
                out.zip(x).for_each(|(o, x)| set(o, map.get(&i64::from(*x))));
            }
            (Keys::Floats(map), DataView::F64(x)) => out.zip(x).for_each(|(o, x)| set(o, map.get(&bits(*x)))),
            (Keys::Floats(map), DataView::F32(x)) => {
                out.zip(x).for_each(|(o, x)| set(o, map.get(&bits(f64::from(*x)))));
            }
            (Keys::Strings(map), DataView::String(x)) => out.zip(x).for_each(|(o, x)| set(o, map.get(x))),
            (_, other) => {
                return Err(RunError::InputType {
                    operator: OPERATOR,
                    expected: self.key_type.name(),
                    found: other.element_type(),
                });
            }
        }
        Ok(())
    }
}

impl Kernel for LabelEncoder {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        if x.element_type() != self.key_type {
            return Err(RunError::InputType {
                operator: OPERATOR,
                expected: self.key_type.name(),
                found: x.element_type(),
            });
        }
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        match self.values.element_type() {
            ElementType::F32 => self.encode::<f32>(x, out, cx),
            ElementType::F64 => self.encode::<f64>(x, out, cx),
            ElementType::I16 => self.encode::<i16>(x, out, cx),
            ElementType::I32 => self.encode::<i32>(x, out, cx),
            ElementType::String => self.encode::<String>(x, out, cx),
            _ => self.encode::<i64>(x, out, cx),
        }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        let found = first_fact(inputs)?.element;
        if found != self.key_type {
            return Err(BuildError::invalid(format!("expected {} keys, found {found} input", self.key_type)));
        }
        Ok(smallvec![same_shape(inputs, self.values.element_type())])
    }

    fn memory(&self) -> usize {
        let text: usize = match &self.keys {
            Keys::Strings(map) => map.keys().map(String::len).sum(),
            Keys::Ints(_) | Keys::Floats(_) => 0,
        };
        let values: usize = self.values.values::<String>().unwrap_or(&[]).iter().map(String::len).sum();
        text + values + self.values.shape().elements() * 6 * size_of::<usize>()
    }
}

/// The keys or the values: the one attribute of the four that is there.
fn column(attributes: &Attributes, side: &str) -> Result<Tensor, BuildError> {
    let [tensor, ints, floats, strings] =
        ["tensor", "int64s", "floats", "strings"].map(|kind| format!("{side}_{kind}"));
    let mut found = Vec::new();
    if let Some(values) = attributes.tensor(&tensor)? {
        found.push(values.clone());
    }
    if !attributes.ints(&ints)?.is_empty() {
        found.push(Tensor::vector(attributes.ints(&ints)?.to_vec()));
    }
    if !attributes.floats(&floats)?.is_empty() {
        found.push(Tensor::vector(attributes.floats(&floats)?.to_vec()));
    }
    if !attributes.strings(&strings)?.is_empty() {
        found.push(Tensor::vector(attributes.strings(&strings)?.to_vec()));
    }
    let count = found.len();
    match found.pop() {
        Some(values) if count == 1 => Ok(values),
        _ => Err(BuildError::invalid(format!(
            "expected one of `{tensor}`, `{ints}`, `{floats}` and `{strings}`, found {count}"
        ))),
    }
}

/// What an element becomes that is no key: a tensor of one element of the values' type.
fn default(attributes: &Attributes, element: ElementType) -> Result<Tensor, BuildError> {
    if let Some(tensor) = attributes.tensor("default_tensor")? {
        if tensor.element_type() != element || tensor.shape().elements() != 1 {
            return Err(BuildError::invalid(format!(
                "attribute `default_tensor`: expected one {element}, found {:?}",
                tensor.view()
            )));
        }
        return Ok(tensor.clone());
    }
    let int = attributes.int("default_int64")?.unwrap_or(-1);
    let float = attributes.float("default_float")?.unwrap_or(-0.0);
    let too_large =
        |_| BuildError::invalid(format!("attribute `default_int64`: expected an {element}, found {int}"));
    Ok(match element {
        ElementType::F32 => Tensor::scalar(float),
        ElementType::F64 => Tensor::scalar(f64::from(float)),
        ElementType::I64 => Tensor::scalar(int),
        ElementType::I32 => Tensor::scalar(i32::try_from(int).map_err(too_large)?),
        ElementType::I16 => Tensor::scalar(i16::try_from(int).map_err(too_large)?),
        ElementType::String => {
            Tensor::scalar(attributes.string("default_string")?.unwrap_or("_Unused").to_owned())
        }
        other => return Err(unsupported("values_tensor", other)),
    })
}

fn unsupported(attribute: &str, found: ElementType) -> BuildError {
    BuildError::invalid(format!(
        "attribute `{attribute}`: expected f32, f64, i16, i32, i64 or string, found {found}"
    ))
}

fn first_positions<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
    let mut positions = HashMap::new();
    for (position, key) in keys.enumerate() {
        positions.entry(key).or_insert(position);
    }
    positions
}

/// A float as a key: all NaN are one key, and so are the two zeros.
fn bits(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        // Adding zero makes -0.0 of the sum 0.0 and leaves every other number.
        (value + 0.0).to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{
        build, build_version, close, floats, ints, one, run, strings, text, words,
    };
    use super::*;
    use crate::kernel::Attribute;

    #[test]
    fn strings_become_integers_and_unknown_ones_the_default() {
        let attributes = vec![
            ("keys_strings", strings(&["Amy", "Sally"])),
            ("values_int64s", ints(&[5, 6])),
            ("default_int64", Attribute::Int(-7)),
        ];
        let y =
            one("LabelEncoder", attributes, words(&[5], &["Dori", "Amy", "Amy", "Sally", "Sally"])).unwrap();
        assert_eq!(y.values::<i64>(), Some(&[-7, 5, 5, 6, 6][..]));
    }

    #[test]
    fn every_pair_of_list_types_maps() {
        let keys = [
            ("keys_strings", strings(&["a", "b"]), words(&[1], &["b"])),
            ("keys_int64s", ints(&[1, 2]), Tensor::vector(vec![2_i64])),
            ("keys_floats", floats(&[1.5, 2.5]), Tensor::vector(vec![2.5_f32])),
        ];
        let values = [
            ("values_strings", strings(&["x", "y"]), words(&[1], &["y"])),
            ("values_int64s", ints(&[7, 8]), Tensor::vector(vec![8_i64])),
            ("values_floats", floats(&[0.5, 0.25]), Tensor::vector(vec![0.25_f32])),
        ];
        for (key_name, key, x) in &keys {
            for (value_name, value, expected) in &values {
                let attributes = vec![(*key_name, key.clone()), (*value_name, value.clone())];
                assert_eq!(one("LabelEncoder", attributes, x.clone()).unwrap(), *expected);
            }
        }
    }

    #[test]
    fn every_pair_of_tensor_types_maps() {
        let columns = || {
            [
                Tensor::vector(vec![1_i16, 2]),
                Tensor::vector(vec![1_i32, 2]),
                Tensor::vector(vec![1_i64, 2]),
                Tensor::vector(vec![1.0_f32, 2.0]),
                Tensor::vector(vec![1.0_f64, 2.0]),
                words(&[2], &["1", "2"]),
            ]
        };
        for keys in columns() {
            for values in columns() {
                let attributes = vec![
                    ("keys_tensor", Attribute::Tensor(keys.clone())),
                    ("values_tensor", Attribute::Tensor(values.clone())),
                ];
                assert_eq!(one("LabelEncoder", attributes, keys.clone()).unwrap(), values);
            }
        }
    }

    #[test]
    fn defaults_follow_the_type_of_the_values() {
        let with = |values: Tensor| {
            let attributes = vec![("keys_int64s", ints(&[1])), ("values_tensor", Attribute::Tensor(values))];
            one("LabelEncoder", attributes, Tensor::vector(vec![9_i64])).unwrap()
        };
        assert_eq!(with(words(&[1], &["a"])), words(&[1], &["_Unused"]));
        assert_eq!(with(Tensor::vector(vec![1_i16])), Tensor::vector(vec![-1_i16]));
        assert_eq!(with(Tensor::vector(vec![1_i64])), Tensor::vector(vec![-1_i64]));
        assert_eq!(with(Tensor::vector(vec![1.0_f64])), Tensor::vector(vec![0.0_f64]));
    }

    #[test]
    fn a_default_tensor_is_of_the_values_type() {
        let attributes = |default: Tensor| {
            vec![
                ("keys_strings", strings(&["a"])),
                ("values_tensor", Attribute::Tensor(Tensor::vector(vec![1_i16]))),
                ("default_tensor", Attribute::Tensor(default)),
            ]
        };
        let y = one("LabelEncoder", attributes(Tensor::vector(vec![42_i16])), words(&[1], &["b"])).unwrap();
        assert_eq!(y.values::<i16>(), Some(&[42][..]));
        let error = build("LabelEncoder", attributes(Tensor::vector(vec![42_i64]))).unwrap_err().to_string();
        assert!(error.starts_with("attribute `default_tensor`: expected one i16, found i64[1]"), "{error}");
    }

    #[test]
    fn nan_is_a_key_from_version_four_on_and_the_two_zeros_are_one() {
        let attributes =
            vec![("keys_floats", floats(&[f32::NAN, -0.0])), ("values_floats", floats(&[1.0, 2.0]))];
        let x = Tensor::vector(vec![f32::NAN, -f32::NAN, 0.0, -0.0, 3.0]);
        let encode = |version| {
            let kernel = build_version("LabelEncoder", version, attributes.clone()).unwrap();
            run(&*kernel, std::slice::from_ref(&x), 1).unwrap().remove(0)
        };
        close(&encode(4), &[5], &[1.0, 1.0, 2.0, 2.0, 0.0]);
        close(&encode(2), &[5], &[0.0, 0.0, 2.0, 2.0, 0.0]);
    }

    #[test]
    fn of_a_key_listed_twice_the_first_counts() {
        let attributes = vec![("keys_int64s", ints(&[1, 1, 2])), ("values_int64s", ints(&[10, 20, 30]))];
        let y = one("LabelEncoder", attributes, Tensor::vector(vec![1_i64, 2, 3])).unwrap();
        assert_eq!(y.values::<i64>(), Some(&[10, 30, -1][..]));
    }

    #[test]
    fn version_one_is_a_list_of_classes() {
        let attributes = || vec![("classes_strings", strings(&["a", "b"])), ("default_string", text("none"))];
        let kernel = build_version("LabelEncoder", 1, attributes()).unwrap();
        let y = run(&*kernel, &[words(&[2], &["b", "c"])], 1).unwrap();
        assert_eq!(y[0].values::<i64>(), Some(&[1, -1][..]));
        let y = run(&*kernel, &[Tensor::vector(vec![0_i64, 2])], 1).unwrap();
        assert_eq!(y[0], words(&[2], &["a", "none"]));
    }

    #[test]
    fn tables_that_contradict_are_refused() {
        let cases = [
            (
                vec![("keys_int64s", ints(&[1, 2])), ("values_int64s", ints(&[1]))],
                "expected as many values as keys, found 1 and 2",
            ),
            (
                vec![("keys_int64s", ints(&[1]))],
                "expected one of `values_tensor`, `values_int64s`, `values_floats` and `values_strings`, found 0",
            ),
            (
                vec![
                    ("keys_int64s", ints(&[1])),
                    ("keys_strings", strings(&["a"])),
                    ("values_int64s", ints(&[1])),
                ],
                "expected one of `keys_tensor`, `keys_int64s`, `keys_floats` and `keys_strings`, found 2",
            ),
        ];
        for (attributes, expected) in cases {
            assert_eq!(build("LabelEncoder", attributes).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn an_input_of_another_type_than_the_keys_is_refused() {
        let attributes = vec![("keys_int64s", ints(&[1])), ("values_int64s", ints(&[1]))];
        let error = one("LabelEncoder", attributes, words(&[1], &["a"])).unwrap_err().to_string();
        assert_eq!(error, "LabelEncoder expected i64, found string");
    }
}
