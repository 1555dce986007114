//! TensorFlow's messages by the names of their fields, which the text form needs: the binary form,
//! and the types generated for it, only know numbers.
//!
//! A line is a message and its fields as `name:number:type`; `*` before a type repeats it, `map<T>`
//! has strings for keys. Names and numbers are those of TensorFlow's public `.proto` files. Fields
//! that are listed in [`IGNORED`] are left out before the text is read.

use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, MessageOptions,
};
use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::api::tfpb::DataType;
use super::malformed;
use crate::load::LoadError;

/// Fields that say nothing of what a model computes.
pub(super) const IGNORED: &[&str] = &[
    "any_info",
    "collection_def",
    "debug_info",
    "experimental_debug_info",
    "experimental_full_type",
    "experimental_type",
    "full_type",
    "handle_data",
    "object_graph_def",
    "saver_def",
];

const MESSAGES: &[(&str, &str)] = &[
    ("SavedModel", "saved_model_schema_version:1:int64 meta_graphs:2:*MetaGraphDef"),
    (
        "MetaGraphDef",
        "meta_info_def:1:MetaInfoDef graph_def:2:GraphDef signature_def:5:map<SignatureDef> \
         asset_file_def:6:*AssetFileDef",
    ),
    (
        "MetaInfoDef",
        "meta_graph_version:1:string stripped_op_list:2:OpList tags:4:*string tensorflow_version:5:string \
         tensorflow_git_version:6:string stripped_default_attrs:7:bool function_aliases:8:map<string>",
    ),
    ("SignatureDef", "inputs:1:map<TensorInfo> outputs:2:map<TensorInfo> method_name:3:string defaults:4:map<TensorProto>"),
    ("TensorInfo", "name:1:string coo_sparse:4:CooSparse composite_tensor:5:CompositeTensor dtype:2:DataType tensor_shape:3:TensorShapeProto"),
    ("CooSparse", "values_tensor_name:1:string indices_tensor_name:2:string dense_shape_tensor_name:3:string"),
    ("CompositeTensor", "components:2:*TensorInfo"),
    ("AssetFileDef", "tensor_info:1:TensorInfo filename:2:string"),
    ("GraphDef", "node:1:*NodeDef library:2:FunctionDefLibrary version:3:int32 versions:4:VersionDef"),
    ("VersionDef", "producer:1:int32 min_consumer:2:int32 bad_consumers:3:*int32"),
    ("NodeDef", "name:1:string op:2:string input:3:*string device:4:string attr:5:map<AttrValue>"),
    (
        "AttrValue",
        "list:1:ListValue s:2:bytes i:3:int64 f:4:float b:5:bool type:6:DataType shape:7:TensorShapeProto \
         tensor:8:TensorProto placeholder:9:string func:10:NameAttrList",
    ),
    (
        "ListValue",
        "s:2:*bytes i:3:*int64 f:4:*float b:5:*bool type:6:*DataType shape:7:*TensorShapeProto tensor:8:*TensorProto \
         func:9:*NameAttrList",
    ),
    ("NameAttrList", "name:1:string attr:2:map<AttrValue>"),
    ("TensorShapeProto", "dim:2:*Dim unknown_rank:3:bool"),
    ("Dim", "size:1:int64 name:2:string"),
    (
        "TensorProto",
        "dtype:1:DataType tensor_shape:2:TensorShapeProto version_number:3:int32 tensor_content:4:bytes \
         float_val:5:*float double_val:6:*double int_val:7:*int32 string_val:8:*bytes scomplex_val:9:*float \
         int64_val:10:*int64 bool_val:11:*bool dcomplex_val:12:*double half_val:13:*int32 uint32_val:16:*uint32 \
         uint64_val:17:*uint64",
    ),
    ("FunctionDefLibrary", "function:1:*FunctionDef gradient:2:*GradientDef"),
    ("GradientDef", "function_name:1:string gradient_func:2:string"),
    (
        "FunctionDef",
        "signature:1:OpDef node_def:3:*NodeDef ret:4:map<string> attr:5:map<AttrValue> control_ret:6:map<string> \
         arg_attr:7:intmap<ArgAttrs> resource_arg_unique_id:8:intmap<uint32>",
    ),
    ("ArgAttrs", "attr:1:map<AttrValue>"),
    ("OpList", "op:1:*OpDef"),
    (
        "OpDef",
        "name:1:string input_arg:2:*ArgDef output_arg:3:*ArgDef attr:4:*AttrDef summary:5:string description:6:string \
         deprecation:8:OpDeprecation is_aggregate:16:bool is_stateful:17:bool is_commutative:18:bool \
         allows_uninitialized_input:19:bool control_output:20:*string is_distributed_communication:21:bool",
    ),
    ("OpDeprecation", "version:1:int32 explanation:2:string"),
    (
        "ArgDef",
        "name:1:string description:2:string type:3:DataType type_attr:4:string number_attr:5:string \
         type_list_attr:6:string is_ref:16:bool",
    ),
    (
        "AttrDef",
        "name:1:string type:2:string default_value:3:AttrValue description:4:string has_minimum:5:bool minimum:6:int64 \
         allowed_values:7:AttrValue",
    ),
];

