//! TensorFlow 1's arrays of tensors in terms of TensorFlow 2's lists.
//!
//! An array is a handle and a flow that orders what is done to it. A list is a value: whatever is
//! done to it gives another one. So the flow is the list, and the handle says no more than how large
//! it is.

use super::api::tfpb::NodeDef;
use super::builder::{Builder, Wire};
use super::graph::{Attributes, Content, Node, Port};
use super::unsupported;
use crate::load::LoadError;

impl Builder<'_> {
    pub(super) fn build_array(&mut self, node: &NodeDef, inputs: &[Wire]) -> Result<Vec<Wire>, LoadError> {
        let refuse = || unsupported(&node.op, &node.name);
        let ports: Vec<Port> =
            inputs.iter().filter_map(|w| if let Wire::Live(port) = w { Some(*port) } else { None }).collect();
        let (op, inputs) = match (node.op.as_str(), ports.as_slice()) {
            ("TensorArrayV3", [size]) => ("TensorListReserve", vec![*size, *size]),
            ("TensorArrayScatterV3", [_, places, values, _]) if self.counts_up(*places) => {
                ("TensorListFromTensor", vec![*values, *values])
            }
            ("TensorArrayReadV3", [_, place, flow]) => ("TensorListGetItem", vec![*flow, *place]),
            ("TensorArrayWriteV3", [_, place, value, flow]) => {
                ("TensorListSetItem", vec![*flow, *place, *value])
            }
            ("TensorArrayGatherV3", [_, places, flow]) if self.counts_up(*places) => {
                ("TensorListStack", vec![*flow, *flow])
            }
            ("TensorArraySizeV3", [handle, _]) => {
                let made = self.graph.nodes.get(handle.node).filter(|n| n.op == "TensorListReserve");
                let size = made.and_then(|n| n.inputs.get(1).copied()).ok_or_else(refuse)?;
                return Ok(vec![Wire::Live(size)]);
            }
            _ => return Err(refuse()),
        };
        let list = Port::first(self.push(Node {
            name: node.name.clone(),
            op: op.to_owned(),
            attributes: Attributes::default(),
            inputs,
            content: Content::None,
        })?);
        Ok(vec![Wire::Live(list); 2])
    }

    /// True for the numbers from 0 on, which name all places in order.
    fn counts_up(&self, places: Port) -> bool {
        let node = self.graph.nodes.get(places.node).filter(|n| n.op == "Range");
        let value = |input: usize| match &self.graph.nodes.get(node?.inputs.get(input)?.node)?.content {
            Content::Constant(value) => value.cast_to_scalar::<i64>().ok(),
            _ => None,
        };
        value(0) == Some(0) && value(2) == Some(1)
    }
}
