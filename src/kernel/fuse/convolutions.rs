//! A convolution with what stands behind it: a normalisation goes into its weights, then come an
//! addend, an activation and a `MaxPool`.

use std::collections::HashMap;

use super::{Readers, activation_of, output_of, release_weights, retain};
use crate::kernel::program::{Draft, Planned, ProgramError};
use crate::kernel::standard::activation::Activation;
use crate::kernel::standard::convolution::{Conv, Pool};
use crate::kernel::{FactDim, Node};
use crate::tensor::ElementType;

/// Makes one step of each convolution and what it can take on, and lays out its weights. Answers
/// the convolutions by what they make: their steps have kernels once it is known how images lie.
pub(super) fn gather(draft: &mut Draft) -> Result<HashMap<usize, Conv>, ProgramError> {
    let readers = Readers::of(draft);
    let mut gone = vec![false; draft.steps.len()];
    let mut made = HashMap::new();
    for at in 0..draft.steps.len() {
        let Some(mut conv) = conv_of(draft, at)? else { continue };
        let mut inputs: Vec<_> =
            draft.steps.get(at).map(|s| s.inputs.iter().copied().take(1).collect()).unwrap_or_default();
        let mut last = at;
        while let Some(next) = readers.only(draft, last) {
            let Some(step) = draft.steps.get(next) else { break };
            let Some(input) = output_of(draft, last) else { break };
            let Some(addend) = take_on(draft, &mut conv, step, input) else { break };
            inputs.extend(addend.map(Some));
            gone.get_mut(last).into_iter().for_each(|g| *g = true);
            last = next;
        }
        lay_out(draft, at, &mut conv)?;
        release_weights(draft, &readers, at);
        if let Some(output) = output_of(draft, last) {
            made.insert(output, conv);
        }
        if let Some(step) = draft.steps.get_mut(last) {
            step.inputs = inputs;
            // It is no `Add` or `Relu` any more.
            step.node.operator = "Conv".into();
        }
    }
    retain(draft, &gone);
    Ok(made)
}

/// The convolution that a step is, without its weights.
fn conv_of(draft: &Draft, at: usize) -> Result<Option<Conv>, ProgramError> {
    let Some(step) = draft.steps.get(at).filter(|s| s.node.is("Conv") && s.outputs.len() == 1) else {
        return Ok(None);
    };
    let is_f32 = |v: usize| draft.constant(Some(v)).is_none() && draft.element(v) == Some(ElementType::F32);
    if !step.inputs.first().copied().flatten().is_some_and(is_f32) {
        return Ok(None);
    }
    Conv::planned(&step.node, &draft.given(&step.inputs)).map_err(|e| ProgramError::of(&step.node, e))
}

fn lay_out(draft: &Draft, at: usize, conv: &mut Conv) -> Result<(), ProgramError> {
    let Some(step) = draft.steps.get(at) else { return Ok(()) };
    let constant = |index: usize| draft.constant(step.inputs.get(index).copied().flatten());
    let Some(weights) = constant(1) else { return Ok(()) };
    conv.pack(weights, constant(2).map(|b| &**b)).map_err(|e| ProgramError::of(&step.node, e))
}

/// Takes on the step behind a convolution: `None` where it cannot, else what it reads beside.
fn take_on(draft: &Draft, conv: &mut Conv, step: &Planned, input: usize) -> Option<Option<usize>> {
    if step.outputs.len() != 1 {
        return None;
    }
    let is_linear = conv.activation() == Activation::None;
    if is_linear && !conv.has_addend() && !conv.has_pool() {
        if let Some((factor, offset)) = affine_of(draft, step, input, conv.columns()) {
            conv.scale(&factor, &offset);
            return Some(None);
        }
        if let Some(addend) = addend_of(draft, step, input) {
            conv.add();
            return Some(Some(addend));
        }
    }
    if is_linear && let Some(activation) = activation_of(draft, step) {
        // The largest element stays the largest.
        let keeps_order = matches!(activation, Activation::Relu | Activation::Clip(..));
        if !conv.has_pool() || keeps_order {
            conv.activate(activation);
            return Some(None);
        }
    }
    if step.node.is("MaxPool") {
        let pool = pool_of(draft, step)?;
        return conv.pool(pool).then_some(None);
    }
    None
}

