//! What the operators of this family share: inputs of any number type, rows, labels, facts.

use smallvec::{SmallVec, smallvec};

use crate::kernel::{Attributes, BuildError, Fact, FactDim, RunContext, longest_text};
use crate::load::RunError;
use crate::signature::Labels;
use crate::tensor::{Element, ElementType, Shape, Tensor, TensorView};

/// The four number types that the specification allows as features.
pub(super) const NUMBERS: &str = "f32, f64, i32 or i64";

/// A number that an operator of `ai.onnx.ml` takes as a feature.
pub(super) trait Number: Element + Copy {
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_lossless,
            reason = "features are floats in this domain, whatever type they came in"
        )]
        impl Number for $type {
            #[inline]
            fn to_f32(self) -> f32 { self as f32 }
            #[inline]
            fn to_f64(self) -> f64 { self as f64 }
        }
    )*};
}
numbers!(f32, f64, i32, i64);

/// Runs the expression with the values of a view of one of the four feature types.
macro_rules! with_numbers {
    ($view:expr, $operator:expr, $values:ident => $body:expr) => {
        match $view.data() {
            $crate::tensor::DataView::F32($values) => $body,
            $crate::tensor::DataView::F64($values) => $body,
            $crate::tensor::DataView::I32($values) => $body,
            $crate::tensor::DataView::I64($values) => $body,
            other => Err($crate::load::RunError::InputType {
                operator: $operator,
                expected: $crate::kernel::ml::common::NUMBERS,
                found: other.element_type(),
            }),
        }
    };
}
pub(super) use with_numbers;

/// The input at this position, which the operator cannot do without.
pub(super) fn input<'a>(
    inputs: &[Option<TensorView<'a>>],
    index: usize,
    operator: &'static str,
) -> Result<TensorView<'a>, RunError> {
    inputs
        .get(index)
        .copied()
        .flatten()
        .ok_or(RunError::Operator { operator, expected: "an input where the graph has none" })
}

/// The values of an input that can only be of one type.
pub(super) fn values<'a, T: Element>(
    view: TensorView<'a>,
    operator: &'static str,
) -> Result<&'a [T], RunError> {
    view.values().ok_or(RunError::InputType {
        operator,
        expected: T::TYPE.name(),
        found: view.element_type(),
    })
}

/// Rows and values a row: `[n, c]`, or `[c]`, which is one row.
pub(super) fn rows_and_width(shape: Shape, operator: &'static str) -> Result<(usize, usize), RunError> {
    match *shape.dims() {
        [width] => Ok((1, width)),
        [rows, width] => Ok((rows, width)),
        _ => Err(RunError::Operator { operator, expected: "an input of one or two dimensions" }),
    }
}

/// The same, of rows that have to be `expected` wide.
pub(super) fn rows_of_width(
    shape: Shape,
    expected: usize,
    operator: &'static str,
) -> Result<usize, RunError> {
    match rows_and_width(shape, operator)? {
        (rows, found) if found == expected => Ok(rows),
        (_, found) => Err(RunError::Width { operator, expected, found }),
    }
}

/// The last dimension: the features, to which parameters of one value a feature apply.
pub(super) fn last_dim(shape: Shape) -> usize {
    shape.dims().last().copied().unwrap_or(1)
}

/// The first two outputs, as far as the node has them.
pub(super) fn two(outputs: &mut [Tensor]) -> (Option<&mut Tensor>, Option<&mut Tensor>) {
    match outputs {
        [first, second, ..] => (Some(first), Some(second)),
        [first] => (Some(first), None),
        [] => (None, None),
    }
}

/// The class labels of a classifier: one of the two attributes, and not both.
pub(super) fn class_labels(attributes: &Attributes, strings: &str, ints: &str) -> Result<Labels, BuildError> {
    match (attributes.strings(strings)?, attributes.ints(ints)?) {
        ([], []) => Err(BuildError::invalid(format!("expected `{strings}` or `{ints}`, found neither"))),
        (strings, []) => Ok(Labels::Strings(strings.to_vec())),
        ([], ints) => Ok(Labels::Ints(ints.to_vec())),
        _ => Err(BuildError::invalid(format!("expected `{strings}` or `{ints}`, found both"))),
    }
}

