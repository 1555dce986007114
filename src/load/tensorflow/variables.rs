//! What gives variables and lookup tables their values: the traced restore and initialise functions,
//! the checkpoint's own object graph, or just the names.

use std::collections::{HashMap, HashSet};

use prost::Message;

use super::api::tfpb::{FunctionDef, NodeDef, TrackableObjectGraph};
use super::api::{EngineTensor, tensor0, tensor1, tract_ndarray};
use super::builder::{Builder, Wire, function_attribute};
use super::constants::text;
use super::frame::Frame;
use super::graph::{Content, Port};
use super::{malformed, weight};
use crate::load::{LoadError, protobuf};

/// Under this key the checkpoint describes the objects that its values belong to.
const OBJECT_GRAPH: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";

/// The most lines of a vocabulary file.
const MAX_LINES: usize = 1 << 24;

impl<'a> Builder<'a> {
    /// Finds out which value each variable and table gets, before anything reads them.
    pub(super) fn collect_assignments(
        &mut self,
        top: &mut Frame<'a>,
        nodes: &'a [NodeDef],
    ) -> Result<(), LoadError> {
        self.read_object_graph()?;
        let assigning = assigning_functions(&self.functions);
        let by_name: HashMap<&'a str, &'a NodeDef> = nodes.iter().map(|n| (n.name.as_str(), n)).collect();
        for node in nodes {
            if assigns(node, &by_name) {
                self.assign(top, node)?;
            } else if let Some(name) = called(node)
                && assigning.contains(name)
            {
                // An initialiser that cannot be followed is only an error if its table is read.
                let _ = self.assign_in_call(top, node, name);
            }
        }
        Ok(())
    }

    /// The value of the variable behind a handle.
    pub(super) fn variable(&mut self, handle: Port) -> Result<Port, LoadError> {
        let unknown = || malformed("a variable is read that is not there");
        if let Some(port) = self.variables.get(&handle.node).copied() {
            let port = self.materialise(port)?;
            self.variables.insert(handle.node, port);
            return Ok(port);
        }
        let node = self.graph.nodes.get(handle.node).ok_or_else(unknown)?;
        if matches!(node.content, Content::Constant(_) | Content::Weights(_)) {
            return Ok(handle);
        }
        let name = node.name.clone();
        let shared = node.attributes.text("shared_name").unwrap_or_default().to_owned();
        let mut keys = Vec::new();
        for name in [&shared, &name] {
            keys.extend(self.object_keys.get(name).cloned());
            keys.push(name.clone());
        }
        let bundle = self.bundle.as_mut();
        let found = bundle.and_then(|b| Some((keys.into_iter().find(|k| b.contains(k))?, b)));
        let Some((key, bundle)) = found else {
            return Err(malformed(format!(
                "the variable `{name}` has no value: the model has no checkpoint entry for it"
            )));
        };
        let value = bundle.tensor(&key)?;
        let port = self.push_constant(&name, value)?;
        self.variables.insert(handle.node, port);
        Ok(port)
    }

    /// True for a variable of TensorFlow 1 that is read without an operator of its own.
    pub(super) fn is_ref_variable(&self, port: Port) -> bool {
        self.graph.nodes.get(port.node).is_some_and(|n| matches!(n.op.as_str(), "VariableV2" | "Variable"))
    }

    /// The inputs of a look-up, with keys and values in place of the table's handle.
    pub(super) fn with_table(&mut self, node: &NodeDef, inputs: Vec<Port>) -> Result<Vec<Port>, LoadError> {
        // In a graph that `freeze` wrote, keys and values are inputs already.
        if inputs.len() == 4 {
            return Ok(inputs);
        }
        let [table, keys, default] = inputs.as_slice() else {
            return Err(malformed(format!("the look-up `{}` has {} inputs", node.name, inputs.len())));
        };
        let (from, to) = self.tables.get(&table.node).copied().ok_or_else(|| {
            malformed(format!("the table that `{}` looks into has no initial values", node.name))
        })?;
        let (from, to) = (self.materialise(from)?, self.materialise(to)?);
        Ok(vec![from, to, *keys, *default])
    }

