//! What all standard operators share: a kernel of two closures, arguments, types, facts.

use std::fmt;

use smallvec::SmallVec;

use crate::kernel::{BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, Element, ElementType, MAX_RANK, Tensor, TensorView};

pub(super) type Built = Result<Box<dyn Kernel>, BuildError>;
pub(super) type Facts = Result<SmallVec<[Fact; 2]>, BuildError>;
pub(super) type Run = Result<(), RunError>;
pub(super) type Dims = SmallVec<[usize; MAX_RANK]>;
pub(super) type FactDims = SmallVec<[FactDim; 4]>;

/// A kernel of two functions: what it answers, and what is known of that beforehand.
struct Op<F, R> {
    name: &'static str,
    facts: F,
    run: R,
}

/// A kernel of a function that tells facts and one that runs.
#[expect(clippy::unnecessary_wraps, reason = "what a family's `build` answers")]
pub(super) fn op<F, R>(name: &'static str, facts: F, run: R) -> Built
where
    F: Fn(&[Option<Fact>]) -> Facts + Send + Sync + 'static,
    R: Fn(Args<'_, '_>, &mut [Tensor], &RunContext) -> Run + Send + Sync + 'static,
{
    Ok(Box::new(Op { name, facts, run }))
}

impl<F, R> Kernel for Op<F, R>
where
    F: Fn(&[Option<Fact>]) -> Facts + Send + Sync,
    R: Fn(Args<'_, '_>, &mut [Tensor], &RunContext) -> Run + Send + Sync,
{
    fn run(&self, inputs: &[Option<TensorView<'_>>], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        (self.run)(Args { operator: self.name, inputs }, outputs, cx)
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Facts {
        (self.facts)(inputs)
    }
}

impl<F, R> fmt::Debug for Op<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The inputs of one run.
#[derive(Clone, Copy)]
pub(super) struct Args<'a, 'v> {
    pub(super) operator: &'static str,
    pub(super) inputs: &'a [Option<TensorView<'v>>],
}

impl<'v> Args<'_, 'v> {
    pub(super) fn fail(self, expected: &'static str) -> RunError {
        RunError::Operator { operator: self.operator, expected }
    }

    pub(super) fn maybe(self, index: usize) -> Option<TensorView<'v>> {
        self.inputs.get(index).copied().flatten()
    }

    pub(super) fn get(self, index: usize) -> Result<TensorView<'v>, RunError> {
        self.maybe(index).ok_or_else(|| self.fail("another input"))
    }

    pub(super) fn values<T: Element>(self, index: usize) -> Result<&'v [T], RunError> {
        self.get(index)?.values::<T>().ok_or_else(|| self.fail(expected_type(T::TYPE)))
    }

    /// A list of whole numbers, of either width.
    pub(crate) fn ints(self, index: usize) -> Result<SmallVec<[i64; MAX_RANK]>, RunError> {
        ints(self.get(index)?).ok_or_else(|| self.fail("a list of whole numbers"))
    }

    /// [`Args::ints`] of an input that may be absent.
    pub(super) fn maybe_ints(self, index: usize) -> Result<Option<SmallVec<[i64; MAX_RANK]>>, RunError> {
        if self.maybe(index).is_some() { self.ints(index).map(Some) } else { Ok(None) }
    }

    /// A non-negative axis of a tensor of this rank.
    pub(super) fn axis(self, axis: i64, rank: usize) -> Result<usize, RunError> {
        axis_of(axis, rank).ok_or_else(|| self.fail("an axis that the tensor has"))
    }
}

/// The first output.
pub(super) fn first<'t>(args: Args<'_, '_>, outputs: &'t mut [Tensor]) -> Result<&'t mut Tensor, RunError> {
    outputs.first_mut().ok_or_else(|| args.fail("an output"))
}

/// The elements as `i64`, where they are `i64` or `i32`.
pub(crate) fn ints(view: TensorView<'_>) -> Option<SmallVec<[i64; MAX_RANK]>> {
    match view.data() {
        DataView::I64(v) => Some(v.iter().copied().collect()),
        DataView::I32(v) => Some(v.iter().map(|v| i64::from(*v)).collect()),
        _ => None,
    }
}

/// The axis counted from the front, where there is one.
pub(crate) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let rank_signed = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank_signed)? } else { axis };
    usize::try_from(axis).ok().filter(|a| *a < rank)
}

/// The element type of ONNX's number for it.
pub(super) fn element_of(code: i64) -> Result<ElementType, BuildError> {
    Ok(match code {
        1 => ElementType::F32,
        2 => ElementType::U8,
        3 => ElementType::I8,
        4 => ElementType::U16,
        5 => ElementType::I16,
        6 => ElementType::I32,
        7 => ElementType::I64,
        8 => ElementType::String,
        9 => ElementType::Bool,
        11 => ElementType::F64,
        12 => ElementType::U32,
        13 => ElementType::U64,
        _ => return Err(BuildError::Unsupported),
    })
}

const fn expected_type(element: ElementType) -> &'static str {
    match element {
        ElementType::F32 => "a tensor of f32",
        ElementType::F64 => "a tensor of f64",
        ElementType::I64 => "a tensor of i64",
        ElementType::Bool => "a tensor of bool",
        ElementType::String => "a tensor of strings",
        _ => "tensors of one type",
    }
}

