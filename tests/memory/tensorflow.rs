//! The layers of [`files::layers`](crate::files::layers) as TensorFlow writes them.

use prost::Message;

use crate::files::{LAYERS, noise};

const FLOAT: i32 = 1;

/// A frozen graph: the weights are constants.
pub(crate) fn frozen(version: u8) -> Vec<u8> {
    let weights = variables().map(|(name, dims)| {
        let value = Tensor { data_type: FLOAT, shape: Some(shape(&dims)), content: noise_of(&dims, version) };
        node("Const", &name, &[], vec![data_type("dtype", FLOAT), attribute("value", Kind::Tensor(value))])
    });
    let nodes: Vec<Node> = std::iter::once(placeholder("x")).chain(weights).chain(layers("")).collect();
    graph(nodes).encode_to_vec()
}

/// A tar of a SavedModel with a checkpoint of one shard, in which each variable has, as those of a
/// trained model do, a slot of the optimiser's beside it.
pub(crate) fn saved_model(version: u8) -> Vec<u8> {
    let handles = variables().flat_map(|(name, dims)| {
        let handle = vec![
            data_type("dtype", FLOAT),
            attribute("shape", Kind::Shape(shape(&dims))),
            attribute("shared_name", Kind::Text(name.clone().into())),
        ];
        let read = vec![data_type("dtype", FLOAT)];
        [
            node("VarHandleOp", &name, &[], handle),
            node("ReadVariableOp", &format!("{name}/read"), &[&name], read),
        ]
    });
    let nodes: Vec<Node> = std::iter::once(placeholder("x")).chain(handles).chain(layers("/read")).collect();
    let info =
        |name: &str, dims: &[i64]| Info { name: name.into(), data_type: FLOAT, shape: Some(open(dims)) };
    let [width, .., outputs] = LAYERS.map(|n| n as i64);
    let signature = Signature {
        inputs: vec![InfoEntry { key: "x".into(), value: Some(info("x:0", &[-1, width])) }],
        outputs: vec![InfoEntry { key: "y".into(), value: Some(info("y:0", &[-1, outputs])) }],
        method: "tensorflow/serving/predict".into(),
    };
    let meta = MetaGraph {
        info: Some(MetaInfo { tags: vec!["serve".into()] }),
        graph: Some(graph(nodes)),
        signatures: vec![SignatureEntry { key: "serving_default".into(), value: Some(signature) }],
    };
    let (index, data) = checkpoint(version);
    tar_of(&[
        ("saved_model.pb", SavedModel { version: 1, graphs: vec![meta] }.encode_to_vec()),
        ("variables/variables.data-00000-of-00001", data),
        ("variables/variables.index", index),
    ])
}

fn variables() -> impl Iterator<Item = (String, Vec<usize>)> {
    LAYERS.windows(2).enumerate().flat_map(|(at, widths)| {
        let (depth, columns) = (widths[0], widths[1]);
        [(format!("w{at}"), vec![depth, columns]), (format!("b{at}"), vec![columns])]
    })
}

/// What is between the input and the output `y`; the weights go by their names with this behind them.
fn layers(suffix: &str) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut last = "x".to_owned();
    for at in 0..LAYERS.len() - 1 {
        let of_type = || vec![data_type("T", FLOAT)];
        let (product, sum) = (format!("product{at}"), format!("sum{at}"));
        let end = if at + 2 == LAYERS.len() { "y".to_owned() } else { format!("out{at}") };
        nodes.push(node("MatMul", &product, &[&last, &format!("w{at}{suffix}")], of_type()));
        nodes.push(node("BiasAdd", &sum, &[&product, &format!("b{at}{suffix}")], of_type()));
        nodes.push(node("Relu", &end, &[&sum], of_type()));
        last = end;
    }
    nodes
}

/// The index and the only shard: weights and slots in the order of their names.
fn checkpoint(version: u8) -> (Vec<u8>, Vec<u8>) {
    let slots = variables().map(|(name, dims)| (format!("{name}/slot"), vec![dims[0], 8]));
    let mut all: Vec<(String, Vec<usize>)> = variables().chain(slots).collect();
    all.sort();
    let mut data = Vec::new();
    let mut entries = vec![(String::new(), Header { shards: 1 }.encode_to_vec())];
    for (name, dims) in all {
        let bytes = noise_of(&dims, version);
        let entry = Entry {
            data_type: FLOAT,
            shape: Some(shape(&dims)),
            offset: data.len() as i64,
            size: bytes.len() as i64,
            checksum: mask(crc32c::crc32c(&bytes)),
        };
        entries.push((name, entry.encode_to_vec()));
        data.extend(bytes);
    }
    (table(&entries), data)
}

