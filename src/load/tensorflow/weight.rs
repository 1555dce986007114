//! What TensorFlow's messages take in memory; see [`crate::load::protobuf`].

use super::api::tfpb::{
    AssetFileDef, AttrValue, CollectionDef, FunctionDef, GradientDef, GraphDef, MetaGraphDef, NameAttrList,
    NodeDef, OpDef, ResourceHandleProto, SavedConcreteFunction, SavedModel, SavedObject, SignatureDef,
    StructuredValue, TensorInfo, TensorProto, TensorShapeProto, TypeSpecProto, VariantTensorDataProto,
    op_def, tensor_shape_proto,
    trackable_object_graph::{TrackableObject, trackable_object},
};
use crate::load::protobuf::{Field, Schema};

/// The fields of an `AttrValue`; a macro, because statics that refer to each other in a circle cannot
/// share a constant.
macro_rules! value_fields {
    () => {
        &[
            (1, Field::Message(&LIST)),
            (2, Field::Text),
            (7, Field::Message(&SHAPE)),
            (8, Field::Message(&TENSOR_VALUE)),
            (10, Field::Message(&FUNCTION_NAME)),
        ]
    };
}

/// The fields of a `TensorProto`.
macro_rules! tensor_fields {
    () => {
        &[
            (2, Field::Message(&SHAPE)),
            (4, Field::Text),
            (5, Field::Numbers(1)),
            (6, Field::Numbers(1)),
            (7, Field::Numbers(4)),
            (8, Field::Text),
            (9, Field::Numbers(1)),
            (10, Field::Numbers(8)),
            (11, Field::Numbers(1)),
            (12, Field::Numbers(1)),
            (13, Field::Numbers(4)),
            (14, Field::Message(&HANDLE)),
            (15, Field::Message(&VARIANT)),
            (16, Field::Numbers(4)),
            (17, Field::Numbers(8)),
        ]
    };
}

/// A binary GraphDef.
pub(super) static GRAPH: Schema = Schema {
    bytes: size_of::<GraphDef>(),
    fields: &[(1, Field::Message(&NODE)), (2, Field::Message(&LIBRARY)), (4, Field::Message(&VERSIONS))],
};

/// A binary SavedModel.
pub(super) static SAVED_MODEL: Schema =
    Schema { bytes: size_of::<SavedModel>(), fields: &[(2, Field::Message(&META_GRAPH))] };

/// The object graph of a checkpoint.
pub(super) static CHECKPOINT: Schema =
    Schema { bytes: 0, fields: &[(1, Field::Message(&CHECKPOINT_OBJECT))] };

static CHECKPOINT_OBJECT: Schema = Schema {
    bytes: size_of::<TrackableObject>(),
    fields: &[
        (1, Field::Message(&REFERENCE)),
        (2, Field::Message(&CHECKPOINT_VALUE)),
        (3, Field::Message(&SLOT_VARIABLE)),
    ],
};

static CHECKPOINT_VALUE: Schema =
    Schema { bytes: size_of::<trackable_object::SerializedTensor>(), fields: &[] };

static META_GRAPH: Schema = Schema {
    bytes: size_of::<MetaGraphDef>(),
    fields: &[
        (1, Field::Message(&META_INFO)),
        (2, Field::Message(&GRAPH)),
        (4, Field::Message(&COLLECTION_ENTRY)),
        (5, Field::Message(&SIGNATURE_ENTRY)),
        (6, Field::Message(&ASSET)),
        (7, Field::Message(&OBJECT_GRAPH)),
    ],
};

static META_INFO: Schema = Schema { bytes: 0, fields: &[(2, Field::Message(&OP_LIST)), (4, Field::Text)] };

static OP_LIST: Schema = Schema { bytes: 0, fields: &[(1, Field::Message(&OP))] };

static OP: Schema = Schema {
    bytes: size_of::<OpDef>(),
    fields: &[
        (2, Field::Message(&ARGUMENT)),
        (3, Field::Message(&ARGUMENT)),
        (4, Field::Message(&OP_ATTRIBUTE)),
        (6, Field::Text),
    ],
};

static ARGUMENT: Schema = Schema { bytes: size_of::<op_def::ArgDef>(), fields: &[] };