/// How many labels there are.
pub(super) fn label_count(labels: &Labels) -> usize {
    match labels {
        Labels::Ints(labels) => labels.len(),
        Labels::Strings(labels) => labels.len(),
    }
}

/// An error where so many rows of labels are over the memory budget.
pub(super) fn room_for_labels(labels: &Labels, rows: usize, cx: &RunContext) -> Result<(), RunError> {
    match labels {
        Labels::Ints(_) => Ok(()),
        Labels::Strings(labels) => cx.room_for_text(longest_text(labels).saturating_mul(rows as u64)),
    }
}

/// The type of the tensor that holds such labels.
pub(super) const fn label_type(labels: &Labels) -> ElementType {
    match labels {
        Labels::Ints(_) => ElementType::I64,
        Labels::Strings(_) => ElementType::String,
    }
}

/// Writes one label a row: `picks` yields the positions of the winning classes.
pub(super) fn write_labels(
    labels: &Labels,
    out: Option<&mut Tensor>,
    rows: usize,
    picks: impl Iterator<Item = usize>,
) {
    let Some(out) = out else { return };
    match labels {
        Labels::Ints(labels) => {
            for (out, pick) in out.reset::<i64>(Shape::vector(rows)).iter_mut().zip(picks) {
                *out = labels.get(pick).copied().unwrap_or_default();
            }
        }
        Labels::Strings(labels) => {
            for (out, pick) in out.reset::<String>(Shape::vector(rows)).iter_mut().zip(picks) {
                match labels.get(pick) {
                    Some(label) => out.clone_from(label),
                    None => out.clear(),
                }
            }
        }
    }
}

/// Refuses attributes whose length is neither 0 (absent) nor one of `allowed`.
pub(super) fn check_length(name: &str, found: usize, allowed: &[usize]) -> Result<(), BuildError> {
    if found == 0 || allowed.contains(&found) {
        return Ok(());
    }
    let allowed = allowed.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
    Err(BuildError::invalid(format!("attribute `{name}`: expected {allowed} values, found {found}")))
}

/// The fact of the first input, or an error where the node has none.
pub(super) fn first_fact(inputs: &[Option<Fact>]) -> Result<&Fact, BuildError> {
    inputs.first().and_then(Option::as_ref).ok_or_else(|| BuildError::invalid("the first input is absent"))
}

/// The dimensions of an input as an output repeats them.
pub(super) fn same_dims(inputs: &[Option<Fact>], input: usize) -> Option<SmallVec<[FactDim; 4]>> {
    let fact = inputs.get(input)?.as_ref()?;
    let dims = fact.dims.as_ref()?.iter().enumerate();
    Some(dims.map(|(axis, dim)| like(*dim, input, axis)).collect())
}

/// A fact of the shape of the first input and this type.
pub(super) fn same_shape(inputs: &[Option<Fact>], element: ElementType) -> Fact {
    Fact { element, dims: same_dims(inputs, 0) }
}

/// The rows of the first input: its first dimension, or 1 where it has only one.
pub(super) fn rows_fact(inputs: &[Option<Fact>]) -> FactDim {
    match inputs.first().and_then(Option::as_ref).and_then(|fact| fact.dims.as_deref()) {
        Some([_]) => FactDim::Fixed(1),
        Some([rows, ..]) => like(*rows, 0, 0),
        _ => FactDim::Unknown,
    }
}

/// A fact of the shape `[rows of the first input, width]`.
pub(super) fn matrix_fact(inputs: &[Option<Fact>], element: ElementType, width: FactDim) -> Fact {
    Fact { element, dims: Some(smallvec![rows_fact(inputs), width]) }
}

