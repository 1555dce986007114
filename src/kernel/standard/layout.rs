//! Operators that give the same elements another shape or order: `Reshape`, `Transpose`, `Tile`, ..

use smallvec::SmallVec;

use super::strided::{self, Strides, dense};
use super::support::{
    Args, Built, Dims, Facts, Run, any_type, axis_of, fact, first, ints, like, of_rank, one, op, rank, same,
};
use crate::kernel::program::copy;
use crate::kernel::{BuildError, Fact, FactDim, Node};
use crate::load::RunError;
use crate::tensor::{Element, ElementType, Shape, Tensor, TensorView};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    let constant =
        |index: usize| node.inputs.get(index).copied().flatten().flatten().and_then(|t| ints(t.view()));
    match name {
        "Identity" => op(name, same, |args, outputs, _| {
            copy(args.get(0)?, first(args, outputs)?);
            Ok(())
        }),
        "Dropout" if node.inputs.get(2).copied().flatten().flatten() == Some(&Tensor::scalar(true)) => {
            Err(BuildError::Unsupported)
        }
        "Dropout" => dropout(name),
        "Reshape" => reshape(name, node, constant(1)),
        "Flatten" => {
            let axis = node.attributes.int("axis")?.unwrap_or(1);
            op(
                name,
                move |inputs| flat_fact(inputs, axis),
                move |args, outputs, _| flatten(args, outputs, axis),
            )
        }
        "Squeeze" => {
            let fixed = attribute_or(node, constant(1))?;
            let known = fixed.clone();
            op(
                name,
                move |inputs| squeeze_facts(inputs, known.as_deref()),
                move |args, outputs, _| squeeze(args, outputs, fixed.as_deref()),
            )
        }
        "Unsqueeze" => {
            let fixed = attribute_or(node, constant(1))?;
            let known = fixed.clone();
            op(
                name,
                move |inputs| unsqueeze_facts(inputs, known.as_deref()),
                move |args, outputs, _| unsqueeze(args, outputs, fixed.as_deref()),
            )
        }
        "Transpose" => transpose(name, node),
        "Shape" => shape(name, node),
        "Size" => op(
            name,
            |_| one(ElementType::I64, Some(SmallVec::new())),
            |args, outputs, _| {
                let size = i64::try_from(args.get(0)?.shape().elements()).unwrap_or(i64::MAX);
                first(args, outputs)?.reset::<i64>(Shape::SCALAR).fill(size);
                Ok(())
            },
        ),
        _ => Err(BuildError::Unsupported),
    }
}

/// Axes or sizes: an attribute in old versions, an input in new ones.
pub(super) fn attribute_or(
    node: &Node<'_>,
    input: Option<SmallVec<[i64; 8]>>,
) -> Result<Option<SmallVec<[i64; 8]>>, BuildError> {
    let axes = node.attributes.ints("axes")?;
    Ok(if node.attributes.contains("axes") { Some(axes.iter().copied().collect()) } else { input })
}

/// The input in another shape of as many elements.
fn write(args: Args<'_, '_>, input: TensorView<'_>, dims: &[usize], outputs: &mut [Tensor]) -> Run {
    let shape = Shape::new(dims).ok_or_else(|| args.fail("fewer dimensions"))?;
    let view = input.reshaped(shape).ok_or_else(|| args.fail("a shape of as many elements"))?;
    copy(view, first(args, outputs)?);
    Ok(())
}

pub(super) fn unsigned(args: Args<'_, '_>, dims: &[i64]) -> Result<Dims, RunError> {
    dims.iter().map(|d| usize::try_from(*d).map_err(|_| args.fail("sizes that are not negative"))).collect()
}