static OP_ATTRIBUTE: Schema = Schema {
    bytes: size_of::<op_def::AttrDef>(),
    fields: &[(3, Field::Message(&ATTRIBUTE)), (7, Field::Message(&ATTRIBUTE))],
};

/// A map's entry has a key of its own beside the value.
const KEY: usize = size_of::<String>();

static COLLECTION_ENTRY: Schema =
    Schema { bytes: KEY + size_of::<CollectionDef>(), fields: &[(2, Field::Message(&COLLECTION))] };

static COLLECTION: Schema = Schema {
    bytes: 0,
    fields: &[
        (1, Field::Message(&TEXTS)),
        (2, Field::Message(&TEXTS)),
        (3, Field::Message(&INTS)),
        (5, Field::Message(&ANY_LIST)),
    ],
};

static TEXTS: Schema = Schema { bytes: 0, fields: &[(1, Field::Text)] };

static INTS: Schema = Schema { bytes: 0, fields: &[(1, Field::Numbers(8))] };

static ANY_LIST: Schema = Schema { bytes: 0, fields: &[(1, Field::Message(&ANY))] };

static ANY: Schema = Schema { bytes: 2 * KEY, fields: &[] };

static SIGNATURE_ENTRY: Schema =
    Schema { bytes: KEY + size_of::<SignatureDef>(), fields: &[(2, Field::Message(&SIGNATURE))] };

static SIGNATURE: Schema = Schema {
    bytes: 0,
    fields: &[(1, Field::Message(&TENSOR_INFO_ENTRY)), (2, Field::Message(&TENSOR_INFO_ENTRY))],
};

static TENSOR_INFO_ENTRY: Schema = Schema { bytes: KEY, fields: &[(2, Field::Message(&TENSOR_INFO))] };

static TENSOR_INFO: Schema = Schema {
    bytes: size_of::<TensorInfo>(),
    fields: &[(3, Field::Message(&SHAPE)), (5, Field::Message(&COMPOSITE))],
};

static COMPOSITE: Schema = Schema { bytes: 0, fields: &[(2, Field::Message(&TENSOR_INFO))] };

static ASSET: Schema = Schema { bytes: size_of::<AssetFileDef>(), fields: &[] };

static OBJECT_GRAPH: Schema = Schema {
    bytes: 0,
    fields: &[(1, Field::Message(&OBJECT)), (2, Field::Message(&CONCRETE_FUNCTION_ENTRY))],
};

static OBJECT: Schema = Schema {
    bytes: size_of::<SavedObject>(),
    fields: &[
        (1, Field::Message(&REFERENCE)),
        (3, Field::Message(&SLOT_VARIABLE)),
        (6, Field::Message(&SAVED_FUNCTION)),
        (8, Field::Message(&BARE_FUNCTION)),
    ],
};

static SAVED_FUNCTION: Schema =
    Schema { bytes: 0, fields: &[(1, Field::Text), (2, Field::Message(&FUNCTION_SPEC))] };

static FUNCTION_SPEC: Schema =
    Schema { bytes: 0, fields: &[(1, Field::Message(&STRUCTURE)), (5, Field::Message(&STRUCTURE))] };

static STRUCTURE: Schema = Schema {
    bytes: size_of::<StructuredValue>(),
    fields: &[
        (31, Field::Message(&SHAPE)),
        (33, Field::Message(&TENSOR_SPEC)),
        (34, Field::Message(&TYPE_SPEC)),
        (51, Field::Message(&STRUCTURES)),
        (52, Field::Message(&STRUCTURES)),
        (53, Field::Message(&DICTIONARY)),
        (54, Field::Message(&NAMED_TUPLE)),
    ],
};

static TENSOR_SPEC: Schema = Schema { bytes: 0, fields: &[(2, Field::Message(&SHAPE))] };

static TYPE_SPEC: Schema =
    Schema { bytes: size_of::<TypeSpecProto>(), fields: &[(2, Field::Message(&STRUCTURE))] };

static STRUCTURES: Schema = Schema { bytes: 0, fields: &[(1, Field::Message(&STRUCTURE))] };

