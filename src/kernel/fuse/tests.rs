//! A network answers the same whether its steps are made into few or not.

use std::sync::Arc;

use crate::kernel::program::{GraphParts, InputParts, NodeParts, Program, Scratch};
use crate::kernel::{Attribute, Fact, FactDim, RunContext};
use crate::tensor::{ElementType, Tensor, TensorView};

/// A graph in the making: nodes behind each other.
#[derive(Default)]
struct Network {
    nodes: Vec<NodeParts>,
    constants: Vec<(String, Arc<Tensor>)>,
}

impl Network {
    fn constant(&mut self, dims: &[usize]) -> String {
        let name = format!("c{}", self.constants.len());
        let count: usize = dims.iter().product();
        let seed = self.constants.len();
        let values: Vec<f32> = (0..count).map(|i| ((i * 29 + seed * 7) % 19) as f32 * 0.05 - 0.4).collect();
        self.constants.push((name.clone(), Arc::new(Tensor::new(dims, values).unwrap())));
        name
    }

    fn add(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let name = format!("t{}", self.nodes.len());
        let mut node = NodeParts {
            operator: operator.into(),
            version: 17,
            inputs: inputs.iter().map(|n| (*n).into()).collect(),
            outputs: vec![name.clone()],
            ..NodeParts::default()
        };
        attributes.iter().for_each(|(name, value)| node.attributes.insert(*name, value.clone()));
        self.nodes.push(node);
        name
    }

    fn conv(&mut self, input: &str, channels: usize, columns: usize, group: usize) -> String {
        let weights = self.constant(&[columns, channels / group, 3, 3]);
        let bias = self.constant(&[columns]);
        let attributes =
            [("pads", Attribute::Ints(vec![1; 4])), ("group", Attribute::Int(i64::try_from(group).unwrap()))];
        self.add("Conv", &[input, &weights, &bias], &attributes)
    }

    fn normalise(&mut self, input: &str, channels: usize) -> String {
        let parameters: [String; 3] = std::array::from_fn(|_| self.constant(&[channels]));
        let variance = self.constant(&[channels]);
        let square = self.add("Mul", &[&variance, &variance], &[]);
        let [scale, bias, mean] = &parameters;
        self.add("BatchNormalization", &[input, scale, bias, mean, &square], &[])
    }

    fn program(&self, outputs: &[String]) -> Program {
        let dims = [FactDim::Unknown, FactDim::Fixed(3), FactDim::Fixed(8), FactDim::Fixed(6)];
        let fact = Fact { element: ElementType::F32, dims: Some(dims.into_iter().collect()) };
        let parts = GraphParts {
            constants: self.constants.clone(),
            inputs: vec![InputParts { name: "x".into(), fact: Some(fact) }],
            nodes: self.nodes.clone(),
            outputs: outputs.to_vec(),
            captures: 0,
        };
        Program::build(parts).unwrap()
    }
}

fn answer(program: &Program, x: &[f32]) -> Vec<Tensor> {
    let x = TensorView::new(&[x.len() / 144, 3, 8, 6], x).unwrap();
    let (mut scratch, mut outputs) = (Scratch::default(), vec![Tensor::default(); program.outputs()]);
    for _ in 0..2 {
        program.run_to(&mut scratch, &[x], &mut outputs, &RunContext::default()).unwrap();
    }
    outputs
}

/// Asks once for the last tensor alone and once for all of them, which leaves nothing to fuse.
fn agrees(network: &Network, last: &str, most: usize) {
    let fused = network.program(&[last.to_owned()]);
    assert!(fused.steps() <= most, "{} steps: {fused:?}", fused.steps());
    let all: Vec<String> = network.nodes.iter().map(|n| n.outputs[0].clone()).collect();
    let plain = network.program(&all);
    assert!(plain.steps() > fused.steps());
    let x: Vec<f32> = (0..3 * 144).map(|i| (i % 31) as f32 * 0.1 - 1.5).collect();
    let (fused, plain) = (answer(&fused, &x), answer(&plain, &x));
    let want = plain.iter().zip(&all).find(|(_, name)| *name == last).unwrap().0;
    assert_eq!(fused[0].dims(), want.dims());
    let (got, want) = (fused[0].values::<f32>().unwrap(), want.values::<f32>().unwrap());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "{got} {want}");
    }
}

#[test]
fn a_convolution_takes_normalisation_activation_and_pooling() {
    let mut network = Network::default();
    let conv = network.conv("x", 3, 10, 1);
    let normal = network.normalise(&conv, 10);
    let relu = network.add("Relu", &[&normal], &[]);
    let window = [("kernel_shape", Attribute::Ints(vec![2, 2])), ("strides", Attribute::Ints(vec![2, 2]))];
    let pool = network.add("MaxPool", &[&relu], &window);
    agrees(&network, &pool, 1);
}

#[test]
fn a_convolution_in_tiles_takes_any_pooling() {
    let ints = |values: [i64; 2]| Attribute::Ints(values.to_vec());
    for (kernel, strides, pads) in
        [([2, 2], [2, 2], 0), ([3, 2], [2, 1], 0), ([2, 2], [2, 2], 1), ([3, 3], [3, 3], 0)]
    {
        for activation in ["Relu", "HardSwish"] {
            let mut network = Network::default();
            let first = network.conv("x", 3, 20, 1);
            let second = network.conv(&first, 20, 21, 1);
            let active = network.add(activation, &[&second], &[]);
            let window = [
                ("kernel_shape", ints(kernel)),
                ("strides", ints(strides)),
                ("pads", Attribute::Ints(vec![pads; 4])),
            ];
            let pooled = network.add("MaxPool", &[&active], &window);
            agrees(&network, &pooled, 3);
            let third = network.conv(&pooled, 21, 8, 1);
            agrees(&network, &third, 4);
        }
    }
}

#[test]
fn a_residual_block_is_three_steps() {
    let mut network = Network::default();
    let stem = network.conv("x", 3, 16, 1);
    let first = network.conv(&stem, 16, 16, 1);
    let first = network.add("Relu", &[&first], &[]);
    let second = network.conv(&first, 16, 16, 1);
    let second = network.normalise(&second, 16);
    let sum = network.add("Add", &[&second, &stem], &[]);
    let last = network.add("Relu", &[&sum], &[]);
    agrees(&network, &last, 3);
}

#[test]
fn images_keep_their_order_through_what_works_on_each_element() {
    let mut network = Network::default();
    let left = network.conv("x", 3, 6, 3);
    let gate = network.add("Sigmoid", &[&left], &[]);
    let swish = network.add("Mul", &[&left, &gate], &[]);
    let right = network.conv("x", 3, 5, 1);
    let both = network.add("Concat", &[&swish, &right], &[("axis", Attribute::Int(1))]);
    let normal = network.normalise(&both, 11);
    let slope = network.constant(&[11, 1, 1]);
    let leaky = network.add("PRelu", &[&normal, &slope], &[]);
    let squeezed = network.add("GlobalAveragePool", &[&leaky], &[]);
    let scaled = network.add("Mul", &[&leaky, &squeezed], &[]);
    let deep = network.conv(&scaled, 11, 11, 11);
    let turned = network.add("Transpose", &[&deep], &[("perm", Attribute::Ints(vec![0, 2, 3, 1]))]);
    let joined = network.add("Add", &[&turned, &turned], &[]);
    agrees(&network, &joined, 14);
    agrees(&network, &scaled, 12);
}
