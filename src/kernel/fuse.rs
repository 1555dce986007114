//! Several nodes into one: a layer with its bias and activation, a chain of element-wise steps.
//!
//! Nothing is computed in another order than the graph states it, so that results stay the same to
//! the last bit or nearly so; what is saved are passes over memory and calls.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::smallvec;

mod convolutions;
mod orders;
#[cfg(test)]
mod tests;

use super::program::{Draft, Planned, ProgramError};
use super::standard::activation::Activation;
use super::standard::chain::{Chain, Link};
use super::standard::dense::Dense;
use super::standard::matmul::LayerForm;
use crate::tensor::{ElementType, Tensor};

/// Replaces chains of nodes by single kernels that do the same in one pass.
pub(crate) fn fuse(draft: &mut Draft) -> Result<(), ProgramError> {
    layers(draft)?;
    let convolutions = convolutions::gather(draft)?;
    orders::channels_last(draft, convolutions)?;
    chains(draft);
    drop_unread(draft);
    Ok(())
}

/// `Gemm` or `MatMul` with constant weights takes the bias and the activation behind it.
fn layers(draft: &mut Draft) -> Result<(), ProgramError> {
    let readers = Readers::of(draft);
    let mut gone = vec![false; draft.steps.len()];
    for at in 0..draft.steps.len() {
        let Some(mut dense) = dense_of(draft, &readers, at)? else { continue };
        let mut last = at;
        while let Some(next) = readers.only(draft, last) {
            let Some(step) = draft.steps.get(next) else { break };
            let Some(input) = output_of(draft, last) else { break };
            if dense.activation() == Activation::None
                && let Some(bias) = added_row(draft, step, input, dense.columns())
                && let Some(values) = bias.values::<f32>()
            {
                dense.add_bias(values, 1.0);
            } else if dense.activation() == Activation::None
                && let Some(activation) = activation_of(draft, step)
            {
                dense.activate(activation);
            } else {
                break;
            }
            gone.get_mut(last).into_iter().for_each(|g| *g = true);
            last = next;
        }
        release_weights(draft, &readers, at);
        let inputs =
            draft.steps.get(at).map(|s| s.inputs.iter().copied().take(1).collect()).unwrap_or_default();
        if let Some(step) = draft.steps.get_mut(last) {
            step.inputs = inputs;
            step.kernel = Box::new(dense);
            // It is no `Add` or `Relu` any more.
            step.node.operator = "Dense".into();
        }
    }
    retain(draft, &gone);
    Ok(())
}

/// Lets go of constants that a step has laid out for itself and that nobody else reads, so that no
/// two layers of a large model are held twice at a time.
fn release_weights(draft: &mut Draft, readers: &Readers, at: usize) {
    let held = draft.steps.get(at).map(|s| s.inputs.iter().skip(1).copied().flatten().collect::<Vec<_>>());
    for value in held.unwrap_or_default() {
        if readers.count(value) == 1
            && let Some(value) = draft.values.get_mut(value)
        {
            value.constant = None;
        }
    }
}

/// The layer that a step is, made anew so that it can be changed. Weights that nobody else reads are
/// taken from the draft.
fn dense_of(draft: &mut Draft, readers: &Readers, at: usize) -> Result<Option<Dense>, ProgramError> {
    let Some(step) = draft.steps.get(at) else { return Ok(None) };
    if !step.node.is("Gemm") && !step.node.is("MatMul") {
        return Ok(None);
    }
    let (weights, bias) = (step.inputs.get(1).copied().flatten(), step.inputs.get(2).copied().flatten());
    let form =
        LayerForm::of(&step.node, &draft.given(&step.inputs)).map_err(|e| ProgramError::of(&step.node, e))?;
    let (Some(form), Some(weights)) = (form, weights) else { return Ok(None) };
    let Some(value) = draft.values.get_mut(weights) else { return Ok(None) };
    let constant = if readers.count(weights) == 1 { value.constant.take() } else { value.constant.clone() };
    Ok(constant.and_then(|constant| form.layer(constant, draft.constant(bias).map(Arc::as_ref))))
}

