//! Tensors out of little: `Constant`, `ConstantOfShape`, `Range`, `EyeLike`.

use smallvec::SmallVec;

use super::layout::unsigned;
use super::number::Number;
use super::support::{
    Args, Built, FactDims, Run, any_type, element_of, fact, first, ints, like, number_type, of_rank, one, op,
};
use crate::kernel::program::copy;
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext, copied_text};
use crate::tensor::{Element, ElementType, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "Constant" => {
            let value = constant(node)?;
            let known = Fact {
                element: value.element_type(),
                dims: Some(value.dims().iter().map(|d| FactDim::Fixed(*d)).collect()),
            };
            op(
                name,
                move |_| Ok(SmallVec::from_elem(known.clone(), 1)),
                move |args, outputs, _| {
                    copy(value.view(), first(args, outputs)?);
                    Ok(())
                },
            )
        }
        "ConstantOfShape" => {
            let value =
                node.attributes.tensor("value")?.cloned().unwrap_or_else(|| Tensor::vector(vec![0.0_f32]));
            let element = value.element_type();
            let shape = node.inputs.first().copied().flatten().flatten().and_then(|t| ints(t.view()));
            let dim = |d: &i64| usize::try_from(*d).map_or(FactDim::Unknown, FactDim::Fixed);
            let dims: Option<FactDims> = shape.map(|s| s.iter().map(dim).collect());
            op(
                name,
                move |_| one(element, dims.clone()),
                move |args, outputs, cx| {
                    let dims = args.ints(0)?;
                    let dims = unsigned(args, &dims)?;
                    any_type!(value.view(), v => fill(args, v, &dims, outputs, cx))
                },
            )
        }
        "Range" => op(
            name,
            |inputs| of_rank(inputs, Some(1)),
            |args, outputs, cx| {
                let start = args.get(0)?;
                number_type!(args, start, v => range(args, v, outputs, cx))
            },
        ),
        "EyeLike" => eye_like(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

fn constant(node: &Node<'_>) -> Result<Tensor, BuildError> {
    let attributes = node.attributes;
    if let Some(value) = attributes.tensor("value")? {
        return Ok(value.clone());
    }
    if let Some(value) = attributes.float("value_float")? {
        return Ok(Tensor::scalar(value));
    }
    if let Some(value) = attributes.int("value_int")? {
        return Ok(Tensor::scalar(value));
    }
    if let Some(value) = attributes.string("value_string")? {
        return Ok(Tensor::scalar(value.to_owned()));
    }
    if attributes.contains("value_floats") {
        return Ok(Tensor::vector(attributes.floats("value_floats")?.to_vec()));
    }
    if attributes.contains("value_ints") {
        return Ok(Tensor::vector(attributes.ints("value_ints")?.to_vec()));
    }
    if attributes.contains("value_strings") {
        return Ok(Tensor::vector(attributes.strings("value_strings")?.to_vec()));
    }
    Err(BuildError::invalid("attribute `value` is missing"))
}

fn fill<T: Element>(
    args: Args<'_, '_>,
    value: &[T],
    dims: &[usize],
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let value = value.first().ok_or_else(|| args.fail("a value"))?;
    let to = cx.reset::<T>(first(args, outputs)?, dims)?;
    cx.room_for_text(copied_text(std::slice::from_ref(value), to.len()))?;
    to.fill(value.clone());
    Ok(())
}

fn range<T: Number>(args: Args<'_, '_>, start: &[T], outputs: &mut [Tensor], cx: &RunContext) -> Run {
    let scalar = |index| -> Result<T, _> {
        args.values::<T>(index)?.first().copied().ok_or_else(|| args.fail("a number"))
    };
    let start = *start.first().ok_or_else(|| args.fail("a number"))?;
    let (limit, delta) = (scalar(1)?, scalar(2)?);
    if delta == T::ZERO {
        return Err(args.fail("a step that is not zero"));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count too large is over budget"
    )]
    let count = ((limit.to_f64() - start.to_f64()) / delta.to_f64()).ceil().max(0.0) as usize;
    let to = cx.reset::<T>(first(args, outputs)?, &[count])?;
    for (i, to) in (0_i64..).zip(to) {
        *to = start.plus(T::from_i64(i).times(delta));
    }
    Ok(())
}

fn eye_like(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Number>(args: Args<'_, '_>, k: i64, outputs: &mut [Tensor]) -> Run {
        let shape = args.get(0)?.shape();
        let [_, columns] = shape.dims() else { return Err(args.fail("a matrix")) };
        let to = first(args, outputs)?.reset::<T>(shape);
        to.fill(T::ZERO);
        for (row, to) in (0_i64..).zip(to.chunks_exact_mut((*columns).max(1))) {
            let at = row.checked_add(k).and_then(|c| usize::try_from(c).ok());
            at.and_then(|c| to.get_mut(c)).into_iter().for_each(|to| *to = T::ONE);
        }
        Ok(())
    }
    let k = node.attributes.int("k")?.unwrap_or(0);
    let element = node.attributes.int("dtype")?.map(element_of).transpose()?;
    let facts =
        move |inputs: &[Option<Fact>]| one(element.unwrap_or(fact(inputs, 0)?.element), like(inputs, 0));
    op(name, facts, move |args, outputs, _| match element.unwrap_or(args.get(0)?.element_type()) {
        ElementType::F32 => typed::<f32>(args, k, outputs),
        ElementType::F64 => typed::<f64>(args, k, outputs),
        ElementType::I32 => typed::<i32>(args, k, outputs),
        ElementType::I64 => typed::<i64>(args, k, outputs),
        _ => Err(args.fail("a type of numbers")),
    })
}
