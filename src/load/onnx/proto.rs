//! The messages of an ONNX file, as far as they are read.
//!
//! tract has them too, but without sequence and map types, and with a copy of every weight.

use bytes::Bytes;

use crate::load::protobuf::{Field, Schema};
use crate::load::tensor_proto::SCHEMA as TENSOR;
pub(super) use crate::load::tensor_proto::TensorProto;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub(super) ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSetId>,
    #[prost(message, repeated, tag = "25")]
    pub(super) functions: Vec<FunctionProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OperatorSetId {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "15")]
    pub(super) sparse_initializer: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SparseTensorProto {
    #[prost(message, optional, tag = "1")]
    pub(super) values: Option<TensorProto>,
    #[prost(message, optional, tag = "2")]
    pub(super) indices: Option<TensorProto>,
    #[prost(int64, repeated, tag = "3")]
    pub(super) dims: Vec<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    pub(super) domain: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(float, tag = "2")]
    pub(super) f: f32,
    #[prost(int64, tag = "3")]
    pub(super) i: i64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) s: Bytes,
    #[prost(message, optional, tag = "5")]
    pub(super) t: Option<TensorProto>,
    #[prost(message, optional, tag = "6")]
    pub(super) g: Option<GraphProto>,
    #[prost(float, repeated, tag = "7")]
    pub(super) floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub(super) ints: Vec<i64>,
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub(super) strings: Vec<Bytes>,
    #[prost(message, repeated, tag = "11")]
    pub(super) graphs: Vec<GraphProto>,
    #[prost(int32, tag = "20")]
    pub(super) r#type: i32,
    #[prost(string, tag = "21")]
    pub(super) ref_attr_name: String,
    #[prost(message, optional, tag = "22")]
    pub(super) sparse_tensor: Option<SparseTensorProto>,
}

/// The values of `AttributeProto.type`.
pub(super) mod attribute_type {
    pub(in super::super) const FLOAT: i32 = 1;
    pub(in super::super) const INT: i32 = 2;
    pub(in super::super) const STRING: i32 = 3;
    pub(in super::super) const TENSOR: i32 = 4;
    pub(in super::super) const GRAPH: i32 = 5;
    pub(in super::super) const FLOATS: i32 = 6;
    pub(in super::super) const INTS: i32 = 7;
    pub(in super::super) const STRINGS: i32 = 8;
}

/// A function of the model's own, that nodes call as an operator.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FunctionProto {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub(super) output: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    pub(super) node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "9")]
    pub(super) opset_import: Vec<OperatorSetId>,
    #[prost(string, tag = "10")]
    pub(super) domain: String,
    #[prost(message, repeated, tag = "11")]
    pub(super) attribute_proto: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TypeProto {
    #[prost(oneof = "TypeValue", tags = "1, 4, 5, 8, 9")]
    pub(super) value: Option<TypeValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum TypeValue {
    #[prost(message, tag = "1")]
    Tensor(TensorType),
    #[prost(message, tag = "4")]
    Sequence(Box<ElementOf>),
    #[prost(message, tag = "5")]
    Map(Box<MapType>),
    #[prost(message, tag = "8")]
    SparseTensor(TensorType),
    #[prost(message, tag = "9")]
    Optional(Box<ElementOf>),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(super) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<TensorShape>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ElementOf {
    #[prost(message, optional, boxed, tag = "1")]
    pub(super) elem_type: Option<Box<TypeProto>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MapType {
    #[prost(int32, tag = "1")]
    pub(super) key_type: i32,
    #[prost(message, optional, boxed, tag = "2")]
    pub(super) value_type: Option<Box<TypeProto>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Dimension {
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub(super) value: Option<DimensionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum DimensionValue {
    #[prost(int64, tag = "1")]
    Size(i64),
    #[prost(string, tag = "2")]
    Symbol(String),
}

/// A node of ONNX's own domain without attributes.
#[cfg(test)]
pub(super) fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: outputs.iter().map(ToString::to_string).collect(),
        ..NodeProto::default()
    }
}

/// What a [`ModelProto`] takes in memory; see [`crate::load::protobuf`].
pub(super) static MODEL: Schema = Schema {
    bytes: size_of::<ModelProto>(),
    fields: &[
        (7, Field::Message(&GRAPH)),
        (8, Field::Message(&OPERATOR_SET)),
        (25, Field::Message(&FUNCTION)),
    ],
};

static OPERATOR_SET: Schema = Schema { bytes: size_of::<OperatorSetId>(), fields: &[] };

static GRAPH: Schema = Schema {
    bytes: size_of::<GraphProto>(),
    fields: &[
        (1, Field::Message(&NODE)),
        (5, Field::Message(&TENSOR)),
        (11, Field::Message(&VALUE)),
        (12, Field::Message(&VALUE)),
        (15, Field::Message(&SPARSE)),
    ],
};

static FUNCTION: Schema = Schema {
    bytes: size_of::<FunctionProto>(),
    fields: &[
        (4, Field::Text),
        (5, Field::Text),
        (7, Field::Message(&NODE)),
        (9, Field::Message(&OPERATOR_SET)),
        (11, Field::Message(&ATTRIBUTE)),
    ],
};

static NODE: Schema = Schema {
    bytes: size_of::<NodeProto>(),
    fields: &[(1, Field::Text), (2, Field::Text), (5, Field::Message(&ATTRIBUTE))],
};

static ATTRIBUTE: Schema = Schema {
    bytes: size_of::<AttributeProto>(),
    fields: &[
        (5, Field::Message(&TENSOR)),
        (6, Field::Message(&GRAPH)),
        (7, Field::Numbers(1)),
        (8, Field::Numbers(8)),
        (9, Field::Text),
        (11, Field::Message(&GRAPH)),
        (22, Field::Message(&SPARSE)),
    ],
};

static SPARSE: Schema = Schema {
    bytes: size_of::<SparseTensorProto>(),
    fields: &[(1, Field::Message(&TENSOR)), (2, Field::Message(&TENSOR)), (3, Field::Numbers(8))],
};

static VALUE: Schema = Schema { bytes: size_of::<ValueInfoProto>(), fields: &[(2, Field::Message(&TYPE))] };

static TYPE: Schema = Schema {
    bytes: size_of::<TypeProto>(),
    fields: &[
        (1, Field::Message(&TENSOR_TYPE)),
        (4, Field::Message(&ELEMENT_OF)),
        (5, Field::Message(&MAP_TYPE)),
        (8, Field::Message(&TENSOR_TYPE)),
        (9, Field::Message(&ELEMENT_OF)),
    ],
};

static ELEMENT_OF: Schema = Schema { bytes: size_of::<ElementOf>(), fields: &[(1, Field::Message(&TYPE))] };

static MAP_TYPE: Schema = Schema { bytes: size_of::<MapType>(), fields: &[(2, Field::Message(&TYPE))] };

static TENSOR_TYPE: Schema =
    Schema { bytes: size_of::<TensorType>(), fields: &[(2, Field::Message(&SHAPE))] };

static SHAPE: Schema = Schema { bytes: size_of::<TensorShape>(), fields: &[(1, Field::Message(&DIMENSION))] };

static DIMENSION: Schema = Schema { bytes: size_of::<Dimension>(), fields: &[] };
