//! `Unique`: the distinct elements, or the distinct slices along an axis.

use std::cmp::Ordering;

use smallvec::{SmallVec, smallvec};

use super::common::{first_fact, input, same_dims};
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, Element, ElementType, Tensor, TensorView};

const OPERATOR: &str = "Unique";

/// Up to four outputs: the values; where each was first; which of them each element of the input is;
/// how often each is there. All NaN are one value, the last in order, and so are the two zeros.
#[derive(Debug)]
pub(super) struct Unique {
    /// `None` for the elements of the flattened input.
    axis: Option<i64>,
    /// In order of value, else in order of first appearance.
    sorted: bool,
}

/// An input as a row of items, each of which is compared as a whole.
#[derive(Clone, Copy)]
struct Items<'a, T> {
    values: &'a [T],
    count: usize,
    /// An item has `outer * inner` elements.
    outer: usize,
    inner: usize,
}

/// The distinct items: the first position of each, and how often it is there.
struct Distinct {
    first: usize,
    count: usize,
}

impl Unique {
    pub(super) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        Ok(Self { axis: attributes.int("axis")?, sorted: attributes.int("sorted")?.unwrap_or(1) != 0 })
    }

    /// The axis counted from the front, of an input of this rank.
    fn axis(&self, rank: usize) -> Option<Result<usize, RunError>> {
        let axis = self.axis?;
        let rank = i64::try_from(rank).unwrap_or(i64::MAX);
        let front = if axis < 0 { axis.saturating_add(rank) } else { axis };
        let error = RunError::Operator { operator: OPERATOR, expected: "an input that has the axis" };
        Some(usize::try_from(front).ok().filter(|_| front < rank).ok_or(error))
    }

    fn distinct<T: Ordered>(
        &self,
        values: &[T],
        x: TensorView<'_>,
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let (items, mut dims, axis) = match self.axis(x.dims().len()).transpose()? {
            None => {
                let dims: SmallVec<[usize; 8]> = smallvec![values.len()];
                (Items { values, count: values.len(), outer: 1, inner: 1 }, dims, 0)
            }
            Some(axis) => {
                let dims: SmallVec<[usize; 8]> = SmallVec::from_slice(x.dims());
                let (outer, rest) = x.dims().split_at(axis);
                let (count, inner) = rest.split_first().map_or((1, rest), |(count, inner)| (*count, inner));
                let (outer, inner) = (outer.iter().product(), inner.iter().product());
                (Items { values, count, outer, inner }, dims, axis)
            }
        };
        let (distinct, inverse) = items.distinct(self.sorted);
        if let Some(dim) = dims.get_mut(axis) {
            *dim = distinct.len();
        }
        let [out, rest @ ..] = outputs else { return Ok(()) };
        items.gather(&distinct, cx.reset(out, &dims)?);
        let columns: [&mut dyn Iterator<Item = usize>; 3] = [
            &mut distinct.iter().map(|d| d.first),
            &mut inverse.iter().copied(),
            &mut distinct.iter().map(|d| d.count),
        ];
        let lengths = [distinct.len(), items.count, distinct.len()];
        for ((out, column), length) in rest.iter_mut().zip(columns).zip(lengths) {
            for (out, value) in cx.reset::<i64>(out, &[length])?.iter_mut().zip(column) {
                *out = i64::try_from(value).unwrap_or(i64::MAX);
            }
        }
        Ok(())
    }
}