/// The constant that a step adds to each row of its other input.
fn added_row<'d>(draft: &'d Draft, step: &Planned, input: usize, columns: usize) -> Option<&'d Arc<Tensor>> {
    if !step.node.is("Add") {
        return None;
    }
    let other = match step.inputs.as_slice() {
        [Some(a), Some(b)] if *a == input && *b != input => *b,
        [Some(a), Some(b)] if *b == input && *a != input => *a,
        _ => return None,
    };
    let row = draft.constant(Some(other))?;
    let rank = draft.rank(input)?;
    let length = row.shape().elements();
    (row.dims().len() <= rank
        && row.dims().last().copied().unwrap_or(1) == length
        && (length == 1 || length == columns))
        .then_some(row)
}

fn activation_of(draft: &Draft, step: &Planned) -> Option<Activation> {
    let node = &step.node;
    Some(match node.operator.as_str() {
        _ if !node.domain.is_empty() && node.domain != "ai.onnx" => return None,
        "Relu" => Activation::Relu,
        "Sigmoid" => Activation::Sigmoid,
        "Tanh" => Activation::Tanh,
        "HardSwish" => Activation::HardSwish,
        "LeakyRelu" => Activation::LeakyRelu(node.attributes.float("alpha").ok()?.unwrap_or(0.01)),
        "Clip" => {
            let bound =
                |index: usize, attribute: &str, open: f32| match step.inputs.get(index).copied().flatten() {
                    Some(bound) => match draft.constant(Some(bound))?.values::<f32>()? {
                        [bound] => Some(*bound),
                        _ => None,
                    },
                    None => Some(node.attributes.float(attribute).ok()?.unwrap_or(open)),
                };
            Activation::Clip(bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?)
        }
        _ => return None,
    })
}

/// Element-wise steps of `f32` with constant rows become one pass over the rows.
fn chains(draft: &mut Draft) {
    let readers = Readers::of(draft);
    let mut gone = vec![false; draft.steps.len()];
    for at in 0..draft.steps.len() {
        if gone.get(at) != Some(&false) {
            continue;
        }
        let Some((source, width, link)) = link_of(draft, at, None) else { continue };
        let (mut links, mut width, mut last) = (link, width, at);
        while let Some(next) = readers.only(draft, last)
            && let Some(input) = output_of(draft, last)
            && let Some((_, its_width, more)) = link_of(draft, next, Some(input))
            && (width.is_none() || its_width.is_none() || width == its_width)
        {
            gone.get_mut(last).into_iter().for_each(|g| *g = true);
            links.extend(more);
            width = width.or(its_width);
            last = next;
        }
        if last == at {
            continue;
        }
        if let Some(step) = draft.steps.get_mut(last) {
            step.inputs = vec![Some(source)];
            step.kernel = Box::new(Chain::new(links, width));
            step.node.operator = "Chain".into();
        }
    }
    retain(draft, &gone);
}

