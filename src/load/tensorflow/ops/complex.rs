//! Complex numbers, which tract does not have: each such tensor is two, of the real parts and of the
//! imaginary ones. Which outputs of nodes are complex is known while a graph is stated, by their ports:
//! outlets do not tell, because the engine keeps equal constants once.

use std::sync::Arc;

use super::super::api::tfpb::DataType;
use super::super::api::tfpb::attr_value::Value;
use super::super::api::{DatumType, EngineTensor, OutletId, TVec, tvec};
use super::super::graph::{Attributes, Content, Node};
use super::WiringError;
use super::fourier::{self, Transform};
use super::wiring::{One, Wiring, first, invalid};

/// A tensor: its numbers, or their real parts, and where they are complex their imaginary ones.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub(super) real: OutletId,
    pub(super) imaginary: Option<OutletId>,
}

/// A tensor of complex numbers.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) real: OutletId,
    pub(super) imaginary: OutletId,
}

impl From<Pair> for Parts {
    fn from(pair: Pair) -> Self {
        Self { real: pair.real, imaginary: Some(pair.imaginary) }
    }
}

impl From<OutletId> for Parts {
    fn from(real: OutletId) -> Self {
        Self { real, imaginary: None }
    }
}

/// What an operator gives.
pub(super) type Given = Result<TVec<Parts>, WiringError>;

/// Operators that treat the two parts alike, each by itself.
const EACH_PART: [&str; 34] = [
    "Add",
    "AddV2",
    "AddN",
    "BatchToSpaceND",
    "BroadcastTo",
    "Concat",
    "ConcatV2",
    "ExpandDims",
    "GatherNd",
    "GatherV2",
    "Gather",
    "MatrixDiagPartV3",
    "MatrixDiagV3",
    "Mean",
    "Neg",
    "Pack",
    "Pad",
    "Reshape",
    "Reverse",
    "ReverseV2",
    "Roll",
    "Slice",
    "SpaceToBatchND",
    "Split",
    "SplitV",
    "Squeeze",
    "StridedSlice",
    "Sub",
    "Sum",
    "Tile",
    "Transpose",
    "UnsortedSegmentSum",
    "Unpack",
    "ZerosLike",
];

