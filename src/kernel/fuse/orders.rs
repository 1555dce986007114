//! Where the channels of images lie between the steps of a program: last from one convolution or
//! pooling to the next, and through what works on each element; first for everybody else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;

use super::convolutions::{affine_of, pool_of};
use crate::kernel::program::{Draft, NodeParts, Planned, ProgramError, Value};
use crate::kernel::standard::convolution::{Conv, Order, Pool, Turn};
use crate::kernel::{Attribute, FactDim, Kernel};
use crate::tensor::{ElementType, Tensor};

/// Operators that work on each element, wherever it lies.
const EACH: [&str; 24] = [
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Clip",
    "Sigmoid",
    "Tanh",
    "HardSwish",
    "HardSigmoid",
    "Elu",
    "Selu",
    "Celu",
    "Softplus",
    "Softsign",
    "Mish",
    "Gelu",
    "Exp",
    "Abs",
    "Neg",
    "Sqrt",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Concat",
];

/// Gives convolutions and poolings their kernels, and puts turns between them and the others.
pub(super) fn channels_last(
    draft: &mut Draft,
    mut convolutions: HashMap<usize, Conv>,
) -> Result<(), ProgramError> {
    let roles: Vec<Role> = (0..draft.steps.len()).map(|at| role(draft, at, &mut convolutions)).collect();
    if !roles.iter().any(|r| matches!(r, Role::Conv(_) | Role::Pool(_))) {
        return Ok(());
    }
    let last = lie_last(draft, &roles);
    let mut turning =
        Turning { draft, last, twins: HashMap::new(), first: HashSet::new(), steps: Vec::new() };
    let steps = std::mem::take(&mut turning.draft.steps);
    for (step, role) in steps.into_iter().zip(roles) {
        turning.step(step, role)?;
    }
    for value in turning.draft.wanted.clone() {
        turning.need_first(value);
    }
    turning.draft.steps = turning.steps;
    Ok(())
}

/// What a step is to this.
enum Role {
    Conv(Box<Conv>),
    Pool(Box<Pool>),
    /// Works on each element.
    Each,
    /// A factor and an offset for each channel.
    Affine(Vec<f32>, Vec<f32>),
    Other,
}

fn role(draft: &Draft, at: usize, convolutions: &mut HashMap<usize, Conv>) -> Role {
    let Some(step) = draft.steps.get(at) else { return Role::Other };
    let [output] = step.outputs.as_slice() else { return Role::Other };
    if let Some(conv) = convolutions.remove(output) {
        return Role::Conv(Box::new(conv));
    }
    let Some(input) = step.inputs.first().copied().flatten() else { return Role::Other };
    let is_image = |value: usize| {
        draft.constant(Some(value)).is_none()
            && draft.element(value) == Some(ElementType::F32)
            && draft.rank(value).is_some_and(|r| (3..=5).contains(&r))
    };
    if is_image(input)
        && let Some(pool) = pool_of(draft, step)
    {
        return Role::Pool(Box::new(pool));
    }
    if is_image(input)
        && step.node.is("BatchNormalization")
        && let Some(channels) = draft.channels(input)
        && let Some((factor, offset)) = affine_of(draft, step, input, channels)
    {
        return Role::Affine(factor, offset);
    }
    let rank = draft.rank(*output);
    let fits = |value: &Option<usize>| match value {
        None => true,
        Some(value) => match draft.constant(Some(*value)) {
            Some(constant) => {
                constant.shape().elements() == 1 && constant.dims().len() <= 1
                    || rank.is_some_and(|r| constant.dims().len() <= r)
                        && constant.element_type() == ElementType::F32
            }
            None => is_image(*value) && draft.rank(*value) == rank,
        },
    };
    let is_each =
        EACH.iter().any(|name| step.node.is(name)) && is_image(*output) && step.inputs.iter().all(fits);
    if is_each { Role::Each } else { Role::Other }
}