fn dropout(name: &'static str) -> Built {
    let facts = |inputs: &[Option<Fact>]| {
        let mut facts = same(inputs)?;
        facts.push(Fact { element: ElementType::Bool, dims: like(inputs, 0) });
        Ok(facts)
    };
    op(name, facts, |args, outputs, _| {
        let input = args.get(0)?;
        if args.maybe(2).is_some_and(|t| t.values::<bool>() == Some(&[true])) {
            return Err(args.fail("inference, not training"));
        }
        copy(input, first(args, outputs)?);
        if let Some(mask) = outputs.get_mut(1) {
            mask.reset::<bool>(input.shape()).fill(true);
        }
        Ok(())
    })
}

fn reshape(name: &'static str, node: &Node<'_>, constant: Option<SmallVec<[i64; 8]>>) -> Built {
    let keep_zero = node.attributes.int("allowzero")?.unwrap_or(0) != 0;
    let fixed: Option<SmallVec<[i64; 8]>> = if node.attributes.contains("shape") {
        Some(node.attributes.ints("shape")?.iter().copied().collect())
    } else {
        constant
    };
    let known = fixed.clone();
    let facts = move |inputs: &[Option<Fact>]| {
        let element = fact(inputs, 0)?.element;
        one(element, known.as_ref().map(|wanted| reshaped(like(inputs, 0).as_deref(), wanted, keep_zero)))
    };
    op(name, facts, move |args, outputs, _| {
        let input = args.get(0)?;
        let given;
        let wanted = match &fixed {
            Some(wanted) => wanted,
            None => {
                given = args.ints(1)?;
                &given
            }
        };
        let mut dims = Dims::new();
        let mut open = None;
        for (axis, size) in wanted.iter().enumerate() {
            dims.push(match size {
                0 if !keep_zero => *input
                    .dims()
                    .get(axis)
                    .ok_or_else(|| args.fail("a size for an axis that the input lacks"))?,
                -1 if open.is_none() => {
                    open = Some(axis);
                    1
                }
                size => usize::try_from(*size).map_err(|_| args.fail("sizes that are not negative"))?,
            });
        }
        if let Some(open) = open.and_then(|axis| dims.get_mut(axis)) {
            *open = 0;
            let rest = wanted_product(&dims, wanted).ok_or_else(|| args.fail("sizes that fit the memory"))?;
            let fill = input.shape().elements().checked_div(rest).unwrap_or(0);
            for (dim, size) in dims.iter_mut().zip(wanted) {
                if *size == -1 {
                    *dim = fill;
                }
            }
        }
        write(args, input, &dims, outputs)
    })
}

/// The product of all sizes but the one that is left open.
fn wanted_product(dims: &[usize], wanted: &[i64]) -> Option<usize> {
    let given = dims.iter().zip(wanted).filter(|(_, w)| **w != -1);
    given.map(|(d, _)| *d).try_fold(1_usize, usize::checked_mul)
}

fn reshaped(from: Option<&[FactDim]>, wanted: &[i64], keep_zero: bool) -> super::support::FactDims {
    let fixed = |dim: &FactDim| if let FactDim::Fixed(n) = dim { Some(*n) } else { None };
    let mut dims: super::support::FactDims = wanted
        .iter()
        .enumerate()
        .map(|(axis, size)| match size {
            0 if !keep_zero => from.and_then(|f| f.get(axis).copied()).unwrap_or(FactDim::Unknown),
            size => usize::try_from(*size).map_or(FactDim::Unknown, FactDim::Fixed),
        })
        .collect();
    // Where one size is open it takes what the others leave; with one open size on either side it
    // is the same one if the rest agrees.
    if let (Some(from), Some(open)) = (from, wanted.iter().position(|w| *w == -1)) {
        let mut before: Vec<_> = from.to_vec();
        let mut others = 1_usize;
        for (axis, dim) in dims.iter().enumerate().filter(|(axis, _)| *axis != open) {
            match fixed(dim) {
                Some(n) => others = others.saturating_mul(n),
                None => match before.iter().position(|b| b == dim && *b != FactDim::Unknown) {
                    Some(same) => {
                        before.remove(same);
                    }
                    None => return dims,
                },
            }
            let _ = axis;
        }
        let total = before.iter().filter_map(fixed).fold(1_usize, usize::saturating_mul);
        let loose: Vec<_> = before.iter().filter(|b| fixed(b).is_none()).collect();
        let rest = match loose.as_slice() {
            [] if others > 0 && total % others == 0 => FactDim::Fixed(total / others),
            [only] if others == total => **only,
            _ => FactDim::Unknown,
        };
        dims.get_mut(open).into_iter().for_each(|d| *d = rest);
    }
    dims
}

