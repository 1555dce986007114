//! What a caller scores: one row, rows, or named tensors.

use smallvec::SmallVec;

use crate::scorer::PredictError;
use crate::signature::{Dim, Signature, TensorSpec};
use crate::tensor::{Element, ElementType, Shape, ShapeError, Tensor, TensorView};

/// The features of one or more events, in any of the forms that a consumer has them in.
///
/// | form | is |
/// |---|---|
/// | `[f32; N]`, `Vec<f32>`, `&[f32]` | one row for a model with one input |
/// | `[[f32; N]; M]`, `Vec<[f32; N]>`, `&[[f32; N]]`, [`Rows`] | `M` rows for a model with one input |
/// | [`Tensor`], [`TensorView`] | the one input as it is, batch first |
/// | [`NamedTensors`] | any number of inputs, each by its name |
///
/// and the same with any other [`Element`] in the place of `f32`. Nothing is converted: a row of
/// `f64` for a model that takes `f32` is an error.
pub trait Features {
    /// The form that it is in.
    fn inputs(&self) -> Inputs<'_>;
}

/// The forms of [`Features`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Inputs<'a> {
    /// `[rows, width]` values for the only input, to be given that input's shape.
    Rows(TensorView<'a>),
    /// The only input, as it is.
    Whole(TensorView<'a>),
    /// Inputs by name.
    Named(&'a [(String, Tensor)]),
    /// Inputs by name, borrowed.
    NamedViews(&'a [(&'a str, TensorView<'a>)]),
}

impl<'a> Inputs<'a> {
    /// The tensors in the order of the signature's inputs, with types and shapes checked; what
    /// [`Model::run`](crate::load::Model::run) wants.
    ///
    /// # Errors
    /// The first input that is missing, unknown, of another type or shape.
    pub fn bind(self, signature: &Signature) -> Result<Bound<'a>, PredictError> {
        match self {
            Self::Rows(view) => {
                let spec = only_input(signature)?;
                let (rows, elements) = (view.shape().rows(), view.shape().elements());
                check_type(spec, view)?;
                let shaped = spec.shape_of(rows, elements).and_then(|shape| view.reshaped(shape));
                match (shaped, spec.row_elements()) {
                    (Some(view), _) => Ok(smallvec::smallvec![view]),
                    (None, Some(expected)) if expected != view.shape().row_elements() => {
                        Err(PredictError::WrongWidth {
                            input: spec.name().clone(),
                            expected,
                            found: view.shape().row_elements(),
                        })
                    }
                    _ => Err(PredictError::WrongShape { expected: spec.clone(), found: view.shape() }),
                }
            }
            Self::Whole(view) => {
                let spec = only_input(signature)?;
                check_type(spec, view)?;
                check_shape(spec, view)?;
                Ok(smallvec::smallvec![view])
            }
            Self::Named(_) | Self::NamedViews(_) => {
                let mut bound = Bound::new();
                self.bind_named(signature, |view| bound.push(view))?;
                Ok(bound)
            }
        }
    }

    /// Tells `input` the tensors of named inputs in the order of the signature; of others none.
    pub(crate) fn bind_named(
        self,
        signature: &Signature,
        input: impl FnMut(TensorView<'a>),
    ) -> Result<(), PredictError> {
        match self {
            Self::Named(tensors) => {
                let at = |i: usize| tensors.get(i).map(|(name, tensor)| (name.as_str(), tensor.view()));
                bind_named(signature, tensors.len(), at, input)
            }
            Self::NamedViews(views) => bind_named(signature, views.len(), |i| views.get(i).copied(), input),
            Self::Rows(_) | Self::Whole(_) => Ok(()),
        }
    }
}

/// Rows of one type and width, where that is all that a model takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowsOf {
    element: ElementType,
    width: usize,
}

impl RowsOf {
    /// What the model takes, where it has one input of any number of rows of a fixed width.
    pub(crate) fn only_input(signature: &Signature) -> Option<Self> {
        let [spec] = signature.inputs() else { return None };
        let Some(&[Dim::Any, Dim::Fixed(width)]) = spec.dims() else { return None };
        Some(Self { element: spec.element_type(), width })
    }

    /// True where rows can go to the model as they are.
    #[inline]
    pub(crate) fn accepts(self, rows: TensorView<'_>) -> bool {
        rows.element_type() == self.element && matches!(*rows.dims(), [_, width] if width == self.width)
    }
}

/// Inputs in the order of a signature; two of them fit without an allocation.
pub type Bound<'a> = SmallVec<[TensorView<'a>; 2]>;

/// Rows of equal width that lie one after the other.
///
/// ```
/// use modelswap::{Features, Rows};
///
/// let batch = [0.1_f32, 0.2, 0.3, 0.4];
/// let rows = Rows::new(&batch, 2)?;       // two rows of two
/// # let _ = rows.inputs();
/// # Ok::<(), modelswap::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    view: TensorView<'a>,
}

