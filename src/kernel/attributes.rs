//! The attributes of a node, in no format's own terms.

use std::collections::HashMap;

use super::BuildError;
use super::program::GraphParts;
use crate::tensor::Tensor;

/// The attribute of a cast to a type that is held as a wider one, half floats as `f32`: ONNX's number
/// of the type that the values are rounded to.
pub(crate) const ROUNDED_TO: &str = "rounded_to";

/// The value of an attribute.
#[derive(Clone, Debug)]
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    String(String),
    Tensor(Tensor),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<String>),
    /// The body of If, Loop and Scan.
    Graph(Box<GraphParts>),
}

/// The attributes of a node by name. An accessor answers the absent value where there is no such
/// attribute, and an error where it is of another type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    values: HashMap<String, Attribute>,
}

macro_rules! accessor {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $type:ty, $value:ident => $to:expr) => {
        $(#[$doc])*
        pub(crate) fn $name<'a>(&'a self, name: &str) -> Result<$type, BuildError> {
            match self.values.get(name) {
                None => Ok(Default::default()),
                Some(Attribute::$variant($value)) => Ok($to),
                Some(_) => Err(self.wrong_type(name, stringify!($variant))),
            }
        }
    };
}

impl Attributes {
    pub(crate) fn insert(&mut self, name: impl Into<String>, value: Attribute) {
        self.values.insert(name.into(), value);
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    accessor!(int, Int, Option<i64>, v => Some(*v));
    accessor!(float, Float, Option<f32>, v => Some(*v));
    accessor!(string, String, Option<&'a str>, v => Some(v.as_str()));
    accessor!(tensor, Tensor, Option<&'a Tensor>, v => Some(v));
    accessor!(
        /// Empty where absent.
        ints, Ints, &'a [i64], v => v.as_slice());
    accessor!(
        /// Empty where absent.
        floats, Floats, &'a [f32], v => v.as_slice());
    accessor!(
        /// Empty where absent.
        strings, Strings, &'a [String], v => v.as_slice());

    accessor!(graph, Graph, Option<&'a GraphParts>, v => Some(v.as_ref()));

    /// All graphs among the values.
    pub(crate) fn graphs(&self) -> impl Iterator<Item = &GraphParts> {
        self.values.values().filter_map(|v| if let Attribute::Graph(g) = v { Some(g.as_ref()) } else { None })
    }

    /// All graphs among the values, to be changed.
    pub(crate) fn graphs_mut(&mut self) -> impl Iterator<Item = &mut GraphParts> {
        self.values
            .values_mut()
            .filter_map(|v| if let Attribute::Graph(g) = v { Some(g.as_mut()) } else { None })
    }

    fn wrong_type(&self, name: &str, expected: &str) -> BuildError {
        let found = match self.values.get(name) {
            Some(Attribute::Int(_)) => "Int",
            Some(Attribute::Float(_)) => "Float",
            Some(Attribute::String(_)) => "String",
            Some(Attribute::Tensor(_)) => "Tensor",
            Some(Attribute::Ints(_)) => "Ints",
            Some(Attribute::Floats(_)) => "Floats",
            Some(Attribute::Strings(_)) => "Strings",
            Some(Attribute::Graph(_)) => "Graph",
            None => "none",
        };
        BuildError::invalid(format!("attribute `{name}`: expected {expected}, found {found}"))
    }
}
