//! The part of the ONNX file format that the graphs use, as Protocol Buffers messages.
//!
//! Field numbers are those of `onnx.proto` (ONNX, IR version 10, <https://github.com/onnx/onnx>).

/// `TensorProto.DataType.FLOAT`.
pub const FLOAT: i32 = 1;
/// `TensorProto.DataType.UINT8`.
pub const UINT8: i32 = 2;
/// `TensorProto.DataType.INT8`.
pub const INT8: i32 = 3;
/// `TensorProto.DataType.INT32`.
pub const INT32: i32 = 6;
/// `TensorProto.DataType.INT64`.
pub const INT64: i32 = 7;
/// `TensorProto.DataType.FLOAT16`.
pub const FLOAT16: i32 = 10;

/// IR version that the files declare; ONNX Runtime has supported it since 1.19.
pub const IR_VERSION: i64 = 10;
/// Operator set of the default domain.
pub const OPSET_VERSION: i64 = 18;

/// A whole file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Model {
    /// Version of the format.
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// The program that wrote the file.
    #[prost(string, tag = "2")]
    pub producer_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub producer_version: String,
    /// What the model is, in words.
    #[prost(string, tag = "6")]
    pub doc_string: String,
    /// The graph.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    /// Operator sets used.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetId>,
    /// Metadata: names and values.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntry>,
}

/// An operator set and its version.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorSetId {
    /// Empty: the default domain.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// Version of the set.
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// A named value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringStringEntry {
    /// Name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Nodes in topological order, constants, inputs and outputs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Graph {
    /// Operators.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    /// Name of the graph.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    /// Inputs.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    /// Outputs.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

/// One operator call.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// Names of the inputs; empty for an omitted one.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Names of the outputs.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Name of the node.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Operator.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// Its settings.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    /// Operator set; empty: the default domain.
    #[prost(string, tag = "7")]
    pub domain: String,
}

/// A setting of a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attribute {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value of a float attribute.
    #[prost(float, tag = "2")]
    pub f: f32,
    /// Value of an integer attribute.
    #[prost(int64, tag = "3")]
    pub i: i64,
    /// Value of a string attribute.
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    /// Value of an attribute that is a list of floats.
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    /// Value of an attribute that is a list of integers.
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    /// 1 for a float, 2 for an integer, 3 for a string, 6 for floats, 7 for integers.
    #[prost(int32, tag = "20")]
    pub r#type: i32,
}

impl Attribute {
    /// A float attribute.
    #[must_use]
    pub fn float(name: &str, value: f32) -> Self {
        Self { name: name.to_owned(), f: value, r#type: 1, ..Self::default() }
    }

    /// An integer attribute.
    #[must_use]
    pub fn int(name: &str, value: i64) -> Self {
        Self { name: name.to_owned(), i: value, r#type: 2, ..Self::default() }
    }

    /// A string attribute.
    #[must_use]
    pub fn string(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), s: value.as_bytes().to_vec(), r#type: 3, ..Self::default() }
    }

    /// An attribute that is a list of floats.
    #[must_use]
    pub fn floats(name: &str, values: &[f32]) -> Self {
        Self { name: name.to_owned(), floats: values.to_vec(), r#type: 6, ..Self::default() }
    }

    /// An attribute that is a list of integers.
    #[must_use]
    pub fn ints(name: &str, values: &[i64]) -> Self {
        Self { name: name.to_owned(), ints: values.to_vec(), r#type: 7, ..Self::default() }
    }
}

/// A constant: little-endian elements, row-major.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tensor {
    /// Shape; empty for a scalar.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// [`FLOAT`], [`INT32`] or [`INT64`].
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// Name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// Elements.
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
}

/// Name, element type and shape of an input or output.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueInfo {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
}

/// A tensor type.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Type {
    /// Element type and shape.
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorType>,
}

/// Element type and shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorType {
    /// Element type.
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    /// Shape.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

/// A shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Shape {
    /// Dimensions, outermost first.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// One dimension.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dimension {
    /// Its size.
    #[prost(oneof = "Size", tags = "1, 2")]
    pub size: Option<Size>,
}

/// A size: a number, or a name if it may differ between runs.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Size {
    /// A number.
    #[prost(int64, tag = "1")]
    Fixed(i64),
    /// A name.
    #[prost(string, tag = "2")]
    Named(String),
}