impl<'a> Rows<'a> {
    /// Rows of `width` values.
    ///
    /// # Errors
    /// Where the values are not a whole number of rows.
    pub fn new<T: Element>(values: &'a [T], width: usize) -> Result<Self, ShapeError> {
        let rows = values.len().checked_div(width).unwrap_or(0);
        Ok(Self { view: TensorView::new(&[rows, width], values)? })
    }
}

impl Features for Rows<'_> {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::Rows(self.view)
    }
}

/// Any number of inputs, each by its name.
///
/// ```
/// use modelswap::{NamedTensors, Tensor};
///
/// let customer = NamedTensors::new()
///     .with("age", Tensor::column(vec![31.0_f32]))
///     .with("country", Tensor::column(vec!["NZ".to_owned()]));
/// assert_eq!(customer.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedTensors {
    tensors: Vec<(String, Tensor)>,
}

impl NamedTensors {
    /// No input yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { tensors: Vec::new() }
    }

    /// Adds an input.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, tensor: Tensor) -> Self {
        self.tensors.push((name.into(), tensor));
        self
    }

    /// The number of inputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// True where there is no input.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

impl From<Vec<(String, Tensor)>> for NamedTensors {
    fn from(tensors: Vec<(String, Tensor)>) -> Self {
        Self { tensors }
    }
}

impl Features for NamedTensors {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::Named(&self.tensors)
    }
}

impl Features for [(&str, TensorView<'_>)] {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::NamedViews(self)
    }
}

impl Features for Tensor {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::Whole(self.view())
    }
}

impl Features for TensorView<'_> {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::Whole(*self)
    }
}

impl<T: Element> Features for [T] {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::Rows(TensorView::row(self))
    }
}

impl<T: Element, const N: usize> Features for [T; N] {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::Rows(TensorView::row(self))
    }
}

impl<T: Element> Features for Vec<T> {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::Rows(TensorView::row(self))
    }
}

impl<T: Element, const N: usize> Features for [[T; N]] {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::Rows(matrix(self))
    }
}

impl<T: Element, const N: usize, const M: usize> Features for [[T; N]; M] {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::Rows(matrix(self))
    }
}

impl<T: Element, const N: usize> Features for Vec<[T; N]> {
    fn inputs(&self) -> Inputs<'_> {
        Inputs::Rows(matrix(self))
    }
}

impl<F: Features + ?Sized> Features for &F {
    fn inputs(&self) -> Inputs<'_> {
        (**self).inputs()
    }
}

fn matrix<T: Element, const N: usize>(rows: &[[T; N]]) -> TensorView<'_> {
    let row = TensorView::row(rows.as_flattened());
    row.reshaped(Shape::matrix(rows.len(), N)).unwrap_or(row)
}

fn only_input(signature: &Signature) -> Result<&TensorSpec, PredictError> {
    match signature.inputs() {
        [spec] => Ok(spec),
        several => Err(PredictError::NamesNeeded { inputs: several.len() }),
    }
}