fn flat_fact(inputs: &[Option<Fact>], axis: i64) -> Facts {
    let element = fact(inputs, 0)?.element;
    let product = |dims: &[FactDim]| match dims {
        [only] => *only,
        dims => dims
            .iter()
            .map(|d| if let FactDim::Fixed(n) = d { Some(*n) } else { None })
            .try_fold(1_usize, |n, d| n.checked_mul(d?))
            .map_or(FactDim::Unknown, FactDim::Fixed),
    };
    let Some(dims) = like(inputs, 0) else { return of_rank(inputs, Some(2)) };
    let split = axis_of(axis, dims.len()).unwrap_or(dims.len());
    let (outer, inner) = dims.split_at_checked(split).unwrap_or((&dims, &[]));
    one(element, Some(SmallVec::from_slice(&[product(outer), product(inner)])))
}

fn flatten(args: Args<'_, '_>, outputs: &mut [Tensor], axis: i64) -> Run {
    let input = args.get(0)?;
    let rank = input.dims().len();
    let split = if usize::try_from(axis) == Ok(rank) { rank } else { args.axis(axis, rank)? };
    let (outer, inner) = input.dims().split_at_checked(split).unwrap_or((&[], &[]));
    write(args, input, &[outer.iter().product(), inner.iter().product()], outputs)
}

fn squeeze(args: Args<'_, '_>, outputs: &mut [Tensor], fixed: Option<&[i64]>) -> Run {
    let input = args.get(0)?;
    let given = if fixed.is_none() { args.maybe_ints(1)? } else { None };
    let axes = fixed.or(given.as_deref());
    let rank = input.dims().len();
    let mut drop: SmallVec<[bool; 8]> = input.dims().iter().map(|d| axes.is_none() && *d == 1).collect();
    for axis in axes.unwrap_or(&[]) {
        let axis = args.axis(*axis, rank)?;
        if input.dims().get(axis) != Some(&1) {
            return Err(args.fail("an axis of size 1"));
        }
        drop.get_mut(axis).into_iter().for_each(|d| *d = true);
    }
    let dims: Dims = input.dims().iter().zip(&drop).filter(|(_, drop)| !**drop).map(|(d, _)| *d).collect();
    write(args, input, &dims, outputs)
}

fn squeeze_facts(inputs: &[Option<Fact>], axes: Option<&[i64]>) -> Facts {
    let element = fact(inputs, 0)?.element;
    let (Some(dims), Some(axes)) = (like(inputs, 0), axes) else { return one(element, None) };
    let gone: Vec<_> = axes.iter().filter_map(|a| axis_of(*a, dims.len())).collect();
    one(element, Some(dims.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, d)| *d).collect()))
}

fn unsqueeze(args: Args<'_, '_>, outputs: &mut [Tensor], fixed: Option<&[i64]>) -> Run {
    let input = args.get(0)?;
    let given;
    let axes = match fixed {
        Some(axes) => axes,
        None => {
            given = args.ints(1)?;
            &given
        }
    };
    let rank = input.dims().len() + axes.len();
    let mut added: SmallVec<[bool; 8]> = SmallVec::from_elem(false, rank);
    for axis in axes {
        match added.get_mut(args.axis(*axis, rank)?) {
            Some(new) if !*new => *new = true,
            _ => return Err(args.fail("each axis once")),
        }
    }
    let mut old = input.dims().iter();
    let dims: Dims =
        added.iter().map(|new| if *new { 1 } else { old.next().copied().unwrap_or(1) }).collect();
    write(args, input, &dims, outputs)
}

