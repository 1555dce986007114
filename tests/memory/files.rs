//! Models of some 20 MB, whose weights are noise.

use prost::Message;

/// The widths of the layers; the largest has three quarters of the weights.
pub(crate) const LAYERS: [usize; 4] = [384, 1280, 2816, 384];

/// `Gemm` with transposed weights, `MatMul`, and a `Gemm` again: as the exporters write them.
pub(crate) fn layers(version: u8) -> Vec<u8> {
    let [a, b, c, d] = LAYERS;
    let nodes = vec![
        Node { attributes: vec![int("transB", 1)], ..node("Gemm", &["x", "w1", "b1"], "h1") },
        node("Relu", &["h1"], "h2"),
        node("MatMul", &["h2", "w2"], "h3"),
        node("Add", &["h3", "b2"], "h4"),
        node("Gemm", &["h4", "w3", "b3"], "y"),
    ];
    let constants = vec![
        floats("w1", &[b, a], version),
        floats("b1", &[b], version),
        floats("w2", &[b, c], version),
        floats("b2", &[c], version),
        floats("w3", &[c, d], version),
        floats("b3", &[d], version),
    ];
    model(nodes, constants, &[None, Some(a)])
}

/// All weights in one tensor.
pub(crate) fn one_layer(version: u8) -> Vec<u8> {
    let [a, ..] = LAYERS;
    model(vec![node("MatMul", &["x", "w"], "y")], vec![floats("w", &[a, 14_000], version)], &[None, Some(a)])
}

/// An embedding: a large table of which a run reads a few rows.
pub(crate) fn table(version: u8) -> Vec<u8> {
    let [a, ..] = LAYERS;
    let cast = Node { attributes: vec![int("to", 7)], ..node("Cast", &["x"], "index") };
    let nodes =
        vec![cast, node("Gather", &["w", "index"], "rows"), node("ReduceSum", &["rows", "axis"], "y")];
    let axis = Tensor { dims: vec![1], data_type: 7, raw: 1_i64.to_le_bytes().into(), name: "axis".into() };
    model(nodes, vec![floats("w", &[220_000, 25], version), axis], &[None, Some(a)])
}

/// The layers behind an operator for which a network engine is there.
pub(crate) fn beside_a_convolution(version: u8) -> Vec<u8> {
    let [a, b, c, d] = LAYERS;
    let nodes = vec![
        node("Reshape", &["x", "line"], "x1"),
        node("Conv", &["x1", "kernel"], "x2"),
        node("Reshape", &["x2", "row"], "x3"),
        Node { attributes: vec![int("transB", 1)], ..node("Gemm", &["x3", "w1"], "h1") },
        node("MatMul", &["h1", "w2"], "h2"),
        node("MatMul", &["h2", "w3"], "y"),
    ];
    let shape = |name: &str, dims: &[i64]| Tensor {
        dims: vec![dims.len() as i64],
        data_type: 7,
        raw: dims.iter().flat_map(|d| d.to_le_bytes()).collect(),
        name: name.into(),
    };
    let constants = vec![
        shape("line", &[-1, 1, a as i64]),
        shape("row", &[-1, a as i64]),
        floats("kernel", &[1, 1, 1], version),
        floats("w1", &[b, a], version),
        floats("w2", &[b, c], version),
        floats("w3", &[c, d], version),
    ];
    model(nodes, constants, &[None, Some(a)])
}

/// Numbers of which no two versions have the same; small, so that no sum overflows.
pub(crate) fn noise(count: usize, version: u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32 ^ u32::from(version);
    let mut bytes = Vec::with_capacity(count * 4);
    for _ in 0..count {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(&((state >> 8) as f32 / 1e9 - 0.008).to_le_bytes());
    }
    bytes
}

fn floats(name: &str, dims: &[usize], version: u8) -> Tensor {
    let raw = noise(dims.iter().product(), version);
    Tensor { dims: dims.iter().map(|d| *d as i64).collect(), data_type: 1, raw, name: name.into() }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Node {
    let inputs = inputs.iter().map(ToString::to_string).collect();
    Node { inputs, outputs: vec![output.into()], operator: operator.into(), attributes: vec![] }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.into(), int: value, kind: 2 }
}

fn model(nodes: Vec<Node>, constants: Vec<Tensor>, input: &[Option<usize>]) -> Vec<u8> {
    let value = |name: &str, dims: Option<&[Option<usize>]>| {
        let dim = |size: &Option<usize>| Dim { size: size.map(|n| n as i64) };
        let shape = dims.map(|dims| Shape { dims: dims.iter().map(dim).collect() });
        Value { name: name.into(), kind: Some(Kind { tensor: Some(TensorKind { element: 1, shape }) }) }
    };
    let graph = Graph {
        nodes,
        name: "g".into(),
        constants,
        inputs: vec![value("x", Some(input))],
        outputs: vec![value("y", None)],
    };
    let set = OperatorSet { domain: String::new(), version: 17 };
    Model { ir_version: 8, graph: Some(graph), sets: vec![set] }.encode_to_vec()
}

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    sets: Vec<OperatorSet>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    constants: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    int: i64,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Message)]
struct Kind {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorKind>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorKind {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dims: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, optional, tag = "1")]
    size: Option<i64>,
}