fn bind_named<'a>(
    signature: &Signature,
    given: usize,
    at: impl Fn(usize) -> Option<(&'a str, TensorView<'a>)>,
    mut input: impl FnMut(TensorView<'a>),
) -> Result<(), PredictError> {
    let specs = signature.inputs();
    let mut rows = None;
    for (i, spec) in specs.iter().enumerate() {
        // Callers mostly keep the signature's order, so look there first.
        let name = &**spec.name();
        let view = match at(i) {
            Some((found, view)) if found == name => Some(view),
            _ => (0..given).filter_map(&at).find(|(found, _)| *found == name).map(|(_, view)| view),
        };
        let view = view.ok_or_else(|| PredictError::MissingInput { expected: spec.clone() })?;
        check_type(spec, view)?;
        check_shape(spec, view)?;
        // Inputs whose batch is open have to agree on it, or one would be broadcast in silence.
        if spec.dims().and_then(|d| d.first()).is_some_and(|d| d.fixed().is_none()) {
            let found = view.shape().rows();
            let expected = *rows.get_or_insert(found);
            if found != expected {
                return Err(PredictError::WrongRows { input: spec.name().clone(), expected, found });
            }
        }
        input(view);
    }
    if given > specs.len() {
        let unknown =
            (0..given).find(|i| !at(*i).is_some_and(|(name, _)| specs.iter().any(|s| &**s.name() == name)));
        return Err(PredictError::UnknownInput { position: unknown.unwrap_or(specs.len()) });
    }
    Ok(())
}

fn check_type(spec: &TensorSpec, view: TensorView<'_>) -> Result<(), PredictError> {
    if view.element_type() == spec.element_type() {
        return Ok(());
    }
    Err(PredictError::WrongType { expected: spec.clone(), found: view.element_type() })
}

fn check_shape(spec: &TensorSpec, view: TensorView<'_>) -> Result<(), PredictError> {
    if spec.accepts(view.shape()) {
        return Ok(());
    }
    Err(PredictError::WrongShape { expected: spec.clone(), found: view.shape() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_columns() -> Signature {
        let column = |name, element| TensorSpec::new(name, element, &[Dim::Any, Dim::Fixed(1)]);
        Signature::new(vec![column("age", ElementType::F32), column("country", ElementType::String)], vec![])
    }

    fn one(width: usize) -> Signature {
        Signature::new(vec![TensorSpec::new("x", ElementType::F32, &[Dim::Any, Dim::Fixed(width)])], vec![])
    }

    #[test]
    fn a_row_of_another_width_is_named_with_both_widths() {
        let error = [1.0_f32, 2.0].inputs().bind(&one(3)).unwrap_err();
        assert_eq!(error.to_string(), "input `x`: expected 3 values a row, found 2");
    }

    #[test]
    fn rows_of_arrays_are_a_matrix() {
        let rows = vec![[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0]];
        let bound = rows.inputs().bind(&one(2)).unwrap();
        assert_eq!(bound[0].dims(), [3, 2]);
    }

    #[test]
    fn a_row_of_another_type_is_refused() {
        let error = [1.0_f64].inputs().bind(&one(1)).unwrap_err();
        assert_eq!(error.to_string(), "input `x`: expected f32[?,1], found elements of f64");
    }

    #[test]
    fn named_inputs_come_in_any_order_and_have_to_be_complete() {
        let country = || Tensor::column(vec!["NZ".to_owned()]);
        let age = |rows| Tensor::column(vec![31.0_f32; rows]);
        let swapped = NamedTensors::new().with("country", country()).with("age", age(1));
        assert_eq!(swapped.inputs().bind(&two_columns()).unwrap()[0].values(), Some(&[31.0_f32][..]));

        let missing = NamedTensors::new().with("age", age(1));
        let error = missing.inputs().bind(&two_columns()).unwrap_err();
        assert_eq!(error.to_string(), "input `country` is missing: expected string[?,1]");

        let uneven = NamedTensors::new().with("age", age(2)).with("country", country());
        let error = uneven.inputs().bind(&two_columns()).unwrap_err();
        assert_eq!(error.to_string(), "input `country`: expected 2 rows as in the inputs before it, found 1");

        let unknown = NamedTensors::new().with("a", age(1)).with("age", age(1)).with("country", country());
        let error = unknown.inputs().bind(&two_columns()).unwrap_err();
        assert_eq!(error, PredictError::UnknownInput { position: 0 });
        assert_eq!([1.0_f32].inputs().bind(&two_columns()), Err(PredictError::NamesNeeded { inputs: 2 }));
    }
}