impl<T: Ordered> Items<'_, T> {
    /// The distinct items, and for each item which of them it is.
    fn distinct(&self, sorted: bool) -> (Vec<Distinct>, Vec<usize>) {
        let mut order: Vec<usize> = (0..self.count).collect();
        // Stable: of equal items the first stays the first.
        order.sort_by(|a, b| self.compare(*a, *b));
        let mut distinct: Vec<Distinct> = Vec::new();
        let mut inverse = vec![0; self.count];
        let mut previous = None;
        for position in order {
            match distinct.last_mut() {
                Some(last) if previous.is_some_and(|p| self.compare(p, position).is_eq()) => last.count += 1,
                _ => distinct.push(Distinct { first: position, count: 1 }),
            }
            previous = Some(position);
            if let Some(inverse) = inverse.get_mut(position) {
                *inverse = distinct.len() - 1;
            }
        }
        if !sorted {
            let mut by_place: Vec<usize> = (0..distinct.len()).collect();
            by_place.sort_by_key(|i| distinct.get(*i).map(|d| d.first));
            let mut renumbered = vec![0; distinct.len()];
            for (new, old) in by_place.iter().enumerate() {
                if let Some(number) = renumbered.get_mut(*old) {
                    *number = new;
                }
            }
            for inverse in &mut inverse {
                *inverse = renumbered.get(*inverse).copied().unwrap_or(0);
            }
            distinct.sort_by_key(|d| d.first);
        }
        (distinct, inverse)
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        let pairs = self.elements(a).zip(self.elements(b));
        pairs.map(|(a, b)| a.order(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }

    fn elements(&self, item: usize) -> impl Iterator<Item = &T> {
        (0..self.outer).flat_map(move |outer| self.run(outer, item))
    }

    /// The elements of an item that lie side by side.
    fn run(&self, outer: usize, item: usize) -> &[T] {
        let start = (outer * self.count + item) * self.inner;
        self.values.get(start..start + self.inner).unwrap_or(&[])
    }

    fn gather(&self, distinct: &[Distinct], out: &mut [T]) {
        let places = (0..self.outer).flat_map(|outer| distinct.iter().map(move |d| (outer, d.first)));
        let values = places.flat_map(|(outer, first)| self.run(outer, first));
        out.iter_mut().zip(values).for_each(|(out, value)| out.clone_from(value));
    }
}

/// An element with a total order in which equal means the same value.
trait Ordered: Element {
    fn order(&self, other: &Self) -> Ordering;
}

macro_rules! ordered {
    ($($type:ty),*) => {$(
        impl Ordered for $type {
            fn order(&self, other: &Self) -> Ordering { self.cmp(other) }
        }
    )*};
}
ordered!(i8, i16, i32, i64, u8, u16, u32, u64, bool, String);

macro_rules! ordered_floats {
    ($($type:ty),*) => {$(
        impl Ordered for $type {
            fn order(&self, other: &Self) -> Ordering {
                self.partial_cmp(other).unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }
        }
    )*};
}
ordered_floats!(f32, f64);

impl Kernel for Unique {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        match x.data() {
            DataView::F32(v) => self.distinct(v, x, outputs, cx),
            DataView::F64(v) => self.distinct(v, x, outputs, cx),
            DataView::I8(v) => self.distinct(v, x, outputs, cx),
            DataView::I16(v) => self.distinct(v, x, outputs, cx),
            DataView::I32(v) => self.distinct(v, x, outputs, cx),
            DataView::I64(v) => self.distinct(v, x, outputs, cx),
            DataView::U8(v) => self.distinct(v, x, outputs, cx),
            DataView::U16(v) => self.distinct(v, x, outputs, cx),
            DataView::U32(v) => self.distinct(v, x, outputs, cx),
            DataView::U64(v) => self.distinct(v, x, outputs, cx),
            DataView::Bool(v) => self.distinct(v, x, outputs, cx),
            DataView::String(v) => self.distinct(v, x, outputs, cx),
        }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        let element = first_fact(inputs)?.element;
        let same = same_dims(inputs, 0);
        let rank = same.as_ref().map(SmallVec::len);
        let axis = match rank.and_then(|rank| self.axis(rank)) {
            Some(Err(error)) => return Err(BuildError::invalid(error.to_string())),
            Some(Ok(axis)) => Some(axis),
            None => None,
        };
        let of_axis = axis.and_then(|axis| same.as_ref()?.get(axis).copied()).unwrap_or(FactDim::Unknown);
        let values = match (self.axis, same, axis) {
            (None, _, _) => Some(smallvec![FactDim::Unknown]),
            (Some(_), Some(mut dims), Some(axis)) => {
                if let Some(dim) = dims.get_mut(axis) {
                    *dim = FactDim::Unknown;
                }
                Some(dims)
            }
            _ => None,
        };
        let column = |dim| Fact { element: ElementType::I64, dims: Some(smallvec![dim]) };
        Ok(smallvec![
            Fact { element, dims: values },
            column(FactDim::Unknown),
            column(of_axis),
            column(FactDim::Unknown),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{build, close, run, words};
    use super::*;
    use crate::kernel::Attribute;

    fn unique(axis: Option<i64>, sorted: i64, x: Tensor) -> (Tensor, [Vec<i64>; 3]) {
        let mut attributes = vec![("sorted", Attribute::Int(sorted))];
        attributes.extend(axis.map(|axis| ("axis", Attribute::Int(axis))));
        let mut out = run(&*build(":Unique", attributes).unwrap(), &[x], 4).unwrap();
        let columns = [1, 2, 3].map(|i| out[i].clone().into_values::<i64>().unwrap());
        (out.remove(0), columns)
    }

    fn column() -> Tensor {
        Tensor::vector(vec![2.0_f32, 1.0, 1.0, 3.0, 4.0, 3.0])
    }

    /// From the examples of the specification.
    #[test]
    fn values_come_in_order_or_as_they_appear() {
        let (y, [first, inverse, counts]) = unique(None, 1, column());
        close(&y, &[4], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!((first, inverse, counts), (vec![1, 0, 3, 4], vec![1, 0, 0, 2, 3, 2], vec![2, 1, 2, 1]));
        let (y, [first, inverse, counts]) = unique(None, 0, column());
        close(&y, &[4], &[2.0, 1.0, 3.0, 4.0]);
        assert_eq!((first, inverse, counts), (vec![0, 1, 3, 4], vec![0, 1, 1, 2, 3, 2], vec![1, 2, 2, 1]));
    }

    #[test]
    fn rows_are_compared_as_a_whole() {
        let x = || Tensor::new(&[3, 3], vec![1.0_f32, 0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 3.0, 4.0]).unwrap();
        let (y, [first, inverse, counts]) = unique(Some(0), 1, x());
        close(&y, &[2, 3], &[1.0, 0.0, 0.0, 2.0, 3.0, 4.0]);
        assert_eq!((first, inverse, counts), (vec![0, 2], vec![0, 0, 1], vec![2, 1]));
        let (y, [first, ..]) = unique(Some(-1), 1, x());
        close(&y, &[3, 3], &[0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 3.0, 4.0, 2.0]);
        assert_eq!(first, [1, 2, 0]);
    }

    /// From the examples of the specification.
    #[test]
    fn slices_of_an_inner_axis_are_gathered_from_every_outer_one() {
        let values = [1, 1, 0, 1, 2, 1, 0, 1, 1, 1, 0, 1, 2, 1, 0, 1];
        let x = Tensor::new(&[2, 4, 2], values.map(i64::from).to_vec()).unwrap();
        let (y, [first, inverse, counts]) = unique(Some(1), 1, x);
        assert_eq!(y.dims(), [2, 3, 2]);
        assert_eq!(y.values::<i64>(), Some(&[0, 1, 1, 1, 2, 1, 0, 1, 1, 1, 2, 1][..]));
        assert_eq!((first, inverse, counts), (vec![1, 0, 2], vec![1, 0, 2, 0], vec![2, 1, 1]));
    }

    #[test]
    fn strings_have_an_order_too() {
        let (y, [first, inverse, counts]) = unique(None, 1, words(&[3], &["b", "a", "b"]));
        assert_eq!(y, words(&[2], &["a", "b"]));
        assert_eq!((first, inverse, counts), (vec![1, 0], vec![1, 0, 1], vec![1, 2]));
    }

    #[test]
    fn all_nan_are_one_value_and_the_last() {
        let nan = f32::NAN;
        let (y, [first, inverse, counts]) = unique(None, 1, Tensor::vector(vec![nan, 1.0, -nan, 0.0, -0.0]));
        close(&y, &[3], &[0.0, 1.0, nan]);
        assert_eq!((first, inverse, counts), (vec![3, 1, 0], vec![2, 1, 2, 0, 0], vec![2, 1, 2]));
    }

    #[test]
    fn nothing_and_a_scalar_are_fine() {
        close(&unique(None, 1, Tensor::vector(Vec::<f32>::new())).0, &[0], &[]);
        close(&unique(Some(0), 1, Tensor::new(&[0, 3], Vec::<f32>::new()).unwrap()).0, &[0, 3], &[]);
        close(&unique(None, 1, Tensor::scalar(2.0_f32)).0, &[1], &[2.0]);
    }

    #[test]
    fn an_axis_that_the_input_lacks_is_refused() {
        for axis in [-2, 1, i64::MAX, i64::MIN] {
            let kernel = build(":Unique", vec![("axis", Attribute::Int(axis))]).unwrap();
            let error = run(&*kernel, &[column()], 1).unwrap_err().to_string();
            assert_eq!(error, "Unique expected an input that has the axis");
        }
    }
}
