//! `Einsum`: sums of products over named axes.

use smallvec::SmallVec;

use super::matmul::{MAX_SINGLE_PRODUCTS, multiplications};
use super::number::Number;
use super::strided::{Strides, Walk, dense};
use super::support::{Args, Built, Dims, Run, fact, first, number_type, one, op};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::load::RunError;
use crate::tensor::Tensor;

/// More factors than anybody writes.
const MAX_FACTORS: usize = 4;

/// The most products of any run: axes that no two factors share multiply, and what is summed takes no
/// memory that a budget would see.
const MAX_PRODUCTS: u64 = 1 << 36;

/// The kernel of the node, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    if name != "Einsum" {
        return Err(BuildError::Unsupported);
    }
    let text = node.attributes.string("equation")?;
    let text = text.ok_or_else(|| BuildError::invalid("attribute `equation` is missing"))?;
    let equation = Equation::parse(text)?;
    if equation.factors.len() != node.inputs.len() {
        return Err(BuildError::invalid(format!("equation `{text}` for {} inputs", node.inputs.len())));
    }
    if node.inputs.len() > MAX_FACTORS {
        return Err(BuildError::Unsupported);
    }
    let rank = (!equation.has_ellipsis()).then_some(equation.result.len());
    let facts = move |inputs: &[Option<Fact>]| {
        one(fact(inputs, 0)?.element, rank.map(|r| SmallVec::from_elem(FactDim::Unknown, r)))
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        number_type!(args, input, v => sum(args, v, &equation, outputs, cx))
    })
}

/// A name of an axis; the axes of an ellipsis are numbered from the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Named(char),
    Ellipsis,
    Broadcast(usize),
}

#[derive(Debug)]
struct Equation {
    factors: Vec<Vec<Axis>>,
    result: Vec<Axis>,
}

impl Equation {
    fn parse(text: &str) -> Result<Self, BuildError> {
        let bad = || BuildError::invalid(format!("attribute `equation`: found `{text}`"));
        let (left, right) = match text.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (text, None),
        };
        let term = |term: &str| -> Result<Vec<Axis>, BuildError> {
            let mut axes = Vec::new();
            let mut rest = term.trim();
            while let Some(next) = rest.chars().next() {
                if let Some(after) = rest.strip_prefix("...") {
                    axes.push(Axis::Ellipsis);
                    rest = after;
                } else if next.is_ascii_alphabetic() || next == ' ' {
                    if next != ' ' {
                        axes.push(Axis::Named(next));
                    }
                    rest = rest.get(1..).unwrap_or("");
                } else {
                    return Err(bad());
                }
            }
            Ok(axes)
        };
        let factors: Vec<_> = left.split(',').map(term).collect::<Result<_, _>>()?;
        let result = match right {
            Some(right) => term(right)?,
            None => {
                // What occurs once stays, in the order of the alphabet.
                let all: Vec<Axis> = factors.iter().flatten().copied().collect();
                let once = |a: &&Axis| all.iter().filter(|b| b == a).count() == 1;
                let mut named: Vec<char> = all
                    .iter()
                    .filter(once)
                    .filter_map(|a| if let Axis::Named(c) = a { Some(*c) } else { None })
                    .collect();
                named.sort_unstable();
                let lead = all.contains(&Axis::Ellipsis).then_some(Axis::Ellipsis);
                lead.into_iter().chain(named.into_iter().map(Axis::Named)).collect()
            }
        };
        let known = |axis: &Axis| factors.iter().flatten().any(|a| a == axis);
        let fits = |(at, axis): (usize, &Axis)| {
            (*axis == Axis::Ellipsis || known(axis)) && !result.iter().take(at).any(|before| before == axis)
        };
        if !result.iter().enumerate().all(fits) {
            return Err(bad());
        }
        Ok(Self { factors, result })
    }

    fn has_ellipsis(&self) -> bool {
        self.factors.iter().flatten().any(|a| *a == Axis::Ellipsis)
    }
}

/// The axes of a factor of this rank, those of the ellipsis one by one.
fn expand(args: Args<'_, '_>, axes: &[Axis], rank: usize) -> Result<SmallVec<[Axis; 8]>, RunError> {
    let named = axes.iter().filter(|a| **a != Axis::Ellipsis).count();
    let open = rank.checked_sub(named).ok_or_else(|| args.fail("inputs of the ranks of the equation"))?;
    let mut all = SmallVec::new();
    for axis in axes {
        match axis {
            Axis::Ellipsis => all.extend((0..open).rev().map(Axis::Broadcast)),
            axis => all.push(*axis),
        }
    }
    if all.len() == rank { Ok(all) } else { Err(args.fail("inputs of the ranks of the equation")) }
}