/// The facts of a classifier: labels `[n]` and scores `[n, width]`.
pub(super) fn classifier_facts(
    inputs: &[Option<Fact>],
    labels: &Labels,
    width: usize,
) -> SmallVec<[Fact; 2]> {
    smallvec![
        Fact { element: label_type(labels), dims: Some(smallvec![rows_fact(inputs)]) },
        matrix_fact(inputs, ElementType::F32, FactDim::Fixed(width)),
    ]
}

const fn like(dim: FactDim, input: usize, axis: usize) -> FactDim {
    match dim {
        FactDim::Fixed(n) => FactDim::Fixed(n),
        FactDim::Like { .. } | FactDim::Unknown => FactDim::Like { input, axis },
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Builds and runs one operator in a test.

    use crate::kernel::{Attribute, Attributes, BuildError, Kernel, Node, RunContext, ml};
    use crate::load::RunError;
    use crate::tensor::Tensor;

    /// The kernel of an operator of `ai.onnx.ml`, or of the domain before a colon.
    pub(in crate::kernel::ml) fn build(
        operator: &str,
        attributes: Vec<(&str, Attribute)>,
    ) -> Result<Box<dyn Kernel>, BuildError> {
        build_version(operator, 5, attributes)
    }

    pub(in crate::kernel::ml) fn build_version(
        operator: &str,
        version: i64,
        attributes: Vec<(&str, Attribute)>,
    ) -> Result<Box<dyn Kernel>, BuildError> {
        let (domain, operator) = operator.split_once(':').unwrap_or(("ai.onnx.ml", operator));
        let mut all = Attributes::default();
        for (name, value) in attributes {
            all.insert(name, value);
        }
        ml::build(&Node { operator, domain, version, attributes: &all, inputs: &[], outputs: 4 })
    }

    /// Runs a kernel for its first `count` outputs.
    pub(in crate::kernel::ml) fn run(
        kernel: &dyn Kernel,
        inputs: &[Tensor],
        count: usize,
    ) -> Result<Vec<Tensor>, RunError> {
        let views: Vec<_> = inputs.iter().map(|t| Some(t.view())).collect();
        let mut outputs = vec![Tensor::default(); count];
        kernel.run(&views, &mut outputs, &RunContext::default())?;
        Ok(outputs)
    }

    /// Builds, runs, and gives the only output.
    pub(in crate::kernel::ml) fn one(
        operator: &str,
        attributes: Vec<(&str, Attribute)>,
        input: Tensor,
    ) -> Result<Tensor, RunError> {
        let kernel = build(operator, attributes).expect("the attributes are good");
        Ok(run(&*kernel, &[input], 1)?.remove(0))
    }

    pub(in crate::kernel::ml) fn floats(values: &[f32]) -> Attribute {
        Attribute::Floats(values.to_vec())
    }

    pub(in crate::kernel::ml) fn ints(values: &[i64]) -> Attribute {
        Attribute::Ints(values.to_vec())
    }

    pub(in crate::kernel::ml) fn strings(values: &[&str]) -> Attribute {
        Attribute::Strings(values.iter().map(ToString::to_string).collect())
    }

    pub(in crate::kernel::ml) fn text(value: &str) -> Attribute {
        Attribute::String(value.to_owned())
    }

    /// A string tensor.
    pub(in crate::kernel::ml) fn words(dims: &[usize], values: &[&str]) -> Tensor {
        Tensor::new(dims, values.iter().map(ToString::to_string).collect()).unwrap()
    }

    /// Within 1e-5 relative, NaN equal to NaN.
    #[track_caller]
    pub(in crate::kernel::ml) fn close(found: &Tensor, dims: &[usize], expected: &[f32]) {
        assert_eq!(found.dims(), dims);
        let values = found.values::<f32>().expect("f32 scores");
        assert_eq!(values.len(), expected.len());
        for (f, e) in values.iter().zip(expected) {
            let equal = f.total_cmp(e).is_eq()
                || (f - e).abs() <= 1e-5 * e.abs().max(1e-2)
                || (f.is_nan() && e.is_nan());
            assert!(equal, "found {values:?}, expected {expected:?}");
        }
    }
}