static DICTIONARY: Schema = Schema { bytes: 0, fields: &[(1, Field::Message(&STRUCTURE_ENTRY))] };

static NAMED_TUPLE: Schema = Schema { bytes: 0, fields: &[(2, Field::Message(&STRUCTURE_ENTRY))] };

static STRUCTURE_ENTRY: Schema =
    Schema { bytes: KEY + size_of::<StructuredValue>(), fields: &[(2, Field::Message(&STRUCTURE))] };

static REFERENCE: Schema = Schema { bytes: size_of::<trackable_object::ObjectReference>(), fields: &[] };

static SLOT_VARIABLE: Schema =
    Schema { bytes: size_of::<trackable_object::SlotVariableReference>(), fields: &[] };

static BARE_FUNCTION: Schema = Schema { bytes: 0, fields: &[(2, Field::Text)] };

static CONCRETE_FUNCTION_ENTRY: Schema =
    Schema { bytes: KEY + size_of::<SavedConcreteFunction>(), fields: &[(2, Field::Message(&CONCRETE))] };

static CONCRETE: Schema = Schema {
    bytes: 0,
    fields: &[(2, Field::Numbers(4)), (3, Field::Message(&STRUCTURE)), (4, Field::Message(&STRUCTURE))],
};

static LIBRARY: Schema =
    Schema { bytes: 0, fields: &[(1, Field::Message(&FUNCTION)), (2, Field::Message(&GRADIENT))] };

static GRADIENT: Schema = Schema { bytes: size_of::<GradientDef>(), fields: &[] };

static VERSIONS: Schema = Schema { bytes: 0, fields: &[(3, Field::Numbers(4))] };

static FUNCTION: Schema = Schema {
    bytes: size_of::<FunctionDef>(),
    fields: &[
        (1, Field::Message(&OP)),
        (3, Field::Message(&NODE)),
        (4, Field::Message(&TEXT_ENTRY)),
        (5, Field::Message(&ATTRIBUTE_ENTRY)),
    ],
};

static TEXT_ENTRY: Schema = Schema { bytes: 2 * KEY, fields: &[] };

static NODE: Schema = Schema {
    bytes: size_of::<NodeDef>(),
    fields: &[(3, Field::Text), (5, Field::Message(&ATTRIBUTE_ENTRY))],
};

static ATTRIBUTE_ENTRY: Schema =
    Schema { bytes: KEY + size_of::<AttrValue>(), fields: &[(2, Field::Message(&VALUE))] };

/// The value of an entry, which the entry has counted.
static VALUE: Schema = Schema { bytes: 0, fields: value_fields!() };

static ATTRIBUTE: Schema = Schema { bytes: size_of::<AttrValue>(), fields: value_fields!() };

static LIST: Schema = Schema {
    bytes: 0,
    fields: &[
        (2, Field::Text),
        (3, Field::Numbers(8)),
        (4, Field::Numbers(1)),
        (5, Field::Numbers(1)),
        (6, Field::Numbers(4)),
        (7, Field::Message(&SHAPE)),
        (8, Field::Message(&TENSOR)),
        (9, Field::Message(&FUNCTION_NAME)),
    ],
};

static FUNCTION_NAME: Schema =
    Schema { bytes: size_of::<NameAttrList>(), fields: &[(2, Field::Message(&ATTRIBUTE_ENTRY))] };

static SHAPE: Schema =
    Schema { bytes: size_of::<TensorShapeProto>(), fields: &[(2, Field::Message(&DIMENSION))] };

static DIMENSION: Schema = Schema { bytes: size_of::<tensor_shape_proto::Dim>(), fields: &[] };

static TENSOR: Schema = Schema { bytes: size_of::<TensorProto>(), fields: tensor_fields!() };

/// The tensor of an attribute, whose struct the attribute has counted.
static TENSOR_VALUE: Schema = Schema { bytes: 0, fields: tensor_fields!() };

static HANDLE: Schema = Schema { bytes: size_of::<ResourceHandleProto>(), fields: &[] };

static VARIANT: Schema =
    Schema { bytes: size_of::<VariantTensorDataProto>(), fields: &[(3, Field::Message(&TENSOR))] };