    /// How many entries a table has.
    pub(super) fn table_size(&mut self, node: &NodeDef, table: Port) -> Result<Port, LoadError> {
        let (keys, _) = self.tables.get(&table.node).copied().ok_or_else(|| {
            malformed(format!("the table that `{}` counts has no initial values", node.name))
        })?;
        let keys = self.materialise(keys)?;
        let size = match self.graph.nodes.get(keys.node).map(|n| &n.content) {
            Some(Content::Constant(keys)) => i64::try_from(keys.len()).unwrap_or(i64::MAX),
            _ => return Err(malformed(format!("the table that `{}` counts is computed", node.name))),
        };
        self.push_constant(&node.name, tensor0(size))
    }

    /// A value that the checkpoint restores becomes a constant, once somebody reads it.
    fn materialise(&mut self, port: Port) -> Result<Port, LoadError> {
        let Some(node) = self.graph.nodes.get(port.node).filter(|n| n.op == "RestoreV2") else {
            return Ok(port);
        };
        let named = |input: usize| match &self.graph.nodes.get(node.inputs.get(input)?.node)?.content {
            Content::Constant(names) => {
                names.as_plain_ram()?.as_slice::<String>().ok()?.get(port.slot).cloned()
            }
            _ => None,
        };
        let key = named(1).ok_or_else(|| malformed("a restore operator does not say what it restores"))?;
        let part = named(2).unwrap_or_default();
        let bundle = self.bundle.as_mut().ok_or_else(|| malformed("the model has no checkpoint"))?;
        let mut value = bundle.tensor(&key)?;
        if !part.is_empty() {
            let bad = || malformed(format!("the variable `{key}` has no part `{part}`"));
            value = super::slices::part(&*value.engine()?, &part).ok_or_else(bad)?.into();
        }
        self.push_constant(&key, value)
    }

    fn assign_in_call(
        &mut self,
        frame: &mut Frame<'a>,
        node: &'a NodeDef,
        name: &str,
    ) -> Result<(), LoadError> {
        let mut arguments = Vec::new();
        for input in node.input.iter().filter(|i| !i.starts_with('^')) {
            arguments.push(self.need(frame, input)?);
        }
        let (function, mut inner) = self.enter(frame, name, &arguments, node)?;
        let by_name: HashMap<&'a str, &'a NodeDef> =
            function.node_def.iter().map(|n| (n.name.as_str(), n)).collect();
        for node in &function.node_def {
            if assigns(node, &by_name) {
                self.assign(&mut inner, node)?;
            } else if let Some(name) = called(node)
                && self.functions.contains_key(name)
            {
                self.assign_in_call(&mut inner, node, name)?;
            }
        }
        Ok(())
    }

    fn assign(&mut self, frame: &mut Frame<'a>, node: &'a NodeDef) -> Result<(), LoadError> {
        let mut inputs = Vec::new();
        for input in node.input.iter().filter(|i| !i.starts_with('^')) {
            match self.need(frame, input)? {
                Wire::Live(port) => inputs.push(port),
                Wire::Dead => return Ok(()),
            }
        }
        match (node.op.as_str(), inputs.as_slice()) {
            ("Assign" | "AssignVariableOp", [handle, value, ..]) => {
                self.variables.insert(handle.node, *value);
            }
            ("InitializeTableFromTextFileV2" | "InitializeTableFromTextFile", [table, file, ..]) => {
                let content = self.table_of_file(node, *file)?;
                self.tables.insert(table.node, content);
            }
            (_, [table, keys, values, ..]) => {
                self.tables.insert(table.node, (*keys, *values));
            }
            _ => return Err(malformed(format!("the node `{}` has too few inputs", node.name))),
        }
        Ok(())
    }

    /// Keys and values out of a vocabulary file: each is the line's number, the whole line, or a
    /// column of it.
    fn table_of_file(&mut self, node: &NodeDef, file: Port) -> Result<(Port, Port), LoadError> {
        let bad = |what: &str| malformed(format!("the table that `{}` initialises {what}", node.name));
        let path = match self.graph.nodes.get(file.node).map(|n| &n.content) {
            Some(Content::Constant(path)) => {
                path.as_plain_ram().and_then(|p| p.as_slice::<String>().ok()?.first().cloned())
            }
            _ => None,
        };
        let path = path.ok_or_else(|| bad("does not name its file"))?;
        // The path is that of the exporting machine; the file is in the model's assets.
        let name = path.rsplit('/').next().unwrap_or(&path);
        let files = self.files.ok_or_else(|| bad("reads a file, and a frozen graph has none"))?;
        let content = files.read(&format!("assets/{name}"))?;
        let content = content.ok_or_else(|| bad(&format!("reads `assets/{name}`, which is missing")))?;
        let attributes = super::graph::Attributes::new(node.attr.clone());
        let delimiter = attributes.text("delimiter").filter(|d| !d.is_empty()).unwrap_or("\t").to_owned();
        let skip = attributes.int("offset").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let limit = attributes.int("vocab_size").and_then(|n| usize::try_from(n).ok()).unwrap_or(MAX_LINES);
        let content = text(&content.into_bytes());
        let lines: Vec<&str> = content.lines().skip(skip).take(limit.min(MAX_LINES)).collect();
        let mut column = |which: &str| {
            let tensor = column(&lines, attributes.int(which).unwrap_or(-2), &delimiter)
                .ok_or_else(|| bad("has a line without the column that it takes"))?;
            self.push_constant(&node.name, tensor)
        };
        Ok((column("key_index")?, column("value_index")?))
    }