/// Evaluates the body with the elements of any type.
macro_rules! any_type {
    ($view:expr, $values:ident => $body:expr) => {
        match $view.data() {
            $crate::tensor::DataView::F32($values) => $body,
            $crate::tensor::DataView::F64($values) => $body,
            $crate::tensor::DataView::I8($values) => $body,
            $crate::tensor::DataView::I16($values) => $body,
            $crate::tensor::DataView::I32($values) => $body,
            $crate::tensor::DataView::I64($values) => $body,
            $crate::tensor::DataView::U8($values) => $body,
            $crate::tensor::DataView::U16($values) => $body,
            $crate::tensor::DataView::U32($values) => $body,
            $crate::tensor::DataView::U64($values) => $body,
            $crate::tensor::DataView::Bool($values) => $body,
            $crate::tensor::DataView::String($values) => $body,
        }
    };
}
pub(super) use any_type;

/// Evaluates the body with the elements of a type of numbers; any other type is an error.
macro_rules! number_type {
    ($args:expr, $view:expr, $values:ident => $body:expr) => {
        match $view.data() {
            $crate::tensor::DataView::F32($values) => $body,
            $crate::tensor::DataView::F64($values) => $body,
            $crate::tensor::DataView::I8($values) => $body,
            $crate::tensor::DataView::I16($values) => $body,
            $crate::tensor::DataView::I32($values) => $body,
            $crate::tensor::DataView::I64($values) => $body,
            $crate::tensor::DataView::U8($values) => $body,
            $crate::tensor::DataView::U16($values) => $body,
            $crate::tensor::DataView::U32($values) => $body,
            $crate::tensor::DataView::U64($values) => $body,
            _ => Err($args.fail("a tensor of numbers")),
        }
    };
}
pub(super) use number_type;

/// Evaluates the body with the elements of a floating-point type; any other type is an error.
macro_rules! float_type {
    ($args:expr, $view:expr, $values:ident => $body:expr) => {
        match $view.data() {
            $crate::tensor::DataView::F32($values) => $body,
            $crate::tensor::DataView::F64($values) => $body,
            _ => Err($args.fail("a tensor of floats")),
        }
    };
}
pub(super) use float_type;

/// The fact of an input that has to be there.
pub(super) fn fact(inputs: &[Option<Fact>], index: usize) -> Result<&Fact, BuildError> {
    let fact = inputs.get(index).and_then(Option::as_ref);
    fact.ok_or_else(|| BuildError::invalid(format!("input {index} is missing")))
}

/// The dimensions of an input: fixed where they are, else those of the input.
pub(super) fn like(inputs: &[Option<Fact>], index: usize) -> Option<FactDims> {
    let dims = inputs.get(index)?.as_ref()?.dims.as_ref()?;
    let dim = |(axis, dim): (usize, &FactDim)| match dim {
        FactDim::Fixed(n) => FactDim::Fixed(*n),
        _ => FactDim::Like { input: index, axis },
    };
    Some(dims.iter().enumerate().map(dim).collect())
}

/// One output of this type and these dimensions.
#[expect(clippy::unnecessary_wraps, reason = "what `Kernel::facts` answers")]
pub(super) fn one(element: ElementType, dims: Option<FactDims>) -> Facts {
    Ok(smallvec::smallvec![Fact { element, dims }])
}

/// One output of the type and shape of the first input.
pub(super) fn same(inputs: &[Option<Fact>]) -> Facts {
    one(fact(inputs, 0)?.element, like(inputs, 0))
}

/// One output of the type of the first input, of which only the rank may be known.
pub(super) fn of_rank(inputs: &[Option<Fact>], rank: Option<usize>) -> Facts {
    one(fact(inputs, 0)?.element, rank.map(|r| SmallVec::from_elem(FactDim::Unknown, r)))
}

/// The rank of an input, where it is known.
pub(super) fn rank(inputs: &[Option<Fact>], index: usize) -> Option<usize> {
    inputs.get(index)?.as_ref()?.dims.as_ref().map(SmallVec::len)
}

/// The shape that these inputs broadcast to.
pub(super) fn broadcast_fact(
    inputs: &[Option<Fact>],
    indices: impl Iterator<Item = usize>,
) -> Result<Option<FactDims>, BuildError> {
    let mut all: Option<FactDims> = None;
    for index in indices {
        let Some(dims) = like(inputs, index) else { return Ok(None) };
        let Some(so_far) = all else {
            all = Some(dims);
            continue;
        };
        let rank = so_far.len().max(dims.len());
        let aligned = |dims: &FactDims, axis: usize| {
            (axis + dims.len())
                .checked_sub(rank)
                .and_then(|i| dims.get(i).copied())
                .unwrap_or(FactDim::Fixed(1))
        };
        let mut joined = FactDims::new();
        for axis in 0..rank {
            joined.push(match (aligned(&so_far, axis), aligned(&dims, axis)) {
                (FactDim::Fixed(1), other) | (other, FactDim::Fixed(1)) => other,
                (FactDim::Fixed(a), FactDim::Fixed(b)) if a != b => {
                    return Err(BuildError::invalid(format!("shapes do not broadcast: {a} and {b}")));
                }
                (FactDim::Fixed(n), _) | (_, FactDim::Fixed(n)) => FactDim::Fixed(n),
                _ => FactDim::Unknown,
            });
        }
        all = Some(joined);
    }
    Ok(all)
}
