//! Functions of a model's own, replaced by the nodes that they stand for.

use std::collections::{HashMap, HashSet};

use prost::Message;

use super::check::{describe, malformed};
use super::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};
use crate::load::LoadError;

/// The most nodes that a graph may have after its functions have been replaced.
const MAX_NODES: usize = 50_000;
/// How deep functions may call each other.
const MAX_DEPTH: usize = 16;

/// Replaces every call of a function of the model's by the function's nodes.
pub(super) fn inline(model: &mut ModelProto, memory_budget: u64) -> Result<(), LoadError> {
    if model.functions.is_empty() {
        return Ok(());
    }
    let functions = std::mem::take(&mut model.functions);
    let mut inliner = Inliner { functions: HashMap::new(), calls: 0, nodes: 0, copied: 0, memory_budget };
    let mut domains: HashSet<String> = model.opset_import.iter().map(|set| set.domain.clone()).collect();
    for function in &functions {
        let bytes = function.node.iter().map(|node| node.encoded_len() as u64).sum::<u64>();
        inliner.functions.insert((function.domain.as_str(), function.name.as_str()), (function, bytes));
        // A function may use an operator set that the model itself does not import.
        for set in &function.opset_import {
            if domains.insert(set.domain.clone()) {
                model.opset_import.push(set.clone());
            }
        }
    }
    model.graph.iter_mut().try_for_each(|graph| inliner.graph(graph, 0))
}

struct Inliner<'f> {
    /// Each with the bytes that its nodes take in the file.
    functions: HashMap<(&'f str, &'f str), (&'f FunctionProto, u64)>,
    calls: usize,
    nodes: usize,
    /// The bytes of the nodes that were copied: each call has the constants of its function.
    copied: u64,
    memory_budget: u64,
}

impl Inliner<'_> {
    fn graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<(), LoadError> {
        let nodes = std::mem::take(&mut graph.node);
        graph.node = self.nodes(nodes, depth)?;
        Ok(())
    }

    fn nodes(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Result<Vec<NodeProto>, LoadError> {
        let mut inlined = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            self.nodes += 1;
            if depth > MAX_DEPTH || self.nodes > MAX_NODES {
                return Err(malformed("its functions call each other without end"));
            }
            match self.functions.get(&(node.domain.as_str(), node.op_type.as_str())).copied() {
                Some((function, bytes)) => {
                    self.copied = self.copied.saturating_add(bytes);
                    if self.copied > self.memory_budget {
                        return Err(LoadError::OverBudget {
                            what: format!("what its functions stand for, up to {},", describe(&node)),
                            needed: self.copied,
                            budget: self.memory_budget,
                        });
                    }
                    let body = self.call(&node, function)?;
                    inlined.extend(self.nodes(body, depth + 1)?);
                }
                None => {
                    for attribute in &mut node.attribute {
                        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                            self.graph(graph, depth)?;
                        }
                    }
                    inlined.push(node);
                }
            }
        }
        Ok(inlined)
    }

    /// The nodes of one call, with names of their own.
    fn call(&mut self, node: &NodeProto, function: &FunctionProto) -> Result<Vec<NodeProto>, LoadError> {
        if node.input.len() > function.input.len() || node.output.len() > function.output.len() {
            return Err(malformed(format!("{} does not fit its function", describe(node))));
        }
        self.calls += 1;
        let mut renaming = Renaming { names: HashMap::new(), prefix: format!("call{}.", self.calls) };
        for (index, name) in function.input.iter().enumerate() {
            renaming.names.insert(name.clone(), node.input.get(index).cloned().unwrap_or_default());
        }
        for (name, actual) in
            function.output.iter().zip(&node.output).filter(|(_, actual)| !actual.is_empty())
        {
            renaming.names.insert(name.clone(), actual.clone());
        }
        let given: HashMap<&str, &AttributeProto> =
            function.attribute_proto.iter().chain(&node.attribute).map(|a| (a.name.as_str(), a)).collect();
        let mut nodes = function.node.clone();
        nodes.iter_mut().for_each(|node| renaming.node(node, &given));
        Ok(nodes)
    }
}

struct Renaming {
    names: HashMap<String, String>,
    prefix: String,
}

impl Renaming {
    fn rename(&mut self, name: &mut String) {
        if !name.is_empty() {
            let own = || format!("{}{name}", self.prefix);
            *name = self.names.entry(name.clone()).or_insert_with(own).clone();
        }
    }

    fn node(&mut self, node: &mut NodeProto, given: &HashMap<&str, &AttributeProto>) {
        node.input.iter_mut().chain(&mut node.output).for_each(|name| self.rename(name));
        if !node.name.is_empty() {
            node.name = format!("{}{}", self.prefix, node.name);
        }
        let attributes = std::mem::take(&mut node.attribute);
        node.attribute = attributes
            .into_iter()
            .filter_map(|mut attribute| {
                if attribute.ref_attr_name.is_empty() {
                    for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                        self.graph(graph, given);
                    }
                    return Some(attribute);
                }
                // An attribute of the call; one that it leaves out is left out here too.
                let value = *given.get(attribute.ref_attr_name.as_str())?;
                Some(AttributeProto { name: attribute.name, ..value.clone() })
            })
            .collect();
    }

    fn graph(&mut self, graph: &mut GraphProto, given: &HashMap<&str, &AttributeProto>) {
        graph.initializer.iter_mut().for_each(|tensor| self.rename(&mut tensor.name));
        graph.input.iter_mut().for_each(|value| self.rename(&mut value.name));
        graph.node.iter_mut().for_each(|node| self.node(node, given));
        graph.output.iter_mut().for_each(|value| self.rename(&mut value.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operator: &str, domain: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        NodeProto {
            op_type: operator.into(),
            domain: domain.into(),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: outputs.iter().map(ToString::to_string).collect(),
            ..Default::default()
        }
    }

    fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
        FunctionProto {
            name: name.into(),
            domain: "own".into(),
            input: vec!["a".into()],
            output: vec!["b".into()],
            node: nodes,
            ..Default::default()
        }
    }

    fn model(functions: Vec<FunctionProto>) -> ModelProto {
        let nodes = vec![node("Twice", "own", &["x"], &["y"]), node("Twice", "own", &["y"], &["z"])];
        ModelProto {
            graph: Some(GraphProto { node: nodes, ..Default::default() }),
            functions,
            ..Default::default()
        }
    }

    #[test]
    fn a_call_becomes_the_nodes_of_the_function() {
        let twice = vec![node("Relu", "", &["a"], &["t"]), node("Neg", "", &["t"], &["b"])];
        let mut model = model(vec![function("Twice", twice)]);
        inline(&mut model, 1 << 20).unwrap();
        let nodes: Vec<_> = model
            .graph
            .unwrap()
            .node
            .into_iter()
            .map(|n| format!("{} {}->{}", n.op_type, n.input[0], n.output[0]))
            .collect();
        assert_eq!(nodes, ["Relu x->call1.t", "Neg call1.t->y", "Relu y->call2.t", "Neg call2.t->z"]);
    }

    #[test]
    fn functions_that_call_themselves_are_refused() {
        let mut model = model(vec![function("Twice", vec![node("Twice", "own", &["a"], &["b"])])]);
        assert!(inline(&mut model, 1 << 20).unwrap_err().to_string().contains("without end"));
    }
}