/// A table in LevelDB's format, of one block.
fn table(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    let data = push_block(&mut file, entries);
    let meta = push_block(&mut file, &[]);
    let last = entries.last().unwrap().0.clone();
    let index = push_block(&mut file, &[(last, data)]);
    let mut footer = [meta, index].concat();
    footer.resize(40, 0);
    file.extend(footer);
    file.extend(0xdb47_7524_8b80_fb57_u64.to_le_bytes());
    file
}

/// Answers where it lies.
fn push_block(file: &mut Vec<u8>, entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let number = |to: &mut Vec<u8>, n: usize| prost::encoding::encode_varint(n as u64, to);
    let mut block = Vec::new();
    for (key, value) in entries {
        [0, key.len(), value.len()].into_iter().for_each(|n| number(&mut block, n));
        block.extend(key.as_bytes());
        block.extend(value);
    }
    block.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    let mut handle = Vec::new();
    [file.len(), block.len()].into_iter().for_each(|n| number(&mut handle, n));
    block.push(0);
    let checksum = mask(crc32c::crc32c(&block));
    file.extend(block);
    file.extend(checksum.to_le_bytes());
    handle
}

fn mask(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn tar_of(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, &**content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn noise_of(dims: &[usize], version: u8) -> Vec<u8> {
    noise(dims.iter().product(), version)
}

fn graph(nodes: Vec<Node>) -> Graph {
    Graph { nodes, versions: Some(Versions { producer: 1395 }) }
}

fn placeholder(name: &str) -> Node {
    let dims = open(&[-1, LAYERS[0] as i64]);
    node("Placeholder", name, &[], vec![data_type("dtype", FLOAT), attribute("shape", Kind::Shape(dims))])
}

fn node(op: &str, name: &str, inputs: &[&str], attributes: Vec<Attribute>) -> Node {
    let inputs = inputs.iter().map(ToString::to_string).collect();
    Node { name: name.into(), op: op.into(), inputs, attributes }
}

fn data_type(key: &str, value: i32) -> Attribute {
    attribute(key, Kind::Type(value))
}

fn attribute(key: &str, kind: Kind) -> Attribute {
    Attribute { key: key.into(), value: Some(Value { kind: Some(kind) }) }
}

fn shape(dims: &[usize]) -> Shape {
    open(&dims.iter().map(|d| *d as i64).collect::<Vec<_>>())
}

fn open(dims: &[i64]) -> Shape {
    Shape { dims: dims.iter().map(|size| Dim { size: *size }).collect() }
}

#[derive(Clone, PartialEq, Message)]
struct SavedModel {
    #[prost(int64, tag = "1")]
    version: i64,
    #[prost(message, repeated, tag = "2")]
    graphs: Vec<MetaGraph>,
}

#[derive(Clone, PartialEq, Message)]
struct MetaGraph {
    #[prost(message, optional, tag = "1")]
    info: Option<MetaInfo>,
    #[prost(message, optional, tag = "2")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "5")]
    signatures: Vec<SignatureEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct MetaInfo {
    #[prost(string, repeated, tag = "4")]
    tags: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct SignatureEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Signature>,
}

#[derive(Clone, PartialEq, Message)]
struct Signature {
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<InfoEntry>,
    #[prost(message, repeated, tag = "2")]
    outputs: Vec<InfoEntry>,
    #[prost(string, tag = "3")]
    method: String,
}

#[derive(Clone, PartialEq, Message)]
struct InfoEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Info>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(message, optional, tag = "3")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, optional, tag = "4")]
    versions: Option<Versions>,
}

#[derive(Clone, PartialEq, Message)]
struct Versions {
    #[prost(int32, tag = "1")]
    producer: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    op: String,
    #[prost(string, repeated, tag = "3")]
    inputs: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(oneof = "Kind", tags = "2, 6, 7, 8")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(bytes, tag = "2")]
    Text(Vec<u8>),
    #[prost(int32, tag = "6")]
    Type(i32),
    #[prost(message, tag = "7")]
    Shape(Shape),
    #[prost(message, tag = "8")]
    Tensor(Tensor),
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int32, tag = "1")]
    data_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    #[prost(bytes = "vec", tag = "4")]
    content: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "2")]
    dims: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(int32, tag = "1")]
    shards: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(int32, tag = "1")]
    data_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    size: i64,
    #[prost(fixed32, tag = "6")]
    checksum: u32,
}