/// The pooling that a step is.
pub(super) fn pool_of(draft: &Draft, step: &Planned) -> Option<Pool> {
    let name = ["MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"]
        .into_iter()
        .find(|name| step.node.is(name))?;
    let given = draft.given(&step.inputs);
    let node = Node {
        operator: name,
        domain: "",
        version: step.node.version,
        attributes: &step.node.attributes,
        inputs: &given,
        outputs: step.outputs.len(),
    };
    Pool::of(name, &node).ok().filter(|_| step.outputs.len() == 1)
}

/// What a step does to each channel of its input: a factor and an offset.
pub(super) fn affine_of(
    draft: &Draft,
    step: &Planned,
    input: usize,
    channels: usize,
) -> Option<(Vec<f32>, Vec<f32>)> {
    if step.node.is("BatchNormalization") {
        return normalisation(draft, step, input, channels);
    }
    let place = step.inputs.iter().position(|i| *i == Some(input))?;
    let other = step.inputs.get(1_usize.checked_sub(place)?).copied().flatten()?;
    if step.inputs.len() != 2 || other == input {
        return None;
    }
    let values = by_channel(draft, other, draft.rank(input)?, channels)?;
    let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
    Some(match (step.node.operator.as_str(), place) {
        _ if !matches!(step.node.domain.as_str(), "" | "ai.onnx") => return None,
        ("Add", _) => (ones, values),
        ("Sub", 0) => (ones, values.iter().map(|v| -v).collect()),
        ("Mul", _) => (values, zeros),
        _ => return None,
    })
}

/// A constant that is one value, or one for each channel, in an image of this rank.
fn by_channel(draft: &Draft, value: usize, rank: usize, channels: usize) -> Option<Vec<f32>> {
    let constant = draft.constant(Some(value))?;
    let (dims, values) = (constant.dims(), constant.values::<f32>()?);
    if dims.len() > rank {
        return None;
    }
    match values {
        [one] => Some(vec![*one; channels]),
        _ => {
            let axis = (dims.len() + 1).checked_sub(rank)?;
            let fits = values.len() == channels && dims.get(axis) == Some(&channels);
            fits.then(|| values.to_vec())
        }
    }
}

fn normalisation(
    draft: &Draft,
    step: &Planned,
    input: usize,
    channels: usize,
) -> Option<(Vec<f32>, Vec<f32>)> {
    if step.inputs.first() != Some(&Some(input)) || step.outputs.len() != 1 {
        return None;
    }
    let list = |index: usize| {
        let values = draft.constant(step.inputs.get(index).copied().flatten())?.values::<f32>()?;
        (values.len() == channels).then_some(values)
    };
    let (scale, bias, mean, variance) = (list(1)?, list(2)?, list(3)?, list(4)?);
    let epsilon = f64::from(step.node.attributes.float("epsilon").ok()?.unwrap_or(1e-5));
    let parameters = scale.iter().zip(bias).zip(mean.iter().zip(variance));
    #[expect(clippy::cast_possible_truncation, reason = "back to the type of the parameters")]
    let affine = parameters.map(|((scale, bias), (mean, variance))| {
        let factor = f64::from(*scale) / (f64::from(*variance) + epsilon).sqrt();
        (factor as f32, (f64::from(*bias) - f64::from(*mean) * factor) as f32)
    });
    Some(affine.unzip())
}

/// What a step adds to its input, computed as well and certainly of the same shape.
fn addend_of(draft: &Draft, step: &Planned, input: usize) -> Option<usize> {
    let other = match step.inputs.as_slice() {
        [Some(a), Some(b)] if *a == input && *b != input => *b,
        [Some(a), Some(b)] if *b == input && *a != input => *a,
        _ => return None,
    };
    if !step.node.is("Add") || draft.constant(Some(other)).is_some() {
        return None;
    }
    let dims = |value: usize| draft.values.get(value)?.fact.as_ref()?.dims.clone();
    let (mine, its) = (dims(input)?, dims(other)?);
    let is_known = |dim: &FactDim| *dim != FactDim::Unknown;
    (mine == its && mine.iter().all(is_known) && draft.element(other) == Some(ElementType::F32))
        .then_some(other)
}