/// Operators of two factors.
const PRODUCTS: [&str; 6] = ["Mul", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"];

/// States an operator that takes or gives complex numbers; `None` for all others.
pub(super) fn operator(w: &mut Wiring<'_>, node: &Node, inputs: &[Parts]) -> Option<Given> {
    let takes = inputs.iter().any(|x| x.imaginary.is_some());
    let gives = match node.op.as_str() {
        "Cast" => is_complex(node.attributes.data_type("DstT")),
        op => is_of_complex(op) || Transform::of(op).is_some(),
    };
    (takes || gives).then(|| stated(w, node, inputs))
}

/// A constant.
pub(super) fn constant(w: &mut Wiring<'_>, [real, imaginary]: &[Arc<EngineTensor>; 2]) -> Given {
    let (real, imaginary) = (w.constant(Arc::clone(real))?, w.constant(Arc::clone(imaginary))?);
    Ok(tvec!(Pair { real: first(&real)?, imaginary: first(&imaginary)? }.into()))
}

/// True for the operators that are there for complex numbers alone.
fn is_of_complex(op: &str) -> bool {
    matches!(op, "Complex" | "Real" | "Imag" | "Angle" | "ComplexAbs" | "Conj" | "ConjugateTranspose")
}

/// The family of operators that are known by [`operator`] alone.
pub(super) fn handler(op: &str) -> Option<super::Handler> {
    (is_of_complex(op) || Transform::of(op).is_some()).then_some(|_, _, _| Err(WiringError::Unsupported))
}

fn is_complex(data_type: Option<DataType>) -> bool {
    matches!(data_type, Some(DataType::DtComplex64 | DataType::DtComplex128))
}

fn stated(w: &mut Wiring<'_>, node: &Node, inputs: &[Parts]) -> Given {
    let op = node.op.as_str();
    if let Some(transform) = Transform::of(op) {
        return fourier::state(w, transform, inputs);
    }
    let x = *inputs.first().ok_or_else(|| invalid("an input is missing"))?;
    let one = |outlet: OutletId| Ok(tvec!(Parts::from(outlet)));
    match op {
        "Complex" => {
            let imaginary = second(inputs)?.real;
            let both = w.same(&[x.real, imaginary])?;
            match both.as_slice() {
                [real, imaginary] => Ok(tvec!(Pair { real: *real, imaginary: *imaginary }.into())),
                _ => Err(invalid("two inputs expected")),
            }
        }
        "Cast" => cast(w, node, x),
        "Real" => one(x.real),
        "Imag" => one(pair(w, x)?.imaginary),
        "Shape" | "Size" | "Rank" => one(first(&super::real(w, &real_node(node, op), &[x.real])?)?),
        "Angle" => {
            let x = pair(w, x)?;
            one(real(w, "Atan2", &[x.imaginary, x.real])?)
        }
        "Abs" | "ComplexAbs" => {
            let x = pair(w, x)?;
            one(w.function("ComplexAbs", &[x.real, x.imaginary], f32::hypot, f64::hypot)?)
        }
        "Conj" | "ConjugateTranspose" => {
            let x = pair(w, x)?;
            let out: Parts = Pair { real: x.real, imaginary: real(w, "Neg", &[x.imaginary])? }.into();
            if op == "Conj" {
                Ok(tvec!(out))
            } else {
                each_part(w, node, "Transpose", &[out, second(inputs)?])
            }
        }
        "Square" => product(w, &real_node(node, "Mul"), x, x),
        "Exp" => {
            let x = pair(w, x)?;
            let (length, cos, sin) = (
                real(w, "Exp", &[x.real])?,
                real(w, "Cos", &[x.imaginary])?,
                real(w, "Sin", &[x.imaginary])?,
            );
            let parts = (real(w, "Mul", &[length, cos])?, real(w, "Mul", &[length, sin])?);
            Ok(tvec!(Pair { real: parts.0, imaginary: parts.1 }.into()))
        }
        "Div" | "RealDiv" => quotient(w, x, second(inputs)?),
        op if PRODUCTS.contains(&op) => product(w, &real_node(node, op), x, second(inputs)?),
        op if EACH_PART.contains(&op) => each_part(w, node, op, inputs),
        op => Err(invalid(format!("{op} of complex numbers is not supported"))),
    }
}

fn second(inputs: &[Parts]) -> Result<Parts, WiringError> {
    inputs.get(1).copied().ok_or_else(|| invalid("the second input is missing"))
}

/// The two parts of a tensor; the imaginary ones of a real tensor are zero.
pub(super) fn pair(w: &mut Wiring<'_>, x: Parts) -> Result<Pair, WiringError> {
    let real = w.plain(x.real)?;
    let imaginary = match x.imaginary {
        Some(imaginary) => imaginary,
        None => self::real(w, "ZerosLike", &[real])?,
    };
    Ok(Pair { real, imaginary })
}

fn cast(w: &mut Wiring<'_>, node: &Node, x: Parts) -> Given {
    let datum = match node.attributes.data_type("DstT") {
        Some(DataType::DtComplex64) => DatumType::F32,
        Some(DataType::DtComplex128) => DatumType::F64,
        // The imaginary parts are let go of.
        _ => return Ok(tvec!(first(&super::real(w, node, &[x.real])?)?.into())),
    };
    let real = w.typed(x.real, datum)?;
    let x = pair(w, Parts { real, ..x })?;
    let imaginary = w.typed(x.imaginary, datum)?;
    Ok(tvec!(Pair { real, imaginary }.into()))
}

fn each_part(w: &mut Wiring<'_>, node: &Node, op: &str, inputs: &[Parts]) -> Given {
    let node = real_node(node, op);
    let of = |part: fn(&Parts) -> OutletId| -> TVec<OutletId> { inputs.iter().map(part).collect() };
    let real = super::real(w, &node, &of(|x| x.real))?;
    let imaginary = super::real(w, &node, &of(|x| x.imaginary.unwrap_or(x.real)))?;
    Ok(real.into_iter().zip(imaginary).map(|(real, imaginary)| Pair { real, imaginary }.into()).collect())
}

/// `(a + bi) (c + di)`, for any operator that is linear in each of its two inputs.
fn product(w: &mut Wiring<'_>, node: &Node, x: Parts, y: Parts) -> Given {
    let adjoint = |name| node.attributes.bool(name).unwrap_or(false);
    if node.op.starts_with("BatchMatMul") && (adjoint("adj_x") || adjoint("adj_y")) {
        return Err(invalid("an adjoint of complex numbers is not supported"));
    }
    let (x, y) = (pair(w, x)?, pair(w, y)?);
    let mut of = |a, b| first(&super::real(w, node, &[a, b])?);
    let (ac, bd) = (of(x.real, y.real)?, of(x.imaginary, y.imaginary)?);
    let (ad, bc) = (of(x.real, y.imaginary)?, of(x.imaginary, y.real)?);
    let parts = (real(w, "Sub", &[ac, bd])?, real(w, "Add", &[ad, bc])?);
    Ok(tvec!(Pair { real: parts.0, imaginary: parts.1 }.into()))
}

fn quotient(w: &mut Wiring<'_>, x: Parts, y: Parts) -> Given {
    let (x, y) = (pair(w, x)?, pair(w, y)?);
    let (cc, dd) = (real(w, "Mul", &[y.real, y.real])?, real(w, "Mul", &[y.imaginary, y.imaginary])?);
    let length = real(w, "Add", &[cc, dd])?;
    let (ac, bd) = (real(w, "Mul", &[x.real, y.real])?, real(w, "Mul", &[x.imaginary, y.imaginary])?);
    let (bc, ad) = (real(w, "Mul", &[x.imaginary, y.real])?, real(w, "Mul", &[x.real, y.imaginary])?);
    let (upper, lower) = (real(w, "Add", &[ac, bd])?, real(w, "Sub", &[bc, ad])?);
    let parts = (real(w, "RealDiv", &[upper, length])?, real(w, "RealDiv", &[lower, length])?);
    Ok(tvec!(Pair { real: parts.0, imaginary: parts.1 }.into()))
}

/// An operator of real numbers.
fn real(w: &mut Wiring<'_>, op: &str, inputs: &[OutletId]) -> One {
    let node = Node {
        name: String::new(),
        op: op.to_owned(),
        attributes: Attributes::default(),
        inputs: Vec::new(),
        content: Content::None,
    };
    first(&super::real(w, &node, inputs)?)
}

/// The same node for real numbers.
fn real_node(node: &Node, op: &str) -> Node {
    let mut node = Node { op: op.to_owned(), ..node.clone() };
    let of_real = match node.attributes.data_type("T") {
        Some(DataType::DtComplex64) => Some(DataType::DtFloat),
        Some(DataType::DtComplex128) => Some(DataType::DtDouble),
        _ => None,
    };
    if let Some(of_real) = of_real {
        node.attributes.set("T", Value::Type(of_real as i32));
    }
    node
}

#[cfg(test)]
mod tests {
    use crate::load::{Formats, LoadOptions, Payload};
    use crate::tensor::Tensor;

    fn node(name: &str, op: &str, inputs: &[&str], attributes: &str) -> String {
        let inputs: Vec<String> = inputs.iter().map(|input| format!("input: \"{input}\"")).collect();
        let inputs = inputs.join(" ");
        format!("node {{ name: \"{name}\" op: \"{op}\" {inputs}{attributes} }}\n")
    }

    fn placeholder(name: &str, width: usize) -> String {
        let shape = format!("shape {{ dim {{ size: -1 }} dim {{ size: {width} }} }}");
        let attributes = format!(
            "attr {{ key: \"dtype\" value {{ type: DT_FLOAT }} }} attr {{ key: \"shape\" value {{ {shape} }} }}"
        );
        node(name, "Placeholder", &[], &attributes)
    }

    fn constant(name: &str, data_type: &str, size: usize, values: &str) -> String {
        let tensor =
            format!("tensor {{ dtype: {data_type} tensor_shape {{ dim {{ size: {size} }} }} {values} }}");
        let attributes = format!(
            "attr {{ key: \"dtype\" value {{ type: {data_type} }} }} attr {{ key: \"value\" value {{ {tensor} }} }}"
        );
        node(name, "Const", &[], &attributes)
    }

    /// `p` is a spectrum times a constant, `q` is it over an exponential, `c` are both side by side.
    fn graph() -> String {
        let of_complex = "attr { key: \"T\" value { type: DT_COMPLEX64 } }";
        let factors = "scomplex_val: [1, 2, 0.5, -1, 3, 0]";
        [
            placeholder("x", 4),
            placeholder("y", 3),
            constant("length", "DT_INT32", 1, "int_val: 4"),
            constant("axis", "DT_INT32", 1, "int_val: 1"),
            constant("factors", "DT_COMPLEX64", 3, factors),
            node("s", "RFFT", &["x", "length"], ""),
            node("p", "Mul", &["s", "factors"], of_complex),
            node("z", "Complex", &["y", "y"], ""),
            node("e", "Exp", &["z"], of_complex),
            node("q", "RealDiv", &["p", "e"], of_complex),
            node("conj", "Conj", &["p"], of_complex),
            node("c", "ConcatV2", &["q", "conj", "axis"], of_complex),
            node("cc", "Mul", &["c", "c"], of_complex),
            node("sum", "Sum", &["c", "axis"], of_complex),
            node("magnitude", "ComplexAbs", &["c"], ""),
            node("angle", "Angle", &["q"], ""),
            node("square", "Real", &["cc"], ""),
            node("total", "Imag", &["sum"], ""),
            node("back", "IRFFT", &["p", "length"], ""),
            "versions { producer: 1395 }".to_owned(),
        ]
        .concat()
    }

    fn outputs(names: &[&str]) -> LoadOptions {
        LoadOptions { outputs: names.iter().map(ToString::to_string).collect(), ..LoadOptions::default() }
    }

    #[test]
    fn complex_numbers_are_computed_with_as_tensorflow_does() {
        let names = ["magnitude", "angle", "square", "total", "back"];
        let payload = Payload::from(graph().into_bytes());
        let model = Formats::default().load(Some("tensorflow-text"), payload, &outputs(&names)).unwrap();
        let x = Tensor::new(&[1, 4], vec![1.0_f32, 2.0, 4.0, 3.0]).unwrap();
        let y = Tensor::new(&[1, 3], vec![0.1_f32, 0.2, 0.3]).unwrap();
        let mut found = vec![Tensor::default(); names.len()];
        model.run(&[x.view(), y.view()], &mut found).unwrap();
        // tf.abs(c), tf.math.angle(q), tf.math.real(c * c), tf.math.imag(tf.reduce_sum(c, 1)), tf.signal.irfft(p)
        let expected: [&[f32]; 5] = [
            &[20.232_78, 2.894_65, 0.0, 22.360_68, 3.535_53, 0.0],
            &[1.007_15, 1.512_69],
            &[-175.660_45, -8.322_49, 0.0, -300.0, -12.0, 0.0],
            &[-3.507_22],
            &[2.25, 0.75, 2.75, 4.25],
        ];
        for ((name, found), expected) in names.iter().zip(&found).zip(expected) {
            let found = found.values::<f32>().unwrap();
            let agree = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(agree && found.len() >= expected.len(), "{name}: {found:?}");
        }
    }

    #[test]
    fn an_output_of_complex_numbers_is_refused_with_what_to_do() {
        let payload = Payload::from(graph().into_bytes());
        let refused = Formats::default().load(Some("tensorflow-text"), payload, &outputs(&["p"])).err();
        let text = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("the output `p` is of complex numbers"), "{text}");
    }
}