/// What a step does to each row of an input, how wide the rows are where it matters, and which
/// input that is: the one that is asked for, or the only one that is no constant.
fn link_of(draft: &Draft, at: usize, wanted: Option<usize>) -> Option<(usize, Option<usize>, Vec<Link>)> {
    let step = draft.steps.get(at)?;
    if step.outputs.len() != 1 {
        return None;
    }
    let (source, place) = step.inputs.iter().enumerate().find_map(|(place, i)| {
        i.filter(|i| wanted.map_or(draft.constant(Some(*i)).is_none(), |w| w == *i)).zip(Some(place))
    })?;
    if draft.element(source)? != ElementType::F32
        || step.inputs.iter().filter(|i| **i == Some(source)).count() != 1
    {
        return None;
    }
    let rank = draft.rank(source)?;
    let row = |constant: Option<usize>| -> Option<Vec<f32>> {
        let row = draft.constant(constant)?;
        let fits =
            row.dims().len() <= rank && row.dims().last().copied().unwrap_or(1) == row.shape().elements();
        // A row that is wider than the input would widen it.
        let width = draft.width(source)?;
        (fits && (row.shape().elements() == 1 || row.shape().elements() == width))
            .then(|| row.values::<f32>().map(<[f32]>::to_vec))?
    };
    let width_of = |row: &[f32]| (row.len() > 1).then_some(row.len());
    if step.node.domain == "ai.onnx.ml" && step.node.operator == "Scaler" {
        let offset = step.node.attributes.floats("offset").ok()?.to_vec();
        let scale = step.node.attributes.floats("scale").ok()?.to_vec();
        let width = draft.width(source)?;
        let fits = |v: &[f32]| v.len() == 1 || v.len() == width;
        if !fits(&offset) || !fits(&scale) {
            return None;
        }
        return Some((source, Some(width), vec![Link::Sub(offset), Link::Mul(scale)]));
    }
    if !step.node.domain.is_empty() && step.node.domain != "ai.onnx" {
        return None;
    }
    let other = || row(step.inputs.get(1 - place.min(1)).copied().flatten());
    let binary = step.inputs.len() == 2;
    let link = match (step.node.operator.as_str(), place) {
        ("Add", _) if binary => Link::Add(other()?),
        ("Mul", _) if binary => Link::Mul(other()?),
        ("Sub", 0) if binary => Link::Sub(other()?),
        ("Div", 0) if binary => Link::Div(other()?),
        ("Relu", _) => Link::Relu,
        _ => return None,
    };
    let width = match &link {
        Link::Add(row) | Link::Mul(row) | Link::Sub(row) | Link::Div(row) => width_of(row),
        Link::Relu => None,
    };
    Some((source, width, vec![link]))
}

/// Steps whose outputs nobody reads go, with what only they needed.
fn drop_unread(draft: &mut Draft) {
    let mut read: Vec<bool> = vec![false; draft.values.len()];
    draft.wanted.iter().for_each(|v| read.get_mut(*v).into_iter().for_each(|r| *r = true));
    let mut gone = vec![false; draft.steps.len()];
    for (at, step) in draft.steps.iter().enumerate().rev() {
        if step.outputs.iter().any(|v| read.get(*v) == Some(&true)) {
            for value in step.inputs.iter().flatten() {
                read.get_mut(*value).into_iter().for_each(|r| *r = true);
            }
        } else {
            gone.get_mut(at).into_iter().for_each(|g| *g = true);
        }
    }
    retain(draft, &gone);
}

fn retain(draft: &mut Draft, gone: &[bool]) {
    let mut gone = gone.iter();
    draft.steps.retain(|_| gone.next() != Some(&true));
}

fn output_of(draft: &Draft, at: usize) -> Option<usize> {
    match draft.steps.get(at)?.outputs.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

/// Which steps read a value; the graph's outputs count as a reader that is no step.
struct Readers(HashMap<usize, smallvec::SmallVec<[Option<usize>; 2]>>);

impl Readers {
    fn of(draft: &Draft) -> Self {
        let mut readers: HashMap<usize, smallvec::SmallVec<[Option<usize>; 2]>> = HashMap::new();
        for (at, step) in draft.steps.iter().enumerate() {
            for value in step.inputs.iter().flatten() {
                readers.entry(*value).or_insert_with(|| smallvec![]).push(Some(at));
            }
        }
        for value in &draft.wanted {
            readers.entry(*value).or_insert_with(|| smallvec![]).push(None);
        }
        Self(readers)
    }

    /// How often a value is read.
    fn count(&self, value: usize) -> usize {
        self.0.get(&value).map_or(0, smallvec::SmallVec::len)
    }

    /// The one step that reads the one output of a step.
    fn only(&self, draft: &Draft, at: usize) -> Option<usize> {
        match self.0.get(&output_of(draft, at)?)?.as_slice() {
            [only] => *only,
            _ => None,
        }
    }
}