/// The values whose channels are to lie last: made by a step that can, and read by one that wants it.
fn lie_last(draft: &Draft, roles: &[Role]) -> HashSet<usize> {
    let mut wanted: HashSet<usize> = HashSet::new();
    for (step, role) in draft.steps.iter().zip(roles) {
        if !matches!(role, Role::Other) {
            wanted.extend(step.inputs.iter().flatten());
        }
    }
    let mut last = HashSet::new();
    for (step, role) in draft.steps.iter().zip(roles) {
        let Some(output) = step.outputs.first() else { continue };
        let lies_last = match role {
            Role::Conv(_) | Role::Pool(_) => wanted.contains(output),
            Role::Each | Role::Affine(..) => step.inputs.iter().flatten().any(|i| last.contains(i)),
            Role::Other => false,
        };
        if lies_last {
            last.insert(*output);
        }
    }
    last
}

/// The steps of a program while they are made anew.
struct Turning<'d> {
    draft: &'d mut Draft,
    last: HashSet<usize>,
    /// Of values: the same with its channels last.
    twins: HashMap<usize, usize>,
    /// Values with a twin that are there with their channels first as well.
    first: HashSet<usize>,
    steps: Vec<Planned>,
}

impl Turning<'_> {
    fn step(&mut self, mut step: Planned, role: Role) -> Result<(), ProgramError> {
        match role {
            Role::Conv(mut conv) => {
                let order = self.output(&mut step);
                let from = self.input(&mut step);
                conv.between(from, order);
                // What is added to a result lies as the registers make it.
                if let Some(Some(addend)) = step.inputs.get_mut(1) {
                    *addend = self.need_last(*addend);
                }
                self.push(step, conv);
            }
            Role::Pool(pool) => {
                let order = self.output(&mut step);
                let from = self.input(&mut step);
                self.push(step, Box::new(pool.between(from, order)));
            }
            Role::Each if self.lies_last(&step) => self.each(step)?,
            Role::Affine(factor, offset) if self.lies_last(&step) => self.affine(step, factor, offset)?,
            _ => {
                for value in step.inputs.iter().flatten() {
                    self.need_first(*value);
                }
                self.steps.push(step);
            }
        }
        Ok(())
    }

    fn lies_last(&self, step: &Planned) -> bool {
        step.outputs.first().is_some_and(|o| self.last.contains(o))
    }

    /// Adds a convolution or a pooling, with room to work in.
    fn push(&mut self, mut step: Planned, kernel: Box<dyn Kernel>) {
        step.kernel = kernel;
        step.outputs.push(self.draft.push(Value::of(ElementType::F32, None)));
        self.steps.push(step);
    }

    /// Replaces the image that a step makes by its twin, where that is to lie last.
    fn output(&mut self, step: &mut Planned) -> Order {
        match step.outputs.first_mut() {
            Some(output) if self.last.contains(output) => {
                *output = self.twin(*output);
                Order::Last
            }
            _ => Order::First,
        }
    }

    /// Replaces the image that a step reads by its twin, where there is one.
    fn input(&mut self, step: &mut Planned) -> Order {
        match step.inputs.first_mut() {
            Some(Some(input)) if self.twins.contains_key(input) => {
                *input = self.twins.get(input).copied().unwrap_or(*input);
                Order::Last
            }
            _ => Order::First,
        }
    }

    /// The value that is to be the twin of another.
    fn twin(&mut self, value: usize) -> usize {
        if let Some(twin) = self.twins.get(&value) {
            return *twin;
        }
        let fact = self.draft.values.get(value).and_then(|v| v.fact.clone());
        let dims = fact.and_then(|f| f.dims).map(|dims| permuted(&dims));
        let twin = self.draft.push(Value::of(ElementType::F32, dims));
        self.twins.insert(value, twin);
        twin
    }

    /// The twin of a value, turned where there is none yet.
    fn need_last(&mut self, value: usize) -> usize {
        if let Some(twin) = self.twins.get(&value) {
            return *twin;
        }
        let twin = self.twin(value);
        self.first.insert(value);
        self.turn(value, twin, Order::Last);
        twin
    }

    /// Makes a value whose channels lie last available with its channels first.
    fn need_first(&mut self, value: usize) {
        if let Some(twin) = self.twins.get(&value).copied()
            && self.first.insert(value)
        {
            self.turn(twin, value, Order::First);
        }
    }

    fn turn(&mut self, from: usize, to: usize, order: Order) {
        let node = NodeParts { operator: "Turn".into(), ..NodeParts::default() };
        let kernel = Box::new(Turn { to: order });
        self.steps.push(Planned { node, kernel, inputs: vec![Some(from)], outputs: vec![to] });
    }

    /// The same operator on twins, and on constants that lie as they do.
    fn each(&mut self, mut step: Planned) -> Result<(), ProgramError> {
        let rank = step.outputs.first().and_then(|o| self.draft.rank(*o)).unwrap_or(0);
        if step.node.is("Concat") {
            let axis = step.node.attributes.int("axis").ok().flatten().unwrap_or(0);
            let axis = if axis < 0 { axis + rank as i64 } else { axis };
            let axis = match axis {
                0 => 0,
                1 => rank as i64 - 1,
                other => other - 1,
            };
            step.node.attributes.insert("axis", Attribute::Int(axis));
        }
        for input in step.inputs.iter_mut().flatten() {
            *input = match self.draft.constant(Some(*input)) {
                Some(constant) if constant.shape().elements() == 1 && constant.dims().len() <= 1 => *input,
                Some(constant) => {
                    let turned = turned(constant, rank);
                    self.draft.push(Value::constant(Arc::new(turned)))
                }
                None => self.need_last(*input),
            };
        }
        self.build(step)
    }

    /// A factor and an offset are rows of constants.
    fn affine(&mut self, mut step: Planned, factor: Vec<f32>, offset: Vec<f32>) -> Result<(), ProgramError> {
        let Some(input) = step.inputs.first().copied().flatten() else { return Ok(()) };
        let input = self.need_last(input);
        let [factor, offset] =
            [factor, offset].map(|row| self.draft.push(Value::constant(Arc::new(Tensor::vector(row)))));
        let dims = self.draft.values.get(input).and_then(|v| v.fact.as_ref()?.dims.clone());
        let scaled = self.draft.push(Value::of(ElementType::F32, dims));
        let node = |operator: &str| NodeParts {
            operator: operator.into(),
            name: step.node.name.clone(),
            version: step.node.version.max(7),
            ..NodeParts::default()
        };
        let (mul, add) = (node("Mul"), node("Add"));
        let inputs = vec![Some(input), Some(factor)];
        let (kernel, _) = self.draft.kernel(&mul, &inputs)?;
        self.steps.push(Planned { node: mul, kernel, inputs, outputs: vec![scaled] });
        step.node = add;
        step.inputs = vec![Some(scaled), Some(offset)];
        self.build(step)
    }

    /// Adds a step on twins with a kernel for them.
    fn build(&mut self, mut step: Planned) -> Result<(), ProgramError> {
        let (kernel, _) = self.draft.kernel(&step.node, &step.inputs)?;
        step.kernel = kernel;
        self.output(&mut step);
        self.steps.push(step);
        Ok(())
    }
}

/// The dimensions with the channels last.
fn permuted(dims: &[FactDim]) -> SmallVec<[FactDim; 4]> {
    let mut out: SmallVec<[FactDim; 4]> = dims.into();
    if let Some(inner) = out.get_mut(1..) {
        inner.rotate_left(1.min(inner.len()));
    }
    out
}

/// A constant that is broadcast to images of this rank, with its channels last.
fn turned(constant: &Tensor, rank: usize) -> Tensor {
    let mut dims = vec![1; rank.saturating_sub(constant.dims().len())];
    dims.extend_from_slice(constant.dims());
    let values = constant.values::<f32>().unwrap_or(&[]);
    let (images, channels) = (dims.first().copied().unwrap_or(1), dims.get(1).copied().unwrap_or(1));
    let places: usize = dims.iter().skip(2).product();
    let mut out: Vec<f32> = Vec::with_capacity(values.len());
    for image in 0..images {
        for place in 0..places {
            out.extend((0..channels).filter_map(|c| values.get((image * channels + c) * places + place)));
        }
    }
    if let Some(inner) = dims.get_mut(1..) {
        inner.rotate_left(1.min(inner.len()));
    }
    Tensor::new(&dims, out).unwrap_or_else(|_| constant.clone())
}