fn unsqueeze_facts(inputs: &[Option<Fact>], axes: Option<&[i64]>) -> Facts {
    let element = fact(inputs, 0)?.element;
    let (Some(dims), Some(axes)) = (like(inputs, 0), axes) else { return one(element, None) };
    let rank = dims.len() + axes.len();
    let added: Vec<_> = axes.iter().filter_map(|a| axis_of(*a, rank)).collect();
    let mut old = dims.iter();
    let dim = |axis| if added.contains(&axis) { Some(FactDim::Fixed(1)) } else { old.next().copied() };
    one(element, Some((0..rank).filter_map(dim).collect()))
}

fn transpose(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Element>(args: Args<'_, '_>, values: &[T], order: &[usize], outputs: &mut [Tensor]) -> Run {
        let dims = args.get(0)?.shape();
        let strides = dense(dims.dims());
        let pick = |axis: &usize| dims.dims().get(*axis).copied().unwrap_or(1);
        let to: Dims = order.iter().map(pick).collect();
        let steps: Strides = order.iter().map(|axis| strides.get(*axis).copied().unwrap_or(0)).collect();
        let shape = Shape::new(&to).ok_or_else(|| args.fail("fewer dimensions"))?;
        strided::copy(values, 0, &to, &steps, first(args, outputs)?.reset::<T>(shape));
        Ok(())
    }
    fn order_of(perm: Option<&[i64]>, rank: usize) -> Option<Dims> {
        let Some(perm) = perm else { return Some((0..rank).rev().collect()) };
        let order: Dims = perm.iter().map(|a| axis_of(*a, rank)).collect::<Option<_>>()?;
        (order.len() == rank && (0..rank).all(|axis| order.contains(&axis))).then_some(order)
    }
    let perm = node.attributes.contains("perm").then(|| node.attributes.ints("perm").map(<[i64]>::to_vec));
    let perm = perm.transpose()?;
    let known = perm.clone();
    let facts = move |inputs: &[Option<Fact>]| {
        let element = fact(inputs, 0)?.element;
        let Some(dims) = like(inputs, 0) else { return one(element, None) };
        let order = order_of(known.as_deref(), dims.len())
            .ok_or_else(|| BuildError::invalid("attribute `perm` is no permutation of the axes"))?;
        one(element, Some(order.iter().filter_map(|a| dims.get(*a).copied()).collect()))
    };
    op(name, facts, move |args, outputs, _| {
        let input = args.get(0)?;
        let order = order_of(perm.as_deref(), input.dims().len())
            .ok_or_else(|| args.fail("a permutation of the axes"))?;
        any_type!(input, v => typed(args, v, &order, outputs))
    })
}

fn shape(name: &'static str, node: &Node<'_>) -> Built {
    let start = node.attributes.int("start")?.unwrap_or(0);
    let end = node.attributes.int("end")?;
    // Out of range means the nearest axis.
    let range = move |rank: usize| {
        let signed = i64::try_from(rank).unwrap_or(i64::MAX);
        let clamp =
            |v: i64| usize::try_from(if v < 0 { v.saturating_add(signed) } else { v }.clamp(0, signed));
        let from = clamp(start).unwrap_or(0);
        from..end.map_or(rank, |e| clamp(e).unwrap_or(rank)).max(from)
    };
    let facts = move |inputs: &[Option<Fact>]| {
        one(
            ElementType::I64,
            Some(SmallVec::from_elem(
                rank(inputs, 0).map_or(FactDim::Unknown, |r| FactDim::Fixed(range(r).len())),
                1,
            )),
        )
    };
    op(name, facts, move |args, outputs, _| {
        let input = args.get(0)?;
        let dims = input.dims().get(range(input.dims().len())).unwrap_or(&[]);
        let to = first(args, outputs)?.reset::<i64>(Shape::vector(dims.len()));
        for (to, dim) in to.iter_mut().zip(dims) {
            *to = i64::try_from(*dim).unwrap_or(i64::MAX);
        }
        Ok(())
    })
}