/// The description of a message.
pub(super) fn message(name: &str) -> Result<MessageDescriptor, LoadError> {
    let bad = |e: String| malformed(format!("the description of TensorFlow's text form: {e}"));
    let mut messages = Vec::new();
    for (name, fields) in MESSAGES {
        messages.push(described(name, fields).ok_or_else(|| bad(format!("the message {name}")))?);
    }
    let file = FileDescriptorProto {
        name: Some("tensorflow.proto".to_owned()),
        package: Some("tensorflow".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: messages,
        enum_type: vec![data_types()],
        ..FileDescriptorProto::default()
    };
    let pool = DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file: vec![file] });
    let pool = pool.map_err(|e| bad(e.to_string()))?;
    pool.get_message_by_name(&format!("tensorflow.{name}")).ok_or_else(|| bad(format!("no message {name}")))
}

fn described(name: &str, fields: &str) -> Option<DescriptorProto> {
    let mut message = DescriptorProto { name: Some(name.to_owned()), ..DescriptorProto::default() };
    for line in fields.split_whitespace() {
        let mut parts = line.splitn(3, ':');
        let (field, number, kind) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let map = |prefix: &str| kind.strip_prefix(prefix).and_then(|k| k.strip_suffix('>'));
        let entry = map("map<").map(|value| (Type::String, value)).or_else(|| Some((Type::Int32, map("intmap<")?)));
        if let Some((key, value)) = entry {
            // The name that the protobuf compiler gives the entries of a map.
            let words = field.split('_').map(|w| w.get(..1).map_or_else(String::new, |f| f.to_uppercase() + w.get(1..).unwrap_or("")));
            let entry = format!("{}Entry", words.collect::<String>());
            message.field.push(field_of(field, number, &format!("{name}.{entry}"), true));
            let mut key_field = field_of("key", 1, "string", false);
            key_field.r#type = Some(key as i32);
            message.nested_type.push(DescriptorProto {
                name: Some(entry),
                field: vec![key_field, field_of("value", 2, value, false)],
                options: Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
                ..DescriptorProto::default()
            });
        } else {
            let (repeated, kind) = kind.strip_prefix('*').map_or((false, kind), |k| (true, k));
            message.field.push(field_of(field, number, kind, repeated));
        }
    }
    Some(message)
}

fn field_of(name: &str, number: i32, kind: &str, repeated: bool) -> FieldDescriptorProto {
    let (kind, type_name) = match kind {
        "string" => (Type::String, None),
        "bytes" => (Type::Bytes, None),
        "int32" => (Type::Int32, None),
        "int64" => (Type::Int64, None),
        "uint32" => (Type::Uint32, None),
        "uint64" => (Type::Uint64, None),
        "float" => (Type::Float, None),
        "double" => (Type::Double, None),
        "bool" => (Type::Bool, None),
        "DataType" => (Type::Enum, Some(".tensorflow.DataType".to_owned())),
        message => (Type::Message, Some(format!(".tensorflow.{message}"))),
    };
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(if repeated { Label::Repeated } else { Label::Optional } as i32),
        r#type: Some(kind as i32),
        type_name,
        ..FieldDescriptorProto::default()
    }
}

/// The element types, and those that newer versions added; none of these is supported, but an
/// operator may list them among those that it could take.
fn data_types() -> EnumDescriptorProto {
    let newer = [
        (24, "DT_FLOAT8_E5M2"),
        (25, "DT_FLOAT8_E4M3FN"),
        (26, "DT_FLOAT8_E4M3FNUZ"),
        (27, "DT_FLOAT8_E4M3B11FNUZ"),
        (28, "DT_FLOAT8_E5M2FNUZ"),
        (29, "DT_INT4"),
        (30, "DT_UINT4"),
        (31, "DT_INT2"),
        (32, "DT_UINT2"),
    ];
    let known = (0..=123).filter_map(|n| Some((n, DataType::try_from(n).ok()?.as_str_name())));
    let value = |(number, name): (i32, &str)| EnumValueDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        ..EnumValueDescriptorProto::default()
    };
    EnumDescriptorProto {
        name: Some("DataType".to_owned()),
        value: known.chain(newer).map(value).collect(),
        ..EnumDescriptorProto::default()
    }
}