    fn read_object_graph(&mut self) -> Result<(), LoadError> {
        let Some(bundle) = self.bundle.as_mut() else { return Ok(()) };
        let Some(bytes) = bundle.string(OBJECT_GRAPH)? else { return Ok(()) };
        protobuf::check(&bytes.clone().into(), &weight::CHECKPOINT, self.budget)?;
        let graph = TrackableObjectGraph::decode(bytes)
            .map_err(|e| malformed(format!("the checkpoint's object graph: {e}")))?;
        for attribute in graph.nodes.into_iter().flat_map(|n| n.attributes) {
            if !attribute.full_name.is_empty() {
                self.object_keys.entry(attribute.full_name).or_insert(attribute.checkpoint_key);
            }
        }
        Ok(())
    }
}

/// One column of a vocabulary: -1 the line's number, -2 the whole line, else the part of that number.
fn column(lines: &[&str], index: i64, delimiter: &str) -> Option<EngineTensor> {
    if index == -1 {
        let numbers: Vec<i64> = (0..).take(lines.len()).collect();
        return Some(tensor1(&numbers));
    }
    let cell = |line: &&str| match usize::try_from(index) {
        Ok(at) => line.split(delimiter).nth(at).map(str::to_owned),
        Err(_) => Some((*line).to_owned()),
    };
    let cells = lines.iter().map(cell).collect::<Option<Vec<_>>>()?;
    Some(EngineTensor::from(tract_ndarray::arr1(&cells).into_dyn()))
}

/// The functions that assign something, themselves or in a function that they call.
fn assigning_functions<'a>(functions: &HashMap<&'a str, &'a FunctionDef>) -> HashSet<&'a str> {
    let mut found: HashSet<&'a str> = HashSet::new();
    let mut callers: HashMap<&'a str, Vec<&'a str>> = HashMap::new();
    let mut open = Vec::new();
    for (name, function) in functions {
        let by_name = function.node_def.iter().map(|n| (n.name.as_str(), n)).collect();
        for node in &function.node_def {
            if let Some(callee) = called(node) {
                callers.entry(callee).or_default().push(name);
            }
            if assigns(node, &by_name) {
                open.push(*name);
            }
        }
    }
    while let Some(name) = open.pop() {
        if found.insert(name) {
            open.extend(callers.get(name).into_iter().flatten());
        }
    }
    found
}

fn called(node: &NodeDef) -> Option<&str> {
    matches!(node.op.as_str(), "PartitionedCall" | "StatefulPartitionedCall")
        .then(|| function_attribute(node, "f").ok())
        .flatten()
}

/// True for a node that fills a table, or gives a variable a value out of the checkpoint. Other
/// assignments are training or the values before training.
fn assigns(node: &NodeDef, by_name: &HashMap<&str, &NodeDef>) -> bool {
    match node.op.as_str() {
        "LookupTableImportV2"
        | "LookupTableImport"
        | "InitializeTableV2"
        | "InitializeTable"
        | "InitializeTableFromTextFileV2"
        | "InitializeTableFromTextFile" => true,
        "Assign" | "AssignVariableOp" => {
            let mut source = node.input.get(1);
            for _ in 0..8 {
                let name = source.and_then(|s| s.split(':').next()).unwrap_or_default();
                match by_name.get(name) {
                    Some(node) if node.op == "RestoreV2" => return true,
                    Some(node) if node.op == "Identity" || node.op == "NoOp" => source = node.input.first(),
                    _ => return false,
                }
            }
            false
        }
        _ => false,
    }
}