fn sum<T: Number>(
    args: Args<'_, '_>,
    _: &[T],
    equation: &Equation,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let factors: SmallVec<[SmallVec<[Axis; 8]>; MAX_FACTORS]> = equation
        .factors
        .iter()
        .enumerate()
        .map(|(i, axes)| expand(args, axes, args.get(i)?.dims().len()))
        .collect::<Result<_, _>>()?;
    // The axes of the result, then those that are summed over, and their sizes.
    let widest =
        factors.iter().flatten().filter_map(|a| if let Axis::Broadcast(n) = a { Some(n + 1) } else { None });
    let open = widest.max().unwrap_or(0);
    let mut axes: Vec<Axis> = Vec::new();
    for axis in &equation.result {
        match axis {
            Axis::Ellipsis => axes.extend((0..open).rev().map(Axis::Broadcast)),
            axis => axes.push(*axis),
        }
    }
    let kept = axes.len();
    for axis in factors.iter().flatten() {
        if !axes.contains(axis) {
            axes.push(*axis);
        }
    }
    let mut sizes: Dims = Dims::from_elem(1, axes.len());
    for (index, factor) in factors.iter().enumerate() {
        for (axis, size) in factor.iter().zip(args.get(index)?.dims()) {
            let known = axes.iter().position(|a| a == axis).and_then(|i| sizes.get_mut(i));
            match known {
                Some(known) if *known == 1 || known == size => *known = *size,
                Some(_) if *size == 1 => {}
                _ => return Err(args.fail("axes of one name to have one size")),
            }
        }
    }
    let products = multiplications(&sizes);
    cx.time_for(products, MAX_SINGLE_PRODUCTS)?;
    if products > MAX_PRODUCTS {
        return Err(args.fail("an equation of no more than 2^36 products"));
    }
    // How far each factor moves along each axis; an axis named twice moves along its diagonal.
    let mut strides: [Strides; MAX_FACTORS] = std::array::from_fn(|_| Strides::from_elem(0, axes.len()));
    for ((index, factor), strides) in factors.iter().enumerate().zip(&mut strides) {
        let view = args.get(index)?;
        for ((axis, step), size) in factor.iter().zip(dense(view.dims())).zip(view.dims()) {
            let place = axes.iter().position(|a| a == axis).and_then(|i| strides.get_mut(i));
            place.into_iter().filter(|_| *size != 1).for_each(|p| *p += step);
        }
    }
    let values: SmallVec<[&[T]; MAX_FACTORS]> =
        (0..factors.len()).map(|i| args.values::<T>(i)).collect::<Result<_, _>>()?;
    let (outer, inner) = sizes.split_at_checked(kept).unwrap_or((&sizes, &[]));
    let to = cx.reset::<T>(first(args, outputs)?, outer)?;
    let split = |s: &Strides, part: std::ops::Range<usize>| Strides::from_slice(s.get(part).unwrap_or(&[]));
    let outer_strides = strides.each_ref().map(|s| split(s, 0..kept));
    let inner_strides = strides.each_ref().map(|s| split(s, kept..axes.len()));
    let outer_walk = Walk::new(outer, outer_strides.each_ref());
    let inner_walk = Walk::new(inner, inner_strides.each_ref());
    let mut results = to.iter_mut();
    outer_walk.runs([0; MAX_FACTORS], |start, length, step| {
        for (i, to) in (0_isize..).zip(results.by_ref().take(length)) {
            let begin: [isize; MAX_FACTORS] = std::array::from_fn(|f| {
                start.get(f).copied().unwrap_or(0) + i * step.get(f).copied().unwrap_or(0)
            });
            let mut total = T::ZERO;
            inner_walk.runs(begin, |at, length, step| {
                for k in (0_isize..).take(length) {
                    let mut product = T::ONE;
                    for ((values, at), step) in values.iter().zip(at).zip(step) {
                        let x = values.get((at + k * step).cast_unsigned()).copied().unwrap_or(T::ZERO);
                        product = product.times(x);
                    }
                    total = total.plus(product);
                }
            });
            *to = total;
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_over_axes_that_multiply_is_refused_and_not_begun() {
        let large = Tensor::new(&[600, 600], vec![1.0_f32; 360_000]).unwrap();
        let equation = Equation::parse("ab,cd,ef->").unwrap();
        let inputs = [Some(large.view()); 3];
        let args = Args { operator: "Einsum", inputs: &inputs };
        let run = |cx| sum::<f32>(args, &[], &equation, &mut [Tensor::default()], &cx);
        assert!(matches!(run(RunContext::of_trial(1 << 20)), Err(RunError::TooSlow { .. })));
        assert!(matches!(run(RunContext::new(1 << 20)), Err(RunError::Operator { .. })));
    }

    #[test]
    fn a_result_names_each_axis_once() {
        for equation in ["ab->aba", "...a->......a", "ab->ac"] {
            assert!(Equation::parse(equation).is_err(), "{equation}");
        }
    }

    #[test]
    fn an_equation_without_a_result_keeps_what_occurs_once() {
        let equation = Equation::parse("ij, jk").unwrap();
        assert_eq!(equation.result, [Axis::Named('i'), Axis::Named('k')]);
        assert!(Equation::parse("i->j").is_err());
        assert!(Equation::parse("i+j").is_err());
    }
}
